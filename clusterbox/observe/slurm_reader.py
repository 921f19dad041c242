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
    WAITING,
    cause,
    count_tasks,
    launch_code,
    node_state,
    split_node_name,
)
from clusterbox.slurm import Slurm, SlurmError, parse_scheduler_figures

NODES = ("scontrol", "show", "nodes", "--all", "--oneliner")
# The reason comes last: it is the only column that may hold a separator.
JOBS = ("squeue", "--all", "--noheader", "--states=all", "-o", "%i|%u|%a|%P|%T|%C|%V|%S|%r")
SCHEDULER = ("sdiag",)
COMMANDS = {"nodes": NODES, "jobs": JOBS, "scheduler": SCHEDULER}
# Tasks of an array are all written out, and times are seconds since 1970 in whatever zone.
_ENVIRONMENT = {"SLURM_BITSTR_LEN": "0", "SLURM_TIME_FORMAT": "%s"}
_GPU = re.compile(r"gres/gpu=(\d+)")
_MIB = 1024 * 1024
_TAKES_JOBS = frozenset({"alloc", "mix", "idle", "comp", "resv"})
_UNHEALTHY = frozenset({"down", "drain", "fail", "err"})
# Nodes that tell nothing of their memory; what Slurm then still has of it is old.
_NOT_UP = frozenset({"powered_down", "powering_up", "powering_down", "down"})


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
    state: str
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
    """Return what slurmctld says now; raises RefreshError where a command fails or is too slow."""
    door = Slurm({**slurm.environment, **_ENVIRONMENT}, slurm.timeout_seconds)
    seconds: dict[str, float] = {}
    parsed: dict[str, object] = {}
    taken = time.time()
    parsers: dict[str, Callable[[str], object]] = {
        "nodes": read_nodes,
        "jobs": lambda text: read_jobs(text, taken),
        "scheduler": parse_scheduler_figures,
    }
    for name, words in COMMANDS.items():
        start = time.monotonic()
        try:
            text = door.run(*words, timeout_seconds=timeout_seconds)
            seconds[name] = time.monotonic() - start
            parsed[name] = parsers[name](text)
        except (SlurmError, MalformedError, ValueError) as error:
            seconds.setdefault(name, time.monotonic() - start)
            raise RefreshError(name, seconds, error) from error
    nodes, jobs, scheduler = parsed["nodes"], parsed["jobs"], parsed["scheduler"]
    assert isinstance(nodes, Nodes)  # noqa: S101 - the parser's own type
    assert isinstance(jobs, Jobs)  # noqa: S101
    assert isinstance(scheduler, dict)  # noqa: S101
    if not scheduler:
        raise RefreshError("scheduler", seconds, MalformedError("sdiag printed no figures"))
    return Snapshot(taken, nodes, jobs, scheduler, seconds)


def read_nodes(text: str) -> Nodes:
    """Return the counts of `scontrol show nodes --oneliner`; raises MalformedError for another text."""
    found = Nodes()
    for line in text.splitlines():
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
    state, power, known = node_state(words)
    found.unknown += not known
    found.by_state[state] += 1
    total, alloc = int(_value(line, " CPUTot=") or 0), int(_value(line, " CPUAlloc=") or 0)
    left = total - alloc
    cpus = Cpus(alloc, left, 0, total) if state in _TAKES_JOBS else Cpus(alloc, 0, left, total)
    found.cpus = found.cpus.plus(cpus)
    memory, asked = int(_value(line, " RealMemory=") or 0), int(_value(line, " AllocMem=") or 0)
    free = _value(line, " FreeMem=")
    watts = _value(line, " CurrentWatts=")
    found.each.append(
        NodeFigures(
            name,
            state,
            cpus,
            asked,
            memory,
            float(watts) if watts.isdigit() and watts != "0" else None,
            power == "powered_down",
        )
    )
    reason = _reason(line) if state in _UNHEALTHY else ""
    split = split_node_name(name)
    listed = _value(line, " Partitions=")
    for partition in listed.split(",") if listed else ():
        found.by_partition[partition, power] += 1
        found.partition_cpus[partition] = found.partition_cpus.get(partition, NO_CPUS).plus(cpus)
        if asked:
            found.requested_bytes[partition] += asked * _MIB
        if power not in _NOT_UP and free.isdigit():
            found.used_bytes[partition] += max(memory - int(free), 0) * _MIB
        if state in _UNHEALTHY:
            found.unhealthy[partition, cause(reason)] += 1
    if split is not None:
        found.by_resource[split[0], split[1], power] += 1
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
    for line in text.splitlines():
        cells = line.split("|", 8)
        if len(cells) != 9:
            raise MalformedError(f"this is not a job of squeue: {line[:120]!r}")
        _add_job(found, cells, now)
    return found


def _add_job(found: Jobs, cells: list[str], now: float) -> None:
    ident, user, account, partitions, state, cpus, submitted, started, reason = cells
    if state not in JOB_STATES:
        found.unknown += 1
        state = "OTHER"
    try:
        count = count_tasks(ident)
    except ValueError as error:
        raise MalformedError(f"this is not the id of a job: {ident[:120]!r}") from error
    # A job that may run in several partitions waits in each; it is told of the first.
    partition = partitions.split(",", 1)[0]
    found.by_state[partition, state] += count
    kind = _kind(state)
    if kind is not None:
        found.by_user[user, kind] += count
        found.by_account[account, kind] += count
        if kind == "jobs_running":
            found.by_user[user, "cpus_running"] += int(cpus or 0)
            found.by_account[account, "cpus_running"] += int(cpus or 0)
    if state in WAITING:
        found.by_reason[partition, reason] += count
        if reason not in NOT_WAITING_FOR_NODES and submitted.isdigit():
            waiting = found.oldest.get(partition, int(now))
            found.oldest[partition] = min(waiting, int(submitted))
    elif submitted.isdigit() and started.isdigit() and int(started) <= now:
        found.started.append(Job(ident, partition, int(submitted), int(started)))


def _kind(state: str) -> str | None:
    if state in WAITING:
        return "jobs_pending"
    if state == "SUSPENDED":
        return "jobs_suspended"
    # A job whose nodes boot, or that cleans up, has its CPUs.
    return "jobs_running" if state in ("RUNNING", "CONFIGURING", "COMPLETING", "STOPPED") else None
