"""The report of a patch day as one HTML page, which needs no network, no script and no other file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from html import escape

from clusterbox.images import report as reports
from clusterbox.images.packages import Change
from clusterbox.images.report import HeadReport, ImageReport, Report
from clusterbox.images.timeline import Attempt, StepTime, show_seconds

# Sizes in CSS pixels of the drawing; the page scales it to its width.
_WIDTH = 900
_LABELS = 260
_VALUES = 130
_ROW = 26
_BAR = 14
_AXIS = 24

_STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --done: #1a7f37; --failed: #cf222e;
  --other: #9a6700; --soft: #57606a; --line: #d0d7de; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --done: #3fb950;
  --failed: #f85149; --other: #e3b341; --soft: #9da7b1; --line: #30363d; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem;
  color: var(--ink); background: var(--paper); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.5rem; }
dt { color: var(--soft); }
dd { margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.failure { border-left: .4rem solid var(--failed); padding: .2rem .8rem; white-space: pre-wrap;
  overflow-wrap: anywhere; }
svg { width: 100%; height: auto; display: block; }
svg text { font: 13px system-ui, sans-serif; fill: var(--ink); dominant-baseline: central; }
svg .label { fill: var(--soft); }
.done { fill: var(--done); }
.failed { fill: var(--failed); }
.other { fill: var(--other); }
.expected { fill: none; stroke: var(--soft); stroke-dasharray: 4 3; }
.axis { stroke: var(--line); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .7rem; text-align: left;
  vertical-align: top; }
summary { cursor: pointer; }
:focus-visible { outline: 3px solid var(--done); }
"""


