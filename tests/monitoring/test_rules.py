"""The alert rules: each fires when it should and not otherwise, and has a section to read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusterbox.observe.metrics import METRICS
from tests.conftest import ROOT
from tests.monitoring.servers import needs_prometheus, run_tool

RULES = sorted((ROOT / "monitoring" / "rules").glob("*.yml"))
SEVERITIES = {"critical", "warning", "info"}
# What the node exporter, Prometheus and Alertmanager tell that rules may use.
OF_OTHERS = {
    "up",
    "alertmanager_config_last_reload_successful",
    "alertmanager_notifications_failed_total",
    "node_cpu_seconds_total",
    "node_filesystem_avail_bytes",
    "node_filesystem_size_bytes",
    "node_memory_MemAvailable_bytes",
    "node_memory_MemTotal_bytes",
    "node_timex_offset_seconds",
    "node_timex_sync_status",
    "prometheus_config_last_reload_successful",
    "prometheus_notifications_dropped_total",
    "prometheus_rule_evaluation_failures_total",
    "prometheus_sd_refresh_failures_total",
    "prometheus_tsdb_compactions_failed_total",
    "prometheus_tsdb_wal_corruptions_total",
}
_METRIC = re.compile(r"\b(?:up\b|(?:alertmanager|clusterbox|node|prometheus|slurm)_\w+)")


def rules_of(path: Path) -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
        yield from group["rules"]


def alerts() -> list[dict[str, Any]]:
    return [rule for path in RULES for rule in rules_of(path) if "alert" in rule]


every_alert = pytest.mark.parametrize("alert", alerts(), ids=lambda alert: str(alert["alert"]))


def metrics_in(expression: str) -> set[str]:
    """Return the names of metrics in an expression; labels and their values are none."""
    text = re.sub(r"\{[^}]*\}", "", expression)
    text = re.sub(r"\b(?:by|without|on|ignoring)\s*\([^)]*\)", "", text)
    return set(_METRIC.findall(text))


def test_no_two_alerts_have_one_name() -> None:
    found = [alert["alert"] for alert in alerts()]
    assert sorted(set(found)) == sorted(found)


@every_alert
def test_every_alert_says_what_how_bad_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in SEVERITIES
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    assert alert["for"]
    assert alert["annotations"]["runbook_url"] == f"docs/alerts.md#{alert['alert'].lower()}"


def test_every_alert_has_a_section_and_every_section_an_alert() -> None:
    page = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^### (.+)$", page, re.MULTILINE)) == sorted(
        alert["alert"] for alert in alerts()
    )


@pytest.mark.parametrize("path", RULES, ids=lambda path: str(path.stem))
def test_every_metric_of_a_rule_is_exported_by_something(path: Path) -> None:
    recorded = {rule["record"] for rule in rules_of(path) if "record" in rule}
    for rule in rules_of(path):
        expression = rule["expr"]
        for name in recorded:
            expression = expression.replace(name, "")
        assert metrics_in(expression) - set(METRICS) - OF_OTHERS == set()


@every_alert
def test_labels_that_an_alert_of_ours_matches_are_there(alert: dict[str, Any]) -> None:
    """A label that no series has would match nothing, and the alert would never fire."""
    from_targets = {"cluster", "node_type", "queue", "job", "instance"}
    for name, matchers in re.findall(r"\b((?:clusterbox|slurm)_\w+)\{([^}]*)\}", alert["expr"]):
        used = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        assert used <= set(METRICS[name].labels) | from_targets


def cases(path: Path) -> dict[str, list[dict[str, Any]]]:
    tests = yaml.safe_load((path.parent / "tests" / path.name).read_text(encoding="utf-8"))["tests"]
    found: dict[str, list[dict[str, Any]]] = {}
    for test in tests:
        for case in test.get("alert_rule_test", ()):
            found.setdefault(case["alertname"], []).append(case)
    return found


@pytest.mark.parametrize("path", RULES, ids=lambda path: str(path.stem))
def test_every_alert_is_tested_for_firing_and_for_not_firing(path: Path) -> None:
    found = cases(path)
    assert sorted(found) == sorted(rule["alert"] for rule in rules_of(path) if "alert" in rule)
    for name, tried in found.items():
        assert any(case["exp_alerts"] for case in tried), f"{name} fires in no test"
        assert any(not case["exp_alerts"] for case in tried), f"{name} is quiet in no test"


class TestByPromtool:
    """What Prometheus itself makes of the rules."""

    pytestmark = needs_prometheus

    @pytest.mark.parametrize("path", RULES, ids=lambda path: str(path.stem))
    def test_alerts_fire_when_they_should_and_not_otherwise(self, path: Path) -> None:
        run_tool("promtool", "test", "rules", str(path.parent / "tests" / path.name))

    def test_a_rule_that_is_broken_is_noticed(self, tmp_path: Path) -> None:
        (tmp_path / "tests").mkdir()
        text = (ROOT / "monitoring/rules/targets.yml").read_text(encoding="utf-8")
        (tmp_path / "targets.yml").write_text(text.replace("== 0", "== 7"), encoding="utf-8")
        test = (ROOT / "monitoring/rules/tests/targets.yml").read_text(encoding="utf-8")
        (tmp_path / "tests" / "targets.yml").write_text(test, encoding="utf-8")
        with pytest.raises(AssertionError, match="FAILED"):
            run_tool("promtool", "test", "rules", str(tmp_path / "tests" / "targets.yml"))
