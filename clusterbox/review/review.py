"""The judgement of a change: every environment's stacks, security, clusters, cost, addresses."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from clusterbox.clusters.compare import Comparison, compare_clusters
from clusterbox.clusters.composed import ComposedCluster
from clusterbox.clusters.facts import account_facts
from clusterbox.clusters.findings import Finding, Validation
from clusterbox.clusters.validate import validate_clusters
from clusterbox.costs.estimate import Difference, Estimate, difference, estimate_environment
from clusterbox.costs.prices import load_prices
from clusterbox.deployment.cdk import node
from clusterbox.deployment.progress import Progress
from clusterbox.errors import InputError
from clusterbox.pcluster import Pcluster
from clusterbox.review.changes import SecurityChange, sort_changes
from clusterbox.review.exports import ExportInUse, find_exports_in_use
from clusterbox.review.inventory_changes import (
    AddressChange,
    ImageChange,
    compare_addresses,
    compare_images,
)
from clusterbox.review.redaction import find_secrets, hide_secrets
from clusterbox.review.revisions import Cache, Revision, find_revisions
from clusterbox.review.security import security_changes, termination_protection_changes
from clusterbox.review.snapshot import EnvironmentFiles, Snapshot, list_environments, take_snapshot
from clusterbox.review.stacks import StackDiff, compare_stacks

Item = TypeVar("Item")
Result = TypeVar("Result")

_LOCKS = ("requirements.txt", "requirements-pcluster.txt", "package-lock.json")
# The provider's template names the version of ParallelCluster that it deploys.
_PROVIDER_VERSION = re.compile(r"/parallelcluster/(\d+\.\d+\.\d+)/templates/custom_resource/")


@dataclass(frozen=True)
class FleetState:
    """What a review assumes of the clusters, which it cannot see."""

    compute_running: bool = True
    login_running: bool = True


@dataclass(frozen=True)
class ClusterReview:
    """What a change does to one cluster. `versions` are ParallelCluster's where they differ."""

    name: str
    comparison: Comparison
    new_findings: tuple[Finding, ...]
    solved_findings: tuple[Finding, ...]
    validation: Validation | None
    versions: tuple[str, str] | None = None


@dataclass(frozen=True)
class EnvironmentReview:
    """What a change does to one environment.

    `change` is `added`, `removed`, `changed`, or `moved` when it goes to another account or region,
    where nothing of it is yet; `moved_from` says whence. `problem` says why the head cannot be
    judged, and `base_problem` why there is nothing to compare it with.
    """

    name: str
    change: str
    account: str
    region: str
    stacks: tuple[StackDiff, ...] = ()
    security: tuple[SecurityChange, ...] = ()
    clusters: tuple[ClusterReview, ...] = ()
    cost: Difference | None = None
    addresses: tuple[AddressChange, ...] = ()
    images: tuple[ImageChange, ...] = ()
    problem: str | None = None
    base_problem: str | None = None
    moved_from: str | None = None
    exports_in_use: tuple[ExportInUse, ...] = ()


@dataclass(frozen=True)
class Review:
    """The judgement of a change between two revisions of a repository."""

    base: str | None
    head: str
    environments: tuple[EnvironmentReview, ...]
    unchanged: tuple[str, ...]
    fleet: FleetState
    notes: tuple[str, ...] = ()


def review_change(
    root: Path,
    base: str,
    head: str | None,
    *,
    cache: Cache,
    fleet: FleetState,
    progress: Progress,
    only: Sequence[str] = (),
) -> Review:
    """Judge the change from where `head` left `base` to `head`, or to the working tree.

    `only` names environments; without it all are judged. An environment that cannot be read or
    synthesized is part of the result, with its problem. Raises InputError for refs and names that
    do not exist, and ClusterboxError when a tool fails.
    """
    older, newer = find_revisions(root, base, head, cache)
    before = list_environments(older, root) if older else {}
    after = list_environments(newer, root)
    _require_known(only, {**after, **before})
    names = [name for name in sorted({**before, **after}) if not only or name in only]
    changed = [
        name
        for name in names
        if name not in before or name not in after or before[name].digest != after[name].digest
    ]
    pairs: dict[str, tuple[Snapshot | None, Snapshot | None]] = {}
    with progress.step("synth"):
        wanted = [(side, name) for name in changed for side in (before, after) if name in side]
        taken = _in_parallel(lambda item: take_snapshot(item[0][item[1]], cache, root), wanted)
        found = {
            (id(side), name): result for (side, name), result in zip(wanted, taken, strict=True)
        }
        for name in changed:
            pairs[name] = found.get((id(before), name)), found.get((id(after), name))
    with progress.step("clusters"):
        judged = _review_clusters(root, pairs, fleet, progress.note)
    with progress.step("stacks"):
        environments = tuple(
            _review_environment(root, name, *pair, judged.get(name, ()))
            for name, pair in pairs.items()
        )
    sides = [snapshot for pair in pairs.values() for snapshot in pair if snapshot is not None]
    secrets = find_secrets(itertools.chain.from_iterable(map(_documents, sides)))
    review = Review(
        older.title if older else None,
        newer.title,
        tuple(item for item in environments if not _is_empty(item)),
        tuple(
            name
            for name in names
            if name not in changed or any(e.name == name and _is_empty(e) for e in environments)
        ),
        fleet,
        tuple(_find_notes(older, newer)),
    )
    return hide_secrets(review, secrets)


