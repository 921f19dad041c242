"""Promotion: verified images become the locked ones, and nothing that runs moves by it."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from clusterbox.aws import tags_of
from clusterbox.files import write_whole
from clusterbox.images.context import Context, Result, StepFailedError
from clusterbox.images.live import fetch_live
from clusterbox.images.merge_request import branch_name, open_platform, propose_lock
from clusterbox.images.plan import PlannedImage, Step
from clusterbox.review.platforms.http import Clock
from clusterbox.review.platforms.proposals import Proposals
from clusterbox.site import names
from clusterbox.site.image_definitions import ImageDefinition, load_image_definition
from clusterbox.site.images import (
    LOCK,
    ClusterPins,
    ImageLock,
    LockedImage,
    LoginPin,
    Verification,
    parse_time,
    render_lock,
    render_time,
)
from clusterbox.site.load import Repository
from clusterbox.site.pins import find_configured_parts, pin_of

# What the verification leaves on an AMI, and ParallelCluster's own tag with its version.
TAG_VERIFIED = "clusterbox:verified"
TAG_VERSION = "parallelcluster:version"
_GONE = {"InvalidAMIID.NotFound", "InvalidAMIID.Unavailable", "InvalidAMIID.Malformed"}


def promote(
    context: Context,
    _step: Step,
    *,
    variables: Mapping[str, str] | None = None,
    clock: Clock | None = None,
) -> Result:
    """Write the planned images into the lock, pin what runs, and propose the change.

    Parts of standing clusters are pinned to what they run, so that a deploy changes none. An image
    that is locked already stays as it is. `variables` are those of the CI job, by default this
    process's where the target is AWS: a rehearsal proposes nothing. Returns the images that
    `changed` and the URL of the `merge_request`, or None where the file is only written. Raises
    StepFailedError for an image that is not verified, not in the account, or made for another
    version of ParallelCluster; nothing is written then.
    """
    # Asked before anything is written: a job that cannot propose the lock would lose it.
    place = _open(context, variables, clock)
    repository = Repository(context.root)
    # A cluster that does not stand has nothing to keep: it starts on the new image.
    standing = {part.cluster for part in fetch_live(context.target, context.environment)}
    lock = repository.load_lock()
    promoted = {image.image: _make_entry(context, lock, image) for image in context.plan.images}
    changed = {name: entry for name, entry in promoted.items() if entry is not None}
    if changed:
        new = _pin_parts(context, repository, lock, changed, standing)
        for name, entry in changed.items():
            new = new.with_image(context.environment.name, name, entry)
        write_whole(context.root / LOCK, render_lock(new))
    _note(context)
    url = _propose(context, place, variables)
    if place is None:
        branch = branch_name(context.environment.name, context.plan.run)
        context.progress.note(
            f"{LOCK} is written; commit it on a branch such as {branch} and open a merge request"
        )
    return {"changed": sorted(changed), "merge_request": url}


def propose_again(
    context: Context,
    *,
    variables: Mapping[str, str] | None = None,
    clock: Clock | None = None,
) -> str | None:
    """Bring the merge request up to date with the lock, whose pins a rollout moves.

    Returns its URL, or None where there is no platform or nothing differs from where it started.
    """
    return _propose(context, _open(context, variables, clock), variables)


def _variables(context: Context, given: Mapping[str, str] | None) -> Mapping[str, str]:
    if given is not None:
        return given
    return os.environ if context.target.name == "aws" else {}


def _open(
    context: Context, variables: Mapping[str, str] | None, clock: Clock | None
) -> Proposals | None:
    return open_platform(_variables(context, variables), clock)


def _propose(
    context: Context, place: Proposals | None, variables: Mapping[str, str] | None
) -> str | None:
    if place is None:
        return None
    name, run = context.environment.name, context.plan.run
    found = propose_lock(place, context.root, name, run, _variables(context, variables))
    if found is None:
        return None
    if found.committed:
        context.progress.note(f"merge request {found.url}")
    return found.url


def _make_entry(context: Context, lock: ImageLock, planned: PlannedImage) -> LockedImage | None:
    """Return the new entry of an image; None where it is locked already."""
    name = planned.image
    bake = _result(context, f"bake:{name}")
    verify = _result(context, f"verify:{name}")
    ami = bake.get("ami")
    if not isinstance(ami, str) or verify.get("ami") != ami or verify.get("passed") is not True:
        raise StepFailedError(
            f"{name}: its verification did not pass for {ami}, so that it is not promoted; "
            f"`clusterbox images verify` tries again"
        )
    old = lock.environments.get(context.environment.name, {}).get(name)
    if old is not None and old.ami == ami:
        return None
    definition = load_image_definition(context.root, name)
    account = _read_image(context, name, ami, definition)
    return LockedImage(
        ami=ami,
        name=str(account.get("Name") or bake["name"]),
        parent=bake.get("parent") or planned.parent,
        os=definition.os,
        architecture=definition.architecture,
        root_gib=definition.root_gib,
        parallelcluster_version=definition.parallelcluster_version,
        slurm_version=verify.get("slurm_version"),
        kernel=verify.get("kernel"),
        baked=_time(account.get("CreationDate")),
        packages_digest=verify.get("packages_digest"),
        verified=Verification(
            at=_time(verify["at"]) or render_time(context.clock.now()),
            checks=tuple(sorted({str(check["check"]) for check in verify["checks"]})),
            passed=True,
        ),
        origin=f"patch day {context.plan.run}",
        previous=None if old is None else old.without_previous(),
    )


def _note(context: Context) -> None:
    """Record what is locked now and was before; again by each call, since a kill may have cut it off."""
    locked = Repository(context.root).load_lock().environments[context.environment.name]
    for image in context.plan.images:
        entry = locked[image.image]
        before = entry.previous.ami if entry.previous else None
        context.note("noted", image=image.image, locked=entry.ami, before=before)


def _result(context: Context, step: str) -> Mapping[str, Any]:
    found = context.results.get(step)
    if found is None:
        raise StepFailedError(f"{step} has not been done, so that nothing can be promoted")
    return found


def _read_image(
    context: Context, name: str, ami: str, definition: ImageDefinition
) -> Mapping[str, Any]:
    """Return what the account says of an AMI; raises StepFailedError where it must not be used."""
    from botocore.exceptions import ClientError

    try:
        images = context.client("ec2").describe_images(ImageIds=[ami])["Images"]
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") not in _GONE:
            raise
        images = []
    if not images:
        raise StepFailedError(
            f"{name}: {ami} is not in account {context.environment.account} any more; bake again"
        )
    found: Mapping[str, Any] = images[0]
    tags = tags_of(found)
    if found.get("State", "available") != "available":
        raise StepFailedError(f"{name}: {ami} is {found['State']}; it cannot be started")
    if tags.get(TAG_VERIFIED) != "passed":
        raise StepFailedError(
            f"{name}: {ami} has the tag {TAG_VERIFIED}={tags.get(TAG_VERIFIED, '')}, not passed; "
            "verify it first"
        )
    # An image without ParallelCluster may lack its tag; of another version it must never be.
    version = tags.get(TAG_VERSION)
    needed = definition.parallelcluster_version
    expected = needed or names.PARALLELCLUSTER_VERSION
    if version != expected and (needed is not None or version is not None):
        raise StepFailedError(
            f"{name}: {ami} was built by ParallelCluster {version or 'of no known version'}, and "
            f"this site runs {expected}; bake it again with that one"
        )
    return found


def _pin_parts(
    context: Context,
    repository: Repository,
    lock: ImageLock,
    changed: Mapping[str, LockedImage],
    standing: Collection[str],
) -> ImageLock:
    """Return the lock with every part that stands pinned to what it is locked to now."""
    environment = context.environment
    for entry in environment.clusters:
        if entry.name not in standing:
            continue
        pins = lock.pins_of(environment.name, entry.name)
        for part in find_configured_parts(repository.load_cluster(entry)):
            image = changed.get(part.image or "")
            if image is None or image.previous is None or not part.is_own:
                continue
            if pin_of(pins, part) is None:
                pins = _with_pin(pins, part.kind, part.name, image.previous.ami)
        lock = lock.with_pins(environment.name, entry.name, pins)
    return lock


def _with_pin(pins: ClusterPins, kind: str, name: str, ami: str) -> ClusterPins:
    if kind == "head":
        return pins.model_copy(update={"head": ami})
    if kind == "queue":
        return pins.model_copy(update={"queues": {**pins.queues, name: ami}})
    return pins.model_copy(update={"login": {**pins.login, name: LoginPin(ami=ami)}})


def _time(value: Any) -> str | None:
    """Return a time as the lock has it; None for what is none."""
    if not isinstance(value, str):
        return None
    try:
        return render_time(parse_time(value))
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return render_time(found if found.tzinfo else found.replace(tzinfo=UTC))
