"""Say in sentences what grants were added to, or removed from, one holder of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from clusterbox.review.changes import Grade, Kind, SecurityChange, shorten
from clusterbox.review.policy_conditions import condition_implies, render_condition
from clusterbox.review.statements import Choice, Grant, uncovered

_LOUD_RESOURCE = re.compile(r"(\*|[\w-]+[:/]\*)")
# Who may change these decides what others may do.
_POWERFUL = re.compile(r"(iam|organizations|sts|kms):(?!get|list|describe|simulate|generate)")


@dataclass(frozen=True)
class Wording:
    """How sentences of one kind of policy are made; `{who}` holds it, `{by}` is a principal."""

    allowed: str
    not_allowed: str
    denied: str
    not_denied: str
    prefix: str = ""
    # Whether `Resource: "*"` reaches further than the holder itself.
    resources_matter: bool = True


IDENTITY = Wording(
    "{who} may now {what}",
    "{who} may no longer {what}",
    "{who} is now denied {what}",
    "{who} is no longer denied {what}",
)
BOUNDARY = Wording(
    "{who} now lets its roles be allowed {what}",
    "{who} no longer lets its roles be allowed {what}",
    "{who} now denies its roles {what}",
    "{who} no longer denies its roles {what}",
    prefix="boundary: ",
)
TRUST = Wording(
    "{who} may now be assumed by {by}{how}",
    "{who} may no longer be assumed by {by}{how}",
    "{who} now refuses to be assumed by {by}{how}",
    "{who} no longer refuses to be assumed by {by}{how}",
    prefix="trust: ",
    resources_matter=False,
)
RESOURCE = Wording(
    "{who} now lets {by} {what}",
    "{who} no longer lets {by} {what}",
    "{who} now denies {by} {what}",
    "{who} no longer denies {by} {what}",
    prefix="resource policy: ",
    resources_matter=False,
)


@dataclass(frozen=True)
class Holder:
    """What the grants belong to: a principal, a policy, or the resource that a policy guards."""

    stack: str
    logical_id: str
    name: str
    who: str


def compare_grants(
    holder: Holder, wording: Wording, base: set[Grant], head: set[Grant]
) -> list[SecurityChange]:
    """Return what the holder's grants allow more and less than before."""
    added, removed = uncovered(head, base), uncovered(base, head)
    found: list[SecurityChange] = []
    for grant in _sentences_of(added, base, wording):
        allows = grant.sample.effect == "Allow"
        text = wording.allowed if allows else wording.denied
        rule, grade = _rule_of_added(grant, wording) if allows else ("Deny added", Grade.STATEMENT)
        kind: Kind = "widening" if allows else "narrowing"
        found.append(_change(holder, wording, grant, kind, rule, grade, text))
    for grant in _sentences_of(removed, head, wording):
        allows = grant.sample.effect == "Allow"
        text = wording.not_allowed if allows else wording.not_denied
        rule = "statement removed" if allows else "Deny removed"
        kind = "narrowing" if allows else "widening"
        grade = Grade.STATEMENT if allows else Grade.PRINCIPAL
        found.append(_change(holder, wording, grant, kind, rule, grade, text, past=True))
    return found


def is_admin(grant: Grant) -> bool:
    """Return whether a grant allows every action on every resource."""
    return grant.effect == "Allow" and grant.action.is_all and grant.resource.is_all


def is_loud(grant: Grant, wording: Wording) -> bool:
    """Return whether a grant has a `*` that nothing bounds, in its action, resource or principal."""
    if wording is not IDENTITY and wording is not BOUNDARY and _is_everyone(grant.principal):
        return True
    if grant.action.has_wildcard:
        return True
    return wording.resources_matter and _is_loud_resource(grant.resource)


def is_unbounded(grant: Grant) -> bool:
    """Return whether a grant names actions by a `*`, or every resource."""
    return grant.action.has_wildcard or grant.resource.negated or grant.resource.is_all


def _is_everyone(principal: Choice) -> bool:
    return principal.negated or principal.is_all


