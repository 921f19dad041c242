"""Write Markdown of which no part can be more than the text it stands for.

Names and values come from a change that nobody has approved yet: in a comment they must neither
mention people, nor close a section, nor be HTML.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

# What is markup in Markdown of GitHub and GitLab (CommonMark, tables, mentions, references).
_SPECIAL = re.compile(r"([\\`*_{}\[\]|~$])")


def text(value: object) -> str:
    """Return a value as plain text of one line."""
    plain = " ".join(str(value).split())
    escaped = _SPECIAL.sub(r"\\\1", plain.replace("&", "&amp;").replace("<", "&lt;"))
    # Mentions (@person), references (#1, !1) and addresses that would become links.
    return re.sub(r"[@#!](?=\w)", lambda match: f"&#{ord(match[0])};", escaped).replace(
        "://", "&#58;//"
    )


def code(value: object) -> str:
    """Return a value as a code span of one line."""
    plain = " ".join(str(value).split())
    if not plain:
        return ""
    fence = "`" * (max((len(run) for run in re.findall("`+", plain)), default=0) + 1)
    space = " " if plain.startswith("`") or plain.endswith("`") else ""
    # A table parts cells before it reads code spans.
    return f"{fence}{space}{plain.replace('|', chr(92) + '|')}{space}{fence}"


def block(value: str, language: str = "") -> str:
    """Return a text as a fenced code block."""
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
    title = html.escape(" ".join(summary.split()))
    # Platforms read mentions in HTML too.
    title = re.sub(r"[@#!](?=\w)", lambda match: f"&#{ord(match[0])};", title)
    return (
        f"<details{' open' if opened else ''}>\n<summary>{title}</summary>\n\n{body}\n\n</details>"
    )


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: `1 stack`, `2 stacks`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
