"""How the images of a site stand: locked, old, outdated, and what really runs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clusterbox.errors import InputError
from clusterbox.images.live import LivePart, fetch_images, fetch_live
from clusterbox.images.parents import ParentFound, parse_created, resolve_parent
from clusterbox.images.usage import Part, find_parts
from clusterbox.site import names
from clusterbox.site.environment import Environment
from clusterbox.site.image_definitions import (
    ImageDefinition,
    image_definition_names,
    load_image_definition,
)
from clusterbox.site.images import LockedImage, parse_time
from clusterbox.site.load import Repository

if TYPE_CHECKING:
    from clusterbox.deployment.targets import Target

Newer = Literal["yes", "no", "unknown"]
# Age in days from which an image is old where the environment has no patch day: a month and some.
MAX_AGE_DAYS = 35
_SECONDS_A_DAY = 86_400


@dataclass(frozen=True)
class Account:
    """What an account says of an environment's images and machines, at one moment.

    `problems` say why the parent of an image is not known.
    """

    live: Sequence[LivePart]
    images: Mapping[str, Mapping[str, Any]]
    parents: Mapping[str, ParentFound]
    problems: Mapping[str, str]


@dataclass(frozen=True)
class ImageStatus:
    """One image of the lock. `age_days` is None where nothing says when it was made."""

    environment: str
    image: str
    ami: str
    name: str | None
    age_days: int | None
    max_age_days: int
    newer_parent: Newer
    # The newer parent, or why it is not known.
    parent: str
    # What differs between the lock, the definition and the site; empty where nothing does.
    versions: str
    verified: str
    # None without an account.
    is_in_account: bool | None

    @property
    def is_old(self) -> bool:
        """Whether it is older than it may be, or of an age that nobody knows."""
        return self.age_days is None or self.age_days > self.max_age_days


@dataclass(frozen=True)
class PartStatus:
    """One part of a site and what it runs; `live` is None where there is no account to ask."""

    environment: str
    cluster: str
    kind: str
    name: str
    image: str | None
    repository: str | None
    live: tuple[str, ...] | None
    state: str
    is_drift: bool


@dataclass(frozen=True)
class Status:
    """The images of one environment and everything that uses them."""

    images: tuple[ImageStatus, ...]
    parts: tuple[PartStatus, ...]


def fetch_account(root: Path, environment: Environment, target: Target) -> Account:
    """Return what the account says; boto3's errors are let through."""
    ec2 = target.client("ec2")
    parents: dict[str, ParentFound] = {}
    problems: dict[str, str] = {}
    for name, definition in _definitions(root, environment).items():
        try:
            parents[name] = resolve_parent(ec2, definition)
        except InputError as error:
            problems[name] = str(error)
    live = fetch_live(target, environment)
    locked = Repository(root).load_images(environment).values()
    wanted = [
        *(entry.ami for entry in locked),
        *(part.ami for part in find_parts(root, environment) if part.ami is not None),
        *(ami for part in live for ami in part.amis),
    ]
    return Account(live, fetch_images(ec2, wanted), parents, problems)


def find_status(
    root: Path, environment: Environment, account: Account | None, now: datetime
) -> Status:
    """Return the status of an environment; without an account, what the repository alone knows.

    Raises ProblemsError for files that cannot be used.
    """
    definitions = _definitions(root, environment)
    images = Repository(root).load_images(environment)
    return Status(
        tuple(
            _image_status(environment, name, entry, definitions.get(name), account, now)
            for name, entry in images.items()
        ),
        tuple(_part_statuses(find_parts(root, environment), account)),
    )


def _definitions(root: Path, environment: Environment) -> dict[str, ImageDefinition]:
    defined = image_definition_names(root)
    return {
        name: load_image_definition(root, name) for name in environment.images if name in defined
    }


def _image_status(
    environment: Environment,
    name: str,
    entry: LockedImage,
    definition: ImageDefinition | None,
    account: Account | None,
    now: datetime,
) -> ImageStatus:
    found = account.images.get(entry.ami) if account else None
    newer, parent = _compare_parent(name, entry, definition, account)
    patch_day = environment.patch_day
    return ImageStatus(
        environment=environment.name,
        image=name,
        ami=entry.ami,
        name=entry.name or (str(found["Name"]) if found and found.get("Name") else None),
        age_days=_age_days(entry, found, now),
        max_age_days=MAX_AGE_DAYS if patch_day is None else patch_day.max_age_days,
        newer_parent=newer,
        parent=parent,
        versions="; ".join(_find_mismatches(entry, definition)),
        verified=_describe_verification(entry),
        is_in_account=None if account is None else found is not None,
    )


