from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from clusterbox.cli.main import main
from tests.conftest import ROOT


def run(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["--root", str(ROOT), "costs", *words]) == 0
    return capsys.readouterr().out


def test_an_environment_is_estimated_with_totals_in_a_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = run(capsys, "estimate", "ws-dev")
    assert "not asked" in out
    assert out.splitlines()[-1].startswith("all ")
    assert "items that are not priced" in out.splitlines()[-1]


def test_csv_and_json_hold_every_item_once_and_no_totals(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = list(csv.DictReader(io.StringIO(run(capsys, "estimate", "ws-eco", "--format", "csv"))))
    records = json.loads(run(capsys, "estimate", "ws-eco", "--format", "json"))
    assert [dict(row) for row in rows] == records
    assert "total" not in [row["item"] for row in rows]
    assert rows[0]["item"] == "head node"
    assert rows[0]["idle_usd_month"] == "30.37"


def test_typical_is_computed_where_hours_are_given(capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "estimate",
        "ws-eco",
        "--hours-a-day",
        "12",
        "--utilisation",
        "0.5",
        "--format",
        "json",
    )
    records = {row["item"]: row for row in json.loads(run(capsys, *words))}
    queue = records["queue eco/n8c32g"]
    assert float(queue["typical_usd_month"]) == pytest.approx(float(queue["worst_usd_month"]) / 4)
    assert records["logs"]["typical_usd_month"] == "not priced"


def test_an_unknown_name_is_told_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(ROOT), "costs", "estimate", "nothing"]) == 2
    assert "known: sandbox, ws-dev, " in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--hours-a-day", "25"], ["--utilisation", "x"]])
def test_hours_and_utilisation_have_limits(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--root", str(ROOT), "costs", "estimate", "ws-eco", *words])
    assert caught.value.code == 2
    assert "must be a number from 0 to" in capsys.readouterr().err


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository in which nobody has refreshed the prices."""
    (tmp_path / "environments").mkdir()
    (tmp_path / "cdk.json").write_text("{}", encoding="utf-8")
    return tmp_path


def show(repository: Path, *words: str) -> int:
    region = ["--region", "us-west-2"]
    return main(["--root", str(repository), "costs", "prices", "show", *words, *region])


def test_prices_are_shown_with_month_and_origin(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show(repository, "t3a.2xlarge", "m99.large", "--format", "json") == 0
    known, unknown = json.loads(capsys.readouterr().out)
    assert (known["usd"], known["usd_month"], known["confidence"]) == (
        "0.3008",
        "219.584",
        "listed",
    )
    assert unknown["usd"] == "unknown"
    assert "no price of ec2/linux m99.large" in unknown["source"]


def test_old_prices_are_warned_of_on_standard_error(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show(repository, "t3.micro") == 0
    assert "prices of us-west-2 are of 2025-03-02" in capsys.readouterr().err


def test_a_region_is_needed_where_the_environments_have_none(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--root", str(repository), "costs", "prices", "show"]) == 2
    assert "--region must be given" in capsys.readouterr().err
