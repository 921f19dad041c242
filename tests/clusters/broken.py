"""Broken configurations: each a realistic mistake in a shipped cluster, and what must be found.

A mistake is an edit of the cluster's own file, before references are resolved, or of the image
lock. The finding stands at a path, and so on the line that has this path in the edited file.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from clusterbox.clusters.compose import compose_offline
from clusterbox.clusters.composed import ComposedCluster
from clusterbox.site.yaml_file import Location, parse_yaml

ECO, LOGIN, HPC = "ws-eco", "ws-eco-login", "sandbox-economy-hpc"
QUEUE = "Scheduling.SlurmQueues[0]"
RESOURCE = f"{QUEUE}.ComputeResources[0]"
SECOND_QUEUE = "Scheduling.SlurmQueues[1]"
SECOND_RESOURCE = f"{SECOND_QUEUE}.ComputeResources[0]"
SLURM = "Scheduling.SlurmSettings"
POOL = "LoginNodes.Pools[0]"
STORAGE = "SharedStorage[1]"

# A value that says: take the key away.
ABSENT = object()


@dataclass(frozen=True)
class Broken:
    """One mistake: the cluster it is made in, the edit, and the finding it must give."""

    name: str
    base: str
    edit: Mapping[str, Any]
    rule: str
    level: str
    path: str
    message: str
    advice: str = ""
    images: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class _PlainDumper(yaml.SafeDumper):
    """Writes a value that stands twice twice, so that each has a line of its own."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def break_cluster(cluster: ComposedCluster, broken: Broken) -> ComposedCluster:
    """Return the cluster with the mistake in it, as if its file had been written so."""
    environment = cluster.environment
    assert environment is not None
    data = copy.deepcopy(cluster.file.data)
    for path, value in broken.edit.items():
        edit(data, parse_path(path), value)
    text = yaml.dump(data, Dumper=_PlainDumper, sort_keys=False)
    file = parse_yaml(text, name=cluster.file.name)
    images = {
        name: image.model_copy(update=dict(broken.images.get(name, {})))
        for name, image in cluster.images.items()
    }
    configuration = compose_offline(environment, cluster.name, file, images)
    return replace(cluster, file=file, configuration=configuration, images=images)


def edit(data: Any, location: Location, value: Any) -> None:
    """Set the value at a location, making sections on the way; an index past the end appends."""
    *way, last = location
    for step, following in zip(way, location[1:], strict=True):
        if isinstance(data, dict) and step not in data:
            data[step] = [] if isinstance(following, int) else {}
        data = data[step]
    if value is ABSENT:
        del data[last]
    elif isinstance(data, list) and last == len(data):
        data.append(value)
    else:
        data[last] = value


def parse_path(path: str) -> Location:
    """Return the location that a dotted path stands for."""
    parts = re.findall(r"[^.\[\]]+|\[[0-9]+\]", path)
    return tuple(int(part[1:-1]) if part.startswith("[") else part for part in parts)


def _types(*names: str) -> list[dict[str, str]]:
    return [{"InstanceType": name} for name in names]


def _queue(name: str) -> dict[str, Any]:
    return {
        "Name": name,
        "ComputeResources": [{"Name": "small", "InstanceType": "t3.large", "MaxCount": 1}],
        "Networking": {
            "SubnetIds": ["${network.compute.a}"],
            "SecurityGroups": ["${security_groups.cluster}"],
        },
        "Iam": {"InstanceRole": "${roles.compute}"},
    }


def _storage(
    kind: str, name: str = "data", mount: str = "/data", **settings: Any
) -> dict[str, Any]:
    return {
        "Name": name,
        "StorageType": kind,
        "MountDir": mount,
        f"{kind}Settings": {"DeletionPolicy": "Retain", **settings},
    }


def _ebs(name: str = "data", mount: str = "/data", **settings: Any) -> dict[str, Any]:
    return _storage("Ebs", name, mount, **settings)


def _directory(**changed: Any) -> dict[str, Any]:
    secret = "arn:aws:secretsmanager:us-west-2:427491229895:secret:directory-a1b2c3"
    return {
        "DomainName": "corp.example.com",
        "DomainAddr": "ldaps://ad.corp.example.com",
        "PasswordSecretArn": secret,
        "DomainReadOnlyUser": "cn=reader,ou=users,dc=corp,dc=example,dc=com",
        "LdapTlsCaCert": "/etc/openldap/cacerts/ca.pem",
        "LdapTlsReqCert": "hard",
        **changed,
    }


_POOL = {
    "InstanceType": "t3.medium",
    "Count": 0,
    "Networking": {
        "SubnetIds": ["${network.compute.a}"],
        "SecurityGroups": ["${security_groups.cluster}"],
    },
    "Iam": {"InstanceRole": "${roles.login}"},
}
_FOREIGN_SUBNET = "subnet-0aaaaaaaaaaaaaaaa"
_THREE_ZONES = ["${network.compute.a}", "${network.compute.b}", "${network.compute.c}"]

