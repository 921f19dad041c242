"""EC2 Image Builder's CloudFormation types: definitions, and images, whose creation is a build.

A build that succeeds is told to its topic, and so to ParallelCluster's real clean-up function, which
tags the image and deletes the stack. One that fails is not: the function would do nothing.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from ministack.core.responses import AccountRegionScopedDict, request_scope
from ministack.services import cloudformation, lambda_svc, sns
from ministack.services.cloudformation import stacks

from clusterbox.embedded.faults import CleanUpFault
from clusterbox.embedded.server import image_builder_api, image_builds, image_contents
from clusterbox.embedded.server.fault_store import take_image_fault
from clusterbox.embedded.server.image_builds import Build, BuildFailedError
from clusterbox.embedded.server.ministack_api import (
    CreateHandler,
    Properties,
    Resource,
    ResourceFailedError,
    ResourceType,
    UpdateHandler,
    account_id,
    new_uuid,
    region,
)

IMAGE = "AWS::ImageBuilder::Image"
# Account and region scoped like ministack's own stores: ARN -> record.
_records = AccountRegionScopedDict()
# How long a notice waits for the stack that holds the image; it then goes out all the same.
_MOST_NOTICE_SECONDS = 30.0
# How long a deletion waits for the end of the creation that it cuts off.
_MOST_END_SECONDS = 10.0


def _arn(kind: str, properties: Properties) -> str:
    name = str(properties["Name"]).lower().replace(" ", "-").replace("_", "-")
    version = f"/{properties['Version']}" if "Version" in properties else ""
    build = "/1" if kind == "component" else ""
    return f"arn:aws:imagebuilder:{region()}:{account_id()}:{kind}/{name}{version}{build}"


def _attributes(arn: str, properties: Properties) -> dict[str, Any]:
    return {"Arn": arn, "Name": properties["Name"]}


def _creator(kind: str) -> CreateHandler:
    def create(_logical_id: str, properties: Properties, _stack: str) -> Resource:
        arn = _arn(kind, properties)
        if arn in _records:
            raise ResourceFailedError(f"{arn} already exists (ResourceAlreadyExistsException)")
        _require_references(properties)
        _records[arn] = {"kind": kind, "arn": arn, "properties": properties}
        return arn, _attributes(arn, properties)

    return create


def _require_references(properties: Properties) -> None:
    """Raise where a property names what does not exist in this account."""
    own = f":{account_id()}:"
    for name, value in properties.items():
        if name.endswith("Arn") and ":imagebuilder:" in str(value) and own in str(value):
            _require(str(value))


def _require(arn: str) -> None:
    if arn not in _records:
        raise ResourceFailedError(f"{arn} does not exist (ResourceNotFoundException)")


def _update(arn: str, _old: Properties, properties: Properties, _stack: str) -> Resource:
    _require(arn)
    _records[arn] = {**_records[arn], "properties": properties}
    return arn, _attributes(arn, properties)


def _delete(arn: str, _properties: Properties) -> None:
    record = _records.get(arn)
    users = [r["arn"] for r in _records.values() if arn in json.dumps(r["properties"])]
    if record and users:
        raise ResourceFailedError(f"{arn} is used by {users[0]} (ResourceDependencyException)")
    _records.pop(arn, None)


def _create_image(logical_id: str, properties: Properties, stack_name: str) -> Resource:
    """Build the image; blocks on a thread of its own, while the stack stays in progress."""
    _require_references(properties)
    build = _new_build(properties)
    _records[build.arn] = {
        "kind": "image",
        "arn": build.arn,
        "properties": properties,
        "build": build,
        "stack": stack_name,
    }
    resource = _show_in_stack(stack_name, logical_id, build.arn, properties)
    topic = str(build.infrastructure.get("SnsTopicArn") or "")
    try:
        image_builds.run(build)
    except BuildFailedError as error:
        reason = (
            f"Resource handler returned message: \"Error occurred during operation '{error}'.\" "
            f"(RequestToken: {new_uuid()}, HandlerErrorCode: GeneralServiceException)"
        )
        resource |= {"ResourceStatus": "CREATE_FAILED", "ResourceStatusReason": reason}
        _forget_after_rollback(stack_name, logical_id, build.arn)
        raise ResourceFailedError(reason) from error
    if topic:
        message = json.dumps(image_builder_api.describe_image(_records[build.arn]))
        _publish_after_creation(stack_name, topic, message)
    attributes = {"Arn": build.arn, "Name": build.recipe["Name"], "ImageId": build.ami}
    return build.arn, attributes


def _new_build(properties: Properties) -> Build:
    recipe = dict(_records[properties["ImageRecipeArn"]]["properties"])
    components = []
    for entry in recipe.get("Components") or []:
        arn = str(entry["ComponentArn"])
        record = _records.get(arn)
        components.append(
            image_contents.read_component(arn, record["properties"] if record else {})
        )
    version = _arn("image", {"Name": recipe["Name"], "Version": recipe["Version"]})
    number = 1 + sum(1 for arn in list(_records) if str(arn).rpartition("/")[0] == version)
    distribution = _records.get(properties.get("DistributionConfigurationArn") or "")
    return Build(
        arn=f"{version}/{number}",
        recipe=recipe,
        infrastructure=_records[properties["InfrastructureConfigurationArn"]]["properties"],
        distribution=distribution["properties"] if distribution else {},
        components=components,
        tags={key: str(value) for key, value in (properties.get("Tags") or {}).items()},
    )


def _show_in_stack(
    stack_name: str, logical_id: str, arn: str, properties: Properties
) -> dict[str, Any]:
    """Enter the image into its stack while it is built: callers follow the build by its ARN."""
    stack = cloudformation._stacks[stack_name]
    resource = {
        "PhysicalResourceId": arn,
        "ResourceType": IMAGE,
        "ResourceStatus": "CREATE_IN_PROGRESS",
        "ResourceStatusReason": "Resource creation Initiated",
        "LogicalResourceId": logical_id,
        "Properties": properties,
        "Attributes": {},
        "Timestamp": stacks.now_iso(),
    }
    stack["_resources"][logical_id] = resource
    reason = "Resource creation Initiated"
    stack_id, status = stack["StackId"], "CREATE_IN_PROGRESS"
    stacks._add_event(stack_id, stack_name, logical_id, IMAGE, status, reason, arn)
    return resource


def _forget_after_rollback(stack_name: str, logical_id: str, arn: str) -> None:
    """Take a failed image out of a stack that rolls back: ministack deletes only what was made."""
    stack = cloudformation._stacks[stack_name]
    if not stack.get("DisableRollback"):
        stack["_resources"].pop(logical_id, None)
        _records.pop(arn, None)


def _publish_after_creation(stack_name: str, topic: str, message: str) -> None:
    """Send Image Builder's notice once the stack is complete.

    ParallelCluster's function deletes the stack when it gets the notice, and ministack could not
    delete a stack that it is still creating.
    """
    scope = (account_id(), region())

    def publish() -> None:
        with request_scope(*scope):
            end = time.monotonic() + _MOST_NOTICE_SECONDS
            while time.monotonic() < end:
                stack = cloudformation._stacks.get(stack_name) or {}
                if stack.get("StackStatus") != "CREATE_IN_PROGRESS":
                    break
                time.sleep(0.05)
            sns.publish_internal(topic, message)

    threading.Thread(target=publish, name="image-builder-notice", daemon=True).start()


def _delete_image(arn: str, properties: Properties) -> None:
    """Forget the build, which stops where it is under way; its AMI stays, as on AWS."""
    record = _records.get(arn)
    if record is None:
        return
    build: Build = record["build"]
    fault = take_image_fault(CleanUpFault, build.image, build.image_id)
    if fault is not None:
        raise ResourceFailedError(fault.reason)
    if not build.done.is_set():
        image_builds.cancel(build)
        _await_end_of_creation(cloudformation._stacks[record["stack"]])
    _delete(arn, properties)


def _await_end_of_creation(stack: dict[str, Any]) -> None:
    """Let a stack whose creation was cut off say so, before its deletion goes on.

    ministack runs both side by side, and the end of the creation would be the stack's last word.
    """
    end = time.monotonic() + _MOST_END_SECONDS
    while time.monotonic() < end:
        if stack["StackStatus"] in stacks._FAILED_CREATE_STATUSES:
            break
        time.sleep(0.01)
    stack["StackStatus"] = "DELETE_IN_PROGRESS"


def _type(kind: str, replacing: tuple[str, ...], update: UpdateHandler = _update) -> ResourceType:
    return {"create": _creator(kind), "update": update, "delete": _delete, "replacing": replacing}


RESOURCE_TYPES: dict[str, ResourceType] = {
    "AWS::ImageBuilder::Component": _type(
        "component",
        (
            "ChangeDescription",
            "Data",
            "Description",
            "KmsKeyId",
            "Name",
            "Platform",
            "SupportedOsVersions",
            "Tags",
            "Uri",
            "Version",
        ),
    ),
    "AWS::ImageBuilder::ImageRecipe": _type(
        "image-recipe",
        (
            "BlockDeviceMappings",
            "Components",
            "Description",
            "Name",
            "ParentImage",
            "Version",
            "WorkingDirectory",
        ),
    ),
    "AWS::ImageBuilder::InfrastructureConfiguration": _type(
        "infrastructure-configuration", ("Name",)
    ),
    "AWS::ImageBuilder::DistributionConfiguration": _type("distribution-configuration", ("Name",)),
    "AWS::ImageBuilder::ImagePipeline": _type("image-pipeline", ("Name",)),
    IMAGE: {
        "create": _create_image,
        "delete": _delete_image,
        "replacing": (
            "DistributionConfigurationArn",
            "ImageRecipeArn",
            "InfrastructureConfigurationArn",
        ),
    },
}


def _images_last(sort: Callable[[Any, Any], list[str]]) -> Callable[[Any, Any], list[str]]:
    """Create images after all that does not wait for them.

    CloudFormation creates it meanwhile; ministack creates one resource after the other, and the
    clean-up function would not be there yet when the image is complete.
    """

    def sort_images_last(resources: Any, conditions: Any) -> list[str]:
        ordered = sort(resources, conditions)
        late = [name for name in ordered if resources[name].get("Type") == IMAGE]
        others = {name: value for name, value in resources.items() if name not in late}
        if any(f'"{name}"' in json.dumps(others, default=str) for name in late):
            return ordered
        return [name for name in ordered if name not in late] + late

    return sort_images_last


def _without_deleted_functions(emit: Callable[..., None]) -> Callable[..., None]:
    """Leave out the log of a function that is gone when it ends, as the clean-up's is.

    ministack would make the log group again that the stack has just deleted.
    """

    def emit_log(function: dict[str, Any], *arguments: Any, **named: Any) -> None:
        if (function.get("config") or function).get("FunctionName") in lambda_svc._functions:
            emit(function, *arguments, **named)

    return emit_log


def mend() -> None:
    """Route Image Builder's requests, and let images be built beside the server's other work."""
    image_builder_api.mend(_records)
    on_thread = stacks._runs_on_worker_thread

    def runs_on_worker_thread(resource_type: str) -> bool:
        return resource_type == IMAGE or bool(on_thread(resource_type))

    stacks._runs_on_worker_thread = runs_on_worker_thread
    lambda_svc._emit_lambda_logs = _without_deleted_functions(lambda_svc._emit_lambda_logs)
    stacks._topological_sort = _images_last(stacks._topological_sort)
