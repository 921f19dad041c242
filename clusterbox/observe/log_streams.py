"""The log groups and streams that ParallelCluster 3.16 writes, and which of them somebody asks for.

A stream is called `HOST.INSTANCE.KIND`, such as `ip-10-0-0-12.i-0123456789abcdef0.slurmctld`; the
kinds are those of cloudwatch_agent_config.json in ParallelCluster's cookbook.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

Role = Literal["head", "compute", "login"]

PREFIX = "/aws/parallelcluster/"

_STREAM = re.compile(r"(?P<host>[^.]+)\.(?P<instance>i-[0-9a-f]+)\.(?P<kind>.+)")
# A group that is not deleted with its cluster stays, and the next cluster makes another one
# (pcluster/templates/cluster_stack.py).
_CREATED = re.compile(r"\d{12}")


@dataclass(frozen=True)
class Kind:
    """One kind of stream: what writes it, on which nodes."""

    what: str
    roles: frozenset[Role]


def _on(*roles: Role) -> frozenset[Role]:
    return frozenset(roles)


KINDS: Mapping[str, Kind] = {
    "slurmctld": Kind("Slurm's controller: jobs, and states of nodes", _on("head")),
    "slurmdbd": Kind("Slurm's accounting daemon", _on("head")),
    "clustermgtd": Kind("replaces nodes that fail, and sets protected mode", _on("head")),
    "slurm_resume": Kind("launches instances for nodes", _on("head")),
    "slurm_suspend": Kind("ends instances of idle nodes", _on("head")),
    "slurm_fleet_status_manager": Kind("starts and stops the fleet", _on("head")),
    "clusterstatusmgtd": Kind("follows the fleet's requested state", _on("head")),
    "compute_console_output": Kind("consoles of compute nodes that failed", _on("head")),
    "clustermgtd_events": Kind("clustermgtd's events, as JSON", _on("head")),
    "slurm_resume_events": Kind("slurm_resume's events, as JSON", _on("head")),
    "slurmd": Kind("Slurm's daemon of a compute node", _on("compute")),
    "computemgtd": Kind("ends a compute node that lost its head node", _on("compute")),
    "bootstrap_error_msg": Kind("why a compute node did not boot, as JSON", _on("compute")),
    "slurm_health_check": Kind("health checks before a job", _on("compute")),
    "slurm_health_check_events": Kind("their events, as JSON", _on("compute")),
    "cloud-init": Kind("first boot", _on("head", "compute", "login")),
    "cloud-init-output": Kind("what first boot printed", _on("compute", "login")),
    "cfn-init": Kind("CloudFormation's part of the first boot", _on("head", "login")),
    "chef-client": Kind("ParallelCluster's recipes", _on("head", "compute", "login")),
    "supervisord": Kind("keeps ParallelCluster's daemons running", _on("head", "compute", "login")),
    "system-messages": Kind("/var/log/messages", _on("head", "compute", "login")),
    "syslog": Kind("/var/log/syslog of Ubuntu", _on("head", "compute", "login")),
    "sssd": Kind("users of a directory", _on("head")),
    "sssd_domain_default": Kind("users of a directory", _on("head")),
    "pam_ssh_key_generator": Kind("SSH keys of a directory's users", _on("head", "login")),
}

# What is shown where nobody names anything: what the cluster did, and nodes that did not boot.
DEFAULT_KINDS = (
    "slurmctld",
    "slurmdbd",
    "clustermgtd",
    "slurm_resume",
    "slurm_suspend",
    "slurm_fleet_status_manager",
    "clusterstatusmgtd",
    "bootstrap_error_msg",
)
# Daemons of the head node that name nodes and jobs.
MENTIONING_KINDS = ("slurmctld", "clustermgtd", "slurm_resume", "slurm_suspend")
# What tells of launches: which instance a node runs on.
LAUNCHING_KINDS = ("slurm_resume", "clustermgtd")


@dataclass(frozen=True)
class Stream:
    """One log stream; times are seconds since 1970, None where it has no event yet."""

    name: str
    host: str
    instance: str
    kind: str
    first: float | None = None
    last: float | None = None


@dataclass(frozen=True)
class Group:
    """A cluster's log group, and when its cluster was made."""

    name: str
    created: datetime


def parse_stream(
    name: str, *, first: float | None = None, last: float | None = None
) -> Stream | None:
    """Return the stream of a name; None for one that ParallelCluster does not write."""
    found = _STREAM.fullmatch(name)
    if found is None:
        return None
    return Stream(name, found["host"], found["instance"], found["kind"], first, last)


def group_prefix(cluster: str) -> str:
    """Return what the names of a cluster's log groups begin with."""
    return f"{PREFIX}{cluster}-"


def parse_group(name: str, cluster: str) -> Group | None:
    """Return a log group; None where it is not this cluster's, but say that of `NAME-2`."""
    prefix = group_prefix(cluster)
    stamp = name.removeprefix(prefix)
    if not name.startswith(prefix) or _CREATED.fullmatch(stamp) is None:
        return None
    try:
        return Group(name, datetime.strptime(stamp, "%Y%m%d%H%M").replace(tzinfo=UTC))
    except ValueError:
        return None


def newest_group(names: Iterable[str], cluster: str) -> Group | None:
    """Return the log group of the cluster of that name that was made last."""
    groups = [group for name in names if (group := parse_group(name, cluster)) is not None]
    return max(groups, key=lambda group: group.created, default=None)


def role_of(kinds: Collection[str]) -> Role:
    """Return the role of an instance that has streams of these kinds."""
    if "clustermgtd" in kinds or "slurmctld" in kinds:
        return "head"
    only_compute = {name for name, kind in KINDS.items() if kind.roles == {"compute"}}
    return "compute" if only_compute.intersection(kinds) else "login"


def roles(streams: Iterable[Stream]) -> dict[str, Role]:
    """Return the role of every instance that has streams."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for stream in streams:
        kinds[stream.instance].add(stream.kind)
    return {instance: role_of(found) for instance, found in kinds.items()}


def streams_of_kinds(streams: Iterable[Stream], kinds: Collection[str]) -> list[Stream]:
    """Return the streams of these kinds."""
    return [stream for stream in streams if stream.kind in kinds]


def streams_of_instances(streams: Iterable[Stream], instances: Collection[str]) -> list[Stream]:
    """Return the streams of these instances for people: events as JSON say the same again."""
    return [
        stream
        for stream in streams
        if stream.instance in instances and not stream.kind.endswith("_events")
    ]


def active_since(streams: Sequence[Stream], since: float) -> list[Stream]:
    """Return the streams that may have events from that time on, in seconds since 1970.

    CloudWatch brings the time of a stream's last event up to date within an hour of it, so that
    one that seems to have ended less than an hour before is kept too.
    """
    return [stream for stream in streams if stream.last is None or stream.last >= since - 3600]