SCHEMA = [
    Broken(
        "misspelled key",
        ECO,
        {"HeadNode.InstancesType": "t3.large"},
        "Schema",
        "ERROR",
        "HeadNode.InstancesType",
        "Unknown field",
    ),
    Broken(
        "word where a number belongs",
        ECO,
        {f"{RESOURCE}.MaxCount": "many"},
        "Schema",
        "ERROR",
        f"{RESOURCE}.MaxCount",
        "Not a valid integer",
    ),
    Broken(
        "head node without instance type",
        ECO,
        {"HeadNode.InstanceType": ABSENT},
        "Schema",
        "ERROR",
        "HeadNode.InstanceType",
        "Missing data",
    ),
    Broken(
        "operating system that is no longer supported",
        ECO,
        {"Image.Os": "alinux2"},
        "Schema",
        "ERROR",
        "Image.Os",
        "Must be one of: alinux2023",
        "removed in ParallelCluster 3.16.0",
    ),
    Broken(
        "misspelled operating system",
        ECO,
        {"Image.Os": "amazonlinux2023"},
        "Schema",
        "ERROR",
        "Image.Os",
        "Must be one of",
    ),
    Broken(
        "scheduler that was removed",
        ECO,
        {"Scheduling.Scheduler": "awsbatch"},
        "Schema",
        "ERROR",
        "Scheduling.Scheduler",
        "Must be one of: slurm",
        "removed in ParallelCluster 3.16.0",
    ),
    Broken(
        "key pair of its own for login nodes",
        LOGIN,
        {f"{POOL}.Ssh": {"KeyName": "ws-pcluster-keypair"}},
        "Schema",
        "ERROR",
        f"{POOL}.Ssh.KeyName",
        "no longer supported for Login Nodes",
        "removed in ParallelCluster 3.15.0",
    ),
    Broken(
        "key for the encryption of a root volume",
        ECO,
        {"HeadNode.LocalStorage.RootVolume.KmsKeyId": "11111111-2222-3333-4444-555555555555"},
        "Schema",
        "ERROR",
        "HeadNode.LocalStorage.RootVolume.KmsKeyId",
        "Unknown field",
        "removed in ParallelCluster 3.1.1",
    ),
    Broken(
        "negative number of login nodes",
        LOGIN,
        {f"{POOL}.Count": -1},
        "Schema",
        "ERROR",
        f"{POOL}.Count",
        "greater than or equal to 0",
    ),
    Broken(
        "grace time too short",
        LOGIN,
        {f"{POOL}.GracetimePeriod": 1},
        "Schema",
        "ERROR",
        f"{POOL}.GracetimePeriod",
        "from 3 to 120",
    ),
    Broken(
        "two subnets for one login pool",
        LOGIN,
        {f"{POOL}.Networking.SubnetIds": ["${network.compute.a}", _FOREIGN_SUBNET]},
        "Schema",
        "ERROR",
        f"{POOL}.Networking.SubnetIds",
        "Only one subnet",
    ),
    Broken(
        "retention that CloudWatch does not offer",
        ECO,
        {"Monitoring.Logs.CloudWatch.RetentionInDays": 45},
        "Schema",
        "ERROR",
        "Monitoring.Logs.CloudWatch.RetentionInDays",
        "Must be one of",
    ),
    Broken(
        "reserved tag",
        ECO,
        {f"{QUEUE}.Tags": [{"Key": "parallelcluster:queue", "Value": "eco"}]},
        "Schema",
        "ERROR",
        f"{QUEUE}.Tags",
        "is reserved",
    ),
    Broken(
        "tag given twice",
        ECO,
        {f"{QUEUE}.Tags": [{"Key": "Team", "Value": "a"}, {"Key": "Team", "Value": "b"}]},
        "Schema",
        "ERROR",
        f"{QUEUE}.Tags",
        "Duplicate tag key",
    ),
    Broken(
        "instance type given twice",
        ECO,
        {f"{RESOURCE}.Instances": _types("m5.2xlarge", "m5.2xlarge")},
        "Schema",
        "ERROR",
        f"{RESOURCE}.Instances",
        "Duplicate instance type",
    ),
    Broken(
        "one instance type beside a list of them",
        ECO,
        {f"{RESOURCE}.InstanceType": "m5.2xlarge"},
        "Schema",
        "ERROR",
        RESOURCE,
        "either InstanceType or Instances",
    ),
    Broken(
        "security groups and additional ones",
        ECO,
        {"HeadNode.Networking.AdditionalSecurityGroups": ["${security_groups.ssh}"]},
        "Schema",
        "ERROR",
        "HeadNode.Networking",
        "can not be configured together",
    ),
    Broken(
        "bucket access beside a given role",
        ECO,
        {"HeadNode.Iam.S3Access": [{"BucketName": "ws-out"}]},
        "Schema",
        "ERROR",
        "HeadNode.Iam",
        "S3Access can not be configured",
    ),
    Broken(
        "settings of an existing file system",
        ECO,
        {"SharedStorage[0].EfsSettings.ThroughputMode": "bursting"},
        "Schema",
        "ERROR",
        "SharedStorage[0].EfsSettings",
        "existing EFS file system",
    ),
    Broken(
        "settings of another storage type",
        ECO,
        {"SharedStorage[0].StorageType": "FsxLustre"},
        "Schema",
        "ERROR",
        "SharedStorage[0].StorageType",
        "not appropriate to the StorageType",
    ),
    Broken(
        "provisioned throughput without its size",
        ECO,
        {STORAGE: _storage("Efs", Encrypted=True, ThroughputMode="provisioned")},
        "Schema",
        "ERROR",
        f"{STORAGE}.EfsSettings.ProvisionedThroughput",
        "must be specified",
    ),
    Broken(
        "RAID of too many volumes",
        ECO,
        {STORAGE: _ebs(Raid={"Type": 0, "NumberOfVolumes": 8})},
        "Schema",
        "ERROR",
        f"{STORAGE}.EbsSettings.Raid.NumberOfVolumes",
        "less than or equal to 5",
    ),
    Broken(
        "metadata version that does not exist",
        ECO,
        {"Imds.ImdsSupport": "v3.0"},
        "Schema",
        "ERROR",
        "Imds.ImdsSupport",
        "Must be one of",
    ),
    Broken(
        "host name where an address range belongs",
        ECO,
        {"HeadNode.Ssh.AllowedIps": "vpn.example.gov"},
        "Schema",
        "ERROR",
        "HeadNode.Ssh.AllowedIps",
        "neither a valid CIDR",
    ),
    Broken(
        "cut off image id",
        ECO,
        {"Image.CustomAmi": "ami-067d504ae48dd32"},
        "Schema",
        "ERROR",
        "Image.CustomAmi",
        "expected pattern",
    ),
    Broken(
        "compute resource that may have no node",
        ECO,
        {f"{RESOURCE}.MaxCount": 0},
        "Schema",
        "ERROR",
        f"{RESOURCE}.MaxCount",
        "greater than or equal to 1",
    ),
    Broken(
        "idle time below the least value",
        ECO,
        {f"{SLURM}.ScaledownIdletime": -5},
        "Schema",
        "ERROR",
        f"{SLURM}.ScaledownIdletime",
        "greater than or equal to -1",
    ),
    Broken(
        "script and sequence of scripts",
        ECO,
        {
            "HeadNode.CustomActions.OnNodeConfigured": {
                "Script": "s3://ws-out/a.sh",
                "Sequence": [{"Script": "s3://ws-out/b.sh"}],
            }
        },
        "Schema",
        "ERROR",
        "HeadNode.CustomActions.OnNodeConfigured",
        "Only one is allowed",
    ),
    Broken(
        "misspelled strategy for updates",
        ECO,
        {f"{SLURM}.QueueUpdateStrategy": "DRAINING"},
        "Schema",
        "ERROR",
        f"{SLURM}.QueueUpdateStrategy",
        "Must be one of",
    ),
]

