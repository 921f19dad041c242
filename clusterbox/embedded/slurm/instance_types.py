"""Sizes of EC2 instance types, for nodes that look like theirs."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterbox.errors import ClusterboxError

_FACTS = "lib/python3*/site-packages/moto/ec2/resources/instance_types.json.gz"


@dataclass(frozen=True)
class InstanceSize:
    """What Slurm is told of an instance type; memory in MiB."""

    vcpus: int
    memory_mib: int
    threads_per_core: int = 1
    gpus: int = 0
    gpu_type: str = ""


def read_sizes(pcluster_folder: Path) -> dict[str, InstanceSize]:
    """Return the sizes of all instance types that the second Python environment knows.

    They are AWS's own answers to DescribeInstanceTypes, as the package moto in it brings them.
    Raises ClusterboxError when it is not installed.
    """
    found = next(iter(sorted(pcluster_folder.glob(_FACTS))), None)
    if found is None:
        raise ClusterboxError(
            f"the sizes of instance types are not in {pcluster_folder}; run `make setup`"
        )
    with gzip.open(found) as stream:
        return {name: _size(facts) for name, facts in json.load(stream).items()}


def _size(facts: Mapping[str, Any]) -> InstanceSize:
    vcpus = _mapping(facts, "VCpuInfo")
    architectures = _mapping(facts, "ProcessorInfo").get("SupportedArchitectures") or []
    # As ParallelCluster takes it where AWS does not say.
    threads = 2 if "x86_64" in architectures else 1
    # ParallelCluster configures NVIDIA's GPUs only.
    gpus = [
        gpu
        for gpu in _mapping(facts, "GpuInfo").get("Gpus") or []
        if str(gpu.get("Manufacturer", "")).upper() == "NVIDIA"
    ]
    return InstanceSize(
        vcpus=int(vcpus["DefaultVCpus"]),
        memory_mib=int(_mapping(facts, "MemoryInfo")["SizeInMiB"]),
        threads_per_core=int(vcpus.get("DefaultThreadsPerCore", threads)),
        gpus=sum(int(gpu.get("Count", 0)) for gpu in gpus),
        gpu_type=str(gpus[0]["Name"]).replace(" ", "").lower() if gpus else "",
    )


def _mapping(facts: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = facts.get(key)
    return found if isinstance(found, dict) else {}
