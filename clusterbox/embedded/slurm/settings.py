"""The files that Slurm's daemons read: slurm.conf, slurmdbd.conf, gres.conf."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterbox.embedded.slurm.queues import NodeGroup, Queue

# The ports of a cluster: slurmctld, slurmdbd, then one for each node.
FIRST_NODE_PORT = 2
DATABASE = "slurm_acct_db"

# Lists of which ParallelCluster's users may give their own items; ours are added to them.
_LISTS = ("CommunicationParameters", "SchedulerParameters")


@dataclass(frozen=True)
class Options:
    """How a cluster on this machine differs from the one in the cloud; times in seconds.

    `accounting`: run slurmdbd and MariaDB, and enforce associations, limits and QOS.
    `boot_seconds`: how long a node takes from its launch to its registration.
    `idle_seconds`: after how long an idle dynamic node is powered down; None takes
    `ScaledownIdletime` of the configuration. Below 40, Slurm 22.05 can power a node down while a
    requeued job is about to start on it.
    `fail_launch`: nodes, or queues or compute resources by the beginning of their nodes' names,
    whose launch fails for insufficient capacity.
    `failed_launch_seconds`: how long such a node stays down before it can be tried again.
    `settings`: further parameters of slurm.conf, which win over all others.
    """

    accounting: bool = True
    boot_seconds: float = 2.0
    idle_seconds: int | None = None
    fail_launch: tuple[str, ...] = ()
    failed_launch_seconds: float = 10.0
    settings: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Layout:
    """Where the files of a cluster on this machine are.

    `sockets` is another folder than `folder` where the latter's path is too long for a socket.
    """

    folder: Path
    sockets: Path

    @property
    def slurm_conf(self) -> Path:
        """The file that `SLURM_CONF` names."""
        return self.folder / "etc" / "slurm.conf"

    @property
    def slurmdbd_conf(self) -> Path:
        """The file of slurmdbd, which finds it beside slurm.conf."""
        return self.folder / "etc" / "slurmdbd.conf"

    @property
    def munge_socket(self) -> Path:
        """Where munged listens."""
        return self.sockets / "munge.sock"

    @property
    def database_socket(self) -> Path:
        """Where MariaDB listens, and nowhere else."""
        return self.sockets / "mysql.sock"

    @property
    def spool(self) -> Path:
        """The folder of each node's own folder, in which its jobs' sockets are."""
        return self.sockets / "spool"

    @property
    def logs(self) -> Path:
        """The folder of all daemons' logs."""
        return self.folder / "log"

    def log(self, daemon: str) -> Path:
        """Return the log of a daemon, or of a node's slurmd: `slurmd-NODE`."""
        return self.logs / f"{daemon}.log"

    def start_log(self, daemon: str) -> Path:
        """Return what a daemon printed, which is where it says why it cannot start."""
        return self.logs / f"{daemon}.out"


@dataclass(frozen=True)
class Machine:
    """What of this machine a cluster uses."""

    user: str
    address: str
    first_port: int
    binds_to_loopback: bool


def render_slurm_conf(
    name: str,
    queues: Sequence[Queue],
    slurm_settings: Mapping[str, Any],
    options: Options,
    layout: Layout,
    machine: Machine,
) -> str:
    """Return slurm.conf: ParallelCluster's, then the site's own settings, then this machine's.

    Of a parameter that is there more than once Slurm takes the last. `slurm_settings` is
    `Scheduling/SlurmSettings` of the configuration.
    """
    custom = _custom(slurm_settings)
    by_memory = bool(slurm_settings.get("EnableMemoryBasedScheduling", False))
    here = _machine(options, layout, machine, custom, limits_memory=by_memory)
    sections = [
        ("As ParallelCluster", _parallelcluster(name, queues, slurm_settings, options)),
        ("CustomSlurmSettings", custom.items()),
        ("This machine", here.items()),
        ("Options of the start", (options.settings or {}).items()),
    ]
    lines = []
    for title, settings in sections:
        lines += [f"# {title}", *(f"{key}={value}" for key, value in settings), ""]
    port = machine.first_port + FIRST_NODE_PORT
    for index, queue in enumerate(queues):
        for group in queue.groups:
            lines.append(_render_nodes(group, machine.address, port))
            port += group.count
        lines += _render_partition(queue, is_default=index == 0)
    return "\n".join(lines) + "\n"


