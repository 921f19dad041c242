"""Look through synthesized templates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Resource = dict[str, Any]


def each(
    templates: Mapping[str, Mapping[str, Any]], *kinds: str
) -> Iterator[tuple[str, str, Resource]]:
    """Yield stack, logical id and resource of every resource of the given types, or of all."""
    for stack, template in templates.items():
        for logical_id, resource in template["Resources"].items():
            if not kinds or resource["Type"] in kinds:
                yield stack, logical_id, resource


def only(template: Mapping[str, Any], kind: str) -> Resource:
    """Return the one resource of a type in a template."""
    found = [item for item in template["Resources"].values() if item["Type"] == kind]
    assert len(found) == 1, [item["Type"] for item in template["Resources"].values()]
    resource: Resource = found[0]
    return resource
