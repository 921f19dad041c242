"""Every metric that clusterbox exports: name, type, labels and what it says.

Exporters take names and help from here, dashboards and rules are checked against it, and
docs/observability-metrics.md lists it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["gauge", "counter", "histogram"]


@dataclass(frozen=True)
class Metric:
    """One metric; `name` is as it is scraped, with `_total` where it is a counter of ours."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


def _gauges(prefix: str, helps: dict[str, str], *labels: str) -> list[Metric]:
    return [Metric(f"{prefix}{name}", "gauge", text, labels) for name, text in helps.items()]


_CPU_STATES = {
    "alloc": "CPUs that jobs have",
    "idle": "CPUs that jobs could have now or after a power-up",
    "other": "CPUs of nodes that are down or drained, and that jobs do not have",
    "total": "all CPUs",
}
_NODE_STATES = {
    "alloc": "nodes of which jobs have every CPU",
    "comp": "nodes on which jobs are completing",
    "down": "nodes that are down",
    "drain": "nodes that are draining or drained, down ones included",
    "err": "nodes in state ERROR",
    "fail": "nodes in state FAIL",
    "idle": "nodes without jobs, powered down ones included",
    "maint": "nodes in a maintenance reservation",
    "mix": "nodes of which jobs have some CPUs",
    "resv": "nodes in another reservation",
}
_QUEUE = {
    "pending": "jobs that wait, also those for a dependency; tasks of arrays each count",
    "pending_dependency": "jobs that wait for other jobs",
    "running": "jobs that run",
    "suspended": "jobs that are suspended",
    "cancelled": "jobs that were cancelled and that slurmctld still remembers (MinJobAge)",
    "completing": "jobs that are completing",
    "completed": "jobs that completed and that slurmctld still remembers",
    "configuring": "jobs whose nodes boot",
    "failed": "jobs that failed and that slurmctld still remembers",
    "timeout": "jobs that ran into their time limit and that slurmctld still remembers",
    "preempted": "jobs that were preempted and that slurmctld still remembers",
    "node_fail": "jobs whose node failed and that slurmctld still remembers",
}
_SCHEDULER = {
    "threads": "threads of slurmctld",
    "queue_size": "messages that slurmctld has yet to send to nodes",
    "dbd_queue_size": "messages that slurmctld has yet to send to slurmdbd",
    "last_cycle": "last scheduling cycle, in microseconds",
    "mean_cycle": "mean scheduling cycle, in microseconds",
    "cycle_per_minute": "scheduling cycles a minute",
    "backfill_last_cycle": "last backfill cycle, in microseconds",
    "backfill_mean_cycle": "mean backfill cycle, in microseconds",
    "backfill_depth_mean": "mean number of jobs that backfill looks at",
    "backfilled_jobs_since_start_total": "jobs that backfill started since slurmctld started",
    "backfilled_jobs_since_cycle_total": "jobs that backfill started since the figures were reset",
    "backfilled_heterogeneous_total": "parts of heterogeneous jobs that backfill started",
}
_JOBS_OF = {
    "jobs_pending": "jobs that wait; tasks of arrays each count",
    "jobs_running": "jobs that run",
    "jobs_suspended": "jobs that are suspended",
    "cpus_running": "CPUs that running jobs have",
}

# The names of the widely used Go exporter (prometheus-slurm-exporter 0.20), for its dashboards.
GO_EXPORTER = (
    *_gauges("slurm_cpus_", _CPU_STATES),
    *_gauges("slurm_nodes_", _NODE_STATES),
    *_gauges("slurm_queue_", _QUEUE),
    *_gauges("slurm_scheduler_", _SCHEDULER),
    *_gauges("slurm_account_", _JOBS_OF, "account"),
    *_gauges("slurm_user_", _JOBS_OF, "user"),
    *_gauges(
        "slurm_partition_cpus_",
        {
            "allocated": _CPU_STATES["alloc"],
            **{k: _CPU_STATES[k] for k in ("idle", "other", "total")},
        },
        "partition",
    ),
    Metric("slurm_partition_jobs_pending", "gauge", _JOBS_OF["jobs_pending"], ("partition",)),
    *_gauges("slurm_node_cpu_", _CPU_STATES, "node", "status"),
    Metric("slurm_node_mem_alloc", "gauge", "memory that jobs have, in MiB", ("node", "status")),
    Metric("slurm_node_mem_total", "gauge", "all memory, in MiB", ("node", "status")),
    *_gauges(
        "slurm_gpus_",
        {
            "alloc": "GPUs that jobs have",
            "idle": "GPUs that jobs do not have",
            "total": "all GPUs",
            "utilization": "share of the GPUs that jobs have, 0 to 1",
        },
    ),
)

