"""Judge clusters: ParallelCluster's schema and validators, and the site's own rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from clusterbox.clusters.advice import advise
from clusterbox.clusters.composed import ComposedCluster
from clusterbox.clusters.facts import account_facts
from clusterbox.clusters.findings import Accepted, Finding, Level, NotChecked, Validation
from clusterbox.clusters.older_schemas import explain_removed
from clusterbox.clusters.process import ask_library
from clusterbox.clusters.rules import find_rule_findings
from clusterbox.pcluster import Pcluster
from clusterbox.site.yaml_file import render_path, value_at

_LEVELS = list(Level)
# A native configuration does not say what its cluster is called.
_NAME_OF_NOBODY = "cluster"
_REFERENCE_IN_NATIVE = (
    "Only an environment resolves references: validate the cluster by its name instead of this file,"
    " or the output of `clusterbox clusters compose NAME`."
)
_NAME_UNKNOWN = ("ClusterNameValidator", "the name of the cluster, which is given when it is made")


def validate_clusters(
    pcluster: Pcluster,
    clusters: Mapping[str, ComposedCluster],
    note: Callable[[str], None] = lambda _: None,
) -> dict[str, Validation]:
    """Return the judgement of each cluster, by the keys of `clusters`.

    One process of ParallelCluster's environment judges them all, without AWS; `note` is told each
    cluster when the library is done with it. Raises PclusterError when the process fails.
    """
    requests = {
        key: {
            "name": cluster.name if cluster.environment is not None else _NAME_OF_NOBODY,
            "configuration": _as_delivered(cluster),
            "facts": account_facts(cluster),
        }
        for key, cluster in clusters.items()
    }
    answers = ask_library(pcluster, "validate", requests, note) if requests else {}
    return {key: _judge(key, cluster, answers[key]) for key, cluster in clusters.items()}


def _as_delivered(cluster: ComposedCluster) -> Any:
    """Return the configuration as it reaches ParallelCluster.

    That of a site is a property of a stack, and CloudFormation delivers numbers and truth values as
    texts. A native one comes from YAML as it is.
    """
    if cluster.environment is not None:
        return _as_texts(cluster.configuration)
    return cluster.configuration


def _as_texts(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {str(key): _as_texts(value) for key, value in data.items() if value is not None}
    if isinstance(data, list | tuple):
        return [_as_texts(item) for item in data]
    return str(data).lower() if isinstance(data, bool) else str(data)


def _judge(key: str, cluster: ComposedCluster, answer: Mapping[str, Any]) -> Validation:
    found = [_finding(key, cluster, item) for item in answer["findings"]]
    found += [replace(finding, cluster=key) for finding in find_rule_findings(cluster)]
    found, accepted = _part_accepted(key, cluster, list(dict.fromkeys(found)))
    unchecked = {(rule, reason) for rule, reason in answer["not_checked"]}
    if cluster.environment is None:
        unchecked.add(_NAME_UNKNOWN)
    return Validation(
        cluster=key,
        findings=tuple(sorted(found, key=_order)),
        not_checked=tuple(NotChecked(key, *item) for item in sorted(unchecked)),
        accepted=tuple(sorted(accepted, key=lambda item: _order(item.finding))),
    )


def _part_accepted(
    key: str, cluster: ComposedCluster, found: Sequence[Finding]
) -> tuple[list[Finding], list[Accepted]]:
    """Return what was found, and apart from it what the environment accepts for the cluster.

    An entry that accepts nothing any more is a finding itself, so that it does not hide what comes.
    """
    environment = cluster.environment
    entries = environment.clusters if environment is not None else ()
    reasons = {
        rule: reason
        for entry in entries
        if entry.name == cluster.name
        for rule, reason in entry.accepted_findings.items()
    }
    accepted = [
        Accepted(item, reasons[item.rule])
        for item in found
        if item.rule in reasons and item.level is not Level.ERROR
    ]
    taken = {item.finding for item in accepted}
    kept = [item for item in found if item not in taken]
    for rule in sorted(set(reasons) - {item.finding.rule for item in accepted}):
        kept.append(
            Finding(
                cluster=key,
                level=Level.INFO,
                rule="NothingToAccept",
                path=f"accepted_findings.{rule}",
                file=f"environments/{environment.name}.yaml" if environment else "",
                line=None,
                message=f"{rule} is accepted for {cluster.name}, and finds no hint or warning there.",
                advice="Remove the entry, so that it does not hide what comes.",
            )
        )
    return kept, accepted


def _finding(key: str, cluster: ComposedCluster, item: Mapping[str, Any]) -> Finding:
    location = tuple(item["location"])
    rule, message = item["rule"], item["message"]
    advice = None
    if rule == "Schema":
        advice = explain_removed(render_path(location), message, cluster.configuration)
        if cluster.environment is None and "${" in str(value_at(cluster.configuration, location)):
            advice = _REFERENCE_IN_NATIVE
    return Finding(
        cluster=key,
        level=Level(item["level"]),
        rule=rule,
        path=render_path(location),
        file=cluster.file.name,
        line=cluster.line_of(location),
        message=" ".join(message.split()),
        advice=advice or advise(rule, message),
    )


def _order(finding: Finding) -> tuple[int, int, str, str]:
    return (_LEVELS.index(finding.level), finding.line or 0, finding.path, finding.rule)
