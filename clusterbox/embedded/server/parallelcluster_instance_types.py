"""Instance types: which exist, where they are offered and for which processors.

ministack describes any name as an x86_64 machine with made-up sizes. The names are those that the
installed botocore knows, and the processor follows from the name; vCPUs, memory, GPUs and network
cards stay made up.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import botocore.session
from ministack.services import ec2

from clusterbox.embedded.server.ministack_api import region

ZONE_LETTERS = ("a", "b", "c")
# Graviton families have a `g` behind the generation (c7g, hpc7g, im4gn); a1 was the first, and
# p6e-gb200 pairs its GPUs with NVIDIA's own Arm processor.
_ARM = re.compile(r"(?:a1|p6e-gb200|[a-z]+\d+g[a-z]*)\.")


@functools.cache
def known_types() -> tuple[str, ...]:
    """Return the names of all instance types that the installed botocore knows, sorted."""
    shape = botocore.session.get_session().get_service_model("ec2").shape_for("InstanceType")
    return tuple(sorted(shape.metadata["enum"]))


def architecture(instance_type: str) -> str:
    """Return the processor architecture of a type: ``arm64`` or ``x86_64``."""
    return "arm64" if _ARM.match(instance_type) else "x86_64"


def offerings(location_type: str, filters: dict[str, list[str]]) -> list[tuple[str, str]]:
    """Return each offered type with its location; every type is offered in every zone."""
    locations = [region()]
    if location_type == "availability-zone":
        locations = [region() + letter for letter in ZONE_LETTERS]
    wanted_types = filters.get("instance-type")
    wanted_locations = filters.get("location")
    return [
        (name, location)
        for name in known_types()
        for location in locations
        if (wanted_types is None or name in wanted_types)
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


def _with_architecture(item: re.Match[str]) -> str:
    return item.group(0).replace(
        "<item>x86_64</item>", f"<item>{architecture(item.group(1))}</item>", 1
    )


def mend() -> None:
    """Refuse types that do not exist, and describe Arm types as what they are."""
    native_describe = ec2._ACTION_MAP["DescribeInstanceTypes"]

    def describe_types(parameters: dict[str, Any]) -> Any:
        asked = ec2._parse_member_list(parameters, "InstanceType")
        unknown = [name for name in asked if name not in known_types()]
        if unknown:
            return ec2._error(
                "InvalidInstanceType",
                f"The following supplied instance types do not exist: [{', '.join(unknown)}]",
                400,
            )
        status, headers, body = native_describe(parameters)
        text = re.sub(
            r"<instanceType>([^<]+)</instanceType>.*?</supportedArchitectures>",
            _with_architecture,
            body.decode(),
            flags=re.DOTALL,
        )
        return status, headers, text.encode()

    ec2._ACTION_MAP["DescribeInstanceTypes"] = describe_types
    ec2._ACTION_MAP["DescribeInstanceTypeOfferings"] = describe_offerings