MACHINES = [
    Broken(
        "head node of another architecture than the image",
        ECO,
        {"HeadNode.InstanceType": "t4g.medium"},
        "InstanceTypeBaseAMICompatibleValidator",
        "ERROR",
        "HeadNode.InstanceType",
        "incompatible with the architecture",
    ),
    Broken(
        "queue of another architecture than the head node",
        ECO,
        {f"{RESOURCE}.Instances": _types("m6g.2xlarge", "m7g.2xlarge")},
        "InstanceArchitectureCompatibilityValidator",
        "ERROR",
        f"{RESOURCE}.Instances[0].InstanceType",
        "none of which are compatible",
    ),
    Broken(
        "image baked for Graviton",
        ECO,
        {},
        "InstanceTypeBaseAMICompatibleValidator",
        "ERROR",
        "HeadNode.InstanceType",
        "incompatible with the architecture",
        images={"compute": {"architecture": "arm64"}},
    ),
    Broken(
        "login nodes of another architecture than the image",
        LOGIN,
        {f"{POOL}.InstanceType": "t4g.medium", f"{POOL}.Image": ABSENT},
        "ImageArchitecture",
        "ERROR",
        f"{POOL}.InstanceType",
        "built for x86_64",
    ),
    Broken(
        "another operating system than the image's",
        ECO,
        {"Image.Os": "rhel9"},
        "AmiOsCompatibleValidator",
        "ERROR",
        "Image.Os",
        "not compatible with cluster OS rhel9",
    ),
    Broken(
        "image for another version of ParallelCluster",
        ECO,
        {},
        "CustomAmiTagValidator",
        "ERROR",
        "Image.CustomAmi",
        "created with pcluster 3.14.0",
        images={"compute": {"parallelcluster_version": "3.14.0"}},
    ),
    Broken(
        "image of the admin box for the nodes",
        ECO,
        {"Image.CustomAmi": "${images.admin}"},
        "SiteImage",
        "ERROR",
        "Image.CustomAmi",
        "was not built for ParallelCluster",
    ),
    Broken(
        "image id typed by hand",
        ECO,
        {"Image.CustomAmi": "ami-0bbbbbbbbbbbbbbbb"},
        "SiteImage",
        "ERROR",
        "Image.CustomAmi",
        "is not in ami/images.lock.yaml",
    ),
    Broken(
        "image of another system for the head node",
        ECO,
        {"HeadNode.Image.CustomAmi": "${images.admin}"},
        "AmiOsCompatibleValidator",
        "ERROR",
        "Image.Os",
        "is rhel9, it is not compatible",
        images={"admin": {"os": "rhel9", "parallelcluster_version": "3.16.1"}},
    ),
    Broken(
        "queue on the image of the cluster",
        ECO,
        {f"{SECOND_QUEUE}.Image": ABSENT},
        "InheritedImage",
        "WARNING",
        f"{SECOND_QUEUE}.Image.CustomAmi",
        "The queue spot has no image of its own, and so cannot be moved to a new image on patch day",
    ),
    Broken(
        "login nodes on the image of the cluster",
        LOGIN,
        {f"{POOL}.Image": ABSENT},
        "InheritedImage",
        "WARNING",
        f"{POOL}.Image.CustomAmi",
        "The pool of login nodes login has no image of its own",
    ),
    Broken(
        "image of AWS",
        ECO,
        {"Image.CustomAmi": ABSENT},
        "SiteImage",
        "ERROR",
        "Image.CustomAmi",
        "AWS's own image",
    ),
    Broken(
        "operating system without an image of AWS",
        ECO,
        {"Image": {"Os": "rocky9"}},
        "OsCustomAmiValidator",
        "ERROR",
        "Image.Os",
        "no official AMI for rocky9",
    ),
    Broken(
        "misspelled instance type of the head node",
        ECO,
        {"HeadNode.InstanceType": "t3.mediun"},
        "InstanceTypeValidator",
        "ERROR",
        "HeadNode.InstanceType",
        "is not supported",
    ),
    Broken(
        "misspelled instance type of a queue",
        ECO,
        {f"{RESOURCE}.Instances[1].InstanceType": "t3.2xlrge"},
        "InstanceTypeBaseAMICompatibleValidator",
        "ERROR",
        f"{RESOURCE}.Instances[1].InstanceType",
        "t3.2xlrge",
    ),
    Broken(
        "misspelled instance type of a login pool",
        LOGIN,
        {f"{POOL}.InstanceType": "t3.meduim"},
        "InstanceTypeValidator",
        "ERROR",
        f"{POOL}.InstanceType",
        "is not supported",
    ),
    Broken(
        "instance types with different numbers of vCPUs",
        ECO,
        {f"{RESOURCE}.Instances[5].InstanceType": "m6i.4xlarge"},
        "InstancesCPUValidator",
        "ERROR",
        f"{RESOURCE}.Instances",
        "same number of vCPUs",
    ),
    Broken(
        "instance types with and without GPU",
        ECO,
        {f"{RESOURCE}.Instances": _types("m5.2xlarge", "g4dn.2xlarge")},
        "InstancesAcceleratorsValidator",
        "ERROR",
        f"{RESOURCE}.Instances",
        "same number of GPUs",
    ),
    Broken(
        "scheduling by memory with types of different memory",
        ECO,
        {
            f"{SLURM}.EnableMemoryBasedScheduling": True,
            f"{RESOURCE}.Instances": _types("c5.2xlarge", "r5.2xlarge"),
        },
        "InstancesMemorySchedulingWarningValidator",
        "WARNING",
        f"{RESOURCE}.Instances",
        "unused resources",
    ),
    Broken(
        "more schedulable memory than there is",
        ECO,
        {f"{RESOURCE}.SchedulableMemory": 64000},
        "SchedulableMemoryValidator",
        "ERROR",
        f"{RESOURCE}.SchedulableMemory",
        "cannot be larger than EC2 Memory",
    ),
    Broken(
        "head node too small for its fleet",
        HPC,
        {"HeadNode.InstanceType": "t3.small"},
        "HeadNodeMemorySizeValidator",
        "ERROR",
        "HeadNode.InstanceType",
        "at least 2.6 GB",
    ),
    Broken(
        "more static nodes than nodes",
        ECO,
        {f"{RESOURCE}.MinCount": 5},
        "ComputeResourceSizeValidator",
        "ERROR",
        RESOURCE,
        "Max count must be greater",
    ),
    Broken(
        "Spot with a strategy for on-demand nodes",
        ECO,
        {f"{SECOND_QUEUE}.AllocationStrategy": "prioritized"},
        "InstancesAllocationStrategyValidator",
        "ERROR",
        f"{SECOND_QUEUE}.AllocationStrategy",
        "SPOT CapacityType can only use",
    ),
    Broken(
        "on-demand nodes with a strategy for Spot",
        ECO,
        {f"{QUEUE}.AllocationStrategy": "capacity-optimized"},
        "InstancesAllocationStrategyValidator",
        "ERROR",
        f"{QUEUE}.AllocationStrategy",
        "OnDemand CapacityType can only use",
    ),
    Broken(
        "Capacity Block without a reservation",
        ECO,
        {f"{QUEUE}.CapacityType": "CAPACITY_BLOCK"},
        "CapacityTypeValidator",
        "ERROR",
        f"{QUEUE}.CapacityType",
        "Capacity Reservation id is required",
    ),
    Broken(
        "Capacity Block with a flexible size",
        ECO,
        {f"{QUEUE}.CapacityType": "CAPACITY_BLOCK"},
        "ComputeResourceSizeValidator",
        "ERROR",
        RESOURCE,
        "same value of min count",
    ),
    Broken(
        "static nodes that cost more than dynamic ones",
        ECO,
        {f"{RESOURCE}.MinCount": 1, f"{RESOURCE}.StaticNodePriority": 2000},
        "SlurmNodePrioritiesWarningValidator",
        "WARNING",
        RESOURCE,
        "higher or equal priority",
    ),
    Broken(
        "GPU health check without GPU",
        ECO,
        {f"{RESOURCE}.HealthChecks": {"Gpu": {"Enabled": True}}},
        "GpuHealthCheck",
        "INFO",
        f"{RESOURCE}.HealthChecks.Gpu.Enabled",
        "has no NVIDIA GPU",
    ),
    Broken(
        "remote desktop open to the world",
        ECO,
        {"HeadNode.Dcv": {"Enabled": True}},
        "DcvValidator",
        "WARNING",
        "HeadNode.Dcv",
        "to the world",
    ),
]

