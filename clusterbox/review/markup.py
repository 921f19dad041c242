"""Write Markdown of which no part can be more than the text it stands for.

Names and values come from a change that nobody has approved yet: in a comment they must neither
mention people, nor close a section, nor be HTML.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

# What is markup in Markdown of GitHub and GitLab (CommonMark, tables).
_SPECIAL = re.compile(r"([\\`*_{}\[\]|~$])")
# What begins a mention (@person) or a reference (#1, !1, GH-1). Platforms look for these in the
# rendered page, where neither a backslash nor an entity is left (github/cmark-gfm, issue 181); a
# space without width parts them.
_REFERENCE = re.compile(r"([@#!](?=\w)|\bGH(?=-\d))", re.I)
_NO_WIDTH = "\u200b"
# Characters that are not seen and can turn the order of what is (Unicode's bidirectional controls).
_REPLACED = "\ufffd"
_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def text(value: object) -> str:
    """Return a value as plain text of one line."""
    plain = _REFERENCE.sub(rf"\1{_NO_WIDTH}", _one_line(value))
    escaped = _SPECIAL.sub(r"\\\1", plain.replace("&", "&amp;").replace("<", "&lt;"))
    # Addresses would become links.
    return escaped.replace("://", "&#58;//")


def code(value: object) -> str:
    """Return a value as a code span of one line, in which platforms see no mentions."""
    plain = _one_line(value)
    if not plain:
        return ""
    fence = "`" * (max((len(run) for run in re.findall("`+", plain)), default=0) + 1)
    space = " " if plain.startswith("`") or plain.endswith("`") else ""
    # A table parts cells before it reads code spans.
    return f"{fence}{space}{plain.replace('|', chr(92) + '|')}{space}{fence}"


def block(value: str, language: str = "") -> str:
    """Return a text as a fenced code block."""
    value = _INVISIBLE.sub(_REPLACED, value)
    fence = "`" * max(3, max((len(run) for run in re.findall("`+", value)), default=0) + 1)
    return f"{fence}{language}\n{value}\n{fence}"


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()
) -> str:
    """Return a table of cells that are Markdown already; columns in `right` are right-aligned."""
    marks = ["---:" if index in right else "---" for index in range(len(columns))]
    lines = [list(columns), marks, *(list(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def details(summary: str, body: str, *, opened: bool = False) -> str:
    """Return a section that a reader can open: its summary is plain text, its body Markdown."""
    title = html.escape(_REFERENCE.sub(rf"\1{_NO_WIDTH}", _one_line(summary)), quote=False)
    return (
        f"<details{' open' if opened else ''}>\n<summary>{title}</summary>\n\n{body}\n\n</details>"
    )


def _one_line(value: object) -> str:
    return _INVISIBLE.sub(_REPLACED, " ".join(str(value).split()))


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: `1 stack`, `2 stacks`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
