"""What one thing of an account costs a month: now, and if it ran.

Nothing is counted twice: a machine's cost is the machine alone, and its disks are things of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from clusterbox.costs.estimate import add_amounts
from clusterbox.costs.fsx import file_system_parts
from clusterbox.costs.lines import Sheet, rate
from clusterbox.costs.price import Key, Price, Unknown
from clusterbox.costs.prices import Prices

ZERO = Decimal(0)
# Amounts are rounded to this, so that sums are exact and do not depend on their order.
MICRO_USD = Decimal("0.000001")
# AWS bills storage by GiB, under the name of GB.
BYTES_PER_GB = Decimal(2**30)
# GB of a month, of an account in a region, up to which S3's first and second price hold.
S3_TIERS = (Decimal(51_200), Decimal(512_000))

_SYSTEMS = {
    "Linux/UNIX": "linux",
    "Red Hat Enterprise Linux": "rhel",
    "SUSE Linux": "suse",
    "Windows": "windows",
}
# StorageType of the CloudWatch metric BucketSizeBytes → name of its price. What Intelligent-Tiering
# keeps and what objects add costs as much as the class beside it (Amazon S3 user guide, "Metrics
# and dimensions"; Amazon S3 pricing).
_S3_PRICES = {
    "StandardStorage": "standard",
    "StandardIAStorage": "infrequent_access",
    "StandardIASizeOverhead": "infrequent_access",
    "OneZoneIAStorage": "one_zone.infrequent_access",
    "OneZoneIASizeOverhead": "one_zone.infrequent_access",
    "GlacierInstantRetrievalStorage": "glacier.instant",
    "GlacierInstantRetrievalSizeOverhead": "glacier.instant",
    "GlacierStorage": "glacier",
    "GlacierObjectOverhead": "glacier",
    "GlacierS3ObjectOverhead": "standard",
    "GlacierStagingStorage": "standard",
    "DeepArchiveStorage": "glacier.deep_archive",
    "DeepArchiveObjectOverhead": "glacier.deep_archive",
    "DeepArchiveS3ObjectOverhead": "standard",
    "DeepArchiveStagingStorage": "standard",
    "IntelligentTieringFAStorage": "standard",
    "IntelligentTieringIAStorage": "infrequent_access",
    "IntelligentTieringAIAStorage": "glacier.instant",
    "IntelligentTieringAAStorage": "glacier",
    "IntelligentTieringDAAStorage": "glacier.deep_archive",
    "IntAAObjectOverhead": "glacier",
    "IntAAS3ObjectOverhead": "standard",
    "IntDAAObjectOverhead": "glacier.deep_archive",
    "IntDAAS3ObjectOverhead": "standard",
}


@dataclass(frozen=True, slots=True)
class Cost:
    """USD a month of 730 hours. None is not known, and never 0.

    `unknown` says what has no price; the amounts are then None, or lack that part.
    """

    now: Decimal | None
    if_running: Decimal | None
    unknown: str | None = None
    note: str | None = None


NOTHING = Cost(ZERO, ZERO)


def unknown_cost(reason: str, *, now: Decimal | None = None, note: str | None = None) -> Cost:
    """Return a cost that is not known; `now` is 0 where the thing costs nothing as it is."""
    return Cost(now, None, reason, note)


def sum_parts(parts: Iterable[tuple[Decimal, Price | Unknown]], note: str | None = None) -> Cost:
    """Return the cost of amounts with their prices; an amount of 0 needs no price."""
    amounts: list[Decimal | None] = []
    missing: list[str] = []
    for amount, price in parts:
        if not amount:
            continue
        if isinstance(price, Unknown):
            missing.append(str(price))
            amounts.append(None)
        else:
            amounts.append(amount * price.month())
    known = ZERO if not amounts else add_amounts(amounts)
    usd = None if known is None else known.quantize(MICRO_USD)
    return Cost(usd, usd, "; ".join(missing) or None, note)


def instance_cost(
    instance: Mapping[str, Any], prices: Prices, spot: Price | Unknown | None
) -> Cost:
    """Return the cost of an EC2 instance as DescribeInstances tells it, without its disks.

    `spot` is the Spot price of its type in its zone, None for an instance that is not Spot. A
    stopped instance costs nothing itself, whether its price is known or not.
    """
    running = instance["State"]["Name"] in ("pending", "running")
    kind = str(instance["InstanceType"])
    price = _instance_price(instance, kind, prices, spot)
    if isinstance(price, Unknown):
        return unknown_cost(str(price), now=None if running else ZERO)
    usd = price.month().quantize(MICRO_USD)
    note = None if spot is None else f"Spot at {rate(price)}, {price.source}"
    return Cost(usd if running else ZERO, usd, None, note)


def _instance_price(
    instance: Mapping[str, Any], kind: str, prices: Prices, spot: Price | Unknown | None
) -> Price | Unknown:
    tenancy = instance.get("Placement", {}).get("Tenancy", "default")
    platform = instance.get("PlatformDetails") or (
        "Windows" if instance.get("Platform") == "windows" else "Linux/UNIX"
    )
    system = _SYSTEMS.get(platform)
    key = Key(f"ec2/{system or platform}", kind)
    if tenancy != "default":
        return Unknown(key, prices.region, f"the prices are of shared tenancy, not {tenancy}")
    if system is None:
        return Unknown(key, prices.region, f"the prices know no {platform}")
    if instance.get("InstanceLifecycle") == "capacity-block":
        return Unknown(key, prices.region, "a capacity block was paid when it was bought")
    if spot is None:
        return prices.instance(kind, system)
    if system != "linux":
        return Unknown(key, prices.region, "the Spot prices are those of Linux")
    return spot


def volume_cost(volume: Mapping[str, Any], prices: Prices) -> Cost:
    """Return the cost of an EBS volume: its size, and IOPS and throughput above what is free."""
    sheet = Sheet("volume", prices)
    sheet.add_volume(
        "volume",
        kind=str(volume.get("VolumeType", "standard")),
        gib=int(volume["Size"]),
        iops=volume.get("Iops"),
        mibps=volume.get("Throughput"),
    )
    usd = add_amounts(line.idle for line in sheet.lines)
    usd = None if usd is None else usd.quantize(MICRO_USD)
    missing = "; ".join(line.unknown for line in sheet.lines if line.unknown)
    return Cost(usd, usd, missing or None)


def snapshot_cost(snapshot: Mapping[str, Any], prices: Prices) -> Cost:
    """Return what a snapshot costs at most: EC2 does not tell how much it shares with others.

    It holds at most its blocks that were written, where EC2 says so, else its whole volume.
    """
    written = snapshot.get("FullSnapshotSizeInBytes")
    size = Decimal(written) / BYTES_PER_GB if written else Decimal(snapshot["VolumeSize"])
    archived = snapshot.get("StorageTier") == "archive"
    price = prices.find("ebs", "snapshot.archive" if archived else "snapshot")
    return sum_parts([(size, price)], "at most: blocks shared with other snapshots cost once")


def hourly_cost(price: Price | Unknown, count: int = 1, note: str | None = None) -> Cost:
    """Return the cost of something that is paid by the hour."""
    return sum_parts([(Decimal(count), price)], note)


def file_system_cost(system: Mapping[str, Any], prices: Prices) -> Cost:
    """Return the cost of what an EFS file system holds, by storage class, and its throughput."""
    size = system.get("SizeInBytes") or {}
    if "Value" not in size:
        return unknown_cost("EFS did not tell its size")
    infrequent, archive = size.get("ValueInIA") or 0, size.get("ValueInArchive") or 0
    standard = size.get("ValueInStandard")
    standard = size["Value"] - infrequent - archive if standard is None else standard
    mode = system.get("ThroughputMode", "bursting")
    one_zone = "AvailabilityZoneName" in system
    cold = "infrequent_access" if mode == "elastic" else "bursting.infrequent_access"
    names = {
        "one_zone" if one_zone else "standard": standard,
        f"one_zone.{cold}" if one_zone else cold: infrequent,
        "one_zone.archive" if one_zone else "archive": archive,
    }
    parts = [
        (Decimal(value) / BYTES_PER_GB, prices.find("efs", name)) for name, value in names.items()
    ]
    note = "without what is read and written" if mode == "elastic" else None
    if mode == "provisioned":
        mibps = Decimal(str(system.get("ProvisionedThroughputInMibps") or 0))
        parts.append((mibps, prices.find("efs", "provisioned.throughput")))
        note = "what throughput the stored data brings along is not deducted"
    return sum_parts(parts, note)


def fsx_cost(system: Mapping[str, Any], prices: Prices) -> Cost:
    """Return the cost of an FSx file system: its capacity, throughput and IOPS."""
    parts, note = file_system_parts(system, prices)
    return sum_parts(parts, note)


def bucket_costs(sizes: Mapping[str, Mapping[str, Decimal]], prices: Prices) -> dict[str, Cost]:
    """Return the cost of each bucket of an account in a region.

    `sizes` are GB by bucket and StorageType. S3's lower prices of large amounts hold for all
    buckets together, so that each pays the mean price of a GB.
    """
    standard = sum((held.get("StandardStorage", ZERO) for held in sizes.values()), ZERO)
    mean = _mean_s3_price(standard, prices)
    return {
        bucket: sum_parts(
            (amount, mean if kind == "StandardStorage" else _s3_price(kind, prices))
            for kind, amount in held.items()
        )
        for bucket, held in sizes.items()
    }


def _s3_price(kind: str, prices: Prices) -> Price | Unknown:
    return prices.find("s3", _S3_PRICES.get(kind, kind))


def _mean_s3_price(amount: Decimal, prices: Prices) -> Price | Unknown:
    """Return the mean price of a GB in the class Standard when `amount` GB are held."""
    first = prices.find("s3", "standard")
    if isinstance(first, Unknown) or amount <= S3_TIERS[0]:
        return first
    total, below = ZERO, ZERO
    for name, limit in zip(
        ("standard", "standard.tier2", "standard.tier3"), (*S3_TIERS, amount), strict=True
    ):
        price = prices.find("s3", name)
        held = max(min(amount, limit) - below, ZERO)
        if isinstance(price, Unknown):
            if held:
                return price
            continue
        total += held * price.usd
        below = limit
    return Price(total / amount, first.unit, first.confidence, first.source)