EFA = [
    Broken(
        "EFA on types without it",
        ECO,
        {f"{RESOURCE}.Efa": {"Enabled": True}},
        "InstancesEFAValidator",
        "ERROR",
        f"{RESOURCE}.Efa.Enabled",
        "do not support EFA",
    ),
    Broken(
        "EFA on one type without it",
        ECO,
        {
            f"{RESOURCE}.Instances": ABSENT,
            f"{RESOURCE}.InstanceType": "c6i.8xlarge",
            f"{RESOURCE}.Efa": {"Enabled": True},
        },
        "EfaValidator",
        "ERROR",
        f"{RESOURCE}.InstanceType",
        "does not support EFA",
    ),
    Broken(
        "EFA without a word on placement",
        HPC,
        {f"{SECOND_RESOURCE}.Networking": ABSENT},
        "EfaPlacementGroupValidator",
        "ERROR",
        f"{SECOND_RESOURCE}.Efa.Enabled",
        "must be explicit",
    ),
    Broken(
        "EFA with the placement group switched off",
        HPC,
        {f"{SECOND_RESOURCE}.Networking.PlacementGroup.Enabled": False},
        "EfaPlacementGroupValidator",
        "WARNING",
        SECOND_RESOURCE,
        "Placement group is disabled",
    ),
    Broken(
        "EFA in several zones",
        HPC,
        {f"{SECOND_QUEUE}.Networking.SubnetIds": _THREE_ZONES},
        "EfaMultiAzValidator",
        "ERROR",
        f"{SECOND_QUEUE}.Networking.SubnetIds",
        "multiple subnets",
    ),
    Broken(
        "placement group in several zones",
        HPC,
        {f"{RESOURCE}.Networking": {"PlacementGroup": {"Enabled": True}}},
        "MultiAzPlacementGroupValidator",
        "ERROR",
        f"{RESOURCE}.Networking.PlacementGroup",
        "not supported across Availability zones",
    ),
    Broken(
        "placement group of burstable types",
        ECO,
        {f"{RESOURCE}.Networking": {"PlacementGroup": {"Enabled": True}}},
        "InstanceTypePlacementGroupValidator",
        "ERROR",
        f"{RESOURCE}.Instances[0].InstanceType",
        "cluster placement group",
    ),
    Broken(
        "type with EFA that is not used",
        HPC,
        {f"{SECOND_RESOURCE}.Efa.Enabled": False},
        "InstancesEFAValidator",
        "WARNING",
        f"{SECOND_RESOURCE}.Efa.Enabled",
        "support enhanced networking",
    ),
    Broken(
        "placement group that is off and has a name",
        HPC,
        {f"{SECOND_RESOURCE}.Networking.PlacementGroup": {"Enabled": False, "Name": "close"}},
        "PlacementGroupNamingValidator",
        "ERROR",
        f"{SECOND_RESOURCE}.Networking.PlacementGroup",
        "must be enabled",
    ),
    Broken(
        "public addresses for nodes with EFA",
        HPC,
        {f"{SECOND_QUEUE}.Networking.AssignPublicIp": True},
        "MultiNetworkInterfacesInstancesValidator",
        "ERROR",
        f"{SECOND_QUEUE}.Networking.AssignPublicIp",
        "AssignPublicIp is set to true",
    ),
]

NAMES = [
    Broken(
        "two queues of one name",
        ECO,
        {f"{SECOND_QUEUE}.Name": "eco"},
        "DuplicateNameValidator",
        "ERROR",
        f"{SECOND_QUEUE}.Name",
        "must be unique",
    ),
    Broken(
        "two compute resources of one name",
        ECO,
        {f"{QUEUE}.ComputeResources[1]": {"Name": "n8c32g", "InstanceType": "m5.2xlarge"}},
        "DuplicateNameValidator",
        "ERROR",
        f"{QUEUE}.ComputeResources[1].Name",
        "must be unique",
    ),
    Broken(
        "two login pools of one name",
        LOGIN,
        {"LoginNodes.Pools[1]": {"Name": "login", **_POOL}},
        "DuplicateNameValidator",
        "ERROR",
        "LoginNodes.Pools[1].Name",
        "must be unique",
    ),
    Broken(
        "two shared storages of one name",
        ECO,
        {STORAGE: _ebs(name="wspcefs")},
        "DuplicateNameValidator",
        "ERROR",
        f"{STORAGE}.Name",
        "must be unique",
    ),
    Broken(
        "queue with capital letters",
        ECO,
        {f"{QUEUE}.Name": "Eco"},
        "NameValidator",
        "ERROR",
        f"{QUEUE}.Name",
        "only contain lowercase letters",
    ),
    Broken(
        "compute resource with a long name",
        ECO,
        {f"{RESOURCE}.Name": "general-purpose-eight-core-nodes"},
        "NameValidator",
        "ERROR",
        f"{RESOURCE}.Name",
        "at most 25 chars",
    ),
    Broken(
        "queue called default",
        ECO,
        {f"{QUEUE}.Name": "default"},
        "NameValidator",
        "ERROR",
        f"{QUEUE}.Name",
        "forbidden to use 'default'",
    ),
    Broken(
        "storage with a long name",
        ECO,
        {"SharedStorage[0].Name": "shared-file-system-of-the-watersmart-project"},
        "SharedStorageNameValidator",
        "ERROR",
        "SharedStorage[0].Name",
        "at most 30 chars",
    ),
    Broken(
        "too many login pools",
        LOGIN,
        {"LoginNodes.Pools": [{"Name": f"login-{number}", **_POOL} for number in range(11)]},
        "MaxCountValidator",
        "ERROR",
        "LoginNodes.Pools",
        "supports up to 10",
    ),
    Broken(
        "too many compute resources",
        ECO,
        {
            f"{QUEUE}.ComputeResources": [
                {"Name": f"n{number}", "InstanceType": "m5.2xlarge", "MaxCount": 1}
                for number in range(51)
            ]
        },
        "MaxCountValidator",
        "ERROR",
        f"{QUEUE}.ComputeResources",
        "supports up to 50",
    ),
    Broken(
        "tag of a queue that hides a tag of the site",
        ECO,
        {f"{QUEUE}.Tags": [{"Key": "Owner", "Value": "somebody"}]},
        "ComputeResourceTagsValidator",
        "WARNING",
        f"{QUEUE}.Tags",
        "will be overridden",
    ),
]

