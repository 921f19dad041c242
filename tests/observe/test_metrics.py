"""The list of metrics, what is exported of it, and its page."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from clusterbox.observe.metrics import EXPORTER, GO_EXPORTER, METRICS, SLURM
from clusterbox.observe.slurm_collector import SlurmCollector
from tests.observe.stand_ins import StandIns

PAGE = Path(__file__).parents[2] / "docs" / "observability-metrics.md"
# Those that need what no fixture has: power that Slurm measures, GPUs, sdiag after a minute.
_UNSEEN = {"slurm_node_power_watts", "slurm_gpus_utilization"}


@pytest.fixture
def text(tmp_path: Path) -> str:
    collector = SlurmCollector(StandIns(tmp_path).door)
    collector._ended._begun = 0
    collector.poll()
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()


def test_every_metric_of_slurm_is_exported_as_it_is_listed(text: str) -> None:
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = re.sub(r"_(bucket|sum|count)$", "", sample.name)
            labels = {label for label in sample.labels if label != "le"}
            found[name] = (family.type, labels, family.documentation)
    listed = {
        metric.name: (metric.kind, set(metric.labels), metric.help)
        for metric in (*GO_EXPORTER, *SLURM, *EXPORTER)
    }
    # A histogram without a job that started has no samples.
    unseen = _UNSEEN | {"slurm_job_wait_seconds"}
    assert {name: listed[name] for name in listed if name not in unseen} == found


def test_names_are_as_prometheus_wants_them() -> None:
    ours = (*SLURM, *EXPORTER)
    counters = {metric.name for metric in ours if metric.kind == "counter"}
    assert [name for name in counters if not name.endswith("_total")] == []
    assert [m.name for m in METRICS.values() if not re.fullmatch(r"[a-z][a-z0-9_]+", m.name)] == []


@pytest.mark.integration
@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_promtool_can_read_it(text: str) -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    # Its advice against names such as `_total` of gauges is about those of the Go exporter.
    said = [line for line in done.stderr.splitlines() if "error" in line.lower()]
    assert said == []
    ours = {metric.name for metric in (*SLURM, *EXPORTER)}
    advice = [line for line in done.stderr.splitlines() if line.split(" ")[0] in ours]
    assert [line for line in advice if "slurm_licenses_total" not in line] == []


def test_the_page_lists_every_metric() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \| (.*?) \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    listed = {
        metric.name: (metric.kind, ", ".join(f"`{label}`" for label in metric.labels), metric.help)
        for metric in METRICS.values()
    }
    assert {name: (kind, labels.strip(), text) for name, kind, labels, text in rows} == listed
