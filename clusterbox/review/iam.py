"""Compare who may do what: roles, users and groups, their policies, and permissions boundaries."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from clusterbox.review.changes import Grade, Kind, SecurityChange, shorten
from clusterbox.review.grants import (
    BOUNDARY,
    IDENTITY,
    TRUST,
    Holder,
    compare_grants,
    is_loud,
    is_unbounded,
)
from clusterbox.review.intrinsics import as_dict, as_list, canonical
from clusterbox.review.resources import Resource, Side, Sides
from clusterbox.review.statements import Grant, parse_document

_PRINCIPALS = {"AWS::IAM::Role": "Roles", "AWS::IAM::User": "Users", "AWS::IAM::Group": "Groups"}
_POLICIES = ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy")
# Policies of one principal, and the property that names it.
_ATTACHED = {
    "AWS::IAM::RolePolicy": ("Roles", "RoleName"),
    "AWS::IAM::UserPolicy": ("Users", "UserName"),
    "AWS::IAM::GroupPolicy": ("Groups", "GroupName"),
}
# AWS's policies that allow everything, everything but identities, or all of IAM.
_ADMIN_POLICIES = {"AdministratorAccess", "PowerUserAccess", "IAMFullAccess"}
# AWS's policies that only deny, so that losing one widens.
_DENYING_POLICIES = re.compile(r"AWSDenyAll|AWSCompromisedKeyQuarantine\w*")
# IAM's default for MaxSessionDuration, in seconds ("AWS::IAM::Role" of the template reference).
_DEFAULT_SESSION_SECONDS = 3600
# The singular of what a policy is attached to.
_NOUNS = {"Roles": "role", "Users": "user", "Groups": "group"}


@dataclass
class Principal:
    """A role, user or group with all that its policies grant; `resource` is None for a name only."""

    kind: str
    key: str
    place: tuple[str, str]
    resource: Resource | None = None
    grants: set[Grant] = field(default_factory=set)
    managed: set[str] = field(default_factory=set)
    boundary: str | None = None

    @property
    def holder(self) -> Holder:
        """Return how sentences call it."""
        name = self.resource.name if self.resource else self.key
        return Holder(*self.place, name, f"{_NOUNS[self.kind]} {name}")


def compare_iam(sides: Sides, boundary_arn: str | None) -> Iterator[SecurityChange]:
    """Yield the changes of all principals and of policies that no principal here has."""
    boundaries = _boundaries(sides, boundary_arn)
    base, head = _principals(sides.base), _principals(sides.head)
    partners = _partners(sides, base, head)
    for old, new in partners:
        yield from _compare_principal(old, new, boundary_arn)
    yield from _compare_policies(sides, boundaries)


def policy_name(arn: str) -> str:
    """Return the last part of a policy's ARN, or the text itself where it is none."""
    return arn.rpartition("/")[2] if arn.startswith("arn:") else arn


def managed_policy_change(
    holder: Holder, arn: str, *, added: bool, how: str = "has"
) -> SecurityChange:
    """Return the change that a policy, named by its ARN, was attached or detached."""
    name = policy_name(arn)
    denies = bool(_DENYING_POLICIES.fullmatch(name))
    kind: Kind = "widening" if added != denies else "narrowing"
    grade = Grade.STATEMENT
    if kind == "widening":
        grade = Grade.WILDCARD if name.endswith("FullAccess") else Grade.PRINCIPAL
        grade = Grade.ALARM if name in _ADMIN_POLICIES else grade
    by_aws = ":iam::aws:" in arn
    text = f"{holder.who} {'now' if added else 'no longer'} {how} the managed policy {name}"
    text += " of AWS" if by_aws else ", whose statements are not in these templates"
    rule = "managed policy added" if added else "managed policy removed"
    return SecurityChange(holder.stack, holder.logical_id, holder.name, kind, rule, text, grade)


def _principals(side: Side) -> dict[tuple[str, str], Principal]:
    """Return the principals by kind (`Roles`…) and by what a reference to them resolves to."""
    found: dict[tuple[str, str], Principal] = {}
    policies = {side.reference(r.place): r for r in side.of_type("AWS::IAM::ManagedPolicy")}
    for resource in side.of_type(*_PRINCIPALS):
        kind, key = _PRINCIPALS[resource.type], side.reference(resource.place)
        person = found[kind, key] = Principal(kind, key, resource.place, resource)
        for inline in as_list(resource.properties.get("Policies")):
            person.grants |= parse_document(as_dict(inline).get("PolicyDocument"))
        for arn in map(canonical, as_list(resource.properties.get("ManagedPolicyArns"))):
            if arn in policies:
                person.grants |= parse_document(policies[arn].properties.get("PolicyDocument"))
            else:
                person.managed.add(arn)
        boundary = resource.properties.get("PermissionsBoundary")
        person.boundary = canonical(boundary) if boundary else None
    for policy, kind, key in _attachments(side):
        person = found.setdefault((kind, key), Principal(kind, key, policy.place))
        person.grants |= parse_document(policy.properties.get("PolicyDocument"))
    return found


