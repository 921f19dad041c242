"""Metrics of errors in a cluster's log group, beside those that ParallelCluster's own stack makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Lines of plain text have no field for a dimension: the cluster is in the metric's name.
NAMESPACE = "Clusterbox/Logs"


@dataclass(frozen=True)
class MetricFilter:
    """A metric that counts lines; `pattern` is CloudWatch Logs' filter syntax."""

    name: str
    pattern: str
    what: str


# `] error: ` is how Slurm's daemons write; scripts of a boot write `error:` otherwise.
FILTERS = (
    MetricFilter("SlurmErrors", '"] error: "', "errors of slurmctld, slurmdbd and slurmd"),
    MetricFilter("SlurmFatals", '"] fatal: "', "a daemon of Slurm ended"),
    MetricFilter("PluginErrors", '"] - ERROR -"', "errors of clustermgtd and the launch programs"),
    MetricFilter(
        "ProtectedMode", '"Setting cluster into protected mode"', "queues were switched off"
    ),
    MetricFilter(
        "BootstrapErrors",
        '{ $.level = "ERROR" && $.node-role = "ComputeFleet" }',
        "a compute node did not boot",
    ),
)


def put_metric_filters(logs: Any, group: str, cluster: str) -> list[str]:
    """Make or update the filters of a log group, and return the names of their metrics.

    `logs` is boto3's client. Can be repeated. Raises ClusterboxError where it is not allowed.
    """
    from botocore.exceptions import ClientError

    from clusterbox.errors import ClusterboxError

    made = []
    for one in FILTERS:
        metric = f"{cluster}/{one.name}"
        try:
            logs.put_metric_filter(
                logGroupName=group,
                filterName=f"clusterbox-{one.name}",
                filterPattern=one.pattern,
                metricTransformations=[
                    {
                        "metricName": metric,
                        "metricNamespace": NAMESPACE,
                        "metricValue": "1",
                        "defaultValue": 0.0,
                        "unit": "Count",
                    }
                ],
            )
        except ClientError as error:
            raise ClusterboxError(
                f"{group}: the metric filter {one.name} was not made; it needs "
                f"logs:PutMetricFilter: {error}"
            ) from error
        made.append(metric)
    return made
