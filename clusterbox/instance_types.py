"""What AWS says of EC2 instance types, as the package moto in ParallelCluster's environment brings it.

The files are AWS's own answers to DescribeInstanceTypes and DescribeInstanceTypeOfferings at
moto's release. They are read as data; moto itself is not imported.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterbox.errors import ClusterboxError

_RESOURCES = "lib/python3*/site-packages/moto/ec2/resources"


@dataclass(frozen=True)
class InstanceFacts:
    """The facts in one folder of data."""

    folder: Path

    @classmethod
    def find(cls, pcluster_folder: Path) -> InstanceFacts | None:
        """Return the facts of a Python environment, or None where it has none."""
        folder = next(iter(sorted(pcluster_folder.glob(_RESOURCES))), None)
        return None if folder is None else cls(folder)

    def read_types(self) -> dict[str, dict[str, Any]]:
        """Return AWS's description of each instance type, by name."""
        types: dict[str, dict[str, Any]] = _read(self.folder / "instance_types.json.gz")
        return types

    def read_offerings(self, region: str) -> list[tuple[str, str]] | None:
        """Return each type with each zone that offers it; None where the region is not known."""
        path = self.folder / "instance_type_offerings/availability-zone" / f"{region}.json.gz"
        if not path.is_file():
            return None
        return [(item["InstanceType"], item["Location"]) for item in _read(path)]


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
    facts = InstanceFacts.find(pcluster_folder)
    if facts is None:
        raise ClusterboxError(
            f"the sizes of instance types are not in {pcluster_folder}; run `make setup`"
        )
    return {name: _size(described) for name, described in facts.read_types().items()}


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


def _read(path: Path) -> Any:
    with gzip.open(path) as stream:
        return json.load(stream)
