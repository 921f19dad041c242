"""`clusterbox costs prices refresh --spot`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def add_spot(refresh: argparse.ArgumentParser) -> None:
    """Add the options of Spot prices."""
    refresh.add_argument(
        "--spot",
        action="store_true",
        help="the Spot price history instead, into prices/spot-REGION.csv",
    )
    refresh.add_argument(
        "--type",
        action="append",
        default=[],
        metavar="TYPE",
        help="with --spot: this instance type (default: those of the clusters); may be given again",
    )
    refresh.add_argument(
        "--days", type=int, default=90, help="with --spot: days back (at most 90, as EC2 keeps)"
    )


def refresh_spot(options: argparse.Namespace, root: Path, region: str) -> int:
    """Fetch the history and add it to what the repository has."""
    import time

    import boto3

    from clusterbox.costs.spot import (
        MOST_DAYS,
        fetch_spot_prices,
        load_spot_prices,
        merge_spot_prices,
        spot_file,
        write_spot_prices,
    )
    from clusterbox.errors import InputError

    if not 1 <= options.days <= MOST_DAYS:
        raise InputError(f"--days must be from 1 to {MOST_DAYS}")
    types = options.type or types_of_clusters(root, region)
    if not types:
        raise InputError(f"no cluster in {region} has instance types; name some with --type")
    until = int(time.time())
    client: Any = boto3.Session(region_name=region).client("ec2")
    fresh = fetch_spot_prices(client, region, types, until - options.days * 86400, until, _say)
    history = merge_spot_prices(load_spot_prices(root, region), fresh)
    path = spot_file(root, region)
    write_spot_prices(history, path)
    count = sum(len(changes) for changes in history.changes.values())
    _say(f"{path}: {count} prices of {len(history.changes)} types in zones")
    return 0


def types_of_clusters(root: Path, region: str) -> list[str]:
    """Return the instance types of all queues in a region."""
    from clusterbox.clusters.composed import compose_repository
    from clusterbox.costs.native import mappings
    from clusterbox.site.yaml_file import value_at

    found: set[str] = set()
    for cluster in compose_repository(root).values():
        config = cluster.configuration
        if config.get("Region") != region:
            continue
        for queue in mappings(value_at(config, ("Scheduling", "SlurmQueues"))):
            for resource in mappings(queue.get("ComputeResources")):
                names = [one.get("InstanceType") for one in mappings(resource.get("Instances"))]
                found.update(str(name) for name in [*names, resource.get("InstanceType")] if name)
    return sorted(found)


def _say(text: str) -> None:
    sys.stderr.write(f"clusterbox: {text}\n")
