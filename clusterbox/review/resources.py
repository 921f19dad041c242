"""The resources of an environment before and after, and which of them are the same one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from clusterbox.review.intrinsics import (
    Place,
    Resolver,
    Template,
    as_dict,
    as_list,
    canonical,
)

# The properties that hold a resource's physical name, by type.
NAME_PROPERTIES = {
    "AWS::IAM::Role": "RoleName",
    "AWS::IAM::User": "UserName",
    "AWS::IAM::Group": "GroupName",
    "AWS::IAM::ManagedPolicy": "ManagedPolicyName",
    "AWS::IAM::InstanceProfile": "InstanceProfileName",
    "AWS::EC2::SecurityGroup": "GroupName",
    "AWS::EC2::LaunchTemplate": "LaunchTemplateName",
    "AWS::S3::Bucket": "BucketName",
    "AWS::SQS::Queue": "QueueName",
    "AWS::SNS::Topic": "TopicName",
    "AWS::SecretsManager::Secret": "Name",
    "AWS::ECR::Repository": "RepositoryName",
    "AWS::Backup::BackupVault": "BackupVaultName",
    "AWS::Lambda::Function": "FunctionName",
    "AWS::Logs::LogGroup": "LogGroupName",
    "AWS::RDS::DBInstance": "DBInstanceIdentifier",
    "AWS::RDS::DBCluster": "DBClusterIdentifier",
    "AWS::DynamoDB::Table": "TableName",
    "Custom::PclusterCluster": "ClusterName",
}
# What a sentence calls a resource; other types are called by the last part of the type.
NOUNS = {
    "AWS::IAM::ManagedPolicy": "managed policy",
    "AWS::KMS::Key": "key",
    "AWS::S3::Bucket": "bucket",
    "AWS::SQS::Queue": "queue",
    "AWS::SNS::Topic": "topic",
    "AWS::Lambda::Function": "function",
    "AWS::EC2::VPCEndpoint": "VPC endpoint",
    "AWS::IAM::OIDCProvider": "OIDC provider",
    "AWS::RDS::DBInstance": "database",
    "AWS::RDS::DBCluster": "database cluster",
    "Custom::PclusterCluster": "cluster",
}
# ARNs that follow from a name, as the service authorization reference writes them.
_IAM_ARNS = {
    "AWS::IAM::Role": ("role", "Arn"),
    "AWS::IAM::User": ("user", "Arn"),
    "AWS::IAM::Group": ("group", "Arn"),
    "AWS::IAM::InstanceProfile": ("instance-profile", "Arn"),
    "AWS::IAM::ManagedPolicy": ("policy", ""),
}
# `Ref` gives the same as this attribute.
_SAME_AS_REF = {
    "AWS::EC2::SecurityGroup": "GroupId",
    "AWS::EFS::FileSystem": "FileSystemId",
    "AWS::KMS::Key": "KeyId",
    "AWS::IAM::ManagedPolicy": "PolicyArn",
    "AWS::SNS::Topic": "TopicArn",
}
_CDK_HASH = re.compile(r"(?<=.)[0-9A-F]{8}$")


@dataclass(frozen=True)
class Resource:
    """A resource with its properties resolved; `token` names it on both sides alike."""

    place: Place
    type: str
    properties: dict[str, Any]
    attributes: Mapping[str, Any]
    name: str
    token: str
    is_named: bool = True

    @property
    def stack(self) -> str:
        """Return the name of the stack."""
        return self.place[0]

    @property
    def logical_id(self) -> str:
        """Return the logical id in the stack."""
        return self.place[1]

    @property
    def label(self) -> str:
        """Return what a sentence calls it: `role ws-dev-backup`."""
        return f"{noun(self.type)} {self.name}"


def noun(resource_type: str) -> str:
    """Return the word for a type: `security group` for `AWS::EC2::SecurityGroup`."""
    last = resource_type.rpartition("::")[2]
    return NOUNS.get(resource_type) or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", last).lower()


class Side:
    """All resources of an environment, either before or after a change."""

    def __init__(
        self,
        templates: Mapping[str, Template],
        account: str | None,
        truths: Callable[[str, str], bool],
    ) -> None:
        self._templates = templates
        self._account = account
        self._truths = truths
        # What was paired with something of the other side has the token of both.
        self.tokens: dict[Place, str] = {}
        self._named: dict[tuple[Place, str], str | None] = {}
        self._resolver = Resolver(templates, account, truths, self._reference)
        self.resources: dict[Place, Resource] = {}
        self.load()

    def load(self) -> None:
        """Resolve all resources with the tokens known so far."""
        self._named.clear()
        self.resources = {place: self._load(place, raw) for place, raw in self._raw()}

    def of_type(self, *types: str) -> Iterator[Resource]:
        """Yield the resources of these types."""
        return (r for r in self.resources.values() if r.type in types)

    def reference(self, place: Place) -> str:
        """Return what `Ref` of a resource resolves to."""
        return canonical(self._resolver.resolve(place[0], {"Ref": place[1]}))

    def attribute(self, place: Place, name: str) -> str:
        """Return what an attribute of a resource resolves to."""
        return canonical(self._resolver.resolve(place[0], {"Fn::GetAtt": [place[1], name]}))

    def _raw(self) -> Iterator[tuple[Place, dict[str, Any]]]:
        for stack, template in self._templates.items():
            for logical_id, raw in as_dict(template.get("Resources")).items():
                body = as_dict(raw)
                if "Condition" not in body or self._truths(stack, str(body["Condition"])):
                    yield (stack, logical_id), body

    def _load(self, place: Place, raw: dict[str, Any]) -> Resource:
        stack, logical_id = place
        properties = as_dict(self._resolver.resolve(stack, raw.get("Properties", {})))
        kind = str(raw.get("Type", ""))
        given = self.physical_name(place) or name_tag(properties)
        name = given or _CDK_HASH.sub("", logical_id)
        attributes: dict[str, Any] = {
            key: raw[key] for key in ("DeletionPolicy", "UpdateReplacePolicy") if key in raw
        }
        return Resource(
            place, kind, properties, attributes, name, self._token(place, kind), bool(given)
        )

    def _token(self, place: Place, kind: str) -> str:
        return self.tokens.get(place, f"{noun(kind)} {'/'.join(place)}")

    def _body(self, place: Place) -> dict[str, Any]:
        resources = as_dict(self._templates.get(place[0], {}).get("Resources"))
        return as_dict(resources.get(place[1]))

    def _property(self, place: Place, key: str) -> str | None:
        """Return a property that is text after resolving it, or None."""
        known = (place, key)
        if known not in self._named:
            # A name made of itself would not end; it is no name then.
            self._named[known] = None
            raw = as_dict(self._body(place).get("Properties")).get(key)
            value = None if raw is None else self._resolver.resolve(place[0], raw)
            self._named[known] = value if isinstance(value, str) and value else None
        return self._named[known]

    def physical_name(self, place: Place) -> str | None:
        """Return the name that the template gives the resource, or None."""
        key = NAME_PROPERTIES.get(str(self._body(place).get("Type", "")))
        return self._property(place, key) if key else None

    def _reference(self, place: Place, attribute: str) -> str | None:
        body = self._body(place)
        if not body:
            return None
        kind = str(body.get("Type", ""))
        if _SAME_AS_REF.get(kind) == attribute:
            attribute = ""
        name = self.physical_name(place)
        if name:
            if kind == "AWS::S3::Bucket" and attribute == "Arn":
                return f"arn:aws:s3:::{name}"
            section, arn_attribute = _IAM_ARNS.get(kind, ("", None))
            if attribute == arn_attribute and self._account:
                path = self._property(place, "Path") or "/"
                return f"arn:aws:iam::{self._account}:{section}{path}{name}"
            if attribute == "" and kind in NAME_PROPERTIES and arn_attribute != "":
                return name if kind != "AWS::EC2::SecurityGroup" else self._written(place, kind, "")
        return self._written(place, kind, attribute)

    def _written(self, place: Place, kind: str, attribute: str) -> str:
        return f"${{{self._token(place, kind)}{'.' if attribute else ''}{attribute}}}"


def name_tag(properties: Mapping[str, Any]) -> str | None:
    """Return the value of the tag `Name`, or None."""
    for key in ("Tags", "FileSystemTags"):
        for tag in as_list(properties.get(key)):
            if isinstance(tag, Mapping) and tag.get("Key") == "Name":
                return canonical(tag.get("Value"))
    return None


@dataclass(frozen=True)
class Sides:
    """An environment before and after, with the resources that are the same one paired."""

    base: Side
    head: Side
    pairs: dict[Place, Place] = field(default_factory=dict)

    def both(self, *types: str) -> Iterator[tuple[Resource | None, Resource | None]]:
        """Yield each resource of the types (of any, without one) before and after."""
        paired = set(self.pairs.values())
        for place, old in self.base.resources.items():
            if types and old.type not in types:
                continue
            partner = self.pairs.get(place)
            yield old, self.head.resources[partner] if partner else None
        for place, new in self.head.resources.items():
            if place not in paired and (not types or new.type in types):
                yield None, new

    def moved(self) -> Iterator[tuple[Resource, Resource]]:
        """Yield what is the same resource at another place."""
        for old, new in self.pairs.items():
            if old != new:
                yield self.base.resources[old], self.head.resources[new]


def pair_sides(base: Side, head: Side) -> Sides:
    """Return both sides with equal resources paired, and references to them written alike.

    The same physical name makes a resource the same; then the same place, the same tag `Name`,
    the same logical id in another stack, and at last the same properties.
    """
    pairs: dict[Place, Place] = {}
    for identity in (_by_name, _by_place, _by_tag, _by_logical_id, _by_properties):
        old, new = (
            _index(side, identity, taken)
            for side, taken in ((base, set(pairs)), (head, set(pairs.values())))
        )
        for key, place in old.items():
            if key in new and place and (partner := new[key]):
                pairs[place] = partner
    taken: set[str] = set()
    for old_place, new_place in pairs.items():
        kind = head.resources[new_place].type
        token = f"{noun(kind)} {'/'.join(new_place)}"
        taken.add(token)
        base.tokens[old_place] = head.tokens[new_place] = token
    for place, resource in base.resources.items():
        # A removed resource must not be taken for a new one at its place.
        if place not in pairs and resource.token in taken:
            base.tokens[place] = f"former {resource.token}"
    base.load()
    head.load()
    return Sides(base, head, pairs)


Identity = Callable[[Side, Resource], object]


def _index(side: Side, identity: Identity, taken: set[Place]) -> dict[object, Place | None]:
    """Return the places of what is not paired yet by identity; None where it is ambiguous."""
    found: dict[object, Place | None] = {}
    for place, resource in side.resources.items():
        key = None if place in taken else identity(side, resource)
        if key is not None:
            found[resource.type, key] = None if (resource.type, key) in found else place
    return found


def _by_name(side: Side, resource: Resource) -> object:
    return side.physical_name(resource.place)


def _by_place(_side: Side, resource: Resource) -> object:
    return resource.place


def _by_tag(_side: Side, resource: Resource) -> object:
    return name_tag(resource.properties)


def _by_logical_id(_side: Side, resource: Resource) -> object:
    return resource.logical_id


def _by_properties(_side: Side, resource: Resource) -> object:
    return canonical(resource.properties)