def _documents(snapshot: Snapshot) -> Iterator[Any]:
    """Yield all data of a snapshot that a change may bring a secret into."""
    if snapshot.environment is not None:
        yield snapshot.environment.model_dump(mode="json")
    for cluster in snapshot.clusters:
        yield cluster.file.data
        yield cluster.configuration
    yield from snapshot.templates.values()


def _find_notes(older: Revision | None, newer: Revision) -> Iterator[str]:
    """Yield what a reader should know of how both sides were judged."""
    if older is None:
        yield "There is no base: both sides share no commit, so everything counts as new."
        return
    locks = [name for name in _LOCKS if _read(older.folder / name) != _read(newer.folder / name)]
    if locks:
        yield (
            f"Libraries change ({', '.join(locks)}). Both sides were judged with the installed ones, "
            "so what the change of libraries itself does to the templates is not shown."
        )


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _review_environment(
    root: Path,
    name: str,
    base: Snapshot | None,
    head: Snapshot | None,
    clusters: Sequence[ClusterReview],
) -> EnvironmentReview:
    newest = head if head is not None and head.environment is not None else base
    environment = newest.environment if newest else None
    account, region = (environment.account, environment.region) if environment else ("", "")
    change = "added" if base is None else "removed" if head is None else "changed"
    if head is not None and head.problem is not None:
        return EnvironmentReview(name, change, account, region, problem=head.problem)
    base_problem = base.problem if base else None
    readable = None if base_problem else base
    moved_from = _moved_from(readable, head)
    # In another account or region there is nothing that could be changed: all of it is new.
    there = None if moved_from else readable
    change = "moved" if moved_from else change
    stacks = compare_stacks(there, head, node(root))
    return EnvironmentReview(
        name,
        change,
        account,
        region,
        stacks,
        _compare_security(there, head),
        tuple(clusters),
        _compare_costs(root, readable, head),
        compare_addresses(readable, head),
        compare_images(readable, head),
        base_problem=base_problem,
        moved_from=moved_from,
        exports_in_use=find_exports_in_use(
            there.templates if there else {}, head.templates if head else {}, stacks
        ),
    )


def _moved_from(base: Snapshot | None, head: Snapshot | None) -> str | None:
    """Return account and region that an environment leaves, or None when it stays where it is."""
    older = base.environment if base else None
    newer = head.environment if head else None
    if older is None or newer is None:
        return None
    place = older.account, older.region
    return None if place == (newer.account, newer.region) else " in ".join(place)


