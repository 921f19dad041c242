"""Compare settings that protect: encryption, public access, IMDSv2, deletion, logging."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from clusterbox.review.changes import Grade, Kind, SecurityChange
from clusterbox.review.intrinsics import as_dict, as_list, canonical
from clusterbox.review.resources import Resource, Sides

# What tells the items of a list apart, in the order of preference.
_ITEM_KEYS = ("DeviceName", "Name", "Id", "Key", "Device", "DeviceIndex")
_PUBLIC_ACLS = {"PublicRead", "PublicReadWrite", "AuthenticatedRead"}
_RETAINS = {"Retain", "Snapshot", "RetainExceptOnCreate"}
# Their tokens or contents say nothing about protection, or are compared elsewhere.
_NOT_WALKED = {"Custom::PclusterCluster", "AWS::CloudFormation::Stack"}
_PATH = tuple[str, ...]


def _is(value: str) -> Callable[[object], bool]:
    return lambda found: canonical(found).lower() == value


_true, _false = _is("true"), _is("false")


@dataclass(frozen=True)
class Guard:
    """A setting by the end of its path, when it protects, and what it means to lose it.

    `absent` says whether a setting that is left out protects; `new` whether a new resource whose
    template turns the protection off is told of too.
    """

    path: _PATH
    protects: Callable[[object], bool]
    lost: str
    gained: str
    rule: str
    grade: Grade = Grade.ALARM
    absent: bool = False
    new: bool = True


def _on(*path: str, what: str, rule: str, grade: Grade = Grade.ALARM, new: bool = True) -> Guard:
    return Guard(path, _true, f"{what} is off", f"{what} is on", rule, grade, new=new)


def _off(*path: str, what: str, rule: str, grade: Grade = Grade.ALARM) -> Guard:
    lost, gained = f"{what}", f"no longer {what}"
    return Guard(path, lambda value: not _true(value), lost, gained, rule, grade, absent=True)


_ENCRYPTION, _PUBLIC, _PROTECTION = "encryption off", "public access", "protection lost"
GUARDS = (
    _on("Encrypted", what="encryption", rule=_ENCRYPTION),
    _on("StorageEncrypted", what="encryption", rule=_ENCRYPTION),
    _on("SSESpecification", "SSEEnabled", what="encryption with a key", rule=_ENCRYPTION),
    _on("EncryptionAtRestOptions", "Enabled", what="encryption at rest", rule=_ENCRYPTION),
    _on("NodeToNodeEncryptionOptions", "Enabled", what="encryption of traffic", rule=_ENCRYPTION),
    _on("AtRestEncryptionEnabled", what="encryption at rest", rule=_ENCRYPTION),
    _on("TransitEncryptionEnabled", what="encryption of traffic", rule=_ENCRYPTION),
    _on("SqsManagedSseEnabled", what="encryption", rule=_ENCRYPTION),
    _on("EnableKeyRotation", what="key rotation", rule=_PROTECTION, grade=Grade.STATEMENT),
    _on("DeletionProtection", what="deletion protection", rule=_PROTECTION, new=False),
    _on("DeletionProtectionEnabled", what="deletion protection", rule=_PROTECTION, new=False),
    _on("DisableApiTermination", what="termination protection", rule=_PROTECTION, new=False),
    _on("BlockPublicAcls", what="blocking of public ACLs", rule=_PUBLIC),
    _on("BlockPublicPolicy", what="blocking of public policies", rule=_PUBLIC),
    _on("IgnorePublicAcls", what="ignoring of public ACLs", rule=_PUBLIC),
    _on("RestrictPublicBuckets", what="restriction of public buckets", rule=_PUBLIC),
    _on("IsLogging", what="logging of the trail", rule="logging off", grade=Grade.PRINCIPAL),
    _on(
        "EnableLogFileValidation",
        what="validation of log files",
        rule="logging off",
        grade=Grade.STATEMENT,
    ),
    _off("AssociatePublicIpAddress", what="gets a public address", rule=_PUBLIC),
    _off("MapPublicIpOnLaunch", what="gives machines a public address", rule=_PUBLIC),
    _off("PubliclyAccessible", what="can be reached from the internet", rule=_PUBLIC),
    Guard(
        ("VersioningConfiguration", "Status"),
        _is("enabled"),
        "versioning is off",
        "versioning is on",
        _PROTECTION,
        Grade.STATEMENT,
        new=False,
    ),
    Guard(
        ("MetadataOptions", "HttpTokens"),
        _is("required"),
        "IMDSv2 is no longer required",
        "IMDSv2 is required",
        "IMDSv1 allowed",
    ),
    Guard(
        ("OwnershipControls", "Rules", "*", "ObjectOwnership"),
        _is("bucketownerenforced"),
        "access control lists count again",
        "access control lists no longer count",
        _PUBLIC,
        Grade.STATEMENT,
    ),
    Guard(
        ("AccessControl",),
        lambda value: canonical(value) not in _PUBLIC_ACLS,
        "the access control list is public",
        "the access control list is no longer public",
        _PUBLIC,
        absent=True,
    ),
)
# Settings that hold a key for encryption.
_KEYS = {"KmsKeyId", "KMSKeyId", "KmsMasterKeyId", "KMSMasterKeyID", "KmsKeyArn", "KmsKey"}
_KEYS |= {"EncryptionKeyArn", "EncryptionKey"}
# Where the lack of the setting in a new resource means that data are not encrypted.
_ENCRYPTED_BY_CHOICE = {
    "AWS::EFS::FileSystem": "Encrypted",
    "AWS::EC2::Volume": "Encrypted",
    "AWS::RDS::DBCluster": "StorageEncrypted",
    "AWS::RDS::DBInstance": "StorageEncrypted",
}
# A copy of a snapshot and a member of a cluster are encrypted as these are.
_COPIES = {"SnapshotId", "DBClusterIdentifier", "SourceDBInstanceIdentifier"}
_IN_GROUPS = (
    "AWS::EC2::",
    "AWS::EFS::",
    "AWS::ElasticLoadBalancing",
    "AWS::Lambda::",
    "AWS::RDS::",
)
_LOGGING = ("AWS::EC2::FlowLog", "AWS::CloudTrail::Trail")


def leaves(value: object, path: _PATH = ()) -> Iterator[tuple[_PATH, object]]:
    """Yield the path and value of each plain value; items of lists go by what names them."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(item, (*path, str(key)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, item_name(item, index)))
    else:
        yield path, value


