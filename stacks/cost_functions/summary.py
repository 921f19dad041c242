"""Print the mail about a day of the cost report's history: ``python summary.py DAY.json``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

# Of these, what carries no tag shows as a line of its own.
GROUPS = ("environment", "cluster", "owner", "kind")


def render_summary(day: Mapping[str, Any]) -> str:
    """Return the text of the mail; KeyError for a file that is not a day of the history."""
    return "\n".join(_lines(day)) + "\n"


def _lines(day: Mapping[str, Any]) -> Iterator[str]:
    yield "USD a month, if everything went on as it is now:"
    if day["partial"]:
        yield "PARTIAL: what the calls below would have told is missing."
    yield _line(day["total"])
    for group in GROUPS:
        yield ""
        yield f"by {group}"
        yield from (_line(total) for total in day["totals"][group])
    if day["gaps"]:
        yield ""
        yield "not read"
        yield from (
            f"  {gap['call']} in {gap['region']}: {gap['reason']}: {gap['message']}"
            for gap in day["gaps"]
        )


def _line(total: Mapping[str, Any]) -> str:
    # What has no price is said, and never counts as 0.
    amount = "not priced" if total["now"] is None else f"{Decimal(total['now']):.2f}"
    lacks = f", {total['unpriced']} without a price" if total["unpriced"] else ""
    return f"  {amount:>12}  {total['name']} ({total['items']} items{lacks})"


if __name__ == "__main__":
    sys.stdout.write(render_summary(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
