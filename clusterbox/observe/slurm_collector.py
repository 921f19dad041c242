"""Slurm as Prometheus metrics: what the three commands of a refresh told, and of the slower poll."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from clusterbox.errors import ClusterboxError
from clusterbox.observe.metrics import METRICS
from clusterbox.observe.refresh import Refreshed
from clusterbox.observe.slurm_accounting import OTHER, Ended, EndedJobs, Slow, read_slow
from clusterbox.observe.slurm_reader import (
    COMMANDS,
    Job,
    RefreshError,
    Snapshot,
    read_snapshot,
)
from clusterbox.observe.slurm_states import NODE_STATES, WAITING
from clusterbox.slurm import Slurm

# slurmctld is asked no more often, however many scrapers there are.
REFRESH_SECONDS = 15.0
# Less than the 10 s after which Prometheus gives a scrape up by default.
TIMEOUT_SECONDS = 8.0
MOST_LABELS = 500
# What changes seldom is asked for beside the scrapes, which do not wait for it.
_POLL_SECONDS = 60.0
_POLL_COMMAND_SECONDS = 30.0
# Without a poll for that long, what the last one said is not told any more.
_POLL_AGE_SECONDS = 3 * _POLL_SECONDS
_MOST_REASONS = 50
# From a warm node to a day in the queue.
_WAIT_BUCKETS = (10, 30, 60, 120, 300, 600, 1800, 3600, 4 * 3600, 12 * 3600, 24 * 3600)
# The Go exporter's names of states of jobs.
_QUEUE = {
    "cancelled": "CANCELLED",
    "completed": "COMPLETED",
    "completing": "COMPLETING",
    "configuring": "CONFIGURING",
    "failed": "FAILED",
    "node_fail": "NODE_FAIL",
    "preempted": "PREEMPTED",
    "running": "RUNNING",
    "suspended": "SUSPENDED",
    "timeout": "TIMEOUT",
}
# Its names of what sdiag says; our parser puts the section before labels that occur twice.
_SCHEDULER = {
    "threads": "Server thread count",
    "queue_size": "Agent queue size",
    "dbd_queue_size": "DBD Agent queue size",
    "last_cycle": "Main Last cycle",
    "mean_cycle": "Main Mean cycle",
    "cycle_per_minute": "Main Cycles per minute",
    "backfill_last_cycle": "Backfill Last cycle",
    "backfill_mean_cycle": "Backfill Mean cycle",
    "backfill_depth_mean": "Backfill Depth Mean",
    "backfilled_jobs_since_start_total": "Backfill Total backfilled jobs (since last slurm start)",
    "backfilled_jobs_since_cycle_total": (
        "Backfill Total backfilled jobs (since last stats cycle start)"
    ),
    "backfilled_heterogeneous_total": "Backfill Total backfilled heterogeneous job components",
}
Labels = TypeVar("Labels", bound=tuple[str, ...])
_EVENTS = ("submitted", "started", "completed", "canceled", "failed")


@dataclass
class WaitTimes:
    """A histogram of the time from submission to start, of jobs that started meanwhile."""

    since: float
    buckets: dict[str, list[int]] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    _seen: set[tuple[str, int]] = field(default_factory=set)

    def add(self, started: Iterable[Job]) -> None:
        """Count the jobs that were not there before; a job that was requeued counts again."""
        seen = set()
        for job in started:
            key = (job.id, job.started)
            seen.add(key)
            if key in self._seen or job.started < self.since:
                continue
            waited = max(job.started - job.submitted, 0)
            counts = self.buckets.setdefault(job.partition, [0] * (len(_WAIT_BUCKETS) + 1))
            place = next(
                (i for i, limit in enumerate(_WAIT_BUCKETS) if waited <= limit), len(_WAIT_BUCKETS)
            )
            counts[place] += 1
            self.sums[job.partition] = self.sums.get(job.partition, 0.0) + waited
        # What slurmctld has forgotten does not come back.
        self._seen = seen

    def family(self) -> HistogramMetricFamily:
        """Return it for Prometheus."""
        family = HistogramMetricFamily(
            "slurm_job_wait_seconds", METRICS["slurm_job_wait_seconds"].help, labels=["partition"]
        )
        for partition, counts in sorted(self.buckets.items()):
            total, buckets = 0, []
            for limit, count in zip((*map(float, _WAIT_BUCKETS), "+Inf"), counts, strict=True):
                total += count
                buckets.append((str(limit), total))
            family.add_metric([partition], buckets, sum_value=self.sums[partition])
        return family


@dataclass(frozen=True)
class Poll:
    """What the slower poll said, at a monotonic time; None is what could not be had."""

    at: float
    slow: Slow | None
    ended: Ended | None


class SlurmCollector(Collector):
    """Everything about one Slurm; scrapes at the same time share one refresh.

    `poll()` once, or `start()` to poll in the background, adds what is asked more seldom.
    """

    def __init__(
        self,
        slurm: Slurm,
        *,
        refresh_seconds: float = REFRESH_SECONDS,
        timeout_seconds: float = TIMEOUT_SECONDS,
        most_labels: int = MOST_LABELS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`timeout_seconds`: of the three commands together.

        `most_labels` are the users, and accounts, told by name; the rest is told as `other`.
        """
        self._slurm = slurm
        self._timeout_seconds = timeout_seconds
        self._most_labels = most_labels
        self._clock = clock
        # Slurm tells of whole seconds.
        self._waits = WaitTimes(int(time.time()))
        self._waits_lock = threading.Lock()
        self._ended = EndedJobs(most_labels)
        self._poll: Poll | None = None
        self._failures: Counter[str] = Counter()
        self._seconds: dict[str, float] = {}
        self._unknown: Counter[str] = Counter()
        self.snapshots = Refreshed(self._refresh, refresh_seconds, clock)

    def describe(self) -> Iterable[Family]:
        """Return nothing: registering must not ask slurmctld."""
        return []

    def collect(self) -> Iterator[Family]:
        """Yield all metrics; where slurmctld does not answer, those that do not come from it."""
        try:
            snapshot: Snapshot | None = self.snapshots.get()
        except ClusterboxError:
            snapshot = None
        yield _gauge("slurm_up", snapshot is not None)
        if snapshot is not None:
            yield from _nodes(snapshot)
            yield from self._jobs(snapshot)
            yield from _scheduler(snapshot.scheduler)
        poll = self._poll
        if poll is not None and self._clock() - poll.at < _POLL_AGE_SECONDS:
            if snapshot is not None and poll.slow is not None:
                yield from _slow(poll.slow)
            yield _gauge("slurm_accounting_up", poll.ended is not None)
            if poll.ended is not None:
                yield from _ended(poll.ended)
        yield from self._own(snapshot)

    def poll(self) -> None:
        """Ask for what changes seldom: partitions, licences, ended jobs."""
        at = self._clock()
        slow = ended = None
        environment = {**self._slurm.environment, "SLURM_TIME_FORMAT": "%s"}
        try:
            slow = read_slow(self._slurm, _POLL_COMMAND_SECONDS)
        except (ClusterboxError, ValueError, OSError):
            self._failures["partitions"] += 1
        try:
            ended = self._ended.read(Slurm(environment), _POLL_COMMAND_SECONDS)
        except (ClusterboxError, ValueError, OSError):
            self._failures["accounting"] += 1
        self._poll = Poll(at, slow, ended)

    def start(self) -> None:
        """Poll now and from then on each minute, until the process ends."""

        def run() -> None:
            while True:
                self.poll()
                time.sleep(_POLL_SECONDS)

        threading.Thread(target=run, name="poll", daemon=True).start()

    def _refresh(self) -> Snapshot:
        try:
            snapshot = read_snapshot(self._slurm, self._timeout_seconds)
        except RefreshError as error:
            self._failures[error.command] += 1
            self._seconds = dict(error.seconds)
            raise
        self._seconds = dict(snapshot.seconds)
        self._unknown["node"] += snapshot.nodes.unknown
        self._unknown["job"] += snapshot.jobs.unknown
        with self._waits_lock:
            self._waits.add(snapshot.jobs.started)
        return snapshot

    def _jobs(self, snapshot: Snapshot) -> Iterator[Family]:
        jobs = snapshot.jobs
        states = _family("slurm_jobs")
        totals: Counter[str] = Counter()
        pending: Counter[str] = Counter()
        for (partition, state), count in sorted(jobs.by_state.items()):
            states.add_metric([partition, state.lower()], count)
            totals[state] += count
            if state in WAITING:
                pending[partition] += count
        yield states
        yield _reasons(jobs.by_reason)
        for name, state in _QUEUE.items():
            yield _gauge(f"slurm_queue_{name}", totals[state])
        yield _gauge("slurm_queue_pending", sum(pending.values()))
        dependency = sum(n for (_, reason), n in jobs.by_reason.items() if reason == "Dependency")
        yield _gauge("slurm_queue_pending_dependency", dependency)
        per_partition = _family("slurm_partition_jobs_pending")
        for partition in sorted({*snapshot.nodes.partition_cpus, *pending}):
            per_partition.add_metric([partition], pending[partition])
        yield per_partition
        oldest = _family("slurm_oldest_pending_job_seconds")
        for partition, since in sorted(jobs.oldest.items()):
            oldest.add_metric([partition], max(snapshot.taken - since, 0))
        yield oldest
        for kind, counts in (("account", jobs.by_account), ("user", jobs.by_user)):
            yield from self._of(kind, counts)
        with self._waits_lock:
            waits = self._waits.family()
        yield waits

    def _of(self, kind: str, counts: Mapping[tuple[str, str], int]) -> Iterator[Family]:
        names = self._chosen(counts)
        families = {
            figure: _family(f"slurm_{kind}_{figure}")
            for figure in ("jobs_pending", "jobs_running", "jobs_suspended", "cpus_running")
        }
        sums: Counter[tuple[str, str]] = Counter()
        for (name, figure), count in counts.items():
            sums[name if name in names else OTHER, figure] += count
        for name in sorted({name for name, _ in sums}):
            for figure, family in families.items():
                family.add_metric([name], sums[name, figure])
        yield from families.values()

    def _chosen(self, counts: Mapping[tuple[str, str], int]) -> set[str]:
        """Return those that are told by name: the ones with the most jobs."""
        totals: Counter[str] = Counter()
        for (name, _), count in counts.items():
            totals[name] += count
        return {name for name, _ in totals.most_common(self._most_labels)}

    def _own(self, snapshot: Snapshot | None) -> Iterator[Family]:
        unknown = _counter("slurm_unknown_states_total")
        for kind in ("node", "job"):
            unknown.add_metric([kind], self._unknown[kind])
        if self._poll is not None and self._poll.ended is not None:
            unknown.add_metric(["ended_job"], self._poll.ended.unknown_states)
        yield unknown
        failures = _counter("slurm_exporter_command_failures_total")
        durations = _family("slurm_exporter_command_duration_seconds")
        for command in (*COMMANDS, "partitions", "accounting"):
            failures.add_metric([command], self._failures[command])
            if command in self._seconds:
                durations.add_metric([command], self._seconds[command])
        yield failures
        yield durations
        refreshes = _counter("slurm_exporter_refreshes_total")
        refreshes.add_metric([], self.snapshots.count)
        yield refreshes
        if snapshot is not None:
            yield _gauge("slurm_exporter_data_age_seconds", max(time.time() - snapshot.taken, 0.0))
            dropped = _family("slurm_exporter_labels_dropped")
            for kind, counts in (
                ("account", snapshot.jobs.by_account),
                ("user", snapshot.jobs.by_user),
            ):
                several = len({name for name, _ in counts}) - self._most_labels
                dropped.add_metric([kind], max(several, 0))
            yield dropped


