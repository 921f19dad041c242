"""What jobs cost over a time, by job, user, account, queue, name, day or state."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo
from fractions import Fraction

from clusterbox.costs.jobs import JobRun
from clusterbox.costs.meter_amount import ZERO, Amount, add_amounts
from clusterbox.costs.meter_charges import Charge, compute_charges
from clusterbox.costs.meter_rates import Rates
from clusterbox.costs.meter_time import Period, local_date, midnights
from clusterbox.costs.usage import Usage

GROUPS = ("job", "user", "account", "queue", "name", "day", "state")
_KEYS: dict[str, Callable[[JobRun], str]] = {
    "job": lambda job: job.id,
    "user": lambda job: job.user,
    "account": lambda job: job.account,
    "queue": lambda job: job.queue,
    "name": lambda job: job.name,
    "state": lambda job: job.state,
}


@dataclass(frozen=True)
class JobGroup:
    """The cost of a group of jobs within a time.

    `runs` are their starts, so a job that was requeued counts more than once there and once in
    `jobs`. `cpu_seconds` are allocated CPUs times seconds. `own` is their share of the nodes while
    they ran; `overhead` is their part of everything else.
    """

    name: str
    jobs: int
    runs: int
    cpu_seconds: Fraction
    own: Amount
    overhead: Amount
    last: JobRun

    @property
    def total(self) -> Amount:
        """Own cost and overhead."""
        return self.own + self.overhead


@dataclass(frozen=True)
class JobCosts:
    """The groups, the most expensive first; `total` and `overhead` are of all jobs of the time.

    Without a choice of user or account, the totals of the groups add up exactly to `total`, but
    for the overhead where no job had a price: then it stays with nobody.
    """

    groups: tuple[JobGroup, ...]
    overhead: Amount
    total: Amount
    notes: tuple[str, ...]


def price_jobs(
    usage: Usage,
    jobs: Sequence[JobRun],
    rates: Rates,
    period: Period,
    *,
    cluster: str,
    group_by: str = "job",
    at: int | None = None,
    timezone: tzinfo = UTC,
    user: str | None = None,
    account: str | None = None,
) -> JobCosts:
    """Return what jobs cost within a period.

    What no job used (boot, idle time, head node, disks) is shared by all jobs of the period in
    proportion to their own cost, also by those that `user` and `account` leave out. `at` is the
    time up to which the records are known.
    """
    horizon = period.end if at is None else min(at, period.end)
    period = Period(period.start, max(period.start, horizon))
    cuts = midnights(period, timezone) if group_by == "day" else []
    charges = compute_charges(usage.of_cluster(cluster), jobs, rates, period, at=at, cuts=cuts)
    overhead = add_amounts(charge.amount for charge in charges.items if charge.job is None)
    own = add_amounts(charge.amount for charge in charges.items if charge.job is not None)
    grouped: dict[str, list[Charge]] = defaultdict(list)
    for charge in charges.items:
        job = charge.job
        if job is None or user not in (None, job.user) or account not in (None, job.account):
            continue
        day = local_date(charge.since, timezone).isoformat()
        grouped[day if group_by == "day" else _KEYS[group_by](job)].append(charge)
    groups = [_group(name, found, overhead, own) for name, found in grouped.items()]
    ordered = sorted(groups, key=lambda group: (-group.total.usd, group.name))
    if group_by == "day":
        ordered.sort(key=lambda group: group.name)
    return JobCosts(tuple(ordered), overhead, own + overhead, charges.notes)


def _group(name: str, charges: Sequence[Charge], overhead: Amount, all_own: Amount) -> JobGroup:
    own = add_amounts(charge.amount for charge in charges)
    runs = {(job.id, job.start): job for job in _jobs(charges)}
    share = own.usd / all_own.usd if all_own.usd else ZERO
    return JobGroup(
        name=name,
        jobs=len({ident for ident, _start in runs}),
        runs=len(runs),
        cpu_seconds=sum((charge.cpu_seconds for charge in charges), ZERO),
        own=own,
        overhead=overhead * share,
        last=max(runs.values(), key=lambda job: job.start),
    )


def _jobs(charges: Iterable[Charge]) -> Iterable[JobRun]:
    return (charge.job for charge in charges if charge.job is not None)
