"""What a change leads to, worst first: the one line that a reviewer reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from clusterbox.clusters.compare import Verdict
from clusterbox.clusters.findings import Level
from clusterbox.review.markup import plural
from clusterbox.review.review import ClusterReview, EnvironmentReview, Review
from clusterbox.review.stacks import Impact


class Severity(IntEnum):
    """How bad a consequence is; the numbers only order them."""

    NONE = 0
    LIVE = 1
    UPDATE = 2
    DRAIN = 3
    REPLACE = 4
    STOP = 5
    REPLACE_CLUSTER = 6
    WIDENING = 7
    REFUSED = 8
    DATA = 9
    BROKEN = 10


@dataclass(frozen=True)
class Consequence:
    """One consequence in a sentence of plain text."""

    severity: Severity
    sentence: str


def find_consequences(review: Review) -> list[Consequence]:
    """Return what the change leads to, worst first; one that says so when there is nothing."""
    found = [item for environment in review.environments for item in _of(environment)]
    found.sort(key=lambda item: -item.severity)
    return found or [Consequence(Severity.NONE, "Nothing changes in AWS.")]


def _of(review: EnvironmentReview) -> Iterator[Consequence]:
    name = review.name
    if review.problem is not None:
        yield Consequence(Severity.BROKEN, f"{name} cannot be deployed: its files have problems.")
        return
    if review.change == "removed":
        yield Consequence(
            Severity.REPLACE_CLUSTER,
            f"{name} is removed from the repository; what it deployed goes on running and costing "
            f"until `clusterbox destroy {name}`, which needs its file.",
        )
    elif review.change == "added":
        yield Consequence(
            Severity.UPDATE, f"{name} is new: {plural(len(review.stacks), 'stack')} to deploy."
        )
    if review.change == "changed":
        yield from _of_stacks(review)
    wider = sum(item.kind == "widening" for item in review.security)
    if wider and review.change == "changed":
        yield Consequence(
            Severity.WIDENING, f"{name}: {plural(wider, 'permission or protection')} becomes wider."
        )
    for cluster in review.clusters:
        yield from _of_cluster(name, cluster)


def _of_stacks(review: EnvironmentReview) -> Iterator[Consequence]:
    for stack in review.stacks:
        for resource in stack.losses:
            what = {
                Impact.DESTROY: "is deleted with its data",
                Impact.REPLACE: "is REPLACED: a new, empty one takes its place",
                Impact.MAY_REPLACE: "may be replaced by a new, empty one",
                Impact.ORPHAN: "is given up: it stays in the account and nothing manages it",
            }[resource.impact]
            yield Consequence(Severity.DATA, f"{resource.type} {resource.path} {what}.")
        replaced = stack.count(Impact.REPLACE, Impact.MAY_REPLACE)
        if replaced:
            yield Consequence(
                Severity.REPLACE,
                f"{stack.stack}: {plural(replaced, 'resource')} replaced or may be.",
            )
    if review.stacks:
        yield Consequence(
            Severity.UPDATE, f"{review.name}: {plural(len(review.stacks), 'stack')} changed."
        )


_SEVERITIES = {
    Verdict.ADDED: Severity.LIVE,
    Verdict.LIVE: Severity.LIVE,
    Verdict.STOPS_LOGIN: Severity.DRAIN,
    Verdict.DRAINS: Severity.DRAIN,
    Verdict.TERMINATES: Severity.STOP,
    Verdict.STOPS: Severity.STOP,
    Verdict.REPLACES: Severity.REPLACE_CLUSTER,
    Verdict.REMOVED: Severity.REPLACE_CLUSTER,
    Verdict.UNKNOWN: Severity.REFUSED,
}


def _of_cluster(environment: str, review: ClusterReview) -> Iterator[Consequence]:
    refused = sum(item.level is Level.ERROR for item in review.new_findings)
    if refused:
        yield Consequence(
            Severity.REFUSED,
            f"ParallelCluster or the site's rules would refuse {review.name}: "
            f"{plural(refused, 'new finding')} of level ERROR.",
        )
    comparison = review.comparison
    if review.versions is not None:
        older, newer = review.versions
        yield Consequence(
            Severity.REPLACE_CLUSTER,
            f"Cluster {review.name} has to be replaced: ParallelCluster {older} becomes {newer}, "
            "and a cluster cannot be updated to another version.",
        )
    elif comparison.verdict in _SEVERITIES:
        yield Consequence(
            _SEVERITIES[comparison.verdict],
            f"Cluster {review.name} ({environment}): {comparison.verdict.value}. {comparison.jobs}",
        )
