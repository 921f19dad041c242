"""A dashboard as one HTML page, drawn from its panels and a Prometheus, without a Grafana.

It shows what the panels' queries answer; it does not look as Grafana draws it.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise

from clusterbox.observe.dashboards.model import Dashboard, Panel, fill
from clusterbox.observe.prometheus import Prometheus, Series, choose_step

_LINE_WIDTH, _LINE_HEIGHT, _LEFT, _BOTTOM = 600, 170, 70, 20
_COLORS = ("#1f6feb", "#d9730d", "#1a7f37", "#8250df", "#bf3989", "#0f7b8a", "#9a6700", "#57606a")
# More lines than these are not told apart; the legend of a page says that there are more.
_MOST_LINES = 12
_MOST_ROWS = 20
_PAINT = {
    "green": "#1a7f37",
    "yellow": "#b08800",
    "orange": "#d9730d",
    "red": "#cf222e",
    "blue": "#1f6feb",
    "text": "#1a1a1a",
}
_STYLE = "\n".join(
    [
        "body { font: 14px/1.4 system-ui, sans-serif; margin: 1rem; color: #1a1a1a; background: #fff; }",
        "h1 { margin: 0; } h1 + p { margin: 0 0 1rem; color: #57606a; }",
        "h2 { font-size: 1rem; margin: 1rem 0 .3rem; border-bottom: 1px solid #d0d7de; }",
        ".grid { display: grid; grid-template-columns: repeat(24, 1fr); gap: .6rem; }",
        "section { border: 1px solid #d0d7de; border-radius: .3rem; padding: .4rem .6rem; min-width: 0;",
        "  overflow: hidden; }",
        "h3 { font-size: .85rem; margin: 0 0 .3rem; }",
        "svg { width: 100%; height: auto; display: block; }",
        "svg text { font: 12px system-ui, sans-serif; fill: #57606a; }",
        ".axis { stroke: #d0d7de; } .limit { stroke-dasharray: 5 4; }",
        "path { fill: none; stroke-width: 1.5; }",
        "path.area { stroke: none; fill-opacity: .25; }",
        "ul { list-style: none; margin: .2rem 0 0; padding: 0; display: flex; flex-wrap: wrap;",
        "  gap: 0 .8rem; font-size: .75rem; }",
        ".figure { font-size: 1.5rem; font-variant-numeric: tabular-nums; }",
        ".figure small { font-size: .75rem; color: #57606a; display: block; }",
        "table { border-collapse: collapse; font-size: .8rem; width: 100%; }",
        "td, th { border-bottom: 1px solid #eaeef2; padding: .1rem .5rem .1rem 0; text-align: left; }",
        ".none { color: #57606a; }",
        *(f".w{width} {{ grid-column: span {width}; }}" for width in range(1, 25)),
        *(
            f".c{n} {{ color: {c}; }} .s{n} {{ stroke: {c}; }} .f{n} {{ fill: {c}; }}"
            for n, c in enumerate(_COLORS)
        ),
        *(
            f".t-{n} {{ color: {c}; fill: {c}; }} .l-{n} {{ stroke: {c}; }}"
            for n, c in _PAINT.items()
        ),
    ]
)


def render_page(
    dashboard: Dashboard,
    prometheus: Prometheus,
    start: float,
    end: float,
    values: Mapping[str, str],
) -> str:
    """Return the page for a span, in seconds since 1970; `values` are those of variables.

    Raises what asking Prometheus raises.
    """
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    chosen = ", ".join(f"{name} {value}" for name, value in values.items()) or "all clusters"
    body = []
    for row in dashboard.rows:
        panels = "\n".join(
            _panel(panel, *_ask(panel, prometheus, start, end, values)) for panel in row.panels
        )
        body.append(f'<h2>{escape(row.title)}</h2>\n<div class="grid">\n{panels}\n</div>')
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        f"style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'\">\n"
        f"<title>{escape(dashboard.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(dashboard.title)}</h1>\n"
        f"<p>{escape(dashboard.description)} {escape(chosen)}, "
        f"{_clock(start)} to {_clock(end)} UTC.</p>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


# A query's number and its series.
_Found = list[tuple[int, Series]]


def _ask(
    panel: Panel, prometheus: Prometheus, start: float, end: float, values: Mapping[str, str]
) -> tuple[_Found, float, float]:
    step = max(1.0, min(choose_step(end - start), (end - start) / 60))
    found: _Found = []
    for index, query in enumerate(panel.queries):
        rate = max(60, round(4 * step)) if end - start > 600 else max(round((end - start) / 4), 5)
        expr = fill(query.expr, values, max(round(end - start), 1), rate)
        answer = (
            prometheus.query_range(expr, start, end, step)
            if panel.kind == "timeseries"
            else prometheus.query(expr, end)
        )
        found += [(index, series) for series in answer]
    return found, start, end


def _panel(panel: Panel, found: _Found, start: float, end: float) -> str:
    if not found:
        inner = '<p class="none">nothing</p>'
    elif panel.kind == "timeseries":
        inner = _lines(panel, found, start, end)
    elif panel.kind == "table":
        inner = _table(panel, found)
    elif panel.kind == "stat":
        inner = _figures(panel, found)
    else:
        inner = _bars(panel, found)
    return (
        f'<section class="w{panel.width}"><h3 title="{escape(panel.description)}">'
        f"{escape(panel.title)}</h3>\n{inner}</section>"
    )


def _lines(panel: Panel, found: _Found, start: float, end: float) -> str:
    shown = sorted(found, key=lambda item: -_greatest(item[1]))[:_MOST_LINES]
    limits = [value for value, _ in panel.thresholds if value is not None]
    below: dict[float, float] = {}
    # Of each line: times, values, and what lies below it where lines are stacked.
    heights: list[list[tuple[float, float, float]]] = []
    for _, series in shown:
        points = []
        for at, value in series.points:
            if math.isfinite(value):
                ground = below.get(at, 0.0) if panel.is_stacked else 0.0
                below[at] = ground + value
                points.append((at, ground + value, ground))
        heights.append(points)
    most = max((value for points in heights for _, value, _ in points), default=0.0)
    # A threshold far above all lines would press them to the ground.
    most = max([most, *(limit for limit in limits if limit <= most * 1.5)]) or 1.0
    span = max(end - start, 1.0)
    # As wide as the panel, so that letters are as large as in the others.
    width = _LINE_WIDTH * panel.width // 12

    def x(at: float) -> float:
        return _LEFT + (at - start) / span * (width - _LEFT)

    def y(value: float) -> float:
        return 8 + (1 - value / most) * (_LINE_HEIGHT - _BOTTOM - 8)

    parts = [
        f'<path class="axis" d="M{_LEFT} {y(part):.1f}H{width}"/>'
        f'<text x="{_LEFT - 6}" y="{y(part) + 4:.1f}" text-anchor="end">'
        f"{escape(show(part, panel.unit))}</text>"
        for part in (0.0, most / 2, most)
    ]
    for at, anchor in ((start, "start"), ((start + end) / 2, "middle"), (end, "end")):
        parts.append(
            f'<text x="{x(at):.1f}" y="{_LINE_HEIGHT - 4}" text-anchor="{anchor}">{_clock(at)}</text>'
        )
    for limit, color in panel.thresholds:
        if limit is not None and limit <= most:
            parts.append(f'<path class="limit l-{color}" d="M{_LEFT} {y(limit):.1f}H{width}"/>')
    gap = min((b[0] - a[0] for p in heights for a, b in pairwise(p)), default=span) * 1.5
    for number, points in enumerate(heights):
        for part in _unbroken(points, gap):
            line = " L".join(f"{x(at):.1f} {y(value):.1f}" for at, value, _ in part)
            if panel.is_stacked:
                back = " L".join(f"{x(at):.1f} {y(ground):.1f}" for at, _, ground in reversed(part))
                area = f"M{line} L{back}Z"
                parts.append(f'<path class="area f{number % len(_COLORS)}" d="{area}"/>')
            parts.append(f'<path class="s{number % len(_COLORS)}" d="M{line}"/>')
    names = []
    for number, item in enumerate(shown):
        at, value = item[1].points[-1]
        # One that has ended has no value now.
        words = show(value, panel.unit) if end - at < gap else "(none now)"
        names.append(
            f'<li class="c{number % len(_COLORS)}">{escape(f"{_name(panel, item)} {words}")}</li>'
        )
    if len(found) > len(shown):
        names.append(f"<li>and {len(found) - len(shown)} more</li>")
    return (
        f'<svg role="img" viewBox="0 0 {width} {_LINE_HEIGHT}" '
        f'aria-label="{escape(panel.title)}">{"".join(parts)}</svg><ul>{"".join(names)}</ul>'
    )


def _unbroken(
    points: Sequence[tuple[float, float, float]], gap: float
) -> Iterator[list[tuple[float, float, float]]]:
    """Yield the parts of a line that no gap parts: where nothing was known, nothing is drawn."""
    part: list[tuple[float, float, float]] = []
    for point in points:
        if part and point[0] - part[-1][0] > gap:
            yield part
            part = []
        part.append(point)
    if part:
        yield part


def _figures(panel: Panel, found: _Found) -> str:
    return "".join(
        f'<div class="figure t-{_color(panel, item[1].value)}">'
        f"{escape(_words(panel, item[1].value))}<small>{escape(_name(panel, item))}</small></div>"
        for item in found[:_MOST_ROWS]
    )


def _bars(panel: Panel, found: _Found) -> str:
    ordered = sorted(found, key=lambda item: -_finite(item[1].value))[:_MOST_ROWS]
    most = panel.greatest or max(_finite(item[1].value) for item in ordered) or 1.0
    height, width = 24, max(_LINE_WIDTH * panel.width // 12, 300)
    name, room = width // 3, width // 2
    parts = []
    for index, item in enumerate(ordered):
        value = item[1].value
        length = min(_finite(value) / most, 1.0) * room
        line = index * height
        parts.append(
            f'<text x="{name - 6}" y="{line + 16}" text-anchor="end">'
            f"{escape(_name(panel, item)[: name // 7])}</text>"
            f'<rect class="t-{_color(panel, value)}" x="{name}" y="{line + 4}" '
            f'width="{max(length, 1):.1f}" height="16"/>'
            f'<text x="{name + length + 4:.1f}" y="{line + 16}">{escape(show(value, panel.unit))}</text>'
        )
    return (
        f'<svg role="img" viewBox="0 0 {width} {len(ordered) * height}" '
        f'aria-label="{escape(panel.title)}">{"".join(parts)}</svg>'
    )


def _table(panel: Panel, found: _Found) -> str:
    columns = sorted({label for _, series in found for label in series.labels})
    rows: dict[tuple[str, ...], dict[int, float]] = {}
    for index, series in found:
        key = tuple(series.labels.get(label, "") for label in columns)
        rows.setdefault(key, {})[index] = series.value
    heads = [*columns, *(query.legend for query in panel.queries)]
    lines = []
    for key, values in list(rows.items())[:_MOST_ROWS]:
        cells = [escape(text) for text in key]
        cells += [
            escape(show(values[index], panel.unit)) if index in values else ""
            for index in range(len(panel.queries))
        ]
        lines.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _name(panel: Panel, item: tuple[int, Series]) -> str:
    index, series = item
    legend = panel.queries[index].legend
    return (
        re.sub(r"\{\{(\w+)\}\}", lambda m: series.labels.get(m[1], ""), legend).strip() or "(none)"
    )


def _words(panel: Panel, value: float) -> str:
    return next((text for known, text, _ in panel.words if known == value), show(value, panel.unit))


def _color(panel: Panel, value: float) -> str:
    color = panel.thresholds[0][1]
    for limit, name in panel.thresholds[1:]:
        if limit is not None and value >= limit:
            color = name
    return next((name for known, _, name in panel.words if known == value), color)


def show(value: float, unit: str) -> str:
    """Return a value with its unit as people read it; `?` for what is no number."""
    if not math.isfinite(value):
        return "?"
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit in ("s", "µs"):
        return _seconds(value if unit == "s" else value / 1e6)
    if unit in ("bytes", "Bps"):
        text = _scaled(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))
        return f"{text}/s" if unit == "Bps" else text
    if unit == "currencyUSD":
        return f"${value:,.2f}"
    return f"{value:,.0f}" if value == int(value) else f"{value:,.3g}"


def _seconds(value: float) -> str:
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"), (1e-3, "ms")):
        if abs(value) >= size:
            return f"{value / size:.3g} {name}"
    return f"{value * 1e6:.3g} µs" if value else "0 s"


def _scaled(value: float, base: int, names: Sequence[str]) -> str:
    for name in names[:-1]:
        if abs(value) < base:
            return f"{value:.3g} {name}"
        value /= base
    return f"{value:.3g} {names[-1]}"


def _greatest(series: Series) -> float:
    return max((_finite(value) for _, value in series.points), default=0.0)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(at))


def pages(
    dashboards: Sequence[Dashboard],
    prometheus: Prometheus,
    start: float,
    end: float,
    values: Mapping[str, str],
) -> Iterator[tuple[str, str]]:
    """Yield the name of a file and its page, for each dashboard."""
    for dashboard in dashboards:
        name = dashboard.uid.removeprefix("clusterbox-")
        yield f"{name}.html", render_page(dashboard, prometheus, start, end, values)
