"""`clusterbox check`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from clusterbox.cli.tables import FORMATS, render_table

COLUMNS = ("environment", "subnet", "cidr", "usable", "needed", "free", "may_also_come")


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments."""
    parser.add_argument("environment", nargs="*", help="environments to check (default: all)")
    parser.add_argument(
        "--format", choices=FORMATS, default="table", help="how to print the budget"
    )
    parser.epilog = f"example: clusterbox {command} ws-dev"
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, root: Path) -> int:
    from clusterbox.clusters.compose import compose_offline
    from clusterbox.errors import Problem, ProblemsError
    from clusterbox.site.addresses import plan_addresses
    from clusterbox.site.load import Repository

    repository = Repository(root)
    problems: list[Problem] = []
    rows: list[list[object]] = []
    for name in options.environment or repository.environment_names():
        try:
            environment = repository.load_environment(name)
            images = repository.load_images(environment)
            configs = {entry.name: repository.load_cluster(entry) for entry in environment.clusters}
            for cluster, config in configs.items():
                try:
                    pins = repository.load_pins(environment, cluster)
                    compose_offline(environment, cluster, config, images, pins)
                except ProblemsError as error:
                    problems += error.problems
            budgets = plan_addresses(environment, configs)
        except ProblemsError as error:
            problems += error.problems
            continue
        for budget in budgets:
            elsewhere = sum(demand.addresses for demand in budget.may_be_here)
            rows.append(
                [
                    name,
                    budget.name,
                    budget.cidr,
                    budget.usable,
                    budget.needed,
                    budget.free,
                    elsewhere,
                ]
            )
    if problems:
        raise ProblemsError(list(dict.fromkeys(problems)))
    sys.stdout.write(render_table(COLUMNS, rows, options.format) + "\n")
    return 0
