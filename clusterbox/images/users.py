"""Who works on the clusters of a site now: those whom a patch day concerns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterbox.errors import ClusterboxError
from clusterbox.images.fleet import Scheduler, fetch_machines, find_head

if TYPE_CHECKING:
    from clusterbox.deployment.targets import Target
    from clusterbox.site.environment import Environment


def find_users(target: Target, environment: Environment) -> list[str]:
    """Return the users with jobs on the environment's clusters, sorted, as `user (CLUSTER)`.

    A cluster whose head node does not answer is named instead: nobody knows who works there.
    """
    from clusterbox.run_command import Machine

    found: set[str] = set()
    for entry in environment.clusters:
        machines = fetch_machines(target.client("ec2"), entry.name)
        if not machines:
            continue
        try:
            head = find_head(machines, entry.name)
            scheduler = Scheduler(Machine(head.instance, target.client("ssm")))
            found |= {f"{job.user} ({entry.name})" for job in scheduler.fetch_jobs()}
        except ClusterboxError:
            found.add(f"unknown: the head node of {entry.name} does not answer")
    return sorted(found)
