"""Find what CloudFormation refuses because other stacks still use it.

It changes or deletes no exported value while a stack imports it (CloudFormation user guide, "Get
exported outputs from a deployed CloudFormation stack"). Stacks are deployed before those that depend on
them, so what imports a value before the change still does when its exporter is deployed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clusterbox.review.stacks import Impact, StackDiff

Templates = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class ExportInUse:
    """Exported values that a stack changes or no longer has, and the stacks that import them.

    `resources` are the construct paths, or logical ids, of what the values belong to.
    """

    stack: str
    resources: tuple[str, ...]
    importers: tuple[str, ...]


def find_exports_in_use(
    before: Templates, after: Templates, stacks: Sequence[StackDiff]
) -> tuple[ExportInUse, ...]:
    """Return, by stack, the exports that a deployment cannot change because others import them.

    Stacks that are removed do not count as importers: to be destroyed first is what is said of them.
    """
    importers: dict[str, list[str]] = {}
    for name, template in before.items():
        if name in after:
            for export in set(_imports(template)):
                importers.setdefault(export, []).append(name)
    found = []
    for diff in stacks:
        if diff.stack not in before or diff.stack not in after:
            continue
        new = {item.id for item in diff.resources if item.impact is Impact.REPLACE}
        paths = {item.id: item.path for item in diff.resources}
        kept = dict(_exports(after[diff.stack]))
        resources: dict[str, None] = {}
        users: set[str] = set()
        for export, value in _exports(before[diff.stack]):
            holders = set(_references(value))
            if importers.get(export) and (export not in kept or holders & new):
                resources |= dict.fromkeys(paths.get(item, item) for item in sorted(holders))
                users |= set(importers[export])
        if users:
            found.append(ExportInUse(diff.stack, tuple(resources), tuple(sorted(users))))
    return tuple(found)


def _exports(template: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for output in template.get("Outputs", {}).values():
        name = output.get("Export", {}).get("Name")
        if isinstance(name, str):
            yield name, output.get("Value")


def _imports(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        name = value.get("Fn::ImportValue")
        if isinstance(name, str):
            yield name
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _imports(item)


def _references(value: Any) -> Iterator[str]:
    """Yield the logical ids that a value refers to."""
    if isinstance(value, Mapping):
        if isinstance(value.get("Ref"), str):
            yield value["Ref"]
        attribute = value.get("Fn::GetAtt")
        if isinstance(attribute, list) and attribute:
            yield str(attribute[0])
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _references(item)
