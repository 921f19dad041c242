"""`clusterbox embedded`: AWS accounts and Slurm clusters on this machine."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from clusterbox.cli import embedded_slurm
from clusterbox.cli.tables import FORMATS, render_table

COLUMNS = ("environment", "account", "region", "port", "pid")


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    up = actions.add_parser(
        "up", help="start the account of an environment, with what exists in it"
    )
    up.add_argument("environment")
    up.set_defaults(run=_up)
    down = actions.add_parser("down", help="end accounts; all they hold is gone")
    down.add_argument("environment", nargs="?")
    down.add_argument("--all", action="store_true", help="every account of this repository")
    down.set_defaults(run=_down)
    status = actions.add_parser("status", help="list the accounts that run")
    status.add_argument("--format", choices=FORMATS, default="table")
    status.set_defaults(run=_status)
    env = actions.add_parser("env", help="print the variables that reach an account")
    env.add_argument("environment")
    env.set_defaults(run=_env)
    embedded_slurm.add_action(actions, command)
    parser.epilog = f'example: eval "$(clusterbox {command} env ws-dev)"; aws ec2 describe-vpcs'


def _up(options: argparse.Namespace, root: Path) -> int:
    from clusterbox.deployment import targets
    from clusterbox.site.load import Repository

    repository = Repository(root)
    environment = repository.load_environment(options.environment)
    target = targets.start_embedded(root, environment)
    made = targets.seed_embedded(target, environment, repository.load_seeded_images(environment))
    sys.stderr.write(
        f"account {environment.account} on port {target.account.port}, {made} things made\n"
    )
    return 0


def _down(options: argparse.Namespace, root: Path) -> int:
    from clusterbox.embedded.account import EmbeddedAccount
    from clusterbox.errors import InputError

    if options.all == bool(options.environment):
        raise InputError("name an environment, or give --all")
    names = _names(root) if options.all else [options.environment]
    for name in names:
        ended = EmbeddedAccount.stop(_folder(root, name))
        sys.stderr.write(f"{name}: {'ended' if ended else 'did not run'}\n")
    return 0


def _status(options: argparse.Namespace, root: Path) -> int:
    from clusterbox.embedded.account import EmbeddedAccount

    rows = []
    for name in _names(root):
        account = EmbeddedAccount.attach(_folder(root, name))
        if account is not None:
            rows.append([name, account.account, account.region, account.port, account.pid])
    sys.stdout.write(render_table(COLUMNS, rows, options.format) + "\n")
    return 0


def _env(options: argparse.Namespace, root: Path) -> int:
    import shlex

    from clusterbox.embedded.account import EmbeddedAccount
    from clusterbox.errors import ClusterboxError

    account = EmbeddedAccount.attach(_folder(root, options.environment))
    if account is None:
        raise ClusterboxError(
            f"no embedded account of {options.environment} runs; "
            f"start it with `clusterbox embedded up {options.environment}`"
        )
    # What is left of the caller's settings could lead elsewhere: profiles, endpoints of services.
    exported = account.environment()
    fixed = {
        "AWS_DEFAULT_PROFILE",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
        "AWS_PROFILE",
        "AWS_SESSION_TOKEN",
    }
    own = {name for name in os.environ if name.startswith("AWS_")}
    sys.stdout.write(f"unset {' '.join(sorted((fixed | own) - set(exported)))}\n")
    for key, value in exported.items():
        sys.stdout.write(f"export {key}={shlex.quote(value)}\n")
    return 0


def _folder(root: Path, name: str) -> Path:
    from clusterbox.deployment.targets import state_folder

    return state_folder(root, name)


def _names(root: Path) -> list[str]:
    return sorted(
        path.name for path in (root / ".clusterbox" / "embedded").glob("*") if path.is_dir()
    )