NETWORK = [
    Broken(
        "head node in a subnet of another network",
        ECO,
        {"HeadNode.Networking.SubnetId": _FOREIGN_SUBNET},
        "SiteSubnet",
        "ERROR",
        "HeadNode.Networking.SubnetId",
        "is not a subnet of the site ws-dev",
    ),
    Broken(
        "login nodes in another network than the head node",
        LOGIN,
        {f"{POOL}.Networking.SubnetIds": [_FOREIGN_SUBNET]},
        "SubnetsValidator",
        "ERROR",
        f"{POOL}.Networking.SubnetIds[0]",
        "is not in VPC",
    ),
    Broken(
        "subnet that is not of the site",
        ECO,
        {f"{QUEUE}.Networking.SubnetIds": [_FOREIGN_SUBNET]},
        "SiteSubnet",
        "ERROR",
        f"{QUEUE}.Networking.SubnetIds[0]",
        "is not a subnet of the site ws-dev",
    ),
    Broken(
        "security group that is not of the site",
        ECO,
        {f"{QUEUE}.Networking.SecurityGroups[0]": "sg-0cccccccccccccccc"},
        "SiteSecurityGroup",
        "WARNING",
        f"{QUEUE}.Networking.SecurityGroups[0]",
        "is not a security group of the site ws-dev",
    ),
    Broken(
        "subnet given twice",
        HPC,
        {f"{QUEUE}.Networking.SubnetIds[1]": "${network.compute.a}"},
        "QueueSubnetsValidator",
        "ERROR",
        f"{QUEUE}.Networking.SubnetIds[1]",
        "specified multiple times",
    ),
    Broken(
        "one instance type in several zones",
        HPC,
        {f"{RESOURCE}.Instances": ABSENT, f"{RESOURCE}.InstanceType": "m5.2xlarge"},
        "SingleInstanceTypeSubnetValidator",
        "ERROR",
        f"{QUEUE}.Networking.SubnetIds",
        "Multiple subnets configuration is not supported",
    ),
    Broken(
        "more nodes than addresses",
        ECO,
        {f"{RESOURCE}.MaxCount": 2000},
        "AddressBudget",
        "ERROR",
        f"{RESOURCE}.MaxCount",
        "1019 usable addresses",
    ),
    Broken(
        "own security group for some nodes only",
        ECO,
        {f"{QUEUE}.Networking.SecurityGroups": ABSENT},
        "MixedSecurityGroupOverwriteValidator",
        "WARNING",
        "HeadNode.Networking",
        "reachable to each other",
    ),
    Broken(
        "head node with a public address",
        ECO,
        {"HeadNode.Networking.ElasticIp": True},
        "PublicAddress",
        "WARNING",
        "HeadNode.Networking.ElasticIp",
        "public address",
    ),
    Broken(
        "SSH open to the world",
        ECO,
        {"HeadNode.Ssh.AllowedIps": "0.0.0.0/0"},
        "SshFromAnywhere",
        "WARNING",
        "HeadNode.Ssh.AllowedIps",
        "open to every address",
    ),
    Broken(
        "SSH open to the world by default",
        LOGIN,
        {f"{POOL}.Networking.SecurityGroups": ABSENT},
        "SshFromAnywhere",
        "WARNING",
        f"{POOL}.Ssh.AllowedIps",
        "0.0.0.0/0 by default",
    ),
    Broken(
        "cluster in another region",
        ECO,
        {"Region": "us-east-1"},
        "SiteRegion",
        "ERROR",
        "Region",
        "is not the region of the site, us-west-2",
    ),
    Broken(
        "head node without a key pair",
        ECO,
        {"HeadNode.Ssh": ABSENT},
        "KeyPairValidator",
        "WARNING",
        "HeadNode.Ssh.KeyName",
        "do not specify a key pair",
    ),
    Broken(
        "key pair of somebody",
        ECO,
        {"HeadNode.Ssh.KeyName": "my-laptop"},
        "SiteKeyPair",
        "WARNING",
        "HeadNode.Ssh.KeyName",
        "is not the site's key pair",
    ),
    Broken(
        "bucket of another site",
        ECO,
        {"CustomS3Bucket": "sandbox-123456789012-parallelcluster"},
        "SiteBucket",
        "WARNING",
        "CustomS3Bucket",
        "is not the site's bucket",
    ),
]

