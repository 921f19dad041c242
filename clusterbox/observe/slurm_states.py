"""What Slurm's words for states, reasons and ids mean, from 22.05 to 25.11."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

# Base states of a node (slurm.h: enum node_states), and the one of the Go exporter.
_BASES = {
    "ALLOCATED": "alloc",
    "DOWN": "down",
    "ERROR": "err",
    "FUTURE": "other",
    "IDLE": "idle",
    "MIXED": "mix",
    "UNKNOWN": "other",
}
# Flags of a node that can change what it is called (slurm.h: NODE_STATE_*).
_DRAIN = frozenset({"DRAIN", "DRAINED", "DRAINING"})
_FAIL = frozenset({"FAIL", "FAILING"})
_MAINT = frozenset({"MAINT", "MAINTENANCE"})
_FLAGS = _DRAIN | _FAIL | _MAINT | {"COMPLETING", "RESERVED"}
_POWER = {
    "POWERING_UP": "powering_up",
    "POWERING_DOWN": "powering_down",
    "POWERED_DOWN": "powered_down",
}
_SILENT = frozenset(
    {
        "BLOCKED",
        "CLOUD",
        "DYNAMIC_FUTURE",
        "DYNAMIC_NORM",
        "EXTERNAL",
        "INVALID",
        "INVALID_REG",
        "NOT_RESPONDING",
        "PERFCTRS",
        "PLANNED",
        "POWER_DOWN",
        "POWER_DRAIN",
        "POWER_UP",
        "REBOOT",
        "REBOOT_CANCEL",
        "REBOOT_ISSUED",
        "REBOOT_REQUESTED",
        "RESUME",
        "UNDRAIN",
    }
)
_LONG = {"alloc": "allocated", "comp": "completing", "mix": "mixed", "resv": "reserved"}
# States in which a node takes no jobs, whether or not it is powered.
UNHEALTHY = frozenset({"down", "drain", "err", "fail"})
NODE_STATES = (
    *dict.fromkeys(_BASES.values()),
    *("comp", "drain", "fail", "maint", "resv"),
    *_POWER.values(),
)
# States of a job (slurm.h: enum job_states, and the flags that squeue shows as a state).
JOB_STATES = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "COMPLETING",
        "CONFIGURING",
        "DEADLINE",
        "EXPEDITING",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PENDING",
        "PREEMPTED",
        "REQUEUED",
        "REQUEUE_FED",
        "REQUEUE_HOLD",
        "RESIZING",
        "RESV_DEL_HOLD",
        "REVOKED",
        "RUNNING",
        "SIGNALING",
        "SPECIAL_EXIT",
        "STAGE_OUT",
        "STOPPED",
        "SUSPENDED",
        "TIMEOUT",
    }
)
# Those in which a job waits for nodes.
WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"})
# Reasons of a job that waits for nothing that the cluster could give it.
NOT_WAITING_FOR_NODES = frozenset(
    {
        "BeginTime",
        "Dependency",
        "DependencyNeverSatisfied",
        "JobArrayTaskLimit",
        "JobHeldAdmin",
        "JobHeldUser",
        "JobHoldMaxRequeue",
    }
)
# ParallelCluster names nodes QUEUE-st|dy-RESOURCE-NUMBER.
_NODE_PREFIX = re.compile(r"(?P<queue>.+)-(?:st|dy)-(?P<resource>.+)")
_CODE = re.compile(r"\(Code:(?P<code>\w+)\)")
_TASKS = re.compile(r"_\[([^\]%]*)(?:%\d+)?\]")
_REASON = re.compile(r"\(?([A-Z][A-Za-z0-9]{1,60})\)?(?:$|[,:(])")
# What slurmctld writes into a job's state_desc, which squeue prints in the place of the reason.
_SENTENCES = {
    "nodes required for job are down": "Resources",
    "job requeued in held state": "JobHeldUser",
    "launch failed requeued held": "JobHeldAdmin",
    "launch failure limit exceeded": "JobHeldAdmin",
    "job held": "JobHeldAdmin",
}
# A code that EC2 may answer with; another text is told as `other`, because it could be anything.
_KNOWN_CODE = re.compile(r"[A-Z][A-Za-z]{3,60}")


class NodeState(NamedTuple):
    """What a node's state means.

    `name` is the Go exporter's word for it, and `long` that of its series of single nodes (sinfo's
    StateLong without marks). `power` is the same with power saving in its place,
    where the node is well. `takes_jobs` is as sinfo has it, which counts the idle CPUs of a node
    that is neither down nor drained. `is_up` says that there is a machine which tells of itself.
    """

    name: str
    long: str
    power: str
    is_known: bool
    takes_jobs: bool
    is_up: bool
    is_powered_down: bool


@lru_cache(maxsize=1024)
def node_state(words: str) -> NodeState:
    """Return what `State` of `scontrol show node` means, such as `IDLE+CLOUD+POWERED_DOWN`.

    The precedence is that of sinfo (node_state_string in Slurm's slurm_protocol_defs.c). A word that
    no Slurm up to 25.11 writes makes it unknown; a base state that is not known is `other`.
    """
    base, *rest = [word.strip("*~#!%$@^-+") for word in words.upper().split("+")]
    flags = frozenset(rest)
    name = _state_name(base, flags)
    saving = next((state for flag, state in _POWER.items() if flag in flags), None)
    return NodeState(
        name=name,
        long=_long_name(name, base, flags),
        power=saving if saving and name not in UNHEALTHY else name,
        is_known=base in _BASES and flags <= _FLAGS | _POWER.keys() | _SILENT,
        takes_jobs=base != "DOWN" and not flags & _DRAIN,
        is_up=base != "DOWN" and saving is None,
        is_powered_down=saving == "powered_down",
    )


def _long_name(name: str, base: str, flags: frozenset[str]) -> str:
    if name == "drain":
        is_busy = base in ("ALLOCATED", "MIXED") or "COMPLETING" in flags
        return "draining" if is_busy else "drained"
    return _LONG.get(name, name)


def _state_name(base: str, flags: frozenset[str]) -> str:
    is_busy = base in ("ALLOCATED", "MIXED")
    if flags & _DRAIN:
        return "drain"
    if flags & _MAINT and not is_busy and base != "DOWN":
        return "maint"
    if flags & _FAIL:
        return "fail"
    if "COMPLETING" in flags and base not in ("ALLOCATED", "DOWN"):
        return "comp"
    if "RESERVED" in flags and base == "IDLE":
        return "resv"
    return _BASES.get(base, "other")


def split_node_name(name: str) -> tuple[str, str] | None:
    """Return queue and compute resource of a node of ParallelCluster; None for another name."""
    prefix, _, number = name.rpartition("-")
    return _split_prefix(prefix) if number.isdigit() else None


@lru_cache(maxsize=4096)
def _split_prefix(prefix: str) -> tuple[str, str] | None:
    found = _NODE_PREFIX.fullmatch(prefix)
    return (found["queue"], found["resource"]) if found else None


def launch_code(reason: str) -> str | None:
    """Return EC2's code in the reason of a node whose launch failed; None where it is another."""
    found = _CODE.search(reason)
    if found is None:
        return None
    code = found["code"]
    return code if _KNOWN_CODE.fullmatch(code) else "other"


def cause(reason: str) -> str:
    """Return what kind of reason a node is down or drained for; one of a dozen words."""
    lowered = reason.lower()
    if launch_code(reason) is not None:
        return "launch_failed"
    for words, name in (
        (("backing instance", "terminated"), "instance_gone"),
        (("not responding",), "not_responding"),
        (("bootstrap", "replacement timeout"), "bootstrap_failed"),
        (("health check", "ec2 health"), "health_check"),
        (("low realmemory", "low cpu", "low socket", "invalid"), "configuration"),
        (("resumetimeout", "resume timeout"), "resume_timeout"),
        (("cluster update", "queue update", "update"), "cluster_update"),
        (("scheduled event", "spot"), "scheduled_event"),
        (("prolog", "epilog", "kill task failed"), "job_script"),
        (("clusterbox",), "clusterbox"),
    ):
        if any(word in lowered for word in words):
            return name
    return "other" if reason else "unknown"


def short_reason(reason: str) -> str:
    """Return Slurm's word for why a job waits: `ReqNodeNotAvail, UnavailableNodes:a-1` is its first.

    Slurm's own sentences are told as the word that they stand for, and those of administrators and
    plugins as `other`.
    """
    found = _REASON.match(reason)
    if found:
        return found[1]
    lowered = reason.replace("_", " ").lower()
    return next((word for start, word in _SENTENCES.items() if lowered.startswith(start)), "other")


def count_tasks(job: str) -> int:
    """Return how many jobs an id of `squeue` stands for: `7_[1-10,20%4]` are 11, `7_3` is one.

    Raises ValueError for a list that Slurm would not write.
    """
    found = _TASKS.search(job)
    if found is None:
        return 1
    count = 0
    for part in found[1].split(","):
        ends, _, step = part.partition(":")
        first, dash, last = ends.partition("-")
        count += (int(last) - int(first)) // int(step or 1) + 1 if dash else int(first) * 0 + 1
    return count
