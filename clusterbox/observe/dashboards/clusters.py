"""The dashboards of Slurm: the site, one cluster, one queue."""

from __future__ import annotations

from clusterbox.observe.dashboards.model import (
    ALIVE,
    CLUSTER_CHOICE,
    QUEUE_CHOICE,
    Color,
    Dashboard,
    Link,
    Panel,
    Query,
    Row,
    falling,
    plain,
    rising,
)

_C = 'cluster=~"$cluster"'
_Q = 'cluster=~"$cluster", partition=~"$queue"'
# Machines that there are: neither away nor going.
_UP = 'state!~"powered_down|powering_down"'
_CLUSTER_LINK = Link("clusterbox-cluster", (("cluster", "cluster"),))
_QUEUE_LINK = Link("clusterbox-queue", (("cluster", "cluster"), ("queue", "partition")))
_UP_WORDS: tuple[tuple[int, str, Color], ...] = ((1, "up", "green"), (0, "down", "red"))

SITE = Dashboard(
    "clusterbox-site",
    "Site",
    "All clusters on one page: what runs, what waits, what it costs an hour.",
    (CLUSTER_CHOICE,),
    (
        Row(
            "Now",
            (
                Panel(
                    "Slurm",
                    "stat",
                    (Query(f"min by (cluster) (slurm_up{{{_C}}})", "{{cluster}}"),),
                    "none",
                    ALIVE,
                    "Down: slurmctld did not answer the exporter's last question.",
                    width=6,
                    height=5,
                    words=_UP_WORDS,
                    links=(_CLUSTER_LINK,),
                ),
                Panel(
                    "Targets that do not answer",
                    "stat",
                    (Query(f"sum(up{{{_C}}} == bool 0)", "targets"),),
                    "none",
                    rising(1, 3),
                    "Exporters and nodes that Prometheus could not scrape the last time.",
                    width=4,
                    height=5,
                ),
                Panel(
                    "Jobs running",
                    "stat",
                    (Query(f"sum(slurm_queue_running{{{_C}}})", "running"),),
                    "short",
                    plain(),
                    "Tasks of job arrays each count.",
                    width=4,
                    height=5,
                ),
                Panel(
                    "Jobs waiting",
                    "stat",
                    (Query(f"sum(slurm_queue_pending{{{_C}}})", "waiting"),),
                    "short",
                    rising(1_000, 10_000),
                    "Also those that wait for other jobs; tasks of job arrays each count.",
                    width=4,
                    height=5,
                ),
                Panel(
                    "USD an hour",
                    "stat",
                    (Query(f"sum(clusterbox_cost_usd_per_hour{{{_C}}})", "USD/h"),),
                    "currencyUSD",
                    plain(),
                    "What is there now at today's prices, without what has no price.",
                    width=6,
                    height=5,
                    links=(Link("clusterbox-cost", ()),),
                ),
            ),
        ),
        Row(
            "Clusters",
            (
                Panel(
                    "Nodes that are up",
                    "timeseries",
                    (
                        Query(
                            f"sum by (cluster) (slurm_compute_resource_nodes{{{_C}, {_UP}}})",
                            "{{cluster}}",
                        ),
                    ),
                    "short",
                    plain(),
                    "Nodes that have a machine, those that boot or are down included.",
                    is_stacked=True,
                    links=(_CLUSTER_LINK,),
                ),
                Panel(
                    "CPUs in use, of nodes that are up",
                    "timeseries",
                    (
                        Query(
                            f"sum by (cluster) (slurm_node_cpu_alloc{{{_C}}})"
                            f" / sum by (cluster) (slurm_node_cpu_total{{{_C}}})",
                            "{{cluster}}",
                        ),
                    ),
                    "percentunit",
                    falling(0.3, 0.6),
                    "CPUs that jobs have as a share of CPUs that are paid for.",
                    greatest=1,
                    links=(_CLUSTER_LINK,),
                ),
                Panel(
                    "Oldest waiting job",
                    "timeseries",
                    (
                        Query(
                            f"max by (cluster) (slurm_oldest_pending_job_seconds{{{_C}}})",
                            "{{cluster}}",
                        ),
                    ),
                    "s",
                    rising(3_600, 6 * 3_600),
                    "Since its submission; of jobs that wait for nodes.",
                    links=(_CLUSTER_LINK,),
                ),
                Panel(
                    "USD an hour, by cluster",
                    "timeseries",
                    (
                        Query(
                            f"sum by (cluster) (clusterbox_cost_usd_per_hour{{{_C}}})",
                            "{{cluster}}",
                        ),
                    ),
                    "currencyUSD",
                    plain(),
                    "At list and Spot prices, without taxes and discounts.",
                    is_stacked=True,
                    links=(Link("clusterbox-cost", (("cluster", "cluster"),)),),
                ),
                Panel(
                    "Budget spent this month",
                    "bargauge",
                    (
                        Query(
                            f"max by (cluster) (clusterbox_budget_spent_usd{{{_C}}})"
                            f" / max by (cluster) (clusterbox_budget_usd{{{_C}}})",
                            "{{cluster}}",
                        ),
                    ),
                    "percentunit",
                    ((None, "green"), (0.5, "yellow"), (0.8, "orange"), (1, "red")),
                    "Month to date as a share of the cluster's budget.",
                    width=12,
                    height=6,
                    greatest=1.2,
                    links=(Link("clusterbox-cost", (("cluster", "cluster"),)),),
                ),
                Panel(
                    "Clusters",
                    "table",
                    (
                        Query(f"sum by (cluster) (slurm_queue_running{{{_C}}})", "jobs running"),
                        Query(f"sum by (cluster) (slurm_queue_pending{{{_C}}})", "jobs waiting"),
                        Query(f"sum by (cluster) (slurm_cpus_alloc{{{_C}}})", "CPUs in use"),
                        Query(f"sum by (cluster) (slurm_cpus_total{{{_C}}})", "CPUs at most"),
                    ),
                    "short",
                    plain(),
                    "One row a cluster; CPUs at most are those of all nodes that it may have.",
                    width=12,
                    height=6,
                    links=(_CLUSTER_LINK,),
                ),
            ),
        ),
    ),
)

