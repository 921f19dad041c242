"""One change of what is allowed or protected, as a sentence with its kind and its weight."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

Kind = Literal["widening", "change", "narrowing"]
KINDS: tuple[Kind, ...] = ("widening", "change", "narrowing")
# Longer lists are cut in a sentence, with the number of what is left out.
SHOWN_ITEMS = 4


class Grade(IntEnum):
    """How much a change weighs among those of its kind; the lowest number is told first."""

    ALARM = 0
    WILDCARD = 1
    PRINCIPAL = 2
    STATEMENT = 3
    MINOR = 4


@dataclass(frozen=True)
class SecurityChange:
    """A change of permissions, reachability or protection of one resource.

    `resource` is its logical id, `name` what people call it, `rule` the short name of the reason
    (listed in docs/security-review.md), and `sentence` says the change without any secret.
    """

    stack: str
    resource: str
    name: str
    kind: Kind
    rule: str
    sentence: str
    grade: Grade = Grade.STATEMENT


def sort_changes(changes: Iterable[SecurityChange]) -> list[SecurityChange]:
    """Return the changes without repetitions: widening first, the heaviest first in each kind."""
    return sorted(
        set(changes),
        key=lambda c: (KINDS.index(c.kind), c.grade, c.stack, c.name, c.resource, c.sentence),
    )


def shorten(items: Iterable[str], shown: int = SHOWN_ITEMS) -> str:
    """Return the items joined by commas, at most `shown` of them and the number of the others."""
    listed = list(items)
    if len(listed) <= shown + 1:
        return ", ".join(listed)
    return f"{', '.join(listed[:shown])} and {len(listed) - shown} more"
