"""What a cluster consists of right now: its machines in EC2, and nodes and jobs in its Slurm."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from clusterbox.errors import ClusterboxError
from clusterbox.site import names
from clusterbox.slurm import Node, SlurmError, expand_hostlist, parse_nodes

TAG_QUEUE = "parallelcluster:queue-name"
TAG_POOL = "parallelcluster:login-nodes-pool-name"
# Kinds of machines by ParallelCluster's tag `parallelcluster:node-type` (pcluster/constants.py).
_KINDS: dict[str, MachineKind] = {"HeadNode": "head", "Compute": "queue", "LoginNode": "login"}
_ALIVE = ("pending", "running", "stopping", "stopped", "shutting-down")
# Of an interactive job %B is the host on which srun or salloc was called (squeue's manual).
_CALLERS = ("squeue", "--noheader", "--array", "--format", "%i|%B")
_JOBS = ("squeue", "--noheader", "--array", "--format", "%i|%u|%P|%T|%L|%N|%j")
# Keeps jobs from starting while a head node is patched.
RESERVATION = "clusterbox-patch"
# States of jobs that hold nodes (squeue's manual, "JOB STATE CODES").
_HOLDING = frozenset(
    {
        "RUNNING",
        "COMPLETING",
        "CONFIGURING",
        "RESIZING",
        "SUSPENDED",
        "STOPPED",
        "STAGE_OUT",
        "SIGNALING",
    }
)
_SLURM_SECONDS = 120.0
# States of nodes that end with their last job, and of those that have ended (scontrol's manual).
_DRAINING = frozenset({"DRAIN", "DRAINING", "DRAINED", "POWER_DOWN"})
_DOWN = frozenset({"POWERED_DOWN", "POWERING_DOWN"})

MachineKind = Literal["head", "queue", "login"]


class Shell(Protocol):
    """A machine on which scripts are run as root, such as `clusterbox.run_command.Machine`."""

    def run(self, script: str, *, timeout_seconds: float = ...) -> str:
        """Run a script of bash and return what it printed; raises ClusterboxError."""


@dataclass(frozen=True)
class ClusterMachine:
    """An instance of a cluster; `name` is that of its queue or pool, empty for the head node."""

    instance: str
    ami: str
    kind: MachineKind
    name: str
    state: str
    address: str
    instance_type: str
    tags: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def hostnames(self) -> set[str]:
        """What it may call itself: EC2 names an instance by its address or by its id."""
        return {f"ip-{self.address.replace('.', '-')}", self.instance}


@dataclass(frozen=True)
class Job:
    """A job in the queue of a cluster; `left` is what remains of its time limit, as Slurm says it."""

    id: str
    user: str
    partition: str
    state: str
    left: str
    nodes: tuple[str, ...]
    name: str

    @property
    def is_running(self) -> bool:
        """Whether it holds nodes."""
        return self.state in _HOLDING

    def __str__(self) -> str:
        """Return what an operator wants to know of it."""
        where = f" on {','.join(self.nodes)}" if self.nodes else ""
        return f"job {self.id} of {self.user} ({self.name}){where}, {self.left} left"


@dataclass(frozen=True)
class Scheduler:
    """The Slurm of a cluster, through its head node."""

    shell: Shell

    def run(self, *words: str) -> str:
        """Run a command of Slurm and return what it printed; raises ClusterboxError."""
        script = f"set -euo pipefail\nPATH=/opt/slurm/bin:$PATH\n{shlex.join(words)}"
        return self.shell.run(script, timeout_seconds=_SLURM_SECONDS)

    def fetch_jobs(self) -> list[Job]:
        """Return all jobs, those that wait too."""
        return parse_jobs(self.run(*_JOBS))

    def fetch_jobs_from(self, machines: Iterable[ClusterMachine]) -> list[Job]:
        """Return running jobs whose srun or salloc runs on one of these machines: they end with it."""
        hosts = {name for machine in machines for name in machine.hostnames}
        called = dict(
            line.strip().split("|", 1) for line in self.run(*_CALLERS).splitlines() if "|" in line
        )
        mine = {job for job, host in called.items() if host.partition(".")[0] in hosts}
        return (
            [job for job in self.fetch_jobs() if job.is_running and job.id in mine] if mine else []
        )

    def fetch_nodes(self) -> list[Node]:
        """Return all nodes; those that are powered down too."""
        return parse_nodes(self.run("scontrol", "show", "nodes", "--oneliner"))

    def fetch_partitions(self) -> list[str]:
        """Return the names of the partitions, which are the cluster's queues."""
        text = self.run("sinfo", "--noheader", "--all", "--format", "%R")
        return list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))

    def set_partitions(self, state: Literal["UP", "DOWN", "DRAIN"]) -> None:
        """Open all partitions, stop jobs from starting (DOWN), or from being submitted (DRAIN)."""
        for name in self.fetch_partitions():
            self.run("scontrol", "update", f"PartitionName={name}", f"State={state}")

    def has_reservation(self, name: str) -> bool:
        """Whether there is a reservation of that name."""
        text = self.run("scontrol", "show", "reservations", "--oneliner")
        return any(f"ReservationName={name}" in line.split() for line in text.splitlines())

    def reserve_all(self, name: str) -> None:
        """Keep all nodes from new jobs; those that run go on.

        A reservation outlasts a restart of slurmctld, which a partition's state does not
        (slurmctld's manual, option -R).
        """
        if not self.has_reservation(name):
            self.run(
                *("scontrol", "create", "reservation", f"ReservationName={name}", "Users=root"),
                *("StartTime=now", "Duration=UNLIMITED", "Nodes=ALL", "Flags=MAINT,IGNORE_JOBS"),
            )

    def end_reservation(self, name: str) -> None:
        """Let jobs start again."""
        if self.has_reservation(name):
            self.run("scontrol", "delete", f"ReservationName={name}")

    def requeue(self, jobs: Iterable[Job]) -> list[Job]:
        """End jobs and queue them again; return those that are running still after a refusal.

        `Incomplete` leaves a job alone that has ended since it was seen, and would else run twice.
        """
        refused = []
        for job in jobs:
            try:
                self.run("scontrol", "requeue", "Incomplete", job.id)
            except ClusterboxError:
                refused.append(job)
        return refused

    def power_down(self, nodes: Collection[str], reason: str) -> None:
        """Power nodes down as soon as no job runs on them."""
        if nodes:
            listed = ",".join(sorted(nodes))
            self.run(
                *("scontrol", "update", f"NodeName={listed}", "State=POWER_DOWN_ASAP"),
                f"Reason={reason}",
            )

    def is_up(self) -> bool:
        """Whether slurmctld answers."""
        try:
            return "is UP" in self.run("scontrol", "ping")
        except ClusterboxError:
            return False


