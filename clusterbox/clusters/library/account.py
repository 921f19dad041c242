"""The AWS account that the validators see: the facts of the site, and what is assumed beside them.

Every call of every AWS client of the library ends in `Account.answer`, before anything would be
signed or sent. A fact is answered as AWS would; what only the configuration names is assumed to
exist, and whoever looks at it learns so (assumptions.py). A call that is not listed here has no
answer at all. Facts: `clusterbox/clusters/facts.py` documents them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import cache
from typing import Any

from botocore.client import BaseClient
from botocore.exceptions import ClientError, ParamValidationError
from botocore.handlers import validate_bucket_name
from botocore.validate import ParamValidator
from pcluster.aws.aws_api import AWSApi
from pcluster.aws.common import Boto3Client, Cache
from pcluster.constants import OS_TO_IMAGE_NAME_PART_MAP
from pcluster.utils import get_installed_version

from clusterbox.clusters.library import instance_types
from clusterbox.clusters.library.assumptions import (
    Assumed,
    AssumedFlag,
    AssumedNumber,
    AssumedText,
    assume,
    refuse,
)

_OWNER_OF_OFFICIAL_IMAGES = "247102896272"
_RESERVED_TYPE = "reserved.unknown"

Answer = dict[str, Any]


class Account:
    """One account, from its facts; it answers the calls that the validators make."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts = facts
        self.region: str = facts["region"]
        self._named_types = [*facts["instance_types"], _RESERVED_TYPE]

    def answer(self, service: str, operation: str, asked: dict[str, Any]) -> Answer:
        """Return the answer to a call; raises ClientError as AWS does, or NotAnsweredError."""
        handler = HANDLERS.get(f"{service}:{operation}")
        if handler is None:
            raise refuse(f"what {service} answers to {operation}")
        return handler(self, asked)

    # EC2: network

    def describe_subnets(self, asked: Answer) -> Answer:
        """Subnets of the site; with a site, others stand in a VPC that is not the site's."""
        return {"Subnets": [self._subnet(name) for name in dict.fromkeys(asked["SubnetIds"])]}

    def _subnet(self, name: str) -> Answer:
        stated = self.facts["subnets"].get(name)
        if stated is None:
            return self._unstated_subnet(name)
        return {
            "SubnetId": name,
            "VpcId": self.facts["vpc"]["id"],
            "AvailabilityZone": stated["zone"],
            "CidrBlock": stated["cidr"],
            "MapPublicIpOnLaunch": stated["public"],
        }

    def _unstated_subnet(self, name: str) -> Answer:
        """Return a subnet of another VPC; without a site all subnets are in one.

        Those of a queue must be in different zones, so each is assumed to have its own.
        """
        named = self.facts["named_subnets"]
        letter = "abcdef"[named.index(name) % 6 if name in named else 0]
        if self.facts["site"]:
            return {
                "SubnetId": name,
                "VpcId": "vpc-of-another-site",
                "AvailabilityZone": f"{self.region}{letter}",
                "CidrBlock": "192.0.2.0/24",
                "MapPublicIpOnLaunch": False,
            }
        reason = f"whether subnet {name} exists, its VPC, zone and range"
        return {
            "SubnetId": name,
            "VpcId": AssumedText(self.facts["vpc"]["id"], reason),
            "AvailabilityZone": AssumedText(f"{self.region}{letter}", reason),
            "CidrBlock": AssumedText("10.0.0.0/16", reason),
            "MapPublicIpOnLaunch": AssumedFlag(f"whether subnet {name} assigns public addresses"),
        }

    def describe_vpc_attribute(self, asked: Answer) -> Answer:
        """DNS settings: known of a VPC that the site makes."""
        name = asked["Attribute"][0].upper() + asked["Attribute"][1:]
        settings = {name: {"Value": True}}
        if self.facts["vpc"]["made_here"]:
            return settings
        return Assumed(settings, f"whether DNS support and names are on in VPC {asked['VpcId']}")

    def describe_route_tables(self, _asked: Answer) -> Answer:
        """Routes: no subnet that clusters may use has an internet gateway in a site."""
        route: Answer = {"DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": "nat-0"}
        if not self.facts["site"]:
            route = Assumed(route, "whether a subnet has a route to the internet")
        return {"RouteTables": [{"Routes": [route]}]}

    def describe_security_groups(self, asked: Answer) -> Answer:
        """Return groups: those of the site with their rules."""
        return {"SecurityGroups": [self._group(name) for name in asked["GroupIds"]]}

    def _group(self, name: str) -> Answer:
        stated = self.facts["security_groups"].get(name)
        rules = stated or {"inbound": [_everything(name)], "outbound": [_everything(name)]}
        group = {
            "GroupId": name,
            "VpcId": self.facts["vpc"]["id"],
            "IpPermissions": rules["inbound"],
            "IpPermissionsEgress": rules["outbound"],
        }
        if stated is None:
            return Assumed(group, f"whether security group {name} exists, its VPC and rules")
        return group

    def describe_addresses(self, asked: Answer) -> Answer:
        """Elastic addresses: the site states none."""
        address = asked["PublicIps"][0]
        return {
            "Addresses": [Assumed({"AllocationId": "eipalloc-0"}, _exists("elastic IP", address))]
        }

    def describe_network_interfaces(self, _asked: Answer) -> Answer:
        """Interfaces of FSx file systems: the site states none."""
        raise refuse("the network interfaces of FSx file systems")

    # EC2: images and machines

    def describe_images(self, asked: Answer) -> Answer:
        """Images of the lock, and the official image of this version."""
        if asked.get("ImageIds"):
            return {"Images": [self._image(name) for name in asked["ImageIds"]]}
        wanted = next(item["Values"][0] for item in asked["Filters"] if item["Name"] == "name")
        image = self._official_image(wanted)
        return {"Images": [image] if image else []}

    def _official_image(self, pattern: str) -> Answer | None:
        version = get_installed_version()
        for system, part in OS_TO_IMAGE_NAME_PART_MAP.items():
            for architecture in ("x86_64", "arm64"):
                name = f"aws-parallelcluster-{version}-{part}-{architecture}"
                if pattern == f"{name}*":
                    identifier = f"ami-official-{system}-{architecture}"
                    return self._image_answer(identifier, system, architecture, version, None)
        return None

    def _image(self, name: str) -> Answer:
        stated = self.facts["images"].get(name)
        if stated is not None:
            return self._image_answer(
                name,
                stated["os"],
                stated["architecture"],
                stated["parallelcluster_version"],
                stated["root_gib"],
            )
        if name.startswith("ami-official-"):
            _, _, os, architecture = name.split("-", 3)
            return self._image_answer(name, os, architecture, get_installed_version(), None)
        reason = f"whether image {name} exists, its system, processor, version and size"
        return self._image_answer(
            name,
            AssumedText("alinux2023", reason),
            AssumedText("x86_64", reason),
            AssumedText(get_installed_version(), reason),
            AssumedNumber(1, reason),
        )

    def _image_answer(
        self, name: str, os: str, architecture: str, version: str | None, root_gib: int | None
    ) -> Answer:
        size = root_gib or AssumedNumber(1, "the size of the official image")
        tags = _image_tags(os, version, name) if version else {}
        return {
            "ImageId": name,
            "Name": name,
            "Description": f"AWS ParallelCluster AMI for {os}" if root_gib is None else "",
            "State": "available",
            "OwnerId": _OWNER_OF_OFFICIAL_IMAGES if root_gib is None else self.facts["account"],
            "Architecture": architecture,
            "CreationDate": "2000-01-01T00:00:00.000Z",
            "BlockDeviceMappings": [
                {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": size, "SnapshotId": "snap-0"}}
            ],
            "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
        }

    def describe_instance_types(self, asked: Answer) -> Answer:
        """Facts of instance types."""
        return {
            "InstanceTypes": [
                instance_types.describe_type(self.region, name)
                for name in asked.get("InstanceTypes", [])
            ]
        }

    def describe_instance_type_offerings(self, asked: Answer) -> Answer:
        """Which types the region offers, or which zones offer certain types."""
        if asked.get("LocationType") != "availability-zone":
            names = instance_types.offered_types(self.region, self._named_types)
            return {"InstanceTypeOfferings": [{"InstanceType": name} for name in names]}
        return {
            "InstanceTypeOfferings": [
                {"InstanceType": name, "Location": zone}
                for item in asked["Filters"]
                for name in item["Values"]
                for zone in sorted(instance_types.offering_zones(self.region, name) or ())
            ]
        }

    def describe_key_pairs(self, asked: Answer) -> Answer:
        """Return a key pair: that of the environment exists; nobody states a key's type."""
        name = asked["KeyNames"][0]
        kind = AssumedText("ed25519", f"the type of key pair {name}, rsa or ed25519")
        key = {"KeyName": name, "KeyType": kind}
        if name not in self.facts["key_pairs"]:
            key = Assumed(key, _exists("key pair", name))
        return {"KeyPairs": [key]}

    def run_instances(self, asked: Answer) -> Answer:
        """Try a launch: zone and groups are checked, the rest is for AWS alone to say."""
        interface = asked["NetworkInterfaces"][0]
        subnet = self.facts["subnets"].get(interface["SubnetId"])
        zones = instance_types.offering_zones(self.region, asked["InstanceType"])
        if subnet and zones is not None and subnet["zone"] not in zones:
            raise _error("Unsupported", "not supported in the zone", "RunInstances")
        assume("quotas, capacity and the permission to launch, which AWS alone knows")
        raise _error("DryRunOperation", "Request would have succeeded", "RunInstances")

    def describe_placement_groups(self, asked: Answer) -> Answer:
        """Placement groups: the site states none."""
        assume(_exists("placement group", asked["GroupNames"][0]))
        return {"PlacementGroups": [{"GroupName": asked["GroupNames"][0]}]}

    def describe_launch_template_versions(self, asked: Answer) -> Answer:
        """Launch templates: the site states none."""
        assume(f"what launch template {asked.get('LaunchTemplateId')} holds")
        return {"LaunchTemplateVersions": [{"LaunchTemplateData": {}}]}

    def describe_capacity_reservations(self, asked: Answer) -> Answer:
        """Capacity reservations: the site states none."""
        prefix = f"arn:{self.facts['partition']}:ec2:{self.region}:{self.facts['account']}"
        return {
            "CapacityReservations": [
                Assumed(
                    {
                        "CapacityReservationId": name,
                        "CapacityReservationArn": f"{prefix}:capacity-reservation/{name}",
                        "InstanceType": _RESERVED_TYPE,
                        "InstancePlatform": "Linux/UNIX",
                        "AvailabilityZone": f"{self.region}a",
                        "ReservationType": "default",
                        "TotalInstanceCount": 0,
                        "AvailableInstanceCount": 0,
                        "State": "active",
                    },
                    f"whether capacity reservation {name} exists, and what it reserves",
                )
                for name in asked.get("CapacityReservationIds", [])
            ]
        }

    def describe_capacity_block_status(self, _asked: Answer) -> Answer:
        """Capacity blocks: the site states none."""
        assume("the state of capacity blocks")
        return {"CapacityBlockStatuses": []}

    # EC2: volumes

    def describe_volumes(self, asked: Answer) -> Answer:
        """EBS volumes: the site states none."""
        name = asked["VolumeIds"][0]
        volume = {"VolumeId": name, "State": "available", "AvailabilityZone": f"{self.region}a"}
        return {"Volumes": [Assumed(volume, f"whether volume {name} exists, is free, its zone")]}

    def describe_snapshots(self, asked: Answer) -> Answer:
        """EBS snapshots: the site states none."""
        name = asked["SnapshotIds"][0]
        snapshot = {"SnapshotId": name, "State": "completed", "VolumeSize": 1}
        return {"Snapshots": [Assumed(snapshot, f"whether snapshot {name} exists, and its size")]}

    # File systems

    def describe_efs(self, asked: Answer) -> Answer:
        """EFS file systems: those of a site are in all zones of the region."""
        name = asked["FileSystemId"]
        stated: Answer = {"FileSystemId": name}
        if name not in self.facts["file_systems"]:
            stated = Assumed(stated, _exists("EFS file system", name))
        return {"FileSystems": [stated]}

    def describe_mount_targets(self, asked: Answer) -> Answer:
        """Mount targets of the site's EFS file systems."""
        name = asked["FileSystemId"]
        stated = self.facts["file_systems"].get(name)
        if stated is None or stated["subnets"] is None:
            assume(f"where EFS file system {name} has mount targets, and their security groups")
            return {"MountTargets": []}
        return {
            "MountTargets": [
                {"MountTargetId": f"{name}/{subnet}", "FileSystemId": name, "SubnetId": subnet}
                for subnet in stated["subnets"]
            ]
        }

    def describe_mount_target_groups(self, asked: Answer) -> Answer:
        """Return the security groups of a mount target."""
        name = asked["MountTargetId"].split("/")[0]
        return {"SecurityGroups": self.facts["file_systems"][name]["security_groups"]}

    def describe_fsx(self, asked: Answer) -> Answer:
        """FSx file systems: the site states none."""
        return {"FileSystems": [self._fsx("FileSystemId", n) for n in asked["FileSystemIds"]]}

    def describe_file_caches(self, asked: Answer) -> Answer:
        """File caches: the site states none."""
        return {"FileCaches": [self._fsx("FileCacheId", name) for name in asked["FileCacheIds"]]}

    def _fsx(self, key: str, name: str) -> Answer:
        made_up = {
            key: name,
            "FileSystemType": "LUSTRE",
            "FileCacheType": "LUSTRE",
            "VpcId": self.facts["vpc"]["id"],
            "SubnetIds": [],
            "NetworkInterfaceIds": [],
        }
        return Assumed(made_up, f"whether {name} exists, its VPC, zone and security groups")

    def describe_fsx_volumes(self, asked: Answer) -> Answer:
        """Volumes of FSx: the site states none."""
        return {
            "Volumes": [
                Assumed(
                    {"VolumeId": name, "FileSystemId": f"fs-of-{name}"},
                    f"whether volume {name} exists, and its file system",
                )
                for name in asked["VolumeIds"]
            ]
        }

    def describe_backups(self, asked: Answer) -> Answer:
        """Backups of FSx: the site states none."""
        name = asked["BackupIds"][0]
        assume(_exists("FSx backup", name))
        return {"Backups": [{"BackupId": name}]}

    # S3

    def head_bucket(self, asked: Answer) -> Answer:
        """Whether a bucket exists."""
        if asked["Bucket"] not in self.facts["buckets"]:
            assume(_exists("bucket", asked["Bucket"]))
        return {}

    def get_bucket_location(self, asked: Answer) -> Answer:
        """Return the region of a bucket: those of the site are in its own."""
        if asked["Bucket"] not in self.facts["buckets"]:
            assume(f"the region of bucket {asked['Bucket']}")
        return {"LocationConstraint": None if self.region == "us-east-1" else self.region}

    def get_bucket_versioning(self, asked: Answer) -> Answer:
        """Whether a bucket keeps versions: known of those that the site makes."""
        if not self.facts["buckets"].get(asked["Bucket"], {}).get("made_here"):
            assume(f"whether versioning is on in bucket {asked['Bucket']}")
        return {"Status": "Enabled"}

    def head_object(self, asked: Answer) -> Answer:
        """Whether an object exists: known of what a deployment puts there."""
        if f"{asked['Bucket']}/{asked['Key']}" not in self.facts["objects"]:
            assume(f"whether s3://{asked['Bucket']}/{asked['Key']} exists")
        return {}

    # IAM

    def get_policy(self, asked: Answer) -> Answer:
        """Whether a managed policy exists."""
        arn = asked["PolicyArn"]
        if re.fullmatch(r"arn:[^:]+:iam::aws:policy/.+", arn):
            if arn.rsplit("/", 1)[1] not in _aws_policies():
                raise _error("NoSuchEntity", f"Policy {arn} was not found.", "GetPolicy")
        elif arn not in self.facts["policies"]:
            assume(_exists("policy", arn))
        return {"Policy": {"Arn": arn}}

    def get_role(self, asked: Answer) -> Answer:
        """Whether a role exists."""
        if asked["RoleName"] not in self.facts["roles"]:
            assume(_exists("role", asked["RoleName"]))
        return {"Role": {"RoleName": asked["RoleName"]}}

    def get_instance_profile(self, asked: Answer) -> Answer:
        """Instance profiles: the site states none."""
        name = asked["InstanceProfileName"]
        assume(_exists("instance profile", name))
        return {"InstanceProfile": {"InstanceProfileName": name, "Roles": []}}

    # Others

    def describe_key(self, asked: Answer) -> Answer:
        """KMS keys: the site states none."""
        assume(_exists("KMS key", asked["KeyId"]))
        return {"KeyMetadata": {"KeyId": asked["KeyId"]}}

    def get_hosted_zone(self, asked: Answer) -> Answer:
        """Return a private zone: that of the site is stated."""
        zone = self.facts["hosted_zones"].get(asked["Id"])
        answer = {
            "HostedZone": {"Name": zone or "", "Config": {"PrivateZone": True}},
            "VPCs": [{"VPCId": self.facts["vpc"]["id"]}],
        }
        if zone is None:
            reason = f"whether hosted zone {asked['Id']} exists, its name and VPC"
            return Assumed(answer, reason)
        return answer

    def list_group_resources(self, asked: Answer) -> Answer:
        """Resource groups: the site states none."""
        return Assumed({"Resources": []}, f"which reservations {asked['Group']} holds")

    def get_group_configuration(self, asked: Answer) -> Answer:
        """Resource groups: the site states none."""
        raise refuse(f"the configuration of resource group {asked['Group']}")

    def describe_secret(self, asked: Answer) -> Answer:
        """Whether a secret exists: known of that of the accounting database."""
        if asked["SecretId"] not in self.facts["secrets"]:
            assume(_exists("secret", asked["SecretId"]))
        return {"ARN": asked["SecretId"]}

    def get_secret_value(self, asked: Answer) -> Answer:
        """Secrets: nobody states what they hold."""
        raise refuse(f"what secret {asked['SecretId']} holds")

    def get_parameter(self, asked: Answer) -> Answer:
        """Parameters: the site states none."""
        assume(_exists("parameter", asked["Name"]))
        return {"Parameter": {"Name": asked["Name"]}}

    def get_caller_identity(self, _asked: Answer) -> Answer:
        """Whose account it is."""
        return {"Account": self.facts["account"]}


HANDLERS: dict[str, Callable[[Account, Answer], Answer]] = {
    "ec2:DescribeAddresses": Account.describe_addresses,
    "ec2:DescribeCapacityBlockStatus": Account.describe_capacity_block_status,
    "ec2:DescribeCapacityReservations": Account.describe_capacity_reservations,
    "ec2:DescribeImages": Account.describe_images,
    "ec2:DescribeInstanceTypeOfferings": Account.describe_instance_type_offerings,
    "ec2:DescribeInstanceTypes": Account.describe_instance_types,
    "ec2:DescribeKeyPairs": Account.describe_key_pairs,
    "ec2:DescribeLaunchTemplateVersions": Account.describe_launch_template_versions,
    "ec2:DescribeNetworkInterfaces": Account.describe_network_interfaces,
    "ec2:DescribePlacementGroups": Account.describe_placement_groups,
    "ec2:DescribeRouteTables": Account.describe_route_tables,
    "ec2:DescribeSecurityGroups": Account.describe_security_groups,
    "ec2:DescribeSnapshots": Account.describe_snapshots,
    "ec2:DescribeSubnets": Account.describe_subnets,
    "ec2:DescribeVolumes": Account.describe_volumes,
    "ec2:DescribeVpcAttribute": Account.describe_vpc_attribute,
    "ec2:RunInstances": Account.run_instances,
    "efs:DescribeFileSystems": Account.describe_efs,
    "efs:DescribeMountTargetSecurityGroups": Account.describe_mount_target_groups,
    "efs:DescribeMountTargets": Account.describe_mount_targets,
    "fsx:DescribeBackups": Account.describe_backups,
    "fsx:DescribeFileCaches": Account.describe_file_caches,
    "fsx:DescribeFileSystems": Account.describe_fsx,
    "fsx:DescribeVolumes": Account.describe_fsx_volumes,
    "iam:GetInstanceProfile": Account.get_instance_profile,
    "iam:GetPolicy": Account.get_policy,
    "iam:GetRole": Account.get_role,
    "kms:DescribeKey": Account.describe_key,
    "resource-groups:GetGroupConfiguration": Account.get_group_configuration,
    "resource-groups:ListGroupResources": Account.list_group_resources,
    "route53:GetHostedZone": Account.get_hosted_zone,
    "s3:GetBucketLocation": Account.get_bucket_location,
    "s3:GetBucketVersioning": Account.get_bucket_versioning,
    "s3:HeadBucket": Account.head_bucket,
    "s3:HeadObject": Account.head_object,
    "secretsmanager:DescribeSecret": Account.describe_secret,
    "secretsmanager:GetSecretValue": Account.get_secret_value,
    "ssm:GetParameter": Account.get_parameter,
    "sts:GetCallerIdentity": Account.get_caller_identity,
}


def enter(account: Account) -> None:
    """Make every AWS client of the library ask this account from now on, and forget the last."""
    AWSApi.reset()
    Cache.clear_all()

    def call(client: Any, operation: str, asked: dict[str, Any]) -> Answer:
        model = client.meta.service_model
        shape = model.operation_model(operation).input_shape
        report = ParamValidator().validate(asked, shape)
        if report.has_errors():
            raise ParamValidationError(report=report.generate_report())
        if model.service_name == "s3":
            validate_bucket_name(asked)
        return account.answer(model.service_name, operation, asked)

    client_class: Any = BaseClient
    client_class._make_api_call = call


def prepare() -> None:
    """Make the library's clients fit for an account that answers at once.

    Clients are made once, because each takes 50 ms or more, and nothing is remembered between
    validators, because each must learn for itself that an answer is made up.
    """
    os.environ["PCLUSTER_CACHE_DISABLED"] = "true"
    make_client = Boto3Client.__init__
    made: dict[tuple[str, str | None], Any] = {}

    def init(self: Any, client_name: str, botocore_config_kwargs: Any = None) -> None:
        key = (client_name, os.environ.get("AWS_DEFAULT_REGION"))
        if key not in made:
            make_client(self, client_name, botocore_config_kwargs)
            made[key] = self._client
        self._client = made[key]

    Boto3Client.__init__ = init


@cache
def _aws_policies() -> frozenset[str]:
    """Return the names of the policies that AWS manages, as of moto's release."""
    text = (instance_types.moto_folder() / "iam" / "aws_managed_policies.py").read_text("utf-8")
    return frozenset(re.findall(r'^ "([^"]+)":\{$', text, re.MULTILINE))


def _everything(group: str) -> Answer:
    return {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}


def _exists(kind: str, name: str) -> str:
    return f"whether {kind} {name} exists"


def _error(code: str, message: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


def _image_tags(os: str, version: str, name: str) -> dict[str, str]:
    """Return the tags by which ParallelCluster knows an image that `pcluster build-image` made."""
    return {
        "parallelcluster:version": version,
        "parallelcluster:os": os,
        "parallelcluster:image_id": name,
        "parallelcluster:build_status": "available",
    }
