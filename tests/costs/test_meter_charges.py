"""What instances and disks cost, and whom it is charged to."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterbox.costs.jobs import JobRun
from clusterbox.costs.meter_amount import ZERO, add_amounts
from clusterbox.costs.meter_charges import Charges, compute_charges
from clusterbox.costs.meter_rates import billed_period
from clusterbox.costs.meter_time import Period
from clusterbox.costs.usage import InstanceRun, Usage, merge_usage, parse_time
from tests.costs.meter_records import DAY, HOUR, at, disk, head, job, rates, run

WHOLE_DAY = Period(DAY, DAY + 24 * HOUR)


def charge(
    *runs: InstanceRun, jobs: tuple[JobRun, ...] = (), period: Period = WHOLE_DAY
) -> Charges:
    return compute_charges(Usage(runs), jobs, rates(), period)


def by_part(charges: Charges) -> dict[str, Fraction]:
    found: dict[str, Fraction] = defaultdict(Fraction)
    for item in charges.items:
        found[str(item.part)] += item.amount.usd
    return {part: usd for part, usd in found.items() if usd}


def test_an_instance_costs_its_seconds() -> None:
    node = run(at("08:00:00"), at("08:10:01"), ready=at("08:00:00"))
    assert by_part(charge(node)) == {"idle": Fraction(601, 1000)}


def test_a_start_costs_a_minute_at_least() -> None:
    node = run(at("08:00:00"), at("08:00:20"))
    assert by_part(charge(node)) == {"boot": Fraction(20, 1000), "shutdown": Fraction(40, 1000)}


def test_each_start_of_a_stopped_instance_costs_its_own_minute_and_the_pause_nothing() -> None:
    first = head(at("08:00:00"), at("08:00:30"))
    second = head(at("09:00:00"), at("09:02:00"), instance_type="big.8")
    assert by_part(charge(first, second)) == {
        "head node": Fraction(60, 10000) + Fraction(120, 1000)
    }


def test_boot_jobs_idle_time_and_shutdown_are_apart() -> None:
    node = run(at("08:00:00"), at("09:00:00"), ready=at("08:05:00"), released=at("08:58:00"))
    work = job(at("08:05:00"), at("08:45:00"), cpus=8)
    assert by_part(charge(node, jobs=(work,))) == {
        "boot": Fraction(300, 1000),
        "jobs": Fraction(2400, 1000),
        "idle": Fraction(780, 1000),
        "shutdown": Fraction(120, 1000),
    }


def test_a_node_that_nobody_saw_ready_boots_until_its_first_job() -> None:
    node = run(at("08:00:00"), at("09:00:00"))
    work = job(at("08:04:00"), at("08:30:00"), cpus=8)
    assert by_part(charge(node, jobs=(work,)))["boot"] == Fraction(240, 1000)


def test_a_node_without_jobs_boots_for_half_an_hour_at_most() -> None:
    assert by_part(charge(run(at("08:00:00"), at("09:00:00")))) == {
        "boot": Fraction(1800, 1000),
        "idle": Fraction(1800, 1000),
    }


def test_a_job_pays_its_share_of_the_cpus_and_the_rest_is_idle() -> None:
    node = run(at("08:00:00"), at("09:00:00"), ready=at("08:00:00"))
    work = job(at("08:00:00"), at("09:00:00"), cpus=2)
    assert by_part(charge(node, jobs=(work,))) == {
        "jobs": Fraction(900, 1000),
        "idle": Fraction(2700, 1000),
    }


def test_the_share_is_that_of_the_gpus_where_it_is_larger() -> None:
    node = run(at("08:00:00"), at("09:00:00"), ready=at("08:00:00"), gpus=4)
    work = job(at("08:00:00"), at("09:00:00"), cpus=1, gpus=2)
    assert by_part(charge(node, jobs=(work,)))["jobs"] == Fraction(1800, 1000)


def test_the_cpus_of_a_wide_job_are_spread_over_its_nodes() -> None:
    nodes = [
        run(at("08:00:00"), at("09:00:00"), instance=f"i-{n}", node=f"n-{n}") for n in range(4)
    ]
    work = job(at("08:00:00"), at("09:00:00"), cpus=16, nodes=("n-0", "n-1", "n-2", "n-3"))
    assert by_part(charge(*nodes, jobs=(work,)))["jobs"] == 2 * Fraction(3600, 1000)


def test_jobs_that_overlap_never_pay_more_than_the_node() -> None:
    node = run(at("08:00:00"), at("09:00:00"))
    jobs = tuple(job(at("08:00:00"), at("09:00:00"), id=str(number), cpus=6) for number in range(3))
    charges = charge(node, jobs=jobs)
    assert by_part(charges) == {"jobs": Fraction(3600, 1000)}
    assert {item.amount.usd for item in charges.items} == {Fraction(1200, 1000)}


def test_a_node_of_unknown_size_is_shared_by_its_jobs() -> None:
    node = run(at("08:00:00"), at("09:00:00"), cpus=None)
    jobs = (
        job(at("08:00:00"), at("09:00:00"), id="1", cpus=1),
        job(at("08:00:00"), at("09:00:00"), id="2", cpus=3),
    )
    paid = {item.job.id: item.amount.usd for item in charge(node, jobs=jobs).items if item.job}
    assert paid == {"1": Fraction(900, 1000), "2": Fraction(2700, 1000)}


def test_a_spot_instance_costs_the_price_of_its_zone_at_each_time() -> None:
    node = run(at("08:00:00"), at("10:00:00"), purchase="spot", ready=at("08:00:00"))
    prices = rates(
        ("big.8", "us-west-2a", at("07:00:00"), "1.0"),
        ("big.8", "us-west-2a", at("09:30:00"), "2.0"),
        ("big.8", "us-west-2b", at("08:00:00"), "9.0"),
    )
    charges = compute_charges(Usage((node,)), (), prices, WHOLE_DAY)
    assert by_part(charges) == {"idle": Fraction(5, 2)}


def test_spot_before_the_history_begins_is_unknown_and_not_nothing() -> None:
    node = run(at("08:00:00"), at("10:00:00"), purchase="spot", ready=at("08:00:00"))
    prices = rates(("big.8", "us-west-2a", at("09:00:00"), "1.0"))
    charges = compute_charges(Usage((node,)), (), prices, WHOLE_DAY)
    total = add_amounts(item.amount for item in charges.items)
    assert (total.usd, total.unknown_seconds) == (Fraction(1), Fraction(3600))
    assert "not from the beginning" in charges.notes[0]


@pytest.mark.parametrize(
    ("seconds", "interrupted", "usd"),
    [(3599, True, 0), (3600, True, 1), (3599, False, Fraction(3599, 3600))],
)
def test_a_spot_instance_that_aws_takes_back_in_its_first_hour_is_free(
    seconds: int, interrupted: bool, usd: Fraction
) -> None:
    start = at("08:00:00")
    node = run(start, start + seconds, purchase="spot", interrupted=interrupted)
    prices = rates(("big.8", "us-west-2a", DAY, "1.0"))
    charges = compute_charges(Usage((node,)), (), prices, WHOLE_DAY)
    total = add_amounts(item.amount for item in charges.items)
    assert (total.usd, total.is_known) == (usd, True)


@pytest.mark.parametrize("fields", [{"instance_type": "odd.1"}, {"purchase": "capacity-block"}])
def test_what_has_no_price_is_unknown_for_the_node_and_its_job(fields: dict[str, str]) -> None:
    node = run(at("08:00:00"), at("09:00:00"), **fields)
    work = job(at("08:00:00"), at("08:30:00"), cpus=8)
    charges = charge(node, jobs=(work,))
    for item in charges.items:
        assert (item.amount.usd, item.amount.unknown_seconds) == (ZERO, Fraction(1800))
    assert charges.notes[0].startswith("no price: ")


def test_a_job_on_a_node_without_an_instance_is_unknown() -> None:
    charges = charge(jobs=(job(at("08:00:00"), at("09:00:00"), nodes=("a", "b")),))
    assert add_amounts(item.amount for item in charges.items).unknown_seconds == 7200
    assert charges.notes == ("no record of the instances of 1 job runs: 1",)


def test_public_addresses_and_disks_are_apart() -> None:
    usage = Usage((head(DAY, public_ipv4=2),), (disk(DAY),))
    charges = compute_charges(usage, (), rates(), Period(DAY, DAY + HOUR))
    assert by_part(charges) == {
        "head node": Fraction(36, 100),
        "addresses": Fraction(1, 100),
        "disks": Fraction(1, 10),
    }


@pytest.mark.parametrize(("month", "days"), [("2025-11", 30), ("2024-02", 29), ("2025-02", 28)])
def test_a_disk_costs_its_monthly_price_in_each_month_whatever_its_length(
    month: str, days: int
) -> None:
    start = parse_time(f"{month}-01T00:00:00Z")
    usage = Usage((), (disk(start),))
    period = Period(start, start + days * 24 * HOUR)
    charges = compute_charges(usage, (), rates(), period)
    assert by_part(charges) == {"disks": 72}


def test_a_running_instance_costs_up_to_the_end_of_the_time_only() -> None:
    assert by_part(charge(head(at("23:00:00")))) == {"head node": Fraction(36, 100)}


def test_charges_are_cut_at_the_given_times() -> None:
    node = run(at("08:00:00"), at("10:00:00"), ready=at("08:00:00"))
    work = job(at("08:30:00"), at("09:30:00"), cpus=8)
    charges = compute_charges(Usage((node,)), (work,), rates(), WHOLE_DAY, cuts=[at("09:00:00")])
    found = {(str(item.part), item.since): item.amount.usd for item in charges.items}
    assert found == {
        ("jobs", DAY): Fraction(1800, 1000),
        ("jobs", at("09:00:00")): Fraction(1800, 1000),
        ("idle", DAY): Fraction(1800, 1000),
        ("idle", at("09:00:00")): Fraction(1800, 1000),
    }


# Times within two days, so that many records overlap the day that is asked about.
moments = st.integers(min_value=DAY - 12 * HOUR, max_value=DAY + 36 * HOUR)
spans = st.tuples(moments, st.integers(min_value=0, max_value=12 * HOUR), st.booleans())


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    runs = []
    for number, (start, seconds, open_end) in enumerate(draw(st.lists(spans, max_size=6))):
        kind = draw(st.sampled_from(["big.8", "small.1", "odd.1"]))
        node = draw(st.sampled_from(["n-1", "n-2"]))
        runs.append(
            run(
                start,
                None if open_end else start + seconds,
                instance=f"i-{number}",
                instance_type=kind,
                node=node,
                purchase=draw(st.sampled_from(["on-demand", "spot"])),
                node_type=draw(st.sampled_from(["Compute", "Compute", "HeadNode"])),
                cpus=draw(st.sampled_from([None, 1, 3, 8])),
                gpus=draw(st.integers(0, 2)),
                interrupted=draw(st.booleans()),
                ready=draw(st.one_of(st.none(), st.just(start + 200))),
                public_ipv4=draw(st.integers(0, 1)),
            )
        )
    disks = [
        disk(start, None if open_end else start + seconds, id=f"vol-{number}")
        for number, (start, seconds, open_end) in enumerate(draw(st.lists(spans, max_size=3)))
    ]
    return merge_usage(Usage(tuple(runs), tuple(disks)))


@st.composite
def job_lists(draw: st.DrawFn) -> list[JobRun]:
    return [
        job(
            start,
            None if open_end else start + seconds,
            id=str(number),
            cpus=draw(st.integers(0, 20)),
            gpus=draw(st.integers(0, 2)),
            nodes=draw(st.sampled_from([("n-1",), ("n-2",), ("n-1", "n-2")])),
        )
        for number, (start, seconds, open_end) in enumerate(draw(st.lists(spans, max_size=8)))
    ]


PRICES = rates(
    ("big.8", "us-west-2a", DAY - HOUR, "1.3"), ("big.8", "us-west-2a", DAY + 5 * HOUR, "0.7")
)


def cost_of_records(usage: Usage, period: Period) -> tuple[Fraction, Fraction]:
    """Return USD and unknown seconds of instances, disks and addresses, without any sharing."""
    usd = unknown = Fraction(0)
    for one in usage.instances:
        time = billed_period(one, period.end)
        start, end = max(time.start, period.start), min(time.end, period.end)
        if start < end:
            pieces = list(PRICES.instance(one, Period(start, end)))
            pieces += list(PRICES.address(Period(start, end))) * one.public_ipv4
            usd += sum(((b - a) * rate for a, b, rate in pieces if rate is not None), Fraction(0))
            unknown += sum(b - a for a, b, rate in pieces if rate is None)
    for item in usage.storage:
        end = min(period.end, period.end if item.end is None else item.end)
        start = max(item.start, period.start)
        if start < end:
            usd += Fraction(end - start, 30 * 24 * HOUR) * 72
    return usd, unknown


@settings(max_examples=60, deadline=None)
@given(usages(), job_lists())
def test_jobs_idle_boot_and_shared_parts_add_up_to_the_total_exactly(
    usage: Usage, jobs: list[JobRun]
) -> None:
    usage = Usage(tuple(one for one in usage.instances if one.end is not None), usage.storage)
    charges = compute_charges(usage, jobs, PRICES, WHOLE_DAY)
    placed = [item for item in charges.items if item.resource != "unknown"]
    total = add_amounts(item.amount for item in placed)
    assert (total.usd, total.unknown_seconds) == cost_of_records(usage, WHOLE_DAY)
    assert all(item.amount.usd >= 0 and item.amount.unknown_seconds >= 0 for item in charges.items)


@settings(max_examples=40, deadline=None)
@given(usages(), job_lists(), st.randoms(use_true_random=False), st.integers(1, 23))
def test_order_repetition_and_cuts_do_not_change_the_total(
    usage: Usage, jobs: list[JobRun], chance: object, hour: int
) -> None:
    base = compute_charges(usage, jobs, PRICES, WHOLE_DAY)
    runs, work = list(usage.instances) * 2, list(jobs)
    chance.shuffle(runs)  # type: ignore[attr-defined]
    chance.shuffle(work)  # type: ignore[attr-defined]
    again = compute_charges(
        merge_usage(Usage(tuple(runs)), usage), work, PRICES, WHOLE_DAY, cuts=[DAY + hour * HOUR]
    )
    for part in {item.part for item in base.items} | {item.part for item in again.items}:
        sums = [
            add_amounts(item.amount for item in charges.items if item.part is part)
            for charges in (base, again)
        ]
        assert sums[0] == sums[1]


@settings(max_examples=40, deadline=None)
@given(usages(), job_lists(), st.integers(1, 23))
def test_two_parts_of_a_time_cost_what_the_whole_costs(
    usage: Usage, jobs: list[JobRun], hour: int
) -> None:
    usage = Usage(tuple(one for one in usage.instances if one.end is not None), usage.storage)
    cut, end = DAY + hour * HOUR, DAY + 60 * HOUR
    totals = [
        add_amounts(
            item.amount
            for period in periods
            for item in compute_charges(usage, jobs, PRICES, period, at=end).items
        )
        for periods in ([WHOLE_DAY], [Period(DAY, cut), Period(cut, WHOLE_DAY.end)])
    ]
    assert totals[0] == totals[1]
