"""EC2 Image Builder: its five CloudFormation types, listed and read back through its API.

Nothing is ever built: a pipeline here is a definition.
"""

from __future__ import annotations

import json
from typing import Any

from ministack import app
from ministack.core import router
from ministack.core.responses import AccountRegionScopedDict

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

# Account and region scoped like ministack's own stores: ARN -> record.
_records = AccountRegionScopedDict()

# Kind of an ARN, the list operation's path and the member it answers.
_LISTS = {
    "/ListComponents": ("component", "componentVersionList"),
    "/ListImageRecipes": ("image-recipe", "imageRecipeSummaryList"),
    "/ListImagePipelines": ("image-pipeline", "imagePipelineList"),
    "/ListInfrastructureConfigurations": (
        "infrastructure-configuration",
        "infrastructureConfigurationSummaryList",
    ),
    "/ListDistributionConfigurations": (
        "distribution-configuration",
        "distributionConfigurationSummaryList",
    ),
}
# The read operation's path, the query parameter with the ARN and the member it answers.
_READS = {
    "/GetComponent": ("componentBuildVersionArn", "component"),
    "/GetImageRecipe": ("imageRecipeArn", "imageRecipe"),
    "/GetImagePipeline": ("imagePipelineArn", "imagePipeline"),
    "/GetInfrastructureConfiguration": (
        "infrastructureConfigurationArn",
        "infrastructureConfiguration",
    ),
    "/GetDistributionConfiguration": (
        "distributionConfigurationArn",
        "distributionConfiguration",
    ),
}


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
        for name, value in properties.items():
            # A definition may only refer to what exists in this account.
            own = f":{account_id()}:"
            if name.endswith("Arn") and ":imagebuilder:" in str(value) and own in str(value):
                _require(str(value))
        _records[arn] = {"kind": kind, "arn": arn, "properties": properties}
        return arn, _attributes(arn, properties)

    return create


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
}


def _api_shape(value: Any) -> Any:
    """Return a template's value with the API's lower-case first letters."""
    if isinstance(value, dict):
        return {key[:1].lower() + key[1:]: _api_shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_api_shape(inner) for inner in value]
    return value


def _described(record: dict[str, Any]) -> dict[str, Any]:
    shape: dict[str, Any] = _api_shape(record["properties"])
    for name in ("tags", "resourceTags"):
        if name in shape:  # Keys of tags are data, not field names.
            shape[name] = record["properties"][name[:1].upper() + name[1:]]
    return {"arn": record["arn"], **shape}


async def handle_request(
    _method: str, path: str, _headers: dict[str, str], _body: bytes, query: dict[str, list[str]]
) -> tuple[int, dict[str, str], bytes]:
    """Answer Image Builder's list and get operations; any other is refused by name."""
    json_type = {"Content-Type": "application/json"}
    answer: dict[str, Any] = {"requestId": new_uuid()}
    if path in _LISTS:
        kind, member = _LISTS[path]
        answer[member] = [_described(r) for r in _records.values() if r["kind"] == kind]
        return 200, json_type, json.dumps(answer).encode()
    problem = f"the embedded account does not know Image Builder's {path.lstrip('/')}"
    code = "InvalidRequestException"
    if path in _READS:
        parameter, member = _READS[path]
        arn = (query.get(parameter) or [""])[0]
        if record := _records.get(arn):
            answer[member] = _described(record)
            return 200, json_type, json.dumps(answer).encode()
        problem, code = f"{arn} does not exist", "ResourceNotFoundException"
    return 400, {**json_type, "x-amzn-errortype": code}, json.dumps({"message": problem}).encode()


def mend() -> None:
    """Route requests signed for Image Builder to this module."""
    app.SERVICE_HANDLERS["imagebuilder"] = handle_request
    router.SERVICE_PATTERNS.setdefault("imagebuilder", {})
