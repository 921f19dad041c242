"""Read what a cluster uses from Slurm: jobs from `sacct`, and when nodes were powered up.

Slurm's database has an event for each time that a node is powered down; between two of them the
node had an instance.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from clusterbox.costs.jobs import SACCT_COLUMNS, JobRun, parse_sacct
from clusterbox.costs.usage import parse_time
from clusterbox.slurm import Node, Slurm

_POWERED_DOWN = "~"
_AFTER_SUSPEND = "Powered down after SuspendTimeout"
_UNKNOWN = ("", "Unknown", "None")


@dataclass(frozen=True)
class NodeTime:
    """A node from its resume to its power-down, None while it is up; seconds since 1970 in UTC."""

    node: str
    start: int
    end: int | None


@dataclass(frozen=True)
class NodeFacts:
    """A node as Slurm has it now: what jobs can have there, its address, since when it is ready."""

    name: str
    cpus: int
    gpus: int
    address: str | None
    ready: int | None
    is_up: bool


def fetch_jobs(slurm: Slurm, since: int, until: int) -> tuple[JobRun, ...]:
    """Return all job runs of a time from the accounting database; raises SlurmError."""
    text = slurm.run(
        "sacct",
        "--allusers",
        "--allocations",
        "--duplicates",
        "--parsable2",
        f"--starttime={_slurm_time(since)}",
        f"--endtime={_slurm_time(until)}",
        f"--format={','.join(SACCT_COLUMNS)}",
    )
    return parse_sacct(text, name="sacct")


def fetch_node_times(slurm: Slurm, since: int) -> list[NodeTime]:
    """Return when each node was up since a time, by the events of the accounting database."""
    rows = slurm.fetch_table(
        "sacctmgr",
        "--parsable2",
        "show",
        "event",
        f"start={_slurm_time(since)}",
        "format=NodeName,TimeStart,TimeEnd,State,Reason",
    )
    timeout = slurm.fetch_configuration().get("SuspendTimeout", "0").split(" ")[0]
    return read_node_times(rows, int(timeout) if timeout.isdigit() else 0)


def read_node_times(rows: Iterable[Mapping[str, str]], suspend_timeout: int) -> list[NodeTime]:
    """Return when each node was up, from the rows of `sacctmgr show event`.

    Slurm calls a node powered down only `suspend_timeout` seconds after it told the cloud to end
    the instance, so that much is taken off.
    """
    events: dict[str, list[tuple[int, int | None, str]]] = defaultdict(list)
    for row in rows:
        if row["NodeName"] and _POWERED_DOWN in row["State"]:
            end = None if row["TimeEnd"] in _UNKNOWN else parse_time(row["TimeEnd"])
            events[row["NodeName"]].append((parse_time(row["TimeStart"]), end, row["Reason"]))
    found = []
    for node in sorted(events):
        downs = sorted(events[node], key=lambda event: event[0])
        for number, (_start, up, _reason) in enumerate(downs):
            if up is None:
                continue
            if number + 1 == len(downs):
                found.append(NodeTime(node, up, None))
                continue
            down, _end, reason = downs[number + 1]
            if reason.startswith(_AFTER_SUSPEND):
                down -= suspend_timeout
            if down > up:
                found.append(NodeTime(node, up, down))
    return found


def read_node_facts(node: Node) -> NodeFacts:
    """Return what the meter needs of a node."""
    states = node.states
    ready = node.details.get("SlurmdStartTime", "")
    return NodeFacts(
        name=node.name,
        cpus=node.cpus,
        gpus=_gpus(node.details.get("Gres", "")),
        address=node.details.get("NodeAddr"),
        ready=None if ready in _UNKNOWN else parse_time(ready),
        is_up=not states & {"POWERED_DOWN", "POWERING_DOWN", "FUTURE"},
    )


def _gpus(gres: str) -> int:
    """Return the GPUs of `gpu:a100:4(S:0-1),lustre:1`."""
    total = 0
    for item in gres.split(","):
        name, *rest = item.partition("(")[0].split(":")
        if name == "gpu" and rest and rest[-1].isdigit():
            total += int(rest[-1])
    return total


def _slurm_time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