def _is_loud_resource(resource: Choice) -> bool:
    if resource.negated or resource.is_all:
        return True
    (pattern,) = resource.patterns
    parts = pattern.split(":", 5)
    if len(parts) < 6:
        return pattern.startswith("*")
    if parts[2] == "s3":
        return parts[5].startswith("*")
    return "*" in parts[2] or "*" in parts[4] or bool(_LOUD_RESOURCE.fullmatch(parts[5]))


@dataclass(frozen=True)
class _Group:
    """Grants that one sentence tells: their actions, resources and principals all combined."""

    grants: tuple[Grant, ...]
    others: tuple[Grant, ...]

    @property
    def sample(self) -> Grant:
        return self.grants[0]

    def shown(self, element: str) -> list[str]:
        return sorted({getattr(grant, element).shown for grant in self.grants})


def _sentences_of(grants: Iterable[Grant], others: set[Grant], wording: Wording) -> list[_Group]:
    """Return grants in groups: actions with the same resources, principals and condition."""

    def same(grant: Grant) -> tuple[object, ...]:
        loud = grant.effect == "Allow" and is_loud(grant, wording)
        return grant.effect, grant.written, loud

    actions = _gather(
        [frozenset({grant}) for grant in grants],
        lambda g: (*same(g[0]), g[0].principal, g[0].action),
    )
    resources = _gather(
        actions, lambda g: (*same(g[0]), g[0].principal, frozenset(x.resource for x in g))
    )
    principals = _gather(
        resources,
        lambda g: (
            *same(g[0]),
            frozenset(x.action for x in g),
            frozenset(x.resource for x in g),
        ),
    )
    before = sorted(others, key=_order) if principals else []
    groups = []
    for members in principals:
        services = {grant.service for grant in members} | {"*"}
        is_any = any(grant.service == "*" for grant in members)
        related = [other for other in before if is_any or other.service in services]
        groups.append(_Group(tuple(sorted(members, key=_order)), tuple(related)))
    return groups


def _gather(
    sets: Iterable[frozenset[Grant]], key: Callable[[list[Grant]], tuple[object, ...]]
) -> list[frozenset[Grant]]:
    """Return the sets with those of the same key joined."""
    found: dict[tuple[object, ...], frozenset[Grant]] = {}
    for members in sets:
        name = key(list(members))
        found[name] = found.get(name, frozenset()) | members
    return list(found.values())


def _order(grant: Grant) -> tuple[str, ...]:
    written = render_condition(grant.written)
    return grant.effect, grant.action.shown, grant.resource.shown, grant.principal.shown, written


def _rule_of_added(group: _Group, wording: Wording) -> tuple[str, Grade]:
    allowed = [grant for grant in group.others if grant.effect == "Allow"]
    if any(map(is_admin, group.grants)) and wording.resources_matter:
        return "new wildcard", Grade.ALARM
    if wording is not IDENTITY and any(_is_everyone(grant.principal) for grant in group.grants):
        bounded = wording is BOUNDARY or group.sample.condition
        if wording is not BOUNDARY:
            return "new wildcard", Grade.WILDCARD if bounded else Grade.ALARM
    same = _same_but_condition(group.grants, allowed)
    if same and all(not grant.condition for grant in group.grants):
        return "condition removed", Grade.PRINCIPAL
    if same:
        return "condition changed", Grade.PRINCIPAL
    if any(is_loud(grant, wording) or _swallows(grant, allowed) for grant in group.grants):
        return "new wildcard", Grade.WILDCARD
    if not wording.resources_matter:
        known = {grant.principal for grant in allowed}
        if any(not any(p.covers(g.principal) for p in known) for g in group.grants):
            return "principal added", Grade.PRINCIPAL
    powerful = any(_POWERFUL.match(p) for g in group.grants for p in g.action.patterns)
    return "statement added", Grade.PRINCIPAL if powerful else Grade.STATEMENT


def _same_but_condition(grants: Iterable[Grant], others: Iterable[Grant]) -> list[Grant]:
    """Return the others that cover a grant in all but its condition."""
    others = list(others)
    return [
        other
        for grant in grants
        for other in others
        if other.effect == grant.effect
        and other.action.covers(grant.action)
        and other.resource.covers(grant.resource)
        and other.principal.covers(grant.principal)
        and not condition_implies(grant.condition, other.condition)
    ]


