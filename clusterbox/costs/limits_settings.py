"""The part of the limits that stands in a cluster's configuration: what is missing or differs there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from clusterbox.clusters.composed import ComposedCluster
from clusterbox.costs.limits import LimitPlan
from clusterbox.costs.limits_apply import is_setting
from clusterbox.costs.native import mapping, mappings
from clusterbox.site.yaml_file import Location, render_path, value_at

_SLURM = ("Scheduling", "SlurmSettings")
_CUSTOM = (*_SLURM, "CustomSlurmSettings")
_QUEUES = ("Scheduling", "SlurmQueues")
WEIGHTS = "TRESBillingWeights"


@dataclass(frozen=True)
class Difference:
    """A setting of the configuration that is not as the limits need it.

    `found` is None where it is missing; `line` is then that of the section it belongs in.
    """

    path: str
    line: int | None
    found: str | None
    must: str


def compare_settings(cluster: ComposedCluster, plan: LimitPlan) -> list[Difference]:
    """Return what has to change in a cluster's configuration; [] when the limits can hold."""
    differences = [*_database(cluster), *_include_file(cluster)]
    given = _custom(value_at(cluster.configuration, _CUSTOM))
    for key, must in plan.settings.items():
        location, found = given.get(key.lower(), ((), None))
        if found is None or not is_setting(key, found, must):
            path = (*_CUSTOM, *location) if location else (*_CUSTOM, key)
            differences.append(_difference(cluster, path, found, _stricter(key, found, must)))
    weights = {partition.name: partition.setting for partition in plan.partitions}
    for index, queue in enumerate(mappings(value_at(cluster.configuration, _QUEUES))):
        if (must_be := weights.get(str(queue.get("Name")))) is None:
            continue
        settings = mapping(queue.get("CustomSlurmSettings"))
        key = next((key for key in settings if str(key).lower() == WEIGHTS.lower()), WEIGHTS)
        found = None if key not in settings else str(settings[key])
        if found is None or not is_setting(WEIGHTS, found, must_be):
            path = (*_QUEUES, index, "CustomSlurmSettings", key)
            differences.append(_difference(cluster, path, found, must_be))
    return differences


def fragment(plan: LimitPlan) -> dict[str, Any]:
    """Return the part of a ParallelCluster configuration that the limits need, without a database."""
    return {
        "Scheduling": {
            "SlurmSettings": {
                "CustomSlurmSettings": [{key: value} for key, value in plan.settings.items()]
            },
            "SlurmQueues": [
                {"Name": partition.name, "CustomSlurmSettings": {WEIGHTS: partition.setting}}
                for partition in plan.partitions
            ],
        }
    }


def _database(cluster: ComposedCluster) -> Iterator[Difference]:
    settings = mapping(value_at(cluster.configuration, _SLURM))
    if not settings.get("Database") and not settings.get("ExternalSlurmdbd"):
        must = "a database for Slurm's accounting (or ExternalSlurmdbd)"
        yield _difference(cluster, (*_SLURM, "Database"), None, must)


def _include_file(cluster: ComposedCluster) -> Iterator[Difference]:
    path = (*_SLURM, "CustomSlurmSettingsIncludeFile")
    if (found := value_at(cluster.configuration, path)) is not None:
        must = "CustomSlurmSettings: what is in a file elsewhere cannot be checked"
        yield _difference(cluster, path, str(found), must)


def _custom(settings: Any) -> dict[str, tuple[Location, str]]:
    """Return each cluster-wide parameter with its place in the list; the last of a name counts."""
    return {
        str(key).lower(): ((index, str(key)), str(value))
        for index, one in enumerate(settings if isinstance(settings, list) else ())
        if isinstance(one, Mapping)
        for key, value in one.items()
    }


def _stricter(key: str, found: str | None, must: str) -> str:
    """Return the value to write: a list keeps what it has."""
    if key not in ("PriorityFlags", "AccountingStorageTRES") or not found:
        return must
    return ",".join(dict.fromkeys([*found.split(","), *must.split(",")]))


def _difference(
    cluster: ComposedCluster, location: Location, found: str | None, must: str
) -> Difference:
    return Difference(render_path(location), cluster.line_of(location), found, must)
