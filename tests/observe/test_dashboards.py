"""Dashboards: the files are current, they are what Grafana reads, and their queries answer."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from clusterbox.cli.main import main
from clusterbox.errors import ClusterboxError
from clusterbox.observe.dashboards import DASHBOARDS, render
from clusterbox.observe.dashboards.model import Dashboard, Panel, fill, variables_in
from clusterbox.observe.dashboards.page import render_page, show
from clusterbox.observe.metrics import METRICS
from clusterbox.observe.prometheus import Prometheus
from tests.conftest import ROOT
from tests.observe.watched import CLUSTER, NODE, Watched, needs_prometheus

BY_UID = {dashboard.uid: dashboard for dashboard in DASHBOARDS}
# The node exporter's, Prometheus' own and DCGM's.
_FOREIGN = re.compile(r"node_\w+|up|DCGM_FI_\w+")
_METRIC = re.compile(r"\b((?:slurm|clusterbox|node|DCGM_FI)_\w+|up)\b(?=\{|\[|\)| |$)")
every_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda each: each.uid)


def _metrics(expr: str) -> set[str]:
    # What is in quotes, and labels in `by (…)`, are no metrics.
    bare = re.sub(r'"[^"]*"', '""', expr)
    bare = re.sub(r"\b(by|on|without|group_left) \([^)]*\)", "", bare)
    return set(_METRIC.findall(bare))


def test_the_files_are_what_the_modules_make() -> None:
    assert render.stale(ROOT, DASHBOARDS) == []


def test_every_subject_has_its_dashboard() -> None:
    assert [each.uid.removeprefix("clusterbox-") for each in DASHBOARDS] == [
        *("site", "cluster", "queue", "users", "cost", "node", "containers", "patch-day"),
    ]


def test_a_file_that_differs_is_missing_or_is_of_no_dashboard_is_found(tmp_path: Path) -> None:
    assert len(render.write(tmp_path, DASHBOARDS)) == len(DASHBOARDS)
    assert render.write(tmp_path, DASHBOARDS) == []
    folder = tmp_path / render.FOLDER
    (folder / "site.json").write_text("{}")
    (folder / "cost.json").unlink()
    (folder / "old.json").write_text("{}")
    with pytest.raises(ClusterboxError, match=r"cost\.json.*old\.json.*site\.json"):
        render.check(tmp_path, DASHBOARDS)
    assert len(render.write(tmp_path, DASHBOARDS)) == 3
    assert not (folder / "old.json").exists()
    render.check(tmp_path, DASHBOARDS)


def test_the_command_checks_the_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(ROOT), "observe", "dashboards", "--check"]) == 0
    assert capsys.readouterr().out == "8 dashboards are current\n"


@every_dashboard
def test_every_metric_is_exported_by_somebody(dashboard: Dashboard) -> None:
    histograms = {f"{name}_bucket" for name, each in METRICS.items() if each.kind == "histogram"}
    for panel in dashboard.panels:
        for query in panel.queries:
            found = _metrics(query.expr)
            assert found, query.expr
            unknown = {name for name in found if not _FOREIGN.fullmatch(name)}
            assert unknown - set(METRICS) - histograms == set(), panel.title


@every_dashboard
def test_every_panel_says_how_it_is_read(dashboard: Dashboard) -> None:
    for panel in dashboard.panels:
        assert panel.description.endswith("."), panel.title
        values = [value for value, _ in panel.thresholds]
        assert values[0] is None, panel.title
        known = [value for value in values if value is not None]
        assert known == sorted(set(known)), panel.title
        assert len(known) == len(values) - 1, panel.title
        assert all(query.legend for query in panel.queries), panel.title


@every_dashboard
def test_panels_use_only_variables_of_their_dashboard(dashboard: Dashboard) -> None:
    known = {variable.name for variable in dashboard.variables}
    for panel in dashboard.panels:
        for query in panel.queries:
            assert variables_in(query.expr) <= known, panel.title


@every_dashboard
def test_links_lead_to_dashboards_that_know_what_they_are_given(dashboard: Dashboard) -> None:
    for panel in dashboard.panels:
        for link in panel.links:
            known = {variable.name for variable in BY_UID[link.to].variables}
            assert {name for name, _ in link.given} <= known, panel.title
            for _, label in link.given:
                assert any(re.search(rf"\b{label}\b", query.expr) for query in panel.queries), (
                    f"{panel.title}: no series has the label {label}"
                )


def test_every_dashboard_is_linked_to_by_another_or_the_menu() -> None:
    for dashboard in DASHBOARDS:
        found = render.render(dashboard)
        assert found["tags"] == ["clusterbox"]
        assert found["links"][0]["type"] == "dashboards"
        assert found["links"][0]["tags"] == ["clusterbox"]


@every_dashboard
def test_panels_do_not_lie_on_one_another(dashboard: Dashboard) -> None:
    places: set[tuple[int, int]] = set()
    for panel in render.render(dashboard)["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (place["x"] + right, place["y"] + down)
            for right in range(place["w"])
            for down in range(place["h"])
        }
        assert not cells & places, panel["title"]
        places |= cells


def test_variables_are_filled_in() -> None:
    expr = 'rate(a{cluster=~"$cluster", node=~"${node:regex}"}[$__rate_interval])'
    assert fill(expr, {"cluster": "eco"}, 3600, 60) == 'rate(a{cluster=~"eco", node=~".*"}[60s])'
    with pytest.raises(ValueError, match="__wrong"):
        fill("$__wrong", {}, 1, 1)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.125, "percentunit", "12.5 %"),
        (5400, "s", "1.5 h"),
        (2500, "µs", "2.5 ms"),
        (3 * 2**30, "bytes", "3 GiB"),
        (1024, "Bps", "1 KiB/s"),
        (1234.5, "currencyUSD", "$1,234.50"),
        (12000, "short", "12,000"),
        (float("nan"), "s", "?"),
    ],
)
def test_values_are_shown_with_their_units(value: float, unit: str, text: str) -> None:
    assert show(value, unit) == text


# Against Grafana's own types.

TSC = ROOT / "node_modules" / ".bin" / "tsc"
_SCHEMA = ROOT / "node_modules" / "@grafana" / "schema" / "dist" / "types"


def _compile(folder: Path, dashboards: dict[str, Any]) -> str:
    """Return what the TypeScript compiler complains of."""
    text = (Path(__file__).parent / "dashboard_types.ts").read_text(encoding="utf-8")
    for name, found in dashboards.items():
        text += f"export const {name}: AnyDashboard = {json.dumps(found)};\n"
    (folder / "check.ts").write_text(text, encoding="utf-8")
    options = {
        "strict": True,
        "noEmit": True,
        "skipLibCheck": True,
        "types": [],
        "target": "es2022",
        "module": "esnext",
        "moduleResolution": "bundler",
        "paths": {
            "@grafana/schema": [f"{_SCHEMA}/index.d.ts"],
            "@grafana/schema/dist/types/*": [f"{_SCHEMA}/*"],
        },
    }
    settings = {"compilerOptions": options, "files": ["check.ts"]}
    (folder / "tsconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    done = subprocess.run(
        [str(TSC), "-p", str(folder)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode in (0, 1, 2), done.stderr
    return done.stdout


@pytest.mark.integration
def test_the_files_have_the_types_of_grafanas_schema(tmp_path: Path) -> None:
    files = {
        path.stem.replace("-", "_"): json.loads(path.read_text(encoding="utf-8"))
        for path in (ROOT / render.FOLDER).glob("*.json")
    }
    assert len(files) == len(DASHBOARDS)
    assert _compile(tmp_path, files) == ""


@pytest.mark.integration
@pytest.mark.parametrize(
    ("keys", "wrong"),
    [
        (("schemaVersion",), "39"),
        (("panels", 1, "options", "colorMode"), "rainbow"),
        (("panels", 1, "gridPos", "w"), None),
        (("panels", 1, "type"), "stats"),
        (("panels", 1, "fieldConfig", "defaults", "units"), "s"),
        (("templating", "list", 1, "hide"), "no"),
        (("links", 0, "type"), "dashboard"),
    ],
)
def test_the_types_find_what_is_wrong(
    keys: tuple[str | int, ...], wrong: object, tmp_path: Path
) -> None:
    found: Any = render.render(DASHBOARDS[0])
    place = found
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = wrong
    assert "error TS" in _compile(tmp_path, {"wrong": found})


# On a real Prometheus.


class TestQueries:
    pytestmark = needs_prometheus

    @pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda each: each.uid)
    def test_every_query_returns_rows(self, dashboard: Dashboard, watched: Watched) -> None:
        empty = []
        for panel in dashboard.panels:
            for query in panel.queries:
                expr = fill(query.expr, {"cluster": CLUSTER}, 60, 10)
                if not watched.prometheus.query(expr):
                    empty.append(f"{panel.title}: {expr}")
        assert empty == []

    def test_a_cluster_that_is_not_there_has_no_rows(self, watched: Watched) -> None:
        for dashboard in DASHBOARDS:
            for panel in dashboard.panels:
                for query in panel.queries:
                    if "$cluster" in query.expr and "sum(up" not in query.expr:
                        expr = fill(query.expr, {"cluster": "none"}, 60, 10)
                        assert watched.prometheus.query(expr) == [], panel.title

    def test_every_variable_has_values(self, watched: Watched) -> None:
        for variable in {each for one in DASHBOARDS for each in one.variables}:
            found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable.query)
            assert found is not None, variable.name
            expr = fill(found[1], {"cluster": CLUSTER}, 60, 10)
            values = {each.labels.get(found[2]) for each in watched.prometheus.query(expr)}
            assert values - {None}, variable.name

    def test_series_have_the_labels_of_legends_and_links(self, watched: Watched) -> None:
        lacking = []
        for dashboard in DASHBOARDS:
            for panel in dashboard.panels:
                for query in panel.queries:
                    expr = fill(query.expr, {"cluster": CLUSTER}, 60, 10)
                    wanted = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
                    wanted |= _given(panel)
                    for series in watched.prometheus.query(expr):
                        # Prometheus has no empty labels: a head node has no queue.
                        if missing := wanted - set(series.labels) - {"queue", "exported_job"}:
                            lacking.append(f"{dashboard.uid} {panel.title}: {missing}")
        assert lacking == []

    def test_pages_show_what_the_panels_ask_for(self, watched: Watched, tmp_path: Path) -> None:
        words = ["observe", "dashboards", "--pages", str(tmp_path / "pages"), "--since", "1m"]
        words += ["--prometheus", watched.prometheus.url, "--cluster", CLUSTER]
        assert main(["--root", str(ROOT), *words]) == 0
        assert len(list((tmp_path / "pages").iterdir())) == len(DASHBOARDS)
        cluster = (tmp_path / "pages" / "cluster.html").read_text(encoding="utf-8")
        assert 'class="none"' not in cluster
        assert "InsufficientInstanceCapacity" in cluster
        node = (tmp_path / "pages" / "node.html").read_text(encoding="utf-8")
        assert NODE in node

    @pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
    def test_a_browser_draws_a_page(self, watched: Watched, tmp_path: Path) -> None:
        end = time.time()
        page = render_page(
            BY_UID["clusterbox-cluster"], watched.prometheus, end - 60, end, {"cluster": CLUSTER}
        )
        picture = draw(page, tmp_path)
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size > 20_000


def _given(panel: Panel) -> set[str]:
    return {label for link in panel.links for _, label in link.given if panel.kind != "stat"}


def draw(page: str, folder: Path, width: int = 1100, height: int = 1000) -> Path:
    """Return a picture that Chromium takes of a page."""
    (folder / "page.html").write_text(page, encoding="utf-8")
    subprocess.run(
        [
            "chromium",
            *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND"),
            f"--user-data-dir={folder / 'profile'}",
            f"--window-size={width},{height}",
            f"--screenshot={folder / 'page.png'}",
            (folder / "page.html").as_uri(),
        ],
        capture_output=True,
        timeout=120,
        check=True,
    )
    return folder / "page.png"


def test_a_prometheus_that_is_not_there_is_said_so() -> None:
    from clusterbox.observe.prometheus import PrometheusError

    with pytest.raises(PrometheusError, match="does not answer"):
        Prometheus("http://127.0.0.1:9", 2).query("up")
