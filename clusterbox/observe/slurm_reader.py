"""Ask slurmctld three things, and count: nodes, jobs and the scheduler's own figures.

Text is read, not JSON: for 10,000 jobs Slurm itself needs ten times as long to write that.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from clusterbox.errors import ClusterboxError
from clusterbox.observe.slurm_states import (
    JOB_STATES,
    NOT_WAITING_FOR_NODES,
    UNHEALTHY,
    WAITING,
    cause,
    count_tasks,
    launch_code,
    node_state,
    short_reason,
    split_node_name,
)
from clusterbox.slurm import Slurm, SlurmError, parse_scheduler_figures

NODES = ("scontrol", "show", "nodes", "--all", "--oneliner")
# A character that is in no name of a user, an account or a partition.
SEPARATOR = "\x1f"
_COLUMNS = ("%i", "%u", "%a", "%P", "%T", "%C", "%V", "%S", "%N", "%r")
JOBS = ("squeue", "--all", "--noheader", "--states=all", "-o", SEPARATOR.join(_COLUMNS))
SCHEDULER = ("sdiag",)
COMMANDS = {"nodes": NODES, "jobs": JOBS, "scheduler": SCHEDULER}
# Tasks of an array are all written out, and times are seconds since 1970 in whatever zone.
_ENVIRONMENT = {"SLURM_BITSTR_LEN": "0", "SLURM_TIME_FORMAT": "%s"}
_GPU = re.compile(r"gres/gpu=(\d+)")
_MIB = 1024 * 1024


class MalformedError(ClusterboxError):
    """Slurm printed something that it never prints."""


class Job(NamedTuple):
    """A job that has started: when it was submitted, and when it started, in seconds since 1970."""

    id: str
    partition: str
    submitted: int
    started: int


class Cpus(NamedTuple):
    """CPUs that jobs have, could have, could not have now, and all."""

    alloc: int
    idle: int
    other: int
    total: int

    def plus(self, more: Cpus) -> Cpus:
        """Return the sum."""
        return Cpus(
            self.alloc + more.alloc,
            self.idle + more.idle,
            self.other + more.other,
            self.total + more.total,
        )


NO_CPUS = Cpus(0, 0, 0, 0)


class NodeFigures(NamedTuple):
    """One node; memory in MiB."""

    name: str
    status: str
    cpus: Cpus
    memory_alloc: int
    memory_total: int
    watts: float | None
    is_powered_down: bool


@dataclass
class Nodes:
    """What is counted of nodes."""

    each: list[NodeFigures] = field(default_factory=list)
    by_state: Counter[str] = field(default_factory=Counter)
    by_partition: Counter[tuple[str, str]] = field(default_factory=Counter)
    by_resource: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    launch_failed: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    unhealthy: Counter[tuple[str, str]] = field(default_factory=Counter)
    cpus: Cpus = NO_CPUS
    partition_cpus: dict[str, Cpus] = field(default_factory=dict)
    requested_bytes: Counter[str] = field(default_factory=Counter)
    used_bytes: Counter[str] = field(default_factory=Counter)
    gpus_alloc: int = 0
    gpus_total: int = 0
    unknown: int = 0
    version: str = ""


@dataclass
class Jobs:
    """What is counted of jobs; tasks of arrays each count."""

    by_state: Counter[tuple[str, str]] = field(default_factory=Counter)
    by_reason: Counter[tuple[str, str]] = field(default_factory=Counter)
    by_user: Counter[tuple[str, str]] = field(default_factory=Counter)
    by_account: Counter[tuple[str, str]] = field(default_factory=Counter)
    oldest: dict[str, int] = field(default_factory=dict)
    started: list[Job] = field(default_factory=list)
    unknown: int = 0


@dataclass
class Snapshot:
    """What slurmctld said in one refresh: `taken` in seconds since 1970."""

    taken: float
    nodes: Nodes
    jobs: Jobs
    scheduler: Mapping[str, float]
    seconds: Mapping[str, float]


class RefreshError(ClusterboxError):
    """A command failed; `command` is its key in COMMANDS, `seconds` what each has taken."""

    def __init__(self, command: str, seconds: Mapping[str, float], reason: Exception) -> None:
        self.command, self.seconds = command, seconds
        super().__init__(f"{command}: {reason}")


def read_snapshot(slurm: Slurm, timeout_seconds: float) -> Snapshot:
    """Return what slurmctld says now.

    Raises RefreshError where a command fails, or all of them take longer than the time-out.
    """
    door = Slurm({**slurm.environment, **_ENVIRONMENT}, slurm.timeout_seconds)
    seconds: dict[str, float] = {}
    parsed: dict[str, object] = {}
    taken = time.time()
    parsers: dict[str, Callable[[str], object]] = {
        "nodes": read_nodes,
        "jobs": lambda text: read_jobs(text, taken),
        "scheduler": read_scheduler,
    }
    limit = time.monotonic() + timeout_seconds
    for name, words in COMMANDS.items():
        start = time.monotonic()
        try:
            # Never 0, which would mean no limit.
            text = door.run(*words, timeout_seconds=max(limit - start, 0.001))
            seconds[name] = time.monotonic() - start
            parsed[name] = parsers[name](text)
        except (SlurmError, MalformedError, ValueError, OSError) as error:
            seconds.setdefault(name, time.monotonic() - start)
            raise RefreshError(name, seconds, error) from error
    nodes, jobs, scheduler = parsed["nodes"], parsed["jobs"], parsed["scheduler"]
    assert isinstance(nodes, Nodes)  # noqa: S101 - the parser's own type
    assert isinstance(jobs, Jobs)  # noqa: S101
    assert isinstance(scheduler, dict)  # noqa: S101
    return Snapshot(taken, nodes, jobs, scheduler, seconds)


def read_scheduler(text: str) -> dict[str, float]:
    """Return the figures of `sdiag` by their labels; raises MalformedError where it has none."""
    figures = parse_scheduler_figures(text)
    if "Server thread count" not in figures:
        raise MalformedError("sdiag printed no figures")
    return figures


def read_nodes(text: str) -> Nodes:
    """Return the counts of `scontrol show nodes --oneliner`; raises MalformedError for another text."""
    found = Nodes()
    # Not splitlines(), which also splits at characters that a reason may hold.
    for line in text.split("\n"):
        if line.startswith("NodeName="):
            _add_node(found, line)
        elif line.strip() and "No nodes in the system" not in line:
            raise MalformedError(f"this is not a node of scontrol: {line[:120]!r}")
    return found


def _add_node(found: Nodes, line: str) -> None:
    name = _value(line, "NodeName=")
    words = _value(line, " State=")
    if not words:
        raise MalformedError(f"this node has no state: {line[:120]!r}")
    state = node_state(words)
    found.unknown += not state.is_known
    found.by_state[state.name] += 1
    total, alloc = int(_value(line, " CPUTot=") or 0), int(_value(line, " CPUAlloc=") or 0)
    left = total - alloc
    cpus = Cpus(alloc, left, 0, total) if state.takes_jobs else Cpus(alloc, 0, left, total)
    found.cpus = found.cpus.plus(cpus)
    memory, asked = int(_value(line, " RealMemory=") or 0), int(_value(line, " AllocMem=") or 0)
    free = _value(line, " FreeMem=")
    watts = _value(line, " CurrentWatts=")
    found.each.append(
        NodeFigures(
            name,
            state.long,
            cpus,
            asked,
            memory,
            float(watts) if watts.isdigit() and watts != "0" else None,
            state.is_powered_down,
        )
    )
    reason = _reason(line) if state.name in UNHEALTHY else ""
    split = split_node_name(name)
    listed = _value(line, " Partitions=")
    for partition in listed.split(",") if listed else ():
        found.by_partition[partition, state.power] += 1
        found.partition_cpus[partition] = found.partition_cpus.get(partition, NO_CPUS).plus(cpus)
        if asked:
            found.requested_bytes[partition] += asked * _MIB
        if state.is_up and free.isdigit():
            found.used_bytes[partition] += max(memory - int(free), 0) * _MIB
        if state.name in UNHEALTHY:
            found.unhealthy[partition, cause(reason)] += 1
    if split is not None:
        found.by_resource[split[0], split[1], state.power] += 1
        if reason and (code := launch_code(reason)) is not None:
            found.launch_failed[split[0], split[1], code] += 1
    if "gres/gpu" in line:
        found.gpus_total += _count_gpus(_value(line, " CfgTRES="))
        found.gpus_alloc += _count_gpus(_value(line, " AllocTRES="))
    if not found.version and (version := _value(line, " Version=")):
        found.version = version


def _value(line: str, key: str) -> str:
    """Return the value of a key; empty where it has none."""
    if key == "NodeName=":
        return line[9 : line.find(" ")] if " " in line else line[9:]
    start = line.find(key)
    if start < 0:
        return ""
    start += len(key)
    end = line.find(" ", start)
    return line[start:] if end < 0 else line[start:end]


def _reason(line: str) -> str:
    start = line.find(" Reason=")
    if start < 0:
        return ""
    return line[start + 8 :].rsplit(" [", 1)[0].strip()


def _count_gpus(tres: str) -> int:
    found = _GPU.search(tres)
    return int(found[1]) if found else 0


def read_jobs(text: str, now: float) -> Jobs:
    """Return the counts of `squeue` in the format of JOBS; raises MalformedError for another text."""
    found = Jobs()
    # Jobs that are alike in all that is counted are counted first, and looked at once.
    alike: dict[tuple[str, ...], int] = {}
    oldest: dict[tuple[str, ...], str] = {}
    for line in text.split("\n"):
        if not line:
            continue
        cells = line.split(SEPARATOR)
        if len(cells) != len(_COLUMNS):
            raise MalformedError(f"this is not a job of squeue: {line[:120]!r}")
        ident, user, account, partitions, state, cpus, submitted, started, nodes, reason = cells
        kind: tuple[str, ...] = (user, account, partitions, state, cpus, reason)
        alike[kind] = alike.get(kind, 0) + _count(ident)
        if state in WAITING:
            # Seconds since 1970 have as many digits as each other; other texts sort after them.
            oldest[kind] = min(oldest.get(kind, submitted), submitted)
        # Slurm sets the start anew when nodes have been powered up, and gives one to jobs that end
        # without: those have no nodes.
        elif nodes and state != "CONFIGURING" and _is_before(started, now) and submitted.isdigit():
            partition = partitions.split(",", 1)[0]
            found.started.append(Job(ident, partition, int(submitted), int(started)))
    for kind, count in alike.items():
        _add_jobs(found, kind, count, oldest.get(kind, ""), now)
    return found


def _count(ident: str) -> int:
    if "_[" not in ident:
        return 1
    try:
        return count_tasks(ident)
    except ValueError as error:
        raise MalformedError(f"this is not the id of a job: {ident[:120]!r}") from error


def _add_jobs(found: Jobs, kind: tuple[str, ...], count: int, oldest: str, now: float) -> None:
    user, account, partitions, state, cpus, reason = kind
    if state not in JOB_STATES:
        found.unknown += count
        state = "OTHER"
    # A job that may run in several partitions waits in each; it is told of the first.
    partition = partitions.split(",", 1)[0]
    found.by_state[partition, state] += count
    figure = _figure(state)
    if figure is not None:
        found.by_user[user, figure] += count
        found.by_account[account, figure] += count
        if figure == "jobs_running":
            found.by_user[user, "cpus_running"] += int(cpus or 0) * count
            found.by_account[account, "cpus_running"] += int(cpus or 0) * count
    if state in WAITING:
        reason = short_reason(reason)
        found.by_reason[partition, reason] += count
        if reason not in NOT_WAITING_FOR_NODES and oldest.isdigit():
            found.oldest[partition] = min(found.oldest.get(partition, int(now)), int(oldest))


def _is_before(seconds: str, now: float) -> bool:
    return seconds.isdigit() and int(seconds) <= now


def _figure(state: str) -> str | None:
    """Return which figure of a user a job counts in; the Go exporter knows these three states."""
    if state in WAITING:
        return "jobs_pending"
    return {"RUNNING": "jobs_running", "SUSPENDED": "jobs_suspended"}.get(state)
