"""Conditions of policy statements, and which of them is at least as strict as another.

Operators: "IAM JSON policy elements: Condition operators" in the IAM user guide.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
from dataclasses import dataclass, field

from clusterbox.review.intrinsics import as_dict, as_list, canonical
from clusterbox.review.patterns import pattern_covers

# Values of these keys work like passwords, so they are compared and never shown.
_SECRET_KEYS = re.compile(
    r"externalid|referer|useragent|eventsourcetoken|passw|api-?key|secret(?!smanager)"
)
# A condition with more combinations of values stays in one piece.
_MOST_ALTERNATIVES = 64


@dataclass(frozen=True)
class Clause:
    """One key of a condition with its operator and values."""

    operator: str
    key: str
    values: frozenset[str]
    shown: str = field(default="", compare=False)

    @property
    def parts(self) -> tuple[str, str, bool]:
        """Return the quantifier (or nothing), the plain operator, and whether it is `IfExists`."""
        quantifier, _, rest = self.operator.rpartition(":")
        return quantifier, rest.removesuffix("ifexists"), rest.endswith("ifexists")

    def implies(self, other: Clause) -> bool:
        """Return whether what meets this clause surely meets the other, of the same key."""
        if self == other:
            return True
        quantifier, operator, if_exists = self.parts
        their_quantifier, their_operator, their_if_exists = other.parts
        if quantifier != their_quantifier or (if_exists and not their_if_exists):
            return False
        return _values_imply(operator, self.values, their_operator, other.values)

    def __str__(self) -> str:
        """Return the clause as text, without values that work like passwords."""
        hidden = _SECRET_KEYS.search(self.key)
        values = "(not shown)" if hidden else " or ".join(sorted(self.values))
        return f"{self.shown or self.key} {_operator_words(self.operator)} {values}"


Condition = frozenset[Clause]


def _operator_words(operator: str) -> str:
    words = {"stringequals": "is", "stringlike": "is like", "arnlike": "is like", "bool": "is"}
    words |= {"ipaddress": "is in", "notipaddress": "is not in", "stringnotequals": "is not"}
    return words.get(operator, f"({operator})")


_POSITIVE = {"stringequals", "stringlike", "stringequalsignorecase", "arnlike", "numericequals"}
_NEGATIVE = {"stringnotequals": "stringequals", "stringnotlike": "stringlike"}
_NEGATIVE |= {"arnnotlike": "arnlike", "notipaddress": "ipaddress"}


def _values_imply(op: str, mine: frozenset[str], other_op: str, theirs: frozenset[str]) -> bool:
    if op in _NEGATIVE:
        if other_op not in _NEGATIVE:
            return False
        return _values_imply(_NEGATIVE[other_op], theirs, _NEGATIVE[op], mine)
    if op == "ipaddress":
        return other_op == op and all(any(_in_range(m, t) for t in theirs) for m in mine)
    if op in _POSITIVE:
        if op == other_op and not op.endswith("like"):
            return mine <= theirs
        if other_op in ("stringlike", "arnlike") and op in ("stringequals", "stringlike", other_op):
            return all(any(pattern_covers(t, m) for t in theirs) for m in mine)
        return False
    if op == other_op and op.startswith("numeric"):
        try:
            one, other = [float(v) for v in mine], [float(v) for v in theirs]
        except ValueError:
            return False
        if "lessthan" in op:
            return max(one) <= max(other)
        return "greaterthan" in op and min(one) >= min(other)
    return op == other_op and mine == theirs


def _in_range(narrow: str, wide: str) -> bool:
    try:
        inner = ipaddress.ip_network(narrow, strict=False)
        outer = ipaddress.ip_network(wide, strict=False)
    except ValueError:
        return narrow == wide
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def condition_implies(narrow: Condition, wide: Condition) -> bool:
    """Return whether every request that meets `narrow` surely meets `wide`."""
    return all(
        any(mine.key == theirs.key and mine.implies(theirs) for mine in narrow) for theirs in wide
    )


def render_condition(condition: Condition) -> str:
    """Return ` if …`, or nothing where there is no condition."""
    return f" if {' and '.join(sorted(map(str, condition)))}" if condition else ""


def parse_condition(condition: object) -> Condition:
    """Return the `Condition` of a statement."""
    clauses = []
    for operator, keys in as_dict(condition).items():
        for key, raw in as_dict(keys).items():
            values = frozenset(_value_text(value) for value in as_list(raw))
            clauses.append(Clause(_operator(operator, values), key.lower(), values, key))
    return frozenset(clauses)


def _operator(operator: str, values: frozenset[str]) -> str:
    """Return the operator in lower case, and operators that mean the same in one spelling."""
    name = operator.lower().replace("arnequals", "arnlike").replace("arnnotequals", "arnnotlike")
    if not any("*" in value or "?" in value for value in values):
        name = name.replace("stringlike", "stringequals")
        name = name.replace("stringnotlike", "stringnotequals")
    return name


def _value_text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return canonical(value)


def alternatives(condition: Condition) -> list[Condition]:
    """Return the condition as parts of which any one suffices: the values of a key are an `or`.

    Values of a negated operator or of `ForAllValues` hold together and are not taken apart.
    """
    options: list[list[Clause]] = []
    for clause in condition:
        quantifier, operator, _ = clause.parts
        if quantifier != "forallvalues" and operator in _POSITIVE | {"ipaddress", "bool"}:
            options.append(
                [
                    Clause(clause.operator, clause.key, frozenset({v}), clause.shown)
                    for v in clause.values
                ]
            )
        else:
            options.append([clause])
    count = 1
    for option in options:
        count *= len(option)
    if count > _MOST_ALTERNATIVES:
        return [condition]
    return [frozenset(parts) for parts in itertools.product(*options)]