def item_name(item: object, index: int) -> str:
    """Return what tells an item of a list from the others: a name of its own, or its number."""
    if isinstance(item, Mapping):
        for key in _ITEM_KEYS:
            if key in item:
                return f"[{canonical(item[key])}]"
    return f"[{index}]"


def compare_settings(sides: Sides) -> Iterator[SecurityChange]:
    """Yield what protects resources less, or more, than before."""
    here = {sides.head.reference(place) for place in sides.head.resources}
    for old, new in sides.both():
        if old and new and (old.properties, old.attributes) == (new.properties, new.attributes):
            continue
        if new is not None and new.type not in _NOT_WALKED:
            before = _settings(old.properties) if old else None
            after = _settings(new.properties)
            yield from _compare_guards(new, before, after)
            yield from _compare_keys(new, before, after)
            yield from _compare_others(old, new)
        if old is not None and new is not None:
            yield from _compare_deletion(old, new)
        if old is not None and new is None and old.type in _LOGGING:
            logged = canonical(old.properties.get("ResourceId", ""))
            if logged.startswith("${") and logged not in here:
                continue  # what was logged is gone too
            text = f"{old.label} is removed: what it logged is not logged any more"
            yield _change(old, "widening", "logging off", text, Grade.PRINCIPAL)


def _settings(properties: Mapping[str, Any]) -> dict[_PATH, object]:
    """Return all settings; a volume that says nothing of encryption is one without."""
    found = dict(leaves(properties))
    volumes = {path[: path.index("Ebs") + 1] for path in found if "Ebs" in path}
    return {**{(*volume, "Encrypted"): False for volume in volumes}, **found}


