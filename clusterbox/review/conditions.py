"""The combinations of a template's conditions in which a change is compared."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from clusterbox.review.intrinsics import Template, as_dict, canonical

# Above this number conditions are not combined with each other, only switched one by one.
_COMBINED_CONDITIONS = 4

# Whether a condition holds, by side (`base` or `head`), stack and name.
Truths = Mapping[tuple[str, str, str], bool]


def worlds(base: Mapping[str, Template], head: Mapping[str, Template]) -> Iterator[Truths]:
    """Yield the combinations of conditions to compare, by (side, stack, condition).

    A condition that is defined alike on both sides holds on both or on neither. Up to four of them
    are combined in every way; more are switched one by one, from all true and from all false.
    """
    groups: dict[tuple[str, str, str], list[tuple[str, str, str]]] = {}
    for side, templates in (("base", base), ("head", head)):
        for stack, template in templates.items():
            definitions = as_dict(template.get("Conditions"))
            for name in sorted(_used_conditions(template)):
                definition = _closure(definitions, name, as_dict(template.get("Parameters")))
                key = (stack, name, definition)
                groups.setdefault(key, []).append((side, stack, name))
    members = list(groups.values())
    size = len(members)
    if size <= _COMBINED_CONDITIONS:
        rows = list(itertools.product((True, False), repeat=size))
    else:
        rows = [
            tuple((i == j) != flip for j in range(size))
            for i in range(-1, size)
            for flip in (True, False)
        ]
    for row in rows:
        yield {name: truth for names, truth in zip(members, row, strict=True) for name in names}


def _used_conditions(template: Template) -> set[str]:
    used: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, Mapping):
            branch = value.get("Fn::If")
            if isinstance(branch, list) and branch:
                used.add(str(branch[0]))
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    for raw in as_dict(template.get("Resources")).values():
        body = as_dict(raw)
        if body.get("Type") != "AWS::CDK::Metadata":
            if isinstance(body.get("Condition"), str):
                used.add(body["Condition"])
            walk(body.get("Properties"))
    return used


def _closure(
    definitions: Mapping[str, Any],
    name: str,
    parameters: Mapping[str, Any],
    seen: frozenset[str] = frozenset(),
) -> str:
    """Return a condition's definition as text, with the conditions and defaults it is made of."""
    if name in seen or name not in definitions:
        return name
    inner: list[object] = []

    def walk(value: Any) -> None:
        if isinstance(value, Mapping):
            if isinstance(value.get("Condition"), str) and len(value) == 1:
                known = seen | {name}
                inner.append(_closure(definitions, value["Condition"], parameters, known))
            if isinstance(value.get("Ref"), str):
                inner.append(as_dict(parameters.get(value["Ref"])).get("Default"))
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(definitions[name])
    return canonical([definitions[name], *inner])
