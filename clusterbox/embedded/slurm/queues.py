"""Queues and nodes of a composed cluster, as ParallelCluster makes Slurm's of them.

Source: `config_renderer.py` and `config_utils.py` of aws/aws-parallelcluster-cookbook, which write
`slurm_parallelcluster_QUEUE_partition.conf` on the head node.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clusterbox.errors import InputError
from clusterbox.instance_types import InstanceSize

# The part of an instance's memory that ParallelCluster lets jobs have.
_MEMORY_RATIO = 0.95
_STATIC_WEIGHT = 1
_DYNAMIC_WEIGHT = 1000


@dataclass(frozen=True)
class NodeGroup:
    """The static or the dynamic nodes of a compute resource; memory in MiB."""

    prefix: str
    count: int
    is_static: bool
    cpus: int
    memory_mib: int
    features: tuple[str, ...]
    weight: int
    gpus: int
    gpu_type: str
    settings: Mapping[str, Any]

    @property
    def hostlist(self) -> str:
        """The nodes as Slurm writes several."""
        return f"{self.prefix}-[1-{self.count}]"

    @property
    def names(self) -> list[str]:
        """The names of the nodes."""
        return [f"{self.prefix}-{number}" for number in range(1, self.count + 1)]


@dataclass(frozen=True)
class Queue:
    """A queue, which is a partition in Slurm."""

    name: str
    groups: tuple[NodeGroup, ...]
    is_exclusive: bool
    settings: Mapping[str, Any]


def plan_queues(
    configuration: Mapping[str, Any], sizes: Mapping[str, InstanceSize]
) -> tuple[Queue, ...]:
    """Return the queues of a cluster configuration without references.

    Raises InputError when the scheduler is not Slurm, when there is no queue with a node, or when
    the size of an instance type is not known.
    """
    scheduling = configuration.get("Scheduling") or {}
    if scheduling.get("Scheduler") != "slurm":
        raise InputError("Scheduling/Scheduler is not slurm: only Slurm runs on this machine")
    queues = tuple(
        Queue(
            name=queue["Name"],
            groups=tuple(
                group
                for resource in queue.get("ComputeResources") or []
                for group in _groups(queue, resource, sizes)
            ),
            is_exclusive=bool(queue.get("JobExclusiveAllocation", False)),
            settings=queue.get("CustomSlurmSettings") or {},
        )
        for queue in scheduling.get("SlurmQueues") or []
    )
    if not any(queue.groups for queue in queues):
        raise InputError("Scheduling/SlurmQueues: no queue has a node (MaxCount above 0)")
    return queues


def _groups(
    queue: Mapping[str, Any], resource: Mapping[str, Any], sizes: Mapping[str, InstanceSize]
) -> list[NodeGroup]:
    name = resource["Name"]
    types = _types(resource)
    members = [_size(kind, queue["Name"], name, sizes) for kind in types]
    fewest = min(members, key=lambda size: size.gpus)
    # The defaults are ParallelCluster's.
    static = int(resource.get("MinCount", 0))
    dynamic = int(resource.get("MaxCount", 10)) - static
    memory = resource.get("SchedulableMemory") or math.floor(
        min(size.memory_mib for size in members) * _MEMORY_RATIO
    )
    groups = [
        NodeGroup(
            prefix=f"{queue['Name']}-{'st' if is_static else 'dy'}-{name}",
            count=count,
            is_static=is_static,
            cpus=_cpus(members, bool(resource.get("DisableSimultaneousMultithreading", False))),
            memory_mib=int(memory),
            features=_features(resource, types, fewest.gpus > 0, is_static=is_static),
            weight=int(
                resource.get("StaticNodePriority", _STATIC_WEIGHT)
                if is_static
                else resource.get("DynamicNodePriority", _DYNAMIC_WEIGHT)
            ),
            gpus=fewest.gpus,
            gpu_type=fewest.gpu_type,
            settings=resource.get("CustomSlurmSettings") or {},
        )
        for is_static, count in ((True, static), (False, dynamic))
    ]
    return [group for group in groups if group.count > 0]


def _types(resource: Mapping[str, Any]) -> list[str]:
    if instances := resource.get("Instances"):
        return [instance["InstanceType"] for instance in instances]
    return [resource["InstanceType"]]


def _size(kind: str, queue: str, resource: str, sizes: Mapping[str, InstanceSize]) -> InstanceSize:
    if kind not in sizes:
        raise InputError(
            f"queue {queue}, compute resource {resource}: vCPUs and memory of the instance type "
            f"{kind} are not known here, so its nodes cannot be made"
        )
    return sizes[kind]


def _cpus(members: list[InstanceSize], one_thread: bool) -> int:
    vcpus = min(size.vcpus for size in members)
    return vcpus // min(size.threads_per_core for size in members) if one_thread else vcpus


def _features(
    resource: Mapping[str, Any], types: list[str], has_gpu: bool, *, is_static: bool
) -> tuple[str, ...]:
    features = ["static" if is_static else "dynamic"]
    # Of several types nobody knows beforehand which one a node will be.
    features += types if len(types) == 1 else []
    features.append(resource["Name"])
    features += ["efa"] if (resource.get("Efa") or {}).get("Enabled") else []
    features += ["gpu"] if has_gpu else []
    return tuple(features)
