"""Which instance a job ran on, and when an instance ended of which nobody saw the end."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from statistics import median_low

from clusterbox.costs.jobs import JobRun
from clusterbox.costs.usage import InstanceRun

# When ParallelCluster takes away an idle node (its default of ScaledownIdletime).
IDLE_SECONDS = 600
# Slurm ends a job some time after its limit (KillWait, and its look every minute).
GRACE_SECONDS = 90
_FOREVER = 1 << 62


@dataclass(frozen=True)
class Placed:
    """A job on one instance: from, to, and its share of the node (0 to 1).

    Where the node's size is not known, `share` is the number of the job's CPUs.
    """

    job: JobRun
    start: int
    end: int
    share: Fraction


@dataclass(frozen=True)
class Unplaced:
    """A job with the number of its nodes of which no instance is known."""

    job: JobRun
    nodes: int


def settle_ends(runs: Sequence[InstanceRun], jobs: Sequence[JobRun], at: int) -> list[InstanceRun]:
    """Return the runs as they are known at `at`; a lost end is put where the evidence has it.

    A run without an end has ended when the record is of an earlier look (`seen`), or when a later
    instance has its node's name, or its own id. It then ended 10 minutes, ParallelCluster's idle
    time, after the last job that ran there, not before it was last seen and not after the next one
    began. A head or login node ended when it was last seen, else when the next one began. No
    instance runs twice at a time: one that was started again had ended by then.
    """
    following = _following_starts(runs)
    restarts = _restarts(runs)
    spans = _job_spans(jobs)
    settled = []
    for run in runs:
        if run.start >= at:
            continue
        if run.end is None:
            after = following.get((run.instance, run.start))
            if run.seen is not None or (after is not None and after < at):
                end = _estimate_end(run, spans, min(at, after or at))
                run = replace(run, end=end)
        again = restarts.get((run.instance, run.start))
        if again is not None and run.end is not None and run.end > again:
            run = replace(run, end=again)
        settled.append(run)
    return settled


def place_jobs(
    runs: Sequence[InstanceRun], jobs: Sequence[JobRun]
) -> tuple[dict[int, list[Placed]], list[Unplaced]]:
    """Return the jobs on each run by its place in `runs`, and those with a node that has none.

    On each of its nodes a job ran on one instance: the one that overlaps it most. Its CPUs and GPUs
    are taken to be spread evenly over its nodes; the share is that of the CPUs or of the GPUs,
    whichever is larger. A node that is given to one job alone is that job's wholly, because Slurm
    then allocates all its CPUs.

    A job whose end nobody recorded runs while its node does, at most to its time limit. If the node
    has ended, the job is taken to have run as long as most jobs of that user and name.
    """
    by_node: dict[str, list[int]] = defaultdict(list)
    for number, run in enumerate(runs):
        if run.node is not None:
            by_node[run.node].append(number)
    for numbers in by_node.values():
        numbers.sort(key=lambda number: runs[number].start)
    starts = {node: [runs[number].start for number in by_node[node]] for node in by_node}
    typical = _typical_seconds(jobs)
    placed: dict[int, list[Placed]] = defaultdict(list)
    unplaced = []
    for job in jobs:
        end = _latest_end(job)
        missing = 0
        for node in job.nodes:
            best = _most_overlapping(runs, by_node[node], starts.get(node, []), job, end)
            if best is None:
                missing += 1
                continue
            run = runs[best]
            stop = min(end, _end(run))
            if job.end is None and run.end is not None:
                stop = min(stop, job.start + typical.get((job.user, job.name), _FOREVER))
            start = max(job.start, run.start)
            placed[best].append(Placed(job, start, max(start, stop), _share(job, run)))
        if missing and end > job.start:
            unplaced.append(Unplaced(job, missing))
    return placed, unplaced


def _latest_end(job: JobRun) -> int:
    """Return a job's end; of one without an end what its time limit leaves it."""
    if job.end is not None:
        return job.end
    if job.limit_seconds is None:
        return _FOREVER
    return job.start + job.limit_seconds + GRACE_SECONDS


def _typical_seconds(jobs: Sequence[JobRun]) -> Mapping[tuple[str, str], int]:
    """Return the median length of the runs that ended, by user and name of the job."""
    lengths: dict[tuple[str, str], list[int]] = defaultdict(list)
    for job in jobs:
        if job.end is not None:
            lengths[job.user, job.name].append(job.end - job.start)
    return {key: median_low(found) for key, found in lengths.items()}


def _most_overlapping(
    runs: Sequence[InstanceRun],
    numbers: Sequence[int],
    starts: Sequence[int],
    job: JobRun,
    end: int,
) -> int | None:
    """Return the run with the longest overlap, the earliest of several alike; None without any."""
    best, longest = None, 0
    # One that began before the job, and what began while it ran.
    first = max(0, bisect_left(starts, job.start) - 2)
    for number in numbers[first : bisect_left(starts, end)]:
        overlap = min(end, _end(runs[number])) - max(job.start, runs[number].start)
        if overlap > longest:
            best, longest = number, overlap
            if job.end is None:
                # It cannot have outlived the node that it started on.
                break
    return best


def _end(run: InstanceRun) -> int:
    return _FOREVER if run.end is None else run.end


def _share(job: JobRun, run: InstanceRun) -> Fraction:
    nodes = len(job.nodes)
    if not run.cpus:
        return Fraction(max(1, job.cpus), nodes)
    share = Fraction(job.cpus, nodes * run.cpus)
    if run.gpus:
        share = max(share, Fraction(job.gpus, nodes * run.gpus))
    return min(Fraction(1), share)


def _following_starts(runs: Sequence[InstanceRun]) -> Mapping[tuple[str, int], int]:
    """Return when the next instance began of the same node, or with the same id."""
    following: dict[tuple[str, int], int] = {}
    names: dict[str, list[InstanceRun]] = defaultdict(list)
    for run in runs:
        names[f"instance {run.instance}"].append(run)
        if run.node is not None:
            names[f"node {run.node}"].append(run)
    for group in names.values():
        group.sort(key=lambda run: run.start)
        for run, later in pairwise(group):
            key = (run.instance, run.start)
            if later.start > run.start:
                following[key] = min(following.get(key, later.start), later.start)
    return following


def _restarts(runs: Sequence[InstanceRun]) -> Mapping[tuple[str, int], int]:
    """Return when the same instance was started again."""
    starts: dict[str, set[int]] = defaultdict(set)
    for run in runs:
        starts[run.instance].add(run.start)
    return {
        (instance, start): later
        for instance, found in starts.items()
        for start, later in pairwise(sorted(found))
    }


def _job_spans(jobs: Sequence[JobRun]) -> Mapping[str, list[tuple[int, int]]]:
    """Return start and end of the jobs on each node."""
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for job in jobs:
        for node in job.nodes:
            found[node].append((job.start, job.start if job.end is None else job.end))
    return found


def _estimate_end(
    run: InstanceRun, jobs: Mapping[str, Sequence[tuple[int, int]]], latest: int
) -> int:
    if run.node_type != "Compute":
        return latest if run.seen is None else min(latest, run.seen)
    spans = jobs.get(run.node or "", ())
    ends = [end for start, end in spans if run.start <= start < latest]
    return min(latest, max(max([run.start, *ends]) + IDLE_SECONDS, run.seen or run.start))