def render_page(report: Report) -> str:
    """Return the page.

    Styles are allowed by their hash and nothing else is: the page cannot load or run anything,
    whatever stands in the record.
    """
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    title = escape(report.title)
    body = "\n".join(
        [
            f"<h1>{title}</h1>",
            _facts(report),
            *(_failure(time) for time in report.failures),
            _section("Images", _table(reports.IMAGE_COLUMNS, reports.image_rows(report))),
            *(_image(image) for image in report.images),
            _section("Head nodes", _table(reports.HEAD_COLUMNS, reports.head_rows(report))),
            *(_head(head) for head in report.heads),
            _section(
                "Steps",
                f"{render_chart(report.times)}\n"
                f"{_table(reports.STEP_COLUMNS, reports.step_rows(report))}",
            ),
            _section("Left out", _left_out(report)),
            _section("What runs which image", _what_runs(report)),
            _section("Retired", _list(report.retired)),
            _section("Users", _list(reports.user_lines(report))),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        f"style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'\">\n"
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def render_chart(times: Sequence[StepTime]) -> str:
    """Return when the steps ran as inline SVG: a bar an attempt, and dashed what was expected."""
    shown = [time for time in times if time.attempts]
    if not shown:
        return "<p>No step has begun.</p>"
    start = min(time.attempts[0].start for time in shown)
    end = max(_end(time) for time in shown)
    span = max((end - start).total_seconds(), 1.0)
    scale = (_WIDTH - _LABELS - _VALUES) / span
    rows = [_bar_row(index, time, start, scale) for index, time in enumerate(shown)]
    height = len(shown) * _ROW + _AXIS
    spoken = "; ".join(
        f"{time.step}: {time.state} {show_seconds(time.seconds)}".rstrip() for time in shown
    )
    axis = (
        f'<path class="axis" d="M{_LABELS} {height - _AXIS}H{_WIDTH - _VALUES}"/>'
        f'<text class="label" x="{_LABELS}" y="{height - 10}">{start:%H:%M:%S}</text>'
        f'<text class="label" x="{_WIDTH - _VALUES}" y="{height - 10}" text-anchor="end">'
        f"{show_seconds(span)} later</text>"
    )
    return (
        f'<svg role="img" viewBox="0 0 {_WIDTH} {height}" aria-labelledby="steps-title steps-text">'
        '\n<title id="steps-title">When the steps ran</title>\n'
        f'<desc id="steps-text">{escape(spoken)}</desc>\n' + "\n".join(rows) + f"\n{axis}\n</svg>"
    )


def _bar_row(index: int, time: StepTime, start: datetime, scale: float) -> str:
    middle = index * _ROW + _ROW // 2
    top = middle - _BAR // 2
    shapes = [
        f'<text class="label" x="{_LABELS - 8}" y="{middle}" text-anchor="end">'
        f"{escape(_cut(time.step))}</text>"
    ]
    if time.expected:
        left = _LABELS + (time.attempts[0].start - start).total_seconds() * scale
        # What was expected to take longer than the whole run ends at the chart's edge.
        width = min(time.expected * scale, _WIDTH - _VALUES - left)
        shapes.append(
            f'<rect class="expected" x="{left:.1f}" y="{top - 2}" width="{max(width, 1):.1f}" '
            f'height="{_BAR + 4}"><title>expected: {show_seconds(time.expected)}</title></rect>'
        )
    for attempt in time.attempts:
        left = _LABELS + (attempt.start - start).total_seconds() * scale
        width = max((attempt.seconds or 0.0) * scale, 2.0)
        shapes.append(
            f'<rect class="{_class(attempt)}" x="{left:.1f}" y="{top}" width="{width:.1f}" '
            f'height="{_BAR}"><title>{escape(time.step)}: {escape(attempt.state)} '
            f"{show_seconds(attempt.seconds)}</title></rect>"
        )
    shapes.append(
        f'<text x="{_WIDTH - _VALUES + 8}" y="{middle}">'
        f"{escape(show_seconds(time.seconds) or time.state)}</text>"
    )
    return "".join(shapes)


def _class(attempt: Attempt) -> str:
    return attempt.state if attempt.state in ("done", "failed") else "other"


def _end(time: StepTime) -> datetime:
    last = time.attempts[-1]
    return last.start + timedelta(seconds=last.seconds or 0.0)


def _cut(name: str) -> str:
    return name if len(name) <= 36 else f"{name[:35]}…"


def _facts(report: Report) -> str:
    pairs = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in reports.facts(report)
    )
    return f"<dl>{pairs}</dl>"


def _failure(time: StepTime) -> str:
    words = f"{time.step} {time.state}{f': {time.reason}' if time.reason else ''}"
    return f'<p class="failure">{escape(words)}</p>'


def _head(head: HeadReport) -> str:
    title = f"Head node of {head.cluster}"
    return f"<section><h3>{escape(title)}</h3>\n{_changes(head.changes)}</section>"


def _changes(changes: Sequence[Change] | None) -> str:
    if changes is None:
        return "<p>Packages: not known, because one of both lists is in no record.</p>"
    rows = [(each.name, each.before or "", each.after or "") for each in changes]
    return (
        f"<details><summary>Packages: {escape(reports.count_changes(changes))}</summary>"
        f"{_table(reports.PACKAGE_COLUMNS, rows)}</details>"
    )


def _image(image: ImageReport) -> str:
    found = _changes(image.changes)
    for title, advisories in reports.advisory_sections(image):
        found += f"\n<p>{escape(title)}</p>{_table(reports.ADVISORY_COLUMNS, advisories)}"
    return f"<section><h3>{escape(image.image)}</h3>\n{found}</section>"


def _left_out(report: Report) -> str:
    left = [
        f"{time.step}: {time.reason}"
        for time in report.times
        if time.state == "skipped" and time.reason
    ]
    return _list([*left, *report.unsupported])


def _what_runs(report: Report) -> str:
    if not report.what_runs:
        return "<p>Not recorded; <code>clusterbox images status</code> shows it.</p>"
    return _table(reports.RUNS_COLUMNS, report.what_runs)


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n{content}</section>" if content else ""


def _list(lines: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    lines = "\n".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{lines}\n</tbody></table></div>"
    )