STORAGES = [
    Broken(
        "root volume smaller than the image",
        ECO,
        {"HeadNode.LocalStorage.RootVolume.Size": 30},
        "RootVolumeSizeValidator",
        "ERROR",
        "HeadNode.LocalStorage.RootVolume.Size",
        "30 GiB must be equal or greater",
    ),
    Broken(
        "root volume of a queue smaller than the image",
        ECO,
        {f"{QUEUE}.ComputeSettings.LocalStorage.RootVolume.Size": 40},
        "RootVolumeSizeValidator",
        "ERROR",
        f"{QUEUE}.ComputeSettings.LocalStorage.RootVolume.Size",
        "40 GiB must be equal or greater",
    ),
    Broken(
        "image that has outgrown the root volumes",
        ECO,
        {},
        "RootVolumeSizeValidator",
        "ERROR",
        "HeadNode.LocalStorage.RootVolume.Size",
        "volume size of the AMI: 80 GiB",
        images={"compute": {"root_gib": 80}},
    ),
    Broken(
        "root volume of a queue without encryption",
        ECO,
        {f"{SECOND_QUEUE}.ComputeSettings.LocalStorage.RootVolume.Encrypted": False},
        "VolumeEncryption",
        "WARNING",
        f"{SECOND_QUEUE}.ComputeSettings.LocalStorage.RootVolume.Encrypted",
        "not encrypted",
    ),
    Broken(
        "root volumes encrypted in some queues only",
        ECO,
        {f"{SECOND_QUEUE}.ComputeSettings.LocalStorage.RootVolume.Encrypted": False},
        "RootVolumeEncryptionConsistencyValidator",
        "WARNING",
        "Scheduling.SlurmQueues",
        "not consistent",
    ),
    Broken(
        "two storages in one folder",
        ECO,
        {STORAGE: _ebs(mount="/wspcefs")},
        "DuplicateMountDirValidator",
        "ERROR",
        f"{STORAGE}.MountDir",
        "used for multiple shared storage",
    ),
    Broken(
        "storage inside another one",
        ECO,
        {STORAGE: _ebs(mount="/wspcefs/scratch")},
        "OverlappingMounts",
        "WARNING",
        f"{STORAGE}.MountDir",
        "/wspcefs/scratch lies inside /wspcefs",
    ),
    Broken(
        "storage in a folder of the system",
        ECO,
        {"SharedStorage[0].MountDir": "/opt"},
        "SharedStorageMountDirValidator",
        "ERROR",
        "SharedStorage[0].MountDir",
        "is reserved",
    ),
    Broken(
        "too many new volumes",
        ECO,
        {
            f"SharedStorage[{number}]": _ebs(f"data{number}", f"/data{number}")
            for number in range(1, 7)
        },
        "NumberOfStorageValidator",
        "ERROR",
        "SharedStorage",
        "Too many",
    ),
    Broken(
        "file system that dies with the cluster",
        ECO,
        {STORAGE: _storage("Efs", DeletionPolicy="Delete", Encrypted=True)},
        "StorageDeletion",
        "WARNING",
        f"{STORAGE}.EfsSettings.DeletionPolicy",
        "deleted with the cluster",
    ),
    Broken(
        "volume that dies with the cluster by default",
        ECO,
        {STORAGE: {"Name": "data", "StorageType": "Ebs", "MountDir": "/data"}},
        "StorageDeletion",
        "WARNING",
        f"{STORAGE}.EbsSettings.DeletionPolicy",
        "Delete, the default",
    ),
    Broken(
        "new file system without encryption",
        ECO,
        {STORAGE: _storage("Efs")},
        "VolumeEncryption",
        "WARNING",
        f"{STORAGE}.EfsSettings.Encrypted",
        "data is not encrypted",
    ),
    Broken(
        "file system that is not of the site",
        ECO,
        {"SharedStorage[0].EfsSettings.FileSystemId": "fs-0ddddddddddddddd0"},
        "SiteFileSystem",
        "WARNING",
        "SharedStorage[0].EfsSettings.FileSystemId",
        "is not a file system of the site ws-dev",
    ),
    Broken(
        "IAM authorization without encryption in transit",
        ECO,
        {"SharedStorage[0].EfsSettings.EncryptionInTransit": False},
        "EfsMountOptionsValidator",
        "ERROR",
        "SharedStorage[0].EfsSettings.IamAuthorization",
        "cannot be enabled when encryption in-transit is disabled",
    ),
    Broken(
        "access point without encryption in transit",
        ECO,
        {
            "SharedStorage[0].EfsSettings": {
                "FileSystemId": "${storage.wspcefs}",
                "AccessPointId": "${storage.wspcefs.projects}",
            }
        },
        "EfsAccessPointOptionsValidator",
        "ERROR",
        "SharedStorage[0].EfsSettings.AccessPointId",
        "encryption in transit",
    ),
    Broken(
        "volume larger than EBS makes them",
        ECO,
        {STORAGE: _ebs(VolumeType="gp3", Size=20000)},
        "EbsVolumeTypeSizeValidator",
        "ERROR",
        f"{STORAGE}.EbsSettings.Size",
        "can not exceed",
    ),
    Broken(
        "volume with too many operations",
        ECO,
        {STORAGE: _ebs(VolumeType="gp3", Size=100, Iops=20000)},
        "EbsVolumeIopsValidator",
        "ERROR",
        f"{STORAGE}.EbsSettings.Iops",
        "IOPS rate must be between",
    ),
    Broken(
        "volume with too much throughput",
        ECO,
        {STORAGE: _ebs(VolumeType="gp3", Size=100, Throughput=2000)},
        "EbsVolumeThroughputValidator",
        "ERROR",
        f"{STORAGE}.EbsSettings.Throughput",
        "Throughput must be between",
    ),
    Broken(
        "Lustre of a size that FSx does not make",
        ECO,
        {STORAGE: _storage("FsxLustre", StorageCapacity=1000)},
        "FsxStorageCapacityValidator",
        "ERROR",
        f"{STORAGE}.FsxLustreSettings.StorageCapacity",
        "increments of 2,400",
    ),
    Broken(
        "persistent Lustre without throughput",
        ECO,
        {STORAGE: _storage("FsxLustre", StorageCapacity=1200, DeploymentType="PERSISTENT_2")},
        "FsxPersistentOptionsValidator",
        "ERROR",
        f"{STORAGE}.FsxLustreSettings.DeploymentType",
        "Per unit storage throughput must be specified",
    ),
    Broken(
        "Lustre with a throughput that FSx does not offer",
        ECO,
        {
            STORAGE: _storage(
                "FsxLustre",
                StorageCapacity=1200,
                DeploymentType="PERSISTENT_2",
                PerUnitStorageThroughput=300,
            )
        },
        "FsxStorageTypeOptionsValidator",
        "ERROR",
        f"{STORAGE}.FsxLustreSettings.PerUnitStorageThroughput",
        "can only have the following values",
    ),
    Broken(
        "new Lustre for a queue in several zones",
        HPC,
        {STORAGE: _storage("FsxLustre", StorageCapacity=1200)},
        "ManagedFsxMultiAzValidator",
        "ERROR",
        "SharedStorage",
        "multiple subnet Ids",
    ),
    Broken(
        "settings of a storage type that is not used",
        ECO,
        {"HeadNode.SharedStorageEfsSettings": {"Encrypted": True}},
        "SharedStorageEfsSettingsValidator",
        "ERROR",
        "HeadNode.SharedStorageEfsSettings",
        "SharedStorageType is set to",
    ),
]

