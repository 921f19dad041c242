"""The builds of images in an account: what ParallelCluster and Image Builder say of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from clusterbox.errors import InputError
from clusterbox.images.failures import call_errors, code_of
from clusterbox.site import names

if TYPE_CHECKING:
    from clusterbox.images.context import Context
    from clusterbox.site.environment import Environment

LOG_LINES = 30
TAG_BUNDLE = "clusterbox:bundle"
# The clean-up function sets it on the AMI of a build that succeeded (delete_image_stack.py).
TAG_PARENT = "parallelcluster:parent_image"
_TAG_FOLDER = "parallelcluster:s3_image_dir"
# Of 63 characters the last 17 are a hyphen and what makes the folder unique.
_MOST_NAME = 46
# pcluster.constants.PCLUSTER_IMAGE_ID_REGEX.
_IMAGE_ID = re.compile(r"[a-zA-Z][a-zA-Z0-9-]{0,127}")


class Door(Protocol):
    """What is used of `clusterbox.pcluster.Pcluster`."""

    def build_image(self, image: str, configuration: Mapping[str, Any], region: str) -> Any:
        """Begin to build."""

    def fetch_image(self, image: str, region: str) -> dict[str, Any] | None:
        """Return what there is of an image."""

    def delete_image(self, image: str, region: str, *, force: bool = False) -> None:
        """Begin to delete."""

    def fetch_image_log(self, image: str, region: str, *, lines: int) -> list[str]:
        """Return the last lines of the log."""

    def fetch_image_stack_events(self, image: str, region: str) -> list[dict[str, Any]]:
        """Return the events of the stack."""


@dataclass(frozen=True, kw_only=True)
class Build:
    """One build, or the image that came out of it."""

    # ParallelCluster's: BUILD_IN_PROGRESS, BUILD_COMPLETE, BUILD_FAILED, DELETE_IN_PROGRESS, ...
    status: str
    # Image Builder's: PENDING, BUILDING, TESTING, DISTRIBUTING, INTEGRATING, AVAILABLE, FAILED.
    stage: str | None = None
    reason: str = ""
    # Known as soon as the image is available and marked.
    ami: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    # When its stack was made; None where the stack is gone.
    started: datetime | None = None
    stack_status: str | None = None


@dataclass(frozen=True)
class Leftover:
    """Something of a build that stays in the account until somebody removes it."""

    what: str
    command: str

    def __str__(self) -> str:
        """Return it for people, with the command that removes it."""
        return f"{self.what}; remove it with: {self.command}"


@dataclass(frozen=True)
class Builds:
    """The builds of an environment's images; `client` makes a boto3 client of a service."""

    environment: Environment
    pcluster: Door = field(repr=False)
    client: Callable[[str], Any] = field(repr=False)

    @property
    def region(self) -> str:
        """Region of the account."""
        return self.environment.region

    def fetch(self, name: str) -> Build | None:
        """Return the build or image of this name; None where there is neither.

        Raises PclusterError where ParallelCluster does not say.
        """
        answer = self.pcluster.fetch_image(name, self.region)
        if answer is None:
            return None
        image = answer.get("ec2AmiInfo") or {}
        tags = image.get("tags") or answer.get("cloudformationStackTags") or ()
        stage = answer.get("imagebuilderImageStatus")
        status = str(answer["imageBuildStatus"])
        if stage is None and status == "BUILD_IN_PROGRESS":
            stage = self._fetch_stage(name)
        reasons = (
            answer.get("imagebuilderImageStatusReason"),
            answer.get("cloudformationStackStatusReason"),
        )
        return Build(
            status=status,
            stage=stage,
            reason="\n".join(dict.fromkeys(str(reason) for reason in reasons if reason)),
            ami=image.get("amiId") if image.get("state", "AVAILABLE") == "AVAILABLE" else None,
            tags={str(tag["key"]): str(tag["value"]) for tag in tags},
            started=_parse_time(answer.get("cloudformationStackCreationTime")),
            stack_status=answer.get("cloudformationStackStatus"),
        )

    def start(self, name: str, configuration: Mapping[str, Any]) -> None:
        """Begin a build.

        Raises InputError for a name that ParallelCluster does not take and for a configuration
        without the site's roles, PclusterError where ParallelCluster refuses.
        """
        if not _IMAGE_ID.fullmatch(name):
            raise InputError(
                f"{name!r} cannot be the id of an image: at most 128 letters, digits and hyphens, "
                "of which the first is a letter"
            )
        self.pcluster.build_image(name, configuration, self.region)

    def delete(self, name: str) -> None:
        """Begin to delete an image that failed, with its stack."""
        self.pcluster.delete_image(name, self.region, force=True)

    def fetch_log_tail(self, name: str) -> list[str]:
        """Return the last lines of the build's log; raises PclusterError where it cannot be read."""
        return self.pcluster.fetch_image_log(name, self.region, lines=LOG_LINES)

    def fetch_reasons(self, name: str) -> list[str]:
        """Return why resources of the build's stack failed, the first failure first."""
        events = self.pcluster.fetch_image_stack_events(name, self.region)
        found = [
            f"{event.get('logicalResourceId')}: {event.get('resourceStatus')}: "
            f"{event['resourceStatusReason']}"
            for event in reversed(events)
            if str(event.get("resourceStatus", "")).endswith("FAILED")
            and event.get("resourceStatusReason")
        ]
        return list(dict.fromkeys(found))

    def find_leftovers(self, name: str, build: Build | None) -> list[Leftover]:
        """Return what a build has left behind: its stack, and folders of calls that were killed.

        `build` is what it is now; None where it is gone.
        """
        stack = self.fetch_stack(name)
        used = {build.tags.get(_TAG_FOLDER)} if build else set()
        found: list[Leftover] = []
        if stack is not None:
            used |= {tag["Value"] for tag in stack.get("Tags") or () if tag["Key"] == _TAG_FOLDER}
            where = f"{name} --region {self.region}"
            # With the stack of its build, `delete-image` would delete a good image too.
            command = (
                f"aws cloudformation delete-stack --stack-name {where}"
                if build is not None and build.status == "BUILD_COMPLETE"
                else f"pcluster delete-image --image-id {where} --force true"
            )
            found.append(Leftover(f"stack {name} ({stack['StackStatus']})", command))
        bucket = self.environment.storage.buckets.cluster_config.name
        for folder in self._fetch_folders(name):
            if folder not in used:
                uri = f"s3://{bucket}/{folder}/"
                command = f"aws s3 rm --recursive {uri} --region {self.region}"
                found.append(Leftover(f"files of a call that was cut off, {uri}", command))
        return found

    def fetch_stack(self, name: str) -> dict[str, Any] | None:
        """Return the stack of a build as CloudFormation describes it; None where it is gone."""
        try:
            stacks = self.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
        except call_errors() as error:
            if code_of(error) == "ValidationError" and "does not exist" in str(error):
                return None
            raise
        return dict(stacks[0]) if stacks else None

    def _fetch_stage(self, name: str) -> str | None:
        """Return the stage from Image Builder itself, which lists a build before its stack does."""
        environment = self.environment
        arn = (
            f"arn:{environment.partition}:imagebuilder:{environment.region}:{environment.account}:"
            f"image/parallelclusterimage-{name.lower()}/{names.PARALLELCLUSTER_VERSION}"
        )
        try:
            answer = self.client("imagebuilder").list_image_build_versions(imageVersionArn=arn)
        except call_errors():
            return None  # The stage is news, not needed: what matters is the status.
        versions = answer.get("imageSummaryList") or []
        return str(versions[-1]["state"]["status"]) if versions else None

    def _fetch_folders(self, name: str) -> list[str]:
        """Return the folders of ParallelCluster's artefacts of an image's builds."""
        # pcluster.utils.generate_random_name_with_prefix; a longer name is cut off, and the folder
        # could be another image's.
        if len(name) > _MOST_NAME:
            return []
        prefix = f"parallelcluster/{names.PARALLELCLUSTER_VERSION}/images/{name.lower()}-"
        pages = (
            self.client("s3")
            .get_paginator("list_objects_v2")
            .paginate(
                Bucket=self.environment.storage.buckets.cluster_config.name,
                Prefix=prefix,
                Delimiter="/",
            )
        )
        folders = [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes") or ()]
        own = re.compile(re.escape(prefix) + r"[a-z0-9]{16}/")
        return sorted(folder.rstrip("/") for folder in folders if own.fullmatch(folder))


def open_builds(context: Context) -> Builds:
    """Return the builds of the run's account."""
    from clusterbox.pcluster import Pcluster

    door = Pcluster(context.root / ".venv-pcluster", context.target.process_environment())
    return Builds(context.environment, door, context.client)


def _parse_time(text: Any) -> datetime | None:
    if not text:
        return None
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None
