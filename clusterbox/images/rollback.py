"""Back to the image before: what moves, in which order, and what a machine runs right now."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clusterbox.errors import InputError
from clusterbox.files import write_whole
from clusterbox.images.context import Context
from clusterbox.images.live import LivePart, fetch_live
from clusterbox.images.plan import Step
from clusterbox.images.usage import Part, find_parts
from clusterbox.site.environment import Environment
from clusterbox.site.images import (
    LOCK,
    ClusterPins,
    ImageLock,
    LockedImage,
    LoginPin,
    render_lock,
)
from clusterbox.site.load import Repository


@dataclass(frozen=True)
class Rollback:
    """What brings an environment back to the previous images.

    `images` is image → (AMI that is left, AMI that is taken up again), `pins` cluster → pins that
    hold every part where it is until its step, `steps` are in order, and `kept` says in sentences
    what stays as it is and how that could be brought back.
    """

    environment: str
    images: Mapping[str, tuple[str, str]]
    pins: Mapping[str, ClusterPins]
    steps: tuple[Step, ...]
    kept: tuple[str, ...]


@dataclass(frozen=True)
class RunningPart:
    """A part of a cluster and what it runs: AMI → number of machines that run it now."""

    cluster: str
    kind: str
    name: str
    # What the repository wants it to run, and what new machines get; None where nothing tells.
    wanted: str | None
    launches: str | None
    machines: Mapping[str, int]

    @property
    def state(self) -> str:
        """Return in a few words where it is on its way."""
        if self.launches is None and not self.machines:
            return "does not stand"
        others = sum(count for ami, count in self.machines.items() if ami != self.wanted)
        if self.launches is not None and self.launches != self.wanted:
            return "waits for its deployment"
        if others and self.kind != "head":
            return f"{others} still on an earlier image"
        return "as it should be" if not others else "keeps its own image"


def plan_rollback(
    root: Path,
    environment: Environment,
    live: Sequence[LivePart],
    images: Sequence[str] = (),
) -> Rollback:
    """Return what brings images (by default all that have a previous entry) back.

    Only parts that run or launch the image that is left move; in the middle of a rollout these are
    those that it has reached. Nothing is changed by planning. Raises InputError where an image has
    no previous entry, or none has.
    """
    lock = Repository(root).load_lock()
    swaps = _find_swaps(lock, environment.name, images)
    parts = find_parts(root, environment)
    reached = [part for part in parts if _is_reached(part, live, swaps)]
    standing = {part.cluster for part in live}
    pins = {
        # What does not stand starts on the image that is taken up again.
        entry.name: _hold(lock, environment.name, entry.name, parts, reached, swaps)
        if entry.name in standing
        else ClusterPins()
        for entry in environment.clusters
    }
    # What nobody has verified was made before there were checks, and need not pass them.
    proven = {image for image in swaps if _is_verified(lock, environment.name, image)}
    steps: list[Step] = []
    for entry in environment.clusters:
        mine = [part for part in reached if part.cluster == entry.name]
        steps += _steps(entry.name, mine, proven)
    return Rollback(
        environment=environment.name,
        images=swaps,
        pins=pins,
        steps=tuple(steps),
        kept=tuple(_find_kept(parts, reached, swaps)),
    )


def swap_lock(root: Path, rollback: Rollback) -> ImageLock:
    """Write the lock in which each image and its previous have changed places, and return it.

    An image that is back already stays: repeated, it changes nothing. Deploying what it says moves
    no part before its step.
    """
    repository = Repository(root)
    lock = repository.load_lock()
    changed = False
    for image, (left, taken) in rollback.images.items():
        entry = lock.environments[rollback.environment][image]
        if entry.ami == left and entry.previous is not None and entry.previous.ami == taken:
            back = LockedImage(**entry.previous.model_dump(), previous=entry.without_previous())
            lock = lock.with_image(rollback.environment, image, back)
            changed = True
    if changed:
        for cluster, pins in rollback.pins.items():
            lock = lock.with_pins(rollback.environment, cluster, pins)
        write_whole(root / LOCK, render_lock(lock))
    return lock


def what_runs(context: Context) -> list[RunningPart]:
    """Return every part of the environment's clusters, and what it really runs."""
    live = {
        (part.cluster, part.kind, part.name): part
        for part in fetch_live(context.target, context.environment)
    }
    rows = []
    for part in find_parts(context.root, Repository(context.root).load_environment(
        context.environment.name
    )):  # fmt: skip
        found = live.get((part.cluster, part.kind, part.name))
        rows.append(
            RunningPart(
                cluster=part.cluster,
                kind=part.kind,
                name=part.name,
                wanted=part.ami,
                launches=", ".join(found.launches) or None if found else None,
                machines=dict(found.count()) if found else {},
            )
        )
    return rows


