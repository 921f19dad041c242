"""Builds of images, from CREATING to AVAILABLE, at the pace of stand-in seconds.

No machine is started: a build passes Image Builder's stages, writes its log and registers an image.
What is on the image is made by `image_contents`; what goes wrong on request is in `fault_store`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ministack.services import ec2

from clusterbox.embedded.faults import BuildFault, CheckFault, Stage
from clusterbox.embedded.server import image_contents, image_log
from clusterbox.embedded.server.fault_store import is_held, take_image_fault
from clusterbox.embedded.server.image_contents import Component
from clusterbox.embedded.server.image_facts import (
    ImageFacts,
    break_checks,
    day_of,
    facts_of,
    keep_facts,
)
from clusterbox.embedded.server.image_workflows import (
    WORKFLOWS,
    end_workflow,
    now,
    start_workflow,
)
from clusterbox.embedded.server.images import add_tags, register_image
from clusterbox.embedded.server.ministack_api import account_id, new_id, new_uuid, region

SECONDS_VARIABLE = "CLUSTERBOX_IMAGE_BUILD_SECONDS"
_USUAL_SECONDS = 6.0
# Between two looks at whether a build is still held.
_LOOK_SECONDS = 0.05
# Share of the time that each stage takes.
_SHARES = {
    "CREATING": 0.02,
    "BUILDING": 0.6,
    "TESTING": 0.15,
    "DISTRIBUTING": 0.15,
    "INTEGRATING": 0.08,
}
_STATUS_OF_STAGE: dict[Stage, str] = {
    "build": "BUILDING",
    "validate": "BUILDING",
    "test": "TESTING",
    "distribute": "DISTRIBUTING",
}
_TAG_IMAGE_ID = "parallelcluster:image_id"


class BuildFailedError(Exception):
    """A build failed, or was cancelled; the text is Image Builder's reason."""


@dataclass
class Build:
    """One build of an image: what it is made of, how far it is, and what came of it."""

    arn: str
    recipe: Mapping[str, Any]
    infrastructure: Mapping[str, Any]
    distribution: Mapping[str, Any]
    components: list[Component]
    tags: Mapping[str, str]
    status: str = "PENDING"
    reason: str | None = None
    ami: str | None = None
    created: str = field(default_factory=now)
    workflows: list[dict[str, Any]] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def number(self) -> int:
        """The build's number among those of its recipe's version."""
        return int(self.arn.rpartition("/")[2])

    @property
    def image_id(self) -> str:
        """ParallelCluster's id of the image, or the recipe's name where it has none."""
        return self.tags.get(_TAG_IMAGE_ID) or str(self.recipe["Name"])

    @property
    def image(self) -> str:
        """Name of the image's definition, or its id where it has none."""
        return self.tags.get("clusterbox:image") or self.image_id

    @property
    def amis(self) -> list[dict[str, Any]]:
        """The images that the build made, as Image Builder tells them."""
        record = ec2._images.get(self.ami or "")
        if record is None:
            return []
        names = {"name": record["Name"], "description": record["Description"]}
        return [{"region": region(), "image": self.ami, "accountId": account_id(), **names}]


def run(build: Build) -> None:
    """Pass every stage; blocks for the whole build. Raises BuildFailedError where one fails."""
    try:
        _pass_stages(build)
    except BuildFailedError as error:
        build.status = "CANCELLED" if build.cancelled.is_set() else "FAILED"
        build.reason = str(error)
        for workflow in build.workflows:
            if workflow["status"] == "RUNNING":
                end_workflow(workflow, build.status, build.reason)
        raise
    finally:
        build.done.set()


def cancel(build: Build) -> None:
    """Stop a build that is under way, and wait until it has stopped."""
    build.cancelled.set()
    build.done.wait(timeout=10)


