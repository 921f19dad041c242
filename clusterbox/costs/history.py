"""How much of a cluster has run so far, as the typical use of an estimate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from clusterbox.costs.native import mappings, number
from clusterbox.costs.usage import Usage
from clusterbox.errors import InputError

# ParallelCluster's own, where a compute resource does not say (pcluster/constants.py).
_DEFAULT_MAX_COUNT = 10
_SECONDS_A_DAY = 86_400


def observed_share(
    usage: Usage, cluster: str, configuration: Mapping[str, Any], at: int
) -> Decimal:
    """Return the share of a cluster's dynamic nodes that ran on average, from 0 to 1.

    Seconds in which compute nodes ran, less those of the MinCount nodes, over the seconds in which
    all of MaxCount could have: from the first record of a compute node to the last, `at` for nodes
    that still run (seconds since 1970). The sizes are those of the given configuration. Raises
    InputError without records of at least a day, and for a cluster that has no dynamic node.
    """
    runs = [run for run in usage.instances if run.cluster == cluster and run.node_type == "Compute"]
    if not runs:
        raise InputError(f"the history has no compute node of {cluster}")
    start = min(run.start for run in runs)
    end = max(at if run.end is None else run.end for run in runs)
    if end - start < _SECONDS_A_DAY:
        raise InputError(
            f"the history of {cluster} is shorter than a day: too short for what is typical"
        )
    counts = list(_counts(configuration))
    least, most = sum(low for low, _ in counts), sum(high for _, high in counts)
    if most <= least:
        raise InputError(f"{cluster} has no dynamic nodes: all of its cost is in the idle floor")
    ran = sum((at if run.end is None else run.end) - run.start for run in runs)
    span = end - start
    share = Decimal(ran - least * span) / Decimal((most - least) * span)
    return min(max(share, Decimal(0)), Decimal(1))


def _counts(configuration: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
    """Yield MinCount and MaxCount of each compute resource."""
    scheduling = configuration.get("Scheduling")
    queues = scheduling.get("SlurmQueues") if isinstance(scheduling, Mapping) else None
    for queue in mappings(queues):
        for resource in mappings(queue.get("ComputeResources")):
            yield (
                number(resource.get("MinCount"), 0),
                number(resource.get("MaxCount"), _DEFAULT_MAX_COUNT),
            )
