"""The totals of past days: a small JSON file for each day, in a folder that the page's chart reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from clusterbox.costs.report import Report
from clusterbox.costs.report_tables import make_document
from clusterbox.errors import InputError
from clusterbox.files import write_whole

FORMAT = "clusterbox-cost-day 1"


@dataclass(frozen=True, order=True)
class Day:
    """What everything cost on one day in USD a month; None where nothing had a price."""

    day: date
    now: Decimal | None
    is_partial: bool


def write_day(folder: Path, report: Report) -> Path:
    """Keep the totals of a report as its day's file, and return it; a second one replaces the first.

    Raises InputError where the folder is of another selection or of other accounts: its days could
    not be compared. The file is written beside and renamed.
    """
    document = {"format": FORMAT, **make_document(report, with_items=False)}
    for path in _files(folder):
        other = _read(path)
        if any(other.get(key) != document[key] for key in ("selection", "places")):
            raise InputError(
                f"{path} is a report of {other.get('selection')} in {_names(other)}, this one is of "
                f"{document['selection']} in {_names(document)}; give each a folder of its own"
            )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{report.made.date()}.json"
    write_whole(path, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return path


def read_days(folder: Path) -> list[Day]:
    """Return the days that are kept, oldest first; raises InputError naming a file that is not one."""
    days = []
    for path in _files(folder):
        found = _read(path)
        try:
            now = found["total"]["now"]
            amount = None if now is None else Decimal(now)
            days.append(Day(date.fromisoformat(path.stem), amount, bool(found["partial"])))
        except (InvalidOperation, LookupError, TypeError, ValueError) as error:
            raise _broken(path) from error
    return sorted(days)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*-[0-9]*-[0-9]*.json"))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _broken(path) from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise _broken(path)
    return found


def _names(document: dict[str, Any]) -> str:
    places = document.get("places")
    listed = places if isinstance(places, list) else []
    return ", ".join(f"{place['account']} {place['region']}" for place in listed) or "no account"


def _broken(path: Path) -> InputError:
    return InputError(f"{path}: is not a day of cost reports ({FORMAT}); remove it")
