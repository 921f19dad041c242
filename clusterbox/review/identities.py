"""Compare what stands around policies: profiles, access keys, identity providers, who runs as whom."""

from __future__ import annotations

import re
from collections.abc import Iterator

from clusterbox.review.changes import Grade, Kind, SecurityChange, shorten
from clusterbox.review.intrinsics import as_dict, as_list, canonical
from clusterbox.review.resources import Resource, Sides

# The property that says with whose permissions a resource works.
_RUNS_AS = {
    "AWS::Lambda::Function": "Role",
    "AWS::EC2::Instance": "IamInstanceProfile",
    "AWS::CodeBuild::Project": "ServiceRole",
    "AWS::ECS::TaskDefinition": "TaskRoleArn",
    "AWS::Backup::BackupSelection": "BackupSelection.IamRoleArn",
    "AWS::EC2::LaunchTemplate": "LaunchTemplateData.IamInstanceProfile",
    "AWS::ImageBuilder::InfrastructureConfiguration": "InstanceProfileName",
    "AWS::IAM::InstanceProfile": "Roles",
}
# Parameters of nested stacks that say with whose permissions, or within which, they work.
_ROLE_PARAMETER = re.compile(r"role|boundary|polic", re.IGNORECASE)
# What is told when it comes: the kind, the rule, the sentence and the grade.
_NEW: dict[str, tuple[Kind, str, str, Grade]] = {
    "AWS::IAM::AccessKey": (
        "widening",
        "access key added",
        "new access key of user {UserName}",
        Grade.PRINCIPAL,
    ),
    "AWS::IAM::OIDCProvider": (
        "widening",
        "identity provider added",
        "identities of {Url} are now known to the account",
        Grade.PRINCIPAL,
    ),
    "AWS::IAM::SAMLProvider": (
        "widening",
        "identity provider added",
        "identities of the SAML provider {Name} are now known to the account",
        Grade.PRINCIPAL,
    ),
    "AWS::IAM::ServiceLinkedRole": (
        "change",
        "service-linked role added",
        "the service {AWSServiceName} gets its service-linked role, which has no boundary",
        Grade.MINOR,
    ),
    "AWS::IAM::UserToGroupAddition": (
        "widening",
        "group joined",
        "the users {Users} are now in the group {GroupName}",
        Grade.PRINCIPAL,
    ),
}


def compare_identities(sides: Sides) -> Iterator[SecurityChange]:
    """Yield new identities, and resources that now work with the permissions of another role."""
    for old, new in sides.both(*_NEW):
        if new is not None and (old is None or old.type == "AWS::IAM::UserToGroupAddition"):
            if old is None or old.properties != new.properties:
                yield _told(new)
        elif new is not None and old is not None:
            yield from _compare_provider(old, new)
    for old, new in sides.both("AWS::CloudFormation::Stack"):
        if new is not None:
            yield from _compare_nested(old, new)
    for old, new in sides.both(*_RUNS_AS):
        if old is not None and new is not None:
            before, after = _runs_as(old), _runs_as(new)
            if before != after:
                yield _runs_otherwise(new, before, after)


def _compare_nested(old: Resource | None, new: Resource) -> Iterator[SecurityChange]:
    """Yield changes of a nested stack: its own template is elsewhere and not compared."""
    url = canonical(new.properties.get("TemplateURL", ""))
    if old is None or canonical(old.properties.get("TemplateURL", "")) != url:
        # An address may hold a signature in its query.
        text = f"{new.label} is made from {url.partition('?')[0]}, which is not compared"
        yield _change(new, "change", "nested stack", text, Grade.STATEMENT)
    if old is None:
        return
    before, after = (as_dict(r.properties.get("Parameters")) for r in (old, new))
    for name in sorted({**before, **after}):
        was, now = before.get(name), after.get(name)
        if was != now and _ROLE_PARAMETER.search(name):
            text = f"{new.label} has {name} {canonical(now) if now else 'no more'}"
            text += f" (before: {canonical(was) if was else 'none'})"
            yield _change(new, "widening", "role changed", text, Grade.PRINCIPAL)


def _told(resource: Resource) -> SecurityChange:
    kind, rule, text, grade = _NEW[resource.type]
    values = {
        key: shorten(map(canonical, as_list(value))) for key, value in resource.properties.items()
    }
    for name in ("UserName", "Url", "Name", "AWSServiceName", "Users", "GroupName"):
        values.setdefault(name, resource.name)
    return _change(resource, kind, rule, text.format(**values), grade)


def _compare_provider(old: Resource, new: Resource) -> Iterator[SecurityChange]:
    before, after = (
        set(map(canonical, as_list(r.properties.get("ClientIdList")))) for r in (old, new)
    )
    url = canonical(new.properties.get("Url", new.name))
    if after - before:
        text = f"identities of {url} are now accepted for {shorten(sorted(after - before))}"
        yield _change(new, "widening", "audience added", text, Grade.PRINCIPAL)
    if before - after:
        text = f"identities of {url} are no longer accepted for {shorten(sorted(before - after))}"
        yield _change(new, "narrowing", "audience removed", text, Grade.STATEMENT)
    prints = [
        sorted(map(canonical, as_list(r.properties.get("ThumbprintList")))) for r in (old, new)
    ]
    url_before = canonical(old.properties.get("Url", old.name))
    if prints[0] != prints[1] or url_before != url:
        text = f"the identity provider {url} has another address or other thumbprints than before"
        yield _change(new, "widening", "identity provider changed", text, Grade.PRINCIPAL)


def _runs_as(resource: Resource) -> str:
    value: object = resource.properties
    for key in _RUNS_AS[resource.type].split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, dict):
        value = value.get("Arn") or value.get("Name")
    return shorten(map(canonical, as_list(value)))


def _runs_otherwise(resource: Resource, before: str, after: str) -> SecurityChange:
    if not after:
        text = f"{resource.label} no longer works with the permissions of {before}"
        return _change(resource, "narrowing", "role removed", text, Grade.STATEMENT)
    text = f"{resource.label} now works with the permissions of {after}"
    text += f" (before: {before or 'none'})"
    return _change(resource, "widening", "role changed", text, Grade.PRINCIPAL)


def _change(resource: Resource, kind: Kind, rule: str, text: str, grade: Grade) -> SecurityChange:
    place = resource.place
    return SecurityChange(*place, resource.name, kind, rule, text, grade)
