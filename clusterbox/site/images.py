"""The lock of machine images: for each environment and image the AMI id and where it came from.

It also says which parts of clusters are pinned to another AMI (clusterbox/site/pins.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from clusterbox.site.fields import (
    AmiId,
    ClusterName,
    DashedName,
    Finding,
    Identifier,
    Once,
    Section,
    SlurmName,
    Version,
    matching,
    raise_findings,
)

LOCK = Path("ami") / "images.lock.yaml"
_HEADER = """\
# Which machine images each environment runs. Nobody types an AMI id anywhere else:
# a change of image is a change of this file, and a rollback is its revert.
"""
_PINS_COMMENT = """\
# Parts of clusters that run another AMI than the one above: a rollout has not come to them yet, or
# it is a head node, whose AMI ParallelCluster never changes while its cluster stands.
"""
_TIME = "must be a time in UTC in quotes, such as 2026-11-22T10:00:00Z"
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


def _text(pattern: str, allowed: str) -> Any:
    return BeforeValidator(matching(pattern, allowed))


def _check_time(value: Any) -> str:
    text = matching(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", _TIME)(value)
    try:
        parse_time(text)
    except ValueError as error:
        raise PydanticCustomError("allowed", "{allowed}", {"allowed": _TIME}) from error
    return text


UtcTime = Annotated[str, BeforeValidator(_check_time)]
CheckName = Annotated[
    str, _text(r"[a-z]+(-[a-z]+)*", "must be the name of a check of ami/verify/, such as units")
]
AmiName = Annotated[
    str,
    _text(
        r"[\w ()\[\]./'@-]{3,128}",
        "must be the name of an AMI: 3 to 128 letters, digits, spaces and ( ) [ ] . / - ' @ _",
    ),
]
Kernel = Annotated[
    str, _text(r"\d[\w.+~-]*", "must be a release of the kernel, as `uname -r` tells it")
]
Digest = Annotated[str, _text(r"[0-9a-f]{64}", "must be a SHA-256 of 64 hex digits")]


def parse_time(text: str) -> datetime:
    """Return a time of the lock; raises ValueError where it is none."""
    return datetime.strptime(text, _TIME_FORMAT).replace(tzinfo=UTC)


def render_time(time: datetime) -> str:
    """Return a time as the lock has it, in UTC and whole seconds: `2026-11-22T10:00:00Z`."""
    return time.astimezone(UTC).strftime(_TIME_FORMAT)


class Verification(Section):
    """What the checks of `ami/verify/` found on a machine that was started from the image."""

    at: UtcTime = Field(description="when it ended")
    checks: Once[CheckName] = Field(strict=False, description="checks that ran")
    passed: bool = Field(description="whether every one of them held")


class ImageEntry(Section):
    """One image, as the lock keeps it; `previous` is one without a previous of its own."""

    ami: AmiId = Field(description="id of the image")
    name: AmiName | None = Field(None, description="name of the AMI in the account")
    parent: AmiId | None = Field(None, description="id of the image it was baked from")
    os: Literal[
        "alinux2", "alinux2023", "rhel8", "rhel9", "rocky8", "rocky9", "ubuntu2204", "ubuntu2404"
    ] = Field(description="operating system, in ParallelCluster's spelling")
    architecture: Literal["x86_64", "arm64"] = Field("x86_64", description="processor architecture")
    root_gib: int = Field(ge=8, le=16384, description="size of the root volume in GiB")
    parallelcluster_version: Version | None = Field(
        None, description="version the image was built for, if any"
    )
    slurm_version: Version | None = Field(None, description="version of Slurm on the image, if any")
    kernel: Kernel | None = Field(None, description="kernel that ran when it was verified")
    baked: UtcTime | None = Field(None, description="when the bake ended")
    packages_digest: Digest | None = Field(None, description="digest of the list of its packages")
    verified: Verification | None = Field(None, description="what its verification found")
    origin: str = Field(min_length=1, description="where the image came from, in words")


class LockedImage(ImageEntry):
    """One entry of `ami/images.lock.yaml`."""

    previous: ImageEntry | None = Field(
        None, description="the entry before it, which a rollback brings back"
    )

    @model_validator(mode="after")
    def _differs_from_previous(self) -> LockedImage:
        if self.previous is not None and self.previous.ami == self.ami:
            where = ("previous", "ami")
            raise_findings([Finding(where, "must differ from ami of the entry", self.ami)])
        return self

    def without_previous(self) -> ImageEntry:
        """Return the entry as it is kept in `previous` of the one that replaces it."""
        return ImageEntry(**self.model_dump(exclude={"previous"}))


class LoginPin(Section):
    """What a pool of login nodes runs instead of the locked image."""

    ami: AmiId = Field(description="id of the image that the pool runs")
    closed: bool = Field(
        False, description="whether the pool has no nodes, so that its image can be changed"
    )


class ClusterPins(Section):
    """What the parts of one cluster run instead of the locked image; all others run that."""

    head: AmiId | None = Field(None, description="id of the image of the cluster and its head node")
    queues: dict[SlurmName, AmiId] = Field({}, description="queue → id of its image")
    login: dict[SlurmName, LoginPin] = Field({}, description="pool of login nodes → its image")

    def __bool__(self) -> bool:
        """Whether any part is pinned."""
        return self.head is not None or bool(self.queues) or bool(self.login)

    def amis(self) -> list[str]:
        """Return the ids of all images that parts are pinned to, each once."""
        found = [self.head, *self.queues.values(), *(pin.ami for pin in self.login.values())]
        return list(dict.fromkeys(ami for ami in found if ami is not None))


NO_PINS = ClusterPins()


class ImageLock(Section):
    """All locked images: environment → image → entry, and the pins: environment → cluster."""

    environments: dict[DashedName, dict[Identifier, LockedImage]] = Field(
        description="locked images"
    )
    pins: dict[DashedName, dict[ClusterName, ClusterPins]] = Field(
        {}, description="parts of clusters that run another image than the locked one"
    )

    def pins_of(self, environment: str, cluster: str) -> ClusterPins:
        """Return the pins of a cluster; one that has none gets empty ones."""
        return self.pins.get(environment, {}).get(cluster, NO_PINS)

    def with_image(self, environment: str, image: str, entry: LockedImage) -> ImageLock:
        """Return the lock with another entry for an image; the images keep their order."""
        images = {**self.environments.get(environment, {}), image: entry}
        return self.model_copy(update={"environments": {**self.environments, environment: images}})

    def with_pins(self, environment: str, cluster: str, pins: ClusterPins) -> ImageLock:
        """Return the lock with other pins for a cluster; empty ones take its key away."""
        clusters = {**self.pins.get(environment, {}), cluster: pins}
        clusters = {name: item for name, item in clusters.items() if item}
        every = {**self.pins, environment: clusters}
        return self.model_copy(
            update={"pins": {name: item for name, item in every.items() if item}}
        )


def render_lock(lock: ImageLock) -> str:
    """Return the whole lock file; the same lock always gives the same text.

    Environments and images keep their order, pins are sorted by name. Keys that hold their default
    are left out, but for the architecture.
    """
    lines = [_HEADER.rstrip("\n"), "environments:"]
    for environment, images in lock.environments.items():
        lines.append(f"  {environment}:" if images else f"  {environment}: {{}}")
        for image, entry in images.items():
            lines.append(f"    {image}:")
            lines += _render(_entry_data(entry), "      ")
    if lock.pins:
        lines += ["", _PINS_COMMENT.rstrip("\n"), "pins:"]
        lines += _render(_pins_data(lock.pins), "  ")
    return "\n".join(lines) + "\n"


def _entry_data(entry: ImageEntry) -> dict[str, Any]:
    """Return an entry in the order in which it is read: what it is, then how it came about."""
    data = entry.model_dump(exclude={"previous"}, exclude_none=True)
    previous = entry.previous if isinstance(entry, LockedImage) else None
    return data if previous is None else {**data, "previous": _entry_data(previous)}


def _pins_data(pins: Mapping[str, Mapping[str, ClusterPins]]) -> dict[str, Any]:
    return {
        environment: {
            cluster: item.model_dump(exclude_defaults=True)
            for cluster, item in sorted(clusters.items())
        }
        for environment, clusters in sorted(pins.items())
    }


def _render(data: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, value in data.items():
        if isinstance(value, Mapping):
            # A queue may be called `on`, which YAML 1.1 takes for true unless it is in quotes.
            yield indent + yaml.safe_dump({key: None}).removesuffix(" null\n")
            yield from _render(value, indent + "  ")
        elif isinstance(value, str) and not value.isprintable():
            yield f"{indent}{key}: {json.dumps(value)}"
        else:
            # YAML's own writer knows what needs quotes; lists of names stand on one line.
            is_list = isinstance(value, tuple)
            text: str = yaml.safe_dump(
                {key: list(value) if is_list else value},
                default_flow_style=None if is_list else False,
                width=math.inf,
                allow_unicode=True,
            )
            yield indent + text.rstrip("\n")