def _slow(slow: Slow) -> Iterator[Family]:
    inactive = _family("slurm_partition_inactive")
    for partition, is_inactive in sorted(slow.inactive.items()):
        inactive.add_metric([partition], is_inactive)
    yield inactive
    for figure in ("total", "used", "free"):
        family = _family(f"slurm_licenses_{figure}")
        for name, licence in sorted(slow.licences.items()):
            family.add_metric([name], getattr(licence, figure))
        yield family


def _ended(ended: Ended) -> Iterator[Family]:
    jobs = _counter("slurm_jobs_ended_total")
    for (partition, state), count in sorted(ended.by_state.items()):
        jobs.add_metric([partition, state.lower()], count)
    yield jobs
    for name, seconds in (
        ("slurm_ended_jobs_cpu_used_seconds_total", ended.used_seconds),
        ("slurm_ended_jobs_cpu_allocated_seconds_total", ended.allocated_seconds),
    ):
        family = _counter(name)
        for (partition, user), value in sorted(seconds.items()):
            family.add_metric([partition, user], value)
        yield family


def _reasons(by_reason: Mapping[tuple[str, str], int]) -> Family:
    totals: Counter[str] = Counter()
    for (_, reason), count in by_reason.items():
        totals[reason] += count
    named = {reason for reason, _ in totals.most_common(_MOST_REASONS)}
    sums: Counter[tuple[str, str]] = Counter()
    for (partition, reason), count in by_reason.items():
        sums[partition, reason if reason in named else OTHER] += count
    return _counted("slurm_pending_jobs", sums)


