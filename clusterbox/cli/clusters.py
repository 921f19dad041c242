"""`clusterbox clusters`."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusterbox.cli.tables import FORMATS, render_table
from clusterbox.errors import InputError

if TYPE_CHECKING:
    from clusterbox.site.environment import ClusterEntry, Environment

COLUMNS = ("cluster", "environment", "config", "result", "path", "message")


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    compose = actions.add_parser(
        "compose", help="print a configuration with its references resolved"
    )
    compose.add_argument("name", help="cluster")
    compose.set_defaults(run=_compose)
    schema = actions.add_parser(
        "schema", help="load configurations in ParallelCluster's own schema"
    )
    schema.add_argument("name", nargs="*", help="clusters (default: all)")
    schema.add_argument("--format", choices=FORMATS, default="table")
    schema.set_defaults(run=_schema)
    parser.epilog = f"example: clusterbox {command} compose ws-eco"


def _find(root: Path) -> dict[str, tuple[Environment, ClusterEntry]]:
    from clusterbox.site.load import Repository

    repository = Repository(root)
    environments = [repository.load_environment(name) for name in repository.environment_names()]
    named = [
        (entry.name, environment, entry)
        for environment in environments
        for entry in environment.clusters
    ]
    counts = Counter(name for name, _, _ in named)
    # A name that two environments have is told apart by the environment's.
    return {
        name if counts[name] == 1 else f"{environment.name}/{name}": (environment, entry)
        for name, environment, entry in named
    }


def _composed(root: Path, environment: Environment, entry: ClusterEntry) -> dict[str, Any]:
    from clusterbox.clusters.compose import compose_offline
    from clusterbox.site.load import Repository

    repository = Repository(root)
    images = repository.load_images(environment)
    return compose_offline(environment, entry.name, repository.load_cluster(entry), images)


def _compose(options: argparse.Namespace, root: Path) -> int:
    import yaml

    found = _select(_find(root), [options.name])
    composed = _composed(root, *found[options.name])
    sys.stdout.write(yaml.safe_dump(composed, sort_keys=False))
    return 0


def _schema(options: argparse.Namespace, root: Path) -> int:
    from clusterbox.clusters.schema import check_schemas
    from clusterbox.pcluster import Pcluster

    found = _find(root)
    chosen = _select(found, options.name) if options.name else found
    composed = {name: _composed(root, *where) for name, where in chosen.items()}
    findings = check_schemas(Pcluster(root / ".venv-pcluster", os.environ), composed)
    refused = {finding.cluster for finding in findings}
    rows = [
        (name, environment.name, entry.config, "loads", "", "")
        for name, (environment, entry) in chosen.items()
        if name not in refused
    ]
    for finding in findings:
        environment, entry = chosen[finding.cluster]
        rows.append(
            (
                finding.cluster,
                environment.name,
                entry.config,
                "refused",
                finding.path,
                finding.message,
            )
        )
    sys.stdout.write(render_table(COLUMNS, rows, options.format) + "\n")
    return 1 if findings else 0


def _select(
    found: dict[str, tuple[Environment, ClusterEntry]], wanted: list[str]
) -> dict[str, tuple[Environment, ClusterEntry]]:
    unknown = [name for name in wanted if name not in found]
    if unknown:
        raise InputError(
            f"there is no cluster {', '.join(unknown)}; known: {', '.join(sorted(found))}"
        )
    return {name: found[name] for name in wanted}
