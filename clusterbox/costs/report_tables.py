"""A cost report as tables, for a terminal, Markdown or a page, and as data."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from clusterbox.costs.estimate import add_amounts
from clusterbox.costs.item import Item
from clusterbox.costs.lines import usd
from clusterbox.costs.report import (
    GROUPS,
    RECORD_COLUMNS,
    Report,
    Total,
    missing_tags,
    record,
    sum_items,
)
from clusterbox.costs.report_orphans import total_savings
from clusterbox.costs.snapshot import render_decimal

MACHINE_COLUMNS = ("state", "name", "ip", "type", "monthly_cost", "disks", "now", "if_running")
OTHER_COLUMNS = ("kind", "state", "name", "id", "type", "quantity", "now", "note")
TOTAL_COLUMNS = ("items", "now", "if_running", "unpriced")
ORPHAN_COLUMNS = ("kind", "id", "name", "saves", "why", "note")
UNTAGGED_COLUMNS = ("kind", "name", "id", "lacks", "now")
# An account without tags would be listed twice.
MOST_UNTAGGED = 50
# Listed in totals and as orphans; one by one they would be most of the report.
_MANY = ("instance", "volume", "snapshot", "image")
# Totals that a report has only where there is more than one of them.
_OPTIONAL_GROUPS = ("environment", "account")


@dataclass(frozen=True)
class Section:
    """One table of a report; the last `totals` rows are sums. `amounts` are columns of numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    amounts: tuple[str, ...] = ()
    totals: int = 0


def make_heading(report: Report) -> list[str]:
    """Return what a report is of, a line each; a partial one says so first."""
    places = ", ".join(f"{account} {region}" for account, region in report.places) or "no account"
    lines = []
    if report.is_partial:
        lines.append("PARTIAL: not everything could be read; what is missing is listed at the end")
    lines += [
        f"{places}: {report.selection}",
        f"{report.made:%Y-%m-%d %H:%M} UTC, USD a month of 730 hours",
        *(f"prices of {title}" for title in report.prices),
        "totals are sums of exact amounts: what is shown above them is rounded and may differ by cents",
    ]
    return lines


def make_sections(report: Report) -> list[Section]:
    """Return the tables: machines, running ones, the rest, totals, orphans, untagged, unknown."""
    machines = [item for item in report.items if item.kind == "instance"]
    running = [item for item in machines if item.state == "running"]
    return [
        _machines("Machines", machines, report),
        _machines("Running machines", running, report),
        *filter(None, [_others(report)]),
        *_totals(report),
        *filter(None, [_orphans(report), _untagged(report), _unpriced(report), _gaps(report)]),
    ]


def make_records(report: Report) -> list[list[Any]]:
    """Return a row of RECORD_COLUMNS for each item; an amount that is not known is None."""
    return [[_plain(value) for value in record(item).values()] for item in report.items]


def make_document(report: Report, *, with_items: bool = True) -> dict[str, Any]:
    """Return the report as data for JSON; amounts are decimals as text, None where unknown."""
    found: dict[str, Any] = {
        "made": report.made.isoformat(),
        "selection": str(report.selection),
        "partial": report.is_partial,
        "places": [{"account": account, "region": region} for account, region in report.places],
        "prices": list(report.prices),
        "total": _total_record(report.total),
        "totals": {
            group: [_total_record(total) for total in report.totals(group)] for group in GROUPS
        },
    }
    if with_items:
        found["items"] = [
            dict(zip(RECORD_COLUMNS, row, strict=True)) | {"tags": dict(item.tags)}
            for item, row in zip(report.items, make_records(report), strict=True)
        ]
        found["orphans"] = [
            {name: _plain(value) for name, value in vars(orphan).items()}
            for orphan in report.orphans
        ]
    found["gaps"] = [vars(gap) for gap in report.gaps]
    return found


def render_json(report: Report) -> str:
    """Return the whole report as JSON."""
    return json.dumps(make_document(report), indent=2, ensure_ascii=False)


