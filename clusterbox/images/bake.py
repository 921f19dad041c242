"""Bake an image: its scripts to S3, `pcluster build-image`, and the build followed to its end.

A build is known by its name, which the plan decides: a call that is killed anywhere and made again
finds the build and follows it. Nothing is built twice, since ParallelCluster refuses a second
image or stack of the same name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from clusterbox.costs.price import HOURS_PER_MONTH, Price
from clusterbox.costs.prices import load_prices
from clusterbox.images.builds import LOG_LINES, TAG_BUNDLE, TAG_PARENT, Build, Builds, open_builds
from clusterbox.images.components import Bundle, build_configuration, render_bundle
from clusterbox.images.context import Context, Result, StepFailedError
from clusterbox.images.failures import (
    as_failure,
    call_errors,
    code_of,
    render_explanations,
    steadily,
)
from clusterbox.images.machines import find_place
from clusterbox.images.plan import PlannedImage, Step
from clusterbox.site.image_definitions import ImageDefinition, load_image_definition

Answer = TypeVar("Answer")

# Between two looks passes a tenth of the time the build has taken, within these limits.
_POLL_SECONDS = (1.0, 30.0)
# A build that goes on this long will not end well; Image Builder's own limit is a day.
_MOST_SECONDS = 4 * 3600.0
# How long an image may be built and not yet marked, or its stack be going, before that is a failure.
_SETTLING_SECONDS = 900.0
# How long there may be neither stack nor image: EC2 shows an image a little after it is marked.
_GONE_SECONDS = 120.0
# How long the stack of a build that succeeded may take to go.
_CLEAN_UP_SECONDS = 300.0
_DELETE_SECONDS = 1800.0
_NOTE_SECONDS = 60.0
_DIGEST = "sha256"


def bake(
    context: Context, step: Step, *, retry_failed: bool = False, builds: Builds | None = None
) -> Result:
    """Bake the step's image and return {"ami", "name", "parent", "seconds", "leftovers"}.

    `seconds` is from the making of the build's stack to the finished image, or None where the image
    was finished already when this call looked. `leftovers` are lines about what stays in the
    account. A build of this name that is under way is followed and a finished one is taken; one that
    failed is deleted and built again only with `retry_failed`. Raises StepFailedError, with the
    reason, the end of the log and what is known about the failure.
    """
    planned = context.plan.image(step.subject["image"])
    if planned is None:
        raise StepFailedError(f"the plan bakes no image {step.subject['image']}")
    work = _Bake(context, builds or open_builds(context), planned)
    try:
        return work.run(retry_failed)
    except call_errors() as error:
        raise as_failure(f"baking {planned.image}", error) from error


@dataclass
class _Bake:
    """One bake under way."""

    context: Context
    builds: Builds
    planned: PlannedImage
    # What was told last, and when.
    _told: str = ""
    _told_at: datetime | None = None
    _seen: str = ""
    # When the build's stack was made, which is forgotten with it.
    _started: datetime | None = None
    # Whether this call saw it under way, so that its end is known.
    _watched: bool = False

    def run(self, retry_failed: bool) -> Result:
        """Look what there is, do what is missing, and follow the build."""
        build = self._look()
        if build is not None and retry_failed and _is_going(build):
            build = self._delete(build)
        if build is None:
            self._begin()
        finished = self._follow()
        seconds = None
        if self._watched and self._started is not None:
            seconds = round((self.context.clock.now() - self._started).total_seconds(), 1)
        return {
            "ami": finished.ami,
            "name": self.planned.name,
            "parent": self.planned.parent,
            "seconds": seconds,
            "leftovers": self._wait_for_clean_up(finished),
        }

    def _look(self) -> Build | None:
        build = self._ask("looking at the build", lambda: self.builds.fetch(self.planned.name))
        if build is not None:
            self._started = build.started or self._started
            self._refuse_another(build)
        return build

    def _ask(self, doing: str, call: Callable[[], Answer]) -> Answer:
        name = self.planned.image
        safe = "a build that has begun goes on in AWS, and is followed then"
        return steadily(self.context, f"{name}: {doing}", call, safe=safe)

    def _refuse_another(self, build: Build) -> None:
        """Raise where the name belongs to a bake from other files or another parent."""
        planned = self.planned
        for what, tag, expected in (
            ("files", TAG_BUNDLE, planned.bundle),
            ("parent", TAG_PARENT, planned.parent),
        ):
            found = build.tags.get(tag)
            if found is not None and found != expected:
                raise StepFailedError(
                    f"there is an image or build {planned.name} already, of another {what} "
                    f"({found}; planned is {expected}); plan again, which gives another name"
                )

    def _begin(self) -> None:
        """Start the build; one that is there already, or was started at this moment, is fine."""
        context, planned = self.context, self.planned
        definition = load_image_definition(context.root, planned.image)
        bundle = render_bundle(context.root, definition, context.environment)
        if bundle.digest != planned.bundle:
            raise StepFailedError(
                f"the definition or the steps of {planned.image} have changed since the plan was "
                f"made (bundle {bundle.digest[:16]}, planned {planned.bundle[:16]}); plan again"
            )
        self._require_parent()
        place = find_place(context, definition)
        configuration = build_configuration(
            definition,
            context.environment,
            place,
            bundle,
            parent=planned.parent,
            name=planned.name,
        )
        bucket = context.environment.storage.buckets.cluster_config.name
        s3 = context.client("s3")
        sent = self._ask("sending scripts", lambda: upload_bundle(s3, bucket, bundle))
        context.progress.note(f"{planned.image}: {sent} of {len(bundle.keys)} scripts were sent")
        context.check()
        self._ask("starting the build", lambda: self._start(configuration))
        # Until the stack says when it was made: a short build may be over at the first look.
        self._started, self._watched = context.clock.now(), True
        context.note("build started", image=planned.image, name=planned.name)

    def _start(self, configuration: dict[str, Any]) -> None:
        from clusterbox.pcluster import PclusterError

        try:
            self.builds.start(self.planned.name, configuration)
        except PclusterError as error:
            # A call that did not get its answer, or one that was killed with its process left
            # behind, may have made the stack.
            if self.builds.fetch(self.planned.name) is not None:
                return
            raise error

    def _require_parent(self) -> None:
        ec2, parent = self.context.client("ec2"), self.planned.parent
        try:
            images = self._ask(
                "looking at the parent", lambda: ec2.describe_images(ImageIds=[parent])["Images"]
            )
        except call_errors() as error:
            if not code_of(error).startswith("InvalidAMIID"):
                raise
            images = []
        if not images or images[0].get("State", "available") != "available":
            state = f"is {images[0]['State']}" if images else "is gone from the account"
            raise StepFailedError(
                f"the parent {parent} of {self.planned.image} {state} since the plan was made; "
                "plan again, which takes the newest approved one"
            )

    def _follow(self) -> Build:
        """Return the image when it is finished."""
        clock = self.context.clock
        start = clock.now()
        unsettled: datetime | None = None
        while True:
            build = self._look()
            now = clock.now()
            elapsed = (now - (self._started or start)).total_seconds()
            if build is not None and build.status == "BUILD_COMPLETE" and build.ami:
                return build
            if build is not None and _has_failed(build):
                raise self._failure(build)
            if build is not None and build.status == "BUILD_IN_PROGRESS":
                unsettled = None
                self._watched = True
                self._tell(build, elapsed, now)
                if elapsed > _MOST_SECONDS:
                    raise StepFailedError(
                        f"{self.planned.name} is still {build.stage or 'being built'} after "
                        f"{elapsed / 3600:.1f} hours; look at its log, and end it with "
                        f"`pcluster delete-image --image-id {self.planned.name}`"
                    )
            else:
                # Built but not yet marked, or its stack is going: the image appears in a moment.
                unsettled = unsettled or now
                most = _GONE_SECONDS if build is None else _SETTLING_SECONDS
                if (now - unsettled).total_seconds() > most:
                    raise self._failure(build)
            least, most = _POLL_SECONDS
            self.context.wait(min(most, max(least, elapsed / 10)))

    def _tell(self, build: Build, elapsed: float, now: datetime) -> None:
        stage = build.stage or "PENDING"
        since = _NOTE_SECONDS if self._told_at is None else (now - self._told_at).total_seconds()
        if stage != self._told:
            self.context.note("stage", image=self.planned.image, stage=stage)
        if stage != self._told or since >= _NOTE_SECONDS:
            self._told, self._told_at = stage, now
            self.context.progress.note(
                f"{self.planned.image}: {stage.lower()}, {elapsed / 60:.0f} min since its start"
            )

    def _failure(self, build: Build | None) -> StepFailedError:
        """Return everything that is known of a build that failed."""
        name, image = self.planned.name, self.planned.image
        status = "it is gone" if build is None else build.status
        if build is not None and build.stage:
            status += f", Image Builder: {build.stage}"
        reasons = [build.reason] if build is not None and build.reason else []
        if build is not None and build.status == "BUILD_COMPLETE":
            reasons.append(
                "the image is built, but the clean-up function did not mark it as available: look "
                "at the log group /aws/lambda/ParallelClusterImage-... and at its role"
            )
        reasons += self._gather("reasons", lambda: self.builds.fetch_reasons(name))
        log = self._gather("the log", lambda: self.builds.fetch_log_tail(name))
        left = self._gather(
            "leftovers", lambda: list(map(str, self.builds.find_leftovers(name, build)))
        )
        parts = [f"{image} was not baked: {name}: {status}", *dict.fromkeys(reasons)]
        # The log names the cause; what CloudFormation says follows from it.
        explained = render_explanations([*reasons, *log, status])
        if explained:
            parts.append(explained)
        if log:
            parts.append(f"the last {min(len(log), LOG_LINES)} lines of its log:")
            parts += [f"  {line}" for line in log]
        if left:
            parts += ["left in the account:", *(f"  {line}" for line in left)]
        parts.append("when the cause is mended, bake it again with --retry-failed")
        return StepFailedError("\n".join(parts))

    def _gather(self, what: str, call: Callable[[], list[str]]) -> list[str]:
        """Return what a call says; a refusal is said instead, and hides nothing else."""
        try:
            return call()
        except call_errors() as error:
            return [f"({what} could not be read: {error})"]

    def _delete(self, build: Build) -> Build | None:
        """Delete a build that failed; return None when it is gone.

        One that somebody is deleting already may be a good one's: its image is returned.
        """
        context, name = self.context, self.planned.name
        if build.status != "DELETE_IN_PROGRESS":
            context.progress.note(f"{self.planned.image}: deletes the build that failed, {name}")
            context.note("build deleted", name=name, status=build.status, reason=build.reason)
            self._ask("deleting the failed build", lambda: self.builds.delete(name))
        start = context.clock.now()
        while True:
            found = self._ask("looking at the build", lambda: self.builds.fetch(name))
            if found is None:
                self._started = None
                return None
            if found.ami:
                return found
            waited = (context.clock.now() - start).total_seconds()
            # What was DELETE_FAILED before says so until the new deletion has begun.
            begun = waited > _NOTE_SECONDS or build.status != "DELETE_FAILED"
            if (found.status == "DELETE_FAILED" and begun) or waited > _DELETE_SECONDS:
                raise self._failure(found)
            context.wait(5.0)

    def _wait_for_clean_up(self, build: Build) -> list[str]:
        """Return what stays of a build that succeeded, after its stack had time to go."""
        context, name = self.context, self.planned.name
        start = context.clock.now()
        try:
            while True:
                stack = self._ask("looking at its stack", lambda: self.builds.fetch_stack(name))
                waited = (context.clock.now() - start).total_seconds()
                if stack is None or stack["StackStatus"] == "DELETE_FAILED":
                    break
                if waited > _CLEAN_UP_SECONDS:
                    break
                context.wait(2.0)
            left = [str(each) for each in self.builds.find_leftovers(name, build)]
        except call_errors() as error:
            # The image is good: what could not be read of the leftovers does not undo it.
            left = [f"it is not known what the build of {name} left behind: {error}"]
        for line in left:
            context.progress.note(f"{self.planned.image}: {line}")
        if left:
            context.note("leftovers", image=self.planned.image, leftovers=left)
        return left


def _has_failed(build: Build) -> bool:
    return build.status in ("BUILD_FAILED", "DELETE_FAILED", "DELETE_COMPLETE")


def _is_going(build: Build) -> bool:
    return _has_failed(build) or build.status == "DELETE_IN_PROGRESS"


def upload_bundle(s3: Any, bucket: str, bundle: Bundle) -> int:
    """Send the scripts of a bundle that S3 does not have; return how many were sent."""
    sent = 0
    for key in bundle.keys:
        content = bundle.objects[key]
        digest = hashlib.sha256(content).hexdigest()
        if _is_there(s3, bucket, key, digest, len(content)):
            continue
        s3.put_object(
            Bucket=bucket,
            Key=key,
            Body=content,
            ContentType="text/x-shellscript",
            Metadata={_DIGEST: digest},
        )
        sent += 1
    return sent


def _is_there(s3: Any, bucket: str, key: str, digest: str, size: int) -> bool:
    from botocore.exceptions import ClientError

    try:
        found = s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        # Without permission to list the bucket, S3 answers 403 for an object that is not there.
        if code_of(error) in ("404", "403", "NoSuchKey", "NotFound"):
            return False
        raise
    same = found.get("Metadata", {}).get(_DIGEST) == digest
    return same and int(found["ContentLength"]) == size


def estimate_bake(
    definition: ImageDefinition, seconds: float, *, region: str, root: Path | None = None
) -> Decimal | None:
    """Return USD of the machine that bakes, or verifies, for some seconds, with its root volume.

    None where a price is unknown. The image's snapshot, which is paid for as long as it is kept,
    is not part of it.
    """
    prices = load_prices(region, root=root)
    machine = prices.instance(definition.build_instance_type)
    volume = prices.find("ebs", "gp3")
    if not isinstance(machine, Price) or not isinstance(volume, Price):
        return None
    hours = Decimal(str(seconds)) / 3600
    return hours * (machine.usd + volume.usd * definition.root_gib / HOURS_PER_MONTH)
