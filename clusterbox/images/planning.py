"""Make the plan of a patch day: from the repository's files and what stands in the account."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from clusterbox.clusters.composed import compose_environment
from clusterbox.errors import InputError
from clusterbox.images.bake import estimate_bake
from clusterbox.images.components import render_bundle
from clusterbox.images.live import LivePart, fetch_live
from clusterbox.images.parents import resolve_parent
from clusterbox.images.plan import Options, Plan, PlannedImage, Step
from clusterbox.images.rollout import find_unsupported
from clusterbox.images.usage import Part, find_parts
from clusterbox.site.image_definitions import (
    ImageDefinition,
    bake_name,
    image_definition_names,
    load_image_definition,
)
from clusterbox.site.load import Repository

if TYPE_CHECKING:
    from clusterbox.deployment.targets import Target
    from clusterbox.site.environment import Environment

# What a bake takes where no record says it: the slow end of what has been seen (20 to 60 minutes).
UNKNOWN_BAKE_SECONDS = 3600.0


@dataclass(frozen=True)
class World:
    """What a plan is made from: the repository's files, and the account."""

    root: Path
    environment: Environment
    definitions: Mapping[str, ImageDefinition]
    parents: Mapping[str, str]
    parts: Sequence[Part]
    live: Sequence[LivePart]

    def facts(self) -> dict[str, str]:
        """Return everything that a plan depends on, by name; another value makes it stale."""
        root, environment = self.root, self.environment
        facts = {
            "environment": _digest((root / f"environments/{environment.name}.yaml").read_bytes()),
            "lock": _digest((root / "ami/images.lock.yaml").read_bytes()),
        }
        for name, definition in self.definitions.items():
            facts[f"bundle of {name}"] = render_bundle(root, definition, environment).digest[:16]
            facts[f"parent of {name}"] = self.parents[name]
        for cluster in compose_environment(root, environment.name):
            facts[f"cluster {cluster.name}"] = _digest(repr(cluster.configuration).encode())
        for part in self.live:
            # What new nodes get, not which nodes happen to run: those come and go by themselves.
            amis = part.launches or tuple(sorted(set(part.instances.values())))
            facts[f"live {part.cluster} {part.kind} {part.name}".rstrip()] = ",".join(amis)
        return facts


def look(root: Path, environment: Environment, target: Target, images: Sequence[str]) -> World:
    """Return what a plan of these images is made from; none named means all that are defined.

    Raises InputError for an image that the environment does not use or that has no definition, and
    for a parent that no image of the account matches.
    """
    known = [name for name in environment.images if name in image_definition_names(root)]
    unknown = [name for name in images if name not in known]
    if unknown:
        raise InputError(
            f"{environment.name} bakes no image {', '.join(unknown)}; it bakes: "
            f"{', '.join(known) or 'none'} (images of the environment with a file in ami/images/)"
        )
    chosen = [name for name in known if not images or name in images]
    if not chosen:
        raise InputError(f"none of the images of {environment.name} has a file in ami/images/")
    definitions = {name: load_image_definition(root, name) for name in chosen}
    ec2 = target.client("ec2")
    return World(
        root=root,
        environment=environment,
        definitions=definitions,
        parents={name: resolve_parent(ec2, each).ami for name, each in definitions.items()},
        parts=find_parts(root, environment),
        live=fetch_live(target, environment),
    )


def make_plan(
    world: World,
    options: Options,
    *,
    run: str,
    now: datetime,
    expected: Mapping[str, float],
    users: Sequence[str] = (),
) -> Plan:
    """Return the plan of one patch day.

    `expected` says by step id or action how many seconds earlier runs took (medians). Raises
    InputError for options that do not fit the site.
    """
    rolled, unsupported = _roll_out(world, options)
    steps = _chain([*_build(world), *rolled, *_finish()])
    steps = [
        replace(step, expected_seconds=expected.get(step.id, expected.get(step.action)))
        for step in steps
    ]
    return Plan(
        run=run,
        environment=world.environment.name,
        created=now.isoformat(timespec="seconds"),
        options=options,
        images=tuple(
            PlannedImage(
                image=name,
                name=bake_name(world.environment.name, name, run),
                parent=world.parents[name],
                bundle=render_bundle(world.root, definition, world.environment).digest,
            )
            for name, definition in world.definitions.items()
        ),
        steps=tuple(steps),
        world=world.facts(),
        unsupported=tuple(unsupported),
        users=tuple(users),
        cost_usd=_estimate(world, steps),
    )


