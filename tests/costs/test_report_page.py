from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import struct
import subprocess
import zlib
from collections import Counter
from datetime import timedelta
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from clusterbox.aws import Gap
from clusterbox.costs.charts import Bar, render_columns, render_rows
from clusterbox.costs.item import Item
from clusterbox.costs.report import Report
from clusterbox.costs.report_history import Day
from clusterbox.costs.report_orphans import Orphan
from clusterbox.costs.report_page import render_page
from clusterbox.costs.report_prices import Cost
from clusterbox.costs.report_selection import Selection
from tests.costs.fake_account import ACCOUNT, NOW, REGION

# A name that would run something if it were not written as text.
EVIL = '<script>document.title="run"</script><img src=http://192.0.2.1/x onerror=alert(1)>'


def item(name: str, usd: str | None, **more: Any) -> Item:
    amount = None if usd is None else Decimal(usd)
    unknown = None if usd is not None else "no price"
    cost = Cost(amount, amount, unknown)
    return Item(ACCOUNT, REGION, "instance", f"i-{name}", name=name, cost=cost, **more)


def made_report(*, partial: bool = False) -> Report:
    items = [
        item("a", "300", owner="butzer", cluster="ws-eco", state="running", type="m5.large"),
        item("b", "100", owner="mhasan", cluster="ws-eco", state="stopped"),
        item(EVIL, "50", owner=EVIL, state="running"),
        item("c", None, owner="ashish", state="running"),
    ]
    orphan = Orphan(ACCOUNT, REGION, "volume", "vol-1", "", "attached to nothing", Decimal(40))
    gap = Gap(ACCOUNT, REGION, "ec2:DescribeVolumes", "denied", "no", "ec2:DescribeVolumes")
    gaps = (gap,) if partial else ()
    prices = ("us-west-2 of 2025-03-02",)
    places = ((ACCOUNT, REGION),)
    return Report(NOW, Selection(), places, prices, tuple(items), (orphan,), gaps)


DAYS = [
    Day((NOW - timedelta(days=back)).date(), Decimal(400 - 10 * back), back == 3)
    for back in (1, 2, 3, 5)
]
PAGE = render_page(made_report(), DAYS)


class Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_needs_nothing_and_runs_nothing() -> None:
    elements = Elements(PAGE).found
    assert {tag for tag, _ in elements}.isdisjoint({"script", "link", "img", "iframe", "object"})
    assert not [
        name
        for _, attributes in elements
        for name in attributes
        if name in ("src", "href", "style")
    ]
    assert not [name for _, given in elements for name in given if name.startswith("on")]