def _nodes(snapshot: Snapshot) -> Iterator[Family]:
    nodes = snapshot.nodes
    # Nodes of a cloud of which there is no machine now have no series of their own.
    up = [node for node in nodes.each if not node.is_powered_down]
    info = _family("slurm_info")
    info.add_metric([nodes.version or "unknown"], 1)
    yield info
    for state in ("alloc", "comp", "down", "drain", "err", "fail", "idle", "maint", "mix", "resv"):
        yield _gauge(f"slurm_nodes_{state}", nodes.by_state[state])
    for figure in ("alloc", "idle", "other", "total"):
        yield _gauge(f"slurm_cpus_{figure}", getattr(nodes.cpus, figure))
        family = _family(f"slurm_partition_cpus_{'allocated' if figure == 'alloc' else figure}")
        each = _family(f"slurm_node_cpu_{figure}")
        for partition, cpus in sorted(nodes.partition_cpus.items()):
            family.add_metric([partition], getattr(cpus, figure))
        for node in up:
            each.add_metric([node.name, node.status], getattr(node.cpus, figure))
        yield family
        yield each
    alloc, total = _family("slurm_node_mem_alloc"), _family("slurm_node_mem_total")
    watts = _family("slurm_node_power_watts")
    for node in up:
        alloc.add_metric([node.name, node.status], node.memory_alloc)
        total.add_metric([node.name, node.status], node.memory_total)
        if node.watts is not None:
            watts.add_metric([node.name], node.watts)
    yield from (alloc, total, watts)
    by_partition = _family("slurm_partition_nodes")
    for partition in sorted(nodes.partition_cpus):
        # All states, so that a graph of one does not break off where there is none of it.
        for state in NODE_STATES:
            by_partition.add_metric([partition, state], nodes.by_partition[partition, state])
    yield by_partition
    yield _counted("slurm_compute_resource_nodes", nodes.by_resource)
    yield _counted("slurm_launch_failed_nodes", nodes.launch_failed)
    yield _counted("slurm_unhealthy_nodes", nodes.unhealthy)
    for name, values in (
        ("slurm_memory_requested_bytes", nodes.requested_bytes),
        ("slurm_memory_used_bytes", nodes.used_bytes),
    ):
        family = _family(name)
        for partition in sorted(nodes.partition_cpus):
            family.add_metric([partition], values[partition])
        yield family
    yield _gauge("slurm_gpus_alloc", nodes.gpus_alloc)
    yield _gauge("slurm_gpus_idle", nodes.gpus_total - nodes.gpus_alloc)
    yield _gauge("slurm_gpus_total", nodes.gpus_total)
    if nodes.gpus_total:
        yield _gauge("slurm_gpus_utilization", nodes.gpus_alloc / nodes.gpus_total)


def _scheduler(figures: Mapping[str, float]) -> Iterator[Family]:
    for name, label in _SCHEDULER.items():
        # One that this version of Slurm does not have, or has not measured yet, is left out.
        if label in figures:
            yield _gauge(f"slurm_scheduler_{name}", figures[label])
    events = _counter("slurm_scheduler_jobs_total")
    for event in _EVENTS:
        if (label := f"Jobs {event}") in figures:
            events.add_metric([event], figures[label])
    yield events


def _counted(name: str, counts: Mapping[Labels, int]) -> GaugeMetricFamily:
    family = _family(name)
    for labels, count in sorted(counts.items()):
        family.add_metric(list(labels), count)
    return family


def _family(name: str) -> GaugeMetricFamily:
    metric = METRICS[name]
    return GaugeMetricFamily(name, metric.help, labels=list(metric.labels))


def _counter(name: str) -> CounterMetricFamily:
    metric = METRICS[name]
    return CounterMetricFamily(name, metric.help, labels=list(metric.labels))


def _gauge(name: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, METRICS[name].help, value=value)
