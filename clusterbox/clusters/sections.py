"""Where the sections of a ParallelCluster configuration stand, whatever is wrong in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from clusterbox.site.yaml_file import Location, value_at

# The number and the letters after the family's name: `6gd` of c6gd.large.
_GENERATION = re.compile(r"[a-z]+[0-9]+([a-z][a-z0-9-]*)?\.")
_GPU_FAMILY = re.compile(r"(g|gr|p)[0-9]")


@dataclass(frozen=True)
class Section:
    """One section of a configuration: where it stands, and its content, {} if it is no mapping."""

    location: Location
    content: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The section's Name, or a question mark."""
        return str(self.content.get("Name") or "?")

    def at(self, *location: str | int) -> Any:
        """Return the value at a location inside the section, or None where there is none."""
        return value_at(self.content, location)

    def where(self, *location: str | int) -> Location:
        """Return the location in the configuration of what stands in the section."""
        return (*self.location, *location)


def section(configuration: Mapping[str, Any], *location: str | int) -> Section:
    """Return the section at a location, with no content where there is none."""
    content = value_at(configuration, location)
    return Section(location, content if isinstance(content, Mapping) else {})


def sections(configuration: Mapping[str, Any], *location: str | int) -> list[Section]:
    """Return the sections of the list at a location, none where there is no list."""
    found = value_at(configuration, location)
    count = len(found) if isinstance(found, list) else 0
    return [section(configuration, *location, index) for index in range(count)]


def queues(configuration: Mapping[str, Any]) -> list[Section]:
    """Return the queues."""
    return sections(configuration, "Scheduling", "SlurmQueues")


def compute_resources(configuration: Mapping[str, Any]) -> list[Section]:
    """Return the compute resources of all queues."""
    return [
        resource
        for queue in queues(configuration)
        for resource in sections(configuration, *queue.where("ComputeResources"))
    ]


def pools(configuration: Mapping[str, Any]) -> list[Section]:
    """Return the pools of login nodes."""
    return sections(configuration, "LoginNodes", "Pools")


def node_sections(configuration: Mapping[str, Any]) -> list[Section]:
    """Return the sections that describe machines: head node, login pools, queues."""
    return [
        section(configuration, "HeadNode"),
        *pools(configuration),
        *queues(configuration),
    ]


def shared_storage(configuration: Mapping[str, Any]) -> list[Section]:
    """Return the entries of SharedStorage."""
    return sections(configuration, "SharedStorage")


def values_of(configuration: Mapping[str, Any], key: str) -> Iterator[tuple[Location, str]]:
    """Yield every text below a key of this name, wherever it stands, with its location."""
    for location, text in texts(configuration):
        if key in location:
            yield location, text


def texts(value: Any, location: Location = ()) -> Iterator[tuple[Location, str]]:
    """Yield every text in the value with its location."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from texts(item, (*location, str(key)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from texts(item, (*location, index))
    elif isinstance(value, str):
        yield location, value


def instance_types(resource: Section) -> list[str]:
    """Return the instance types that a compute resource, pool or head node names."""
    several = resource.at("Instances")
    listed = several if isinstance(several, list) else []
    named = [resource.at("InstanceType"), *(value_at(item, ("InstanceType",)) for item in listed)]
    return [str(kind) for kind in named if kind is not None]


def architecture(instance_type: str) -> str:
    """Return the processor architecture of an instance type, from its name.

    A `g` after the number of the generation stands for Graviton (Amazon EC2 instance types guide,
    "Naming conventions"); the A1 family has no such letter.
    """
    match = _GENERATION.match(instance_type)
    is_arm = instance_type.startswith("a1.") or (match is not None and "g" in (match[1] or ""))
    return "arm64" if is_arm else "x86_64"


def has_nvidia_gpus(instance_type: str) -> bool:
    """Return whether the name of an instance type is one of the families with NVIDIA GPUs."""
    return _GPU_FAMILY.match(instance_type) is not None


def is_true(value: Any) -> bool:
    """Return whether a value means true; CloudFormation makes texts of truth values."""
    return str(value).lower() == "true"


def is_false(value: Any) -> bool:
    """Return whether a value means false; CloudFormation makes texts of truth values."""
    return str(value).lower() == "false"
