"""What of a cluster's logs is shown: of the cluster, of a node, or of a job."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from clusterbox.errors import ClusterboxError, InputError
from clusterbox.observe.log_events import LogEvent, LogReader
from clusterbox.observe.log_nodes import (
    JobPlace,
    SlurmDoor,
    find_instances,
    is_node_name,
    job_from_log,
    job_from_slurm,
    node_of_instances,
    parse_launches,
)
from clusterbox.observe.log_streams import (
    DEFAULT_KINDS,
    LAUNCHING_KINDS,
    MENTIONING_KINDS,
    Role,
    Stream,
    active_since,
    roles,
    streams_of_instances,
    streams_of_kinds,
)

# How far back launches and jobs are looked for; ParallelCluster keeps an instance for days.
LOOK_BACK_SECONDS = 14 * 86400.0
# A node boots before its job starts, and cleans up after it: SlurmctldTimeout and ResumeTimeout of
# ParallelCluster are shorter.
_BEFORE_JOB = 1800.0
_AFTER_JOB = 300.0


@dataclass(frozen=True)
class Asked:
    """What somebody asks for; times in seconds since 1970, `since` None for the default."""

    node: str | None = None
    job: str | None = None
    kinds: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None
    grep: re.Pattern[str] | None = None


@dataclass(frozen=True)
class View:
    """Streams and lines to show. `choose` picks the streams, also of nodes that come later."""

    choose: Callable[[Sequence[Stream]], list[Stream]]
    keeps: Callable[[LogEvent], bool]
    since: float
    until: float | None
    # Instance → the node of Slurm that ran on it, and instance → its role.
    nodes: dict[str, str] = field(default_factory=dict)
    roles: dict[str, Role] = field(default_factory=dict)
    job: JobPlace | None = None
    # The nodes and instances that were asked for; empty where the whole cluster is.
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def of_everything(self) -> bool:
        """Whether it is of the whole cluster, rather than of a node or a job."""
        return self.job is None and not self.names


def make_view(
    reader: LogReader,
    group: str,
    streams: Sequence[Stream],
    asked: Asked,
    *,
    default_since: float,
    slurm: Callable[[], SlurmDoor | None] = lambda: None,
) -> View:
    """Return what to show; logs of launches are read where nodes or jobs are asked for.

    Raises InputError for a node or job that neither logs nor Slurm know.
    """
    since = default_since if asked.since is None else asked.since
    if asked.node is None and asked.job is None:
        return _cluster_view(streams, asked, since)
    launches = fetch_launches(reader, group, streams, since - LOOK_BACK_SECONDS, asked.until)
    if asked.job is not None:
        return _job_view(reader, group, streams, asked, launches, since, slurm)
    return _node_view(streams, asked, launches, since)


def show(reader: LogReader, group: str, view: View, *, follow: bool = False) -> Iterator[LogEvent]:
    """Yield the events of a view in the order of time; with `follow` without an end."""
    if follow:
        events = reader.follow(group, view.choose, view.since)
    else:
        streams = view.choose(reader.fetch_streams(group))
        events = (
            reader.fetch_events(group, streams, view.since, view.until) if streams else iter(())
        )
    return (event for event in events if view.keeps(event))


def _cluster_view(streams: Sequence[Stream], asked: Asked, since: float) -> View:
    def choose(now: Sequence[Stream]) -> list[Stream]:
        return active_since(streams_of_kinds(now, asked.kinds or DEFAULT_KINDS), since)

    keeps = _keeps(asked, lambda _: True)
    return View(choose, keeps, since, asked.until, roles=roles(streams))


def _node_view(
    streams: Sequence[Stream], asked: Asked, launches: dict[str, list[str]], since: float
) -> View:
    wanted = asked.node or ""
    instances = set(find_instances(wanted, streams, launches))
    names = _node_names(wanted)
    is_seen = any(stream.instance in instances for stream in streams)
    # A node that was never launched has no streams, but slurmctld tells of it.
    if not is_seen and not (names and all(is_node_name(name) for name in names)):
        raise InputError(_no_node(wanted, streams, launches))
    mentions = _mentions([*names, *instances])

    def choose(now: Sequence[Stream]) -> list[Stream]:
        own = streams_of_instances(now, instances)
        return _of_kinds(_and_mentioning(own, now), asked.kinds)

    return View(
        choose,
        _keeps(asked, lambda event: event.stream.instance in instances or mentions(event)),
        since,
        asked.until,
        node_of_instances(launches),
        roles(streams),
        names=tuple(names) or (wanted,),
        notes=() if is_seen else (f"{wanted}: no instance of it is in the logs",),
    )


def _job_view(
    reader: LogReader,
    group: str,
    streams: Sequence[Stream],
    asked: Asked,
    launches: dict[str, list[str]],
    since: float,
    slurm: Callable[[], SlurmDoor | None],
) -> View:
    job = asked.job or ""
    place, notes = _find_job(reader, group, streams, asked, since, slurm)
    begin = since if asked.since is not None or place.start is None else place.start - _BEFORE_JOB
    ends = [at for at in (asked.until, place.end and place.end + _AFTER_JOB) if at is not None]
    end = min(ends, default=None)
    # A node of Slurm has had many instances; those that wrote while the job ran are its.
    instances = {
        instance for name in place.nodes for instance in find_instances(name, streams, launches)
    }
    mentions = _mentions([rf"JobId={job}", rf"JobID {job}"], whole_words=True)
    of_nodes = _mentions(place.nodes)
    kinds = asked.kinds or ("slurmd", "slurm_health_check", "bootstrap_error_msg", "computemgtd")

    def choose(now: Sequence[Stream]) -> list[Stream]:
        own = [
            stream
            for stream in active_since(streams_of_instances(now, instances), begin)
            if stream.kind in kinds
        ]
        return _of_kinds(_and_mentioning(own, now), asked.kinds)

    def is_of_job(event: LogEvent) -> bool:
        if event.stream.kind not in MENTIONING_KINDS:
            return True
        return mentions(event) or (event.stream.kind != "slurmctld" and of_nodes(event))

    return View(
        choose,
        _keeps(asked, is_of_job),
        begin,
        end,
        node_of_instances(launches),
        roles(streams),
        place,
        notes=tuple(notes),
    )


def _find_job(
    reader: LogReader,
    group: str,
    streams: Sequence[Stream],
    asked: Asked,
    since: float,
    slurm: Callable[[], SlurmDoor | None],
) -> tuple[JobPlace, list[str]]:
    """Return where a job ran, from Slurm or else from slurmctld's log, and what is to be said."""
    notes = []
    job = asked.job or ""
    door = slurm()
    place = job_from_slurm(job, door) if door is not None else None
    if place is None:
        notes.append(f"job {job}: read from slurmctld's log, Slurm does not tell of it")
    if place is None or not place.nodes:
        controllers = streams_of_kinds(streams, ("slurmctld",))
        begin = since - LOOK_BACK_SECONDS
        events = (
            reader.fetch_events(group, controllers, begin, asked.until) if controllers else iter(())
        )
        read = job_from_log(job, events)
        if place is None and not read.nodes:
            raise ClusterboxError(
                f"job {job}: neither Slurm nor slurmctld's log of "
                f"{LOOK_BACK_SECONDS / 86400:.0f} days before --since knows that it started"
            )
        place = (
            read
            if place is None
            else JobPlace(
                job,
                read.nodes,
                place.start or read.start,
                place.end or read.end,
                place.state,
                place.output,
                place.folder,
            )
        )
    return place, [*notes, _told(place)]