def render_slurmdbd_conf(layout: Layout, machine: Machine) -> str:
    """Return slurmdbd.conf; MariaDB is reached through its socket, `MYSQL_UNIX_PORT`."""
    settings = {
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={layout.munge_socket}",
        "DbdHost": "localhost",
        "DbdAddr": machine.address,
        "DbdPort": machine.first_port + 1,
        "SlurmUser": machine.user,
        "DebugLevel": "info",
        "LogFile": layout.log("slurmdbd"),
        "PidFile": layout.sockets / "slurmdbd.pid",
        "StorageType": "accounting_storage/mysql",
        "StorageHost": "localhost",
        "StorageUser": machine.user,
        "StorageLoc": DATABASE,
    }
    if machine.binds_to_loopback:
        settings["CommunicationParameters"] = "NoInAddrAny"
    return "".join(f"{key}={value}\n" for key, value in settings.items())


def render_gres_conf(queues: Iterable[Queue]) -> str:
    """Return gres.conf: GPUs that are counted, without devices."""
    return "".join(
        f"NodeName={group.hostlist} Name=gpu Type={group.gpu_type} Count={group.gpus}\n"
        for queue in queues
        for group in queue.groups
        if group.gpus
    )


def count_ports(queues: Iterable[Queue]) -> int:
    """Return how many consecutive ports a cluster needs."""
    return FIRST_NODE_PORT + sum(group.count for queue in queues for group in queue.groups)


def _custom(slurm_settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for given in slurm_settings.get("CustomSlurmSettings") or []
        for key, value in given.items()
    }


def _parallelcluster(
    name: str, queues: Sequence[Queue], slurm_settings: Mapping[str, Any], options: Options
) -> Iterable[tuple[str, Any]]:
    """Yield the settings of ParallelCluster's own slurm.conf that can be kept here."""
    by_memory = slurm_settings.get("EnableMemoryBasedScheduling", False)
    idle = options.idle_seconds
    if idle is None:
        minutes = int(slurm_settings.get("ScaledownIdletime", 10))
        idle = minutes * 60 if minutes >= 0 else -1
    # slurmctld turns upper case into lower in it; so do the tables of the database.
    yield "ClusterName", name.lower()
    yield "AuthType", "auth/munge"
    yield "CredType", "cred/munge"
    yield "SwitchType", "switch/none"
    yield "MpiDefault", "none"
    yield "ReconfigFlags", "KeepPartState"
    yield "PrivateData", "cloud"
    yield "TreeWidth", 65533
    yield "ResumeRate", 0
    yield "SuspendRate", 0
    yield "SuspendTime", idle
    yield "EnforcePartLimits", "ALL"
    yield "SchedulerType", "sched/backfill"
    yield "ReturnToService", 1
    yield "GresTypes", "gpu"
    yield "SelectType", "select/cons_tres"
    yield "SelectTypeParameters", "CR_CPU_Memory" if by_memory else "CR_CPU"
    yield "InactiveLimit", 0
    yield "MinJobAge", 300
    yield "SlurmctldDebug", "info"
    yield "SlurmdDebug", "info"
    if options.accounting:
        yield "AccountingStorageEnforce", "associations,limits,qos,safe"
        yield "AccountingStorageTRES", "gres/gpu"
    static = [g.hostlist for queue in queues for g in queue.groups if g.is_static]
    if static:
        yield "SuspendExcNodes", ",".join(static)


