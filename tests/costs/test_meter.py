"""The meter as a whole, and its command with records from files."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from clusterbox.cli.main import main
from clusterbox.costs.jobs import JobRun, render_sacct
from clusterbox.costs.meter import ENDED, NO_JOB, SECTIONS, SHARED, Meter, meter_now
from clusterbox.costs.meter_amount import ZERO, add_amounts
from clusterbox.costs.meter_time import find_timezone
from clusterbox.costs.usage import Usage, parse_time, write_usage
from tests.conftest import ROOT
from tests.costs.meter_records import DAY, HOUR, at, disk, head, job, rates, run
from tests.costs.test_meter_charges import PRICES, job_lists, usages

NOW = at("12:00:00")
USAGE = Usage(
    (
        head(DAY - 48 * HOUR),
        run(at("08:00:00"), None, ready=at("08:00:00")),
        run(at("06:00:00"), at("07:00:00"), instance="i-0", node="spot-dy-n-1", queue="spot"),
    ),
    (disk(DAY - 48 * HOUR),),
)
JOBS = (
    job(at("08:00:00"), at("10:00:00"), cpus=8),
    job(at("10:00:00"), None, id="2", user="bo", cpus=4),
    job(at("06:00:00"), at("07:00:00"), id="3", cpus=8, nodes=("spot-dy-n-1",), queue="spot"),
)


def read(now: int = NOW, usage: Usage = USAGE, **options: object) -> Meter:
    given: dict[str, Any] = {"cluster": "ws", "at": now, **options}
    return meter_now(usage, JOBS, rates(), **given)


def figures(meter: Meter, section: str) -> dict[str, tuple[float, float, float]]:
    return {
        row.name: (float(row.hour.usd), float(row.today.usd), float(row.month.usd))
        for row in meter.section(section)
    }


def test_the_total_is_the_rate_now_today_and_this_month() -> None:
    total = read().total
    # 0.36 head node, 3.60 node and 0.10 disk an hour; 60 hours since Saturday, the first.
    assert total.hour.usd == Fraction("4.06")
    assert total.today.usd == 12 * Fraction("0.46") + 5 * Fraction("3.6")
    assert total.month.usd == 60 * Fraction("0.46") + 5 * Fraction("3.6")


def test_each_section_says_for_whom() -> None:
    meter = read()
    assert figures(meter, "part") == {
        "head node": (0.36, 4.32, 21.6),
        "jobs": (1.8, 14.4, 14.4),
        "disks": (0.1, 1.2, 6.0),
        "idle": (1.8, 3.6, 3.6),
    }
    assert figures(meter, "queue") == {
        SHARED: (0.46, 5.52, 27.6),
        "eco": (3.6, 14.4, 14.4),
        "spot": (0.0, 3.6, 3.6),
    }
    assert figures(meter, "user") == {
        NO_JOB: (2.26, 9.12, 31.2),
        "ana": (0.0, 10.8, 10.8),
        "bo": (1.8, 3.6, 3.6),
    }
    assert figures(meter, "job") == {
        NO_JOB: (2.26, 9.12, 31.2),
        ENDED: (0.0, 10.8, 10.8),
        "2": (1.8, 3.6, 3.6),
    }


def test_the_rest_of_the_month_is_projected_at_the_rate_of_the_last_days() -> None:
    meter = read(budget_usd=Decimal(1000))
    spent = 60 * Fraction("0.46") + 18
    # The cluster is 60 hours old, and 660 hours of November are left.
    assert meter.projected.usd == spent + spent / 60 * 660
    assert meter.budget_share == meter.projected.usd / 1000


def test_only_the_last_seven_days_make_the_projection() -> None:
    old = run(DAY - 48 * HOUR, DAY - 24 * HOUR, instance="i-old", node="eco-dy-n-9")
    usage = Usage((old, head(DAY - 48 * HOUR)))
    now = DAY + 12 * 24 * HOUR
    meter = meter_now(usage, (), rates(), cluster="ws", at=now)
    left = 30 * 24 * HOUR - (now - (DAY - 48 * HOUR))
    assert meter.projected.usd == meter.total.month.usd + Fraction(left, HOUR) * Fraction("0.36")


def test_today_begins_at_midnight_of_the_time_zone() -> None:
    meter = read(timezone=find_timezone("America/Denver"))
    # 5 hours of 3 November have passed in Denver, and its November began at 6 h in UTC.
    assert meter.total.today.usd == 5 * Fraction("0.46") + 4 * Fraction("3.6")
    assert meter.total.month.usd == 54 * Fraction("0.46") + 5 * Fraction("3.6")


def test_an_instance_that_has_ended_does_not_run_on_for_its_minute() -> None:
    usage = Usage((run(NOW - 10, NOW - 5),))
    assert read(usage=usage).total.hour.is_nothing


def test_unknown_prices_are_never_nothing() -> None:
    usage = Usage((head(DAY, instance_type="odd.1"),))
    meter = meter_now(usage, (), rates(), cluster="ws", at=NOW, budget_usd=Decimal(10))
    for amount in (meter.total.hour, meter.total.today, meter.total.month, meter.projected):
        assert (amount.usd, amount.is_known) == (ZERO, False)
    assert meter.budget_share is None
    assert "no price of ec2/linux odd.1" in meter.notes[0]


def test_a_cluster_of_which_nothing_is_known_costs_nothing_and_has_no_rows() -> None:
    meter = read(usage=Usage())
    assert meter_now(Usage(), (), rates(), cluster="ws", at=NOW).rows == ()
    assert not meter.total.today.is_known


@settings(max_examples=40, deadline=None)
@given(usages(), job_lists())
def test_every_section_adds_up_to_the_total_exactly(usage: Usage, jobs: list[JobRun]) -> None:
    meter = meter_now(usage, jobs, PRICES, cluster="ws", at=NOW)
    for section in SECTIONS:
        rows = meter.section(section)
        for span in ("hour", "today", "month"):
            total = add_amounts(getattr(row, span) for row in rows)
            assert total == getattr(meter.total, span)
            assert total.usd >= 0


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Return the options that read the records from files, at noon."""
    node = {"instance_type": "t3a.2xlarge", "cluster": "ws-eco"}
    usage = Usage(
        (
            head(DAY - 48 * HOUR, instance_type="t3.medium", cluster="ws-eco"),
            run(at("08:00:00"), None, ready=at("08:00:00"), **node),
            run(at("06:00:00"), at("07:00:00"), instance="i-0", purchase="spot", **node),
        )
    )
    write_usage(usage, tmp_path / "usage.jsonl")
    (tmp_path / "jobs.txt").write_text(render_sacct(JOBS[:2]), encoding="utf-8")
    return [
        "ws-eco",
        "--usage",
        str(tmp_path / "usage.jsonl"),
        "--accounting",
        str(tmp_path / "jobs.txt"),
        "--at",
        "2025-11-03T12:00:00",
    ]