def parse_jobs(text: str) -> list[Job]:
    """Return the jobs of the format in which `Scheduler.fetch_jobs` asks for them."""
    jobs = []
    for line in text.splitlines():
        if not line.strip():
            continue
        fields = line.strip().split("|", 6)
        if len(fields) != 7:
            raise SlurmError(f"squeue printed what is no job: {line!r}")
        ident, user, partition, state, left, nodes, name = fields
        jobs.append(Job(ident, user, partition, state, left, tuple(expand_hostlist(nodes)), name))
    return jobs


def fetch_machines(ec2: Any, cluster: str) -> list[ClusterMachine]:
    """Return the instances of a cluster that are not terminated, by ParallelCluster's tags."""
    pages = ec2.get_paginator("describe_instances").paginate(
        Filters=[
            {"Name": f"tag:{names.TAG_CLUSTER}", "Values": [cluster]},
            {"Name": "instance-state-name", "Values": list(_ALIVE)},
        ]
    )
    found = []
    for page in pages:
        for reservation in page["Reservations"]:
            for instance in reservation["Instances"]:
                machine = _machine(instance)
                if machine is not None:
                    found.append(machine)
    return sorted(found, key=lambda machine: (machine.kind, machine.name, machine.instance))


def find_head(machines: Iterable[ClusterMachine], cluster: str) -> ClusterMachine:
    """Return the head node, whatever its state; raises ClusterboxError where there is none."""
    found = [machine for machine in machines if machine.kind == "head"]
    if not found:
        raise ClusterboxError(f"no head node of {cluster} is in this account and region")
    return found[0]


def find_nodes_of(
    machines: Collection[ClusterMachine], nodes: Iterable[Node], queues: Collection[str] = ()
) -> set[str]:
    """Return the names of the Slurm nodes that are on some machines.

    ParallelCluster gives each node the private address of its instance. Nodes of `queues` that
    drain, as an update makes those of the earlier image do, count too.
    """
    addresses = {machine.address for machine in machines if machine.address}
    return {
        node.name
        for node in nodes
        if node.details.get("NodeAddr") in addresses
        or (node.states & _DRAINING and not node.states & _DOWN and {*queues} & {*node.partitions})
    }


def _machine(instance: dict[str, Any]) -> ClusterMachine | None:
    tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}
    kind = _KINDS.get(tags.get(names.TAG_NODE_TYPE, ""))
    if kind is None:
        return None
    return ClusterMachine(
        instance=instance["InstanceId"],
        ami=instance["ImageId"],
        kind=kind,
        name={"head": "", "queue": tags.get(TAG_QUEUE, ""), "login": tags.get(TAG_POOL, "")}[kind],
        state=instance["State"]["Name"],
        address=instance.get("PrivateIpAddress", ""),
        instance_type=instance["InstanceType"],
        tags=tags,
    )
