"""Writing a seed document into the account's stores, under the ids it gives.

The stores are written directly, because an API call cannot choose an id. ``seed_check`` finds
every problem before ``apply`` makes anything.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ministack.services import ec2, efs, iam, route53, s3

from clusterbox.embedded.seed import (
    FileSystem,
    HostedZone,
    Image,
    IngressRule,
    Policy,
    Role,
    SecurityGroup,
    SeedDocument,
    SeedResult,
    StoredObject,
    Subnet,
    Vpc,
)
from clusterbox.embedded.server.images import register_image
from clusterbox.embedded.server.ministack_api import (
    account_id,
    call,
    new_id,
    query_parameters,
    region,
)

_BUCKET_ENCRYPTION = (
    '<ServerSideEncryptionConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Rule>'
    "<ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm>"
    "</ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>"
)


def _rename(store: Any, made_id: str, wanted_id: str, key: str) -> dict[str, Any]:
    """Move a record to the id the document gives; return the record."""
    record: dict[str, Any] = store.pop(made_id)
    record[key] = wanted_id
    store[wanted_id] = record
    return record


def _make_vpc(vpc: Vpc) -> None:
    made = call(ec2._create_vpc, query_parameters({"CidrBlock": vpc.cidr})).value("vpcId")
    _rename(ec2._vpcs, made, vpc.id, "VpcId")
    # ParallelCluster refuses a VPC without host names; a VPC that CloudFormation makes says so itself.
    ec2._vpcs[vpc.id]["EnableDnsHostnames"] = True
    for store in (ec2._network_acls, ec2._route_tables, ec2._security_groups):
        for child in store.values():
            if child["VpcId"] == made:
                child["VpcId"] = vpc.id


def _make_subnet(subnet: Subnet) -> None:
    asked = {
        "VpcId": subnet.vpc_id,
        "CidrBlock": subnet.cidr,
        "AvailabilityZone": subnet.availability_zone,
    }
    made = call(ec2._create_subnet, query_parameters(asked)).value("subnetId")
    record = _rename(ec2._subnets, made, subnet.id, "SubnetId")
    # AWS keeps five addresses of each subnet for itself.
    record["AvailableIpAddressCount"] = ipaddress.IPv4Network(subnet.cidr).num_addresses - 5


def _permission(rule: IngressRule) -> dict[str, Any]:
    ports = {"FromPort": rule.from_port, "ToPort": rule.to_port}
    pair = {"GroupId": rule.source_group, "UserId": account_id()}
    return {
        "IpProtocol": rule.protocol,
        **{name: port for name, port in ports.items() if port is not None},
        "IpRanges": [{"CidrIp": rule.cidr}] if rule.cidr else [],
        "Ipv6Ranges": [],
        "PrefixListIds": [],
        "UserIdGroupPairs": [pair] if rule.source_group else [],
    }


def _make_security_group(group: SecurityGroup) -> None:
    everything = IngressRule(protocol="-1", cidr="0.0.0.0/0")
    ec2._security_groups[group.id] = {
        "GroupId": group.id,
        "GroupName": group.name,
        "Description": group.description,
        "VpcId": group.vpc_id,
        "OwnerId": account_id(),
        "IpPermissions": [_permission(rule) for rule in group.ingress],
        "IpPermissionsEgress": [_permission(everything)],
    }


def _make_key_pair(name: str) -> None:
    call(ec2._create_key_pair, query_parameters({"KeyName": name}))


def _policy_arn(policy: Policy) -> str:
    return f"arn:aws:iam::{account_id()}:policy{policy.path}{policy.name}"


def _make_policy(policy: Policy) -> None:
    statement = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    document = {"Version": "2012-10-17", "Statement": [statement]}
    iam.store_policy(_policy_arn(policy), policy.name, policy.path, document)


def _make_role(role: Role) -> None:
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": role.service},
        "Action": "sts:AssumeRole",
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    asked = {"RoleName": role.name, "Path": role.path, "AssumeRolePolicyDocument": document}
    call(iam._create_role, query_parameters(asked))


def _make_bucket(name: str) -> None:
    call(s3._create_bucket, name, b"")
    s3._bucket_versioning[name] = "Enabled"
    call(s3._put_bucket_encryption, name, _BUCKET_ENCRYPTION.encode())


def _make_image(image: Image) -> None:
    register_image(
        image.id,
        image.name,
        architecture=image.architecture,
        root_gib=image.root_gib,
        owner=image.owner,
        created=image.created,
    )
    tags = {"os": image.os, **image.tags}
    ec2._tags[image.id] = [{"Key": key, "Value": value} for key, value in tags.items()]


def _make_file_system(system: FileSystem) -> None:
    body = {"CreationToken": system.id, "Encrypted": True}
    made = json.loads(call(efs._create_file_system, body).text)["FileSystemId"]
    record = _rename(efs._file_systems, made, system.id, "FileSystemId")
    record["FileSystemArn"] = (
        f"arn:aws:elasticfilesystem:{region()}:{account_id()}:file-system/{system.id}"
    )
    for subnet_id in system.subnets:
        asked = {
            "FileSystemId": system.id,
            "SubnetId": subnet_id,
            "SecurityGroups": [system.security_group],
        }
        call(efs._create_mount_target, asked)


def zone_name(zone: HostedZone) -> str:
    """Return the zone's domain with its last dot, as Route 53 keeps it."""
    return zone.name.rstrip(".").lower() + "."


