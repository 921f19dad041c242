"""What AWS's price list says, as prices: the same for its query API and for its bulk files.

The attributes and usage types are those of the AWS Price List documentation ("Reading service price
list files") and of the files themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from clusterbox.costs.fsx import classify_fsx
from clusterbox.costs.price import Confidence, Key, Price
from clusterbox.costs.snapshot import Row

# Service codes that are asked, each with the product families that are read of it; a family of
# None is any. EC2 is by far the largest service, so that its families are named.
SERVICES: dict[str, tuple[str | None, ...]] = {
    "AmazonEC2": (
        "Compute Instance",
        "Compute Instance (bare metal)",
        "Storage",
        "System Operation",
        "Provisioned Throughput",
        "Storage Snapshot",
        "NAT Gateway",
    ),
    "AmazonVPC": (None,),
    "AmazonEFS": (None,),
    "AmazonFSx": (None,),
    "AmazonS3": ("Storage",),
    "AWSDataTransfer": ("Data Transfer",),
}
# What reading raises where the data are not what AWS documents.
MALFORMED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
INSTANCE_FAMILIES = ("Compute Instance", "Compute Instance (bare metal)")
_OPERATING_SYSTEMS = {"Linux": "linux", "Windows": "windows", "RHEL": "rhel", "SUSE": "suse"}
# Usage types start with the region's code, but for some of us-east-1: USW2-NatGateway-Hours.
_REGION_CODE = re.compile(r"^[A-Z]{2,4}\d?-")
# Service and usage type, without the region's code → key.
_USAGE_TYPES = {
    ("AmazonEC2", "EBS:VolumeUsage"): Key("ebs", "standard"),
    ("AmazonEC2", "EBS:VolumeUsage.gp2"): Key("ebs", "gp2"),
    ("AmazonEC2", "EBS:VolumeUsage.gp3"): Key("ebs", "gp3"),
    ("AmazonEC2", "EBS:VolumeUsage.piops"): Key("ebs", "io1"),
    ("AmazonEC2", "EBS:VolumeUsage.io2"): Key("ebs", "io2"),
    ("AmazonEC2", "EBS:VolumeUsage.st1"): Key("ebs", "st1"),
    ("AmazonEC2", "EBS:VolumeUsage.sc1"): Key("ebs", "sc1"),
    ("AmazonEC2", "EBS:VolumeP-IOPS.gp3"): Key("ebs", "gp3.iops"),
    ("AmazonEC2", "EBS:VolumeP-IOPS.piops"): Key("ebs", "io1.iops"),
    ("AmazonEC2", "EBS:VolumeP-IOPS.io2"): Key("ebs", "io2.iops"),
    ("AmazonEC2", "EBS:VolumeP-IOPS.io2.tier2"): Key("ebs", "io2.iops.tier2"),
    ("AmazonEC2", "EBS:VolumeP-IOPS.io2.tier3"): Key("ebs", "io2.iops.tier3"),
    ("AmazonEC2", "EBS:VolumeP-Throughput.gp3"): Key("ebs", "gp3.throughput"),
    ("AmazonEC2", "EBS:SnapshotUsage"): Key("ebs", "snapshot"),
    ("AmazonEC2", "EBS:SnapshotArchiveStorage"): Key("ebs", "snapshot.archive"),
    ("AmazonEC2", "NatGateway-Hours"): Key("vpc", "nat.hour"),
    ("AmazonEC2", "NatGateway-Bytes"): Key("vpc", "nat.gb"),
    ("AmazonVPC", "VpcEndpoint-Hours"): Key("vpc", "endpoint.hour"),
    ("AmazonVPC", "VpcEndpoint-Bytes"): Key("vpc", "endpoint.gb"),
    ("AmazonVPC", "PublicIPv4:InUseAddress"): Key("vpc", "public_ipv4"),
    ("AmazonEFS", "TimedStorage-ByteHrs"): Key("efs", "standard"),
    ("AmazonEFS", "TimedStorage-Z-ByteHrs"): Key("efs", "one_zone"),
    ("AmazonEFS", "IATimedStorage-ByteHrs"): Key("efs", "bursting.infrequent_access"),
    ("AmazonEFS", "IATimedStorage-ET-ByteHrs"): Key("efs", "infrequent_access"),
    ("AmazonEFS", "ArchiveTimedStorage-ByteHrs"): Key("efs", "archive"),
    ("AmazonEFS", "IADataAccess-Bytes"): Key("efs", "infrequent_access.access"),
    ("AmazonEFS", "ProvisionedTP-MiBpsHrs"): Key("efs", "provisioned.throughput"),
    ("AmazonS3", "TimedStorage-ByteHrs"): Key("s3", "standard"),
    ("AmazonS3", "TimedStorage-SIA-ByteHrs"): Key("s3", "infrequent_access"),
    ("AmazonS3", "TimedStorage-ZIA-ByteHrs"): Key("s3", "one_zone.infrequent_access"),
    ("AWSDataTransfer", "DataTransfer-Out-Bytes"): Key("data_transfer", "out"),
}
# Name of the prices of an amount: the first is under the key's own name.
_TIERS = ("", ".tier2", ".tier3", ".tier4", ".tier5")
# AWS's unit → ours, and how many of ours are in one of AWS's.
_UNITS = {
    "Hrs": ("hour", 1),
    "hours": ("hour", 1),
    "GB-Mo": ("GB-month", 1),
    "GB-month": ("GB-month", 1),
    "GB": ("GB", 1),
    "GigaBytes": ("GB", 1),
    "IOPS-Mo": ("IOPS-month", 1),
    "GiBps-mo": ("MiBps-month", 1024),
    "MiBps-Mo": ("MiBps-month", 1),
    "MBps-Mo": ("MiBps-month", 1),
}


def classify(product: Mapping[str, Any]) -> Key | None:
    """Return the key of a product of the price list, None for one that nothing here uses."""
    attributes = product.get("attributes", {})
    if product.get("productFamily") in INSTANCE_FAMILIES:
        return _instance_key(attributes)
    service = attributes.get("servicecode", "")
    usage = _REGION_CODE.sub("", attributes.get("usagetype", ""))
    if service == "AmazonFSx":
        return classify_fsx(attributes, usage)
    if (service, usage) == ("AmazonEFS", "ETDataAccess-Bytes"):
        direction = attributes.get("accessType", "").lower()
        return Key("efs", f"elastic.{direction}") if direction in ("read", "write") else None
    if service == "AWSDataTransfer" and attributes.get("toLocation") != "External":
        return None
    return _USAGE_TYPES.get((service, usage))


def read_terms(key: Key, terms: Mapping[str, Any], source: str) -> Iterator[Row]:
    """Yield the on-demand prices of a product: one, or one for each tier of the amount used.

    A price of 0 is none: AWS lists it for what another product is charged with.
    """
    for term in terms.values():
        dimensions = sorted(
            (
                dimension
                for dimension in term["priceDimensions"].values()
                if dimension["unit"] in _UNITS and "USD" in dimension["pricePerUnit"]
            ),
            key=lambda dimension: Decimal(dimension.get("beginRange") or 0),
        )
        paid = [entry for entry in dimensions if Decimal(entry["pricePerUnit"]["USD"]) > 0]
        for tier, dimension in zip(_TIERS, paid, strict=False):
            unit, many = _UNITS[dimension["unit"]]
            usd = (Decimal(dimension["pricePerUnit"]["USD"]) / many).normalize()
            name = f"{key.name}{tier}"
            yield Row(Key(key.product, name), Price(usd, unit, Confidence.PUBLISHED, source))


def _instance_key(attributes: Mapping[str, str]) -> Key | None:
    system = _OPERATING_SYSTEMS.get(attributes.get("operatingSystem", ""))
    wanted = {
        "tenancy": "Shared",
        "capacitystatus": "Used",
        "preInstalledSw": "NA",
        "licenseModel": "No License required",
    }
    if system is None or any(attributes.get(name) != value for name, value in wanted.items()):
        return None
    # Local zones and Outposts have prices of their own under the code of their region.
    if attributes.get("locationType", "AWS Region") != "AWS Region":
        return None
    if attributes.get("marketoption", "OnDemand") != "OnDemand":
        return None
    return Key(f"ec2/{system}", attributes["instanceType"])