def _attachments(side: Side) -> Iterator[tuple[Resource, str, str]]:
    """Yield each policy with the kind and reference of a principal that it names itself."""
    for policy in side.of_type(*_POLICIES):
        for kind in _NOUNS:
            for key in as_list(policy.properties.get(kind)):
                yield policy, kind, canonical(key)
    for policy in side.of_type(*_ATTACHED):
        kind, name = _ATTACHED[policy.type]
        yield policy, kind, canonical(policy.properties.get(name))


def _partners(
    sides: Sides,
    base: dict[tuple[str, str], Principal],
    head: dict[tuple[str, str], Principal],
) -> Iterator[tuple[Principal | None, Principal | None]]:
    """Yield each principal before and after: paired as resources, and else by kind and name."""
    left = dict(head)
    of_place = {p.resource.place: key for key, p in head.items() if p.resource}
    for key, old in base.items():
        partner = sides.pairs.get(old.resource.place) if old.resource else None
        new_key = of_place.get(partner, key) if partner else key
        yield old, left.pop(new_key, None)
    for new in left.values():
        yield None, new


def _compare_principal(
    old: Principal | None, new: Principal | None, boundary_arn: str | None
) -> Iterator[SecurityChange]:
    if new is None:
        if old is not None and old.resource is not None:
            text = f"{old.holder.who} is removed"
            yield _note(old.holder, "narrowing", "principal removed", text)
        elif old is not None:
            yield from compare_grants(old.holder, IDENTITY, old.grants, set())
        return
    if old is None and new.resource is not None:
        yield from _new_principal(new, boundary_arn)
        return
    before = old or Principal(new.kind, new.key, new.place)
    yield from compare_grants(new.holder, IDENTITY, before.grants, new.grants)
    for arn in sorted(new.managed - before.managed):
        yield managed_policy_change(new.holder, arn, added=True)
    for arn in sorted(before.managed - new.managed):
        yield managed_policy_change(new.holder, arn, added=False)
    if new.resource and before.resource:
        yield from _compare_boundary(new.holder, before.boundary, new.boundary)
        yield from compare_grants(new.holder, TRUST, _trust(before), _trust(new))
        yield from _compare_session(new.holder, before.resource, new.resource)
        yield from _compare_membership(new.holder, before.resource, new.resource)
    elif new.resource is None or before.resource is None:
        yield from _adopted(before, new)


def _adopted(before: Principal, new: Principal) -> Iterator[SecurityChange]:
    """Yield a note of a principal that was only named before, or is only named now."""
    if (before.resource is None) == (new.resource is None):
        return
    verb = "is no longer" if new.resource is None else "is now"
    text = f"{new.holder.who} {verb} made by these stacks"
    yield _note(new.holder, "change", "ownership changed", text, Grade.MINOR)


def _new_principal(new: Principal, boundary_arn: str | None) -> Iterator[SecurityChange]:
    """Yield one sentence of a new principal, and one of each `*` and managed policy it has."""
    loud = {g for g in new.grants if g.effect == "Allow" and is_unbounded(g)}
    plain = {g for g in new.grants if g.effect == "Allow"} - loud
    trusted = sorted({g.principal.shown for g in _trust(new) if g.effect == "Allow"})
    text = f"new {new.holder.who}"
    text += f", assumed by {shorten(trusted)}," if trusted else ""
    if plain:
        actions = sorted({grant.action.shown for grant in plain})
        resources = sorted({grant.resource.shown for grant in plain})
        text += f" may {shorten(actions)} on {shorten(resources, 3)}"
    else:
        text += " has further permissions" if loud or new.managed else " has no permissions"
    bound = f"the boundary {policy_name(new.boundary)}" if new.boundary else "no boundary"
    text += f" ({bound})"
    yield _note(new.holder, "widening", "principal added", text, Grade.PRINCIPAL)
    yield from compare_grants(new.holder, IDENTITY, set(), loud)
    trust = {grant for grant in _trust(new) if is_loud(grant, TRUST)}
    yield from compare_grants(new.holder, TRUST, set(), trust)
    for arn in sorted(new.managed):
        yield managed_policy_change(new.holder, arn, added=True)
    if new.kind != "Groups" and boundary_arn and not new.boundary:
        text = f"new {new.holder.who} has no permissions boundary"
        yield _note(new.holder, "widening", "boundary missing", text, Grade.ALARM)
    elif boundary_arn and new.boundary and new.boundary != boundary_arn:
        text = (
            f"new {new.holder.who} has the permissions boundary {policy_name(new.boundary)}, "
            f"and the environment asks for {policy_name(boundary_arn)}"
        )
        yield _note(new.holder, "widening", "boundary changed", text, Grade.ALARM)


def _trust(principal: Principal) -> set[Grant]:
    if principal.resource is None:
        return set()
    return parse_document(principal.resource.properties.get("AssumeRolePolicyDocument"))


