"""What AWS says of EC2 instance types, as the package moto in ParallelCluster's environment brings it.

The files are AWS's own answers to DescribeInstanceTypes and DescribeInstanceTypeOfferings at
moto's release. They are read as data; moto itself is not imported.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def _read(path: Path) -> Any:
    with gzip.open(path) as stream:
        return json.load(stream)
