"""`clusterbox observe show` and `query`: tables, and plots for a terminal, a page and a picture."""

from __future__ import annotations

import csv
import io
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from clusterbox.cli.main import main
from clusterbox.cli.observe_show import FRAMES
from clusterbox.observe import frames, plots
from clusterbox.observe.frame_columns import COLUMNS
from clusterbox.observe.plots import Measure, Plot, render_page, render_svg, render_terminal
from tests.observe.watched import CLUSTER, Watched, needs_prometheus

pandas = pytest.importorskip("pandas")

PLOT = Plot("CPU hours", (Measure("ann", Decimal("12.5")), Measure("<bob>", Decimal(3))))


def _frame(name: str, *rows: dict[str, object]) -> Any:
    case = frames._Case(None, None, None, 0, 1, name)
    return frames._frame(case, rows)


def test_a_terminal_gets_bars_within_its_width() -> None:
    lines = render_terminal(PLOT, 40).splitlines()
    assert lines[0] == "CPU hours"
    assert max(map(len, lines)) <= 40
    assert lines[1].startswith("ann   ███")
    assert lines[1].endswith(" 12.50")
    full, part = (line.count("█") for line in lines[1:])
    assert abs(part - full * 3 / 12.5) <= 1


def test_a_terminal_without_blocks_gets_plain_characters() -> None:
    text = render_terminal(PLOT, 40, ascii_only=True)
    assert text.isascii()
    assert "###" in text


def test_nothing_is_said_to_be_nothing() -> None:
    assert render_terminal(Plot("Jobs", ())) == "Jobs: nothing to draw"


def test_names_cannot_write_into_the_page() -> None:
    page = render_page(PLOT, ["user"], [["<script>x</script>"], [None]])
    assert "<script" not in page
    assert "&lt;bob&gt;" in page
    assert "default-src 'none'" in page
    assert not re.search(r"https?://(?!www\.w3\.org)", page)


def test_a_picture_has_a_title_and_a_bar_for_each() -> None:
    svg = render_svg(PLOT)
    assert svg.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert svg.count('class="bar"') == 2
    assert "CPU hours" in svg
    assert "var(" not in svg


def test_a_png_is_one() -> None:
    pytest.importorskip("resvg_py")
    picture = plots.render_png(PLOT)
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(picture) > 1_000


def test_users_beyond_the_most_are_one_bar() -> None:
    rows = [{"user": f"u{n}", "cpu_seconds": 3600.0 * (n + 1)} for n in range(25)]
    plot = plots.make_plot("users", _frame("users", *rows))
    assert [bar.label for bar in plot.bars][:2] == ["u24", "u23"]
    assert (plot.bars[-1].label, plot.bars[-1].value) == ("5 others", Decimal(15))


def test_shares_are_not_added() -> None:
    rows = [{"user": "ann", "queue": "eco", "cpu_efficiency": share} for share in (0.2, 0.4)]
    (bar,) = plots.make_plot("efficiency", _frame("efficiency", *rows)).bars
    assert (bar.label, bar.text) == ("ann · eco", "30.0 %")


def test_starts_are_counted_by_hour_with_the_empty_ones() -> None:
    rows = [{"state": "COMPLETED", "started": 3600 * hour} for hour in (1, 1, 4)]
    plot = plots.make_plot("jobs", _frame("jobs", *rows))
    assert [(bar.label, bar.text) for bar in plot.bars] == [
        *(("01:00", "2"), ("02:00", "0"), ("03:00", "0"), ("04:00", "1")),
    ]
    days = [{"state": "COMPLETED", "started": 86_400 * day} for day in (0, 5)]
    assert [b.label for b in plots.make_plot("jobs", _frame("jobs", *days)).bars][-1] == "01-06"


def test_what_is_not_known_is_not_drawn() -> None:
    assert plots.make_plot("costs", _frame("costs", {"queue": "eco"})).bars == ()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--plot", "x.gif"], "FILE.png"),
        (["--plot", "none/x.html"], "its folder is missing"),
        (["--plot", "there.html"], "exists; --force"),
        (["--prometheus", "none", "--slurm-conf", "none"], "no source is left"),
        (["--prometheus", "none", "--slurm-conf", "no.conf"], "there is no such file"),
        (["--prometheus", "localhost:9090", "--slurm-conf", "none"], "is at a URL"),
        (["--prometheus", "http://127.0.0.1:9", "--slurm-conf", "none", "--since", "1y"], "a span"),
    ],
)
def test_bad_input_is_said_so(
    words: list[str],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.html").write_text("mine")
    assert main(["observe", "show", "users", *words]) == 2
    assert reason in capsys.readouterr().err
    assert (tmp_path / "there.html").read_text() == "mine"


def test_a_prometheus_that_does_not_answer_fails(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--prometheus", "http://127.0.0.1:9", "--slurm-conf", "none"]
    assert main(["observe", "show", "users", *words]) == 1
    assert "does not answer" in capsys.readouterr().err


class TestReal:
    pytestmark = needs_prometheus

    def _show(self, watched: Watched, *words: str) -> int:
        sources = ["--prometheus", watched.prometheus.url, "--cluster", CLUSTER]
        return main(["observe", "show", *words, *sources, "--slurm-conf", str(watched.conf)])

    @pytest.mark.parametrize("what", FRAMES)
    def test_every_frame_is_a_table_and_a_plot(
        self, what: str, watched: Watched, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self._show(watched, what, "--since", "10m", "--plot", "terminal") == 0
        table, _, plot = capsys.readouterr().out.partition("\n\n")
        assert CLUSTER in table
        assert "█" in plot or "#" in plot

    def test_csv_and_json_have_all_columns(
        self, watched: Watched, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self._show(watched, "jobs", "--format", "csv") == 0
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        assert list(rows[0]) == [column.name for column in COLUMNS["jobs"]]
        assert self._show(watched, "jobs", "--format", "json") == 0
        records = json.loads(capsys.readouterr().out)
        assert len(records) == len(rows)
        running = next(row for row in records if row["job"] == watched.jobs["running"])
        assert (running["cpus"], running["ended"], running["state"]) == (2, None, "RUNNING")

    def test_a_page_is_written_and_not_over_another(
        self, watched: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "cost.html"
        assert self._show(watched, "cost", "--plot", str(path)) == 0
        assert "<svg" in path.read_text(encoding="utf-8")
        assert self._show(watched, "cost", "--plot", str(path)) == 2
        assert self._show(watched, "cost", "--plot", str(path), "--force") == 0
        assert list(tmp_path.iterdir()) == [path]

    def test_slurm_alone_says_what_is_missing(
        self, watched: Watched, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["--prometheus", "none", "--slurm-conf", str(watched.conf)]
        assert main(["observe", "show", "cost", *words]) == 0
        done = capsys.readouterr()
        assert "without Prometheus these are NA: component" in done.err
        assert "usd" not in done.out

    def test_an_expression_is_a_table(
        self, watched: Watched, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["--prometheus", watched.prometheus.url, "--format", "csv"]
        assert main(["observe", "query", "max by (cluster) (slurm_up)", *words]) == 0
        header, row = capsys.readouterr().out.splitlines()
        assert header == "time,cluster,value"
        assert row.endswith(f"Z,{CLUSTER},1.0")