SLURM = (
    Metric("slurm_up", "gauge", "1 where slurmctld answered all commands of the last refresh"),
    Metric("slurm_accounting_up", "gauge", "1 where the accounting database answered"),
    Metric("slurm_info", "gauge", "1, with the version of Slurm", ("version",)),
    Metric(
        "slurm_partition_nodes",
        "gauge",
        "nodes of a partition by state; one that is well and saves power is told as that",
        ("partition", "state"),
    ),
    Metric(
        "slurm_compute_resource_nodes",
        "gauge",
        "nodes of a ParallelCluster compute resource by state, as slurm_partition_nodes",
        ("partition", "compute_resource", "state"),
    ),
    Metric(
        "slurm_launch_failed_nodes",
        "gauge",
        "nodes that are down because their instance could not be launched, by EC2's code",
        ("partition", "compute_resource", "code"),
    ),
    Metric(
        "slurm_unhealthy_nodes",
        "gauge",
        "nodes that are down or drained, by the kind of reason that Slurm has",
        ("partition", "cause"),
    ),
    Metric(
        "slurm_partition_inactive",
        "gauge",
        "1 where a partition is INACTIVE, which ParallelCluster's protected mode makes it",
        ("partition",),
    ),
    Metric(
        "slurm_pending_jobs",
        "gauge",
        "jobs that wait, by Slurm's reason; tasks of arrays each count",
        ("partition", "reason"),
    ),
    Metric("slurm_jobs", "gauge", "jobs by state", ("partition", "state")),
    Metric(
        "slurm_oldest_pending_job_seconds",
        "gauge",
        "time since the submission of the oldest job that waits for nodes",
        ("partition",),
    ),
    Metric(
        "slurm_job_wait_seconds",
        "histogram",
        "time from submission to start of the jobs that started while the exporter ran",
        ("partition",),
    ),
    Metric(
        "slurm_memory_requested_bytes",
        "gauge",
        "memory that running jobs have asked for, where memory is a resource",
        ("partition",),
    ),
    Metric(
        "slurm_memory_used_bytes",
        "gauge",
        "memory that is not free on nodes that are up, caches of files included",
        ("partition",),
    ),
    Metric("slurm_licenses_total", "gauge", "licences that there are", ("license",)),
    Metric("slurm_licenses_used", "gauge", "licences that jobs have", ("license",)),
    Metric("slurm_licenses_free", "gauge", "licences that jobs could have", ("license",)),
    Metric(
        "slurm_node_power_watts", "gauge", "power of a node, where Slurm measures it", ("node",)
    ),
    Metric(
        "slurm_scheduler_jobs_total",
        "counter",
        "jobs since the figures were reset, by what happened to them",
        ("event",),
    ),
    Metric("slurm_jobs_ended_total", "counter", "jobs that ended", ("partition", "state")),
    Metric(
        "slurm_ended_jobs_cpu_used_seconds_total",
        "counter",
        "CPU time that jobs used until their end",
        ("partition", "user"),
    ),
    Metric(
        "slurm_ended_jobs_cpu_allocated_seconds_total",
        "counter",
        "CPU time that jobs had until their end: CPUs times elapsed time",
        ("partition", "user"),
    ),
    Metric(
        "slurm_unknown_states_total",
        "counter",
        "states of nodes and jobs that this exporter does not know, of a newer Slurm",
        ("kind",),
    ),
)
EXPORTER = (
    Metric(
        "slurm_exporter_data_age_seconds", "gauge", "age of what this scrape tells of slurmctld"
    ),
    Metric(
        "slurm_exporter_command_duration_seconds",
        "gauge",
        "time that a command took in the last refresh",
        ("command",),
    ),
    Metric(
        "slurm_exporter_command_failures_total",
        "counter",
        "commands that failed or took too long",
        ("command",),
    ),
    Metric("slurm_exporter_refreshes_total", "counter", "times that slurmctld was asked"),
    Metric(
        "slurm_exporter_labels_dropped", "gauge", "users or accounts told as `other`", ("kind",)
    ),
)
_SPENT = ("cluster", "component", "queue", "purchase_option")
COST = (
    Metric(
        "clusterbox_cost_up",
        "gauge",
        "1 where the figures of a cluster's cost are no older than 3 refreshes",
        ("cluster",),
    ),
    Metric(
        "clusterbox_cost_age_seconds",
        "gauge",
        "age of the figures of a cluster's cost",
        ("cluster",),
    ),
    Metric(
        "clusterbox_cost_refreshes_total",
        "counter",
        "times that a cluster's EC2 and Slurm were asked, by what came of it",
        ("cluster", "result"),
    ),
    Metric(
        "clusterbox_cost_accounting",
        "gauge",
        "1 where jobs are told from idle nodes by Slurm's accounting, 0 where EC2 alone is asked",
        ("cluster",),
    ),
    Metric(
        "clusterbox_cost_usd_per_hour",
        "gauge",
        "USD an hour that a cluster costs now, as far as there are prices",
        _SPENT,
    ),
    Metric(
        "clusterbox_cost_month_usd",
        "gauge",
        "USD that a cluster has cost since the month began, as far as there are prices",
        _SPENT,
    ),
    Metric(
        "clusterbox_cost_unknown",
        "gauge",
        "machines, disks and jobs' nodes that are used now and have no price",
        _SPENT,
    ),
    Metric(
        "clusterbox_cost_unknown_seconds",
        "gauge",
        "time of use since the month began that has no price",
        _SPENT,
    ),
    Metric("clusterbox_budget_usd", "gauge", "budget of a cluster a month", ("cluster",)),
    Metric(
        "clusterbox_budget_spent_usd",
        "gauge",
        "USD that a cluster has cost since the month began",
        ("cluster",),
    ),
    Metric(
        "clusterbox_budget_remaining_usd",
        "gauge",
        "what is left of a cluster's budget; negative when it is spent",
        ("cluster",),
    ),
    Metric(
        "clusterbox_budget_forecast_usd",
        "gauge",
        "USD that a cluster costs this month if it goes on as in the last 7 days",
        ("cluster",),
    ),
    Metric(
        "clusterbox_price_age_seconds",
        "gauge",
        "age of the prices that are used: on-demand, services, spot",
        ("region", "prices"),
    ),
)
_CONTAINER = ("engine", "container", "image", "job", "user")
CONTAINERS = (
    Metric(
        "clusterbox_container_engine_up",
        "gauge",
        "1 where the containers of an engine could be read",
        ("engine",),
    ),
    Metric("clusterbox_containers", "gauge", "containers that run", ("engine",)),
    Metric(
        "clusterbox_containers_left_out",
        "gauge",
        "containers that run and have no series, because there are too many",
        ("engine",),
    ),
    Metric(
        "clusterbox_container_cpu_seconds_total",
        "counter",
        "CPU time that a container used",
        _CONTAINER,
    ),
    Metric(
        "clusterbox_container_memory_bytes",
        "gauge",
        "memory of a container, without cached files that could be dropped",
        _CONTAINER,
    ),
    Metric(
        "clusterbox_container_memory_limit_bytes",
        "gauge",
        "memory that a container may have, where it has a limit",
        _CONTAINER,
    ),
    Metric(
        "clusterbox_container_io_read_bytes_total",
        "counter",
        "bytes that a container read from disks, where the kernel counts them",
        _CONTAINER,
    ),
    Metric(
        "clusterbox_container_io_write_bytes_total",
        "counter",
        "bytes that a container wrote to disks, where the kernel counts them",
        _CONTAINER,
    ),
    Metric("clusterbox_container_processes", "gauge", "processes of a container", _CONTAINER),
    Metric(
        "clusterbox_container_refresh_seconds",
        "gauge",
        "time that reading the containers of an engine took",
        ("engine",),
    ),
)
SITE = (
    Metric(
        "clusterbox_daemon_heartbeat_timestamp_seconds",
        "gauge",
        "when a daemon of ParallelCluster last said that it lives, in seconds since 1970",
        ("daemon",),
    ),
    Metric(
        "clusterbox_site_source_up",
        "gauge",
        "1 where the figures of a source are no older than 3 refreshes",
        ("source",),
    ),
    Metric("clusterbox_image_age_seconds", "gauge", "age of a locked image", ("image",)),
    Metric(
        "clusterbox_backup_age_seconds",
        "gauge",
        "age of the last backup of a file system",
        ("resource",),
    ),
    Metric(
        "clusterbox_backup_missing",
        "gauge",
        "1 where a file system that is backed up has no backup yet",
        ("resource",),
    ),
    Metric(
        "clusterbox_certificate_expiry_timestamp_seconds",
        "gauge",
        "when a certificate of ACM expires, in seconds since 1970",
        ("domain",),
    ),
    Metric(
        "clusterbox_efs_burst_credit_bytes",
        "gauge",
        "burst credits of a file system whose throughput is bursting",
        ("file_system",),
    ),
    Metric(
        "clusterbox_efs_io_limit_ratio",
        "gauge",
        "how near a general purpose file system is to its limit of operations, 0 to 1",
        ("file_system",),
    ),
)
METRICS: dict[str, Metric] = {
    each.name: each for each in (*GO_EXPORTER, *SLURM, *EXPORTER, *COST, *CONTAINERS, *SITE)
}