def _pass_stages(build: Build) -> None:
    seconds = float(os.environ.get(SECONDS_VARIABLE, _USUAL_SECONDS))
    fault = take_image_fault(BuildFault, build.image, build.image_id)
    checks = take_image_fault(CheckFault, build.image, build.image_id)
    version = str(build.recipe["Version"])
    log = image_log.BuildLog(str(build.recipe["Name"]), version, build.number)
    stages = _Stages(build, log, seconds, fault)
    stages.enter("CREATING")
    stages.wait(1)
    stages.enter("BUILDING")
    facts = _build_on_machine(stages)
    stages.enter("TESTING")
    _test_on_machine(stages, facts)
    stages.enter("DISTRIBUTING")
    _distribute(stages)
    stages.enter("INTEGRATING")
    stages.wait(1)
    if checks is not None:
        break_checks(str(build.ami), checks.checks)
    stages.enter("AVAILABLE")


@dataclass
class _Stages:
    """Where a build is, how long its stages take, and where it is to fail."""

    build: Build
    log: image_log.BuildLog
    seconds: float
    fault: BuildFault | None

    def enter(self, status: str) -> None:
        """Go to the next stage, with the workflow of the last one completed."""
        if self.build.workflows and self.build.workflows[-1]["status"] == "RUNNING":
            end_workflow(self.build.workflows[-1], "COMPLETED", "")
        self.build.status = status
        self.log.write(f"Image transitioned to {status} state for Image ARN: {self.build.arn}")
        if status in WORKFLOWS:
            kind, name, steps = WORKFLOWS[status]
            arn = f"arn:aws:imagebuilder:{region()}:aws:workflow/{name}/1.0.0/1"
            self.build.workflows.append(start_workflow(arn, kind, steps))
            self.log.write(f"Started {kind} workflow {arn}")
        while is_held(self.build.image, self.build.image_id, status):
            self._pause(_LOOK_SECONDS)

    def wait(self, parts: int) -> None:
        """Wait for one of the equal parts of the stage; raise where the build is cancelled."""
        self._pause(self.seconds * _SHARES[self.build.status] / parts)

    def _pause(self, seconds: float) -> None:
        if self.build.cancelled.wait(seconds):
            self.log.write("Image creation was cancelled")
            raise BuildFailedError("The image creation was cancelled")

    def fails_at(self, stage: Stage) -> bool:
        """Return whether the build is to fail at this stage."""
        return self.fault is not None and self.fault.stage == stage

    def fail(self, component: Component | None, stage: Stage, message: str | None = None) -> None:
        """Write how it failed, and raise BuildFailedError as Image Builder words it."""
        said = self.fault.log if self.fault is not None else ()
        if component is not None:
            phase = "build" if stage == "distribute" else stage
            self.log.write(*image_log.failure_lines(component, phase, said))
            message = message or f"Document {component.arn} failed!"
        elif said:
            self.log.write(*said)
        if self.fault is not None:
            message = self.fault.reason or message
        reason = (
            f"SSM execution '{new_uuid()}' failed for image arn: '{self.build.arn}' with status = "
            f"'Failed' in state = '{_STATUS_OF_STAGE[stage]}' and failure message = '{message}'"
        )
        self.log.write(reason)
        raise BuildFailedError(reason)


def _build_on_machine(stages: _Stages) -> ImageFacts:
    """Run the components' build and validate phases, and make the image of the result."""
    build, log = stages.build, stages.log
    parent = str(build.recipe["ParentImage"])
    if parent.startswith("ami-") and parent not in ec2._images:
        stages.fail(None, "build", f"The image id '[{parent}]' does not exist")
    log.write(f"Resolved Image Recipe parent image {parent} to AMI {parent}.")
    log.write("Started step LaunchBuildInstance with action LaunchInstance")
    log.write("Started step ApplyBuildComponents with action ExecuteComponents")
    broken = _failing_component(stages)
    for component in build.components:
        if component.script_is_missing():
            log.write(
                f"Stdout: fatal error: An error occurred (404) when calling the HeadObject "
                f"operation: Key {component.script} does not exist"
            )
            stages.fail(component, "build")
        if component is broken:
            stages.fail(component, "build")
        log.write(*image_log.phase_lines(component, "build"))
        stages.wait(len(build.components) + 1)
    for component in build.components:
        log.write(*image_log.phase_lines(component, "validate"))
    if stages.fails_at("validate"):
        stages.fail(build.components[-1], "validate")
    facts = _make_facts(build, parent)
    _register(build, facts)
    log.write("Started step CreateOutputAMI with action CreateImage", f"AMI {build.ami}")
    stages.wait(len(build.components) + 1)
    return facts


