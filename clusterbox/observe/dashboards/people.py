"""The dashboards of who uses a cluster and what it costs."""

from __future__ import annotations

from clusterbox.observe.dashboards.model import (
    ALIVE,
    CLUSTER_CHOICE,
    USER_CHOICE,
    Dashboard,
    Link,
    Panel,
    Query,
    Row,
    Step,
    falling,
    plain,
    rising,
)

_C = 'cluster=~"$cluster"'
_U = 'cluster=~"$cluster", user=~"$user"'
_USER_LINK = Link("clusterbox-users", (("cluster", "cluster"), ("user", "user")))
_QUEUE_LINK = Link("clusterbox-queue", (("cluster", "cluster"), ("queue", "queue")))
_BUDGET: tuple[Step, ...] = ((None, "green"), (0.5, "yellow"), (0.8, "orange"), (1, "red"))

USERS = Dashboard(
    "clusterbox-users",
    "Users and jobs",
    "Who runs and waits, how well the CPUs are used, and what the containers of jobs take.",
    (CLUSTER_CHOICE, USER_CHOICE),
    (
        Row(
            "Users",
            (
                Panel(
                    "CPUs in use, by user",
                    "timeseries",
                    (
                        Query(
                            f"topk(10, sum by (cluster, user) (slurm_user_cpus_running{{{_U}}}))",
                            "{{user}}",
                        ),
                    ),
                    "short",
                    plain(),
                    "The ten with the most. Beyond 500 users the rest is `other`.",
                    is_stacked=True,
                    links=(_USER_LINK,),
                ),
                Panel(
                    "Waiting jobs, by user",
                    "timeseries",
                    (
                        Query(
                            f"topk(10, sum by (cluster, user) (slurm_user_jobs_pending{{{_U}}}))",
                            "{{user}}",
                        ),
                    ),
                    "short",
                    rising(5_000, 50_000),
                    "The ten with the most; tasks of job arrays each count.",
                    links=(_USER_LINK,),
                ),
                Panel(
                    "Users now",
                    "table",
                    (
                        Query(
                            f"sum by (cluster, user) (slurm_user_jobs_running{{{_U}}})", "running"
                        ),
                        Query(
                            f"sum by (cluster, user) (slurm_user_jobs_pending{{{_U}}})", "waiting"
                        ),
                        Query(f"sum by (cluster, user) (slurm_user_cpus_running{{{_U}}})", "CPUs"),
                    ),
                    "short",
                    plain(),
                    "Users who have jobs that slurmctld knows of.",
                    links=(_USER_LINK,),
                ),
                Panel(
                    "CPUs in use, by account",
                    "timeseries",
                    (
                        Query(
                            f"topk(10, sum by (cluster, account) (slurm_account_cpus_running{{{_C}}}))",
                            "{{account}}",
                        ),
                    ),
                    "short",
                    plain(),
                    "Slurm's accounts, the ten with the most.",
                    is_stacked=True,
                ),
            ),
        ),
        Row(
            "Efficiency",
            (
                Panel(
                    "CPU time used of what jobs had, by user",
                    "bargauge",
                    (
                        Query(
                            "sum by (cluster, user) (increase(slurm_ended_jobs_cpu_used_seconds_total"
                            f"{{{_U}}}[$__range])) / (sum by (cluster, user) (increase("
                            f"slurm_ended_jobs_cpu_allocated_seconds_total{{{_U}}}[$__range])) > 0)",
                            "{{user}}",
                        ),
                    ),
                    "percentunit",
                    falling(0.3, 0.6),
                    "Of jobs that ended in the span shown. Near 0: they wait for data, or ask for"
                    " more CPUs than they can use.",
                    greatest=1,
                    links=(_USER_LINK,),
                ),
                Panel(
                    "CPU time that nobody used, by user",
                    "bargauge",
                    (
                        Query(
                            "topk(10, sum by (cluster, user) (increase("
                            f"slurm_ended_jobs_cpu_allocated_seconds_total{{{_U}}}[$__range]))"
                            " - sum by (cluster, user) (increase("
                            f"slurm_ended_jobs_cpu_used_seconds_total{{{_U}}}[$__range])))",
                            "{{user}}",
                        ),
                    ),
                    "s",
                    rising(36_000, 360_000),
                    "CPU seconds that jobs had and did not use, in the span shown; the ten with the"
                    " most.",
                    links=(_USER_LINK,),
                ),
            ),
        ),
        Row(
            "Jobs in containers",
            (
                Panel(
                    "CPUs, by job",
                    "timeseries",
                    (
                        Query(
                            "topk(10, sum by (cluster, exported_job, user) (rate("
                            f'clusterbox_container_cpu_seconds_total{{{_U}, exported_job!=""}}'
                            "[$__rate_interval])))",
                            "job {{exported_job}} of {{user}}",
                        ),
                    ),
                    "short",
                    plain(),
                    "CPUs that containers of a job keep busy; the ten jobs with the most.",
                    links=(Link("clusterbox-containers", (("cluster", "cluster"),)),),
                ),
                Panel(
                    "Memory, by job",
                    "timeseries",
                    (
                        Query(
                            "topk(10, sum by (cluster, exported_job, user) ("
                            f'clusterbox_container_memory_bytes{{{_U}, exported_job!=""}}))',
                            "job {{exported_job}} of {{user}}",
                        ),
                    ),
                    "bytes",
                    plain(),
                    "Memory of the containers of a job; the ten jobs with the most.",
                    links=(Link("clusterbox-containers", (("cluster", "cluster"),)),),
                ),
            ),
        ),
    ),
)


