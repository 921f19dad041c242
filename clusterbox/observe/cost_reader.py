"""What a cluster costs now, read from EC2, Slurm and the price files; no paid API is called."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from decimal import Decimal
from pathlib import Path

from clusterbox.clusters.composed import ComposedCluster
from clusterbox.costs.jobs import JobRun, order_runs
from clusterbox.costs.meter import TREND_SECONDS, spending_now
from clusterbox.costs.meter_live import Doors, fetch_records
from clusterbox.costs.meter_rates import Rates
from clusterbox.costs.meter_slurm import fetch_jobs
from clusterbox.costs.meter_time import month_of
from clusterbox.costs.prices import FOLDER, load_prices
from clusterbox.costs.spot import load_spot_prices, spot_file
from clusterbox.observe.cost_figures import CostFigures, price_times, sum_spending
from clusterbox.slurm import Slurm

# The whole month of jobs is asked for so often; in between only what changed since the last time.
WHOLE_SECONDS = 3600
# Slurm's database may learn of a job's end some minutes late.
OVERLAP_SECONDS = 900


@dataclass(frozen=True)
class ClusterCost:
    """What is known of a cluster: the figures, its budget, and how old the prices are by kind."""

    cluster: str
    region: str
    figures: CostFigures
    budget_usd: Decimal | None
    with_jobs: bool
    price_times: Mapping[str, float]


@dataclass
class JobHistory:
    """The jobs of a time that moves on; the accounting database is asked for what is new."""

    _jobs: tuple[JobRun, ...] = ()
    _read: int | None = None
    _whole: int | None = None

    def fetch(self, slurm: Slurm, since: int, at: int) -> tuple[JobRun, ...]:
        """Return the jobs from `since` to `at`; raises SlurmError, and then forgets nothing."""
        first = since
        # A clock that went back makes what was read a matter of the future: all is asked again.
        if (
            self._read is not None
            and self._whole is not None
            and self._whole <= self._read <= at < self._whole + WHOLE_SECONDS
        ):
            first = max(since, self._read - OVERLAP_SECONDS)
            fresh = fetch_jobs(slurm, first, at)
            jobs = order_runs([*self._jobs, *fresh])
        else:
            jobs = fetch_jobs(slurm, first, at)
            self._whole = at
        self._jobs = tuple(job for job in jobs if job.end is None or job.end > since)
        self._read = at
        return self._jobs


@dataclass
class PriceFiles:
    """The prices of a region, read again when their files in the repository change."""

    root: Path
    region: str
    _stamp: object = None
    _rates: Rates | None = None

    def load(self) -> Rates:
        """Return the prices; raises InputError for a damaged file."""
        stamp = tuple(
            _stamp(path)
            for path in (
                self.root / FOLDER / f"{self.region}.csv",
                spot_file(self.root, self.region),
            )
        )
        if self._rates is None or stamp != self._stamp:
            prices = load_prices(self.region, root=self.root)
            self._rates = Rates(prices, load_spot_prices(self.root, self.region))
            self._stamp = stamp
        return self._rates


@dataclass
class CostReader:
    """Reads one cluster; `open_doors` is called once, and again after a failure."""

    cluster: ComposedCluster
    prices: PriceFiles
    open_doors: Callable[[], Doors]
    timezone: tzinfo = UTC
    keep: Path | None = None
    clock: Callable[[], float] = time.time
    _doors: Doors | None = None
    _history: JobHistory = field(default_factory=JobHistory)

    def read(self) -> ClusterCost:
        """Return what the cluster costs now.

        Raises SlurmError, botocore's errors and those of the target: without one of its sources a
        cluster has no figures, since a sum that lacks a part would look like a cheaper cluster.
        """
        try:
            if self._doors is None:
                self._doors = self.open_doors()
            return self._read(self._doors)
        except BaseException:
            self._doors = None
            raise

    def _read(self, doors: Doors) -> ClusterCost:
        at = int(self.clock())
        rates = self.prices.load()
        since = min(month_of(at, self.timezone).start, at - TREND_SECONDS)
        jobs = self._history.fetch(doors.slurm, since, at) if doors.slurm else ()
        records = fetch_records(
            doors, self.cluster, rates.prices, since=since, at=at, jobs=jobs, keep=self.keep
        )
        spending = spending_now(
            records.usage,
            records.jobs,
            rates,
            cluster=self.cluster.name,
            at=at,
            timezone=self.timezone,
        )
        with_jobs = doors.slurm is not None
        return ClusterCost(
            self.cluster.name,
            self.prices.region,
            sum_spending(spending, records.usage, with_jobs=with_jobs),
            _budget(self.cluster),
            with_jobs,
            price_times(rates),
        )


def _budget(cluster: ComposedCluster) -> Decimal | None:
    environment = cluster.environment
    if environment is None or environment.budgets is None:
        return None
    budget = environment.budgets.clusters.get(cluster.name)
    return budget.monthly_usd if budget else None


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size