def _failing_component(stages: _Stages) -> Component | None:
    """Return the component that a fault of the build stage hits: ParallelCluster's, or the last."""
    if not stages.fails_at("build"):
        return None
    components = stages.build.components
    own = [c for c in components if c.name == image_contents.PARALLELCLUSTER]
    return (own or components)[-1]


def _make_facts(build: Build, parent: str) -> ImageFacts:
    mappings = build.recipe.get("BlockDeviceMappings") or [{}]
    size = (mappings[0].get("Ebs") or {}).get("VolumeSize")
    on_parent = facts_of(parent)
    return image_contents.make_image_facts(
        build.components,
        on_parent,
        version=str(build.recipe["Version"]),
        day=day_of(build.image_id),
        root_gib=int(size or on_parent.root_gib),
    )


def _register(build: Build, facts: ImageFacts) -> None:
    """Make the image, tagged as Image Builder does before it is distributed."""
    mappings = build.recipe.get("BlockDeviceMappings") or [{}]
    encrypted = str((mappings[0].get("Ebs") or {}).get("Encrypted", "false")).lower() == "true"
    build.ami = new_id("ami")
    register_image(
        build.ami,
        f"{build.recipe['Name']} {_stamp()}"[:128],
        architecture=facts.architecture,
        root_gib=facts.root_gib,
        encrypted=encrypted,
    )
    keep_facts(build.ami, facts)
    add_tags(build.ami, {"CreatedBy": "EC2 Image Builder", "Ec2ImageBuilderArn": build.arn})


def _test_on_machine(stages: _Stages, facts: ImageFacts) -> None:
    """Run the components' test phase, in which ParallelCluster tags the image."""
    build = stages.build
    tagging = None
    for component in build.components:
        stages.log.write(*image_log.phase_lines(component, "test"))
        if component.name == image_contents.TAGGING:
            tagging = component
    if stages.fails_at("test"):
        stages.fail(tagging or build.components[-1], "test")
    if tagging is not None:
        found = {
            "kernel_version": facts.kernel,
            "sudo_version": facts.packages.get("sudo"),
            "lustre_version": facts.packages.get("lustre-client"),
            "efa_version": facts.packages.get("efa"),
            "slurm_version": facts.slurm_version,
        }
        tags = {f"parallelcluster:{key}": value for key, value in found.items() if value}
        add_tags(str(build.ami), {"parallelcluster:os": "alinux2023", **tags})
        shown = {"kernel": facts.kernel, "slurm": facts.slurm_version}
        told = "".join(f", {key}-{value}" for key, value in shown.items() if value)
        ec2._images[build.ami]["Description"] = f"AWS ParallelCluster AMI for alinux2023{told}"
    stages.wait(1)


def _distribute(stages: _Stages) -> None:
    """Give the image its name, tags and launch permissions in this region."""
    build = stages.build
    stages.wait(1)
    if stages.fails_at("distribute"):
        stages.fail(None, "distribute", f"Not able to distribute {build.ami} to {region()}")
    for distribution in build.distribution.get("Distributions") or []:
        if distribution.get("Region") != region():
            continue
        settings = distribution.get("AmiDistributionConfiguration") or {}
        record = ec2._images[build.ami]
        pattern = str(settings.get("Name") or record["Name"])
        record["Name"] = pattern.replace("{{ imagebuilder:buildDate }}", _stamp())
        add_tags(str(build.ami), {k: str(v) for k, v in (settings.get("AmiTags") or {}).items()})
        allowed = (settings.get("LaunchPermissionConfiguration") or {}).get("UserIds") or []
        record["LaunchPermissions"] = [{"UserId": str(user)} for user in allowed]


def _stamp() -> str:
    """Return Image Builder's buildDate: a time that may stand in the name of an AMI."""
    return now().replace(":", "-")
