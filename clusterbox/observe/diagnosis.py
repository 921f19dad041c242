"""Explain what is wrong with a cluster: log lines and states against a table of known failures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter

from clusterbox.observe.log_streams import KINDS
from clusterbox.slurm import SlurmError, expand_hostlist, parse_nodes

if TYPE_CHECKING:
    from clusterbox.observe.log_doors import LogDoors
    from clusterbox.observe.log_events import LogReader
    from clusterbox.observe.log_streams import Stream
    from clusterbox.observe.log_view import View

Severity = Literal["critical", "error", "warning"]

_TABLE = Path(__file__).with_name("failures.yaml")
_RANK: dict[str, int] = {"critical": 0, "error": 1, "warning": 2}
# What is asked now rather than read from a log.
STATES = ("reason", "partition", "command", "ec2")
# Names of ParallelCluster's compute nodes, one or a host list.
_NODES = re.compile(r"(?<![\w-])[a-z0-9][a-z0-9-]*-(?:st|dy)-[a-z0-9-]+-(?:\d+|\[[\d,-]+\])")
# A node that failed in the time that is looked at was launched before it.
_LAUNCHED_SECONDS = 86400.0
_BAD_STATES = frozenset({"DOWN", "DRAIN", "DRAINED", "DRAINING", "FAIL", "INVALID_REG"})


def _compiles(text: str) -> str:
    re.compile(text)
    return text


_Pattern = Annotated[str, AfterValidator(_compiles)]


class Failure(BaseModel):
    """One known failure, a row of failures.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(description="its name")
    severity: Severity = Field(description="critical: the cluster or a queue stands still")
    streams: tuple[str, ...] = Field(description="kinds of streams, or states, where it is seen")
    pattern: _Pattern = Field(description="a regular expression for its line")
    also: _Pattern | None = Field(None, description="for lines that name its nodes, not counted")
    meaning: str = Field(description="in words; groups of the pattern in braces")
    next: str = Field(description="what to do")
    source: str = Field(description="where it is documented")


@dataclass(frozen=True)
class Finding:
    """A failure that was seen; times in seconds since 1970, None for what is so now."""

    id: str
    severity: Severity
    meaning: str
    next_step: str
    source: str
    count: int
    first: float | None
    last: float | None
    nodes: tuple[str, ...]
    example: str


