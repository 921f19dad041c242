"""`clusterbox clusters validate`."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import clusterbox
from clusterbox.cli.tables import FORMATS, render_table
from clusterbox.errors import InputError, ProblemsError

if TYPE_CHECKING:
    from clusterbox.clusters.composed import ComposedCluster
    from clusterbox.clusters.findings import Accepted, Finding, NotChecked, Validation

COLUMNS = ("cluster", "level", "where", "path", "rule", "message", "what to do")
_LEVELS = ("ERROR", "WARNING", "INFO")
# The first ones of a list say what it is about.
_SHOWN_RULES = 4


def add_action(actions: argparse._SubParsersAction[Any]) -> None:
    """Add the action and its arguments."""
    parser = actions.add_parser(
        "validate",
        help="judge configurations by ParallelCluster's schema, its validators and the site's rules",
        description="Judge configurations by ParallelCluster's schema and all its validators, and"
        " by the site's own rules, without AWS. What only AWS could answer is listed as not"
        " checked.",
        epilog="examples: clusterbox clusters validate ws-eco\n"
        "          clusterbox clusters validate --file cluster.yaml --format sarif\n"
        "exit code: 0 without a finding of level ERROR, 1 with one, 2 for bad input",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="cluster (default: all)")
    parser.add_argument(
        "--file",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="native ParallelCluster configuration; works outside of a repository too",
    )
    parser.add_argument("--format", choices=(*FORMATS, "sarif", "github"), default="table")
    parser.add_argument(
        "--level",
        choices=[level.lower() for level in _LEVELS],
        default="info",
        help="least level that is shown (default: info)",
    )
    parser.set_defaults(run=_validate, needs_root=False)


def _validate(options: argparse.Namespace, root: Path | None) -> int:
    from clusterbox.cli.steps import ShownProgress
    from clusterbox.clusters.validate import validate_clusters
    from clusterbox.deployment.progress import Progress
    from clusterbox.pcluster import Pcluster

    clusters = _read_clusters(options, root)
    installed = root or Path(clusterbox.__file__).parents[1]
    # A pipe stays quiet: the work takes seconds.
    progress = ShownProgress() if sys.stderr.isatty() else Progress()
    with progress.step("validate"):
        validations = validate_clusters(
            Pcluster(installed / ".venv-pcluster", os.environ), clusters, progress.note
        )
    sys.stdout.write(_render(validations, options.format, options.level))
    return 1 if any(validation.failed for validation in validations.values()) else 0


def _read_clusters(options: argparse.Namespace, root: Path | None) -> Mapping[str, ComposedCluster]:
    """Return the clusters: those of the repository by name, native files by their file's name."""
    from clusterbox.cli.main import find_root
    from clusterbox.clusters.composed import compose_repository, read_native

    clusters: dict[str, ComposedCluster] = {}
    problems = []
    for path in options.file:
        try:
            cluster = read_native(path)
            clusters[str(path) if cluster.name in clusters else cluster.name] = cluster
        except ProblemsError as error:
            problems += error.problems
    if problems:
        raise ProblemsError(problems)
    if options.names or not options.file:
        known = compose_repository(root or find_root(options.root), options.names)
        for name, cluster in known.items():
            if name in clusters:
                clusters[clusters[name].file.name] = clusters.pop(name)
            clusters[name] = cluster
    if not clusters:
        raise InputError("there is no cluster to validate; name a file with --file")
    return clusters