def _compare_guards(
    resource: Resource, before: Mapping[_PATH, object] | None, after: Mapping[_PATH, object]
) -> Iterator[SecurityChange]:
    for guard in GUARDS:
        for path in {**(before or {}), **after}:
            if not _ends(path, guard.path) or item_is_gone(path, after):
                continue
            is_safe = guard.protects(after[path]) if path in after else guard.absent
            if before is None:
                if not is_safe and guard.new:
                    text = f"new {resource.label}{_at(path)}: {guard.lost}"
                    yield _change(resource, "widening", guard.rule, text, guard.grade)
                continue
            was_safe = guard.protects(before[path]) if path in before else guard.absent
            # An item that came with the change, such as one more disk, is new by itself.
            if (was_safe and not is_safe) or (path not in before and not is_safe and guard.new):
                text = f"{resource.label}{_at(path)}: {guard.lost} now"
                yield _change(resource, "widening", guard.rule, text, guard.grade)
            elif is_safe and not was_safe:
                text = f"{resource.label}{_at(path)}: {guard.gained} now"
                yield _change(resource, "narrowing", "protection added", text)


def item_is_gone(path: _PATH, after: Mapping[_PATH, object]) -> bool:
    """Return whether a setting went together with its item, such as a disk that was removed."""
    items = [index for index, part in enumerate(path) if part.startswith("[")]
    item = path[: items[-1] + 1] if items else ()
    return bool(item) and not any(other[: len(item)] == item for other in after)


def _ends(path: _PATH, end: _PATH) -> bool:
    last = path[-len(end) :]
    return len(last) == len(end) and all(
        want in ("*", got) for want, got in zip(end, last, strict=True)
    )


def _at(path: _PATH) -> str:
    """Return which item of a list a setting belongs to, or nothing."""
    names = [part.strip("[]") for part in path if part.startswith("[")]
    # A mere number says nothing to people.
    told = [name for name in names if not name.isdigit()]
    return f" ({', '.join(told)})" if told else ""


def _compare_keys(
    resource: Resource, before: Mapping[_PATH, object] | None, after: Mapping[_PATH, object]
) -> Iterator[SecurityChange]:
    for path in [] if before is None else {**before, **after}:
        assert before is not None  # noqa: S101 (the loop is empty then)
        if path[-1] not in _KEYS or before.get(path) == after.get(path):
            continue
        old, new = before.get(path), after.get(path)
        if not new:
            # An item that went with its key, such as a disk, is no longer there to be encrypted.
            if any(other[: len(path) - 1] == path[:-1] for other in after):
                text = f"{resource.label}{_at(path)} is no longer encrypted with the key {old}"
                yield _change(resource, "widening", "key lost", text, Grade.ALARM)
        elif not old:
            text = f"{resource.label}{_at(path)} is now encrypted with the key {new}"
            yield _change(resource, "narrowing", "key added", text)
        else:
            text = (
                f"{resource.label}{_at(path)} is now encrypted with the key {new} (before: {old})"
            )
            yield _change(resource, "change", "key changed", text)


def _compare_others(old: Resource | None, new: Resource) -> Iterator[SecurityChange]:
    yield from _compare_bucket_encryption(old, new)
    choice = _ENCRYPTED_BY_CHOICE.get(new.type)
    copied = not _COPIES.isdisjoint(new.properties)
    if old is None and choice and choice not in new.properties and not copied:
        text = f"new {new.label}: encryption is off"
        yield _change(new, "widening", _ENCRYPTION, text, Grade.ALARM)
    if new.type == "AWS::EC2::LaunchTemplate" and old is None:
        data = as_dict(new.properties.get("LaunchTemplateData"))
        if "HttpTokens" not in as_dict(data.get("MetadataOptions")):
            text = f"new {new.label}: IMDSv2 is not required"
            yield _change(new, "widening", "IMDSv1 allowed", text, Grade.ALARM)
    if new.type == "AWS::Lambda::Url":
        is_open = canonical(new.properties.get("AuthType")) == "NONE"
        was_open = old is not None and canonical(old.properties.get("AuthType")) == "NONE"
        if is_open and not was_open:
            text = f"{new.label} may be called by everyone without credentials (AuthType NONE)"
            yield _change(new, "widening", _PUBLIC, text, Grade.ALARM)
        elif was_open and not is_open:
            text = f"{new.label} may no longer be called without credentials"
            yield _change(new, "narrowing", "protection added", text)
    if old is None and new.type in ("AWS::EC2::EIPAssociation", "AWS::EC2::InternetGateway"):
        text = f"new {new.label}: a way from or to the internet"
        yield _change(new, "widening", _PUBLIC, text, Grade.PRINCIPAL)
    if _is_way_out(new) and not (old and _is_way_out(old)):
        text = f"{new.label} leads to the internet gateway"
        yield _change(new, "widening", _PUBLIC, text, Grade.PRINCIPAL)
    yield from _compare_hops(old, new)
    yield from _compare_members(old, new)


