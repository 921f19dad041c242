"""`clusterbox observe exporter containers`."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_containers(
    kinds: argparse._SubParsersAction[argparse.ArgumentParser], command: str
) -> None:
    """Add the exporter of containers."""
    from clusterbox.cli.observe import add_serving

    parser = kinds.add_parser("containers", help="the containers of this machine, by Slurm job")
    add_serving(parser, "127.0.0.1:9343")
    parser.add_argument(
        "--docker-socket",
        type=Path,
        default=Path("/run/docker.sock"),
        metavar="PATH",
        help="of Docker, or of Podman's Docker API (default: /run/docker.sock)",
    )
    parser.add_argument(
        "--engine",
        action="append",
        choices=("docker", "apptainer"),
        help="may be given more than once (default: Apptainer, and Docker where there is its socket)",
    )
    parser.add_argument(
        "--refresh-seconds",
        type=float,
        default=10.0,
        help="engines are asked no more often than this (default: 10)",
    )
    parser.add_argument(
        "--most-containers",
        type=int,
        default=200,
        help="containers of an engine that have series; of more, the oldest (default: 200)",
    )
    parser.epilog = f"example: clusterbox {command} exporter containers --once"
    parser.set_defaults(run=_containers, needs_root=False)


def _containers(options: argparse.Namespace, _root: Path | None) -> int:
    from clusterbox.cli.observe import run_exporter
    from clusterbox.errors import InputError
    from clusterbox.observe.apptainer import Apptainer
    from clusterbox.observe.container_collector import ContainerCollector, Engine
    from clusterbox.observe.docker_engine import DockerEngine

    for flag in ("refresh_seconds", "most_containers"):
        if getattr(options, flag) <= 0:
            raise InputError(f"--{flag.replace('_', '-')} must be more than 0")
    wanted = options.engine or ["apptainer"]
    if not options.engine and options.docker_socket.exists():
        wanted.append("docker")
    engines: list[Engine] = []
    if "docker" in wanted:
        engines.append(DockerEngine(options.docker_socket))
    if "apptainer" in wanted:
        engines.append(Apptainer())
    collector = ContainerCollector(
        engines,
        refresh_seconds=options.refresh_seconds,
        most_containers=options.most_containers,
    )
    return run_exporter(options, collector)