@dataclass(frozen=True)
class Diagnosis:
    """What was found, the worst and latest first, and what could not be looked at."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Line:
    """What is explained: a log line, or a state now (`at` None); `node` where it is known."""

    kind: str
    text: str
    at: float | None = None
    node: str | None = None


@dataclass
class _Seen:
    failure: Failure
    groups: Mapping[str, str]
    counted: int = 0
    named: int = 0
    times: list[float] = field(default_factory=list)
    nodes: dict[str, None] = field(default_factory=dict)
    example: str = ""

    def add(self, line: Line, *, counts: bool) -> None:
        self.counted += counts
        self.named += not counts
        if line.at is not None:
            self.times = [min([line.at, *self.times]), max([line.at, *self.times])]
        self.nodes |= dict.fromkeys(_nodes_of(line))
        if counts or not self.example:
            self.example = line.text


@cache
def load_failures() -> tuple[Failure, ...]:
    """Return the table of known failures, in the order in which they are tried."""
    import yaml

    rows = yaml.safe_load(_TABLE.read_text(encoding="utf-8"))
    return TypeAdapter(tuple[Failure, ...]).validate_python(rows)


def kinds_to_read() -> tuple[str, ...]:
    """Return the kinds of streams that any failure is seen in."""
    named = {kind for failure in load_failures() for kind in failure.streams}
    return tuple(kind for kind in KINDS if kind in named or kind == "slurmctld")


def explain(lines: Iterable[Line], cluster: str) -> tuple[Finding, ...]:
    """Return what lines and states mean, the worst first, and of alike ones the latest."""
    seen: dict[tuple[str, tuple[str, ...]], _Seen] = {}
    compiled = _compiled()
    for line in lines:
        for failure, pattern, also, used in compiled:
            if line.kind in failure.streams and (found := pattern.search(line.text)):
                groups = {key: value or "" for key, value in found.groupdict().items()}
                key = (failure.id, tuple(groups.get(name, "") for name in used))
                seen.setdefault(key, _Seen(failure, groups)).add(line, counts=True)
                break
            if also is not None and line.kind == "slurmctld" and also.search(line.text):
                at = next((key for key in seen if key[0] == failure.id), None)
                key = at or (failure.id, ())
                seen.setdefault(key, _Seen(failure, {})).add(line, counts=False)
                break
    findings = [_finding(one, cluster) for one in _joined(seen)]
    return tuple(sorted(findings, key=lambda f: (_RANK[f.severity], -(f.last or float("inf")))))


def diagnose(reader: LogReader, group: str, view: View, doors: LogDoors, cluster: str) -> Diagnosis:
    """Return what is wrong with a cluster: its logs of the view's time, and its state now.

    Only what a view's node or job is about, where it has one. Raises ClusterboxError where the
    logs cannot be read.
    """
    from clusterbox.observe.log_nodes import node_of_instances
    from clusterbox.observe.log_streams import active_since, streams_of_kinds
    from clusterbox.observe.log_view import fetch_launches

    notes = list(view.notes)
    names = set(view.job.nodes) if view.job is not None else set()
    streams = reader.fetch_streams(group)
    if view.of_everything:
        chosen = active_since(streams_of_kinds(streams, kinds_to_read()), view.since)
    else:
        chosen = streams_of_kinds(view.choose(streams), kinds_to_read())
    # Nodes of a view were looked up; of a whole cluster those that were launched lately are told.
    begin = view.since - _LAUNCHED_SECONDS
    nodes = view.nodes or node_of_instances(
        fetch_launches(reader, group, streams, begin, view.until)
    )
    lines: list[Line] = []
    events = reader.fetch_events(group, chosen, view.since, view.until) if chosen else iter(())
    logged = (
        Line(event.stream.kind, event.message, event.at, _node_of(event.stream, view, nodes))
        for event in events
        if view.keeps(event)
    )
    if view.until is None:
        for state in (_slurm_now(doors), _ec2_now(doors, cluster, nodes)):
            now, missing = state
            lines += [line for line in now if view.of_everything or _is_about(line, names, view)]
            notes += missing
    return Diagnosis(explain((*lines, *logged), cluster), tuple(notes))


def _node_of(stream: Stream, view: View, nodes: Mapping[str, str]) -> str | None:
    """Return the node that writes a stream; None for the head node's, which tell of others."""
    if view.roles.get(stream.instance) == "head":
        return None
    return nodes.get(stream.instance, stream.host)


def _is_about(line: Line, names: set[str], view: View) -> bool:
    wanted = names or set(view.names)
    return bool(wanted.intersection(_nodes_of(line)))


def _slurm_now(doors: LogDoors) -> tuple[list[Line], list[str]]:
    """Return what Slurm says of nodes and partitions now, and what it could not be asked."""
    door = doors.slurm()
    if door is None:
        return [], ["Slurm was not asked: no head node of the cluster answers; logs alone are told"]
    try:
        nodes = parse_nodes(door.run("scontrol", "--oneliner", "show", "nodes"))
        partitions = door.run("scontrol", "--oneliner", "show", "partition")
    except SlurmError as error:
        return [Line("command", str(error))], [str(error)]
    lines = [
        Line("reason", node.reason, node=node.name)
        for node in nodes
        if node.reason and _BAD_STATES.intersection(node.states)
    ]
    lines += [Line("partition", text) for text in partitions.splitlines() if "State=UP" not in text]
    return lines, []


