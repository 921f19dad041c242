"""The disks and file systems that a cluster makes for itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clusterbox.clusters.composed import ComposedCluster
from clusterbox.costs.fsx import lustre_price_name
from clusterbox.costs.lines import Sheet
from clusterbox.costs.native import mapping, number
from clusterbox.site.yaml_file import value_at

# ParallelCluster 3.16 where the configuration is silent (pcluster/constants.py, cluster_config.py).
ROOT_GIB = 45
SHARED_EBS_GIB = 40
RAID_VOLUMES = 2


def add_root_volume(
    sheet: Sheet,
    item: str,
    cluster: ComposedCluster,
    machine: Mapping[str, Any],
    *,
    idle: int = 1,
    worst: int | None = None,
) -> None:
    """Write the root volumes of machines; one without a size is as large as its image."""
    root = mapping(value_at(machine, ("LocalStorage", "RootVolume")))
    gib, note = number(root.get("Size"), 0), None
    if not gib:
        gib, note = _image_gib(cluster, machine)
    sheet.add_volume(
        item,
        kind=str(root.get("VolumeType", "gp3")),
        gib=gib,
        iops=number(root.get("Iops"), 0),
        mibps=number(root.get("Throughput"), 0),
        idle=idle,
        worst=worst,
        note=note,
    )


def _image_gib(cluster: ComposedCluster, machine: Mapping[str, Any]) -> tuple[int, str]:
    wanted = value_at(machine, ("Image", "CustomAmi")) or value_at(
        cluster.configuration, ("Image", "CustomAmi")
    )
    for image in cluster.known_images():
        if image.entry.ami == wanted:
            return image.entry.root_gib, "size of its image"
    return ROOT_GIB, "size taken as ParallelCluster's default"


def add_shared_storage(sheet: Sheet, storage: Mapping[str, Any]) -> None:
    """Write what the cluster itself makes; storage that exists already costs its owner."""
    kind, name = storage.get("StorageType"), storage.get("Name")
    if kind == "Ebs":
        settings = mapping(storage.get("EbsSettings"))
        if settings.get("VolumeId"):
            return
        raid = mapping(settings.get("Raid"))
        sheet.add_volume(
            f"EBS {name}",
            kind=str(settings.get("VolumeType", "gp3")),
            gib=number(settings.get("Size"), SHARED_EBS_GIB),
            iops=number(settings.get("Iops"), 0),
            mibps=number(settings.get("Throughput"), 0),
            idle=number(raid.get("NumberOfVolumes"), RAID_VOLUMES) if raid else 1,
        )
    elif kind == "Efs":
        settings = mapping(storage.get("EfsSettings"))
        if not settings.get("FileSystemId"):
            _managed_efs(sheet, f"EFS {name}", settings)
    elif kind == "FsxLustre":
        settings = mapping(storage.get("FsxLustreSettings"))
        if not settings.get("FileSystemId"):
            _managed_lustre(sheet, f"FSx for Lustre {name}", settings)


def _managed_efs(sheet: Sheet, item: str, settings: Mapping[str, Any]) -> None:
    sheet.add_usage(item, "efs", "standard", what="GB stored")
    mode = str(settings.get("ThroughputMode", "bursting"))
    if mode == "elastic":
        sheet.add_usage(f"{item}, read", "efs", "elastic.read", what="GB read")
        sheet.add_usage(f"{item}, written", "efs", "elastic.write", what="GB written")
    if mode == "provisioned":
        amount = number(settings.get("ProvisionedThroughput"), 0)
        sheet.add(
            f"{item}, throughput",
            f"{amount} MiB/s",
            sheet.prices.find("efs", "provisioned.throughput"),
            idle=amount,
            note="less what the stored data brings along",
        )


def _managed_lustre(sheet: Sheet, item: str, settings: Mapping[str, Any]) -> None:
    gib = number(settings.get("StorageCapacity"), 0)
    if not gib:
        sheet.add_unknown(item, "", "its size is that of the backup it is made from")
        return
    deployment = str(settings.get("DeploymentType", "SCRATCH_2"))
    kind = str(settings.get("StorageType", "SSD"))
    name = lustre_price_name(deployment, kind, settings.get("PerUnitStorageThroughput"))
    cache = settings.get("DriveCacheType")
    sheet.add(
        item,
        f"{gib} GiB {deployment}",
        sheet.prices.find("fsx/lustre", name),
        idle=gib,
        note="without its SSD cache, which costs more" if cache not in (None, "NONE") else None,
    )
