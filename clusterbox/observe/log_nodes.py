"""Which instances a node of Slurm ran on, and which nodes a job had: from logs and from Slurm."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from clusterbox.errors import InputError
from clusterbox.observe.log_events import LogEvent
from clusterbox.observe.log_streams import Stream, roles
from clusterbox.slurm import SlurmError, expand_hostlist, parse_key_values

# "Nodes are now configured with instances: (x2) ["('q-dy-c-1', EC2Instance(id='i-0a', ...": written
# by slurm_plugin/instance_manager.py of aws-parallelcluster-node.
_CONFIGURED = "Nodes are now configured with instances"
_PAIR = re.compile(r"\('(?P<node>[\w-]+)', EC2Instance\(id='(?P<instance>i-[0-9a-f]+)'")
_INSTANCE = re.compile(r"i-[0-9a-f]{8,}")
_NODE = re.compile(r"(?P<queue>[a-z0-9-]+)-(st|dy)-(?P<resource>[a-z0-9-]+)-\d+")
_JOB = re.compile(r"\d+(?:_\d+)?")
_ALLOCATED = re.compile(
    r"(?:Allocate|Started) JobId=(?P<job>\S+) .*?(?:NodeList=|\bon )(?P<nodes>\S+)"
)
_ENDED = re.compile(r"_job_complete: JobId=(?P<job>\S+) done|JobId=(?P<gone>\S+) .*CANCELLED")
_UNKNOWN = ("", "Unknown", "None", "N/A", "(null)")
_SACCT = ("JobIDRaw", "Start", "End", "NodeList", "State", "WorkDir")


class SlurmDoor(Protocol):
    """Slurm's commands: `clusterbox.slurm.Slurm`, or those of a head node in AWS."""

    def run(self, *words: str) -> str:
        """Run a command and return what it printed; raises SlurmError."""


@dataclass(frozen=True)
class JobPlace:
    """Where and when a job ran; times in seconds since 1970, None where they are not known."""

    job: str
    nodes: tuple[str, ...] = ()
    start: float | None = None
    end: float | None = None
    state: str = ""
    output: str = ""
    folder: str = ""


def parse_launches(events: Iterable[LogEvent]) -> dict[str, list[str]]:
    """Return the instances of each node that the logs tell of, in the order of time."""
    found: dict[str, list[str]] = {}
    for event in events:
        if _CONFIGURED in event.message:
            for node, instance in _PAIR.findall(event.message):
                found.setdefault(node, []).append(instance)
    return found


def is_node_name(text: str) -> bool:
    """Return whether a name is of the form that ParallelCluster gives to compute nodes."""
    return _NODE.fullmatch(text) is not None


def find_instances(
    wanted: str, streams: Sequence[Stream], launches: Mapping[str, Sequence[str]]
) -> list[str]:
    """Return the instances that a name stands for: `head`, an instance's id, a host, or nodes.

    `wanted` may be a host list, such as `eco-dy-n8c32g-[1-3]`. Nodes that no log tells of give
    nothing. Raises InputError for what cannot be a name.
    """
    if _INSTANCE.fullmatch(wanted):
        return [wanted]
    found = roles(streams)
    if wanted.lower() in ("head", "headnode", "head-node"):
        return [instance for instance, role in found.items() if role == "head"]
    try:
        names = expand_hostlist(wanted)
    except ValueError as error:
        raise InputError(f"--node {wanted!r}: {error}") from error
    instances = dict.fromkeys(
        instance
        for name in names
        for instance in (
            *launches.get(name, ()),
            *(stream.instance for stream in streams if stream.host == name.split(".")[0]),
        )
    )
    return list(instances)


def node_of_instances(launches: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the node of each instance that logs tell of."""
    return {instance: node for node, instances in launches.items() for instance in instances}


def check_job_id(text: str) -> str:
    """Return a job's id, `12` or `12_3`; raises InputError for anything else."""
    if _JOB.fullmatch(text) is None:
        raise InputError(f"--job {text!r}: a job's id is a number, or ARRAY_TASK")
    return text


def job_from_log(job: str, events: Iterable[LogEvent]) -> JobPlace:
    """Return what slurmctld's log tells of a job: its nodes, from its first start to its end."""
    place = JobPlace(job)
    for event in events:
        if (found := _ALLOCATED.search(event.message)) and is_job(job, found["job"]):
            nodes = dict.fromkeys((*place.nodes, *_hosts(found["nodes"])))
            place = replace(
                place, nodes=tuple(nodes), start=place.start or event.at, end=None, state="RUNNING"
            )
        elif (found := _ENDED.search(event.message)) and is_job(job, found["job"] or found["gone"]):
            place = replace(place, end=event.at, state="ended")
    return place


def is_job(wanted: str, written: str) -> bool:
    """Return whether slurmctld's `12_3(15)` or `12` is the job that is asked for."""
    ident, _, raw = written.rstrip(",.:").partition("(")
    return wanted in (ident, raw.rstrip(")"))


def job_from_slurm(job: str, door: SlurmDoor) -> JobPlace | None:
    """Return where a job ran as Slurm knows it: in its memory, or in its accounting.

    None where Slurm does not know the job, or does not answer.
    """
    try:
        fields = parse_key_values(door.run("scontrol", "--oneliner", "show", "job", job))
    except SlurmError:
        return _accounted(job, door)
    if "JobId" not in fields:
        return _accounted(job, door)
    return JobPlace(
        job,
        nodes=_hosts(fields.get("NodeList", "")),
        start=_time(fields.get("StartTime", "")),
        end=_time(fields.get("EndTime", "")) if _has_ended(fields) else None,
        state=fields.get("JobState", ""),
        output=fields.get("StdOut", ""),
        folder=fields.get("WorkDir", ""),
    )


def _accounted(job: str, door: SlurmDoor) -> JobPlace | None:
    try:
        text = door.run(
            *("sacct", "--allusers", "--duplicates", "--allocations", "--noheader", "--parsable2"),
            f"--jobs={job}",
            f"--format={','.join(_SACCT)}",
        )
    except SlurmError:
        return None
    place: JobPlace | None = None
    for line in text.splitlines():
        cells = line.split("|", len(_SACCT) - 1)
        if len(cells) != len(_SACCT):
            continue
        _ident, start, end, nodes, state, folder = cells
        earlier = place or JobPlace(job)
        place = JobPlace(
            job,
            nodes=tuple(dict.fromkeys((*earlier.nodes, *_hosts(nodes)))),
            start=earlier.start or _time(start),
            end=_time(end),
            state=state,
            folder=folder,
        )
    return place


def _has_ended(fields: Mapping[str, str]) -> bool:
    # Of a job that runs, EndTime is when its time limit will end it.
    return fields.get("JobState", "") not in ("PENDING", "RUNNING", "CONFIGURING", "SUSPENDED")


def _hosts(text: str) -> tuple[str, ...]:
    if text in _UNKNOWN or text == "None assigned":
        return ()
    try:
        return tuple(expand_hostlist(text))
    except ValueError:
        return ()


def _time(text: str) -> float | None:
    """Return a time of Slurm, which `clusterbox.slurm` asks for in UTC."""
    if text in _UNKNOWN:
        return None
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
