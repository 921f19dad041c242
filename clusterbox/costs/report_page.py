"""A cost report as one HTML page, which needs no network, no script and no other file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import timedelta
from html import escape

from clusterbox.costs.charts import Bar, render_columns, render_rows
from clusterbox.costs.estimate import add_amounts
from clusterbox.costs.lines import usd
from clusterbox.costs.report import Report, Total
from clusterbox.costs.report_history import Day
from clusterbox.costs.report_orphans import total_savings
from clusterbox.costs.report_tables import Section, make_heading, make_sections

# More bars than these are one bar.
MOST_BARS = 12
MOST_DAYS = 92
CHARTS = (("cluster", "By cluster"), ("owner", "By owner"), ("kind", "By kind"))

_STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --bar: #1f6feb; --soft: #57606a;
  --line: #d0d7de; --warn: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --bar: #58a6ff;
  --soft: #9da7b1; --line: #30363d; --warn: #e3b341; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem;
  color: var(--ink); background: var(--paper); }
h1 { margin-bottom: .2rem; }
.partial-note { border-left: .4rem solid var(--warn); padding: .4rem .8rem; font-weight: 600; }
dl { display: flex; flex-wrap: wrap; gap: 1rem 3rem; }
dt { color: var(--soft); }
dd { margin: 0; font-size: 1.6rem; font-variant-numeric: tabular-nums; }
figure { margin: 1.5rem 0; }
svg { width: 100%; max-width: 60rem; height: auto; display: block; }
figure p { color: var(--soft); margin: .3rem 0; }
svg text { font: 13px system-ui, sans-serif; fill: var(--ink); dominant-baseline: central; }
svg .label { fill: var(--soft); }
.bar { fill: var(--bar); }
.bar.partial { fill: var(--paper); stroke: var(--bar); stroke-width: 2; stroke-dasharray: 5 3; }
.axis { stroke: var(--line); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .7rem; text-align: left; vertical-align: top; }
.amount { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.total { font-weight: 600; }
:focus-visible { outline: 3px solid var(--bar); }
"""


def render_page(report: Report, days: Sequence[Day] = ()) -> str:
    """Return the page; `days` are those of the history, and today's is added where it is missing.

    Styles are allowed by their hash and nothing else is: the page cannot load or run anything,
    whatever the names of things in the account are.
    """
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    title = f"Costs of {report.made:%Y-%m-%d}"
    body = "\n".join(
        [
            f"<h1>{escape(title)}</h1>",
            *(_line(text) for text in make_heading(report)),
            _figures(report),
            _day_chart(report, days),
            *(_group_chart(group, name, report.totals(group)) for group, name in CHARTS),
            *(_section(number, section) for number, section in enumerate(make_sections(report))),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        f"style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'\">\n"
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _line(text: str) -> str:
    style = ' class="partial-note"' if text.startswith("PARTIAL") else ""
    return f"<p{style}>{escape(text)}</p>"


def _figures(report: Report) -> str:
    total = report.total
    figures = [
        ("now, USD a month", usd(total.now)),
        ("if every machine ran", usd(total.if_running)),
    ]
    if report.orphans:
        figures.append(("orphans, to be saved", usd(total_savings(report.orphans))))
    if total.unpriced:
        figures.append(("not wholly priced", f"{total.unpriced} of {total.items}"))
    pairs = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in figures
    )
    return f"<dl>{pairs}</dl>"


def _day_chart(report: Report, days: Sequence[Day]) -> str:
    today = Day(report.made.date(), report.total.now, report.is_partial)
    kept = {day.day: day for day in days} | {today.day: today}
    count = min((max(kept) - min(kept)).days + 1, MOST_DAYS)
    shown = [max(kept) - timedelta(days=back) for back in reversed(range(count))]
    bars = [
        Bar(day.isoformat(), kept[day].now, kept[day].is_partial)
        if day in kept
        else Bar(day.isoformat(), None, without="no report")
        for day in shown
    ]
    title = "By day: what everything cost, USD a month"
    return _figure("by-day", "By day", render_columns("by-day", title, bars), bars)


def _group_chart(group: str, name: str, totals: Sequence[Total]) -> str:
    identity = f"by-{group}"
    bars = [Bar(total.name, total.now, bool(total.unpriced)) for total in totals[:MOST_BARS]]
    rest = totals[MOST_BARS:]
    if rest:
        amount = add_amounts(total.now for total in rest)
        partial = any(total.unpriced for total in rest)
        bars.append(Bar(f"{len(rest)} others", amount, partial))
    chart = render_rows(identity, f"{name}: USD a month now", bars)
    return _figure(identity, name, chart, bars) if bars else ""


def _figure(identity: str, name: str, chart: str, bars: Sequence[Bar]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(bar.label)}</th><td class="amount">{escape(bar.text)}</td></tr>'
        for bar in bars
    )
    dashed = "<p>Dashed: not everything of it was read or has a price.</p>\n"
    return (
        f'<figure id="{identity}">\n<figcaption><h2>{escape(name)}</h2></figcaption>\n{chart}\n'
        f"{dashed if any(bar.is_partial for bar in bars) else ''}"
        f"<details><summary>As a table</summary><table><tbody>{rows}</tbody></table></details>\n"
        "</figure>"
    )


def _section(number: int, section: Section) -> str:
    amounts = {section.columns.index(name) for name in section.amounts}
    head = "".join(
        f'<th scope="col"{_class("amount", index in amounts)}>{escape(name)}</th>'
        for index, name in enumerate(section.columns)
    )
    last = len(section.rows) - section.totals
    rows = "\n".join(
        f"<tr{' class=' + chr(34) + 'total' + chr(34) if row >= last else ''}>"
        + "".join(
            f"<td{_class('amount', index in amounts)}>{escape(cell)}</td>"
            for index, cell in enumerate(cells)
        )
        + "</tr>"
        for row, cells in enumerate(section.rows)
    )
    identity = f"section-{number}"
    return (
        f'<section aria-labelledby="{identity}"><h2 id="{identity}">{escape(section.title)}</h2>\n'
        f'<div class="scroll" tabindex="0" role="region" aria-labelledby="{identity}">\n'
        f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div></section>"
    )


def _class(name: str, applies: bool) -> str:
    return f' class="{name}"' if applies else ""