def _machine(
    options: Options,
    layout: Layout,
    machine: Machine,
    custom: Mapping[str, Any],
    *,
    limits_memory: bool,
) -> dict[str, Any]:
    """Return what must be so here, whatever the configuration says."""
    programs = layout.folder / "bin"
    communication = ["NoAddrCache"]
    if machine.binds_to_loopback:
        communication += ["NoInAddrAny", "NoCtldInAddrAny"]
    ours = {
        "CommunicationParameters": communication,
        # Decisions of the cloud's minutes are made in seconds.
        "SchedulerParameters": [
            "bf_interval=2",
            "sched_interval=2",
            "batch_sched_delay=0",
            "requeue_delay=1",
        ],
    }
    settings: dict[str, Any] = {
        "SlurmctldHost": f"localhost({machine.address})",
        "SlurmctldPort": machine.first_port,
        "SlurmUser": machine.user,
        "SlurmdUser": machine.user,
        # A requeued job waits as long as credentials last.
        "AuthInfo": f"socket={layout.munge_socket},cred_expire=5",
        "StateSaveLocation": layout.folder / "state",
        "SlurmdSpoolDir": layout.spool / "%n",
        "SlurmctldPidFile": layout.sockets / "slurmctld.pid",
        "SlurmdPidFile": layout.sockets / "slurmd-%n.pid",
        "SlurmctldLogFile": layout.log("slurmctld"),
        "SlurmdLogFile": layout.log("slurmd-%n"),
        # Without cgroups, which belong to the machine and would outlive the cluster.
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "JobAcctGatherType": "jobacct_gather/linux",
        "JobAcctGatherFrequency": "task=1",
        "ResumeProgram": programs / "resume",
        "SuspendProgram": programs / "suspend",
        "ResumeFailProgram": programs / "suspend",
        "MailProg": programs / "mail",
        "ResumeTimeout": math.ceil(options.boot_seconds) + 30,
        "SuspendTimeout": 3,
        "SlurmctldParameters": "idle_on_node_suspend,power_save_min_interval=1,"
        "power_save_interval=1,cloud_dns",
        # Nodes may be larger than this machine.
        "SlurmdParameters": "config_overrides",
        "SlurmctldTimeout": 30,
        "SlurmdTimeout": 30,
        "UnkillableStepTimeout": 30,
        "MessageTimeout": 30,
        "KillWait": 2,
    }
    for key in _LISTS:
        given = str(custom.get(key, ""))
        settings[key] = ",".join([*([given] if given else []), *ours[key]])
    if limits_memory:
        # In the place of a cgroup: a job above its memory is killed, and is OUT_OF_MEMORY.
        settings["JobAcctGatherParams"] = "OverMemoryKill"
    if options.accounting:
        settings |= {
            "AccountingStorageType": "accounting_storage/slurmdbd",
            "AccountingStorageHost": "localhost",
            "AccountingStoragePort": machine.first_port + 1,
            # To slurmdbd's clients this is the socket of munge.
            "AccountingStoragePass": layout.munge_socket,
        }
    else:
        settings["AccountingStorageType"] = "accounting_storage/none"
    return settings


def _render_nodes(group: NodeGroup, address: str, port: int) -> str:
    line = (
        f"NodeName={group.hostlist} CPUs={group.cpus} RealMemory={group.memory_mib} State=CLOUD "
        f"Feature={','.join(group.features)} Weight={group.weight}"
    )
    if group.gpus:
        line += f" Gres=gpu:{group.gpu_type}:{group.gpus}"
    # All nodes are this machine; each listens on a port of its own.
    line += f" NodeAddr={address} Port=[{port}-{port + group.count - 1}]"
    return line + "".join(f" {key}={value}" for key, value in group.settings.items())


def _render_partition(queue: Queue, *, is_default: bool) -> list[str]:
    if not queue.groups:
        return []
    nodes = ",".join(group.hostlist for group in queue.groups)
    partition = f"PartitionName={queue.name} Nodes={queue.name}_nodes MaxTime=INFINITE State=UP"
    partition += " Default=YES" if is_default else ""
    partition += " OverSubscribe=EXCLUSIVE" if queue.is_exclusive else ""
    partition += "".join(f" {key}={value}" for key, value in queue.settings.items())
    return [f"NodeSet={queue.name}_nodes Nodes={nodes}", partition]