def _age_days(entry: LockedImage, found: Mapping[str, Any] | None, now: datetime) -> int | None:
    if entry.baked is not None:
        made = parse_time(entry.baked)
    elif found is not None and found.get("CreationDate"):
        made = parse_created(found)
    else:
        return None
    return max(0, int((now - made).total_seconds()) // _SECONDS_A_DAY)


def _compare_parent(
    name: str, entry: LockedImage, definition: ImageDefinition | None, account: Account | None
) -> tuple[Newer, str]:
    if definition is None:
        return "unknown", f"no ami/images/{name}.yaml says what it is baked from"
    if account is None:
        return "unknown", "no account was asked"
    if name not in account.parents:
        return "unknown", account.problems.get(name, "")
    parent = account.parents[name]
    said = f"{parent.ami} ({parent.name})"
    if entry.parent is None:
        return "unknown", f"the lock does not say what it was baked from; the newest is {said}"
    return ("no", "") if entry.parent == parent.ami else ("yes", said)


def _find_mismatches(entry: LockedImage, definition: ImageDefinition | None) -> Iterator[str]:
    locked = entry.parallelcluster_version
    if definition is not None and definition.parallelcluster_version != locked:
        wanted = definition.parallelcluster_version or "none"
        yield f"ParallelCluster {locked or 'none'} is locked, and {wanted} defined"
    if locked is not None and locked != names.PARALLELCLUSTER_VERSION:
        yield f"ParallelCluster {locked} is locked, and the site runs {names.PARALLELCLUSTER_VERSION}"
    slurm = None if definition is None else definition.slurm_version
    if None not in (slurm, entry.slurm_version) and slurm != entry.slurm_version:
        yield f"Slurm {entry.slurm_version} is locked, and {slurm} defined"


def _describe_verification(entry: LockedImage) -> str:
    if entry.verified is None:
        return "no"
    return entry.verified.at if entry.verified.passed else f"FAILED {entry.verified.at}"


def _part_statuses(parts: Sequence[Part], account: Account | None) -> Iterator[PartStatus]:
    if account is None:
        for part in parts:
            yield _status(part, None, _own_state(part), is_drift=False)
        return
    live = {(part.cluster, part.kind, part.name): part for part in account.live}
    standing = {part.cluster for part in account.live if part.kind == "head"}
    for part in parts:
        found = live.pop((part.cluster, part.kind, part.name), None)
        stands = part.cluster in standing or found is not None
        state, is_drift = _compare(part, found, stands, account)
        yield _status(part, found, state, is_drift=is_drift, asked=True)
    for left in live.values():
        yield PartStatus(
            left.environment,
            left.cluster,
            left.kind,
            left.name,
            None,
            None,
            left.amis,
            "stands, and the repository does not have it",
            is_drift=True,
        )


def _status(
    part: Part, found: LivePart | None, state: str, *, is_drift: bool, asked: bool = False
) -> PartStatus:
    amis = found.amis if found is not None else () if asked else None
    return PartStatus(
        part.environment,
        part.cluster,
        part.kind,
        part.name,
        part.image,
        part.ami,
        amis,
        state,
        is_drift,
    )


def _own_state(part: Part) -> str:
    """Return what the repository itself says of a part, beside its AMI."""
    said = []
    if part.closed:
        said.append("closed")
    if part.pinned:
        said.append("pinned")
    if not part.movable and part.kind != "admin-box":
        said.append("has no image of its own")
    return ", ".join(said)


def _compare(
    part: Part, found: LivePart | None, stands: bool, account: Account
) -> tuple[str, bool]:
    """Return what is to be said of a part, and whether it drifts.

    Drift is what a deployment, the end of a drain or a bake has to mend.
    """
    said = [own] if (own := _own_state(part)) else []
    drift = [*_find_missing(part, found, account)]
    if found is None and not stands:
        return "; ".join([*said, "not deployed", *drift]), bool(drift)
    if found is None:
        drift.append("not there, though its cluster stands")
    else:
        drift += _find_drift(part, found)
    return "; ".join([*said, *drift]) or "as locked", bool(drift)


def _find_missing(part: Part, found: LivePart | None, account: Account) -> Iterator[str]:
    for ami in dict.fromkeys([part.ami, *(found.amis if found else ())]):
        if ami is not None and ami not in account.images:
            which = "AMI" if ami == part.ami else ami
            yield f"{which} is gone from the account"


def _find_drift(part: Part, found: LivePart) -> Iterator[str]:
    others = [ami for ami in found.launches if ami != part.ami]
    if others:
        yield f"new nodes get {', '.join(others)}: deploy"
    for ami, count in sorted(found.count().items()):
        if ami == part.ami:
            continue
        if part.kind == "head":
            yield f"runs {ami}: cannot change, pin it or replace the cluster"
        elif part.kind == "admin-box":
            yield f"runs {ami}: a deployment replaces it"
        elif ami in others:
            yield "1 instance runs it" if count == 1 else f"{count} instances run it"
        else:
            where = "1 instance" if count == 1 else f"{count} instances"
            yield f"runs {ami} on {where}: drains"
