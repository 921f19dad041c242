"""A rollback as a run like any other: first the lock goes back, then what was moved, with gates."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from clusterbox.images.context import Context, Result, StepFailedError
from clusterbox.images.live import LivePart, fetch_images
from clusterbox.images.plan import Options, Plan, Step
from clusterbox.images.rollback import Rollback, plan_rollback, swap_lock
from clusterbox.site.environment import Environment
from clusterbox.site.images import ClusterPins


def make_rollback_plan(
    root: Path,
    environment: Environment,
    live: Sequence[LivePart],
    options: Options,
    images: Sequence[str],
    *,
    run: str,
    now: datetime,
    expected: Mapping[str, float],
    users: Sequence[str] = (),
) -> Plan:
    """Return the plan that brings images back to their entries before.

    What is to be swapped is in the plan itself: a rollback that was cut off goes on the same way,
    and does not swap a second time. Raises InputError where there is nothing to go back to.
    """
    rollback = plan_rollback(root, environment, live, images)
    first = Step(
        id="restore",
        action="restore",
        subject={
            "images": json.dumps(rollback.images),
            "pins": json.dumps({name: pins.model_dump() for name, pins in rollback.pins.items()}),
        },
    )
    steps = [
        Step(id="notify:before", action="notify", subject={"when": "before"}),
        first,
        *rollback.steps,
    ]
    box = environment.admin_box
    if box is not None and box.image in rollback.images and _stands(live):
        steps.append(Step(id="admin-box", action="admin-box", subject={"image": box.image}))
    steps.append(Step(id="notify:after", action="notify", subject={"when": "after"}))
    chained: list[Step] = []
    for step in steps:
        after = (chained[-1].id,) if chained else ()
        seconds = expected.get(step.id, expected.get(step.action))
        chained.append(replace(step, after=after, expected_seconds=seconds))
    return Plan(
        run=run,
        environment=environment.name,
        created=now.isoformat(timespec="seconds"),
        options=options,
        images=(),
        steps=tuple(chained),
        world={},
        unsupported=rollback.kept,
        users=tuple(users),
        cost_usd="0.00",
    )


def restore(context: Context, step: Step) -> Result:
    """Put the entries before back into the lock, and return `{"images": {image: [left, taken]}}`.

    Nothing that runs moves by it. Raises StepFailedError where an image to go back to is gone.
    """
    images = {
        image: (str(left), str(taken))
        for image, (left, taken) in json.loads(step.subject["images"]).items()
    }
    wanted = {taken for _, taken in images.values()}
    there = fetch_images(context.client("ec2"), wanted)
    if gone := sorted(wanted - set(there)):
        raise StepFailedError(
            f"{', '.join(gone)} is not in the account any more: there is no image to go back to"
        )
    pins = json.loads(step.subject["pins"])
    rollback = Rollback(
        environment=context.environment.name,
        images=images,
        pins={name: ClusterPins.model_validate(found) for name, found in pins.items()},
        steps=(),
        kept=(),
    )
    swap_lock(context.root, rollback)
    return {"images": {image: list(swap) for image, swap in images.items()}}


def _stands(live: Sequence[LivePart]) -> bool:
    return any(part.kind == "admin-box" for part in live)
