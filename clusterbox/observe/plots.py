"""One plot for each frame: bars for a terminal, an HTML page or a PNG file."""

from __future__ import annotations

import base64
import hashlib
import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from html import escape
from typing import TYPE_CHECKING, Any

from clusterbox.costs.charts import Bar, render_columns, render_rows
from clusterbox.errors import InputError

if TYPE_CHECKING:
    import pandas

# More bars than these are one bar.
MOST_BARS = 20
MOST_COLUMNS = 48
_HOUR = 3600
_BLOCKS = " ▏▎▍▌▋▊▉█"
_LIGHT = {
    "ink": "#1a1a1a",
    "paper": "#ffffff",
    "bar": "#1f6feb",
    "soft": "#57606a",
    "line": "#d0d7de",
}
_DARK = {
    "ink": "#e6edf3",
    "paper": "#0d1117",
    "bar": "#58a6ff",
    "soft": "#9da7b1",
    "line": "#30363d",
}
# With colours as values: what draws PNG files knows no variables.
_DRAWING = """svg text {{ font: 13px system-ui, sans-serif; fill: {ink}; dominant-baseline: central; }}
svg .label {{ fill: {soft}; }}
.bar {{ fill: {bar}; }}
.axis {{ stroke: {line}; }}
"""
_PAGE = """:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a; background: #ffffff; }
svg { width: 100%; max-width: 60rem; height: auto; display: block; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { border-bottom: 1px solid #d0d7de; padding: .25rem .7rem; text-align: left; }
@media (prefers-color-scheme: dark) { body { color: #e6edf3; background: #0d1117; } }
"""
# Beside the bars of charts.py, in its pixels.
_PNG_WIDTH = 1040


@dataclass(frozen=True)
class Measure(Bar):
    """A bar of something else than USD."""

    unit: str = ""
    without: str = "not known"

    @property
    def text(self) -> str:
        """The amount in words."""
        if self.value is None:
            return self.without
        if self.unit == "ratio":
            return f"{self.value * 100:.1f} %"
        whole = self.value == self.value.to_integral_value()
        return f"{self.value:,.0f}" if whole else f"{self.value:,.2f}"


@dataclass(frozen=True)
class Plot:
    """Bars with a title; `is_time` where they are spans of time in their order."""

    title: str
    bars: tuple[Measure, ...]
    is_time: bool = False


def make_plot(name: str, frame: pandas.DataFrame) -> Plot:
    """Return the plot of a frame of frames.py: its most telling column that is known."""
    if name == "jobs" and frame["started"].notna().any():
        return _starts(frame)
    for column, title, by, divisor in _CHOICES[name]:
        if frame[column].notna().any():
            unit = frame.attrs.get("units", {}).get(column, "")
            return Plot(title, _by(frame, column, by, Decimal(divisor), unit))
    _, title, *_ = _CHOICES[name][0]
    return Plot(title, ())


# Column, title, what it is summed by, how many of its unit are one of the plot's.
_CHOICES: dict[str, tuple[tuple[str, str, tuple[str, ...], int], ...]] = {
    "jobs": (("jobs", "Jobs by state", ("state",), 1),),
    "nodes": (
        ("cpu_busy", "CPU busy, mean of the span", ("node",), 1),
        ("cpus_allocated", "CPUs that jobs have now", ("node",), 1),
    ),
    "users": (
        ("cpu_seconds", "CPU hours of ended jobs", ("user",), _HOUR),
        ("cpus", "CPUs now", ("user",), 1),
    ),
    "queues": (
        ("cpu_seconds", "CPU hours of ended jobs", ("queue",), _HOUR),
        ("cpus_allocated", "CPUs that jobs have now", ("queue",), 1),
    ),
    "costs": (
        ("usd", "USD in the span", ("component", "queue"), 1),
        ("cpu_hours", "CPU hours of jobs", ("queue",), 1),
    ),
    "efficiency": (("cpu_efficiency", "CPU time used of what jobs had", ("user", "queue"), 1),),
}


def _by(
    frame: pandas.DataFrame, column: str, by: Sequence[str], divisor: Decimal, unit: str
) -> tuple[Measure, ...]:
    known = frame[frame[column].notna()]
    groups = known.groupby(list(by), dropna=False)[column]
    # A share is no sum: its rows are one each but for clusters of the same names.
    sums = groups.mean() if unit == "ratio" else groups.sum()
    ordered = sums.sort_values(ascending=False)
    bars = [
        Measure(_label(key), _decimal(value) / divisor, unit=unit)
        for key, value in ordered.head(MOST_BARS).items()
    ]
    rest = ordered.iloc[MOST_BARS:]
    if len(rest):
        amount = None if unit == "ratio" else _decimal(rest.sum()) / divisor
        bars.append(Measure(f"{len(rest)} others", amount, unit=unit, without="see the table"))
    return tuple(bars)


