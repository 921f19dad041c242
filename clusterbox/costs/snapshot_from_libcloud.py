"""Make the shipped EC2 snapshots from the price file of apache-libcloud.

    python -m clusterbox.costs.snapshot_from_libcloud FOLDER

FOLDER is an unpacked wheel of apache-libcloud (Apache-2.0). Nobody needs this to run `clusterbox`;
it is kept so that anyone can make the files in `data/` again.
"""

from __future__ import annotations

import json
import runpy
import sys
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from clusterbox.costs.cleaning import Listing, clean_prices
from clusterbox.costs.price import Confidence, Key, Price, PriceTable
from clusterbox.costs.snapshot import Row, make_table, write_snapshot

# Shipped regions, and those with the same prices. In the source every type of us-west-2 has the
# price of us-east-1 or one 6 or 10 % off; us-east-2 has its own prices for a few families.
REGIONS = {"us-west-2": ("us-east-1", "us-east-2"), "us-east-1": ("us-west-2", "us-east-2")}
# AWS has changed these since the source was made, by up to 45 % (announced in June 2025 for P4 and
# P5; lower in later lists for U7i). A price known to be old is left out: unknown, not wrong.
SUPERSEDED_FAMILIES = (
    "p4d",
    "p4de",
    "p5",
    "p5en",
    "u7i-12tb",
    "u7in-16tb",
    "u7in-24tb",
    "u7in-32tb",
)
# The file's four values of this type agree on the dedicated price; AWS's own list of January 2026
# has 2.176 USD an hour. It is the one row that the rules get wrong.
DISPROVED_TYPES = ("g4dn.8xlarge",)
NOTES = (
    "confidence listed: as in the source, and it fits the other sizes of its family",
    "confidence peer: of a region with the same prices; the source has 0 or another tenancy here",
    "confidence computed: from the other sizes of the family",
    "confidence voted: a family that is not proportional; several values of the source agree",
)


def main(words: list[str]) -> int:
    """Write the snapshot of each shipped region; return 0, or 2 without a folder."""
    if len(words) != 1:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    folder = Path(words[0])
    for region in REGIONS:
        table = build_table(folder, region)
        path = Path(__file__).parent / "data" / f"{region}.csv"
        write_snapshot(table, path, notes=NOTES)
        sys.stderr.write(f"{path}: {len(table.prices)} prices\n")
    return 0


def build_table(folder: Path, region: str) -> PriceTable:
    """Return the cleaned Linux prices of a region from an unpacked apache-libcloud."""
    file = folder / "libcloud" / "data" / "pricing.json"
    data = json.loads(file.read_text(encoding="utf-8"), parse_float=Decimal, parse_int=Decimal)
    published = datetime.fromtimestamp(int(data["updated"]), UTC).date()
    sizes = runpy.run_path(
        str(folder / "libcloud" / "compute" / "constants" / "ec2_instance_types.py")
    )["INSTANCE_TYPES"]
    places = (region, *REGIONS[region])
    listing = _by_region(data["compute"]["ec2_linux"], places)
    witnesses = _linux_from_rhel(_by_region(data["compute"]["ec2_rhel"], places), sizes)
    rows = [
        Row(
            Key("ec2/linux", kind),
            Price(cleaned.usd, "hour", cleaned.confidence, _source(cleaned.confidence)),
        )
        for kind, cleaned in clean_prices(listing, region, REGIONS[region], witnesses).items()
        if kind.partition(".")[0] not in SUPERSEDED_FAMILIES and kind not in DISPROVED_TYPES
    ]
    return make_table(region, published, "price file of apache-libcloud, cleaned", rows)


def rhel_fee(vcpus: int) -> Decimal:
    """Return what Red Hat Enterprise Linux adds to an instance-hour in USD, by vCPUs.

    Source: Red Hat's pricing for AWS since July 2024; the file shows it in 95 % of its values.
    """
    if vcpus <= 8:
        return vcpus * Decimal("0.0144")
    return vcpus * (Decimal("0.0108") if vcpus < 128 else Decimal("0.0096"))


def _by_region(prices: Mapping[str, Mapping[str, Decimal]], places: tuple[str, ...]) -> Listing:
    listing: dict[str, dict[str, Decimal]] = {place: {} for place in places}
    for kind, by_region in prices.items():
        for place in places:
            if place in by_region:
                listing[place][kind] = by_region[place]
    return listing


def _linux_from_rhel(listing: Listing, sizes: Mapping[str, Any]) -> dict[str, list[Decimal]]:
    """Return Linux prices by type as they follow from those of Red Hat Enterprise Linux."""
    found: dict[str, list[Decimal]] = defaultdict(list)
    for prices in listing.values():
        for kind, usd in prices.items():
            vcpus = int(sizes.get(kind, {}).get("extra", {}).get("vcpu", 0))
            if vcpus and usd > rhel_fee(vcpus):
                found[kind].append(usd - rhel_fee(vcpus))
    return found


def _source(confidence: Confidence) -> str:
    return "libcloud" if confidence is Confidence.LISTED else f"libcloud, {confidence}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