SCHEDULER = [
    Broken(
        "Slurm setting that ParallelCluster owns",
        ECO,
        {f"{SLURM}.CustomSlurmSettings": [{"SlurmctldHost": "elsewhere"}]},
        "CustomSlurmSettingsValidator",
        "ERROR",
        f"{SLURM}.CustomSlurmSettings[0].SlurmctldHost",
        "SlurmctldHost",
    ),
    Broken(
        "partition setting that ParallelCluster owns",
        ECO,
        {f"{QUEUE}.CustomSlurmSettings": {"OverSubscribe": "YES"}},
        "CustomSlurmSettingsValidator",
        "ERROR",
        f"{QUEUE}.CustomSlurmSettings.OverSubscribe",
        "OverSubscribe",
    ),
    Broken(
        "node setting that ParallelCluster owns",
        ECO,
        {f"{RESOURCE}.CustomSlurmSettings": {"Weight": 10}},
        "CustomSlurmSettingsValidator",
        "ERROR",
        f"{RESOURCE}.CustomSlurmSettings.Weight",
        "Weight",
    ),
    Broken(
        "Slurm settings inline and in a file",
        ECO,
        {
            f"{SLURM}.CustomSlurmSettings": [{"MaxJobCount": 20000}],
            f"{SLURM}.CustomSlurmSettingsIncludeFile": "s3://ws-out/slurm.conf",
        },
        "CustomSlurmSettingsIncludeFileOnlyValidator",
        "ERROR",
        f"{SLURM}.CustomSlurmSettingsIncludeFile",
        "cannot be used together",
    ),
    Broken(
        "node name that ParallelCluster owns",
        ECO,
        {f"{SLURM}.CustomSlurmSettings": [{"NodeName": "eco-st-big-[1-2]", "CPUs": 4}]},
        "CustomSlurmNodeNamesValidator",
        "ERROR",
        f"{SLURM}.CustomSlurmSettings[0].NodeName",
        "reserved for nodes managed by ParallelCluster",
    ),
    Broken(
        "database address with a scheme",
        ECO,
        {
            f"{SLURM}.Database": {
                "Uri": "mysql://db.example.gov:3306",
                "UserName": "slurm",
                "PasswordSecretArn": "arn:aws:secretsmanager:us-west-2:427491229895:secret:db-abc",
            }
        },
        "DatabaseUriValidator",
        "ERROR",
        f"{SLURM}.Database.Uri",
        "do not provide a scheme",
    ),
    Broken(
        "external slurmdbd without its key",
        ECO,
        {f"{SLURM}.ExternalSlurmdbd": {"Host": "dbd.example.gov"}},
        "ExternalSlurmdbdRequiresCustomMungeKey",
        "ERROR",
        f"{SLURM}.ExternalSlurmdbd",
        "MungeKeySecretArn is required",
    ),
    Broken(
        "no strategy for updates of queues",
        ECO,
        {f"{SLURM}.QueueUpdateStrategy": ABSENT},
        "QueueUpdateStrategy",
        "INFO",
        f"{SLURM}.QueueUpdateStrategy",
        "stop of the whole compute fleet",
    ),
    Broken(
        "nodes that never stop",
        ECO,
        {f"{SLURM}.ScaledownIdletime": -1},
        "IdleNodes",
        "WARNING",
        f"{SLURM}.ScaledownIdletime",
        "never stopped",
    ),
    Broken(
        "script on a plain web server",
        ECO,
        {"HeadNode.CustomActions.OnNodeConfigured.Script": "http://files.example.gov/setup.sh"},
        "UrlValidator",
        "ERROR",
        "HeadNode.CustomActions.OnNodeConfigured.Script",
        "choose URL with 'https' or 's3' prefix",
    ),
    Broken(
        "script on somebody's disk",
        ECO,
        {f"{QUEUE}.CustomActions.OnNodeConfigured.Script": "/home/me/setup.sh"},
        "UrlValidator",
        "ERROR",
        f"{QUEUE}.CustomActions.OnNodeConfigured.Script",
        "choose URL with 'https' or 's3' prefix",
    ),
    Broken(
        "graphs by the minute for every node",
        ECO,
        {"Monitoring.DetailedMonitoring": True},
        "DetailedMonitoringValidator",
        "WARNING",
        "Monitoring.DetailedMonitoring",
        "increase the cost",
    ),
    Broken(
        "rotation of logs that go nowhere",
        ECO,
        {"Monitoring.Logs.CloudWatch.Enabled": False},
        "LogRotationValidator",
        "WARNING",
        "Monitoring.Logs.CloudWatch.Enabled",
        "Log Rotation is enabled",
    ),
    Broken(
        "no settings for logs",
        ECO,
        {"Monitoring.Logs": ABSENT},
        "LogSettings",
        "INFO",
        "Monitoring.Logs.CloudWatch",
        "from the start",
    ),
    Broken(
        "timeout that is too short for Slurm",
        ECO,
        {
            "DevSettings.Cookbook.ExtraChefAttributes": (
                '{"cluster": {"slurm": {"reconfigure_timeout": 60}}}'
            )
        },
        "ExtraChefAttributesValidator",
        "ERROR",
        "DevSettings.Cookbook.ExtraChefAttributes",
        "must be greater than 300",
    ),
]

