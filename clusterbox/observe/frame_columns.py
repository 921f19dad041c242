"""The columns of every frame: type, unit, meaning, and which source gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# pandas' names; all of them have NA.
Type = Literal["string", "Int64", "Float64", "datetime64[us, UTC]"]
Source = Literal["slurm", "prometheus", "either", "both"]


@dataclass(frozen=True)
class Column:
    """One column. `source` is what gives it; `either` of both does, `both` are needed."""

    name: str
    type: Type
    unit: str
    meaning: str
    source: Source = "either"


def _text(name: str, meaning: str, source: Source = "either") -> Column:
    return Column(name, "string", "", meaning, source)


def _count(name: str, unit: str, meaning: str, source: Source = "either") -> Column:
    return Column(name, "Int64", unit, meaning, source)


def _amount(name: str, unit: str, meaning: str, source: Source = "either") -> Column:
    return Column(name, "Float64", unit, meaning, source)


def _time(name: str, meaning: str, source: Source = "either") -> Column:
    return Column(name, "datetime64[us, UTC]", "UTC", meaning, source)


_CLUSTER = _text("cluster", "name of the cluster")
_QUEUE = _text("queue", "queue: Slurm's partition")
_HAD = _amount(
    "cpu_seconds", "s", "CPU time that jobs which ended in the span had: CPUs times elapsed time"
)
_USED = _amount("cpu_used_seconds", "s", "CPU time that those jobs used")
_EFFICIENCY = _amount("cpu_efficiency", "ratio", "`cpu_used_seconds` / `cpu_seconds`")

COLUMNS: dict[str, tuple[Column, ...]] = {
    "jobs": (
        _CLUSTER,
        _text("job", "id; with `_` and the task of an array", "slurm"),
        _count("jobs", "jobs", "how many the row stands for: more than 1 for waiting arrays"),
        _text("name", "name that its user gave it", "slurm"),
        _text("user", "user", "slurm"),
        _text("account", "Slurm account", "slurm"),
        _QUEUE,
        _text("state", "state such as RUNNING or COMPLETED"),
        _text("exit_code", "exit code and signal, such as 0:0", "slurm"),
        _time("submitted", "when it was submitted", "slurm"),
        _time("started", "when it started; NA while it waits", "slurm"),
        _time("ended", "when it ended; NA while it waits or runs", "slurm"),
        _count("wait_seconds", "s", "from submission to start", "slurm"),
        _count("elapsed_seconds", "s", "from start to end, or to now", "slurm"),
        _count("limit_seconds", "s", "time limit; NA without one", "slurm"),
        _count("nodes", "nodes", "nodes that it has or had", "slurm"),
        _count("cpus", "CPUs", "CPUs that it has or had", "slurm"),
        _count("memory_bytes", "bytes", "memory that it was given", "slurm"),
        _count("memory_used_bytes", "bytes", "most memory of a task of a step", "slurm"),
        _amount("cpu_seconds", "s", "CPUs times elapsed time", "slurm"),
        _amount("cpu_used_seconds", "s", "CPU time it used; NA until it ended", "slurm"),
        _amount("cpu_efficiency", "ratio", "`cpu_used_seconds` / `cpu_seconds`", "slurm"),
    ),
    "nodes": (
        _CLUSTER,
        _text("node", "name of the node"),
        _text("queue", "queues it is in, with commas", "slurm"),
        _text("compute_resource", "ParallelCluster's compute resource", "slurm"),
        _text("state", "idle, mix, alloc, down, drain, ... as the metrics call it"),
        _text("power", "the same, or powering_up, powering_down, powered_down", "slurm"),
        _count("cpus", "CPUs", "all CPUs"),
        _count("cpus_allocated", "CPUs", "CPUs that jobs have"),
        _count("memory_bytes", "bytes", "all memory"),
        _count("memory_allocated_bytes", "bytes", "memory that jobs have"),
        _text("reason", "why it is down or drained", "slurm"),
        _amount("cpu_busy", "ratio", "mean of the span, node exporter", "prometheus"),
        _amount("memory_busy", "ratio", "mean of the span, node exporter", "prometheus"),
        _amount("disk_full", "ratio", "fullest file system now, node exporter", "prometheus"),
    ),
    "users": (
        _CLUSTER,
        _text("user", "user"),
        _count("running", "jobs", "jobs that run now"),
        _count("waiting", "jobs", "jobs that wait now; tasks of arrays each count"),
        _count("cpus", "CPUs", "CPUs that running jobs have now"),
        _count("ended", "jobs", "jobs that ended in the span", "slurm"),
        _HAD,
        _USED,
        _EFFICIENCY,
    ),
    "queues": (
        _CLUSTER,
        _QUEUE,
        _count("running", "jobs", "jobs that run now"),
        _count("waiting", "jobs", "jobs that wait now; tasks of arrays each count"),
        _count("ended", "jobs", "jobs that ended in the span"),
        _count("nodes_up", "nodes", "nodes that have a machine"),
        _count("nodes_most", "nodes", "nodes that it may have"),
        _count("cpus", "CPUs", "CPUs that it may have"),
        _count("cpus_allocated", "CPUs", "CPUs that jobs have"),
        _amount("wait_median_seconds", "s", "half of the jobs that started waited less"),
        _amount("wait_p95_seconds", "s", "95 % of the jobs that started waited less"),
        _HAD,
        _USED,
        _EFFICIENCY,
    ),
    "costs": (
        _CLUSTER,
        _text("component", "head node, compute, storage, ...", "prometheus"),
        _QUEUE,
        _text("purchase_option", "on-demand, Spot, ...", "prometheus"),
        _amount("usd_per_hour", "USD/h", "now, as far as there are prices", "prometheus"),
        _amount("usd", "USD", "in the span, as far as Prometheus was told of it", "prometheus"),
        _amount("usd_month", "USD", "since the month began", "prometheus"),
        _amount("unknown", "things", "things that are used now and have no price", "prometheus"),
        _amount("cpu_hours", "CPU h", "CPUs times hours that jobs had in the span", "slurm"),
        _amount("node_hours", "node h", "nodes times hours that jobs had in the span", "slurm"),
    ),
    "efficiency": (
        _CLUSTER,
        _QUEUE,
        _text("user", "user"),
        _count("ended", "jobs", "jobs that ended in the span", "slurm"),
        _HAD,
        _USED,
        _EFFICIENCY,
        _amount("cpu_unused_hours", "CPU h", "CPU time that ended jobs had and did not use"),
        _amount("memory_efficiency", "ratio", "most memory of a task / memory given", "slurm"),
        _amount("limit_used", "ratio", "elapsed time / time limit, mean", "slurm"),
    ),
}