def _told(place: JobPlace) -> str:
    where = ", ".join(place.nodes) or "no node yet"
    output = place.output
    if not output and place.folder:
        output = f"in {place.folder} (slurm-{place.job}.out, if its script names no other)"
    told = f"job {place.job} {place.state or 'unknown'} on {where}"
    return f"{told}; its output: {output}" if output else told


def fetch_launches(
    reader: LogReader, group: str, streams: Sequence[Stream], since: float, until: float | None
) -> dict[str, list[str]]:
    """Return the instances of each node that the logs of a time tell of."""
    launching = streams_of_kinds(streams, LAUNCHING_KINDS)
    return parse_launches(reader.fetch_events(group, launching, since, until)) if launching else {}


def _keeps(asked: Asked, own: Callable[[LogEvent], bool]) -> Callable[[LogEvent], bool]:
    pattern = asked.grep
    if pattern is None:
        return own
    return lambda event: own(event) and pattern.search(event.message) is not None


def _mentions(texts: Sequence[str], *, whole_words: bool = False) -> Callable[[LogEvent], bool]:
    """Return whether an event names one of these; `eco-dy-a-1` is not `eco-dy-a-12`."""
    if not texts:
        return lambda _: False
    after = r"(?![\w]|_\d)" if whole_words else r"(?![\w-])"
    named = "|".join(re.escape(text) for text in texts)
    pattern = re.compile(rf"(?<![\w-])(?:{named}){after}")
    return lambda event: pattern.search(event.message) is not None


def _and_mentioning(own: Sequence[Stream], streams: Sequence[Stream]) -> list[Stream]:
    names = {stream.name for stream in own}
    head = streams_of_kinds(streams, MENTIONING_KINDS)
    return [*own, *(stream for stream in head if stream.name not in names)]


def _of_kinds(streams: list[Stream], kinds: Sequence[str]) -> list[Stream]:
    return streams_of_kinds(streams, kinds) if kinds else streams


def _node_names(wanted: str) -> list[str]:
    from clusterbox.slurm import expand_hostlist

    if wanted.lower() in ("head", "headnode", "head-node"):
        return []
    return expand_hostlist(wanted)


def _no_node(wanted: str, streams: Sequence[Stream], launches: dict[str, list[str]]) -> str:
    hosts = dict.fromkeys(stream.host for stream in streams)
    known = [*launches, *hosts][:8]
    return (
        f"no node {wanted} in the logs; `--list` shows them, for example: "
        f"head, {', '.join(known) or 'none yet'}"
    )
