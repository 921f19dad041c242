"""Keys and values of older ParallelCluster schemas, since when they are gone, and what to use.

Sources: CHANGELOG.md of aws/aws-parallelcluster; for 2.x the library's own
`pcluster3-config-converter`; AWS Batch and Amazon Linux 2 its pull request 7394, merged between
3.15.0 and 3.16.0. A key that was only deprecated is not here: 3.16.1 still takes it, as
`PlacementGroup.Id` and `Efa.GdrSupport`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_CONVERT = "`pcluster3-config-converter -c FILE` converts such a file"

# Keys of 3.x that are gone: path without the numbers in brackets → since when, what to use.
_REMOVED_KEYS = {
    "Scheduling.AwsBatchQueues": ("3.16.0", "use Scheduler: slurm and describe SlurmQueues"),
    "Scheduling.AwsBatchSettings": ("3.16.0", "use Scheduler: slurm and SlurmSettings"),
    "Scheduling.SchedulerQueues": ("3.7.0", "use Scheduler: slurm and describe SlurmQueues"),
    "Scheduling.SchedulerSettings": ("3.7.0", "use Scheduler: slurm and SlurmSettings"),
    "LoginNodes.Pools.Ssh.KeyName": (
        "3.15.0",
        "delete it: login nodes take the key pair of HeadNode.Ssh.KeyName",
    ),
    "HeadNode.LocalStorage.RootVolume.KmsKeyId": (
        "3.1.1",
        "delete it and keep Encrypted: true; root volumes take the account's default EBS key",
    ),
    "Scheduling.SlurmQueues.ComputeSettings.LocalStorage.RootVolume.KmsKeyId": (
        "3.1.1",
        "delete it and keep Encrypted: true; root volumes take the account's default EBS key",
    ),
    "HeadNode.LocalStorage.EphemeralVolume.Encrypted": (
        "3.0.0",
        "delete it: instance store volumes are encrypted by their hardware",
    ),
    "Scheduling.SlurmQueues.ComputeSettings.LocalStorage.EphemeralVolume.Encrypted": (
        "3.0.0",
        "delete it: instance store volumes are encrypted by their hardware",
    ),
    "Monitoring.Logs.CloudWatch.RetainOnDeletion": (
        "3.0.0",
        "write DeletionPolicy: Retain or Delete in its place",
    ),
    # What the converter itself writes, and no 3.x schema takes.
    "Iam.Role": ("3.0.0", "write Iam.Roles.LambdaFunctionsRole in its place"),
    "SharedStorage.EbsSettings.Throughout": ("3.0.0", "write Throughput in its place"),
}
_SYSTEMS = "alinux2023, ubuntu2204, ubuntu2404, rhel8, rhel9, rocky8 or rocky9"
# Values that are gone: path → value → since when. ubuntu1604, alinux and centos6 are of 2.x.
_REMOVED_VALUES = {
    "Image.Os": {
        "alinux2": "3.16.0",
        "ubuntu2004": "3.14.0",
        "centos7": "3.10.0",
        "ubuntu1804": "3.7.0",
        "centos8": "3.0.0",
        "alinux": "2.11.0",
        "ubuntu1604": "2.11.0",
        "centos6": "2.10.0",
    },
    "Scheduling.Scheduler": {
        "awsbatch": "3.16.0",
        "plugin": "3.2.0",
        "sge": "3.0.0",
        "torque": "3.0.0",
    },
}
_VALUE_REPLACEMENTS = {
    "Image.Os": f"set it to {_SYSTEMS}, together with an image of that system",
    "Scheduling.Scheduler": "set it to slurm and describe SlurmQueues",
}
# Sections that an older scheduler had in the place of a required one.
_QUEUES_OF_OTHERS = ("AwsBatchQueues", "SchedulerQueues")

# Keys of the INI files of 2.x, and where 3.x has them.
_INI_KEYS = {
    "additional_cfn_template": "AdditionalResources",
    "additional_iam_policies": "HeadNode.Iam.AdditionalIamPolicies and the queues' Iam",
    "additional_sg": "Networking.AdditionalSecurityGroups of HeadNode and queues",
    "aws_region_name": "Region",
    "base_os": "Image.Os",
    "cluster_resource_bucket": "CustomS3Bucket",
    "cluster_type": "Scheduling.SlurmQueues[].CapacityType",
    "compute_instance_type": "Scheduling.SlurmQueues[].ComputeResources[].InstanceType",
    "compute_root_volume_size": "Scheduling.SlurmQueues[].ComputeSettings.LocalStorage.RootVolume",
    "compute_subnet_id": "Scheduling.SlurmQueues[].Networking.SubnetIds",
    "custom_ami": "Image.CustomAmi",
    "custom_chef_cookbook": "DevSettings.Cookbook.ChefCookbook",
    "cw_log_settings": "Monitoring.Logs.CloudWatch",
    "dashboard_settings": "Monitoring.Dashboards.CloudWatch",
    "dcv_settings": "HeadNode.Dcv",
    "disable_cluster_dns": "Scheduling.SlurmSettings.Dns.DisableManagedDns",
    "disable_hyperthreading": "DisableSimultaneousMultithreading of HeadNode and ComputeResources",
    "ebs_settings": "SharedStorage with StorageType: Ebs",
    "ec2_iam_role": "Iam.InstanceRole of HeadNode and queues",
    "efs_settings": "SharedStorage with StorageType: Efs",
    "enable_efa": "Scheduling.SlurmQueues[].ComputeResources[].Efa.Enabled",
    "enable_intel_hpc_platform": "AdditionalPackages.IntelSoftware.IntelHpcPlatform",
    "ephemeral_dir": "LocalStorage.EphemeralVolume.MountDir",
    "extra_json": "DevSettings.Cookbook.ExtraChefAttributes",
    "fsx_settings": "SharedStorage with StorageType: FsxLustre",
    "iam_lambda_role": "Iam.Roles.LambdaFunctionsRole",
    "initial_queue_size": "Scheduling.SlurmQueues[].ComputeResources[].MinCount",
    "instance_types_data": "DevSettings.InstanceTypesData",
    "key_name": "HeadNode.Ssh.KeyName",
    "master_instance_type": "HeadNode.InstanceType",
    "master_root_volume_size": "HeadNode.LocalStorage.RootVolume.Size",
    "master_subnet_id": "HeadNode.Networking.SubnetId",
    "max_queue_size": "Scheduling.SlurmQueues[].ComputeResources[].MaxCount",
    "placement_group": "Scheduling.SlurmQueues[].Networking.PlacementGroup",
    "post_install": "CustomActions.OnNodeConfigured of HeadNode and queues",
    "pre_install": "CustomActions.OnNodeStart of HeadNode and queues",
    "proxy_server": "Networking.Proxy.HttpProxyAddress of HeadNode and queues",
    "queue_settings": "Scheduling.SlurmQueues",
    "raid_settings": "SharedStorage with EbsSettings.Raid",
    "s3_read_resource": "Iam.S3Access of HeadNode and queues",
    "s3_read_write_resource": "Iam.S3Access with EnableWriteAccess: true of HeadNode and queues",
    "scaling_settings": "Scheduling.SlurmSettings.ScaledownIdletime",
    "scheduler": "Scheduling.Scheduler",
    "shared_dir": "SharedStorage[].MountDir",
    "spot_price": "Scheduling.SlurmQueues[].ComputeResources[].SpotPrice",
    "ssh_from": "HeadNode.Ssh.AllowedIps",
    "tags": "Tags, a list of Key and Value",
    "template_url": "DevSettings.ClusterTemplate",
    "use_public_ips": "HeadNode.Networking.ElasticIp and the queues' Networking.AssignPublicIp",
    "vpc_id": "nothing: the VPC is that of the subnets",
    "vpc_security_group_id": "Networking.SecurityGroups of HeadNode and queues",
    "vpc_settings": "HeadNode.Networking and Scheduling.SlurmQueues[].Networking",
    "sanity_check": "nothing: `--suppress-validators` of pcluster stands for it",
    "update_check": "nothing",
    "encrypted_ephemeral": "nothing: instance store volumes are encrypted by their hardware",
}
_INI_SECTIONS = (
    "aliases", "aws", "cluster", "compute_resource", "cw_log", "dashboard", "dcv", "ebs", "efs",
    "fsx", "global", "queue", "raid", "scaling", "vpc",
)  # fmt: skip
_INI_SECTION = re.compile(rf"(?:{'|'.join(_INI_SECTIONS)})(?: [\w-]+)?")
_INI_HEADER = re.compile(rf"^\s*\[{_INI_SECTION.pattern}\]\s*$", re.MULTILINE)
_INDEX = re.compile(r"\[[0-9]+\]")


@dataclass(frozen=True)
class _Explained:
    """What is gone, since when, and what to do."""

    what: str
    since: str
    replacement: str

    def __str__(self) -> str:
        return f"{self.what} was removed in ParallelCluster {self.since}: {self.replacement}."


def explain_removed(path: str, message: str, configuration: Mapping[str, Any]) -> str | None:
    """Return what an older schema had at a path that the schema refuses, and what replaces it.

    `path` is dotted, with positions in brackets, and `message` is the schema's. Returns None for
    what no older schema had.
    """
    plain = _INDEX.sub("", path)
    if plain in _REMOVED_KEYS:
        return str(_Explained(plain.rpartition(".")[2], *_REMOVED_KEYS[plain]))
    if plain in _REMOVED_VALUES:
        value = str(_at(configuration, plain))
        since = _REMOVED_VALUES[plain].get(value)
        if since is not None:
            what = f"{plain.rpartition('.')[2]}: {value}"
            return str(_Explained(what, since, _VALUE_REPLACEMENTS[plain]))
    if "Missing data" in message:
        return _explain_missing(plain, configuration)
    return _explain_ini_key(plain)


def explain_ini(text: str) -> str | None:
    """Return that a text is a configuration of ParallelCluster 2.x, or None if it is not one."""
    header = _INI_HEADER.search(text)
    if header is None:
        return None
    return (
        f"is an INI file of ParallelCluster 2.x ({header[0].strip()}); since 3.0.0 a configuration "
        f"is one YAML file for each cluster, and {_CONVERT}"
    )


def _explain_missing(path: str, configuration: Mapping[str, Any]) -> str | None:
    """Return why a required section is missing: an older one stands in its place."""
    scheduling = configuration.get("Scheduling")
    if path == "Scheduling.SlurmQueues" and isinstance(scheduling, Mapping):
        for key in _QUEUES_OF_OTHERS:
            if key in scheduling:
                since = _REMOVED_KEYS[f"Scheduling.{key}"][0]
                return (
                    f"SlurmQueues is missing: {key} was removed in ParallelCluster {since}, and "
                    "only Slurm is left."
                )
    old = [str(key) for key in configuration if _explain_ini_key(str(key))]
    if "." not in path and old:
        return (
            f"{path} is missing: {', '.join(old)} are keys of ParallelCluster 2.x, whose format "
            f"was replaced in 3.0.0; {_CONVERT}."
        )
    return None


def _explain_ini_key(path: str) -> str | None:
    key = path.rpartition(".")[2]
    if key in _INI_KEYS:
        return (
            f"{key} is a key of ParallelCluster 2.x, whose format was replaced in 3.0.0: its place "
            f"is taken by {_INI_KEYS[key]}."
        )
    if "." not in path and _INI_SECTION.fullmatch(key):
        return (
            f"{key} is a section of ParallelCluster 2.x, whose format was replaced in 3.0.0; "
            f"{_CONVERT}."
        )
    return None


def _at(configuration: Any, path: str) -> Any:
    for key in path.split("."):
        configuration = configuration.get(key) if isinstance(configuration, Mapping) else None
    return configuration
