"""Cells with what other people wrote: tags, names of users and jobs."""

from __future__ import annotations

from collections.abc import Sequence

# Spreadsheets compute a cell that begins so (OWASP, "CSV Injection").
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def safe_rows(rows: Sequence[Sequence[object]], form: str) -> list[list[object]]:
    """Return rows for a format of `clusterbox.cli.tables`.

    In `csv` a text that a spreadsheet would compute has an apostrophe before it, which makes it
    text. In `table` and `markdown` control characters are spaces: none breaks a line or reaches the
    terminal. `json` has everything as it is.
    """
    if form == "json":
        return [list(row) for row in rows]
    clean = _as_text if form == "csv" else _in_one_line
    return [[clean(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]


def _as_text(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) and not _is_number(cell) else cell


def _is_number(cell: str) -> bool:
    return cell[1:].replace(".", "", 1).isdecimal() and cell[0] in "+-"


def _in_one_line(cell: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in cell)