_WAITS = tuple(
    Query(
        f"histogram_quantile({share}, sum by (le, cluster, partition)"
        f" (rate(slurm_job_wait_seconds_bucket{{{_Q}}}[$__range])))",
        f"{{{{partition}}}} {words}",
    )
    for share, words in ((0.5, "half"), (0.95, "95 %"))
)
_WAIT_TIME = Panel(
    "Time that jobs waited",
    "timeseries",
    _WAITS,
    "s",
    rising(1_800, 4 * 3_600),
    "From submission to start, of jobs that started in the span shown; half and 95 % of them"
    " waited less.",
    links=(_QUEUE_LINK,),
)
_REASONS = Panel(
    "Waiting jobs by reason",
    "timeseries",
    (Query(f"sum by (reason) (slurm_pending_jobs{{{_Q}}})", "{{reason}}"),),
    "short",
    plain(),
    "Slurm's reason: Resources and Priority wait for nodes; limits, dependencies and holds do not.",
    is_stacked=True,
)
_NODE_STATES = Panel(
    "Nodes by state",
    "timeseries",
    (Query(f"sum by (state) (slurm_compute_resource_nodes{{{_Q}, {_UP}}})", "{{state}}"),),
    "short",
    plain(),
    "Nodes that have a machine; powering_up is one that boots.",
    is_stacked=True,
)

