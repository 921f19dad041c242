"""Read what a cluster uses from EC2 and EFS: instances, volumes and file systems by their tags.

The calls that are made are DescribeInstances, DescribeVolumes and DescribeFileSystems, which cost
nothing. EC2 forgets a terminated instance after about an hour, and a volume at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from clusterbox.costs.lines import GP3_FREE_IOPS, GP3_FREE_MIBPS, IO2_TIERS
from clusterbox.costs.usage import NODE_TYPES, InstanceRun, Storage

CLUSTER_TAG = "parallelcluster:cluster-name"
NODE_TYPE_TAG = "parallelcluster:node-type"
QUEUE_TAG = "parallelcluster:queue-name"
RESOURCE_TAG = "parallelcluster:compute-resource-name"
_ENDED = ("shutting-down", "terminated", "stopping", "stopped")
_INTERRUPTED = ("Server.SpotInstanceTermination", "Server.SpotInstanceShutdown")
_PURCHASES = {"spot": "spot", "capacity-block": "capacity-block"}
# Price → where DescribeFileSystems has the bytes.
_EFS_CLASSES = {
    "standard": "ValueInStandard",
    "infrequent_access": "ValueInIA",
    "archive": "ValueInArchive",
}
_BYTES_PER_GIB = 1 << 30
# StateTransitionReason: `User initiated (2026-11-03 08:00:00 GMT)`.
_WHEN = re.compile(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) GMT\)")


@dataclass(frozen=True)
class SeenInstance:
    """An instance as EC2 lists it, with what tells which node it is: address, compute resource."""

    run: InstanceRun
    address: str | None
    resource: str | None


def fetch_instances(client: Any, cluster: str) -> list[SeenInstance]:
    """Return the instances of a cluster that EC2 lists; `client` is boto3's for `ec2`.

    Raises botocore's errors when AWS cannot be asked.
    """
    pages = client.get_paginator("describe_instances").paginate(Filters=_filters(cluster))
    return [
        read_instance(instance, cluster)
        for page in pages
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
        if instance["State"]["Name"] != "pending"
    ]


def fetch_volumes(client: Any, cluster: str) -> list[Storage]:
    """Return the volumes of a cluster that exist, with the IOPS and throughput that are paid."""
    pages = client.get_paginator("describe_volumes").paginate(Filters=_filters(cluster))
    return [
        item
        for page in pages
        for volume in page["Volumes"]
        for item in read_volume(volume, cluster)
    ]


def fetch_file_systems(client: Any, cluster: str) -> list[Storage]:
    """Return the EFS file systems that carry the cluster's tag; `client` is boto3's for `efs`.

    A file system that the environment has for all its clusters is not among them.
    """
    pages = client.get_paginator("describe_file_systems").paginate()
    return [
        item
        for page in pages
        for entry in page["FileSystems"]
        if {"Key": CLUSTER_TAG, "Value": cluster} in entry.get("Tags", [])
        for item in read_file_system(entry, cluster)
    ]


def read_instance(instance: Mapping[str, Any], cluster: str) -> SeenInstance:
    """Return an entry of DescribeInstances as a record.

    Of an end without a time, as Spot interruptions have it, only the start is known as `seen`.
    """
    tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}
    start = int(instance["LaunchTime"].timestamp())
    ended = instance["State"]["Name"] in _ENDED
    end = _end(instance.get("StateTransitionReason", "")) if ended else None
    node_type = tags.get(NODE_TYPE_TAG, "Compute")
    run = InstanceRun(
        instance=instance["InstanceId"],
        instance_type=instance["InstanceType"],
        purchase=_PURCHASES.get(instance.get("InstanceLifecycle", ""), "on-demand"),
        zone=instance.get("Placement", {}).get("AvailabilityZone", "unknown"),
        cluster=cluster,
        node_type=node_type if node_type in NODE_TYPES else "Compute",
        start=start,
        end=None if end is None else max(start, end),
        queue=tags.get(QUEUE_TAG),
        seen=start if ended and end is None else None,
        interrupted=instance.get("StateReason", {}).get("Code") in _INTERRUPTED,
        public_ipv4=0 if ended else _public_addresses(instance),
    )
    return SeenInstance(run, instance.get("PrivateIpAddress"), tags.get(RESOURCE_TAG))


def read_volume(volume: Mapping[str, Any], cluster: str) -> Iterator[Storage]:
    """Yield what an entry of DescribeVolumes costs: its size, and IOPS and throughput above it."""
    kind = volume["VolumeType"]
    start = int(volume["CreateTime"].timestamp())
    amounts = {kind: volume["Size"], **_paid(kind, volume)}
    for name, amount in amounts.items():
        if amount > 0:
            yield Storage(volume["VolumeId"], "ebs", name, Decimal(amount), cluster, start)


def read_file_system(entry: Mapping[str, Any], cluster: str) -> Iterator[Storage]:
    """Yield what an entry of DescribeFileSystems holds in each storage class, and its throughput.

    AWS tells the size of now only; it is taken to have been so since the file system was made.
    """
    sizes = dict(entry["SizeInBytes"])
    start = int(entry["CreationTime"].timestamp())
    if sizes.get("ValueInStandard") is None:
        cold = sum(sizes.get(key) or 0 for key in ("ValueInIA", "ValueInArchive"))
        sizes["ValueInStandard"] = sizes["Value"] - cold
    amounts = {
        _efs_price(name, entry): Decimal(sizes.get(key) or 0) / _BYTES_PER_GIB
        for name, key in _EFS_CLASSES.items()
    }
    if entry.get("ThroughputMode") == "provisioned":
        mibps = entry.get("ProvisionedThroughputInMibps") or 0
        amounts["provisioned.throughput"] = Decimal(str(mibps))
    for price, amount in amounts.items():
        if amount:
            yield Storage(entry["FileSystemId"], "efs", price, amount, cluster, start)


def _efs_price(name: str, entry: Mapping[str, Any]) -> str:
    """Return the name of a storage class's price, as the price list has it."""
    if entry.get("AvailabilityZoneName"):
        return "one_zone" if name == "standard" else f"one_zone.{name}"
    if name == "infrequent_access" and entry.get("ThroughputMode") != "elastic":
        return "bursting.infrequent_access"
    return name


def _paid(kind: str, volume: Mapping[str, Any]) -> Mapping[str, int]:
    iops, mibps = volume.get("Iops") or 0, volume.get("Throughput") or 0
    if kind == "gp3":
        return {"gp3.iops": iops - GP3_FREE_IOPS, "gp3.throughput": mibps - GP3_FREE_MIBPS}
    if kind == "io1":
        return {"io1.iops": iops}
    if kind == "io2":
        first, second = IO2_TIERS
        return {
            "io2.iops": min(iops, first),
            "io2.iops.tier2": min(iops, second) - first,
            "io2.iops.tier3": iops - second,
        }
    return {}


def _filters(cluster: str) -> list[dict[str, Any]]:
    return [{"Name": f"tag:{CLUSTER_TAG}", "Values": [cluster]}]


def _end(reason: str) -> int | None:
    found = _WHEN.search(reason)
    if found is None:
        return None
    moment = datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    return int(moment.timestamp())


def _public_addresses(instance: Mapping[str, Any]) -> int:
    return sum(
        1
        for interface in instance.get("NetworkInterfaces", [])
        for address in interface.get("PrivateIpAddresses", [])
        if address.get("Association", {}).get("PublicIp")
    )
