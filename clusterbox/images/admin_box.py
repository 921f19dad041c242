"""Bring the admin box to its promoted image: it holds no data, and is made again from it."""

from __future__ import annotations

from clusterbox.errors import ClusterboxError
from clusterbox.images import window
from clusterbox.images.context import Context, Result, StepFailedError
from clusterbox.images.doors import DOORS, Doors
from clusterbox.images.live import fetch_live
from clusterbox.images.plan import Step
from clusterbox.site.load import Repository


def admin_box(context: Context, _step: Step, doors: Doors = DOORS) -> Result:
    """Deploy the admin box from the locked image and return `{"instance", "ami"}`.

    A box that runs it already is left alone. Whoever is logged in loses the session: `notify` has
    told them. Raises StepFailedError where the deployment fails; the old box then still stands.
    """
    from clusterbox.deployment.site import Site

    environment = context.environment
    box = environment.admin_box
    if box is None:
        return {"skipped": f"{environment.name} has no admin box"}
    wanted = Repository(context.root).load_images(environment)[box.image].ami
    if (found := _find(context)) is not None and found[1] == wanted:
        return {"instance": found[0], "ami": wanted}
    window.enter(context, doors.entered)
    try:
        Site(context.root, environment, context.progress).deploy_admin_box(context.target)
    except ClusterboxError as error:
        raise StepFailedError(f"the admin box was not brought to {wanted}: {error}") from error
    found = _find(context)
    if found is None or found[1] != wanted:
        has = "there is none" if found is None else f"{found[0]} runs {found[1]}"
        raise StepFailedError(
            f"the admin box should run {wanted}, and {has}: see the events of its stack"
        )
    return {"instance": found[0], "ami": found[1]}


def _find(context: Context) -> tuple[str, str] | None:
    """Return instance and AMI of the admin box; None where there is none."""
    for part in fetch_live(context.target, context.environment):
        if part.kind == "admin-box":
            return next(iter(part.instances.items()), None)
    return None