def call(*words: str) -> int:
    return main(["--root", str(ROOT), "costs", *words])


def test_the_command_shows_sections_that_add_up_as_they_are_shown(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("meter", *files, "--format", "json") == 0
    captured = capsys.readouterr()
    rows = json.loads(captured.out)
    assert rows[0] == {
        "section": "total",
        "name": "total",
        "usd_hour": "0.3424",
        "today_usd": "1.70 + unknown",
        "month_usd": "3.70 + unknown",
        "note": None,
    }
    assert rows[1]["name"] == "projected month"
    for section in SECTIONS:
        shown = [row["usd_hour"] for row in rows if row["section"] == section]
        assert sum(Decimal(text.split(" ")[0].replace("unknown", "0")) for text in shown) == (
            Decimal("0.3424")
        )
    assert "Spot t3a.2xlarge in us-west-2a: price history none" in captured.err


def test_the_projection_is_held_against_the_budget_of_the_environment(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("meter", *files, "--format", "csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert rows[1]["note"].endswith("of the budget of 700 USD")


def test_jobs_are_listed_with_their_costs(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("jobs", *files, "--since", "2025-11-03", "--format", "json") == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["job"], first["user"], first["usd"]) == ("1", "ana", "0.6016")
    assert (second["job"], second["cpu_hours"], second["usd"]) == ("2", "8.00", "0.3008")


@pytest.mark.parametrize(
    ("group", "names"),
    [
        ("user", ["ana", "bo", "total"]),
        ("day", ["2025-11-03", "total"]),
        ("queue", ["eco", "total"]),
    ],
)
def test_jobs_are_grouped(
    group: str, names: list[str], files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("jobs", *files, "--group-by", group, "--format", "markdown") == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split("|")[1].strip() for line in lines] == names


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--timezone", "Nowhere"], "is not a time zone"),
        (["--at", "noon"], "is not a time"),
        (["--record", "x"], "--usage and --record"),
    ],
)
def test_bad_input_is_told(
    words: list[str], message: str, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("meter", *files, *words) == 2
    assert message in capsys.readouterr().err


def test_since_must_be_before_until(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("jobs", *files, "--since", "2025-11-04", "--until", "2025-11-03") == 2
    assert "is not before" in capsys.readouterr().err


def test_at_and_accounting_need_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("meter", "ws-eco", "--at", "2025-11-03") == 2
    assert call("meter", "ws-eco", "--usage", "x") == 2
    assert "--at needs --usage" in capsys.readouterr().err


def test_records_of_a_cluster_that_is_not_in_the_repository_need_a_region(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["ws-replay", *files[1:]]
    assert call("meter", *words) == 2
    assert call("meter", *words, "--region", "us-west-2") == 0
    assert "there is no cluster ws-replay" in capsys.readouterr().err


def test_midnight_in_the_command_is_that_of_its_time_zone(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    files[-1] = "2025-11-03T05:00:00"
    assert call("meter", *files, "--timezone", "America/Denver", "--format", "json") == 0
    total = json.loads(capsys.readouterr().out)[0]
    # 12:00 in UTC: 5 h of the head node and 4 h of the node since midnight in Denver.
    assert total["today_usd"] == "1.41"
    assert parse_time("2025-11-03T05:00:00-07:00") == NOW


def test_watch_prints_it_again_until_it_is_interrupted(
    files: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[int] = []

    def sleep(seconds: int) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", sleep)
    assert call("meter", *files, "--watch", "30") == 130
    assert pauses == [30, 30]
    assert capsys.readouterr().out.count("projected month") == 2


@pytest.mark.parametrize("seconds", ["0", "4", "-5", "x"])
def test_watch_does_not_ask_all_the_time(seconds: str, files: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        call("meter", *files, "--watch", seconds)
    assert caught.value.code == 2


def test_a_file_that_is_not_there_is_bad_input(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    files[4] = "/nowhere/jobs.txt"
    assert call("meter", *files) == 2
    assert "/nowhere/jobs.txt: there is no such file" in capsys.readouterr().err