def _compare_boundary(holder: Holder, old: str | None, new: str | None) -> Iterator[SecurityChange]:
    if old == new:
        return
    if new is None:
        text = f"{holder.who} has lost its permissions boundary {policy_name(old or '')}"
        yield _note(holder, "widening", "boundary lost", text, Grade.ALARM)
    elif old is None:
        text = f"{holder.who} now has the permissions boundary {policy_name(new)}"
        yield _note(holder, "narrowing", "boundary added", text)
    else:
        names = (policy_name(old), policy_name(new))
        before, after = names if names[0] != names[1] else (old, new)
        text = f"{holder.who} now has the permissions boundary {after} (before: {before})"
        yield _note(holder, "widening", "boundary changed", text, Grade.ALARM)


def _compare_session(holder: Holder, old: Resource, new: Resource) -> Iterator[SecurityChange]:
    seconds = [
        canonical(r.properties.get("MaxSessionDuration", _DEFAULT_SESSION_SECONDS))
        for r in (old, new)
    ]
    if seconds[0] == seconds[1]:
        return
    numbers = [int(text) if text.isdigit() else None for text in seconds]
    shorter = None not in numbers and (numbers[1] or 0) < (numbers[0] or 0)
    text = f"sessions of {holder.who} may now last {seconds[1]} s (before: {seconds[0]} s)"
    kind: Kind = "narrowing" if shorter else "widening"
    yield _note(holder, kind, "session duration", text, Grade.MINOR)


def _compare_membership(holder: Holder, old: Resource, new: Resource) -> Iterator[SecurityChange]:
    before, after = (set(map(canonical, as_list(r.properties.get("Groups")))) for r in (old, new))
    for group in sorted(after - before):
        text = f"{holder.who} is now in the group {group}"
        yield _note(holder, "widening", "group joined", text, Grade.PRINCIPAL)
    for group in sorted(before - after):
        text = f"{holder.who} is no longer in the group {group}"
        yield _note(holder, "narrowing", "group left", text)
    profiles = [bool(r.properties.get("LoginProfile")) for r in (old, new)]
    if profiles == [False, True]:
        text = f"{holder.who} may now log in with a password"
        yield _note(holder, "widening", "password added", text, Grade.PRINCIPAL)


def _note(
    holder: Holder, kind: Kind, rule: str, text: str, grade: Grade = Grade.STATEMENT
) -> SecurityChange:
    return SecurityChange(holder.stack, holder.logical_id, holder.name, kind, rule, text, grade)


def _boundaries(sides: Sides, boundary_arn: str | None) -> dict[str, int]:
    """Return the references of policies that bound principals, with how many they bound now."""
    counts: dict[str, int] = defaultdict(int)
    if boundary_arn:
        counts[boundary_arn] = 0
    for side, count in ((sides.base, 0), (sides.head, 1)):
        for resource in side.resources.values():
            names: Iterable[object] = (resource.properties.get("PermissionsBoundary"),)
            if resource.type == "Custom::PclusterCluster":
                configuration = as_dict(resource.properties.get("ClusterConfiguration"))
                names = (as_dict(configuration.get("Iam")).get("PermissionsBoundary"),)
            for name in names:
                if isinstance(name, str):
                    counts[name] += count
    return counts


def _compare_policies(sides: Sides, boundaries: dict[str, int]) -> Iterator[SecurityChange]:
    """Yield the changes of boundary policies, and of managed policies that nothing here has."""
    # A policy that loses its last principal is told of there, and not compared again here.
    attached = set(_attached_places(sides.head))
    for old, new in sides.both("AWS::IAM::ManagedPolicy"):
        policy = new or old
        assert policy is not None  # noqa: S101 (`both` yields no empty pair)
        side = sides.head if new else sides.base
        reference = side.reference(policy.place)
        if reference not in boundaries and old is not None:
            old_reference = sides.base.reference(old.place)
            reference = old_reference if old_reference in boundaries else reference
        if reference not in boundaries and (new is None or policy.place in attached):
            continue
        before = parse_document(old.properties.get("PolicyDocument")) if old else set()
        after = parse_document(new.properties.get("PolicyDocument")) if new else set()
        holder = Holder(*policy.place, policy.name, policy.label)
        if reference in boundaries:
            bounds = f"boundary {policy.name}, which bounds {boundaries[reference]} roles,"
            bound = Holder(*policy.place, policy.name, bounds)
            if new is None:
                text = f"the boundary {policy.name} is no longer made by these stacks"
                # It matters only while something here is bound by it.
                kind: Kind = "widening" if boundaries[reference] else "change"
                yield _note(holder, kind, "boundary policy removed", text, Grade.ALARM)
            elif old is not None:
                yield from compare_grants(bound, BOUNDARY, before, after)
            else:
                text = f"new boundary {policy.name}"
                yield _note(holder, "change", "boundary policy added", text)
        else:
            yield from compare_grants(holder, IDENTITY, before, after)


def _attached_places(side: Side) -> Iterator[tuple[str, str]]:
    """Yield the places of managed policies that some principal has."""
    policies = {side.reference(r.place): r.place for r in side.of_type("AWS::IAM::ManagedPolicy")}
    for resource in side.of_type(*_PRINCIPALS):
        for arn in map(canonical, as_list(resource.properties.get("ManagedPolicyArns"))):
            if arn in policies:
                yield policies[arn]
    for policy, _, _ in _attachments(side):
        yield policy.place
