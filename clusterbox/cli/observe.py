"""`clusterbox observe`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from clusterbox.cli.observe_containers import add_containers
from clusterbox.cli.observe_cost import add_cost
from clusterbox.cli.observe_dashboards import add_dashboards
from clusterbox.cli.observe_show import add_show
from clusterbox.cli.observe_site import add_config, add_site

if TYPE_CHECKING:
    from prometheus_client.registry import Collector


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    exporter = actions.add_parser("exporter", help="serve metrics to Prometheus until it is ended")
    kinds = exporter.add_subparsers(dest="kind", metavar="KIND", required=True)
    slurm = kinds.add_parser("slurm", help="the Slurm of this head node")
    add_serving(slurm, "127.0.0.1:9341")
    slurm.add_argument(
        "--refresh-seconds",
        type=float,
        default=15.0,
        help="slurmctld is asked no more often than this (default: 15)",
    )
    slurm.add_argument(
        "--timeout-seconds",
        type=float,
        default=8.0,
        help="time that slurmctld has to answer (default: 8, less than Prometheus waits)",
    )
    slurm.add_argument(
        "--most-users", type=int, default=500, help="users and accounts told by name (default: 500)"
    )
    slurm.add_argument(
        "--slurm-conf", type=Path, help="slurm.conf of the cluster (default: as Slurm finds it)"
    )
    slurm.epilog = f"example: clusterbox {command} exporter slurm --once"
    slurm.set_defaults(run=_slurm, needs_root=False)
    add_cost(kinds, command)
    add_containers(kinds, command)
    add_site(kinds, command)
    add_config(actions, command)
    add_dashboards(actions, command)
    add_show(actions, command)
    parser.epilog = f"example: clusterbox {command} exporter slurm --listen 127.0.0.1:9341"


def add_serving(parser: argparse.ArgumentParser, address: str) -> None:
    """Add the arguments that all exporters have."""
    parser.add_argument(
        "--listen", default=address, metavar="HOST:PORT", help=f"default: {address}"
    )
    parser.add_argument("--once", action="store_true", help="print what a scrape would get")


def _slurm(options: argparse.Namespace, _root: Path | None) -> int:
    from clusterbox.errors import InputError
    from clusterbox.observe.heartbeat import HeartbeatCollector
    from clusterbox.observe.slurm_collector import SlurmCollector
    from clusterbox.slurm import Slurm

    for flag in ("refresh_seconds", "timeout_seconds", "most_users"):
        if getattr(options, flag) <= 0:
            raise InputError(f"--{flag.replace('_', '-')} must be more than 0")
    environment = {}
    if options.slurm_conf is not None:
        environment["SLURM_CONF"] = str(options.slurm_conf.resolve())
    # Where ParallelCluster installs Slurm.
    environment["PATH"] = f"/opt/slurm/bin{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    collector = SlurmCollector(
        Slurm(environment),
        refresh_seconds=options.refresh_seconds,
        timeout_seconds=options.timeout_seconds,
        most_labels=options.most_users,
    )
    if options.once:
        collector.poll()
    else:
        collector.start()
    return run_exporter(options, collector, HeartbeatCollector())


def run_exporter(options: argparse.Namespace, *collectors: Collector) -> int:
    """Serve collectors, or print one scrape of them."""
    from prometheus_client import CollectorRegistry, generate_latest

    from clusterbox.observe.serve import MetricsServer, parse_listen, serve

    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    if options.once:
        sys.stdout.write(generate_latest(registry).decode())
        return 0
    host, _ = address = parse_listen(options.listen)

    def ready(port: int) -> None:
        sys.stderr.write(f"clusterbox: metrics at {host}:{port}/metrics\n")
        sys.stderr.flush()

    serve(MetricsServer(address, registry), ready)
    return 0
