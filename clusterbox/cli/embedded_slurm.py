"""`clusterbox embedded slurm`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from clusterbox.cli.tables import FORMATS, render_table

if TYPE_CHECKING:
    from clusterbox.clusters.composed import ComposedCluster
    from clusterbox.embedded.account import EmbeddedAccount

    Actions = argparse._SubParsersAction[argparse.ArgumentParser]

COLUMNS = ("cluster", "state", "nodes", "up", "jobs", "port", "folder")


def add_action(actions: Actions, command: str) -> None:
    """Add the action `slurm` with its own actions."""
    slurm = actions.add_parser(
        "slurm",
        help="a real Slurm on this machine, built from a cluster's configuration",
        epilog=f"example: clusterbox {command} slurm up ws-eco; "
        f'eval "$(clusterbox {command} slurm env ws-eco)"; sinfo',
    )
    steps = slurm.add_subparsers(dest="step", metavar="STEP", required=True)
    up = steps.add_parser("up", help="start the Slurm of a cluster")
    up.add_argument("cluster")
    up.add_argument(
        "--boot-seconds", type=_seconds, default=2.0, metavar="S", help="how long a node boots (2)"
    )
    up.add_argument(
        "--idle-seconds",
        type=_whole_seconds,
        metavar="S",
        help="when an idle node is powered down (default: ScaledownIdletime)",
    )
    up.add_argument(
        "--fail-launch",
        action="append",
        default=[],
        metavar="NAME",
        help="a queue, QUEUE-dy-RESOURCE or node whose launch fails; can be repeated",
    )
    up.add_argument(
        "--account",
        action="store_true",
        help="join it to the embedded account where the cluster is deployed: nodes are instances",
    )
    up.add_argument("--no-accounting", action="store_true", help="without slurmdbd and MariaDB")
    up.set_defaults(run=_up)
    down = steps.add_parser("down", help="end clusters with their jobs; all they hold is gone")
    down.add_argument("cluster", nargs="?")
    down.add_argument("--all", action="store_true", help="every Slurm of this repository")
    down.set_defaults(run=_down)
    status = steps.add_parser("status", help="list the clusters of this repository")
    status.add_argument("--format", choices=FORMATS, default="table")
    status.set_defaults(run=_status)
    env = steps.add_parser("env", help="print the variables with which Slurm's commands reach one")
    env.add_argument("cluster")
    env.set_defaults(run=_env)


def _up(options: argparse.Namespace, root: Path) -> int:
    import time

    from clusterbox.clusters.composed import compose_repository
    from clusterbox.embedded.slurm import Options, SlurmCluster
    from clusterbox.embedded.slurm.state import cluster_folder

    cluster = compose_repository(root, [options.cluster])[options.cluster]
    account = _account(root, cluster) if options.account else None
    chosen = Options(
        accounting=not options.no_accounting,
        boot_seconds=options.boot_seconds,
        idle_seconds=options.idle_seconds,
        fail_launch=tuple(options.fail_launch),
    )
    begin = time.monotonic()
    folder = cluster_folder(root, options.cluster)
    pcluster = root / ".venv-pcluster"
    started = SlurmCluster.start(cluster, folder, chosen, pcluster_folder=pcluster, account=account)
    version = started.door.run("sinfo", "--version").strip()
    sys.stderr.write(
        f"{version} of {options.cluster} runs (started in {time.monotonic() - begin:.1f} s); "
        f"logs are in {started.layout.logs}\nuse it with:\n"
    )
    sys.stdout.write(f'eval "$(clusterbox embedded slurm env {options.cluster})"; sinfo\n')
    return 0


def _account(root: Path, cluster: ComposedCluster) -> EmbeddedAccount:
    """Return the embedded account of the cluster's environment, which must run."""
    from clusterbox.deployment.targets import find_embedded
    from clusterbox.errors import InputError

    environment = cluster.environment
    found = find_embedded(root, environment) if environment else None
    if found is None:
        where = environment.name if environment else "ENVIRONMENT"
        raise InputError(
            f"no embedded account runs in which {cluster.name} could be deployed; "
            f"start it with `clusterbox deploy {where}`"
        )
    return found.account


def _down(options: argparse.Namespace, root: Path) -> int:
    from clusterbox.embedded.slurm import SlurmCluster
    from clusterbox.embedded.slurm.state import cluster_folder, cluster_folders
    from clusterbox.errors import InputError

    if options.all == bool(options.cluster):
        raise InputError("name a cluster, or give --all")
    folders = cluster_folders(root) if options.all else [cluster_folder(root, options.cluster)]
    for folder in folders:
        ended = SlurmCluster.stop(folder)
        sys.stderr.write(f"{folder.name}: {'ended' if ended else 'did not run'}\n")
    return 0


def _status(options: argparse.Namespace, root: Path) -> int:
    from clusterbox.embedded.slurm import SlurmCluster
    from clusterbox.embedded.slurm.state import cluster_folders, read_state

    rows: list[list[object]] = []
    for folder in cluster_folders(root):
        state = read_state(folder)
        if state is None:
            continue
        where = str(folder.relative_to(root))
        cluster = SlurmCluster.attach(folder)
        if cluster is None:
            rows.append([folder.name, "broken", None, None, None, state.first_port, where])
            continue
        nodes = cluster.door.fetch_nodes()
        up = sum("POWERED_DOWN" not in node.states for node in nodes)
        jobs = len(cluster.door.fetch_queue())
        rows.append([folder.name, "up", len(nodes), up, jobs, state.first_port, where])
    sys.stdout.write(render_table(COLUMNS, rows, options.format) + "\n")
    return 0


def _env(options: argparse.Namespace, root: Path) -> int:
    import shlex
    import shutil

    from clusterbox.embedded.slurm import SlurmCluster
    from clusterbox.embedded.slurm.state import cluster_folder
    from clusterbox.errors import ClusterboxError

    cluster = SlurmCluster.attach(cluster_folder(root, options.cluster))
    if cluster is None:
        raise ClusterboxError(
            f"no Slurm of {options.cluster} runs here; "
            f"start it with `clusterbox embedded slurm up {options.cluster}`"
        )
    exported = cluster.environment
    if shutil.which("sinfo"):
        del exported["PATH"]
    # Formats and defaults of another cluster could be meant by these.
    steering = ("SLURM_", "SBATCH_", "SQUEUE_", "SINFO_", "SALLOC_", "SRUN_")
    others = sorted(n for n in os.environ if n.startswith(steering) and n not in exported)
    if others:
        sys.stdout.write(f"unset {' '.join(others)}\n")
    for key, value in exported.items():
        sys.stdout.write(f"export {key}={shlex.quote(value)}\n")
    return 0


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError("must be from 0 to 3600")
    return value


def _whole_seconds(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value