def _spending(title: str, label: str, description: str) -> Panel:
    return Panel(
        title,
        "timeseries",
        (
            Query(
                f'sum by (cluster, {label}) (clusterbox_cost_usd_per_hour{{{_C}, {label}!=""}})',
                f"{{{{{label}}}}}",
            ),
        ),
        "currencyUSD",
        plain(),
        description,
        is_stacked=True,
        links=(_QUEUE_LINK,) if label == "queue" else (),
    )


COST = Dashboard(
    "clusterbox-cost",
    "Cost",
    "What clusters cost an hour and this month, by component, queue and purchase option; budgets.",
    (CLUSTER_CHOICE,),
    (
        Row(
            "Now",
            (
                Panel(
                    "USD an hour",
                    "stat",
                    (
                        Query(
                            f"sum by (cluster) (clusterbox_cost_usd_per_hour{{{_C}}})",
                            "{{cluster}}",
                        ),
                    ),
                    "currencyUSD",
                    plain(),
                    "What is there now, without what has no price.",
                    width=6,
                    height=5,
                ),
                Panel(
                    "USD this month",
                    "stat",
                    (
                        Query(
                            f"sum by (cluster) (clusterbox_cost_month_usd{{{_C}}})", "{{cluster}}"
                        ),
                    ),
                    "currencyUSD",
                    plain(),
                    "Since the month began.",
                    width=6,
                    height=5,
                ),
                Panel(
                    "Without a price",
                    "stat",
                    (Query(f"sum by (cluster) (clusterbox_cost_unknown{{{_C}}})", "{{cluster}}"),),
                    "none",
                    rising(1, 5),
                    "Things that run and have no known price: the sums are too low by them.",
                    width=4,
                    height=5,
                ),
                Panel(
                    "Age of prices",
                    "stat",
                    (Query("max by (prices) (clusterbox_price_age_seconds)", "{{prices}}"),),
                    "s",
                    rising(30 * 86_400, 90 * 86_400),
                    "Since they were fetched; those of Spot change by the hour.",
                    width=4,
                    height=5,
                ),
                Panel(
                    "Cost exporter",
                    "stat",
                    (Query(f"min by (cluster) (clusterbox_cost_up{{{_C}}})", "{{cluster}}"),),
                    "none",
                    ALIVE,
                    "Down: EC2 or the accounting could not be read; its figures vanish rather than"
                    " grow old.",
                    width=4,
                    height=5,
                    words=((1, "up", "green"), (0, "down", "red")),
                ),
            ),
        ),
        Row(
            "An hour",
            (
                _spending(
                    "USD an hour, by component",
                    "component",
                    "Head node, compute, storage, network.",
                ),
                _spending("USD an hour, by queue", "queue", "Machines of queues and their disks."),
                _spending(
                    "USD an hour, by purchase option",
                    "purchase_option",
                    "On-demand, Spot, and what is not bought by the hour.",
                ),
                Panel(
                    "USD this month, by component",
                    "bargauge",
                    (
                        Query(
                            f"sum by (component) (clusterbox_cost_month_usd{{{_C}}})",
                            "{{component}}",
                        ),
                    ),
                    "currencyUSD",
                    plain(),
                    "Since the month began.",
                ),
            ),
        ),
        Row(
            "Budgets",
            (
                Panel(
                    "Spent of the budget",
                    "bargauge",
                    (
                        Query(
                            f"max by (cluster) (clusterbox_budget_spent_usd{{{_C}}})"
                            f" / max by (cluster) (clusterbox_budget_usd{{{_C}}})",
                            "{{cluster}}",
                        ),
                    ),
                    "percentunit",
                    _BUDGET,
                    "Month to date.",
                    greatest=1.2,
                    width=12,
                    height=6,
                ),
                Panel(
                    "Month as forecast, of the budget",
                    "bargauge",
                    (
                        Query(
                            f"max by (cluster) (clusterbox_budget_forecast_usd{{{_C}}})"
                            f" / max by (cluster) (clusterbox_budget_usd{{{_C}}})",
                            "{{cluster}}",
                        ),
                    ),
                    "percentunit",
                    _BUDGET,
                    "What was spent, and the rest of the month at the mean rate of the last 7 days.",
                    greatest=1.2,
                    width=12,
                    height=6,
                ),
                Panel(
                    "Month to date, forecast and budget",
                    "timeseries",
                    (
                        Query(f"sum(clusterbox_budget_spent_usd{{{_C}}})", "spent"),
                        Query(f"sum(clusterbox_budget_forecast_usd{{{_C}}})", "forecast"),
                        Query(f"sum(clusterbox_budget_usd{{{_C}}})", "budget"),
                    ),
                    "currencyUSD",
                    plain(),
                    "Of the chosen clusters together.",
                    width=24,
                ),
            ),
        ),
    ),
)