def _compare_bucket_encryption(old: Resource | None, new: Resource) -> Iterator[SecurityChange]:
    if new.type != "AWS::S3::Bucket" or old is None:
        return
    before, after = _algorithm(old), _algorithm(new)
    if before == after:
        return
    strength = {"": 0, "AES256": 1, "aws:kms": 2, "aws:kms:dsse": 3}
    weaker = strength.get(after, 0) < strength.get(before, 0)
    text = f"{new.label} is now encrypted with {after or 'the default of S3'}"
    text += f" (before: {before or 'the default of S3'})"
    if weaker:
        yield _change(new, "widening", _ENCRYPTION, text, Grade.ALARM)
    else:
        yield _change(new, "narrowing", "protection added", text)


def _algorithm(bucket: Resource) -> str:
    rules = as_list(
        as_dict(bucket.properties.get("BucketEncryption")).get("ServerSideEncryptionConfiguration")
    )
    default = as_dict(as_dict(rules[0] if rules else None).get("ServerSideEncryptionByDefault"))
    return canonical(default.get("SSEAlgorithm", ""))


def _is_way_out(resource: Resource) -> bool:
    """Return whether a route makes its subnets public."""
    gateway = canonical(resource.properties.get("GatewayId", ""))
    return resource.type == "AWS::EC2::Route" and ("igw-" in gateway or "gateway" in gateway)


def _compare_hops(old: Resource | None, new: Resource) -> Iterator[SecurityChange]:
    hops = [
        int(text)
        if (text := canonical(_metadata(r).get("HttpPutResponseHopLimit", 1))).isdigit()
        else 1
        for r in (old, new)
        if r is not None
    ]
    if len(hops) == 2 and hops[1] > hops[0]:
        text = f"{new.label}: credentials of the instance travel {hops[1]} hops (before: {hops[0]})"
        yield _change(new, "widening", "hop limit", text, Grade.MINOR)


def _metadata(resource: Resource) -> dict[str, Any]:
    data = as_dict(resource.properties.get("LaunchTemplateData", resource.properties))
    return as_dict(data.get("MetadataOptions"))


def _compare_members(old: Resource | None, new: Resource) -> Iterator[SecurityChange]:
    """Yield machines and endpoints that are in other security groups than before."""
    if old is None:
        return
    before, after = _groups_of(old), _groups_of(new)
    for group in sorted(after - before):
        text = f"{new.label} is now also in the security group {group}"
        yield _change(new, "widening", "security group added", text, Grade.PRINCIPAL)
    for group in sorted(before - after):
        text = f"{new.label} is no longer in the security group {group}"
        yield _change(new, "narrowing", "security group left", text)


def _groups_of(resource: Resource) -> set[str]:
    found: set[str] = set()

    def walk(value: object, key: str = "") -> None:
        if isinstance(value, Mapping):
            for name, item in value.items():
                walk(item, str(name))
        elif isinstance(value, list):
            if key in ("SecurityGroupIds", "GroupSet", "Groups", "SecurityGroups"):
                found.update(canonical(item) for item in value)
            for item in value:
                walk(item)

    # Other types name other things so, such as the groups of a user.
    if resource.type.startswith(_IN_GROUPS):
        walk(resource.properties)
    return found


def _compare_deletion(old: Resource, new: Resource) -> Iterator[SecurityChange]:
    for key, event in (("DeletionPolicy", "deleted"), ("UpdateReplacePolicy", "replaced")):
        before, after = (canonical(r.attributes.get(key, "Delete")) for r in (old, new))
        if before in _RETAINS and after not in _RETAINS:
            text = f"{new.label} is no longer kept when it is {event} ({key} {before} before)"
            yield _change(new, "widening", _PROTECTION, text, Grade.PRINCIPAL)
        elif after in _RETAINS and before not in _RETAINS:
            text = f"{new.label} is now kept when it is {event} ({key} {after})"
            yield _change(new, "narrowing", "protection added", text)


def _change(
    resource: Resource, kind: Kind, rule: str, text: str, grade: Grade = Grade.STATEMENT
) -> SecurityChange:
    return SecurityChange(*resource.place, resource.name, kind, rule, text, grade)
