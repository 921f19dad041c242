"""Whose a thing is, and which things a report is about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from clusterbox.costs.item import Item
from clusterbox.site.environment import Environment


@dataclass(frozen=True)
class Selection:
    """Which items are in a report; empty means all.

    `prefixes` are of names, of which any counts; all `tags` have to be there.
    """

    prefixes: tuple[str, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    environments: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the selection in words, `everything` without any."""
        words = [f"names with {prefix}*" for prefix in self.prefixes]
        words += [f"tag {key}={value}" for key, value in self.tags]
        words += [f"environment {name}" for name in self.environments]
        return ", ".join(words) or "everything"

    def holds(self, item: Item) -> bool:
        """Return whether an item is selected by its own name, tags and environment."""
        return (
            (not self.prefixes or item.name.startswith(self.prefixes))
            and all(item.tags.get(key) == value for key, value in self.tags)
            and (not self.environments or item.environment in self.environments)
        )


def link(items: Iterable[Item], environments: Sequence[Environment]) -> list[Item]:
    """Return the items with what they owe to others: a disk belongs to whom its machine belongs.

    A thing without the tag of an environment is of the one whose file names it or its cluster.
    """
    found = list(items)
    machines = {(item.account, item.id): item for item in found if item.kind == "instance"}
    owners = _owners(environments)
    linked = []
    for item in found:
        machine = machines.get((item.account, item.links[0])) if item.links else None
        if machine is not None:
            item = replace(
                item,
                machine_state=machine.state,
                owner=item.owner or machine.owner,
                project=item.project or machine.project,
                cluster=item.cluster or machine.cluster,
                environment=item.environment or machine.environment,
            )
        if not item.environment:
            named = owners.get((item.account, item.kind, item.id)) or owners.get(
                (item.account, "cluster", item.cluster)
            )
            if named is not None:
                item = replace(item, environment=named)
        linked.append(item)
    return linked


def select(items: Sequence[Item], selection: Selection) -> list[Item]:
    """Return the selected items, and what is attached to a selected machine."""
    chosen = {
        (item.account, item.id)
        for item in items
        if item.kind == "instance" and selection.holds(item)
    }
    return [
        item
        for item in items
        if selection.holds(item)
        or (item.kind != "image" and any((item.account, key) in chosen for key in item.links))
    ]


def _owners(environments: Sequence[Environment]) -> dict[tuple[str, str, str], str]:
    """Return the environment of what environment files name: (account, kind, id) → environment."""
    found: dict[tuple[str, str, str], str] = {}
    for environment in environments:
        account = environment.account
        buckets = environment.storage.buckets
        for purpose in type(buckets).model_fields:
            found[(account, "S3", getattr(buckets, purpose).name)] = environment.name
        for system in environment.storage.file_systems.values():
            if system.id is not None:
                found[(account, "EFS", system.id)] = environment.name
        for cluster in environment.clusters:
            found[(account, "cluster", cluster.name)] = environment.name
    return found
