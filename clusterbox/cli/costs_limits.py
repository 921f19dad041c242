"""`clusterbox costs limits`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusterbox.cli.tables import FORMATS, render_table

if TYPE_CHECKING:
    from clusterbox.clusters.composed import ComposedCluster
    from clusterbox.costs.limits import LimitPlan
    from clusterbox.costs.limits_apply import Run, Step, Wanted
    from clusterbox.costs.limits_usage import Use

USE_COLUMNS = (
    "account",
    "user",
    "limit_usd",
    "used_usd",
    "reserved_usd",
    "remaining_usd",
    "jobs",
    "most_jobs",
)
STEP_COLUMNS = ("subject", "setting", "is", "will_be")
CHECK_COLUMNS = ("setting", "line", "is", "must_be")
# The settings by which slurmctld counts use; the others only refuse.
COUNTING = (
    "PriorityType",
    "PriorityDecayHalfLife",
    "PriorityUsageResetPeriod",
    "PriorityFlags",
    "AccountingStorageTRES",
)
VERBS = ("show", "apply", "check", "script")

_DESCRIPTION = """\
Limits of a cluster's jobs in USD, enforced by its Slurm (docs/cost-limits.md).

  limits CLUSTER          limits, what is used and left, and who uses it
  limits apply CLUSTER    make Slurm agree with the environment file
  limits check CLUSTER    what the cluster's configuration lacks for the limits to hold
  limits script CLUSTER   print what applies them on the head node at its start
