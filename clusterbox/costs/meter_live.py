"""The records of a cluster as they are now: from EC2, from its Slurm, and from a file that is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterbox.clusters.composed import ComposedCluster
from clusterbox.costs.jobs import JobRun
from clusterbox.costs.meter_ec2 import (
    SeenInstance,
    fetch_file_systems,
    fetch_instances,
    fetch_volumes,
)
from clusterbox.costs.meter_slurm import fetch_jobs, fetch_node_times, read_node_facts
from clusterbox.costs.meter_sources import as_seen, combine, follow_storage, read_resources
from clusterbox.costs.prices import Prices
from clusterbox.costs.usage import Storage, Usage, read_usage, write_usage
from clusterbox.errors import ClusterboxError
from clusterbox.slurm import Slurm


@dataclass(frozen=True)
class Records:
    """What is known of a cluster's use, and what had to be assumed or is missing."""

    usage: Usage
    jobs: tuple[JobRun, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Doors:
    """Ways to a cluster: boto3's client of a service, and Slurm's commands; None where there is none."""

    client: Callable[[str], Any] | None
    slurm: Slurm | None


def open_doors(root: Path, cluster: ComposedCluster, name: str, target: str) -> Doors:
    """Return the ways to a cluster on AWS or on this machine.

    On AWS Slurm's commands are those of the host that this runs on. Raises ClusterboxError when
    nothing of the cluster runs on this machine, InputError for credentials of another account.
    """
    from clusterbox.deployment.targets import AwsTarget, find_embedded

    environment = cluster.environment
    if environment is None:
        raise ClusterboxError(f"{name} belongs to no environment, so nobody knows where it runs")
    if target == "aws":
        aws = AwsTarget(root, environment)
        aws.check_account()
        return Doors(aws.client, Slurm())
    from clusterbox.embedded.slurm import SlurmCluster
    from clusterbox.embedded.slurm.state import cluster_folder

    embedded = find_embedded(root, environment)
    slurm = SlurmCluster.attach(cluster_folder(root, name))
    if embedded is None and slurm is None:
        raise ClusterboxError(
            f"nothing of {name} runs on this machine; start its Slurm with `clusterbox embedded "
            f"slurm up {name}`, its account with `clusterbox embedded up {environment.name}`, "
            f"or read records with --usage and --accounting"
        )
    return Doors(embedded.client if embedded else None, slurm.door if slurm else None)


def fetch_records(
    doors: Doors,
    cluster: ComposedCluster,
    prices: Prices,
    *,
    since: int,
    at: int,
    jobs: Sequence[JobRun] | None = None,
    keep: Path | None = None,
) -> Records:
    """Return the records of a cluster from `since` to `at`.

    `jobs` are taken in the place of Slurm's where they are given. `keep` is a file that is read
    first and written afterwards, so that what EC2 forgets stays known. Raises SlurmError and
    botocore's errors where an answer cannot be had.
    """
    notes = []
    seen: list[SeenInstance] = []
    volumes: list[Storage] = []
    kept = read_usage(keep) if keep is not None and keep.is_file() else Usage()
    if doors.client is None:
        notes.append("no account of the environment runs here: head node and disks are not counted")
    else:
        ec2 = doors.client("ec2")
        seen = fetch_instances(ec2, cluster.name)
        volumes = fetch_volumes(ec2, cluster.name)
        volumes += fetch_file_systems(doors.client("efs"), cluster.name)
        kept, volumes = follow_storage(kept, volumes, at)
    facts, times = [], []
    if doors.slurm is None:
        notes.append("no Slurm of the cluster runs here: its nodes and jobs are not known")
    else:
        facts = [read_node_facts(node) for node in doors.slurm.fetch_nodes()]
        times = fetch_node_times(doors.slurm, since)
    resources = read_resources(cluster, prices)
    usage, assumed = combine(cluster.name, seen, volumes, facts, times, resources, kept)
    if keep is not None:
        write_usage(as_seen(usage, at), keep)
    if jobs is None:
        jobs = fetch_jobs(doors.slurm, since, at) if doors.slurm else ()
    return Records(usage, tuple(jobs), (*notes, *assumed))
