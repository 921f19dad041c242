"""Pins: parts of a cluster that run another AMI than the one of their `${images.NAME}`.

A part is the cluster with its head node, one queue, or one pool of login nodes. Only a part that
says `Image: CustomAmi: ${images.NAME}` itself can be pinned.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from clusterbox.errors import ProblemsError
from clusterbox.site.fields import Finding
from clusterbox.site.images import ClusterPins, LockedImage
from clusterbox.site.yaml_file import Location, YamlFile, value_at

PartKind = Literal["head", "queue", "login"]

_AMI = ("Image", "CustomAmi")
_REFERENCE = re.compile(r"\$\{images\.([^{}$]*)\}")
# Kind → where its parts stand in a configuration.
_LISTS: dict[PartKind, Location] = {
    "queue": ("Scheduling", "SlurmQueues"),
    "login": ("LoginNodes", "Pools"),
}


@dataclass(frozen=True)
class ConfiguredPart:
    """A part of a cluster as its configuration has it.

    `name` is that of the queue or pool, or the empty text for the head node. `location` is where
    the part's own CustomAmi stands; `wanted` is what stands there or, where nothing does, what the
    part takes over from the cluster.
    """

    kind: PartKind
    name: str
    location: Location
    wanted: str | None
    is_own: bool

    @property
    def image(self) -> str | None:
        """The name of the image that it refers to, or None where it names an AMI or nothing."""
        match = _REFERENCE.fullmatch(self.wanted) if self.wanted is not None else None
        return match[1] if match else None


@dataclass(frozen=True)
class NamedImage:
    """An image that a cluster runs or may run, and the name of the image in the lock."""

    image: str
    entry: LockedImage


def find_configured_parts(config: YamlFile) -> list[ConfiguredPart]:
    """Return the head node, the queues and the pools of login nodes, in the order of the file.

    Parts without a name are left out; the schema has to tell of these.
    """
    cluster = _text_at(config.data, _AMI)
    head = ("HeadNode", *_AMI)
    own = _text_at(config.data, head)
    parts = [ConfiguredPart("head", "", _AMI if own is None else head, own or cluster, True)]
    for kind, where in _LISTS.items():
        items = value_at(config.data, where)
        for index, item in enumerate(items if isinstance(items, list) else ()):
            name = _text_at(item, ("Name",))
            if name is not None:
                own = _text_at(item, _AMI)
                location = (*where, index, *_AMI)
                parts.append(ConfiguredPart(kind, name, location, own or cluster, own is not None))
    return parts


def pin_of(pins: ClusterPins, part: ConfiguredPart) -> str | None:
    """Return the AMI that a part is pinned to, or None.

    What a part takes over from the cluster is pinned with the head node.
    """
    if not part.is_own or part.kind == "head":
        return pins.head
    if part.kind == "queue":
        return pins.queues.get(part.name)
    pin = pins.login.get(part.name)
    return None if pin is None else pin.ami


def find_pin_problems(config: YamlFile, pins: ClusterPins) -> Iterator[Finding]:
    """Yield what is wrong with pins of a cluster that has this configuration.

    Locations are inside the cluster's pins: `("queues", "eco")`.
    """
    parts = find_configured_parts(config)
    if pins.head is not None:
        yield from _find_part_problems(config, parts[0], ("head",))
    pinned: tuple[tuple[PartKind, str, Sequence[str]], ...] = (
        ("queue", "queues", list(pins.queues)),
        ("login", "login", list(pins.login)),
    )
    for kind, key, wanted in pinned:
        known = {part.name: part for part in parts if part.kind == kind}
        for name in wanted:
            if name in known:
                yield from _find_part_problems(config, known[name], (key, name))
                continue
            what = "queue" if kind == "queue" else "pool of login nodes"
            listed = ", ".join(known) or "none"
            yield Finding(
                (key, name), f"must be a {what} of {config.name}, which has: {listed}", name
            )


def _find_part_problems(
    config: YamlFile, part: ConfiguredPart, where: Location
) -> Iterator[Finding]:
    if part.is_own and part.image is not None:
        return
    found = "no CustomAmi of its own" if not part.is_own or part.wanted is None else part.wanted
    line = config.line_of(part.location[:-2] if not part.is_own else part.location)
    yield Finding(
        where,
        f"cannot be pinned: {config.name}:{line} must have Image: CustomAmi: ${{images.NAME}} "
        f"for it, and has {found}",
    )


def apply_pins(config: YamlFile, pins: ClusterPins) -> YamlFile:
    """Return the configuration with the AMIs of the pins in the place of the references.

    A pool of login nodes that is closed gets the Count 0. Lines stay those of the file. Raises
    ProblemsError where a pin is of no part of this configuration, or of one that cannot be pinned.
    """
    if not pins:
        return config
    findings = [*find_pin_problems(config, pins)]
    if findings:
        raise ProblemsError(
            [
                config.problem((), f"pin {'.'.join(map(str, where))} {message}")
                for where, message, _ in findings
            ]
        )
    data = copy.deepcopy(config.data)
    for part in find_configured_parts(config):
        pin = pin_of(pins, part)
        if pin is not None and part.is_own:
            value_at(data, part.location[:-1])[part.location[-1]] = pin
        if part.kind == "login" and part.name in pins.login and pins.login[part.name].closed:
            value_at(data, part.location[:-2])["Count"] = 0
    if pins.head is not None and _REFERENCE.fullmatch(_text_at(data, _AMI) or ""):
        data["Image"]["CustomAmi"] = pins.head
    return YamlFile(config.name, data, config.lines)


def pinned_images(
    config: YamlFile, pins: ClusterPins, images: Mapping[str, LockedImage]
) -> list[NamedImage]:
    """Return the images that parts are pinned to and that are not locked now, each once.

    `images` are the locked ones by name. What an older image holds is known for the previous one;
    any other is taken for one like the locked, since the lock does not keep it.
    """
    found: dict[str, NamedImage] = {}
    for part in find_configured_parts(config):
        ami, name = pin_of(pins, part), part.image
        if ami is None or name is None or name not in images or ami == images[name].ami:
            continue
        found.setdefault(ami, NamedImage(name, _older(images[name], ami)))
    return list(found.values())


def _older(locked: LockedImage, ami: str) -> LockedImage:
    if locked.previous is not None and locked.previous.ami == ami:
        return LockedImage(**locked.previous.model_dump())
    return LockedImage(
        ami=ami,
        os=locked.os,
        architecture=locked.architecture,
        root_gib=locked.root_gib,
        parallelcluster_version=locked.parallelcluster_version,
        origin="pinned, and older than the previous entry; taken for an image like the locked one",
    )


def _text_at(data: Any, location: Location) -> str | None:
    found = value_at(data, location)
    return found if isinstance(found, str) else None
