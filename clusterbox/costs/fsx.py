"""Amazon FSx: which of its prices is whose, in AWS's price list, in a configuration and in an account."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from clusterbox.costs.price import Key, Price, Unknown
from clusterbox.costs.prices import Prices

# IOPS that are part of a GiB of SSD (pricing pages of FSx for ONTAP and FSx for OpenZFS).
FREE_IOPS_PER_GIB = 3

# Usage types of the price list without the region's code, such as Storage.SSD.250 for Lustre, and
# Storage.SAZ_2N:SSD, ThroughputCapacity.MAZ2 or ProvisionedSSDIOPS.MAZ for the others.
_LUSTRE = re.compile(r"Storage\.(SSD|HDD)\.(\d+)")
_OTHERS = re.compile(
    r"(?P<what>Storage|ThroughputCapacity|Provisioned(?:SSD)?IOPS)\.(?P<code>\w+)(?::(?P<disk>\w+))?"
)
# Throughput in MB/s of a TiB → deployment type; no two share one (SharedStorage of ParallelCluster).
_LUSTRE_TYPES = {
    **dict.fromkeys((("SSD", "50"), ("SSD", "100"), ("SSD", "200")), "PERSISTENT_1"),
    **dict.fromkeys((("HDD", "12"), ("HDD", "40")), "PERSISTENT_1"),
    **dict.fromkeys(
        (("SSD", "125"), ("SSD", "250"), ("SSD", "500"), ("SSD", "1000")), "PERSISTENT_2"
    ),
}
# Code of a usage type → deployment type in FSx's API. OpenZFS with high availability in one zone is
# not here: which code it has was not found in public.
_CODES = {
    "ontap": {
        "SAZ_2N": "SINGLE_AZ_1",
        "SAZ_2N2": "SINGLE_AZ_2",
        "MAZ": "MULTI_AZ_1",
        "MAZ2": "MULTI_AZ_2",
    },
    "openzfs": {"SAZ": "SINGLE_AZ_1", "SAZ2": "SINGLE_AZ_2", "MAZ": "MULTI_AZ_1"},
}
_SETTINGS = {
    "lustre": "LustreConfiguration",
    "ontap": "OntapConfiguration",
    "openzfs": "OpenZFSConfiguration",
}

_PARTS = ("SSD", "throughput", "iops")

Part = tuple[Decimal, Price | Unknown]


def classify_fsx(attributes: Mapping[str, str], usage: str) -> Key | None:
    """Return the key of a product of AmazonFSx, None for one that nothing here uses.

    `usage` is its usage type without the region's code. The same one means another price for each
    kind of file system.
    """
    kind = attributes.get("fileSystemType", "").lower()
    if usage == "BackupUsage":
        return Key(f"fsx/{kind}", "backup") if kind in _SETTINGS else None
    if kind == "lustre":
        # Amazon File Cache is made of Lustre, too, and has a list price of its own.
        if attributes.get("operation", "").startswith("CreateFileCache"):
            return None
        return _lustre_key(usage)
    found = _OTHERS.fullmatch(usage)
    deployment = _CODES.get(kind, {}).get(found["code"]) if found else None
    if found is None or deployment is None:
        return None
    parts = {"Storage": found["disk"], "ThroughputCapacity": "throughput"}
    part = parts.get(found["what"], "iops")
    return Key(f"fsx/{kind}", f"{deployment}.{part}") if part in _PARTS else None


def _lustre_key(usage: str) -> Key | None:
    if usage == "Storage":
        return Key("fsx/lustre", "SCRATCH.SSD")
    found = _LUSTRE.fullmatch(usage)
    deployment = _LUSTRE_TYPES.get((found[1], found[2])) if found else None
    if found is None or deployment is None:
        return None
    return Key("fsx/lustre", lustre_price_name(deployment, found[1], found[2]))


def lustre_price_name(deployment: str, disk: str, throughput: object) -> str:
    """Return the name of the price of a GB; `throughput` is MB/s of each TiB, of persistent ones."""
    if deployment.startswith("SCRATCH"):
        return f"SCRATCH.{disk}"
    return f"{deployment}.{disk}.{throughput}"


def file_system_parts(system: Mapping[str, Any], prices: Prices) -> tuple[list[Part], str | None]:
    """Return what a file system is paid for, as amounts with their prices, and what that lacks.

    `system` is as DescribeFileSystems tells it.
    """
    kind = str(system.get("FileSystemType", "")).lower()
    settings = system.get(_SETTINGS.get(kind, "")) or {}
    size, disk = Decimal(system.get("StorageCapacity") or 0), str(system.get("StorageType", "SSD"))
    deployment = str(settings.get("DeploymentType", disk))
    product = f"fsx/{kind}"
    # One unit at least: what is paid by use has no size, and must not look as if it were free.
    size_or_unit = size or Decimal(1)
    if kind == "lustre":
        name = lustre_price_name(deployment, disk, settings.get("PerUnitStorageThroughput"))
        cache = settings.get("DriveCacheType") not in (None, "NONE")
        note = "without its SSD cache, which costs more" if cache else None
        return [(size_or_unit, prices.find(product, name))], note
    if kind not in _SETTINGS:
        return [(size_or_unit, prices.find(product, deployment))], None
    parts = [
        (amount, prices.find(product, f"{deployment}.{name}"))
        for name, amount in _amounts(size_or_unit, disk, settings)
    ]
    pool = ", its capacity pool" if kind == "ontap" else ""
    return parts, f"without backups{pool}"


def _amounts(
    size: Decimal, disk: str, settings: Mapping[str, Any]
) -> Iterator[tuple[str, Decimal]]:
    yield disk, size
    yield "throughput", Decimal(settings.get("ThroughputCapacity") or 0)
    iops = settings.get("DiskIopsConfiguration") or {}
    if iops.get("Mode") == "USER_PROVISIONED":
        yield "iops", max(Decimal(iops.get("Iops") or 0) - FREE_IOPS_PER_GIB * size, Decimal(0))