def next_run(now: datetime, runs: Sequence[str]) -> str:
    """Return the id of a new run: the date, and a number where that day had one already."""
    day = now.strftime("%Y-%m-%d")
    number = 1
    while (run := day if number == 1 else f"{day}-{number}") in runs:
        number += 1
    return run


def _build(world: World) -> list[Step]:
    names = list(world.definitions)
    bakes = [Step(id=f"bake:{name}", action="bake", subject={"image": name}) for name in names]
    verifications = [
        Step(
            id=f"verify:{name}",
            action="verify",
            subject={"image": name},
            after=(f"bake:{name}",),
        )
        for name in names
    ]
    before = Step(id="notify:before", action="notify", subject={"when": "before"})
    promote = Step(
        id="promote",
        action="promote",
        after=("notify:before", *(step.id for step in verifications)),
    )
    return [before, *bakes, *verifications, promote]


def _roll_out(world: World, options: Options) -> tuple[list[Step], list[str]]:
    """Return the steps that bring the clusters to the new images, and what cannot be brought."""
    steps: list[Step] = []
    unsupported: list[str] = []
    standing = {part.cluster for part in world.live}
    clusters = [entry.name for entry in world.environment.clusters]
    for cluster in clusters:
        if cluster not in standing:
            unsupported.append(f"{cluster} does not stand: it will start on the locked image")
    moving = {
        cluster: [
            part
            for part in world.parts
            if part.cluster == cluster and part.image in world.definitions
        ]
        for cluster in clusters
        if cluster in standing
    }
    unsupported += _find_unmovable(moving)
    stuck = _find_stuck(world, list(moving))
    if options.head != "replace":
        # A second cluster starts with queues of the new image.
        unsupported += stuck.values()
    moving = {
        cluster: [
            part
            for part in parts
            if part.kind == "head"
            or (part.movable and not (part.kind == "queue" and cluster in stuck))
        ]
        for cluster, parts in moving.items()
    }
    canary_cluster, canary_queue = _find_canary(moving, options)
    if canary_cluster:
        steps += _roll_queues(canary_cluster, [canary_queue], gate=canary_queue)
    order = [canary_cluster, *(name for name in moving if name != canary_cluster)]
    for cluster in (name for name in order if name):
        steps += _roll_cluster(cluster, moving[cluster], options, (canary_cluster, canary_queue))
        if options.head == "leave" and any(part.kind == "head" for part in moving[cluster]):
            unsupported.append(f"the head node of {cluster} is left as it is, on request")
        if options.head == "patch":
            unsupported += _find_kept_kernel(world, cluster, moving[cluster])
    admin = world.environment.admin_box
    if admin is not None and admin.image in world.definitions:
        steps.append(Step(id="admin-box", action="admin-box", subject={"image": admin.image}))
    return steps, unsupported


def _roll_cluster(
    cluster: str, parts: Sequence[Part], options: Options, canary: tuple[str, str]
) -> list[Step]:
    if options.head == "replace":
        # A second cluster has everything on the new image at once.
        return [Step(id=f"replace:{cluster}", action="replace", subject={"cluster": cluster})]
    steps: list[Step] = []
    queues = [
        part.name for part in parts if part.kind == "queue" and (cluster, part.name) != canary
    ]
    if queues:
        steps += _roll_queues(cluster, queues, gate=None if cluster == canary[0] else queues[0])
    steps += [
        Step(
            id=f"login:{cluster}/{part.name}",
            action="login",
            subject={"cluster": cluster, "pool": part.name},
        )
        for part in parts
        if part.kind == "login"
    ]
    if options.head == "patch" and any(part.kind == "head" for part in parts):
        steps.append(Step(id=f"head:{cluster}", action="head", subject={"cluster": cluster}))
    return steps