def test_the_policy_allows_the_style_by_its_hash_and_nothing_else() -> None:
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', PAGE)
    (style,) = re.findall(r"<style>(.*?)</style>", PAGE, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.split("; ")[:2] == ["default-src 'none'", f"style-src 'sha256-{digest}'"]
    assert "unsafe" not in policy


def test_names_are_text() -> None:
    assert "<script" not in PAGE
    assert html.escape(EVIL) in PAGE


def test_every_chart_can_be_read_aloud_and_as_a_table() -> None:
    for identity in ("by-day", "by-cluster", "by-owner", "by-kind"):
        figure = PAGE.partition(f'<figure id="{identity}">')[2].partition("</figure>")[0]
        assert 'role="img"' in figure
        assert f'aria-labelledby="{identity}-title {identity}-text"' in figure
        assert f'<desc id="{identity}-text">' in figure
        assert "<table>" in figure


def test_ids_are_unique() -> None:
    ids = Counter(given["id"] for _, given in Elements(PAGE).found if "id" in given)
    assert [name for name, count in ids.items() if count > 1] == []


def test_a_day_without_a_report_is_a_hole_and_a_partial_one_is_dashed() -> None:
    chart = PAGE.partition('<figure id="by-day">')[2].partition("</figure>")[0]
    assert "2026-11-18: no report" in chart
    assert chart.count("<rect") == 5
    assert chart.count('class="bar partial"') == 1
    assert "Dashed" in chart


def test_the_report_of_today_replaces_what_was_kept_of_today() -> None:
    page = render_page(made_report(), [Day(NOW.date(), Decimal(1), False)])
    assert "2026-11-22: 450.00" in page
    assert "2026-11-22: 1.00" not in page


def test_a_partial_report_says_so_first() -> None:
    body = render_page(made_report(partial=True)).partition("</h1>")[2].lstrip()
    assert body.startswith('<p class="partial-note">PARTIAL')
    assert "PARTIAL" not in PAGE


def test_an_amount_that_is_not_known_has_no_bar() -> None:
    chart = render_rows("x", "title", [Bar("a", Decimal(2)), Bar("b", None), Bar("c", Decimal(0))])
    assert chart.count("<rect") == 2
    assert "b: not priced" in chart
    assert "<rect" not in render_columns("x", "title", [])


def test_bars_have_the_lengths_of_their_amounts() -> None:
    chart = render_rows("x", "title", [Bar("a", Decimal(400)), Bar("b", Decimal(100))])
    first, second = (Decimal(text) for text in re.findall(r'rect [^>]*width="([\d.]+)"', chart))
    assert abs(first - 4 * second) < Decimal("0.5")


# In a browser.

BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--window-size=1100,1600",
    "--enable-logging=stderr",
)
# Added to a copy without the policy, to tell where the browser has put things.
MEASURE = """<script>
const places = [...document.querySelectorAll("svg, rect, svg text, h1, h2, table")].map(e => {
  const box = e.getBoundingClientRect();
  return [e.tagName.toLowerCase(), box.left, box.top, box.right, box.bottom, e.textContent];
});
const pre = document.createElement("pre");
pre.id = "places";
pre.textContent = JSON.stringify({places, width: document.documentElement.clientWidth,
  wide: document.documentElement.scrollWidth, title: document.title});
document.body.append(pre);
</script>"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    (folder / "report.html").write_text(PAGE, encoding="utf-8")
    bare = re.sub(r"<meta http-equiv[^>]*>", "", PAGE).replace("</body>", f"{MEASURE}</body>")
    (folder / "measured.html").write_text(bare, encoding="utf-8")
    return folder


def browse(pages: Path, page: str, *flags: str) -> subprocess.CompletedProcess[str]:
    if BROWSER is None:
        pytest.skip("chromium is not installed")
    profile = pages / f"profile-{len(list(pages.glob('profile-*')))}"
    return subprocess.run(
        [BROWSER, *FLAGS, f"--user-data-dir={profile}", *flags, (pages / page).as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


@pytest.mark.integration
def test_a_browser_lays_everything_out_inside_the_page(pages: Path) -> None:
    dom = browse(pages, "measured.html", "--dump-dom").stdout
    (found,) = re.findall(r'<pre id="places">(.*?)</pre>', dom, flags=re.DOTALL)
    measured = json.loads(html.unescape(found))
    assert measured["title"] == "Costs of 2026-11-22"
    assert measured["wide"] <= measured["width"]
    places = measured["places"]
    assert Counter(place[0] for place in places)["svg"] == 4
    frames = [place[1:5] for place in places if place[0] == "svg"]
    for tag, left, top, right, bottom, text in places:
        assert right > left, text
        assert bottom > top, text
        if tag in ("rect", "text"):
            assert any(
                left >= frame[0] - 1
                and top >= frame[1] - 1
                and right <= frame[2] + 1
                and bottom <= frame[3] + 1
                for frame in frames
            ), f"{tag} {text!r} sticks out of its chart"


def read_pixels(path: Path) -> Counter[tuple[int, int, int]]:
    """Return how many pixels of a PNG file with 8 bits a channel have each colour."""
    data = path.read_bytes()
    width, height, depth, kind = struct.unpack(">IIBB", data[16:26])
    assert depth == 8
    channels = {2: 3, 6: 4}[kind]
    packed, at = b"", 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if data[at + 4 : at + 8] == b"IDAT":
            packed += data[at + 8 : at + 8 + length]
        at += 12 + length
    raw, stride = zlib.decompress(packed), width * channels
    above = bytearray(stride)
    colours: Counter[tuple[int, int, int]] = Counter()
    for row in range(height):
        start = row * (stride + 1)
        line = _unfilter(
            raw[start], bytearray(raw[start + 1 : start + 1 + stride]), above, channels
        )
        colours.update(zip(line[0::channels], line[1::channels], line[2::channels], strict=True))
        above = line
    return colours


def _unfilter(kind: int, line: bytearray, above: bytearray, channels: int) -> bytearray:
    for index in range(len(line)):
        left = line[index - channels] if index >= channels else 0
        corner = above[index - channels] if index >= channels else 0
        up = above[index]
        if kind == 1:
            more = left
        elif kind == 2:
            more = up
        elif kind == 3:
            more = (left + up) // 2
        elif kind == 4:
            guess = left + up - corner
            more = min((left, up, corner), key=lambda value: abs(guess - value))
        else:
            return line
        line[index] = (line[index] + more) % 256
    return line


@pytest.mark.integration
@pytest.mark.parametrize(
    ("flag", "paper", "bar"),
    [
        ("--blink-settings=preferredColorScheme=1", (255, 255, 255), (0x1F, 0x6F, 0xEB)),
        ("--blink-settings=preferredColorScheme=0", (0x0D, 0x11, 0x17), (0x58, 0xA6, 0xFF)),
    ],
    ids=["light", "dark"],
)
def test_a_browser_shows_the_charts_in_light_and_dark_without_a_complaint(
    flag: str, paper: tuple[int, int, int], bar: tuple[int, int, int], pages: Path
) -> None:
    picture = pages / f"{bar[0]}.png"
    shown = browse(pages, "report.html", flag, f"--screenshot={picture}")
    assert "Content Security Policy" not in shown.stderr
    assert "CONSOLE" not in shown.stderr
    colours = read_pixels(picture)
    total = sum(colours.values())
    assert colours.most_common(1)[0][0] == paper
    # The bars are a visible part of the picture, in the colour of the style.
    assert colours[bar] > total / 50