def _starts(frame: pandas.DataFrame) -> Plot:
    """Return how many jobs started in each hour, or day where there are many."""
    import pandas

    started = frame["started"].dropna()
    is_long = started.max() - started.min() > pandas.Timedelta(hours=MOST_COLUMNS)
    step, form = ("D", "%m-%d") if is_long else ("h", "%H:00")
    counts = started.dt.floor(step).value_counts()
    first, last = counts.index.min(), counts.index.max()
    times = pandas.date_range(first, last, freq=step)[-MOST_COLUMNS:]
    bars = [
        Measure(f"{time:{form}}", Decimal(int(counts.get(time, 0))), unit="jobs") for time in times
    ]
    name = "day" if is_long else "hour"
    return Plot(f"Jobs that started, by {name} (UTC)", tuple(bars), is_time=True)


def render_terminal(plot: Plot, width: int = 80, *, ascii_only: bool = False) -> str:
    """Return the plot as lines of text no longer than `width`."""
    if not plot.bars:
        return f"{plot.title}: nothing to draw"
    label = min(max(len(bar.label) for bar in plot.bars), width // 3)
    room = max(width - label - max(len(bar.text) for bar in plot.bars) - 2, 4)
    most = max((bar.value for bar in plot.bars if bar.value is not None), default=Decimal(0))
    lines = [plot.title]
    for bar in plot.bars:
        share = (bar.value / most) if bar.value is not None and most else Decimal(0)
        name = bar.label if len(bar.label) <= label else f"{bar.label[: label - 1]}…"
        lines.append(
            f"{name:<{label}} {_blocks(share, room, ascii_only):<{room}} {bar.text}".rstrip()
        )
    return "\n".join(lines)


def render_page(plot: Plot, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return an HTML page of the plot and the table, which needs no network, script or other file."""
    style = _PAGE + _DRAWING.format(**_LIGHT)
    style += f"@media (prefers-color-scheme: dark) {{ {_DRAWING.format(**_DARK)} }}\n"
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = "\n".join(
        f"<tr>{''.join(f'<td>{escape(_cell(cell))}</td>' for cell in row)}</tr>" for row in rows
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        f"style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'\">\n"
        f"<title>{escape(plot.title)}</title>\n<style>{style}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(plot.title)}</h1>\n{_drawing(plot)}\n"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>'
        "</div>\n</main>\n</body>\n</html>\n"
    )


def render_png(plot: Plot) -> bytes:
    """Return the plot as a PNG picture; raises InputError where what draws it is not installed."""
    try:
        resvg = importlib.import_module("resvg_py")
    except ImportError as error:
        raise InputError(
            "PNG pictures need resvg-py; it is in the extra `pandas`: "
            "pip install 'clusterbox[pandas]', or choose a FILE.html"
        ) from error
    picture: Any = resvg.svg_to_bytes(
        svg_string=render_svg(plot), width=_PNG_WIDTH, background=_LIGHT["paper"]
    )
    return bytes(picture)


def render_svg(plot: Plot) -> str:
    """Return the plot as a whole SVG file, with its title in it."""
    drawing = _drawing(plot)
    found = re.search(r'viewBox="0 0 (\d+) (\d+)"', drawing)
    assert found is not None  # noqa: S101 - charts.py writes it
    width, height = int(found[1]), int(found[2])
    inner = drawing.replace("<svg ", f'<svg x="0" y="40" width="{width}" height="{height}" ', 1)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-10 0 {width + 20} {height + 50}" '
        f'width="{width + 20}" height="{height + 50}">'
        f"<style>{_DRAWING.format(**_LIGHT)}</style>"
        f'<text x="0" y="20" font-weight="bold">{escape(plot.title)}</text>{inner}</svg>'
    )


def _drawing(plot: Plot) -> str:
    if not plot.bars:
        return (
            '<svg role="img" viewBox="0 0 760 30"><text x="0" y="15">nothing to draw</text></svg>'
        )
    draw = render_columns if plot.is_time else render_rows
    return draw("plot", plot.title, plot.bars)


def _blocks(share: Decimal, room: int, ascii_only: bool) -> str:
    if ascii_only:
        return "#" * max(round(share * room), 1 if share else 0)
    eighths = max(round(share * room * 8), 1 if share else 0)
    whole, part = divmod(int(eighths), 8)
    return "█" * whole + (_BLOCKS[part] if part else "")


def _label(key: object) -> str:
    parts = key if isinstance(key, tuple) else (key,)
    known = [part for part in parts if isinstance(part, str) and part]
    return " · ".join(known) or "(none)"


def _decimal(value: Any) -> Decimal:
    return Decimal(str(round(float(value), 9)))


def _cell(cell: object) -> str:
    return "" if cell is None else str(cell)
