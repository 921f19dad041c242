"""A small cluster with a budget, and the limits that are planned for it."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from clusterbox.clusters.composed import ComposedCluster, read_native
from clusterbox.costs.limits import LimitPlan, plan_limits
from clusterbox.costs.prices import load_prices
from clusterbox.instance_types import InstanceSize
from clusterbox.site.budgets import ClusterBudget

SIZES = {
    "m6i.2xlarge": InstanceSize(8, 32768, 2),
    "t3a.2xlarge": InstanceSize(8, 32768, 2),
    "m6i.xlarge": InstanceSize(4, 16384, 2),
    "g4dn.xlarge": InstanceSize(4, 16384, 2, 1, "t4"),
    "z9.huge": InstanceSize(8, 32768, 2),
}
# 45 GiB of gp3, ParallelCluster's default, at 0.08 USD a GB and month.
DISK = Decimal("3.6") / 730


def queue(name: str, *types: str, **settings: Any) -> dict[str, Any]:
    resource = {
        "Name": "r",
        "Instances": [{"InstanceType": kind} for kind in types],
        "MaxCount": 2,
        **settings.pop("resource", {}),
    }
    return {"Name": name, **settings, "ComputeResources": [resource]}


def cluster_of(folder: Path, *queues: Mapping[str, Any], **slurm_settings: Any) -> ComposedCluster:
    configuration = {
        "Region": "us-west-2",
        "HeadNode": {"InstanceType": "t3.medium"},
        "Monitoring": {"Dashboards": {"CloudWatch": {"Enabled": False}}},
        "Scheduling": {
            "Scheduler": "slurm",
            "SlurmSettings": slurm_settings,
            "SlurmQueues": [*queues] or [queue("eco", "m6i.2xlarge")],
        },
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(configuration, sort_keys=False))
    return read_native(path)


def plan_of(cluster: ComposedCluster, **budget: Any) -> LimitPlan:
    given = {"monthly_usd": Decimal(500), **budget}
    return plan_limits(cluster, ClusterBudget(**given), load_prices("us-west-2"), SIZES)
