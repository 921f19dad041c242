"""An account in memory for the steps of a patch day.

Time runs when somebody waits, calls can be refused one by one, and a process can be killed before
or after any of them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from botocore.exceptions import ClientError

from clusterbox.deployment.progress import Progress
from clusterbox.images.builds import Builds
from clusterbox.images.components import render_bundle
from clusterbox.images.context import Clock, Context
from clusterbox.images.plan import Options, Plan, PlannedImage, Step
from clusterbox.pcluster import PclusterError, refuse_roles_of_its_own
from clusterbox.site.image_definitions import bake_name, load_image_definition
from clusterbox.site.load import Repository
from tests.conftest import ROOT

RUN = "2026-11-22"
PARENT = "ami-0aaaaaaaaaaaaaaa1"
WS_DEV = Repository(ROOT).load_environment("ws-dev")
START = datetime(2026, 11, 22, 8, tzinfo=UTC)
STAGES = ("BUILDING", "TESTING", "DISTRIBUTING", "INTEGRATING")
MINUTE = 60.0


class Killed(BaseException):
    """The process is gone: nothing that comes after it happens."""


def refusal(code: str, message: str = "", operation: str = "Operation") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message or code}}, operation)


@dataclass
class FakeBuild:
    """A build that runs for some time and ends as `outcome` says: available, failed or unmarked."""

    started: datetime
    seconds: float
    outcome: str
    reason: str
    tags: dict[str, str]
    ami: str
    # The stack goes this long after the end; "DELETE_FAILED" stays.
    clean_up: str = "DELETE_COMPLETE"
    deleted: datetime | None = None


@dataclass
class World:
    """The account, its clock, and what was asked of it."""

    now: datetime = START
    calls: list[str] = field(default_factory=list)
    faults: dict[str, list[Exception]] = field(default_factory=dict)
    # Index of a call, and whether the process is killed before it or after it.
    kill: tuple[int, str] | None = None
    dead: bool = False
    build_seconds: float = 30 * MINUTE
    outcome: str = "available"
    reason: str = ""
    clean_up: str = "DELETE_COMPLETE"
    log: list[str] = field(default_factory=list)
    builds: dict[str, FakeBuild] = field(default_factory=dict)
    begun: list[str] = field(default_factory=list)
    configurations: list[Mapping[str, Any]] = field(default_factory=list)
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    images: set[str] = field(default_factory=lambda: {PARENT})
    tags: dict[str, dict[str, str]] = field(default_factory=dict)
    machines: dict[str, dict[str, Any]] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    online: bool = True
    # State that a machine has when it should run, with the reason.
    machine_state: str = "running"
    machine_reason: str = ""
    notes: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)

    def call(self, name: str, effect: Callable[[], Any]) -> Any:
        if self.dead:
            raise Killed
        index = len(self.calls)
        self.calls.append(name)
        if self.kill == (index, "before"):
            self.dead = True
            raise Killed
        if self.faults.get(name):
            raise self.faults[name].pop(0)
        try:
            return effect()
        finally:
            if self.kill == (index, "after"):
                self.dead = True
                raise Killed

    def restart(self) -> None:
        """Go on with a new process."""
        self.dead, self.kill = False, None

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def client(self, service: str) -> Client:
        return Client(self, service)

    @property
    def alive(self) -> list[str]:
        """Machines that run and cost."""
        return [name for name, each in self.machines.items() if each["State"]["Name"] == "running"]

    # EC2

    def ec2_describe_images(self, **words: Any) -> Any:
        for ami in words["ImageIds"]:
            if ami not in self.images:
                raise refusal("InvalidAMIID.NotFound", f"The image id '[{ami}]' does not exist")
        return {
            "Images": [
                {"ImageId": ami, "State": "available", "RootDeviceName": "/dev/xvda"}
                for ami in words["ImageIds"]
            ]
        }

    def ec2_describe_security_groups(self, **_words: Any) -> Any:
        return {"SecurityGroups": [{"GroupId": "sg-00000001"}]}

    def ec2_describe_instances(self, **words: Any) -> Any:
        wanted = words.get("InstanceIds")
        states = ("pending", "running", "stopping", "stopped")
        found = [
            each
            for name, each in self.machines.items()
            if (name in wanted if wanted else each["State"]["Name"] in states)
        ]
        return {"Reservations": [{"Instances": found}]}

    def ec2_run_instances(self, **words: Any) -> Any:
        token = words["ClientToken"]
        if token not in self.tokens:
            name = f"i-{len(self.machines) + 1:08x}"
            self.tokens[token] = name
            self.machines[name] = {
                "InstanceId": name,
                "ImageId": words["ImageId"],
                "State": {"Name": self.machine_state},
                "StateReason": {"Code": "", "Message": self.machine_reason},
                "Tags": words["TagSpecifications"][0]["Tags"],
                "Request": words,
            }
        answer = {**self.machines[self.tokens[token]]}
        if self.machine_state != "running":
            answer["State"] = {"Name": "pending"}
        return {"Instances": [answer]}

    def ec2_terminate_instances(self, **words: Any) -> Any:
        for name in words["InstanceIds"]:
            self.machines[name]["State"] = {"Name": "terminated"}
        return {}

    def ec2_create_tags(self, **words: Any) -> Any:
        for name in words["Resources"]:
            if name not in self.images:
                raise refusal("InvalidAMIID.NotFound", f"The image id '[{name}]' does not exist")
            tags = {tag["Key"]: tag["Value"] for tag in words["Tags"]}
            self.tags.setdefault(name, {}).update(tags)
        return {}

    # Other services

    def ssm_describe_instance_information(self, **_words: Any) -> Any:
        return {"InstanceInformationList": [{"PingStatus": "Online"}] if self.online else []}

    def s3_head_object(self, **words: Any) -> Any:
        if words["Key"] not in self.objects:
            raise refusal("404", "Not Found", "HeadObject")
        found = self.objects[words["Key"]]
        return {"Metadata": found["Metadata"], "ContentLength": len(found["Body"])}

    def s3_put_object(self, **words: Any) -> Any:
        self.objects[words["Key"]] = words
        return {}

    def s3_list_objects_v2(self, **_words: Any) -> Any:
        return {"CommonPrefixes": [{"Prefix": folder} for folder in self.folders]}

    def imagebuilder_list_image_build_versions(self, **_words: Any) -> Any:
        return {"imageSummaryList": [{"state": {"status": "PENDING"}}]}

    def cloudformation_describe_stacks(self, **words: Any) -> Any:
        build = self.builds.get(words["StackName"])
        status = self.stack_status(build) if build else None
        if status is None:
            name = words["StackName"]
            raise refusal("ValidationError", f"Stack with id {name} does not exist")
        return {"Stacks": [{"StackStatus": status, "Tags": []}]}

    # ParallelCluster

    def stack_status(self, build: FakeBuild) -> str | None:
        """Return the status of the stack of a build; None where it is gone."""
        elapsed = (self.now - build.started).total_seconds()
        if build.deleted is not None:
            gone = (self.now - build.deleted).total_seconds() > MINUTE
            return None if gone else "DELETE_IN_PROGRESS"
        if elapsed < build.seconds:
            return "CREATE_IN_PROGRESS"
        if build.outcome == "failed":
            return "CREATE_FAILED"
        if build.outcome == "unmarked":
            return "CREATE_COMPLETE"
        if elapsed < build.seconds + MINUTE:
            return "DELETE_IN_PROGRESS"
        return build.clean_up if build.clean_up == "DELETE_FAILED" else None


@dataclass
class Door:
    """ParallelCluster's commands on the account."""

    world: World

    def build_image(self, image: str, configuration: Mapping[str, Any], region: str) -> Any:
        return self.world.call("build-image", lambda: self._build(image, configuration))

    def _build(self, image: str, configuration: Mapping[str, Any]) -> None:
        world = self.world
        refuse_roles_of_its_own(configuration)
        build = world.builds.get(image)
        if build is not None and (build.outcome != "failed" or world.stack_status(build)):
            raise PclusterError(
                f"`pcluster build-image`: ParallelCluster build infrastructure for image {image} "
                "or a CloudFormation Stack with the same name already exists."
            )
        world.begun.append(image)
        world.configurations.append(configuration)
        tags = {tag["Key"]: tag["Value"] for tag in configuration["Build"]["Tags"]}
        world.builds[image] = FakeBuild(
            world.now,
            world.build_seconds,
            world.outcome,
            world.reason,
            tags,
            f"ami-{len(world.begun):017x}",
            world.clean_up,
        )

    def fetch_image(self, image: str, region: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.world.call(
            "describe-image", lambda: self._describe(image)
        )
        return found

    def _describe(self, image: str) -> dict[str, Any] | None:
        world, build = self.world, self.world.builds.get(image)
        status = world.stack_status(build) if build else None
        if build is None:
            return None
        elapsed = (world.now - build.started).total_seconds()
        if build.outcome == "available" and elapsed >= build.seconds:
            world.images.add(build.ami)
            tags = {**build.tags, "parallelcluster:parent_image": PARENT}
            return {
                "imageBuildStatus": "BUILD_COMPLETE",
                "ec2AmiInfo": {
                    "amiId": build.ami,
                    "state": "AVAILABLE",
                    "tags": [{"key": key, "value": value} for key, value in tags.items()],
                },
            }
        if status is None:
            return None
        stage = STAGES[min(3, int(4 * elapsed / build.seconds))]
        states = {
            "CREATE_IN_PROGRESS": "BUILD_IN_PROGRESS",
            "CREATE_FAILED": "BUILD_FAILED",
            "CREATE_COMPLETE": "BUILD_COMPLETE",
        }
        return {
            "imageBuildStatus": states.get(status, status),
            "imagebuilderImageStatus": "FAILED" if status == "CREATE_FAILED" else stage,
            "cloudformationStackStatus": status,
            "cloudformationStackStatusReason": build.reason,
            "cloudformationStackCreationTime": build.started.isoformat(),
            "cloudformationStackTags": [
                {"key": key, "value": value} for key, value in build.tags.items()
            ],
        }

    def delete_image(self, image: str, region: str, *, force: bool = False) -> None:
        def delete() -> None:
            self.world.builds[image].deleted = self.world.now

        self.world.call("delete-image", delete)

    def fetch_image_log(self, image: str, region: str, *, lines: int) -> list[str]:
        found: list[str] = self.world.call("get-image-log-events", lambda: self.world.log[-lines:])
        return found

    def fetch_image_stack_events(self, image: str, region: str) -> list[dict[str, Any]]:
        event = {
            "logicalResourceId": "ParallelClusterImage",
            "resourceStatus": "CREATE_FAILED",
            "resourceStatusReason": self.world.reason,
        }
        found: list[dict[str, Any]] = self.world.call(
            "get-image-stack-events", lambda: [event] if self.world.reason else []
        )
        return found


@dataclass(frozen=True)
class Client:
    """boto3's client of a service; operations are methods of the world."""

    world: World
    service: str

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        effect = getattr(self.world, f"{self.service}_{operation}")
        return lambda **words: self.world.call(
            f"{self.service}:{operation}", lambda: effect(**words)
        )

    def get_paginator(self, operation: str) -> Pages:
        return Pages(getattr(self, operation))


@dataclass(frozen=True)
class Pages:
    """A paginator of one page."""

    ask: Callable[..., Any]

    def paginate(self, **words: Any) -> list[Any]:
        return [self.ask(**words)]


@dataclass
class Notes(Progress):
    """Keeps what a step tells."""

    world: World | None = None

    def note(self, text: str) -> None:
        assert self.world is not None
        self.world.shown.append(text)


@dataclass(frozen=True)
class FakeTarget:
    """The account as a target of steps."""

    world: World
    name: str = "embedded"
    asks_first: bool = False

    def process_environment(self) -> dict[str, str]:
        return {}

    def client(self, service: str) -> Any:
        return self.world.client(service)


@cache
def plan_image(image: str = "compute") -> PlannedImage:
    definition = load_image_definition(ROOT, image)
    return PlannedImage(
        image=image,
        name=bake_name("ws-dev", image, RUN),
        parent=PARENT,
        bundle=render_bundle(ROOT, definition, WS_DEV).digest,
    )


BAKE = Step(id="bake:compute", action="bake", subject={"image": "compute"})
VERIFY = Step(id="verify:compute", action="verify", subject={"image": "compute"})


def make_context(world: World, planned: PlannedImage | None = None, **changes: Any) -> Context:
    """Return the context of a run that bakes `compute`."""
    plan = Plan(
        run=RUN,
        environment="ws-dev",
        created=START.isoformat(),
        options=Options(),
        images=(planned or plan_image(),),
        steps=(BAKE, VERIFY),
        world={},
    )
    context = Context(
        root=ROOT,
        environment=WS_DEV,
        target=FakeTarget(world),  # type: ignore[arg-type] # what is used of a target
        progress=Notes(world=world),
        plan=plan,
        clock=Clock(now=lambda: world.now, sleep=world.sleep),
        note=lambda event, **facts: world.notes.append((event, facts)),
    )
    return replace(context, **changes)


def make_builds(world: World) -> Builds:
    return Builds(WS_DEV, Door(world), world.client)


def user_data(request: Mapping[str, Any]) -> str:
    """Return the user data of a request as it was given: boto3 encodes it on its way."""
    text: str = request["UserData"]
    assert base64.b64encode(text.encode())
    return text


def checks_output(*lines: Mapping[str, Any], status: int = 0) -> str:
    """Return what the checks of an image print."""
    return "".join(json.dumps(line) + "\n" for line in [*lines, {"exit": status}])