"""


def add_limits(actions: argparse._SubParsersAction[argparse.ArgumentParser], command: str) -> None:
    """Add the action `limits`."""
    limits = actions.add_parser(
        "limits",
        help="limits of jobs in USD, enforced by Slurm: show, apply, check",
        usage=f"clusterbox {command} limits [apply|check|script] CLUSTER [OPTION...]",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"example: clusterbox {command} limits apply ws-eco --dry-run",
    )
    limits.add_argument("words", nargs="+", metavar="[apply|check|script] CLUSTER")
    limits.add_argument(
        "--target",
        choices=("embedded", "aws"),
        default="embedded",
        help="embedded: the Slurm on this machine (default); aws: the head node",
    )
    limits.add_argument(
        "--slurm-conf", type=Path, metavar="FILE", help="the Slurm of this slurm.conf instead"
    )
    limits.add_argument("--profile", help="profile of your AWS configuration (aws)")
    limits.add_argument("--dry-run", action="store_true", help="apply: print the plan only")
    limits.add_argument(
        "--yaml", action="store_true", help="check: print the settings that are needed as YAML"
    )
    limits.add_argument("--format", choices=FORMATS, default="table", help="how to print tables")
    limits.set_defaults(run=_run)


def _run(options: argparse.Namespace, root: Path) -> int:
    from clusterbox.clusters.composed import compose_repository
    from clusterbox.errors import InputError

    if len(options.words) > 2 or (len(options.words) == 2 and options.words[0] not in VERBS):
        raise InputError(f"give one cluster, and before it one of {', '.join(VERBS)}")
    verb = options.words[0] if len(options.words) == 2 else "show"
    for flag, own in (("dry_run", "apply"), ("yaml", "check")):
        if getattr(options, flag) and verb != own:
            raise InputError(f"--{flag.replace('_', '-')} belongs to `limits {own}`")
    name = options.words[-1]
    cluster = compose_repository(root, [name])[name]
    verbs: dict[str, Callable[[argparse.Namespace, Path, ComposedCluster], int]] = {
        "show": _show,
        "apply": _apply,
        "check": _check,
        "script": _script,
    }
    return verbs[verb](options, root, cluster)


def _show(options: argparse.Namespace, root: Path, cluster: ComposedCluster) -> int:
    from clusterbox.costs.limits_apply import find_faults
    from clusterbox.costs.limits_usage import fetch_uses

    plan = _needed_plan(root, cluster)
    run = _connect(options, root, cluster)
    # Without these settings Slurm counts something else than money, or nothing.
    counting = {key: value for key, value in plan.settings.items() if key in COUNTING}
    faults = find_faults(replace(plan.wanted, settings=counting), run)
    for fault in faults:
        _say(f"{fault}; amounts are unknown")
    rows = [_use_row(use, is_money=not faults) for use in fetch_uses(run)]
    _print(USE_COLUMNS, rows, options)
    return 0


def _use_row(use: Use, *, is_money: bool) -> list[object]:
    amounts = [use.limit_usd, use.used_usd, use.reserved_usd, use.remaining_usd]
    shown: list[object] = [None if usd is None else f"{usd:.2f}" for usd in amounts]
    if not is_money:
        shown = ["unknown"] * len(amounts)
    account = "(cluster)" if use.account == "root" and not use.user else use.account
    return [account, use.user or None, *shown, use.jobs, use.most_jobs]


def _apply(options: argparse.Namespace, root: Path, cluster: ComposedCluster) -> int:
    from clusterbox.costs.limits_apply import (
        find_faults,
        find_ways_round,
        plan_steps,
        qos_name,
        read_state,
        take,
    )

    plan = _plan(root, cluster)
    wanted: Wanted | None = None
    if plan is None:
        _say(f"{cluster.name} has no budget in its environment file: limits of it are removed")
    else:
        wanted = plan.wanted
        _explain(plan)
    run = _connect(options, root, cluster)
    steps = plan_steps(wanted, qos_name(cluster.name), read_state(run))
    _print(STEP_COLUMNS, _step_rows(steps), options)
    if options.dry_run:
        _say(f"{len(steps)} commands would be run" if steps else "nothing would change")
        return 0
    take(steps, run)
    _say(f"{len(steps)} commands run" if steps else "nothing to change")
    if wanted is None:
        return 0
    faults = find_faults(wanted, run)
    for fault in [*faults, *find_ways_round(wanted, read_state(run))]:
        _say(f"NOT ENFORCED: {fault}")
    if faults:
        _say(f"`clusterbox costs limits check {cluster.name}` shows where to set it")
    return 1 if faults else 0


def _step_rows(steps: list[Step]) -> list[list[object]]:
    return [[step.subject, *change] for step in steps for change in step.changes]


def _check(options: argparse.Namespace, root: Path, cluster: ComposedCluster) -> int:
    from clusterbox.costs.limits_settings import compare_settings, fragment

    plan = _needed_plan(root, cluster)
    _explain(plan)
    differences = compare_settings(cluster, plan)
    if options.yaml:
        import yaml

        sys.stdout.write(yaml.safe_dump(fragment(plan), sort_keys=False))
    else:
        rows: list[list[object]] = [
            [item.path, item.line, item.found or "missing", item.must] for item in differences
        ]
        _print(CHECK_COLUMNS, rows, options)
    if differences:
        _say(
            f"{cluster.file.name}: {len(differences)} settings differ: the limits would not hold; "
            f"`--yaml` prints them"
        )
    return 1 if differences else 0


def _script(_options: argparse.Namespace, root: Path, cluster: ComposedCluster) -> int:
    from clusterbox.costs.limits_script import render_script

    sys.stdout.write(render_script(_needed_plan(root, cluster)))
    return 0


def _plan(root: Path, cluster: ComposedCluster) -> LimitPlan | None:
    from datetime import UTC, datetime

    from clusterbox.costs.limits import load_plan
    from clusterbox.costs.prices import load_prices, warn_if_stale

    prices = load_prices(str(cluster.configuration.get("Region")), root=root)
    warn_if_stale(prices, datetime.now(UTC).date())
    return load_plan(root, cluster, prices)


def _needed_plan(root: Path, cluster: ComposedCluster) -> LimitPlan:
    from clusterbox.errors import InputError

    plan = _plan(root, cluster)
    if plan is None:
        raise InputError(
            f"{cluster.name} has no budget; add it to budgets.clusters of its environment file"
        )
    return plan


def _explain(plan: LimitPlan) -> None:
    _say(
        f"{plan.monthly_usd:.2f} USD a month, of which {plan.fixed_usd:.2f} are the cluster without "
        f"nodes and {plan.jobs_usd:.2f} are for jobs"
    )
    if plan.unpriced:
        _say(f"not in it, because they depend on use: {', '.join(plan.unpriced)}")
    for partition in plan.partitions:
        more = partition.dearest_usd / partition.cheapest_usd - 1
        spread = f", up to {more:.0%} more than the cheapest type" if more else ""
        _say(f"partition {partition.name}: a node bills {partition.dearest_usd:.4f} USD/h{spread}")


def _connect(options: argparse.Namespace, root: Path, cluster: ComposedCluster) -> Run:
    """Return what runs Slurm's commands of the target."""
    from clusterbox.errors import ClusterboxError, InputError
    from clusterbox.slurm import Slurm

    if options.slurm_conf is not None:
        if options.target == "aws":
            raise InputError(
                "--slurm-conf is a Slurm that is reached from here; leave out --target"
            )
        if not options.slurm_conf.is_file():
            raise InputError(f"--slurm-conf {options.slurm_conf}: there is no such file")
        return Slurm({"SLURM_CONF": str(options.slurm_conf.resolve())}).run
    if options.target == "aws":
        return _connect_aws(options, cluster)
    from clusterbox.embedded.slurm import SlurmCluster
    from clusterbox.embedded.slurm.state import cluster_folder

    found = SlurmCluster.attach(cluster_folder(root, options.words[-1]))
    if found is None:
        raise ClusterboxError(
            f"no Slurm of {cluster.name} runs here; start it with "
            f"`clusterbox embedded slurm up {cluster.name}`, or give --target aws"
        )
    return found.door.run


def _connect_aws(options: argparse.Namespace, cluster: ComposedCluster) -> Run:
    from clusterbox.aws import sign_in
    from clusterbox.costs.limits_remote import find_head_node
    from clusterbox.errors import InputError

    environment: Any = cluster.environment
    login = sign_in(environment.region, options.profile)
    if login.account != environment.account:
        raise InputError(
            f"your credentials are of account {login.account}, and {cluster.name} is in "
            f"{environment.account}"
        )
    client = login.open(environment.region).client
    return find_head_node(client("ec2"), client("ssm"), cluster.name).run


def _print(columns: tuple[str, ...], rows: list[list[object]], options: argparse.Namespace) -> None:
    sys.stdout.write(render_table(columns, rows, options.format) + "\n")


def _say(text: str) -> None:
    sys.stderr.write(f"clusterbox: {text}\n")