def _machines(title: str, machines: Sequence[Item], report: Report) -> Section:
    several = len(report.places) > 1
    rows, sums = [], []
    for item in machines:
        disks = report.disks_of(item)
        now, if_running = (_plus(amount, disks) for amount in (item.cost.now, item.cost.if_running))
        amounts = (item.cost.if_running, disks, now, if_running)
        sums.append(amounts)
        row = (item.state, item.name, item.ip, item.type, *map(_mills, amounts))
        rows.append((*row, item.account, item.region) if several else row)
    columns = (*MACHINE_COLUMNS, "account", "region") if several else MACHINE_COLUMNS
    if rows:
        totals = [_mills(add_amounts(column)) for column in zip(*sums, strict=True)]
        unknown = sum(None in amounts for amounts in sums)
        many = f"{len(sums)} machine{'s' if len(sums) > 1 else ''}"
        many += f", {unknown} not wholly priced" if unknown else ""
        rows.append(("total", many, "", "", *totals, *([""] * 2 if several else [])))
    return Section(title, columns, tuple(rows), MACHINE_COLUMNS[4:], 1 if rows else 0)


def _others(report: Report) -> Section | None:
    items = [item for item in report.items if item.kind not in _MANY]
    rows = [
        (
            item.kind,
            item.state,
            item.name if item.name != item.id else "",
            item.id,
            item.type,
            item.quantity,
            usd(item.cost.now),
            item.cost.unknown or item.cost.note or "",
        )
        for item in items
    ]
    if not rows:
        return None
    total = sum_items("total", items)
    rows.append(("total", "", "", "", "", "", usd(total.now), _without(total)))
    return Section("File systems, buckets and network", OTHER_COLUMNS, tuple(rows), ("now",), 1)


def _totals(report: Report) -> Iterable[Section]:
    for group in GROUPS:
        totals = report.totals(group)
        if group in _OPTIONAL_GROUPS and len(totals) < 2:
            continue
        rows = [_total_row(total) for total in totals]
        rows.append(_total_row(report.total))
        yield Section(f"Totals by {group}", (group, *TOTAL_COLUMNS), tuple(rows), TOTAL_COLUMNS, 1)


def _orphans(report: Report) -> Section | None:
    if not report.orphans:
        return None
    rows = [
        (orphan.kind, orphan.id, orphan.name, usd(orphan.saves), orphan.why, orphan.note or "")
        for orphan in report.orphans
    ]
    unknown = sum(orphan.saves is None for orphan in report.orphans)
    note = f"without {unknown} that are not priced" if unknown else ""
    rows.append(("total", "", "", usd(total_savings(report.orphans)), "", note))
    return Section("Orphans, and what their end saves", ORPHAN_COLUMNS, tuple(rows), ("saves",), 1)


def _untagged(report: Report) -> Section | None:
    items = report.untagged
    if not items:
        return None
    rows = [
        (item.kind, item.name, item.id, ", ".join(missing_tags(item)), usd(item.cost.now))
        for item in items[:MOST_UNTAGGED]
    ]
    if rest := items[MOST_UNTAGGED:]:
        many = f"{len(rest)} more, all of them in CSV and JSON"
        rows.append(("", many, "", "", usd(sum_items("rest", rest).now)))
    total = sum_items("total", items)
    rows.append(("total", f"{total.items} items", "", _without(total), usd(total.now)))
    return Section("Untagged", UNTAGGED_COLUMNS, tuple(rows), ("now",), 1)


def _unpriced(report: Report) -> Section | None:
    reasons = Counter((item.kind, item.cost.unknown or "") for item in report.unpriced)
    rows = [(kind, str(count), reason) for (kind, reason), count in sorted(reasons.items())]
    columns = ("kind", "items", "reason")
    return Section("Not priced, which is not nothing", columns, tuple(rows)) if rows else None


def _gaps(report: Report) -> Section | None:
    rows = [
        (gap.account, gap.region, gap.call, gap.reason, gap.permission, gap.message)
        for gap in report.gaps
    ]
    columns = ("account", "region", "call", "reason", "permission", "message")
    return Section("Partial: what could not be read", columns, tuple(rows)) if rows else None


def _total_row(total: Total) -> tuple[str, ...]:
    unpriced = str(total.unpriced) if total.unpriced else ""
    return (total.name, str(total.items), usd(total.now), usd(total.if_running), unpriced)


def _total_record(total: Total) -> dict[str, Any]:
    return {name: _plain(value) for name, value in vars(total).items()}


def _without(total: Total) -> str:
    return f"without {total.unpriced} that are not priced" if total.unpriced else ""


def _plus(amount: Decimal | None, disks: Decimal | None) -> Decimal | None:
    return None if amount is None or disks is None else amount + disks


def _mills(amount: Decimal | None) -> str:
    """Return an amount with three digits, as prices by the hour give for a month."""
    return "not priced" if amount is None else f"{amount:.3f}"


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return render_decimal(value)
    return value.isoformat() if hasattr(value, "isoformat") else value
