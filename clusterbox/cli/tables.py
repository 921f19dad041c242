"""Render rows as a table for people, or as CSV, JSON or Markdown for what comes after."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

FORMATS = ("table", "csv", "json", "markdown")


def render_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    form: str,
    *,
    width: int | None = None,
) -> str:
    """Return the rows as text in one of FORMATS, without a newline at the end.

    With a `width` in characters, lines of the format `table` are cut to it.
    """
    if form == "json":
        records = [dict(zip(columns, row, strict=True)) for row in rows]
        return json.dumps(records, indent=2, ensure_ascii=False)
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if form == "csv":
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerows([columns, *texts])
        return buffer.getvalue().rstrip("\n")
    if form == "markdown":
        lines = [list(columns), ["---"] * len(columns)]
        lines += [[cell.replace("|", r"\|").replace("\n", " ") for cell in row] for row in texts]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
    widths = [max(len(row[i]) for row in [list(columns), *texts]) for i in range(len(columns))]
    lines = [list(columns), ["-" * size for size in widths], *texts]
    return "\n".join(_cut(_align(line, widths), width) for line in lines)


def _align(line: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(size) for cell, size in zip(line, widths, strict=True)).rstrip()


def _cut(text: str, width: int | None) -> str:
    return text if width is None or len(text) <= width else text[: max(width - 1, 0)] + "…"