CLUSTER = Dashboard(
    "clusterbox-cluster",
    "Cluster",
    "One cluster: its controller, queues, nodes, waiting times, scheduler.",
    (CLUSTER_CHOICE, QUEUE_CHOICE),
    (
        Row(
            "Now",
            (
                Panel(
                    "Slurm",
                    "stat",
                    (Query(f"slurm_up{{{_C}}}", "{{cluster}}"),),
                    "none",
                    ALIVE,
                    "Down: slurmctld did not answer the exporter's last question.",
                    width=4,
                    height=4,
                    words=_UP_WORDS,
                ),
                Panel(
                    "Accounting",
                    "stat",
                    (Query(f"slurm_accounting_up{{{_C}}}", "{{cluster}}"),),
                    "none",
                    ALIVE,
                    "Down: slurmdbd or its database does not answer. Jobs run on; their records wait"
                    " in slurmctld.",
                    width=4,
                    height=4,
                    words=_UP_WORDS,
                ),
                Panel(
                    "Age of these figures",
                    "stat",
                    (Query(f"slurm_exporter_data_age_seconds{{{_C}}}", "{{cluster}}"),),
                    "s",
                    rising(60, 300),
                    "Since slurmctld was asked; it is asked every 15 s at most.",
                    width=4,
                    height=4,
                ),
                Panel(
                    "Queues that are off",
                    "stat",
                    (Query(f"sum(slurm_partition_inactive{{{_Q}}})", "queues"),),
                    "none",
                    rising(1, 2),
                    "INACTIVE partitions: protected mode after failed boots, or an administrator.",
                    width=4,
                    height=4,
                ),
                Panel(
                    "Jobs running",
                    "stat",
                    (Query(f"sum(slurm_queue_running{{{_C}}})", "running"),),
                    "short",
                    plain(),
                    "Tasks of job arrays each count.",
                    width=4,
                    height=4,
                    links=(Link("clusterbox-users", ()),),
                ),
                Panel(
                    "Jobs waiting",
                    "stat",
                    (
                        Query(f"sum(slurm_queue_pending{{{_C}}})", "waiting"),
                        Query(f"sum(slurm_queue_pending_dependency{{{_C}}})", "for others"),
                    ),
                    "short",
                    rising(1_000, 10_000),
                    "And those that wait for other jobs.",
                    width=4,
                    height=4,
                ),
            ),
        ),
        Row(
            "Jobs",
            (
                Panel(
                    "Jobs by state",
                    "timeseries",
                    (Query(f"sum by (state) (slurm_jobs{{{_Q}}})", "{{state}}"),),
                    "short",
                    plain(),
                    "All that slurmctld knows of, ended ones for MinJobAge.",
                    is_stacked=True,
                ),
                _REASONS,
                _WAIT_TIME,
                Panel(
                    "Oldest waiting job, by queue",
                    "timeseries",
                    (
                        Query(
                            f"max by (cluster, partition) (slurm_oldest_pending_job_seconds{{{_Q}}})",
                            "{{partition}}",
                        ),
                    ),
                    "s",
                    rising(3_600, 6 * 3_600),
                    "Since its submission; of jobs that wait for nodes.",
                    links=(_QUEUE_LINK,),
                ),
                Panel(
                    "Jobs that came and went",
                    "timeseries",
                    (
                        Query(
                            f"sum by (event) (rate(slurm_scheduler_jobs_total{{{_C}}}"
                            "[$__rate_interval])) * 60",
                            "{{event}}",
                        ),
                    ),
                    "short",
                    plain(),
                    "A minute. Many more submitted than started, for long, is a run-away.",
                ),
                Panel(
                    "Jobs that ended in the span shown",
                    "bargauge",
                    (
                        Query(
                            f"sum by (state) (increase(slurm_jobs_ended_total{{{_Q}}}[$__range]))",
                            "{{state}}",
                        ),
                    ),
                    "short",
                    plain(),
                    "By how they ended, from the accounting database.",
                ),
            ),
        ),
        Row(
            "Nodes",
            (
                _NODE_STATES,
                Panel(
                    "CPUs",
                    "timeseries",
                    (
                        Query(f"sum(slurm_partition_cpus_allocated{{{_Q}}})", "jobs have"),
                        Query(f"sum(slurm_partition_cpus_idle{{{_Q}}})", "jobs could have"),
                        Query(f"sum(slurm_partition_cpus_other{{{_Q}}})", "down or drained"),
                    ),
                    "short",
                    plain(),
                    "Of all nodes that the queues may have, also those without a machine now.",
                    is_stacked=True,
                ),
                Panel(
                    "Launches that failed",
                    "table",
                    (
                        Query(
                            "sum by (cluster, partition, compute_resource, code)"
                            f" (slurm_launch_failed_nodes{{{_Q}}}) > 0",
                            "nodes",
                        ),
                    ),
                    "short",
                    rising(1, 5),
                    "Nodes that are down because EC2 did not give a machine, and its code. Empty is"
                    " good.",
                    width=12,
                    height=6,
                    links=(_QUEUE_LINK,),
                ),
                Panel(
                    "Nodes that are down or drained",
                    "table",
                    (
                        Query(
                            "sum by (cluster, partition, cause)"
                            f" (slurm_unhealthy_nodes{{{_Q}}}) > 0",
                            "nodes",
                        ),
                    ),
                    "short",
                    rising(1, 5),
                    "By the kind of reason that Slurm has. Empty is good.",
                    width=12,
                    height=6,
                    links=(_QUEUE_LINK,),
                ),
                Panel(
                    "Memory",
                    "timeseries",
                    (
                        Query(f"sum(slurm_memory_requested_bytes{{{_Q}}})", "asked for by jobs"),
                        Query(f"sum(slurm_memory_used_bytes{{{_Q}}})", "in use on nodes"),
                    ),
                    "bytes",
                    plain(),
                    "Much more asked for than in use: jobs could ask for less and start sooner.",
                ),
                Panel(
                    "Licences in use",
                    "bargauge",
                    (
                        Query(
                            f"slurm_licenses_used{{{_C}}} / (slurm_licenses_total{{{_C}}} > 0)",
                            "{{license}}",
                        ),
                    ),
                    "percentunit",
                    rising(0.8, 1),
                    "Share of each licence that jobs have.",
                    greatest=1,
                    width=6,
                ),
                Panel(
                    "GPUs",
                    "stat",
                    (
                        Query(f"sum(slurm_gpus_alloc{{{_C}}})", "jobs have"),
                        Query(f"sum(slurm_gpus_total{{{_C}}})", "all"),
                    ),
                    "short",
                    plain(),
                    "Of all nodes that the cluster may have.",
                    width=6,
                ),
            ),
        ),
        Row(
            "Scheduler and exporter",
            (
                Panel(
                    "Scheduling cycles",
                    "timeseries",
                    (
                        Query(f"slurm_scheduler_last_cycle{{{_C}}}", "{{cluster}} main"),
                        Query(
                            f"slurm_scheduler_backfill_last_cycle{{{_C}}}", "{{cluster}} backfill"
                        ),
                    ),
                    "µs",
                    rising(1_000_000, 10_000_000),
                    "How long the last one took. Above a second slurmctld feels slow.",
                    width=8,
                ),
                Panel(
                    "Messages that slurmctld has yet to send",
                    "timeseries",
                    (
                        Query(f"slurm_scheduler_queue_size{{{_C}}}", "{{cluster}} to nodes"),
                        Query(f"slurm_scheduler_dbd_queue_size{{{_C}}}", "{{cluster}} to slurmdbd"),
                    ),
                    "short",
                    rising(100, 1_000),
                    "Many to slurmdbd: the database is away, and records wait.",
                    width=8,
                ),
                Panel(
                    "Time that the exporter's commands took",
                    "timeseries",
                    (
                        Query(
                            f"slurm_exporter_command_duration_seconds{{{_C}}}",
                            "{{cluster}} {{command}}",
                        ),
                    ),
                    "s",
                    rising(2, 10),
                    "A command that takes 10 s is given up.",
                    width=8,
                ),
            ),
        ),
    ),
)

