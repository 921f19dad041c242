"""What Slurm's words for states, reasons and ids mean, from 22.05 to 25.11."""

from __future__ import annotations

import re
from functools import lru_cache

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
# Flags of a node that change what it is called, the strongest first (slurm.h: NODE_STATE_*).
_FLAGS = {
    "FAIL": "fail",
    "FAILING": "fail",
    "DRAIN": "drain",
    "MAINTENANCE": "maint",
    "MAINT": "maint",
    "RESERVED": "resv",
    "COMPLETING": "comp",
}
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
NODE_STATES = (*dict.fromkeys(_BASES.values()), *dict.fromkeys(_FLAGS.values()), *_POWER.values())
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
# A code that EC2 may answer with; another text is told as `other`, because it could be anything.
_KNOWN_CODE = re.compile(r"[A-Z][A-Za-z]{3,60}")


@lru_cache(maxsize=1024)
def node_state(words: str) -> tuple[str, str, bool]:
    """Return what a node's `State` means: as the Go exporter calls it, with power saving, known.

    `IDLE+CLOUD+POWERED_DOWN` is ("idle", "powered_down", True). A word that no Slurm up to 25.11
    writes makes it unknown; a base state that is not known is `other`.
    """
    base, *flags = [word.strip("*~#!%$@^-+") for word in words.upper().split("+")]
    known = base in _BASES and all(f in _FLAGS or f in _POWER or f in _SILENT for f in flags)
    state = _BASES.get(base, "other")
    if base == "DOWN":
        # A node that is down stays so whatever else it is, but for being drained.
        state = "drain" if "DRAIN" in flags else "down"
    else:
        state = next((name for flag, name in _FLAGS.items() if flag in flags), state)
    power = next((name for flag, name in _POWER.items() if flag in flags), state)
    return state, power, known


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