def _swallows(grant: Grant, others: Iterable[Grant]) -> bool:
    """Return whether a resource with a wildcard takes the place of what was named before."""
    return grant.resource.has_wildcard and any(
        grant.action == other.action
        and grant.resource != other.resource
        and grant.resource.covers(other.resource)
        for other in others
    )


def _before(group: _Group, wording: Wording) -> str:
    """Return what was allowed before in the same matter, as ` (before: …)`, or nothing."""
    allowed = [grant for grant in group.others if grant.effect == "Allow"]
    same = _same_but_condition(group.grants, allowed)
    if same:
        conditions = sorted({render_condition(grant.written).strip() for grant in same})
        return f" (before: only {shorten(conditions, 2)})"
    if wording.resources_matter:
        action = [
            other.resource.shown
            for grant in group.grants
            for other in allowed
            if grant.action == other.action and other.resource.shown
        ]
        if action:
            return f" (before: only on {shorten(sorted(set(action)), 3)})"
        on_it = _actions_on(group, allowed)
        return f" (before: only {shorten(on_it)})" if on_it else ""
    principals = sorted({grant.principal.shown for grant in allowed if grant.principal.shown})
    if wording is TRUST:
        return f" (before: {shorten(principals)})" if principals else ""
    on_it = _actions_on(group, allowed)
    return f" (before: only {shorten(on_it)})" if on_it else ""


def _what_is_left(group: _Group) -> str:
    """Return the part of what was removed that still holds, as ` (now only …)`, or nothing."""
    # As it was written: one value of a condition that is gone leaves the statement's others.
    written = [replace(grant, condition=grant.written) for grant in group.grants]
    left = [other for other in group.others if any(grant.covers(other) for grant in written)]
    if not left:
        return ""
    conditions = {render_condition(grant.written).strip() for grant in left}
    resources, actions = (
        {getattr(grant, element).shown for grant in left} for element in ("resource", "action")
    )
    if actions != set(group.shown("action")):
        return f" (now only {shorten(sorted(actions))})"
    if resources != set(group.shown("resource")):
        return f" (now only on {shorten(sorted(resources), 3)})"
    return f" (now only {shorten(sorted(conditions), 2)})" if "" not in conditions else ""


def _actions_on(group: _Group, allowed: Iterable[Grant]) -> list[str]:
    """Return other actions of the same services that the group's resources already had."""
    services = {p.partition(":")[0] for grant in group.grants for p in grant.action.patterns}
    found = {
        other.action.shown
        for other in allowed
        for grant in group.grants
        if other.action != grant.action
        and other.principal.covers(grant.principal)
        and (other.resource.covers(grant.resource) or grant.resource.covers(other.resource))
        and any(p.partition(":")[0] in services for p in other.action.patterns)
    }
    return sorted(found)


def _change(
    holder: Holder,
    wording: Wording,
    group: _Group,
    kind: Kind,
    rule: str,
    grade: Grade,
    text: str,
    *,
    past: bool = False,
) -> SecurityChange:
    actions, resources = group.shown("action"), group.shown("resource")
    condition = render_condition(group.sample.written)
    what = shorten("everything" if action == "*" else action for action in actions)
    if what.startswith("everything") and group.sample.effect == "Allow" and wording is not BOUNDARY:
        what = f"do {what}"
    if wording.resources_matter or resources != ["*"]:
        what += f" on {shorten('every resource' if name == '*' else name for name in resources)}"
    usual = all(action.lower().startswith("sts:assumerole") for action in actions)
    how = ("" if usual else f" ({shorten(actions)})") + condition
    sentence = text.format(
        who=holder.who, what=what + condition, by=shorten(group.shown("principal")), how=how
    )
    if past:
        sentence += _what_is_left(group)
    elif kind == "widening":
        sentence += _before(group, wording)
    return SecurityChange(
        holder.stack, holder.logical_id, holder.name, kind, wording.prefix + rule, sentence, grade
    )
