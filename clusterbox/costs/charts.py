"""Bar charts as inline SVG: no script, no network, readable aloud and in the dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from html import escape

# Sizes in CSS pixels of the drawing; the page scales it to its width.
WIDTH = 760
BAR_HEIGHT = 22
ROW_HEIGHT = 32
LABEL_WIDTH = 200
VALUE_WIDTH = 150
COLUMNS_HEIGHT = 220
AXIS_HEIGHT = 28
# Longer names are cut in the drawing; the table beside it has them whole.
LABEL_CHARACTERS = 26
# More columns than this leave no room for a date under each.
MOST_LABELS = 10


@dataclass(frozen=True)
class Bar:
    """One bar: its name and amount. A partial one is drawn dashed; `without` is told for None."""

    label: str
    value: Decimal | None
    is_partial: bool = False
    without: str = "not priced"

    @property
    def text(self) -> str:
        """The amount in words."""
        amount = self.without if self.value is None else f"{self.value:,.2f}"
        return f"{amount} (partial)" if self.is_partial else amount


def render_rows(identity: str, title: str, bars: Sequence[Bar]) -> str:
    """Return a chart with a horizontal bar for each name; `identity` is unique on the page."""
    most = _most(bars)
    room = WIDTH - LABEL_WIDTH - VALUE_WIDTH
    shapes = []
    for index, bar in enumerate(bars):
        top = index * ROW_HEIGHT + (ROW_HEIGHT - BAR_HEIGHT) // 2
        middle = top + BAR_HEIGHT // 2
        width = _share(bar, most, room)
        shapes.append(
            f'<text class="label" x="{LABEL_WIDTH - 8}" y="{middle}" text-anchor="end">'
            f"{escape(_cut(bar.label))}</text>"
            f"{_rectangle(bar, LABEL_WIDTH, top, width, BAR_HEIGHT)}"
            f'<text class="value" x="{LABEL_WIDTH + width + 8}" y="{middle}">'
            f"{escape(bar.text)}</text>"
        )
    return _frame(identity, title, bars, len(bars) * ROW_HEIGHT, shapes)


def render_columns(identity: str, title: str, bars: Sequence[Bar]) -> str:
    """Return a chart with a column for each name, in their order; not all names are written."""
    most = _most(bars)
    step = Decimal(WIDTH - VALUE_WIDTH) / max(len(bars), 1)
    width = min(step * Decimal("0.8"), Decimal(60))
    every = -(-len(bars) // MOST_LABELS)
    shapes = [
        f'<text class="value" x="0" y="12">{escape(f"{most:,.2f}")}</text>'
        f'<path class="axis" d="M0 {COLUMNS_HEIGHT + 20}H{WIDTH}"/>'
    ]
    for index, bar in enumerate(bars):
        left = VALUE_WIDTH + step * index + (step - width) / 2
        height = _share(bar, most, COLUMNS_HEIGHT)
        shapes.append(_rectangle(bar, left, COLUMNS_HEIGHT + 20 - height, width, height))
        if index % every == 0:
            shapes.append(
                f'<text class="label" x="{left + width / 2:.1f}" y="{COLUMNS_HEIGHT + 36}" '
                f'text-anchor="middle">{escape(bar.label)}</text>'
            )
    return _frame(identity, title, bars, COLUMNS_HEIGHT + 20 + AXIS_HEIGHT, shapes)


def _rectangle(
    bar: Bar, x: Decimal | int, y: Decimal | int, width: Decimal | int, height: Decimal | int
) -> str:
    if bar.value is None:
        return ""
    style = "bar partial" if bar.is_partial else "bar"
    return (
        f'<rect class="{style}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}">'
        f"<title>{escape(bar.label)}: {escape(bar.text)}</title></rect>"
    )


def _frame(identity: str, title: str, bars: Sequence[Bar], height: int, shapes: list[str]) -> str:
    spoken = "; ".join(f"{bar.label}: {bar.text}" for bar in bars)
    return (
        f'<svg role="img" viewBox="0 0 {WIDTH} {height}" '
        f'aria-labelledby="{identity}-title {identity}-text">\n'
        f'<title id="{identity}-title">{escape(title)}</title>\n'
        f'<desc id="{identity}-text">{escape(spoken)}</desc>\n' + "\n".join(shapes) + "\n</svg>"
    )


def _most(bars: Sequence[Bar]) -> Decimal:
    return max((bar.value for bar in bars if bar.value is not None), default=Decimal(0))


def _share(bar: Bar, most: Decimal, room: int) -> Decimal:
    """Return the length of a bar; a known amount is never so small that it cannot be seen."""
    if bar.value is None or not most:
        return Decimal(0)
    return max((bar.value / most * room).quantize(Decimal("0.1")), Decimal(1))


def _cut(text: str) -> str:
    return text if len(text) <= LABEL_CHARACTERS else f"{text[: LABEL_CHARACTERS - 1]}…"
