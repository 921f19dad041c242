"""`clusterbox clusters`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from clusterbox.cli import clusters_compare, clusters_template, clusters_validate


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    compose = actions.add_parser(
        "compose", help="print a configuration with its references resolved"
    )
    compose.add_argument("name", help="cluster")
    compose.set_defaults(run=_compose)
    for module in (clusters_validate, clusters_compare, clusters_template):
        module.add_action(actions)
    parser.epilog = f"example: clusterbox {command} compose ws-eco"


def _compose(options: argparse.Namespace, root: Path) -> int:
    import yaml

    from clusterbox.clusters.composed import compose_repository

    cluster = compose_repository(root, [options.name])[options.name]
    sys.stdout.write(yaml.safe_dump(dict(cluster.configuration), sort_keys=False))
    return 0
