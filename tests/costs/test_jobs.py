"""Jobs out of `sacct`, and what they cost."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import pytest

from clusterbox.costs.jobs import JobRun, order_runs, parse_sacct, render_sacct
from clusterbox.costs.meter_jobs import GROUPS, JobCosts, price_jobs
from clusterbox.costs.meter_time import Period, find_timezone
from clusterbox.costs.usage import InstanceRun, Usage, parse_time
from clusterbox.errors import ProblemsError
from tests.costs.meter_records import DAY, HOUR, at, disk, job, rates, run

HEADER = "JobID|User|Account|Partition|State|Start|End|AllocCPUS|AllocTRES|NodeList|JobName\n"
WHOLE_DAY = Period(DAY, DAY + 24 * HOUR)


def parse(*lines: str) -> tuple[JobRun, ...]:
    return parse_sacct(HEADER + "\n".join(lines), name="sacct.txt")


def test_a_line_of_sacct_is_a_run() -> None:
    (found,) = parse(
        "7_3|ana|water|gpu|CANCELLED by 1000|2025-11-03T08:00:00|2025-11-03T09:00:00|8|"
        "billing=8,cpu=8,gres/gpu:a10g=2,gres/gpu=2,node=2|gpu-dy-g-[1-2]|a|b"
    )
    assert found == JobRun(
        id="7_3",
        name="a|b",
        user="ana",
        account="water",
        queue="gpu",
        state="CANCELLED",
        start=at("08:00:00"),
        end=at("09:00:00"),
        cpus=8,
        nodes=("gpu-dy-g-1", "gpu-dy-g-2"),
        gpus=2,
    )


def test_what_never_started_and_steps_are_left_out() -> None:
    lines = [
        "1|ana|w|eco|PENDING|Unknown|Unknown|0||None assigned|a",
        "2|ana|w|eco|CANCELLED|None|2025-11-03T09:00:00|0||None assigned|a",
        "3.batch|ana|w|eco|RUNNING|2025-11-03T09:00:00|Unknown|1||n-1|a",
    ]
    assert parse(*lines) == ()


def test_a_running_job_has_no_end_and_one_that_ends_before_its_start_has_no_length() -> None:
    first, second = parse(
        "1|ana|w|eco|RUNNING|2025-11-03T08:00:00|Unknown|1||n-1|a",
        "2|ana|w|eco|COMPLETED|2025-11-03T09:00:05|2025-11-03T09:00:03|1||n-1|a",
    )
    assert (first.end, second.end) == (None, second.start)


def test_wrong_lines_are_told_at_once() -> None:
    with pytest.raises(ProblemsError) as caught:
        parse(
            "1|ana",
            "2|ana|w|eco|RUNNING|tomorrow|Unknown|1||n-1|a",
            "3|ana|w|eco|RUNNING|2025-11-03T08:00:00|Unknown|many||n-1|a",
            "4|ana|w|eco|RUNNING|2025-11-03T08:00:00|Unknown|1||n-[1|a",
        )
    assert [problem.line for problem in caught.value.problems] == [2, 3, 4, 5]


@pytest.mark.parametrize("text", ["", "JobID|User\n1|ana\n"])
def test_a_header_without_the_columns_is_told(text: str) -> None:
    with pytest.raises(ProblemsError, match=r"lacks the columns .*NodeList"):
        parse_sacct(text, name="sacct.txt")


def test_runs_are_the_same_after_printing_and_reading() -> None:
    runs = (
        job(at("08:00:00"), at("09:00:00"), gpus=2),
        job(at("08:30:00"), None, id="2", name="a|b", limit_seconds=1200),
    )
    assert parse_sacct(render_sacct(runs), name="sacct.txt") == runs


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_pages_may_come_in_any_order_and_a_requeue_ends_the_run_before(
    order: tuple[int, ...],
) -> None:
    runs = [
        job(at("08:00:00"), None, state="NODE_FAIL"),
        job(at("09:00:00"), None),
        job(at("09:00:00"), at("10:00:00"), state="COMPLETED"),
        job(at("08:30:00"), at("08:40:00"), id="2"),
    ]
    found = order_runs(runs[number] for number in order)
    assert [(one.id, one.start, one.end) for one in found] == [
        ("1", at("08:00:00"), at("09:00:00")),
        ("2", at("08:30:00"), at("08:40:00")),
        ("1", at("09:00:00"), at("10:00:00")),
    ]


NODE: InstanceRun = run(at("08:00:00"), at("12:00:00"), ready=at("08:00:00"))
JOBS = (
    job(at("08:00:00"), at("09:00:00"), id="1", cpus=8),
    job(at("09:00:00"), at("10:00:00"), id="2", cpus=4, user="bo", account="land", name="dswe"),
    job(at("10:00:00"), at("11:00:00"), id="2", cpus=4, user="bo", account="land", name="dswe"),
)


def price(group_by: str, period: Period = WHOLE_DAY, **options: object) -> JobCosts:
    usage = Usage((NODE,), (disk(DAY),))
    given: dict[str, Any] = {"cluster": "ws", "group_by": group_by, **options}
    return price_jobs(usage, JOBS, rates(), period, **given)


def test_jobs_pay_their_share_and_a_part_of_everything_else() -> None:
    costs = price("user")
    # The node costs 14.40 USD and the disk 2.40; 7.20 of the node were jobs.
    found = [(one.name, one.jobs, one.runs, one.own.usd, one.overhead.usd) for one in costs.groups]
    half = Fraction("4.8")
    assert found == [("ana", 1, 1, Fraction("3.6"), half), ("bo", 1, 2, Fraction("3.6"), half)]
    assert costs.total.usd == Fraction("16.8")


@pytest.mark.parametrize("group_by", GROUPS)
def test_groups_of_every_kind_add_up_to_the_total(group_by: str) -> None:
    costs = price(group_by)
    assert sum(one.total.usd for one in costs.groups) == costs.total.usd
    assert sum(one.cpu_seconds for one in costs.groups) == 16 * HOUR


def test_a_choice_of_users_leaves_the_others_their_part_of_the_overhead() -> None:
    (only,) = price("job", user="bo").groups
    assert (only.name, only.own.usd, only.overhead.usd) == ("2", Fraction("3.6"), Fraction("4.8"))
    assert price("job", account="nobody").groups == ()


def test_a_time_holds_what_was_spent_in_it() -> None:
    period = Period(at("08:30:00"), at("09:30:00"))
    found = {one.name: one.own.usd for one in price("job", period).groups}
    assert found == {"1": Fraction("1.8"), "2": Fraction("0.9")}


def test_days_are_those_of_the_time_zone() -> None:
    node = run(parse_time("2025-11-02T05:00:00Z"), parse_time("2025-11-03T09:00:00Z"))
    work = job(node.start, node.end, cpus=8)
    # Summer time ends in Denver on 2 November, which has 25 hours there.
    costs = price_jobs(
        Usage((node,)),
        (work,),
        rates(),
        Period(node.start, node.end or 0),
        cluster="ws",
        group_by="day",
        timezone=find_timezone("America/Denver"),
    )
    found = {one.name: one.own.usd / Fraction("3.6") for one in costs.groups}
    assert found == {"2025-11-01": 1, "2025-11-02": 25, "2025-11-03": 2}


def test_another_clusters_records_are_left_out() -> None:
    usage = Usage((NODE, run(at("08:00:00"), None, cluster="other", instance="i-9", node="x")))
    costs = price_jobs(usage, JOBS, rates(), WHOLE_DAY, cluster="ws")
    assert costs.total.usd == Fraction("14.4")


def test_a_job_has_no_fewer_cpus_than_none() -> None:
    with pytest.raises(ProblemsError, match="AllocCPUS must be 0 or more"):
        parse("7|a|w|eco|X|2025-11-03T08:00:00|2025-11-03T09:00:00|-8|cpu=8|eco-dy-n-1|n")