def _render(validations: Mapping[str, Validation], form: str, level: str) -> str:
    from clusterbox.clusters import formats

    levels = _LEVELS[: _LEVELS.index(level.upper()) + 1]
    findings = [
        finding
        for validation in validations.values()
        for finding in validation.findings
        if finding.level in levels
    ]
    not_checked = [item for validation in validations.values() for item in validation.not_checked]
    accepted = [item for validation in validations.values() for item in validation.accepted]
    if form == "json":
        return formats.render_json(findings, not_checked, accepted) + "\n"
    if form == "sarif":
        return formats.render_sarif(findings, not_checked, accepted) + "\n"
    if form == "github":
        text = formats.render_github(findings)
        return text + "\n" if text else ""
    if form == "csv":
        return render_table(COLUMNS, [_row(finding) for finding in findings], "csv") + "\n"
    parts = [
        _render_findings(findings, form),
        _render_accepted(accepted, form),
        _render_not_checked(not_checked, len(validations), form),
        _summary(validations),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _row(finding: Finding) -> list[object]:
    where = finding.file if finding.line is None else f"{finding.file}:{finding.line}"
    return [
        finding.cluster,
        finding.level.value,
        where,
        finding.path,
        finding.rule,
        finding.message,
        finding.advice,
    ]


def _render_findings(findings: Iterable[Finding], form: str) -> str:
    """Return the findings: a block of lines each for people, because messages are long."""
    import textwrap

    rows = [_row(finding) for finding in findings]
    if form == "markdown":
        return render_table(COLUMNS, rows, form) if rows else ""
    width = shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else 100
    blocks = []
    for cluster, level, where, path, rule, message, advice in rows:
        lines = [f"{level:<8}{cluster}  {where}  {path}  ({rule})"]
        for text in (message, advice and f"→ {advice}"):
            if text:
                lines += textwrap.wrap(
                    str(text), width, initial_indent=" " * 8, subsequent_indent=" " * 8
                )
        blocks.append("\n".join(lines))
    return "\n".join(blocks)


def _render_accepted(items: Iterable[Accepted], form: str) -> str:
    rows = [[item.finding.rule, item.finding.cluster, item.reason] for item in items]
    if not rows:
        return ""
    if form == "markdown":
        return render_table(("accepted", "cluster", "because"), rows, form)
    lines = [f"  {rule} of {cluster}: {reason}" for rule, cluster, reason in rows]
    return "Accepted by the environment:\n" + "\n".join(lines)


def _render_not_checked(items: Iterable[NotChecked], of: int, form: str) -> str:
    """Return what was not checked, one line a reason with the rules and clusters it holds for."""
    grouped: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for item in items:
        rules, clusters = grouped.setdefault(item.reason, ({}, {}))
        rules.setdefault(item.rule)
        clusters.setdefault(item.cluster)
    if not grouped:
        return ""
    rows = [
        [reason, _shorten(rules), "all" if len(clusters) == of else _shorten(clusters)]
        for reason, (rules, clusters) in sorted(grouped.items())
    ]
    if form == "markdown":
        return render_table(("not checked", "rules", "clusters"), rows, form)
    lines = [
        f"  {reason} ({rules}" + (")" if clusters == "all" else f"; {clusters})")
        for reason, rules, clusters in rows
    ]
    return "Not checked, because no AWS account was asked:\n" + "\n".join(lines)


def _shorten(names: Iterable[str]) -> str:
    known = list(names)
    more = len(known) - _SHOWN_RULES
    shown = ", ".join(known[:_SHOWN_RULES])
    return f"{shown} and {more} more" if more > 0 else shown


def _summary(validations: Mapping[str, Validation]) -> str:
    counts = {
        level: sum(
            finding.level == level
            for validation in validations.values()
            for finding in validation.findings
        )
        for level in _LEVELS
    }
    nouns = {"ERROR": "error", "WARNING": "warning", "INFO": "hint"}
    found = ", ".join(
        f"{count} {nouns[level]}{'' if count == 1 else 's'}" for level, count in counts.items()
    )
    unchecked = len(
        {
            (item.rule, item.reason)
            for validation in validations.values()
            for item in validation.not_checked
        }
    )
    clusters = len(validations)
    noun = "cluster" if clusters == 1 else "clusters"
    return f"{clusters} {noun}: {found}; {unchecked} checks that only AWS could answer"
