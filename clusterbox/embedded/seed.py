"""What an embedded account holds before the first stack: the document, strictly checked.

A site's environment names things that already exist (a VPC, subnets, a permissions boundary,
images). They are written into the account under the very ids the environment gives, so that
the same configuration deploys to the embedded account and to AWS.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic import ValidationError as PydanticValidationError

_STRICT = ConfigDict(strict=True, frozen=True, extra="forbid")


def _network(text: str) -> str:
    try:
        return str(IPv4Network(text))
    except ValueError as error:
        raise ValueError(f"is not an IPv4 network in CIDR form: {error}") from error


def _id(prefix: str) -> StringConstraints:
    return StringConstraints(pattern=rf"^{prefix}-[0-9a-f]{{8}}(?:[0-9a-f]{{9}})?$")


Cidr = Annotated[str, AfterValidator(_network)]
VpcId = Annotated[str, _id("vpc")]
SubnetId = Annotated[str, _id("subnet")]
SecurityGroupId = Annotated[str, _id("sg")]
ImageId = Annotated[str, _id("ami")]
FileSystemId = Annotated[str, _id("fs")]
ZoneId = Annotated[str, StringConstraints(pattern=r"^Z[A-Z0-9]{1,31}$")]
IamName = Annotated[str, StringConstraints(pattern=r"^[\w+=,.@-]{1,128}$")]
IamPath = Annotated[str, StringConstraints(pattern=r"^/(?:[!-.0-~]+/)*$")]
BucketName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
AccountId = Annotated[str, StringConstraints(pattern=r"^\d{12}$")]
Instant = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")]
Text = Annotated[str, StringConstraints(min_length=1)]


class Vpc(BaseModel):
    """A VPC with its default security group, main route table and network ACL."""

    model_config = _STRICT
    id: VpcId = Field(description="The VPC's id.")
    cidr: Cidr = Field(description="Its primary IPv4 network.")


class Subnet(BaseModel):
    """A subnet of a VPC that is seeded with it or was before."""

    model_config = _STRICT
    id: SubnetId = Field(description="The subnet's id.")
    vpc_id: VpcId = Field(description="The VPC it belongs to.")
    cidr: Cidr = Field(description="Its IPv4 network, inside the VPC's.")
    availability_zone: Text = Field(description="For example us-west-2a.")


class IngressRule(BaseModel):
    """One inbound rule: from a network or from a security group."""

    model_config = _STRICT
    protocol: Literal["tcp", "udp", "icmp", "-1"] = Field(description="-1 is every protocol.")
    from_port: int | None = Field(default=None, ge=-1, le=65535, description="Not set for -1.")
    to_port: int | None = Field(default=None, ge=-1, le=65535, description="Not set for -1.")
    cidr: Cidr | None = Field(default=None, description="The network let in.")
    source_group: SecurityGroupId | None = Field(default=None, description="The group let in.")


class SecurityGroup(BaseModel):
    """A security group; all outbound traffic is allowed, as for a new group on AWS."""

    model_config = _STRICT
    id: SecurityGroupId = Field(description="The group's id.")
    vpc_id: VpcId = Field(description="The VPC it belongs to.")
    name: Text = Field(description="Unique in the VPC.")
    description: Text = Field(description="AWS never lets it be changed.")
    ingress: tuple[IngressRule, ...] = Field(default=(), strict=False, description="Inbound rules.")


class Policy(BaseModel):
    """A customer managed policy that allows everything: its text is not in the environment."""

    model_config = _STRICT
    name: IamName = Field(description="The policy's name.")
    path: IamPath = Field(default="/", description="IAM path, with a slash at both ends.")


class Role(BaseModel):
    """A role that one AWS service may assume."""

    model_config = _STRICT
    name: IamName = Field(description="The role's name.")
    path: IamPath = Field(default="/", description="IAM path, with a slash at both ends.")
    service: Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]+\.amazonaws\.com$")] = Field(
        description="The service that assumes it, for example cloudformation.amazonaws.com."
    )


class Image(BaseModel):
    """A private, available machine image that the account may use."""

    model_config = _STRICT
    id: ImageId = Field(description="The image's id.")
    name: Annotated[str, StringConstraints(min_length=3, max_length=128)] = Field(
        description="Unique among the account's images."
    )
    os: Text = Field(description="ParallelCluster's word, for example alinux2023.")
    architecture: Literal["x86_64", "arm64"] = Field(description="The processor's architecture.")
    root_gib: int = Field(ge=1, le=16384, description="Size of the root volume in GiB.")
    created: Instant | None = Field(
        default=None, description="When it was made; by default when it is seeded."
    )
    owner: AccountId | None = Field(
        default=None, description="Account that owns it; by default this one."
    )
    tags: dict[str, str] = Field(default_factory=dict, description="Its tags.")


class FileSystem(BaseModel):
    """An encrypted EFS file system with one mount target in each subnet."""

    model_config = _STRICT
    id: FileSystemId = Field(description="The file system's id.")
    security_group: SecurityGroupId = Field(description="The group of its mount targets.")
    subnets: tuple[SubnetId, ...] = Field(strict=False, description="At most one a zone.")


class HostedZone(BaseModel):
    """A private hosted zone associated with one VPC."""

    model_config = _STRICT
    id: ZoneId = Field(description="The zone's id.")
    name: Text = Field(description="The domain, with or without its last dot.")
    vpc_id: VpcId = Field(description="The VPC that resolves it.")


class StoredObject(BaseModel):
    """A text object in a bucket; the bucket is made when it is absent."""

    model_config = _STRICT
    bucket: BucketName = Field(description="The bucket's name.")
    key: Text = Field(description="The object's key.")
    body: str = Field(description="Its text.")


class SeedDocument(BaseModel):
    """Everything to be there already. Every part may be left out."""

    model_config = _STRICT
    vpcs: tuple[Vpc, ...] = Field(default=(), strict=False, description="VPCs.")
    subnets: tuple[Subnet, ...] = Field(default=(), strict=False, description="Subnets.")
    security_groups: tuple[SecurityGroup, ...] = Field(
        default=(), strict=False, description="Security groups."
    )
    key_pairs: tuple[Text, ...] = Field(default=(), strict=False, description="Key pair names.")
    policies: tuple[Policy, ...] = Field(
        default=(), strict=False, description="Customer managed policies."
    )
    roles: tuple[Role, ...] = Field(default=(), strict=False, description="Roles.")
    buckets: tuple[BucketName, ...] = Field(
        default=(), strict=False, description="Versioned buckets encrypted with AES256."
    )
    images: tuple[Image, ...] = Field(default=(), strict=False, description="Machine images.")
    file_systems: tuple[FileSystem, ...] = Field(
        default=(), strict=False, description="EFS file systems."
    )
    hosted_zones: tuple[HostedZone, ...] = Field(
        default=(), strict=False, description="Private hosted zones."
    )
    objects: tuple[StoredObject, ...] = Field(
        default=(), strict=False, description="Objects in buckets."
    )


class SeedResult(BaseModel):
    """What a seed did: each thing as ``part id``, for example ``vpcs vpc-0a1b2c3d``."""

    model_config = _STRICT
    made: tuple[str, ...] = Field(strict=False, description="What was not there and now is.")
    present: tuple[str, ...] = Field(strict=False, description="What was there and is unchanged.")


def problems_of(error: PydanticValidationError) -> list[str]:
    """Return one line for each problem: its place in the document, what is wrong, the value."""
    lines = []
    for item in error.errors():
        place = "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in item["loc"]
        ).lstrip(".")
        said = re.sub(r"^Value error, ", "", item["msg"])
        shown = "" if item["type"] in ("missing", "json_invalid") else f" (got {item['input']!r})"
        lines.append(f"{place or 'the document'}: {said}{shown}")
    return lines
