"""Read values of a native ParallelCluster configuration, which may lack or misspell any of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a section, empty where there is none."""
    return value if isinstance(value, Mapping) else {}


def mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the sections of a list, none where there is no list."""
    yield from (
        entry for entry in (value if isinstance(value, list) else ()) if isinstance(entry, Mapping)
    )


def number(value: Any, default: int) -> int:
    """Return a whole number of a configuration; CloudFormation may deliver it as text."""
    amount = decimal(value)
    return default if amount is None else int(amount)


def decimal(value: Any) -> Decimal | None:
    """Return a number that is 0 or more, None for anything else: no count or size is negative."""
    try:
        found = None if value is None or isinstance(value, bool) else Decimal(str(value))
    except InvalidOperation:
        return None
    return found if found is not None and found.is_finite() and found >= 0 else None