def _ec2_now(
    doors: LogDoors, cluster: str, nodes: Mapping[str, str]
) -> tuple[list[Line], list[str]]:
    """Return why EC2 ended instances of the cluster; it remembers for about an hour."""
    from botocore.exceptions import BotoCoreError, ClientError

    from clusterbox.site import names

    try:
        pages = (
            doors.client("ec2")
            .get_paginator("describe_instances")
            .paginate(
                Filters=[
                    {"Name": f"tag:{names.TAG_CLUSTER}", "Values": [cluster]},
                    {"Name": "instance-state-name", "Values": ["shutting-down", "terminated"]},
                ]
            )
        )
        found = [
            instance
            for page in pages
            for reservation in page["Reservations"]
            for instance in reservation["Instances"]
        ]
    except (BotoCoreError, ClientError) as error:
        return [], [f"EC2 was not asked why instances ended: {error}"]
    return list(_endings(found, nodes)), []


def _endings(instances: Iterable[Mapping[str, Any]], nodes: Mapping[str, str]) -> Iterator[Line]:
    for instance in instances:
        reason = instance.get("StateReason", {})
        code = str(reason.get("Code", ""))
        if code:
            ident = str(instance["InstanceId"])
            yield Line("ec2", f"{code}: {reason.get('Message', '')}", node=nodes.get(ident, ident))


@cache
def _compiled() -> list[tuple[Failure, re.Pattern[str], re.Pattern[str] | None, tuple[str, ...]]]:
    return [
        (
            failure,
            re.compile(failure.pattern, re.DOTALL),
            re.compile(failure.also) if failure.also else None,
            _used(failure.meaning),
        )
        for failure in load_failures()
    ]


def _used(text: str) -> tuple[str, ...]:
    """Return the names in braces of a text."""
    return tuple(name for _, name, _, _ in Formatter().parse(text) if name)


def _joined(seen: Mapping[tuple[str, tuple[str, ...]], _Seen]) -> list[_Seen]:
    """Return what was seen, with what tells less of the same failure put to what tells more.

    The reason of a node has the code of a failed launch, and the launch's own line its type too.
    """
    found = list(seen.items())
    for key, less in list(found):
        for other, more in found:
            if other != key and other[0] == key[0] and _tells_less(key[1], other[1]):
                more.nodes |= less.nodes
                more.times = sorted([*more.times, *less.times])
                found.remove((key, less))
                break
    return [one for _, one in found]


def _tells_less(less: tuple[str, ...], more: tuple[str, ...]) -> bool:
    if not less:  # Lines of `also` tell nothing but nodes.
        return True
    told = [(a, b) for a, b in zip(less, more, strict=True) if a]
    return bool(told) and less != more and all(a == b for a, b in told)


def _finding(seen: _Seen, cluster: str) -> Finding:
    words = _Blank({**seen.groups, "cluster": cluster})
    meaning = " ".join(seen.failure.meaning.format_map(words).split())
    return Finding(
        id=seen.failure.id,
        severity=seen.failure.severity,
        meaning=re.sub(r"\s*\( ?(?:of MiB)?\)|:\s*$", "", meaning),
        next_step=seen.failure.next.format_map(words),
        source=seen.failure.source,
        count=seen.counted or seen.named,
        first=min(seen.times, default=None),
        last=max(seen.times, default=None),
        nodes=tuple(sorted(seen.nodes, key=_by_number)),
        example=seen.example,
    )


class _Blank(dict[str, str]):
    """Words of a text; what a line did not tell is blank."""

    def __missing__(self, key: str) -> str:
        return ""


def _nodes_of(line: Line) -> list[str]:
    if line.node is not None:
        return [line.node]
    return [name for text in _NODES.findall(line.text) for name in expand_hostlist(text)]


def _by_number(name: str) -> tuple[str, int]:
    stem, _, number = name.rpartition("-")
    return (stem, int(number)) if number.isdigit() else (name, 0)
