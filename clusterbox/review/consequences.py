"""What a change leads to, worst first: the one line that a reviewer reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from clusterbox.clusters.compare import Verdict
from clusterbox.clusters.findings import Level
from clusterbox.review.changes import Grade
from clusterbox.review.markup import plural
from clusterbox.review.review import ClusterReview, EnvironmentReview, Review
from clusterbox.review.stacks import Impact, StackChange

_HEAD_CHARACTERS = 160


class Severity(IntEnum):
    """How bad a consequence is; the numbers only order them."""

    NONE = 0
    LIVE = 1
    UPDATE = 2
    DRAIN = 3
    REPLACE = 4
    GRANT = 5
    STOP = 6
    REPLACE_CLUSTER = 7
    WIDENING = 8
    REFUSED = 9
    DATA = 10
    BROKEN = 11


@dataclass(frozen=True)
class Consequence:
    """One consequence in a sentence of plain text."""

    severity: Severity
    sentence: str


def find_consequences(review: Review) -> list[Consequence]:
    """Return what the change leads to, worst first; one that says so when there is nothing."""
    found = [item for environment in review.environments for item in _of(environment)]
    found.sort(key=lambda item: -item.severity)  # stable: within one, as `_of` orders them
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
    elif review.change == "moved":
        yield Consequence(
            Severity.DATA,
            f"{name} moves from {review.moved_from} to {review.account} in {review.region}: everything "
            "is made anew there, and empty. What stands in the old place goes on running and costing, "
            "and nothing manages it any more.",
        )
    else:
        yield from _of_stacks(review)
    for item in review.exports_in_use:
        yield Consequence(
            Severity.REFUSED,
            f"CloudFormation would refuse to update {item.stack}: {', '.join(item.importers)} import "
            f"what it replaces or removes ({', '.join(item.resources)}).",
        )
    yield from _of_security(review)
    for cluster in review.clusters:
        yield from _of_cluster(name, cluster)


def _of_security(review: EnvironmentReview) -> Iterator[Consequence]:
    """Yield the heaviest widening in its own words, and how many there are.

    Where all of them are single grants without a `*` or a new principal, such as that to launch the
    next image, what happens to jobs is worse, and so it is with the grants of a new stack, such as that
    of a new cluster. What is made for the first time in its place widens nothing, but for what is
    alarming anywhere.
    """
    wider = [item for item in review.security if item.kind == "widening"]
    if review.change != "changed":
        wider = [item for item in wider if item.grade is Grade.ALARM]
    added = {stack.stack for stack in review.stacks if stack.change is StackChange.ADDED}
    new = [item for item in wider if item.stack in added and item.grade is not Grade.ALARM]
    wider = [item for item in wider if item not in new]
    if new:
        yield Consequence(
            Severity.GRANT,
            f"{review.name}: {plural(len(new), 'grant')} of new stacks "
            f"({', '.join(sorted({item.stack for item in new}))}).",
        )
    if wider:
        heaviest = min(wider, key=lambda item: item.grade)
        more = len(wider) - 1
        others = (
            f"; and {plural(more, 'other widening')} of permissions or protections" if more else ""
        )
        severity = Severity.WIDENING if heaviest.grade <= Grade.PRINCIPAL else Severity.GRANT
        yield Consequence(severity, f"{review.name}: {_head(heaviest.sentence)}{others}.")


def _head(sentence: str) -> str:
    """Return what a sentence says now, short enough for a first line; the whole stands below."""
    now = sentence.partition(" (before:")[0]
    return now if len(now) <= _HEAD_CHARACTERS else now[:_HEAD_CHARACTERS].rsplit(" ", 1)[0] + " …"


def _of_stacks(review: EnvironmentReview) -> Iterator[Consequence]:
    worst = (Impact.DESTROY, Impact.REPLACE, Impact.MAY_REPLACE, Impact.ORPHAN)
    for stack in review.stacks:
        for resource in sorted(stack.losses, key=lambda item: worst.index(item.impact)):
            what = {
                Impact.DESTROY: "is deleted with its data",
                Impact.REPLACE: "is REPLACED: a new, empty one takes its place",
                Impact.MAY_REPLACE: "may be replaced by a new, empty one",
                Impact.ORPHAN: "is given up: it stays in the account and nothing manages it",
            }[resource.impact]
            yield Consequence(
                Severity.DATA, f"{stack.stack}: {resource.type} {resource.path} {what}."
            )
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
