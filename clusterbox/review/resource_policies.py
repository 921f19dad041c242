"""Compare the policies that resources themselves have: buckets, keys, queues, functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from clusterbox.review.changes import SecurityChange
from clusterbox.review.grants import RESOURCE, Holder, compare_grants
from clusterbox.review.intrinsics import as_dict, as_list, canonical
from clusterbox.review.resources import Resource, Side, Sides, noun
from clusterbox.review.statements import Grant, parse_document, parse_statement

# The property of a resource that is its own policy.
_OWN_POLICY = {
    "AWS::KMS::Key": "KeyPolicy",
    "AWS::KMS::ReplicaKey": "KeyPolicy",
    "AWS::EFS::FileSystem": "FileSystemPolicy",
    "AWS::ECR::Repository": "RepositoryPolicyText",
    "AWS::Backup::BackupVault": "AccessPolicy",
    "AWS::EC2::VPCEndpoint": "PolicyDocument",
    "AWS::S3::AccessPoint": "Policy",
    "AWS::SNS::Topic": "Policy",
    "AWS::ApiGateway::RestApi": "Policy",
}
# A policy apart: the type it guards, the property that names it, and that of the document.
_APART = {
    "AWS::S3::BucketPolicy": ("AWS::S3::Bucket", "Bucket", "PolicyDocument"),
    "AWS::SQS::QueuePolicy": ("AWS::SQS::Queue", "Queues", "PolicyDocument"),
    "AWS::SQS::QueueInlinePolicy": ("AWS::SQS::Queue", "Queue", "PolicyDocument"),
    "AWS::SNS::TopicPolicy": ("AWS::SNS::Topic", "Topics", "PolicyDocument"),
    "AWS::SNS::TopicInlinePolicy": ("AWS::SNS::Topic", "TopicArn", "PolicyDocument"),
    "AWS::SecretsManager::ResourcePolicy": (
        "AWS::SecretsManager::Secret",
        "SecretId",
        "ResourcePolicy",
    ),
    "AWS::Logs::ResourcePolicy": ("AWS::Logs::LogGroup", "PolicyName", "PolicyDocument"),
    "AWS::ECR::RegistryPolicy": ("AWS::ECR::Registry", "", "PolicyText"),
}
# Without a policy of its own an endpoint lets everything through ("VPC endpoint policies").
_EVERYTHING = {"Effect": "Allow", "Action": "*", "Resource": "*", "Principal": "*"}
_DEFAULT = set(parse_statement(_EVERYTHING))


@dataclass
class _Guarded:
    """What is guarded by policies: a resource of the templates, or only named by a policy."""

    key: str
    holder: Holder
    is_resource: bool
    grants: set[Grant] = field(default_factory=set)


def compare_resource_policies(sides: Sides) -> Iterator[SecurityChange]:
    """Yield who a resource's own policy lets in, or keeps out, other than before."""
    base, head = _guarded(sides.base), _guarded(sides.head)
    for key in {**base, **head}:
        old, new = base.get(key), head.get(key)
        guard = new or old
        assert guard is not None  # noqa: S101 (the key is of one of them)
        if new is None and guard.is_resource:
            continue  # it went with all that it let in
        before = old.grants if old else set()
        after = new.grants if new else set()
        if old is None and guard.is_resource:
            # What something new denies takes nothing from anyone, nor does AWS's default widen.
            after = {grant for grant in after if grant.effect == "Allow"} - _DEFAULT
        yield from compare_grants(guard.holder, RESOURCE, before, after)


def _guarded(side: Side) -> dict[tuple[str, str], _Guarded]:
    """Return what has a policy, by type and by what a reference to it resolves to."""
    found: dict[tuple[str, str], _Guarded] = {}
    names: dict[tuple[str, str], tuple[str, str]] = {}
    for resource in side.resources.values():
        key = (resource.type, side.reference(resource.place))
        if resource.type in _GUARDED_TYPES:
            holder = Holder(*resource.place, resource.name, resource.label)
            found[key] = _Guarded(key[1], holder, True, _own_grants(resource))
            # A policy may name what it guards by its ARN too.
            names[resource.type, side.attribute(resource.place, "Arn")] = key
    for resource in side.resources.values():
        for guarded_type, name, grants in _policies_apart(resource):
            key = names.get((guarded_type, name), (guarded_type, name))
            if key not in found:
                holder = Holder(*resource.place, name, f"{noun(guarded_type)} {name}")
                found[key] = _Guarded(name, holder, False)
            found[key].grants |= grants
    return found


def _own_grants(resource: Resource) -> set[Grant]:
    document = resource.properties.get(_OWN_POLICY.get(resource.type, ""))
    if resource.type == "AWS::EC2::VPCEndpoint" and document is None:
        return set(_DEFAULT)
    return parse_document(document)


def _policies_apart(resource: Resource) -> Iterator[tuple[str, str, set[Grant]]]:
    """Yield the guarded type, the reference to what is guarded, and the grants."""
    properties = resource.properties
    if resource.type in _APART:
        guarded_type, name, document = _APART[resource.type]
        grants = parse_document(properties.get(document))
        for target in as_list(properties.get(name, "of this account")):
            yield guarded_type, canonical(target), grants
    elif resource.type in _SINGLE:
        yield _SINGLE[resource.type](properties)


def _function_permission(properties: Mapping[str, object]) -> tuple[str, str, set[Grant]]:
    """Return the grant of an `AWS::Lambda::Permission`."""
    principal = canonical(properties.get("Principal", "*"))
    kind = "Service" if principal.endswith((".amazonaws.com", ".amazonaws.com.cn")) else "AWS"
    keys = {
        "SourceArn": ("ArnLike", "aws:SourceArn"),
        "SourceAccount": ("StringEquals", "aws:SourceAccount"),
        "PrincipalOrgID": ("StringEquals", "aws:PrincipalOrgID"),
        "FunctionUrlAuthType": ("StringEquals", "lambda:FunctionUrlAuthType"),
        "EventSourceToken": ("StringEquals", "lambda:EventSourceToken"),
    }
    condition: dict[str, dict[str, object]] = {}
    for name, (operator, key) in keys.items():
        if name in properties:
            condition.setdefault(operator, {})[key] = properties[name]
    statement = {
        "Effect": "Allow",
        "Action": properties.get("Action", "lambda:InvokeFunction"),
        "Principal": {kind: principal},
        "Resource": "*",
        "Condition": condition,
    }
    name = canonical(properties.get("FunctionName", ""))
    return "AWS::Lambda::Function", name, set(parse_statement(statement))


def _bus_policy(properties: Mapping[str, object]) -> tuple[str, str, set[Grant]]:
    """Return the grants of an `AWS::Events::EventBusPolicy`."""
    statement = as_dict(properties.get("Statement")) or {
        "Effect": "Allow",
        "Action": properties.get("Action", "events:PutEvents"),
        "Principal": properties.get("Principal", "*"),
        "Resource": "*",
    }
    name = canonical(properties.get("EventBusName", "default"))
    return "AWS::Events::EventBus", name, set(parse_statement(statement))


_SINGLE: dict[str, Callable[[Mapping[str, object]], tuple[str, str, set[Grant]]]] = {
    "AWS::Lambda::Permission": _function_permission,
    "AWS::Events::EventBusPolicy": _bus_policy,
}
_GUARDED_TYPES = {
    *_OWN_POLICY,
    *(guarded for guarded, _, _ in _APART.values()),
    "AWS::Lambda::Function",
    "AWS::Events::EventBus",
}
