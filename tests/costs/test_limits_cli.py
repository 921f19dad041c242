"""`clusterbox costs limits` with what a user gets wrong, and without a Slurm."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterbox.cli.main import main
from tests.conftest import ROOT


def limits(root: Path, *words: str) -> int:
    return main(["--root", str(root), "costs", "limits", *words])


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A repository whose environment has a cluster with a budget, and one without."""
    for name in ("ami", "cluster_configs", ".venv-pcluster", "cdk.json"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "environments").mkdir()
    text = (ROOT / "environments" / "ws-dev.yaml").read_text().partition("# What AWS bills")[0]
    budgets = (
        "{monthly_usd: 900, notify: [ada@example.gov], clusters: {ws-eco: {monthly_usd: 700}}}"
    )
    (tmp_path / "environments" / "ws-dev.yaml").write_text(
        f"{text.partition('budgets:')[0]}\nbudgets: {budgets}\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "there is no cluster nowhere; known: ws-eco, ws-eco-login"),
        (["remove", "ws-eco"], "give one cluster, and before it one of show, apply, check, script"),
        (["ws-eco", "--dry-run"], "--dry-run belongs to `limits apply`"),
        (["apply", "ws-eco", "--yaml"], "--yaml belongs to `limits check`"),
        (["check", "ws-eco-login"], "ws-eco-login has no budget; add it to budgets.clusters"),
        (["apply", "ws-eco", "--slurm-conf", "/nowhere"], "/nowhere: there is no such file"),
        (["ws-eco", "--target", "aws", "--slurm-conf", "x"], "leave out --target"),
    ],
)
def test_bad_input_is_told(
    site: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert limits(site, *words) == 2
    assert message in capsys.readouterr().err


def test_without_a_slurm_it_says_how_to_start_one(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert limits(site, "ws-eco") == 1
    assert "clusterbox embedded slurm up ws-eco" in capsys.readouterr().err


def test_a_check_fails_while_settings_are_missing(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert limits(site, "check", "ws-eco", "--format", "csv") == 1
    told = capsys.readouterr()
    assert "TRESBillingWeights,51,missing,CPU=48" in told.out
    assert "of which 39.17 are the cluster without nodes" in told.err


def test_the_settings_are_printed_as_yaml(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert limits(site, "check", "ws-eco", "--yaml") == 1
    assert "- PriorityUsageResetPeriod: MONTHLY" in capsys.readouterr().out


def test_the_script_is_one_that_bash_reads(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert limits(site, "script", "ws-eco") == 0
    assert capsys.readouterr().out.startswith("#!/bin/bash\n# Limits of cluster ws-eco")
