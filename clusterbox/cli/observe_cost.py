"""`clusterbox observe exporter cost`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterbox.clusters.composed import ComposedCluster
    from clusterbox.costs.meter_live import Doors

LEAST_REFRESH_SECONDS = 5.0


def add_cost(kinds: argparse._SubParsersAction[argparse.ArgumentParser], command: str) -> None:
    """Add the exporter of costs."""
    from clusterbox.cli.observe import add_serving

    cost = kinds.add_parser("cost", help="what clusters cost")
    add_serving(cost, "127.0.0.1:9342")
    which = cost.add_mutually_exclusive_group(required=True)
    which.add_argument("--cluster", action="append", help="may be given more than once")
    which.add_argument("--environment", help="all clusters of an environment")
    cost.add_argument(
        "--target",
        choices=("embedded", "aws"),
        default="embedded",
        help="embedded: what runs on this machine (default); aws: AWS",
    )
    cost.add_argument(
        "--slurm",
        choices=("local", "none"),
        default="local",
        help="local: the Slurm of this host tells of jobs (default); none: EC2 alone is asked",
    )
    cost.add_argument(
        "--refresh-seconds",
        type=float,
        default=60.0,
        help="EC2 and Slurm are asked so often (default: 60)",
    )
    cost.add_argument(
        "--record",
        type=Path,
        metavar="FOLDER",
        help="keep what is seen there, a file for each cluster: EC2 forgets after an hour",
    )
    cost.add_argument("--timezone", default="UTC", help="where months begin (default: UTC)")
    cost.epilog = f"example: clusterbox {command} exporter cost --cluster ws-eco --once"
    cost.set_defaults(run=_cost)


def _cost(options: argparse.Namespace, root: Path) -> int:
    from clusterbox.cli.observe import run_exporter
    from clusterbox.costs.meter_time import find_timezone
    from clusterbox.errors import InputError
    from clusterbox.observe.background import OK, Background
    from clusterbox.observe.cost_collector import CostCollector
    from clusterbox.observe.cost_reader import CostReader, PriceFiles

    if options.refresh_seconds < LEAST_REFRESH_SECONDS:
        raise InputError(f"--refresh-seconds must be {LEAST_REFRESH_SECONDS:g} at least")
    timezone = find_timezone(options.timezone)
    clusters = _clusters(options, root)
    if len(clusters) > 1 and options.target == "aws" and options.slurm == "local":
        raise InputError(
            "the Slurm of this host is that of one cluster; name it with --cluster, "
            "or ask EC2 alone with --slurm none"
        )
    prices: dict[str, PriceFiles] = {}
    backgrounds = {}
    for name, cluster in clusters.items():
        region = str(cluster.configuration.get("Region"))
        reader = CostReader(
            cluster,
            prices.setdefault(region, PriceFiles(root, region)),
            _opener(options, root, cluster, name),
            timezone,
            options.record / f"{name.replace('/', '.')}.jsonl" if options.record else None,
        )
        backgrounds[name] = Background(reader.read, options.refresh_seconds, report=_reporter(name))
    for background in backgrounds.values():
        if options.once:
            background.refresh()
        else:
            background.start()
    code = run_exporter(options, CostCollector(backgrounds))
    if options.once and any(not one.state().results[OK] for one in backgrounds.values()):
        return 1
    return code


def _clusters(options: argparse.Namespace, root: Path) -> dict[str, ComposedCluster]:
    from clusterbox.clusters.composed import compose_repository
    from clusterbox.errors import InputError
    from clusterbox.site.load import Repository

    if options.cluster:
        return compose_repository(root, options.cluster)
    environment = Repository(root).load_environment(options.environment)
    found = {
        name: cluster
        for name, cluster in compose_repository(root).items()
        if cluster.environment is not None and cluster.environment.name == environment.name
    }
    if not found:
        raise InputError(f"{environment.name} has no clusters")
    return found


def _opener(
    options: argparse.Namespace, root: Path, cluster: ComposedCluster, name: str
) -> Callable[[], Doors]:
    from dataclasses import replace

    from clusterbox.costs.meter_live import open_doors
    from clusterbox.slurm import Slurm

    def open_them() -> Doors:
        doors = open_doors(root, cluster, name, options.target)
        if options.slurm == "none":
            return replace(doors, slurm=None)
        if options.target == "aws":
            # Where ParallelCluster installs Slurm.
            path = f"/opt/slurm/bin{os.pathsep}{os.environ.get('PATH', os.defpath)}"
            return replace(doors, slurm=Slurm({"PATH": path}))
        return doors

    return open_them


def _reporter(name: str) -> Callable[[str], None]:
    def report(text: str) -> None:
        sys.stderr.write(f"clusterbox: {name}: {text}\n")
        sys.stderr.flush()

    return report
