"""A cluster watched on this machine: jobs, exporters, Prometheus, an alert and its mail."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterbox.deployment.progress import Progress
from clusterbox.errors import InputError
from clusterbox.rehearsal.observe import ALERT, rehearse_observe
from tests.conftest import ROOT
from tests.monitoring.servers import needs_prometheus
from tests.slurm_cluster import needs_slurm


@pytest.mark.integration
@pytest.mark.parametrize("_needs", [pytest.param(None, marks=[*needs_slurm, *needs_prometheus])])
def test_an_alert_fires_and_its_mail_arrives(tmp_path: Path, _needs: None) -> None:
    found = rehearse_observe(ROOT, "ws-eco", tmp_path, Progress())
    assert ALERT in found.alerts
    assert ALERT in found.mail["Subject"]
    assert found.rule_for == "10m"
    # How far the others have come depends on how quickly this machine starts nodes.
    assert "failed" in found.jobs
    page = (tmp_path / "cluster.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert ALERT in (tmp_path / "mail.txt").read_text(encoding="utf-8")
    assert not (tmp_path / "work").exists()


def test_programs_that_are_missing_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"prometheus.*prometheus-alertmanager"):
        rehearse_observe(ROOT, "ws-eco", tmp_path / "observe", Progress())