QUEUE = Dashboard(
    "clusterbox-queue",
    "Queue",
    "One queue: its nodes by compute resource, who waits and why, what it costs.",
    (CLUSTER_CHOICE, QUEUE_CHOICE),
    (
        Row(
            "Now",
            (
                Panel(
                    "State",
                    "stat",
                    (Query(f"slurm_partition_inactive{{{_Q}}}", "{{partition}}"),),
                    "none",
                    rising(1, 2),
                    "Off: the partition is INACTIVE, by protected mode or an administrator.",
                    width=6,
                    height=5,
                    words=((0, "on", "green"), (1, "off", "red")),
                ),
                Panel(
                    "CPUs in use",
                    "bargauge",
                    (
                        Query(
                            f"slurm_partition_cpus_allocated{{{_Q}}}"
                            f" / (slurm_partition_cpus_total{{{_Q}}} > 0)",
                            "{{partition}}",
                        ),
                    ),
                    "percentunit",
                    rising(0.9, 1),
                    "Share of all CPUs that the queue may have. Full: jobs wait for one to end.",
                    width=9,
                    height=5,
                    greatest=1,
                ),
                Panel(
                    "Jobs waiting",
                    "bargauge",
                    (
                        Query(
                            f"sum by (cluster, partition) (slurm_partition_jobs_pending{{{_Q}}})",
                            "{{partition}}",
                        ),
                    ),
                    "short",
                    rising(500, 5_000),
                    "Tasks of job arrays each count.",
                    width=9,
                    height=5,
                ),
            ),
        ),
        Row(
            "Waiting",
            (_REASONS, _WAIT_TIME),
        ),
        Row(
            "Nodes",
            (
                Panel(
                    "Nodes by compute resource and state",
                    "timeseries",
                    (
                        Query(
                            "sum by (compute_resource, state)"
                            f" (slurm_compute_resource_nodes{{{_Q}, {_UP}}})",
                            "{{compute_resource}} {{state}}",
                        ),
                    ),
                    "short",
                    plain(),
                    "Nodes that have a machine.",
                    is_stacked=True,
                ),
                Panel(
                    "Nodes that could still be started",
                    "timeseries",
                    (
                        Query(
                            "sum by (compute_resource)"
                            f' (slurm_compute_resource_nodes{{{_Q}, state="powered_down"}})',
                            "{{compute_resource}}",
                        ),
                    ),
                    "short",
                    falling(1, 2),
                    "Powered down ones up to MaxCount. 0: the queue cannot grow.",
                ),
                Panel(
                    "CPU time that jobs used of what they had",
                    "timeseries",
                    (
                        Query(
                            "sum by (cluster, partition) (rate(slurm_ended_jobs_cpu_used_seconds_total"
                            f"{{{_Q}}}[$__range])) / sum by (cluster, partition)"
                            f" (rate(slurm_ended_jobs_cpu_allocated_seconds_total{{{_Q}}}[$__range]))",
                            "{{partition}}",
                        ),
                    ),
                    "percentunit",
                    falling(0.3, 0.6),
                    "Of jobs that ended in the span shown. Near 0: jobs wait for data, or hang.",
                    greatest=1,
                    links=(Link("clusterbox-users", (("cluster", "cluster"),)),),
                ),
                Panel(
                    "USD an hour",
                    "timeseries",
                    (
                        Query(
                            "sum by (cluster, queue, purchase_option) (clusterbox_cost_usd_per_hour"
                            '{cluster=~"$cluster", queue=~"$queue", queue!=""})',
                            "{{queue}} {{purchase_option}}",
                        ),
                    ),
                    "currencyUSD",
                    plain(),
                    "Of the queue's machines and their disks.",
                    is_stacked=True,
                    links=(Link("clusterbox-cost", ()),),
                ),
            ),
        ),
    ),
)
