"""The taxi meter: what a cluster costs an hour now, today, this month, and who spends it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from decimal import Decimal
from fractions import Fraction

from clusterbox.costs.jobs import JobRun
from clusterbox.costs.meter_amount import Amount, add_amounts
from clusterbox.costs.meter_charges import Charge, Charges, Part, compute_charges
from clusterbox.costs.meter_rates import Rates
from clusterbox.costs.meter_time import Period, day_of, month_of
from clusterbox.costs.usage import Usage

SECTIONS = ("part", "queue", "user", "job")
# The rest of the month is taken to cost as much an hour as these days did.
TREND_SECONDS = 7 * 86400
_SECONDS_PER_HOUR = 3600
# Names of rows that are not a queue, user or job.
SHARED = "(head node, logins, storage)"
NO_JOB = "(no job)"
ENDED = "(ended jobs)"
_SPANS = ("hour", "today", "month")
# The names of a charge in the order of SECTIONS → its amounts by span.
_Buckets = Mapping[tuple[str, ...], Mapping[str, Amount]]


@dataclass(frozen=True)
class MeterRow:
    """One line: USD an hour now, and USD since midnight and since the month began."""

    section: str
    name: str
    hour: Amount
    today: Amount
    month: Amount


@dataclass(frozen=True)
class Meter:
    """What a cluster costs at a time (`at`, seconds since 1970 in UTC).

    The rows of each section add up exactly to `total`. `projected` is USD for the whole month: what
    was spent, and the rest of it at the mean rate of the last 7 days, None where nothing is known.
    `budget_usd` is the cluster's budget a month, None without one. `notes` say what has no price.
    """

    cluster: str
    at: int
    total: MeterRow
    rows: tuple[MeterRow, ...]
    projected: Amount
    budget_usd: Decimal | None
    notes: tuple[str, ...]

    def section(self, name: str) -> tuple[MeterRow, ...]:
        """Return the rows of one section: part, queue, user or job."""
        return tuple(row for row in self.rows if row.section == name)

    @property
    def budget_share(self) -> Fraction | None:
        """The projected month as a share of the budget; None without a budget or a known price."""
        if not self.budget_usd or (self.projected.usd == 0 and not self.projected.is_known):
            return None
        return self.projected.usd / Fraction(self.budget_usd)


@dataclass(frozen=True)
class Spending:
    """The charges of a cluster: an hour at the rate of now, since midnight, since the month began.

    `projected` is as in `Meter`.
    """

    hour: tuple[Charge, ...]
    today: tuple[Charge, ...]
    month: tuple[Charge, ...]
    projected: Amount
    notes: tuple[str, ...]


def meter_now(
    usage: Usage,
    jobs: Sequence[JobRun],
    rates: Rates,
    *,
    cluster: str,
    at: int,
    timezone: tzinfo = UTC,
    budget_usd: Decimal | None = None,
) -> Meter:
    """Return the meter of a cluster from records that are known up to `at`.

    Days and months begin at midnight of `timezone`. Nothing is asked of anyone: the records are the
    caller's.
    """
    spending = spending_now(usage, jobs, rates, cluster=cluster, at=at, timezone=timezone)
    spans = {"hour": spending.hour, "today": spending.today, "month": spending.month}
    running = {job.id for job in jobs if job.start <= at and (job.end is None or job.end > at)}
    buckets = _fill_buckets(spans, running)
    sections = {name: _rows(name, place, buckets) for place, name in enumerate(SECTIONS)}
    total = _rows("total", None, buckets)
    nothing = MeterRow("total", "total", Amount(), Amount(), Amount())
    return Meter(
        cluster=cluster,
        at=at,
        total=total[0] if total else nothing,
        rows=tuple(row for section in sections.values() for row in section),
        projected=spending.projected,
        budget_usd=budget_usd,
        notes=spending.notes,
    )


def spending_now(
    usage: Usage,
    jobs: Sequence[JobRun],
    rates: Rates,
    *,
    cluster: str,
    at: int,
    timezone: tzinfo = UTC,
) -> Spending:
    """Return the charges of a cluster from records that are known up to `at`."""
    day, month = day_of(at, timezone), month_of(at, timezone)
    trend = at - TREND_SECONDS
    begin = min(month.start, trend)
    usage = usage.of_cluster(cluster)
    past = compute_charges(
        usage, jobs, rates, Period(begin, at), cuts=[day.start, month.start, trend]
    )
    rate = compute_charges(usage, jobs, rates, Period(at, at + 1), at=at)
    # What is left of the least time of an instance that has ended is no rate: it stops.
    ended = {run.instance for run in usage.instances if run.end is not None and run.end <= at}
    ended -= {run.instance for run in usage.instances if run.end is None or run.end > at}
    return Spending(
        hour=tuple(
            _times(charge, _SECONDS_PER_HOUR)
            for charge in rate.items
            if charge.part is not Part.SHUTDOWN or charge.resource not in ended
        ),
        today=tuple(charge for charge in past.items if charge.since >= day.start),
        month=tuple(charge for charge in past.items if charge.since >= month.start),
        projected=_project(usage, past, at, trend, month),
        notes=tuple(dict.fromkeys([*past.notes, *rate.notes])),
    )


def _fill_buckets(spans: Mapping[str, Sequence[Charge]], running: set[str]) -> _Buckets:
    """Return the sums by the names that a charge has in each section; they are few."""
    found: dict[tuple[str, ...], dict[str, list[Amount]]] = defaultdict(lambda: defaultdict(list))
    for span, charges in spans.items():
        for charge in charges:
            job = charge.job
            names = (
                str(charge.part),
                charge.queue or SHARED,
                job.user if job else NO_JOB,
                _job_name(charge, running),
            )
            found[names][span].append(charge.amount)
    return {
        names: {span: add_amounts(amounts) for span, amounts in sums.items()}
        for names, sums in found.items()
    }


def _rows(section: str, place: int | None, buckets: _Buckets) -> list[MeterRow]:
    """Return the rows of a section, the most expensive of the month first, then by name.

    `place` is where the section's name is in the key of a bucket, None for the total.
    """
    sums: dict[str, dict[str, Amount]] = defaultdict(dict)
    for names, amounts in buckets.items():
        row = sums["total" if place is None else names[place]]
        for span, amount in amounts.items():
            row[span] = row[span] + amount if span in row else amount
    rows = [
        MeterRow(section, name, *(found.get(span, Amount()) for span in _SPANS))
        for name, found in sums.items()
    ]
    return sorted(rows, key=lambda row: (-row.month.usd, -row.hour.usd, row.name))


def _project(usage: Usage, past: Charges, at: int, trend: int, month: Period) -> Amount:
    """Return the month's cost: spent so far, and the rest at the mean rate of the last days."""
    spent = _sum(past.items, month.start)
    # A cluster that is younger than the trend did not cost nothing before: it was not there.
    starts = [run.start for run in usage.instances] + [item.start for item in usage.storage]
    first = min(starts, default=at)
    since = max(trend, first)
    if since >= at:
        return spent
    recent = _sum(past.items, trend)
    return spent + recent * Fraction(max(0, month.end - at), at - since)


def _sum(charges: Iterable[Charge], since: int) -> Amount:
    return add_amounts(charge.amount for charge in charges if charge.since >= since)


def _times(charge: Charge, factor: int) -> Charge:
    return replace(charge, amount=charge.amount * factor)


def _job_name(charge: Charge, running: set[str]) -> str:
    if charge.job is None:
        return NO_JOB
    return charge.job.id if charge.job.id in running else ENDED
