"""The charges of a time: what each instance and volume cost, and which job or part they are for.

The model is in docs/costs.md. Everything is exact, so that the charges add up to the total.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from itertools import pairwise

from clusterbox.costs.jobs import JobRun
from clusterbox.costs.meter_amount import ZERO, Amount
from clusterbox.costs.meter_evidence import Placed, Unplaced, place_jobs, settle_ends
from clusterbox.costs.meter_rates import Piece, Rates, billed_period
from clusterbox.costs.meter_time import Period
from clusterbox.costs.usage import InstanceRun, Usage

# A node that nobody saw ready is taken to boot no longer than this: ParallelCluster's ResumeTimeout.
MOST_BOOT_SECONDS = 1800


class Part(StrEnum):
    """What money was spent on."""

    JOBS = "jobs"
    BOOT = "boot"
    IDLE = "idle"
    SHUTDOWN = "shutdown"
    HEAD_NODE = "head node"
    LOGIN_NODES = "login nodes"
    DISKS = "disks"
    FILE_SYSTEMS = "file systems"
    ADDRESSES = "addresses"


@dataclass(frozen=True)
class Charge:
    """An amount for one part of an instance or of storage, since a day's beginning or the period's.

    `job` and the seconds of its CPUs are given for the part `jobs` only; `queue` for compute nodes.
    """

    part: Part
    since: int
    resource: str
    queue: str | None
    job: JobRun | None
    amount: Amount
    cpu_seconds: Fraction = ZERO


@dataclass(frozen=True)
class Charges:
    """All charges of a period, and what could not be said: a sentence for each reason."""

    items: tuple[Charge, ...]
    notes: tuple[str, ...]


def compute_charges(
    usage: Usage,
    jobs: Sequence[JobRun],
    rates: Rates,
    period: Period,
    *,
    at: int | None = None,
    cuts: Sequence[int] = (),
) -> Charges:
    """Return the charges of a period, cut at the times of `cuts`.

    `at` is the time up to which the records are known, the period's end where left out. What still
    runs then is taken to run on to the period's end, so that the second after it gives the current
    rate.
    """
    at = period.end if at is None else at
    runs = settle_ends(usage.instances, jobs, at)
    placed, unplaced = place_jobs(runs, jobs)
    edges = [period.start, *(cut for cut in sorted(cuts) if period.start < cut < period.end)]
    notes: dict[str, None] = {}
    charges: list[Charge] = []
    for number, run in enumerate(runs):
        time = _overlap(billed_period(run, period.end), period)
        if time.seconds:
            charges += _charge_run(run, placed[number], rates, time, edges)
            if any(rate is None for _start, _end, rate in rates.instance(run, time)):
                notes[f"no price: {rates.explain(run)}"] = None
    charges += _charge_storage(usage, rates, period, edges, notes)
    if missing := [item for item in unplaced if _runs_within(item.job, period)]:
        named = ", ".join(item.job.id for item in missing[:5])
        named += ", ..." if len(missing) > 5 else ""
        notes[f"no record of the instances of {len(missing)} job runs: {named}"] = None
        charges += [_unplaced(item, period, edges) for item in missing]
    return Charges(tuple(charges), tuple(notes))


def _charge_run(
    run: InstanceRun, jobs: Sequence[Placed], rates: Rates, time: Period, edges: Sequence[int]
) -> Iterator[Charge]:
    if run.node_type == "Compute":
        yield from _Sweep(run, jobs, list(rates.instance(run, time)), edges).charges()
    else:
        part = Part.HEAD_NODE if run.node_type == "HeadNode" else Part.LOGIN_NODES
        for since, amount in _by_edge(rates.instance(run, time), edges):
            yield Charge(part, since, run.instance, None, None, amount)
    if run.public_ipv4:
        for since, amount in _by_edge(rates.address(time), edges):
            amount = amount * run.public_ipv4
            yield Charge(Part.ADDRESSES, since, run.instance, run.queue, None, amount)


def _charge_storage(
    usage: Usage, rates: Rates, period: Period, edges: Sequence[int], notes: dict[str, None]
) -> Iterator[Charge]:
    for item in usage.storage:
        end = period.end if item.end is None else item.end
        time = _overlap(Period(item.start, max(item.start, end)), period)
        if not time.seconds:
            continue
        part = Part.DISKS if item.product == "ebs" else Part.FILE_SYSTEMS
        for since, amount in _by_edge(rates.storage(item, time), edges):
            yield Charge(part, since, item.id, None, None, amount)
            if not amount.is_known:
                notes[f"{rates.prices.find(item.product, item.name)}"] = None


class _Sweep:
    """Goes through the time of one compute node from event to event, and shares its price.

    `passed` is the price of one whole share since the beginning: what a job pays is its share of
    the difference between its end and its start.
    """

    def __init__(
        self,
        run: InstanceRun,
        jobs: Sequence[Placed],
        pieces: Sequence[Piece],
        edges: Sequence[int],
    ) -> None:
        self.run = run
        self.edges = edges
        self.pieces = pieces
        start, end = pieces[0][0], pieces[-1][1]
        if run.end is not None:
            end = min(end, run.end)
        self.jobs = [
            (placed, max(start, placed.start), min(end, placed.end))
            for placed in jobs
            if max(start, placed.start) < min(end, placed.end)
        ]
        first = min((placed.start for placed in jobs), default=None)
        self.boot_end = _boot_end(run, first)

    def charges(self) -> Iterator[Charge]:
        loads: dict[int, Fraction] = defaultdict(Fraction)
        for placed, start, end in self.jobs:
            loads[start] += placed.share
            loads[end] -= placed.share
        prices = {start: rate for start, _end, rate in self.pieces}
        times = self._times(loads, prices)
        passed = {times[0]: Amount()}
        rest: dict[tuple[int, Part], Amount] = defaultdict(Amount)
        rate, load = None, ZERO
        # Without the node's size its jobs share all of it.
        capacity = Fraction(1 if self.run.cpus else 0)
        for start, end in pairwise(times):
            rate = prices.get(start, rate)
            load += loads.get(start, ZERO)
            length = end - start
            price = Amount(ZERO, Fraction(length)) if rate is None else Amount(rate * length)
            if not load:
                passed[end], free = passed[start], price
            else:
                whole = max(capacity, load)
                passed[end] = passed[start] + (price if whole == 1 else price * (1 / whole))
                free = price * (1 - load / whole) if load < whole else Amount()
            if not free.is_nothing:
                key = (_edge_of(start, self.edges), self._part(start, end))
                rest[key] = rest[key] + free
        for (since, part), amount in rest.items():
            yield self._charge(part, since, None, amount)
        for placed, start, end in self.jobs:
            cuts = [start, *(edge for edge in self.edges if start < edge < end), end]
            for one, other in pairwise(cuts):
                amount = passed[other] + passed[one] * -1
                since = _edge_of(one, self.edges)
                seconds = Fraction(placed.job.cpus * (other - one), len(placed.job.nodes))
                yield self._charge(Part.JOBS, since, placed.job, amount * placed.share, seconds)

    def _times(self, loads: Mapping[int, Fraction], prices: Mapping[int, object]) -> list[int]:
        start, end = self.pieces[0][0], self.pieces[-1][1]
        marks = {start, end, *loads, *prices, *self.edges, self.boot_end}
        marks |= {mark for mark in (self.run.released, self.run.end) if mark is not None}
        return sorted(mark for mark in marks if start <= mark <= end)

    def _part(self, start: int, end: int) -> Part:
        """Return what the time is for that no job has."""
        for mark in (self.run.released, self.run.end):
            if mark is not None and start >= mark:
                return Part.SHUTDOWN
        return Part.BOOT if end <= self.boot_end else Part.IDLE

    def _charge(
        self,
        part: Part,
        since: int,
        job: JobRun | None,
        amount: Amount,
        cpu_seconds: Fraction = ZERO,
    ) -> Charge:
        run = self.run
        return Charge(part, since, run.instance, run.queue, job, amount, cpu_seconds)


def _boot_end(run: InstanceRun, first_job: int | None) -> int:
    """Return when a node had booted: ready, or its first job; else after the longest boot."""
    known = [mark for mark in (run.ready, first_job) if mark is not None]
    longest = run.start + MOST_BOOT_SECONDS
    return max(run.start, min(known)) if known else longest


def _by_edge(pieces: Iterator[Piece], edges: Sequence[int]) -> Iterator[tuple[int, Amount]]:
    """Yield the amounts of pieces, cut at the edges, each with the edge that it is behind."""
    found: dict[int, Amount] = defaultdict(Amount)
    for start, end, rate in pieces:
        cuts = [start, *(edge for edge in edges if start < edge < end), end]
        for one, other in pairwise(cuts):
            length = other - one
            amount = Amount(ZERO, Fraction(length)) if rate is None else Amount(rate * length)
            key = _edge_of(one, edges)
            found[key] = found[key] + amount
    yield from found.items()


def _edge_of(at: int, edges: Sequence[int]) -> int:
    return edges[bisect_right(edges, at) - 1]


def _overlap(time: Period, period: Period) -> Period:
    return Period(max(time.start, period.start), min(time.end, period.end))


def _runs_within(job: JobRun, period: Period) -> bool:
    return job.start < period.end and (job.end is None or job.end > period.start)


def _unplaced(item: Unplaced, period: Period, edges: Sequence[int]) -> Charge:
    """Return a job's time on nodes of which nothing is known, as an amount without a price."""
    job = item.job
    end = period.end if job.end is None else min(job.end, period.end)
    start = max(job.start, period.start)
    amount = Amount(ZERO, Fraction((end - start) * item.nodes))
    seconds = Fraction(job.cpus * (end - start) * item.nodes, len(job.nodes))
    return Charge(Part.JOBS, _edge_of(start, edges), "unknown", job.queue, job, amount, seconds)
