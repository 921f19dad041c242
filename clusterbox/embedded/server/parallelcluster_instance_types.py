"""Instance types: what each is, and in which zones it is offered.

Where the account was started with ParallelCluster's environment, its facts are AWS's own
(`clusterbox/instance_types.py`). Without it ministack's are left as they are: every name
is a machine of made-up size.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import botocore.session
from botocore.model import ListShape, Shape, StructureShape
from ministack.services import ec2

from clusterbox.embedded.server.ministack_api import region
from clusterbox.instance_types import InstanceFacts

# The zones that ministack has in every region.
ZONE_LETTERS = ("a", "b", "c")


@functools.cache
def _facts() -> InstanceFacts | None:
    python = os.environ.get("CLUSTERBOX_PCLUSTER_PYTHON")
    return InstanceFacts.find(Path(python).parents[1]) if python else None


@functools.cache
def known_types() -> dict[str, dict[str, Any]]:
    """Return AWS's description of each instance type; none without ParallelCluster's environment."""
    facts = _facts()
    return facts.read_types() if facts else {}


@functools.cache
def _offered(name: str) -> tuple[tuple[str, str], ...]:
    """Return each type with each of this account's zones that offers it in a region."""
    facts = _facts()
    found = facts.read_offerings(name) if facts else None
    zones = {name + letter for letter in ZONE_LETTERS}
    if found is None:
        # Nothing is known of the region: all is offered everywhere.
        return tuple((kind, zone) for kind in sorted(known_types()) for zone in sorted(zones))
    return tuple(sorted(item for item in found if item[1] in zones))


def offerings(location_type: str, filters: dict[str, list[str]]) -> list[tuple[str, str]]:
    """Return each offered type with its location, a zone or the region."""
    offered = _offered(region())
    if location_type != "availability-zone":
        offered = tuple(sorted({(kind, region()) for kind, _ in offered}))
    wanted_types = filters.get("instance-type")
    wanted_locations = filters.get("location")
    return [
        (kind, location)
        for kind, location in offered
        if (wanted_types is None or kind in wanted_types)
        and (wanted_locations is None or location in wanted_locations)
    ]


def describe_offerings(parameters: dict[str, Any]) -> Any:
    """Answer DescribeInstanceTypeOfferings in one page."""
    kind = ec2._p(parameters, "LocationType") or "region"
    items = "".join(
        f"<item><instanceType>{name}</instanceType><locationType>{kind}</locationType>"
        f"<location>{location}</location></item>"
        for name, location in offerings(kind, ec2._parse_filters(parameters))
    )
    inner = f"<instanceTypeOfferingSet>{items}</instanceTypeOfferingSet>"
    return ec2._xml(200, "DescribeInstanceTypeOfferingsResponse", inner)


def describe_types(parameters: dict[str, Any]) -> Any:
    """Answer DescribeInstanceTypes in one page; a type that does not exist is refused."""
    known = known_types()
    asked = ec2._parse_member_list(parameters, "InstanceType")
    unknown = [name for name in asked if name not in known]
    if unknown:
        return ec2._error(
            "InvalidInstanceType",
            f"The following supplied instance types do not exist: [{', '.join(unknown)}]",
            400,
        )
    filters = ec2._parse_filters(parameters)
    chosen = [known[name] for name in asked or sorted(known) if _passes(known[name], filters)]
    items = "".join(f"<item>{_render(_type_shape(), item)}</item>" for item in chosen)
    inner = f"<instanceTypeSet>{items}</instanceTypeSet>"
    return ec2._xml(200, "DescribeInstanceTypesResponse", inner)


def _passes(description: dict[str, Any], filters: dict[str, list[str]]) -> bool:
    """Return whether a type has what is asked: `vcpu-info.default-vcpus` and the like."""
    for name, wanted in filters.items():
        value: Any = description
        for part in name.split("."):
            value = _member(value, part)
        values = value if isinstance(value, list) else [value]
        if not any(_text(item) in wanted for item in values):
            return False
    return True


def _member(value: Any, name: str) -> Any:
    plain = name.replace("-", "").lower()
    members = value.items() if isinstance(value, dict) else ()
    return next((found for key, found in members if key.lower() == plain), None)


@functools.cache
def _type_shape() -> Shape:
    service = botocore.session.get_session().get_service_model("ec2")
    return service.shape_for("InstanceTypeInfo")


def _render(shape: Shape, value: Any) -> str:
    """Return a value as EC2 writes it; members that botocore does not know are left out."""
    if isinstance(shape, StructureShape):
        return "".join(
            f"<{name}>{_render(member, value[key])}</{name}>"
            for key, member in shape.members.items()
            if value.get(key) is not None
            for name in [member.serialization.get("name", key)]
        )
    if isinstance(shape, ListShape):
        return "".join(f"<item>{_render(shape.member, item)}</item>" for item in value)
    return escape(_text(value))


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def mend() -> None:
    """Answer with AWS's facts where they are there."""
    if known_types():
        ec2._ACTION_MAP["DescribeInstanceTypes"] = describe_types
        ec2._ACTION_MAP["DescribeInstanceTypeOfferings"] = describe_offerings