def _find_swaps(
    lock: ImageLock, environment: str, images: Sequence[str]
) -> dict[str, tuple[str, str]]:
    locked = lock.environments.get(environment, {})
    unknown = [image for image in images if image not in locked]
    if unknown:
        raise InputError(
            f"{LOCK} has no image {', '.join(unknown)} of {environment}; it has: {', '.join(locked)}"
        )
    swaps = {}
    for image in images or locked:
        previous = locked[image].previous
        if previous is not None:
            swaps[image] = (locked[image].ami, previous.ami)
        elif images:
            raise InputError(f"{image} of {environment} has no previous entry to go back to")
    if not swaps:
        raise InputError(f"no image of {environment} has a previous entry to go back to")
    return swaps


def _is_reached(part: Part, live: Sequence[LivePart], swaps: Mapping[str, tuple[str, str]]) -> bool:
    """Whether a queue or pool runs, launches or is to run the image that is left."""
    if (
        part.image is None
        or part.image not in swaps
        or part.kind not in ("queue", "login")
        or not part.movable
    ):
        return False
    left = swaps[part.image][0]
    found = [
        each
        for each in live
        if (each.cluster, each.kind, each.name) == (part.cluster, part.kind, part.name)
    ]
    return bool(found) and (
        part.ami == left or part.closed or any(left in each.amis for each in found)
    )


def _hold(
    lock: ImageLock,
    environment: str,
    cluster: str,
    parts: Sequence[Part],
    reached: Sequence[Part],
    swaps: Mapping[str, tuple[str, str]],
) -> ClusterPins:
    """Return the pins of a cluster with which a swap of the lock moves nothing."""
    pins = lock.pins_of(environment, cluster)
    queues, login, head = dict(pins.queues), dict(pins.login), pins.head
    for part in parts:
        if part.cluster != cluster or part.image is None or part.image not in swaps:
            continue
        left, taken = swaps[part.image]
        ami = left if part in reached else part.ami
        if part.kind == "head":
            head = None if part.ami == taken else part.ami
        elif part.kind == "queue" and part.movable and ami is not None:
            queues.pop(part.name, None)
            if ami != taken:
                queues[part.name] = ami
        elif part.kind == "login" and part.movable and ami is not None:
            pin = login.pop(part.name, None)
            closed = pin is not None and pin.closed
            if ami != taken or closed:
                login[part.name] = LoginPin(ami=ami, closed=closed)
    return ClusterPins(head=head, queues=queues, login=login)


def _is_verified(lock: ImageLock, environment: str, image: str) -> bool:
    previous = lock.environments[environment][image].previous
    return previous is not None and previous.verified is not None and previous.verified.passed


def _steps(cluster: str, reached: Sequence[Part], proven: Collection[str]) -> list[Step]:
    steps: list[Step] = []
    queues = [part.name for part in reached if part.kind == "queue"]
    if queues:
        joined = ",".join(queues)
        steps.append(
            Step(
                id=f"queues:{cluster}/{joined}",
                action="queues",
                subject={"cluster": cluster, "queues": joined},
            )
        )
    tried = [part.name for part in reached if part.kind == "queue" and part.image in proven]
    steps += [
        Step(
            id=f"gate:{cluster}/{name}", action="gate", subject={"cluster": cluster, "queue": name}
        )
        for name in tried[:1]
    ]
    steps += [
        Step(
            id=f"login:{cluster}/{part.name}",
            action="login",
            subject={"cluster": cluster, "pool": part.name},
        )
        for part in reached
        if part.kind == "login"
    ]
    return steps


def _find_kept(
    parts: Sequence[Part], reached: Sequence[Part], swaps: Mapping[str, tuple[str, str]]
) -> list[str]:
    kept = []
    for part in parts:
        if part.image not in swaps:
            continue
        if part.kind == "head":
            kept.append(
                f"the head node of {part.cluster} stays as it is: where it was patched in place, its "
                "snapshot has the tag clusterbox:run (aws ec2 create-replace-root-volume-task)"
            )
        elif part.kind in ("queue", "login") and part not in reached:
            kept.append(f"{part.kind} {part.name} of {part.cluster} was not moved, and stays")
    return kept