def _roll_queues(cluster: str, queues: Sequence[str], gate: str | None) -> list[Step]:
    names = ",".join(queues)
    steps = [
        Step(
            id=f"queues:{cluster}/{names}",
            action="queues",
            subject={"cluster": cluster, "queues": names},
        )
    ]
    if gate is not None:
        subject = {"cluster": cluster, "queue": gate}
        steps.append(Step(id=f"gate:{cluster}/{gate}", action="gate", subject=subject))
    return steps


def _find_canary(moving: Mapping[str, Sequence[Part]], options: Options) -> tuple[str, str]:
    queues = [
        (cluster, part.name)
        for cluster, parts in moving.items()
        for part in parts
        if part.kind == "queue"
    ]
    if options.canary is None:
        return queues[0] if queues else ("", "")
    cluster, _, queue = options.canary.partition("/")
    found = [each for each in queues if each[0] == cluster and queue in ("", each[1])]
    if not found:
        known = ", ".join("/".join(each) for each in queues) or "none"
        raise InputError(f"there is no queue {options.canary} to begin with; known: {known}")
    return found[0]


def _find_unmovable(moving: Mapping[str, Sequence[Part]]) -> list[str]:
    return [
        f"{part.kind} {part.name} of {cluster} has no image of its own: it keeps the one that the "
        "cluster was made with"
        for cluster, parts in moving.items()
        for part in parts
        if part.kind != "head" and not part.movable
    ]


def _find_stuck(world: World, clusters: Sequence[str]) -> dict[str, str]:
    """Return the clusters whose queues ParallelCluster does not move while they run, with why."""
    repository = Repository(world.root)
    found = {
        entry.name: find_unsupported(repository.load_cluster(entry), entry.name)
        for entry in world.environment.clusters
        if entry.name in clusters
    }
    return {cluster: f"{why}; they stay pinned" for cluster, why in found.items() if why}


def _find_kept_kernel(world: World, cluster: str, parts: Sequence[Part]) -> list[str]:
    """Return what a head node of an image of ParallelCluster keeps when it is patched in place."""
    return [
        f"the head node of {cluster} is patched in place and keeps its kernel with the modules and "
        "drivers built for it (Lustre, EFA, NVIDIA); --head replace brings those of the image"
        for part in parts
        if part.kind == "head"
        and part.image is not None
        and world.definitions[part.image].parallelcluster_version
    ]


def _finish() -> list[Step]:
    return [
        Step(id="retire", action="retire"),
        Step(id="notify:after", action="notify", subject={"when": "after"}),
    ]


def _chain(steps: Sequence[Step]) -> list[Step]:
    """Return the steps, each after the one before it from the promotion on."""
    chained: list[Step] = []
    last: str | None = None
    for step in steps:
        if last is not None:
            chained.append(replace(step, after=(last,)))
        else:
            chained.append(step)
        if last is not None or step.action == "promote":
            last = step.id
    return chained


def _estimate(world: World, steps: Sequence[Step]) -> str | None:
    """Return USD of the machines that bake and verify; None where a price is unknown."""
    seconds = {step.id: step.expected_seconds for step in steps}
    total = Decimal(0)
    for name, definition in world.definitions.items():
        took = sum(
            seconds.get(f"{action}:{name}") or default
            for action, default in (("bake", UNKNOWN_BAKE_SECONDS), ("verify", 600.0))
        )
        cost = estimate_bake(definition, took, region=world.environment.region, root=world.root)
        if cost is None:
            return None
        total += cost
    return str(total.quantize(Decimal("0.01")))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
