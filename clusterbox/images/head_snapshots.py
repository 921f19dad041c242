"""Snapshots of head nodes from before they were patched: the last ones stay, the others cost money."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clusterbox.aws import Account, tags_of
from clusterbox.images.head_node import TAG_RUN
from clusterbox.site import names
from clusterbox.site.environment import Environment


def find_old_snapshots(account: Account, environment: Environment, keep: int) -> Iterator[str]:
    """Yield the snapshots of head nodes that may go: all but the last `1 + keep` of each cluster.

    Only those that patch days of this environment have made are looked at. What could not be read is
    a gap of the account.
    """
    listed = account.pages(
        "ec2",
        "describe_snapshots",
        "Snapshots",
        OwnerIds=["self"],
        Filters=[
            {"Name": "tag-key", "Values": [TAG_RUN]},
            {"Name": f"tag:{names.TAG_ENVIRONMENT}", "Values": [environment.name]},
        ],
    )
    left: dict[str, int] = {}
    for snapshot in sorted(listed, key=_age, reverse=True):
        tags = tags_of(snapshot)
        if TAG_RUN not in tags or tags.get(names.TAG_ENVIRONMENT) != environment.name:
            continue  # A server that filters otherwise must not lead to a deletion.
        cluster = tags.get(names.TAG_CLUSTER)
        if cluster is None:
            continue
        left[cluster] = left.get(cluster, 0) + 1
        if left[cluster] > 1 + keep:
            yield snapshot["SnapshotId"]


def _age(snapshot: Any) -> tuple[str, str]:
    """Return what sorts snapshots by the time at which they were made."""
    return str(snapshot.get("StartTime", "")), str(snapshot["SnapshotId"])