def _review_clusters(
    root: Path,
    pairs: Mapping[str, tuple[Snapshot | None, Snapshot | None]],
    fleet: FleetState,
    note: Callable[[str], None],
) -> dict[str, list[ClusterReview]]:
    """Return the judged clusters of each environment: those that differ in what they are made of."""
    sides: dict[str, tuple[ComposedCluster | None, ComposedCluster | None]] = {}
    environments: dict[str, str] = {}
    for name, (base, head) in pairs.items():
        if head is not None and head.problem is not None:
            continue
        before = {cluster.name: cluster for cluster in base.clusters} if base else {}
        after = {cluster.name: cluster for cluster in head.clusters} if head else {}
        for cluster in {**after, **before}:
            pair = before.get(cluster), after.get(cluster)
            if _differ(*pair) or _versions(base, head, name, cluster):
                key = f"{name}/{cluster}"
                sides[key] = pair
                environments[key] = name
    if not sides:
        return {}
    pcluster = Pcluster(root / ".venv-pcluster", os.environ)
    to_validate = {
        f"{key}@{side}": cluster
        for key, pair in sides.items()
        for side, cluster in zip(("base", "head"), pair, strict=True)
        if cluster is not None
    }
    comparing = {
        key: tuple(side.configuration if side else None for side in pair)
        for key, pair in sides.items()
    }
    with ThreadPoolExecutor(2) as pool:
        compared = pool.submit(
            compare_clusters,
            pcluster,
            {key: (pair[0], pair[1]) for key, pair in comparing.items()},
            fleet_running=fleet.compute_running,
            login_running=fleet.login_running,
        )
        validated = pool.submit(validate_clusters, pcluster, to_validate, note)
        comparisons, validations = compared.result(), validated.result()
    result: dict[str, list[ClusterReview]] = {}
    for key, name in environments.items():
        cluster = key.removeprefix(f"{name}/")
        base, head = pairs[name]
        older = _renamed(validations.get(f"{key}@base"), cluster)
        newer = _renamed(validations.get(f"{key}@head"), cluster)
        result.setdefault(name, []).append(
            ClusterReview(
                cluster,
                comparisons[key],
                _minus(newer, older),
                _minus(older, newer),
                newer,
                _versions(base, head, name, cluster),
            )
        )
    return result


def _renamed(validation: Validation | None, cluster: str) -> Validation | None:
    """Return a validation, which was asked for under a key, under the name of its cluster."""
    if validation is None:
        return None
    return Validation(
        cluster,
        tuple(replace(item, cluster=cluster) for item in validation.findings),
        tuple(replace(item, cluster=cluster) for item in validation.not_checked),
    )


def _differ(base: ComposedCluster | None, head: ComposedCluster | None) -> bool:
    """Return whether a cluster's configuration, or what its validators see, is another."""
    if base is None or head is None:
        return True
    return base.configuration != head.configuration or account_facts(base) != account_facts(head)


def _minus(some: Validation | None, others: Validation | None) -> tuple[Finding, ...]:
    """Return the findings of some that others do not have; the line and the name do not count."""
    known = {(item.rule, item.path, item.message) for item in others.findings} if others else set()
    found = some.findings if some else ()
    return tuple(item for item in found if (item.rule, item.path, item.message) not in known)


def _versions(
    base: Snapshot | None, head: Snapshot | None, environment: str, cluster: str
) -> tuple[str, str] | None:
    """Return ParallelCluster's versions of a cluster before and after, where they differ."""
    stack = f"{environment}-cluster-{cluster}"
    found = []
    for snapshot in (base, head):
        template = snapshot.templates.get(stack) if snapshot else None
        match = _PROVIDER_VERSION.search(str(template)) if template else None
        if match is None:
            return None
        found.append(match[1])
    return None if found[0] == found[1] else (found[0], found[1])


def _compare_security(base: Snapshot | None, head: Snapshot | None) -> tuple[SecurityChange, ...]:
    newest = head or base
    environment = newest.environment if newest else None
    protected = [
        {stack: stack in snapshot.protected for stack in snapshot.templates} if snapshot else {}
        for snapshot in (base, head)
    ]
    return tuple(
        sort_changes(
            [
                *security_changes(
                    base.templates if base else {},
                    head.templates if head else {},
                    environment.boundary_arn if environment else None,
                ),
                *termination_protection_changes(*protected),
            ]
        )
    )


def _compare_costs(root: Path, base: Snapshot | None, head: Snapshot | None) -> Difference | None:
    def estimate(snapshot: Snapshot | None) -> Estimate | None:
        if snapshot is None or snapshot.environment is None:
            return None
        environment = snapshot.environment
        prices = load_prices(environment.region, root=root)
        return estimate_environment(environment, snapshot.clusters, prices)

    older, newer = estimate(base), estimate(head)
    return None if older is None and newer is None else difference(older, newer)


def _is_empty(review: EnvironmentReview) -> bool:
    return not (
        review.stacks
        or review.clusters
        or review.images
        or review.addresses
        # Termination protection is in no template.
        or review.security
        or review.problem
        or review.base_problem
    )


def _require_known(only: Sequence[str], known: Mapping[str, EnvironmentFiles]) -> None:
    unknown = [name for name in only if name not in known]
    if unknown:
        raise InputError(
            f"there is no environment {', '.join(unknown)} on either side; known: "
            f"{', '.join(sorted(known)) or 'none yet'}"
        )


def _in_parallel(call: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Return the results of calls that mostly wait for processes, as many as there are cores."""
    with ThreadPoolExecutor(max(2, os.cpu_count() or 2)) as pool:
        return list(pool.map(call, items))
