"""Say in sentences who may do, reach or delete more, or less, after a change of the templates."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

from clusterbox.review.changes import Grade, SecurityChange, sort_changes
from clusterbox.review.cluster_access import compare_clusters
from clusterbox.review.conditions import Truths, worlds
from clusterbox.review.groups import compare_groups
from clusterbox.review.iam import compare_iam
from clusterbox.review.identities import compare_identities
from clusterbox.review.intrinsics import Template
from clusterbox.review.resource_policies import compare_resource_policies
from clusterbox.review.resources import Side, Sides, pair_sides
from clusterbox.review.settings import compare_settings

__all__ = ["SecurityChange", "security_changes", "termination_protection_changes"]

_ACCOUNT = re.compile(r"arn:[\w-]+:iam::(\d{12}):")
# A reference that a template does not resolve, with the attribute that it takes.
_TOKEN = re.compile(r"\$\{([\w -]+/\w+)(?:\.[\w.]+)?\}")
# Types of which a move or a new logical id is worth a line.
_NOTED = ("AWS::IAM::", "AWS::EC2::SecurityGroup", "AWS::KMS::Key", "AWS::S3::Bucket", "AWS::EFS::")


def security_changes(
    base: Mapping[str, Template | None],
    head: Mapping[str, Template | None],
    boundary_arn: str | None,
) -> list[SecurityChange]:
    """Return the security changes between the templates of an environment, widening first.

    Both are templates by stack; a stack that is missing or None does not exist on that side.
    `boundary_arn` is the permissions boundary that the environment asks for; without it, new
    roles that have none are not told of. Templates that mean the same give an empty list.
    What counts as widening is in docs/security-review.md.
    """
    before = {stack: template for stack, template in base.items() if template is not None}
    after = {stack: template for stack, template in head.items() if template is not None}
    if before == after:
        return []
    # What was before may differ from one combination of conditions to the next; one is told.
    found: dict[tuple[object, ...], SecurityChange] = {}
    there: dict[tuple[object, ...], list[Truths]] = defaultdict(list)
    all_worlds = list(worlds(before, after))
    for world in all_worlds:
        for change in _compare(before, after, world, boundary_arn):
            said = change.sentence.partition(" (before: ")[0]
            key = (change.stack, change.resource, change.kind, said)
            heaviest = min(found.get(key, change), change, key=lambda c: (c.grade, c.sentence))
            found[key] = heaviest
            if world not in there[key]:
                there[key].append(world)
    return sort_changes(
        _with_conditions(change, there[key], all_worlds) for key, change in found.items()
    )


def termination_protection_changes(
    base: Mapping[str, bool], head: Mapping[str, bool]
) -> list[SecurityChange]:
    """Return the stacks that lost or got termination protection, which no template tells.

    Both say by stack whether it is protected (`terminationProtection` of the assembly's manifest).
    """
    found = []
    for stack in sorted(base.keys() & head.keys()):
        if base[stack] and not head[stack]:
            text = f"stack {stack} has lost its termination protection"
            found.append(
                SecurityChange(
                    stack, "", stack, "widening", "protection lost", text, Grade.PRINCIPAL
                )
            )
        elif head[stack] and not base[stack]:
            text = f"stack {stack} now has termination protection"
            found.append(SecurityChange(stack, "", stack, "narrowing", "protection added", text))
    return sort_changes(found)


def _compare(
    base: Mapping[str, Template],
    head: Mapping[str, Template],
    world: Truths,
    boundary_arn: str | None,
) -> Iterator[SecurityChange]:
    match = _ACCOUNT.match(boundary_arn or "")
    account = match[1] if match else None
    sides = pair_sides(
        Side(base, account, lambda stack, name: world.get(("base", stack, name), True)),
        Side(head, account, lambda stack, name: world.get(("head", stack, name), True)),
    )
    found = itertools.chain(
        compare_iam(sides, boundary_arn),
        compare_resource_policies(sides),
        compare_identities(sides),
        compare_groups(sides),
        compare_settings(sides),
        compare_clusters(sides, boundary_arn),
        _moved(sides),
    )
    names = {
        resource.token: resource.label if resource.is_named else f"{resource.label} of {place[0]}"
        for side in (sides.base, sides.head)
        for place, resource in side.resources.items()
    }
    for change in found:
        yield replace(
            change,
            name=_readable(change.name, names),
            sentence=_readable(change.sentence, names),
        )


def _readable(text: str, names: Mapping[str, str]) -> str:
    """Return text with references to resources replaced by what people call these."""

    def replace_token(match: re.Match[str]) -> str:
        return names.get(match[1], match[0])

    return _TOKEN.sub(replace_token, text)


def _moved(sides: Sides) -> Iterator[SecurityChange]:
    for old, new in sides.moved():
        if new.type.startswith(_NOTED) and not new.type.endswith(("Ingress", "Egress", "Policy")):
            text = f"{new.label} was {'/'.join(old.place)} and is now {'/'.join(new.place)}"
            text += "; it is compared as the same"
            yield SecurityChange(
                *new.place, new.name, "change", "moved or renamed", text, Grade.MINOR
            )


def _with_conditions(
    change: SecurityChange, there: list[Truths], all_worlds: list[Truths]
) -> SecurityChange:
    """Return the change with the conditions it depends on, where there are any."""
    if len(there) == len(all_worlds):
        return change
    always = [
        f"{stack}/{name} {'holds' if truth else 'does not hold'} ({side})"
        for (side, stack, name), truth in sorted(there[0].items())
        if all(world[side, stack, name] == truth for world in there)
    ]
    return replace(change, sentence=f"{change.sentence} [when {', '.join(always) or 'some'}]")