def _make_hosted_zone(zone: HostedZone) -> None:
    name = zone_name(zone)
    route53._zones[zone.id] = {
        "id": zone.id,
        "name": name,
        "caller_reference": new_id("seed"),
        "comment": "",
        "private": True,
        "vpcs": [{"VPCRegion": region(), "VPCId": zone.vpc_id}],
    }
    route53._records[zone.id] = route53._default_records(name)


def _object_is_there(stored: StoredObject) -> bool:
    return bool(s3._get_object_data(stored.bucket, stored.key) == stored.body.encode())


def _make_object(stored: StoredObject) -> None:
    if stored.bucket not in s3._buckets:
        _make_bucket(stored.bucket)
    call(s3._put_object, stored.bucket, stored.key, stored.body.encode(), {})


@dataclass(frozen=True)
class Part:
    """How the entries of one part of the document are named, found and made."""

    field: str
    name: Callable[[Any], str]
    is_there: Callable[[Any], bool]
    make: Callable[[Any], None]


# In the order in which they need each other: subnets their VPC, and so on.
PARTS = (
    Part("vpcs", lambda v: v.id, lambda v: v.id in ec2._vpcs, _make_vpc),
    Part("subnets", lambda s: s.id, lambda s: s.id in ec2._subnets, _make_subnet),
    Part(
        "security_groups",
        lambda g: g.id,
        lambda g: g.id in ec2._security_groups,
        _make_security_group,
    ),
    Part("key_pairs", str, lambda name: name in ec2._key_pairs, _make_key_pair),
    Part("policies", lambda p: p.name, lambda p: _policy_arn(p) in iam._policies, _make_policy),
    Part("roles", lambda r: r.name, lambda r: r.name in iam._roles, _make_role),
    Part("buckets", str, lambda name: name in s3._buckets, _make_bucket),
    Part("images", lambda i: i.id, lambda i: i.id in ec2._images, _make_image),
    Part("file_systems", lambda f: f.id, lambda f: f.id in efs._file_systems, _make_file_system),
    Part("hosted_zones", lambda z: z.id, lambda z: z.id in route53._zones, _make_hosted_zone),
    Part("objects", lambda o: f"s3://{o.bucket}/{o.key}", _object_is_there, _make_object),
)


def apply(document: SeedDocument) -> SeedResult:
    """Make what is not there yet; return what was made and what was there.

    An object whose text differs is written again and counts as made.
    """
    ec2._ensure_defaults_initialized()
    made, present = [], []
    for part in PARTS:
        for entry in getattr(document, part.field):
            line = f"{part.field} {part.name(entry)}"
            if part.is_there(entry):
                present.append(line)
            else:
                part.make(entry)
                made.append(line)
    return SeedResult(made=tuple(made), present=tuple(present))
