"""The published error of the meter: a recorded month against what was billed for it."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from pathlib import Path

import pytest

from clusterbox.costs.replay.__main__ import generate, main, write
from clusterbox.costs.replay.measure import FOLDER, Comparison, measure
from tests.conftest import ROOT

MOST_TOTAL_PERCENT = 1
MOST_GROUP_PERCENT = 2


@pytest.fixture(scope="module")
def measured() -> list[Comparison]:
    return measure()


def test_the_total_is_less_than_one_percent_off(measured: list[Comparison]) -> None:
    total = measured[0]
    assert (total.kind, total.name) == ("bill", "total")
    assert abs(total.percent) < MOST_TOTAL_PERCENT


def test_every_group_of_jobs_is_less_than_two_percent_off(measured: list[Comparison]) -> None:
    groups = [item for item in measured if item.kind.startswith("jobs by")]
    assert len(groups) == 11
    assert [item for item in groups if abs(item.percent) >= MOST_GROUP_PERCENT] == []


def test_the_documentation_publishes_what_is_measured(measured: list[Comparison]) -> None:
    text = (ROOT / "docs" / "costs.md").read_text(encoding="utf-8")
    for item in measured:
        row = (
            f"| {item.kind} | {item.name} | {item.billed:.2f} | {item.metered:.2f} | "
            f"{item.percent:+.2f} % |"
        )
        assert row in text


def test_the_kept_records_are_those_of_the_generator() -> None:
    for name, content in generate().items():
        kept = (FOLDER / name).read_bytes()
        if name.endswith(".gz"):
            # Another version of zlib may compress otherwise.
            kept, content = gzip.decompress(kept), gzip.decompress(content)
        assert kept == content, name


def test_the_records_have_the_faults_of_real_ones() -> None:
    usage = [json.loads(line) for line in (FOLDER / "usage.jsonl").read_text("utf-8").splitlines()]
    jobs = (FOLDER / "accounting.txt").read_text("utf-8").splitlines()
    keys = [json.dumps(record, sort_keys=True) for record in usage]
    assert len(keys) > len(set(keys)), "none is there twice"
    assert sum("seen" in record for record in usage) >= 20, "no end is lost"
    assert sum(record.get("interrupted", False) for record in usage) >= 15
    assert sum("|NODE_FAIL|" in line for line in jobs) >= 15
    assert sum("|Unknown|" in line for line in jobs) >= 15


def test_another_month_is_as_near(tmp_path: Path) -> None:
    write(tmp_path, seed=7)
    found = measure(tmp_path)
    assert abs(found[0].percent) < MOST_TOTAL_PERCENT
    assert max(abs(item.percent) for item in found if "jobs" in item.kind) < MOST_GROUP_PERCENT


def test_a_wrong_price_is_seen(tmp_path: Path) -> None:
    write(tmp_path)
    spot = tmp_path / "spot.csv"
    text = spot.read_text("utf-8")
    # Spot prices of half the time are lost: the price before them is taken to last on.
    lines = text.splitlines()
    kept = [*lines[:6], *lines[6::16]]
    kept[4] = f"# rows: {len(kept) - 6}"
    spot.write_text("\n".join(kept) + "\n", encoding="utf-8")
    assert abs(measure(tmp_path)[0].percent - Decimal("-0.29")) > Decimal("0.3")


def test_the_module_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out.splitlines()[2].startswith("bill             total")
    assert main(["other"]) == 2
