"""A small cluster for tests on a real Slurm, and waiting for what Slurm does by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from clusterbox.clusters.composed import ComposedCluster, read_native
from clusterbox.embedded.slurm import SlurmCluster
from clusterbox.embedded.slurm.programs import missing_packages

Found = TypeVar("Found")

WAIT_SECONDS = 60.0

# Marks tests that run a Slurm: skipped, and counted as such, where its packages are not installed.
needs_slurm = [
    pytest.mark.integration,
    pytest.mark.skipif(
        bool(missing_packages()), reason=f"packages are missing: {' '.join(missing_packages())}"
    ),
]


def write_cluster(folder: Path, name: str, **slurm_settings: Any) -> ComposedCluster:
    """Return a cluster with the queues `eco` (1 static, 2 dynamic nodes) and `spot` (2 dynamic)."""
    configuration = {
        "Region": "us-west-2",
        "Scheduling": {
            "Scheduler": "slurm",
            "SlurmSettings": {"ScaledownIdletime": 10, **slurm_settings},
            "SlurmQueues": [
                queue("eco", "n8c32g", "t3a.2xlarge", MinCount=1, MaxCount=3),
                queue("spot", "s4c16g", "m6i.xlarge", MinCount=0, MaxCount=2),
            ],
        },
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(configuration), encoding="utf-8")
    return read_native(path)


def queue(name: str, resource: str, kind: str, **settings: Any) -> dict[str, Any]:
    """Return a queue with one compute resource of one instance type."""
    one = {"Name": resource, "Instances": [{"InstanceType": kind}], **settings}
    return {"Name": name, "ComputeResources": [one]}


def wait_for(what: str, find: Callable[[], Found | None], seconds: float = WAIT_SECONDS) -> Found:
    """Return what `find` finds, once it finds something; fails after a minute."""
    limit = time.monotonic() + seconds
    while not (found := find()):
        assert time.monotonic() < limit, f"{what}: not within {seconds:g} s"
        time.sleep(0.1)
    return found


def wait_for_job(slurm: SlurmCluster, job: str, state: str = "COMPLETED") -> None:
    """Wait until the accounting database has a job in a state."""
    states: list[str] = []

    def is_there() -> bool:
        states[:] = [record.state for record in slurm.door.fetch_accounted("--jobs", job)]
        return bool(states) and states[-1] == state

    try:
        wait_for(f"job {job} {state}", is_there)
    except AssertionError as error:
        raise AssertionError(f"{error}; it was {states}") from None


def wait_for_node(slurm: SlurmCluster, node: str, *states: str, without: str = "") -> None:
    """Wait until a node has all the given states, and not the other one."""

    def is_so() -> bool:
        found = slurm.door.fetch_node(node).states
        return found.issuperset(states) and without not in found

    wait_for(f"node {node} {'+'.join(states)}", is_so)
