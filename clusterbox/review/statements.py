"""Policy statements as sets of single grants, and which grant covers which.

Semantics: "IAM JSON policy elements reference" in the IAM user guide. A grant here is one effect,
action, resource, principal and condition, so that the order, the packing into statements and the
packing into policies do not matter.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from clusterbox.review.intrinsics import as_dict, as_list, canonical
from clusterbox.review.patterns import pattern_covers, patterns_meet
from clusterbox.review.policy_conditions import (
    Condition,
    alternatives,
    condition_implies,
    parse_condition,
)

Effect = Literal["Allow", "Deny"]


@dataclass(frozen=True)
class Choice:
    """One pattern of an element, or all but some patterns (`NotAction` and its like)."""

    patterns: frozenset[str]
    negated: bool = False
    shown: str = field(default="", compare=False)

    @property
    def is_all(self) -> bool:
        """Return whether it matches everything."""
        return not self.negated and "*" in self.patterns

    @property
    def has_wildcard(self) -> bool:
        """Return whether it names more than one thing."""
        return self.negated or any("*" in pattern for pattern in self.patterns)

    def covers(self, other: Choice) -> bool:
        """Return whether everything of the other is in this one."""
        if self.negated:
            if other.negated:
                return all(
                    any(pattern_covers(theirs, ours) for theirs in other.patterns)
                    for ours in self.patterns
                )
            return not any(
                patterns_meet(ours, theirs) for ours in self.patterns for theirs in other.patterns
            )
        if other.negated:
            return self.is_all
        return all(
            any(pattern_covers(ours, theirs) for ours in self.patterns) for theirs in other.patterns
        )


@dataclass(frozen=True)
class Grant:
    """One effect on one action, resource and principal, under one condition.

    `written` is the condition as the statement has it, of which `condition` may be a part.
    """

    effect: Effect
    action: Choice
    resource: Choice
    principal: Choice
    condition: Condition
    written: Condition = field(default=frozenset(), compare=False)

    @property
    def service(self) -> str:
        """Return the service of the action, such as `s3`, or `*` where it is none for certain."""
        if self.action.negated or len(self.action.patterns) != 1:
            return "*"
        (action,) = self.action.patterns
        service = action.partition(":")[0]
        return "*" if "*" in service or "?" in service else service

    def covers(self, other: Grant) -> bool:
        """Return whether this grant allows (or denies) all that the other does."""
        return (
            self.effect == other.effect
            and self.action.covers(other.action)
            and self.resource.covers(other.resource)
            and self.principal.covers(other.principal)
            and condition_implies(other.condition, self.condition)
        )


def uncovered(grants: Iterable[Grant], by: Iterable[Grant]) -> list[Grant]:
    """Return the grants that none of the others covers."""
    others = set(by)
    left = set(grants) - others
    if not left:
        return []
    by_service: dict[tuple[str, str], list[Grant]] = defaultdict(list)
    for other in others:
        by_service[other.effect, other.service].append(other)
    return [
        grant
        for grant in left
        if not any(
            other.covers(grant)
            for service in {grant.service, "*"}
            for other in by_service[grant.effect, service]
        )
    ]


def parse_document(document: object) -> set[Grant]:
    """Return the grants of a policy document, which may also be its JSON text."""
    found: set[Grant] = set()
    for statement in as_list(as_dict(document).get("Statement")):
        found.update(parse_statement(as_dict(statement)))
    return found


def parse_statement(statement: Mapping[str, Any]) -> Iterator[Grant]:
    """Yield the grants of one statement."""
    effect: Effect = "Deny" if statement.get("Effect") == "Deny" else "Allow"
    written = parse_condition(statement.get("Condition"))
    # The written form is not part of equality, so equal grants of other statements still meet.
    for action, resource, principal, condition in itertools.product(
        _choices(statement, "Action", lower=True),
        _choices(statement, "Resource"),
        _principals(statement),
        alternatives(written),
    ):
        yield Grant(effect, action, resource, principal, condition, written)


def _choices(statement: Mapping[str, Any], key: str, *, lower: bool = False) -> list[Choice]:
    def spell(text: str) -> str:
        return re.sub(r"\*+", "*", text.lower() if lower else text)

    if f"Not{key}" in statement:
        named = sorted(canonical(item) for item in as_list(statement[f"Not{key}"]))
        shown = f"everything but {', '.join(named)}"
        return [Choice(frozenset(map(spell, named)), True, shown)]
    items = as_list(statement.get(key, "*"))
    texts = [canonical(item) for item in items]
    # `*:*` is every action, as `*` is.
    texts = ["*" if lower and text == "*:*" else text for text in texts]
    return [Choice(frozenset({spell(text)}), False, text) for text in texts]


def _principals(statement: Mapping[str, Any]) -> list[Choice]:
    negated = "NotPrincipal" in statement
    if not negated and "Principal" not in statement:
        return [Choice(frozenset({"*"}), False, "")]
    names = _principal_names(statement["NotPrincipal" if negated else "Principal"])
    if negated:
        shown = f"everyone but {', '.join(sorted(names))}"
        return [Choice(frozenset(names), True, shown)]
    return [Choice(frozenset({name}), False, "everyone" if name == "*" else name) for name in names]


def _principal_names(principal: object) -> list[str]:
    if not isinstance(principal, Mapping):
        principal = {"AWS": principal}
    names = []
    for kind, values in principal.items():
        for value in map(canonical, as_list(values)):
            if value == "*":
                names.append("*")
            elif kind == "AWS":
                account = re.fullmatch(r"(?:arn:[\w-]+:iam::)?(\d{12})(?::root)?", value)
                names.append(f"account {account[1]}" if account else value)
            else:
                words = {"Service": "service", "Federated": "identity provider"}
                names.append(f"{words.get(str(kind), str(kind))} {value}")
    return names
