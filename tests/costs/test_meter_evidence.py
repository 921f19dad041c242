"""Lost ends, and which instance a job ran on."""

from __future__ import annotations

import pytest

from clusterbox.costs.jobs import JobRun
from clusterbox.costs.meter_evidence import place_jobs, settle_ends
from clusterbox.costs.usage import InstanceRun
from tests.costs.meter_records import at, head, job, run


def ends(
    *runs: InstanceRun, jobs: tuple[JobRun, ...] = (), now: str = "12:00:00"
) -> list[int | None]:
    return [one.end for one in settle_ends(runs, jobs, at(now))]


def test_an_instance_without_an_end_still_runs() -> None:
    assert ends(run(at("08:00:00"), None)) == [None]


def test_one_that_was_only_seen_earlier_ended_after_its_last_job_and_the_idle_time() -> None:
    lost = run(at("08:00:00"), None, seen=at("08:45:00"))
    work = (job(at("08:10:00"), at("09:00:00")), job(at("08:10:00"), at("08:20:00"), id="2"))
    assert ends(lost, jobs=work) == [at("09:10:00")]


def test_it_did_not_end_before_it_was_last_seen() -> None:
    lost = run(at("08:00:00"), None, seen=at("10:45:00"))
    assert ends(lost, jobs=(job(at("08:10:00"), at("09:00:00")),)) == [at("10:45:00")]


def test_one_whose_node_has_another_instance_ended_before_that_began() -> None:
    lost = run(at("08:00:00"), None)
    later = run(at("09:05:00"), None, instance="i-2")
    work = (job(at("08:10:00"), at("09:00:00")), job(at("09:10:00"), at("09:20:00"), id="2"))
    assert ends(lost, later, jobs=work) == [at("09:05:00"), None]


def test_it_does_not_outlive_the_time_that_is_asked_about() -> None:
    lost = run(at("08:00:00"), None, seen=at("11:55:00"))
    assert ends(lost, jobs=(job(at("08:10:00"), at("11:58:00")),)) == [at("12:00:00")]


def test_a_head_node_ended_when_it_was_last_seen_else_when_it_was_started_again() -> None:
    again = head(at("10:00:00"))
    assert ends(head(at("08:00:00"), None, seen=at("09:00:00")), again) == [at("09:00:00"), None]
    assert ends(head(at("08:00:00"), None), again) == [at("10:00:00"), None]


def placed_on(*runs: InstanceRun, start: str, end: str | None) -> list[int]:
    work = job(at(start), at(end) if end else None)
    placed, _unplaced = place_jobs(runs, (work,))
    return sorted(placed)


FOREVER = 1 << 62
TWO = (
    run(at("08:00:00"), at("09:00:00")),
    run(at("09:05:00"), at("10:00:00"), instance="i-2"),
)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("08:10:00", "08:20:00", [0]),
        # Slurm's clock is a little behind or ahead.
        ("07:59:55", "08:20:00", [0]),
        ("09:04:55", "09:20:00", [1]),
        ("08:58:00", "09:05:30", [0]),
        ("08:58:00", "09:07:00", [0]),
        # Nobody recorded the end: it ran where it started.
        ("08:10:00", None, [0]),
        ("09:10:00", None, [1]),
        ("10:10:00", "10:20:00", []),
    ],
)
def test_a_job_ran_on_the_instance_that_overlaps_it_most(
    start: str, end: str | None, expected: list[int]
) -> None:
    assert placed_on(*TWO, start=start, end=end) == expected


def test_a_job_without_an_end_ended_with_its_node() -> None:
    placed, unplaced = place_jobs(TWO, (job(at("08:10:00"), None),))
    assert [(one.start, one.end) for one in placed[0]] == [(at("08:10:00"), at("09:00:00"))]
    assert unplaced == []


def test_a_job_with_a_node_of_which_nothing_is_known_is_told_of() -> None:
    work = job(at("08:10:00"), at("08:20:00"), nodes=("eco-dy-n-1", "a", "b"))
    placed, unplaced = place_jobs(TWO, (work,))
    assert len(placed[0]) == 1
    assert [(one.job, one.nodes) for one in unplaced] == [(work, 2)]


def test_a_job_without_an_end_ran_no_longer_than_its_limit() -> None:
    placed, _unplaced = place_jobs(TWO, (job(at("08:10:00"), None, limit_seconds=600),))
    assert [(one.start, one.end) for one in placed[0]] == [(at("08:10:00"), at("08:21:30"))]


def test_on_a_node_that_has_ended_it_ran_as_long_as_most_of_its_kind() -> None:
    others = [
        job(at("08:00:00"), at("08:00:00") + minutes * 60, id=f"o{minutes}")
        for minutes in (1, 4, 50)
    ]
    other_name = job(at("08:00:00"), at("08:00:09"), id="x", name="mosaic")
    lost = job(at("08:10:00"), None, id="lost")
    placed, _unplaced = place_jobs(TWO, (*others, other_name, lost))
    assert [one.end for one in placed[0] if one.job is lost] == [at("08:14:00")]
    running = run(at("08:00:00"), None)
    placed, _unplaced = place_jobs((running,), (*others, lost))
    assert [one.end for one in placed[0] if one.job is lost] == [FOREVER]


def test_an_instance_does_not_run_twice_at_a_time() -> None:
    first, second = run(at("08:00:00"), at("10:00:00")), run(at("09:00:00"), at("11:00:00"))
    assert ends(first, second) == [at("09:00:00"), at("11:00:00")]
    other = run(at("09:00:00"), at("11:00:00"), instance="i-2")
    assert ends(first, other) == [at("10:00:00"), at("11:00:00")]
