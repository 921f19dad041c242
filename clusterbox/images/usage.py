"""Which image each part of a site is to run, as the repository says it: pins applied."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clusterbox.site.environment import Environment
from clusterbox.site.load import Repository
from clusterbox.site.pins import find_configured_parts, pin_of

Kind = Literal["head", "queue", "login", "admin-box"]


@dataclass(frozen=True)
class Part:
    """A part of a site and its image.

    `cluster` is the empty text for the admin box, and `name` for a head node. `image` is the name
    in the lock, None for a part whose configuration names an AMI itself; `ami` is None where AWS's
    own image would be used.
    """

    environment: str
    cluster: str
    kind: Kind
    name: str
    image: str | None
    ami: str | None
    # The part runs another AMI than the locked one, because the lock pins it to that.
    pinned: bool = False
    # It says itself which image it runs, so that it can be moved without the rest of the cluster.
    movable: bool = True
    # A pool of login nodes that has no nodes while its image changes.
    closed: bool = False


def find_parts(root: Path, environment: Environment) -> list[Part]:
    """Return all parts of an environment: clusters in the order of the file, then the admin box.

    Raises ProblemsError where the lock, its pins or a cluster's configuration cannot be used.
    """
    repository = Repository(root)
    locked = {name: entry.ami for name, entry in repository.load_images(environment).items()}
    parts: list[Part] = []
    for entry in environment.clusters:
        parts += _find_cluster_parts(repository, environment, entry.name, locked)
    box = environment.admin_box
    if box is not None:
        ami = locked[box.image]
        parts.append(Part(environment.name, "", "admin-box", box.name, box.image, ami))
    return parts


def _find_cluster_parts(
    repository: Repository, environment: Environment, cluster: str, locked: dict[str, str]
) -> Iterator[Part]:
    pins = repository.load_pins(environment, cluster)
    (entry,) = [entry for entry in environment.clusters if entry.name == cluster]
    for part in find_configured_parts(repository.load_cluster(entry)):
        pin = pin_of(pins, part) if part.image is not None else None
        ami = part.wanted if part.image is None else locked.get(part.image)
        closed = part.kind == "login" and part.name in pins.login and pins.login[part.name].closed
        yield Part(
            environment=environment.name,
            cluster=cluster,
            kind=part.kind,
            name=part.name,
            image=part.image,
            ami=pin or ami,
            pinned=pin is not None and pin != ami,
            movable=part.is_own and part.image is not None,
            closed=closed,
        )