ACCESS = [
    Broken(
        "no permissions boundary",
        ECO,
        {"Iam.PermissionsBoundary": ABSENT},
        "PermissionsBoundary",
        "ERROR",
        "Iam.PermissionsBoundary",
        "is missing",
    ),
    Broken(
        "permissions boundary of another site",
        ECO,
        {"Iam.PermissionsBoundary": "arn:aws:iam::427491229895:policy/other-boundary"},
        "PermissionsBoundary",
        "ERROR",
        "Iam.PermissionsBoundary",
        "csr-Developer-Permissions-Boundary",
    ),
    Broken(
        "no prefix for roles",
        ECO,
        {"Iam.ResourcePrefix": ABSENT},
        "ResourcePrefix",
        "ERROR",
        "Iam.ResourcePrefix",
        "is missing",
    ),
    Broken(
        "malformed prefix for roles",
        ECO,
        {"Iam.ResourcePrefix": "ws dev/"},
        "IamResourcePrefixValidator",
        "ERROR",
        "Iam.ResourcePrefix",
        "Unsupported format",
    ),
    Broken(
        "role outside the site's path",
        ECO,
        {"HeadNode.Iam.InstanceRole": "arn:aws:iam::427491229895:role/AdminRole"},
        "SiteRoles",
        "ERROR",
        "HeadNode.Iam.InstanceRole",
        "is not one of the site's roles",
    ),
    Broken(
        "role that ParallelCluster would have to make",
        ECO,
        {f"{QUEUE}.Iam": ABSENT},
        "SiteRoles",
        "ERROR",
        f"{QUEUE}.Iam.InstanceRole",
        "No role is given",
    ),
    Broken(
        "administrator rights for the head node",
        ECO,
        {
            "HeadNode.Iam": {
                "AdditionalIamPolicies": [{"Policy": "arn:aws:iam::aws:policy/AdministratorAccess"}]
            }
        },
        "BroadPermissions",
        "WARNING",
        "HeadNode.Iam.AdditionalIamPolicies[0].Policy",
        "AdministratorAccess",
    ),
    Broken(
        "old version of the metadata service",
        ECO,
        {"Imds.ImdsSupport": "v1.0"},
        "InstanceMetadata",
        "WARNING",
        "Imds.ImdsSupport",
        "IMDSv1 is allowed",
    ),
    Broken(
        "credentials of the head node for every user",
        ECO,
        {"HeadNode.Imds.Secured": False},
        "InstanceMetadata",
        "WARNING",
        "HeadNode.Imds.Secured",
        "Every user",
    ),
    Broken(
        "site's tags replaced",
        ECO,
        {"Tags": [{"Key": "Owner", "Value": "butzer"}]},
        "SiteTags",
        "WARNING",
        "Tags",
        "CostCenter=ws-dev",
    ),
    Broken(
        "a budget without a database to hold its limits",
        HPC,
        {f"{SLURM}.Database": ABSENT},
        "BudgetLimits",
        "INFO",
        f"{SLURM}.Database",
        "a budget of 1500 USD a month, and its Slurm no accounting database",
        "${accounting.secret}",
    ),
    Broken(
        "limits that nothing applies at the start",
        HPC,
        {"HeadNode.CustomActions.OnNodeConfigured": ABSENT},
        "BudgetLimits",
        "INFO",
        "HeadNode.CustomActions.OnNodeConfigured",
        "parallelcluster/limits/sandbox-economy-hpc.sh is not named",
        "cannot be added later",
    ),
    Broken(
        "a changed budget that no update applies",
        HPC,
        {"HeadNode.CustomActions.OnNodeUpdated.Args": ABSENT},
        "BudgetLimits",
        "INFO",
        "HeadNode.CustomActions.OnNodeUpdated",
        "without ${limits.revision} among its arguments",
        "under OnNodeUpdated of the head node",
    ),
    Broken(
        "password among the arguments of a script",
        ECO,
        {
            "HeadNode.CustomActions.OnNodeConfigured": {
                "Script": "s3://ws-out/join.sh",
                "Args": ["--user", "admin", "--password", "correct-horse"],
            }
        },
        "PlainTextSecret",
        "ERROR",
        "HeadNode.CustomActions.OnNodeConfigured.Args[3]",
        "the value of password",
    ),
    Broken(
        "AWS key among the arguments of a script",
        ECO,
        {
            f"{QUEUE}.CustomActions.OnNodeStart": {
                "Script": "s3://ws-out/mount.sh",
                "Args": ["AKIAIOSFODNN7EXAMPLE"],
            }
        },
        "PlainTextSecret",
        "ERROR",
        f"{QUEUE}.CustomActions.OnNodeStart.Args[0]",
        "an AWS access key",
    ),
    Broken(
        "database password among the Slurm settings",
        ECO,
        {f"{SLURM}.CustomSlurmSettings": [{"StoragePass": "hunter2"}]},
        "PlainTextSecret",
        "ERROR",
        f"{SLURM}.CustomSlurmSettings[0].StoragePass",
        "the value of StoragePass",
    ),
    Broken(
        "password in a tag",
        ECO,
        {f"{QUEUE}.Tags": [{"Key": "DbPassword", "Value": "hunter2"}]},
        "PlainTextSecret",
        "ERROR",
        f"{QUEUE}.Tags[0].Value",
        "the value of DbPassword",
    ),
    Broken(
        "token among the Chef attributes",
        ECO,
        {"DevSettings.Cookbook.ExtraChefAttributes": '{"site": {"api_token": "s3cr3t"}}'},
        "PlainTextSecret",
        "ERROR",
        "DevSettings.Cookbook.ExtraChefAttributes",
        "the value of api_token",
    ),
]

DIRECTORY = [
    Broken(
        "directory without TLS",
        ECO,
        {"DirectoryService": _directory(DomainAddr="ldap://ad.corp.example.com")},
        "DomainAddrValidator",
        "WARNING",
        "DirectoryService.DomainAddr",
        "ldaps protocol is strongly encouraged",
    ),
    Broken(
        "directory with TLS switched off",
        ECO,
        {
            "DirectoryService": _directory(
                AdditionalSssdConfigs={"ldap_auth_disable_tls_never_use_in_production": True}
            )
        },
        "DirectoryServiceTls",
        "WARNING",
        "DirectoryService.AdditionalSssdConfigs.ldap_auth_disable_tls_never_use_in_production",
        "without TLS",
    ),
    Broken(
        "certificate of the directory that is not checked",
        ECO,
        {"DirectoryService": _directory(LdapTlsReqCert="never")},
        "LdapTlsReqCertValidator",
        "WARNING",
        "DirectoryService.LdapTlsReqCert",
        "recommended to use hard or demand",
    ),
    Broken(
        "directory with a malformed domain",
        ECO,
        {"DirectoryService": _directory(DomainName="corp example com")},
        "DomainNameValidator",
        "ERROR",
        "DirectoryService.DomainName",
        "Unsupported domain address format",
    ),
    Broken(
        "another identity provider than LDAP",
        ECO,
        {"DirectoryService": _directory(AdditionalSssdConfigs={"id_provider": "ad"})},
        "AdditionalSssdConfigsValidator",
        "ERROR",
        "DirectoryService.AdditionalSssdConfigs.id_provider",
        "Cannot override the SSSD property 'id_provider'",
    ),
    Broken(
        "password where the address of a secret belongs",
        ECO,
        {"DirectoryService": _directory(PasswordSecretArn="hunter2")},
        "Schema",
        "ERROR",
        "DirectoryService.PasswordSecretArn",
        "expected pattern",
    ),
]

BROKEN = [
    *SCHEMA, *MACHINES, *EFA, *NAMES, *NETWORK, *STORAGES, *SCHEDULER, *ACCESS, *DIRECTORY,
]  # fmt: skip
