"""What a rollout has made of a site's clusters, told to everybody who deploys the site.

While images are rolled out, and until the change of the lock is merged, the account is ahead of the
repository's main branch: a deployment from there would bring every queue back to the older image.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clusterbox.errors import ClusterboxError
from clusterbox.site import names
from clusterbox.site.environment import Environment
from clusterbox.site.images import LOCK, NO_PINS, ClusterPins, ImageLock


class RolloutAheadError(ClusterboxError):
    """A rollout has changed what runs, and the repository does not say so yet."""


@dataclass(frozen=True)
class PublishedPins:
    """What the last rollout published: pins by cluster, and the locked AMI of each image."""

    run: str
    pins: Mapping[str, ClusterPins]
    lock: Mapping[str, str]


def parameter_name(environment: Environment) -> str:
    """Return the SSM parameter in which pins are published."""
    return names.parameter_path(environment, "images", "pins")


def publish_pins(
    ssm: Any,
    environment: Environment,
    run: str,
    pins: Mapping[str, ClusterPins],
    lock: Mapping[str, str] | None = None,
) -> None:
    """Write what a rollout is about to deploy; `ssm` is a boto3 client, whose errors come through.

    `run` is the rollout's id, `pins` are those of all clusters by name, `lock` the locked AMI of
    each image by name; without it only pins will be compared.
    """
    value = {
        "run": run,
        "pins": {
            name: item.model_dump(exclude_defaults=True)
            for name, item in sorted(pins.items())
            if item
        },
        "lock": dict(sorted((lock or {}).items())),
    }
    ssm.put_parameter(
        Name=parameter_name(environment),
        Description="Images that a rollout has brought to the clusters, written by clusterbox",
        Value=json.dumps(value, separators=(",", ":")),
        Type="String",
        # Pins of more than a hundred parts do not fit into the 4 KB of the standard tier.
        Tier="Intelligent-Tiering",
        Overwrite=True,
    )


def publish_lock(ssm: Any, environment: Environment, run: str, lock: ImageLock) -> None:
    """Write what a lock says of an environment, as `publish_pins` does."""
    images = lock.environments.get(environment.name, {})
    amis = {name: entry.ami for name, entry in images.items()}
    publish_pins(ssm, environment, run, lock.pins.get(environment.name, {}), amis)


def read_published_pins(ssm: Any, environment: Environment) -> PublishedPins | None:
    """Return what was published, None where no rollout has been.

    Raises ClusterboxError for a value that clusterbox did not write.
    """
    name = parameter_name(environment)
    try:
        text = ssm.get_parameter(Name=name)["Parameter"]["Value"]
    except ssm.exceptions.ParameterNotFound:
        return None
    try:
        value = json.loads(text)
        pins = {key: ClusterPins.model_validate(item) for key, item in value["pins"].items()}
        lock = {str(key): str(ami) for key, ami in value["lock"].items()}
        return PublishedPins(str(value["run"]), pins, lock)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ClusterboxError(
            f"the parameter {name} is not what clusterbox writes ({error}); delete it if no "
            "rollout is under way"
        ) from error


def forget_published_pins(ssm: Any, environment: Environment) -> None:
    """Delete what was published, if anything was: the repository counts again."""
    try:
        ssm.delete_parameter(Name=parameter_name(environment))
    except ssm.exceptions.ParameterNotFound:
        return


def find_differences(
    published: PublishedPins, environment: Environment, lock: ImageLock
) -> list[str]:
    """Return where the repository's lock differs from what was published, in words.

    What the environment does not have any more, or not yet at that time, is no difference.
    """
    images = lock.environments.get(environment.name, {})
    found = [
        f"image {name}: {images[name].ami} here, {ami} rolled out"
        for name, ami in published.lock.items()
        if name in images and name in environment.images and images[name].ami != ami
    ]
    for entry in environment.clusters:
        here = lock.pins_of(environment.name, entry.name)
        there = published.pins.get(entry.name, NO_PINS)
        if here != there:
            found.append(f"pins of {entry.name}: {_describe(here)} here, {_describe(there)} there")
    return found


def check_rollout(ssm: Any, environment: Environment, lock: ImageLock) -> None:
    """Raise RolloutAheadError where the lock is not what the last rollout made of the clusters."""
    published = read_published_pins(ssm, environment)
    differences = [] if published is None else find_differences(published, environment, lock)
    if published is not None and differences:
        raise RolloutAheadError(
            f"the patch day {published.run} has brought images to {environment.name} that "
            f"{LOCK} does not have here ({'; '.join(differences)}). Merge its merge request "
            f"and deploy then, or take it back with `clusterbox images rollback {environment.name}`. "
            "With --ignore-rollout this is deployed all the same: queues drain back to what the "
            "file says, and login pools that were moved must be closed first"
        )


def _describe(pins: ClusterPins) -> str:
    parts = [] if pins.head is None else [f"head node {pins.head}"]
    parts += [f"queue {name} {ami}" for name, ami in pins.queues.items()]
    parts += [
        f"login pool {name} {pin.ami}{' (closed)' if pin.closed else ''}"
        for name, pin in pins.login.items()
    ]
    return ", ".join(parts) or "none"
