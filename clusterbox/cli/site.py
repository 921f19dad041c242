"""`clusterbox deploy`, `destroy` and `show`."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from clusterbox.cli.ask import ask
from clusterbox.cli.tables import FORMATS, render_table

if TYPE_CHECKING:
    from clusterbox.deployment.inventory import Item
    from clusterbox.deployment.site import Site

COLUMNS = ("kind", "name", "id", "state", "detail")


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments of one of the three commands."""
    parser.add_argument("environment", help="environment: a file of environments/ without .yaml")
    parser.add_argument(
        "--target",
        choices=("embedded", "aws"),
        default="embedded",
        help="embedded: an AWS account on this machine (default); aws: AWS itself",
    )
    parser.add_argument(
        "--format", choices=FORMATS, default="table", help="how to print what exists"
    )
    if command != "show":
        parser.add_argument("--yes", action="store_true", help="do not ask (aws)")
    if command == "deploy":
        parser.add_argument(
            "--ignore-rollout",
            action="store_true",
            help="deploy though a rollout of images is not merged yet, and drain queues back",
        )
    if command == "destroy":
        parser.add_argument("--cluster", help="remove only this cluster and its stack")
    parser.epilog = f"example: clusterbox {command} ws-dev --target embedded"
    parser.set_defaults(run={"deploy": _deploy, "destroy": _destroy, "show": _show}[command])


def _open(options: argparse.Namespace, root: Path) -> Site:
    from clusterbox.cli.steps import ShownProgress
    from clusterbox.deployment.site import Site
    from clusterbox.site.load import Repository

    environment = Repository(root).load_environment(options.environment)
    return Site(root, environment, ShownProgress())


def _deploy(options: argparse.Namespace, root: Path) -> int:
    site = _open(options, root)

    def confirm(differences: str) -> bool:
        sys.stdout.write(differences + "\n")
        environment = site.environment
        return ask(
            f"Deploy this to account {environment.account} in {environment.region}?", options.yes
        )

    done = site.deploy(options.target, confirm, ignore_rollout=options.ignore_rollout)
    _print_items(done.items, options.format)
    changed = [stack for stack, differs in done.changed.items() if differs]
    if done.is_unchanged:
        _tell(f"nothing changed: all {len(done.changed)} stacks are as the repository says")
    else:
        _tell(f"{len(changed)} of {len(done.changed)} stacks changed: {', '.join(changed)}")
    for cluster in done.leftover:
        _tell(
            f"cluster {cluster} still stands though the environment does not name it any more; "
            f"remove it with `clusterbox destroy {options.environment} --cluster {cluster}`"
        )
    for stack in done.leftover_stacks:
        _tell(
            f"stack {stack} still stands though the environment has no section for it any more; if "
            f"nothing of it is needed: `aws cloudformation delete-stack --stack-name {stack}`"
        )
    for warning in done.warnings:
        _tell(warning)
    if not done.is_unchanged:
        _tell_stand_ins(options.target)
    _tell_times(site)
    return 0


def _destroy(options: argparse.Namespace, root: Path) -> int:
    site = _open(options, root)

    def confirm(what: str) -> bool:
        return ask(f"Remove from account {site.environment.account}: {what}?", options.yes)

    if options.cluster:
        done = site.remove_cluster(options.target, options.cluster, confirm)
    else:
        done = site.destroy(options.target, confirm)
    _print_items(done.items, options.format)
    _tell(f"removed: {', '.join(done.removed) or 'nothing, it was gone already'}")
    for name, reason in done.kept.items():
        _tell(f"kept {name}: {reason}")
    _tell_times(site)
    return 0


def _show(options: argparse.Namespace, root: Path) -> int:
    items = _open(options, root).show(options.target)
    if not items and options.target == "embedded":
        _tell(f"no embedded account of {options.environment} runs; start one with `make deploy`")
    _print_items(items, options.format)
    return 0


def _print_items(items: list[Item], form: str) -> None:
    rows: list[list[object]] = [[getattr(item, column) for column in COLUMNS] for item in items]
    if form == "table":
        # People know a role by its name; its ARN is in the other formats.
        for row in rows:
            row[2] = "" if str(row[2]).startswith("arn:") else row[2]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    sys.stdout.write(render_table(COLUMNS, rows, form, width=width) + "\n")
    sys.stdout.flush()


def _tell_stand_ins(target: str) -> None:
    if target == "embedded":
        from clusterbox.embedded.stand_ins import stand_ins

        _tell("what stands in for AWS here:")
        for sentence in stand_ins():
            _tell(f"  - {sentence}")


def _tell_times(site: Site) -> None:
    seconds = site.progress.seconds
    steps = ", ".join(f"{name} {time:.1f} s" for name, time in seconds.items())
    _tell(f"{sum(seconds.values()):.1f} s: {steps}")


def _tell(text: str) -> None:
    sys.stderr.write(text + "\n")
