"""`clusterbox clusters compare`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import clusterbox
from clusterbox.cli.tables import FORMATS, render_table
from clusterbox.errors import InputError, ProblemsError

if TYPE_CHECKING:
    from clusterbox.clusters.compare import Change, Comparison

COLUMNS = ("effect", "parameter", "old", "new", "policy", "now", "first", "note")
_VALUE_CHARACTERS = 40
# What a composed configuration is made of.


def add_action(actions: argparse._SubParsersAction[Any]) -> None:
    """Add the action and its arguments."""
    parser = actions.add_parser(
        "compare",
        help="say what a changed configuration does to a running cluster",
        description="Compare two configurations by ParallelCluster's own update policies: what"
        " changes, what has to be done first, and what running jobs notice.",
        epilog="examples: clusterbox clusters compare ws-eco --base-ref main\n"
        "          clusterbox clusters compare old.yaml new.yaml\n"
        "exit code: 0 if it can be applied now, 1 if something has to be done first or it cannot be"
        " applied, 2 for bad input",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("base", help="native YAML file, or cluster of this repository")
    parser.add_argument("head", nargs="?", help="the same; left out with --base-ref")
    parser.add_argument(
        "--base-ref", metavar="REF", help="compare a cluster at this git commit with the files here"
    )
    for name, what in (("fleet", "the compute fleet"), ("login", "login nodes")):
        parser.add_argument(
            f"--{name}",
            choices=("running", "stopped"),
            default="running",
            help=f"state of {what} (default: running)",
        )
    parser.add_argument("--format", choices=FORMATS, default="table")
    parser.set_defaults(run=_compare, needs_root=False)


def _compare(options: argparse.Namespace, root: Path | None) -> int:
    from clusterbox.clusters.compare import compare_clusters
    from clusterbox.pcluster import Pcluster

    cluster, base, head = _read_pair(options, root)
    installed = root or Path(clusterbox.__file__).parents[1]
    comparison = compare_clusters(
        Pcluster(installed / ".venv-pcluster", os.environ),
        {cluster: (base, head)},
        fleet_running=options.fleet == "running",
        login_running=options.login == "running",
    )[cluster]
    if comparison.problems:
        raise ProblemsError(comparison.problems)
    sys.stdout.write(_render(comparison, options.format) + "\n")
    return 0 if comparison.allowed else 1


def _read_pair(
    options: argparse.Namespace, root: Path | None
) -> tuple[str, Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """Return the cluster's name, and its old and new configuration; None where it is absent."""
    if options.base_ref is None:
        if options.head is None:
            raise InputError("compare takes BASE and HEAD, or the name of a cluster and --base-ref")
        _, old = _read(options.base, root)
        name, new = _read(options.head, root)
        return name, old, new
    if options.head is not None:
        raise InputError("compare takes one cluster's name with --base-ref")
    if root is None:
        raise InputError("--base-ref compares a cluster of a clusterbox repository; run it in one")
    return _find_pair(options.base, options.base_ref, root)


def _find_pair(
    name: str, ref: str, root: Path
) -> tuple[str, Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """Return a cluster as `ENVIRONMENT/NAME`, with its configurations at a commit and here."""
    from clusterbox.review.revisions import export_commit

    with tempfile.TemporaryDirectory(prefix="clusterbox-") as folder:
        exported = export_commit(root, ref, Path(folder))
        if not (exported / "environments").is_dir():
            raise InputError(f"{ref} has no clusterbox repository: it lacks environments/")
        try:
            before = _find(exported, name)
        except ProblemsError as error:
            raise InputError(f"at {ref}: {error}") from error
    after = _find(root, name)
    keys = sorted({*before, *after})
    if not keys:
        raise InputError(f"there is no cluster {name}, neither here nor at {ref}")
    if len(keys) > 1:
        raise InputError(f"several environments have a cluster {name}; name one: {', '.join(keys)}")
    return keys[0], before.get(keys[0]), after.get(keys[0])


def _find(root: Path, name: str) -> dict[str, Mapping[str, Any]]:
    """Return the configurations of the clusters of a name, or of one as `ENVIRONMENT/NAME`."""
    from clusterbox.clusters.composed import compose_repository

    return {
        key: cluster.configuration
        for cluster in compose_repository(root).values()
        if cluster.environment is not None
        for key in [f"{cluster.environment.name}/{cluster.name}"]
        if name in (key, cluster.name)
    }


def _read(text: str, root: Path | None) -> tuple[str, Mapping[str, Any]]:
    """Return the name and configuration of a native YAML file, or of a cluster here."""
    from clusterbox.clusters.composed import compose_repository, read_native

    path = Path(text)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        cluster = read_native(path)
        if path.resolve().parent.name == "cluster_configs" and "${" in json.dumps(
            cluster.configuration, default=str
        ):
            raise InputError(
                f"{path} has references, which only an environment can resolve: give the name of"
                " the cluster instead, or the output of `clusterbox clusters compose NAME`"
            )
        return cluster.name, cluster.configuration
    if root is None:
        raise InputError(f"{text}: there is no such file, and here is no clusterbox repository")
    return text, compose_repository(root, [text])[text].configuration


def _render(comparison: Comparison, form: str) -> str:
    if form == "json":
        return json.dumps(_as_record(comparison), indent=2, ensure_ascii=False)
    rows = [_row(change) for change in comparison.changes]
    if form == "csv":
        return render_table(COLUMNS, rows, form)
    lines = [render_table(COLUMNS, rows, form), ""] if rows else []
    lines += [f"{comparison.cluster}: {comparison.verdict.value}", f"jobs: {comparison.jobs}"]
    if comparison.steps:
        lines.append("to do:")
        lines += [f"{number}. {step}" for number, step in enumerate(comparison.steps, start=1)]
    elif comparison.changes:
        lines.append("to do: deploy")
    return "\n".join(lines) if form == "table" else "\n\n".join(filter(None, lines))


def _row(change: Change) -> tuple[str, ...]:
    return (
        change.verdict.value,
        change.path,
        _shorten(change.old),
        _shorten(change.new),
        change.policy,
        "yes" if change.allowed else "no",
        "" if change.allowed else change.step,
        "; ".join(filter(None, (change.reason, change.note))),
    )


def _shorten(value: Any) -> str:
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _VALUE_CHARACTERS else text[: _VALUE_CHARACTERS - 1] + "…"


def _as_record(comparison: Comparison) -> dict[str, Any]:
    return {
        "cluster": comparison.cluster,
        "verdict": comparison.verdict.value,
        "allowed": comparison.allowed,
        "jobs": comparison.jobs,
        "steps": list(comparison.steps),
        "changes": [
            {
                "effect": change.verdict.value,
                "parameter": change.path,
                "old": change.old,
                "new": change.new,
                "policy": change.policy,
                "allowed": change.allowed,
                "first": list(change.needs),
                "reason": change.reason,
                "note": change.note,
            }
            for change in comparison.changes
        ],
    }
