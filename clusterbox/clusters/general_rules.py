"""Rules that hold for every cluster, of a site or not: secrets, encryption, access, data, cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from clusterbox.clusters.plain_text_secrets import find_plain_text_secrets
from clusterbox.clusters.sections import (
    compute_resources,
    has_nvidia_gpus,
    instance_types,
    is_false,
    is_true,
    pools,
    queues,
    section,
    shared_storage,
)
from clusterbox.site.yaml_file import Location

# Where something stands, and the message about it.
Found = tuple[Location, str]
Configuration = Mapping[str, Any]

_BROAD_POLICIES = {"AdministratorAccess", "IAMFullAccess", "PowerUserAccess"}
_EVERY_ADDRESS = "0.0.0.0/0"
_EVERYWHERE = {_EVERY_ADDRESS, "::/0"}
# The section of each storage type that ParallelCluster can make, and the key of an existing one.
_MADE_STORAGE = {
    "Ebs": ("EbsSettings", "VolumeId"),
    "Efs": ("EfsSettings", "FileSystemId"),
    "FsxLustre": ("FsxLustreSettings", "FileSystemId"),
}


def find_secrets(configuration: Configuration) -> Iterator[Found]:
    """Yield where a password, a key or a token stands in plain text."""
    for location, what in find_plain_text_secrets(configuration):
        yield location, f"A secret stands here in plain text: {what}."


def find_unencrypted_volumes(configuration: Configuration) -> Iterator[Found]:
    """Yield volumes and file systems that ParallelCluster would make without encryption."""
    roots = [section(configuration, "HeadNode", "LocalStorage", "RootVolume")]
    for queue in queues(configuration):
        where = queue.where("ComputeSettings", "LocalStorage", "RootVolume")
        roots.append(section(configuration, *where))
    for root in roots:
        if is_false(root.at("Encrypted")):
            yield root.where("Encrypted"), "The root volume is not encrypted."
    for storage in shared_storage(configuration):
        kind = str(storage.at("StorageType"))
        settings, existing = _MADE_STORAGE.get(kind, ("", ""))
        if not settings or storage.at(settings, existing):
            continue
        encrypted = storage.at(settings, "Encrypted")
        # EBS volumes are encrypted unless told otherwise, EFS only when told so.
        if is_false(encrypted) or (kind == "Efs" and encrypted is None):
            yield storage.where(settings, "Encrypted"), f"{storage.name} is not encrypted."


def find_open_metadata(configuration: Configuration) -> Iterator[Found]:
    """Yield settings that open the instance metadata service, which hands out credentials."""
    if str(section(configuration, "Imds").at("ImdsSupport")) == "v1.0":
        yield (
            ("Imds", "ImdsSupport"),
            "IMDSv1 is allowed: a request that is forged through a program on a node can read "
            "the credentials of its role.",
        )
    if is_false(section(configuration, "HeadNode", "Imds").at("Secured")):
        yield (
            ("HeadNode", "Imds", "Secured"),
            "Every user of the head node can read the credentials of its role.",
        )


def find_directory_without_tls(configuration: Configuration) -> Iterator[Found]:
    """Yield the setting that sends directory passwords unencrypted."""
    key = "ldap_auth_disable_tls_never_use_in_production"
    directory = section(configuration, "DirectoryService")
    if is_true(directory.at("AdditionalSssdConfigs", key)):
        yield (
            directory.where("AdditionalSssdConfigs", key),
            "Passwords go to the directory without TLS.",
        )


def find_storage_deleted_with_cluster(configuration: Configuration) -> Iterator[Found]:
    """Yield storage that ParallelCluster makes and deletes together with the cluster."""
    for storage in shared_storage(configuration):
        settings, existing = _MADE_STORAGE.get(str(storage.at("StorageType")), ("", ""))
        if not settings or storage.at(settings, existing):
            continue
        policy = storage.at(settings, "DeletionPolicy")
        if policy in (None, "Delete"):
            default = "" if policy else ", the default"
            yield (
                storage.where(settings, "DeletionPolicy"),
                f"{storage.name} and all files on it are deleted with the cluster: its "
                f"DeletionPolicy is Delete{default}.",
            )


def find_overlapping_mounts(configuration: Configuration) -> Iterator[Found]:
    """Yield shared storage that is mounted inside another one.

    ParallelCluster 3.16.1 means to refuse it, but its OverlappingMountDirValidator is given the
    names of the storage in the place of their mount directories (`_validate_mount_dirs`).
    """
    mounts = [
        (storage.where("MountDir"), PurePosixPath("/", str(storage.at("MountDir"))))
        for storage in shared_storage(configuration)
        if storage.at("MountDir")
    ]
    for where, inner in mounts:
        for _, outer in mounts:
            if outer in inner.parents:
                yield where, f"The mount directory {inner} lies inside {outer}, another one."


def find_ssh_from_anywhere(configuration: Configuration) -> Iterator[Found]:
    """Yield nodes whose port 22 is open to every address.

    Login pools take the AllowedIps of the head node where they have none of their own
    (`SlurmClusterConfig`).
    """
    head = section(configuration, "HeadNode")
    default = head.at("Ssh", "AllowedIps") or _EVERY_ADDRESS
    for node in (head, *pools(configuration)):
        where = node.where("Ssh", "AllowedIps")
        allowed = node.at("Ssh", "AllowedIps")
        if str(allowed) in _EVERYWHERE:
            yield where, f"Port 22 is open to every address: {allowed}."
        # With SecurityGroups ParallelCluster makes no group, and AllowedIps has no effect.
        elif (
            node.content
            and allowed is None
            and str(default) in _EVERYWHERE
            and not node.at("Networking", "SecurityGroups")
        ):
            yield where, f"Port 22 is open to every address: AllowedIps is {default} by default."


def find_broad_permissions(configuration: Configuration) -> Iterator[Found]:
    """Yield policies that give nodes nearly everything."""
    nodes = (section(configuration, "HeadNode"), *pools(configuration), *queues(configuration))
    for node in nodes:
        policies = node.at("Iam", "AdditionalIamPolicies")
        for index, item in enumerate(policies if isinstance(policies, list) else ()):
            policy = str(item.get("Policy") if isinstance(item, dict) else item).rpartition("/")[2]
            if policy in _BROAD_POLICIES:
                yield (
                    node.where("Iam", "AdditionalIamPolicies", index, "Policy"),
                    f"{policy} lets every user of the node act on nearly the whole account.",
                )
        buckets = node.at("Iam", "S3Access")
        for index, item in enumerate(buckets if isinstance(buckets, list) else ()):
            if not isinstance(item, dict):
                continue
            if item.get("BucketName") == "*" and is_true(item.get("EnableWriteAccess")):
                yield (
                    node.where("Iam", "S3Access", index, "BucketName"),
                    "The node may write to every bucket of the account.",
                )


def find_nodes_kept_idle(configuration: Configuration) -> Iterator[Found]:
    """Yield the setting that keeps idle nodes running for ever."""
    settings = section(configuration, "Scheduling", "SlurmSettings")
    if str(settings.at("ScaledownIdletime")) == "-1":
        yield (
            settings.where("ScaledownIdletime"),
            "Idle nodes are never stopped: -1 switches Slurm's power saving off.",
        )


def find_default_update_strategy(configuration: Configuration) -> Iterator[Found]:
    """Yield that the update strategy of queues is left at its default."""
    settings = section(configuration, "Scheduling", "SlurmSettings")
    if queues(configuration) and settings.at("QueueUpdateStrategy") is None:
        yield (
            settings.where("QueueUpdateStrategy"),
            "Changes of queues need a stop of the whole compute fleet: COMPUTE_FLEET_STOP is the "
            "default.",
        )


def find_missing_log_settings(configuration: Configuration) -> Iterator[Found]:
    """Yield that the section of the logs is absent.

    ParallelCluster's update policy allows changes of retention and deletion, but not to add the
    section that holds them.
    """
    logs = ("Monitoring", "Logs", "CloudWatch")
    if queues(configuration) and not section(configuration, *logs).content:
        yield (
            logs,
            "Retention and deletion of the logs can be changed later only if the section is there "
            "from the start.",
        )


def find_gpu_checks_without_gpus(configuration: Configuration) -> Iterator[Found]:
    """Yield GPU health checks of compute resources that have no GPU."""
    for resource in compute_resources(configuration):
        kinds = instance_types(resource)
        if is_true(resource.at("HealthChecks", "Gpu", "Enabled")) and not any(
            map(has_nvidia_gpus, kinds)
        ):
            yield (
                resource.where("HealthChecks", "Gpu", "Enabled"),
                f"The check does nothing: {', '.join(kinds) or 'no type'} has no NVIDIA GPU.",
            )
