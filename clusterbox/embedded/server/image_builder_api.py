"""The requests of EC2 Image Builder's API that are answered here: list, get, cancel and delete."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ministack import app
from ministack.core import router

from clusterbox.embedded.server.image_builds import Build
from clusterbox.embedded.server.ministack_api import account_id, new_uuid

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
    "/GetImage": ("imageBuildVersionArn", "image"),
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
_store: Any = {}


class _RefusedError(Exception):
    """A request that Image Builder refuses: its error code and the message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def _api_shape(value: Any) -> Any:
    """Return a template's value with the API's lower-case first letters."""
    if isinstance(value, dict):
        return {key[:1].lower() + key[1:]: _api_shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_api_shape(inner) for inner in value]
    return value


def _described(record: dict[str, Any]) -> dict[str, Any]:
    if record["kind"] == "image":
        return describe_image(record)
    shape: dict[str, Any] = _api_shape(record["properties"])
    for name in ("tags", "resourceTags"):
        if name in shape:  # Keys of tags are data, not field names.
            shape[name] = record["properties"][name[:1].upper() + name[1:]]
    return {"arn": record["arn"], **shape}


def describe_image(record: dict[str, Any]) -> dict[str, Any]:
    """Return an image as GetImage answers it, and as the notice to its topic says it."""
    build: Build = record["build"]
    used = {
        "imageRecipe": "ImageRecipeArn",
        "infrastructureConfiguration": "InfrastructureConfigurationArn",
        "distributionConfiguration": "DistributionConfigurationArn",
    }
    found = {
        member: _store.get(record["properties"].get(name) or "") for member, name in used.items()
    }
    return {
        **_summarized(build),
        **{member: _described(item) for member, item in found.items() if item},
        "enhancedImageMetadataEnabled": False,
    }


def _summarized(build: Build) -> dict[str, Any]:
    state = {"status": build.status}
    if build.reason:
        state["reason"] = build.reason[:1024]
    return {
        "arn": build.arn,
        "name": build.recipe["Name"],
        "type": "AMI",
        "version": f"{build.recipe['Version']}/{build.number}",
        "platform": "Linux",
        "osVersion": "Amazon Linux 2023",
        "state": state,
        "dateCreated": build.created,
        "outputResources": {"amis": build.amis},
        "tags": dict(build.tags),
        "buildType": "USER_INITIATED",
    }


def _builds() -> Iterable[Build]:
    return (record["build"] for record in list(_store.values()) if record["kind"] == "image")


def _build(arn: str) -> Build:
    for build in _builds():
        if build.arn == arn:
            return build
    raise _RefusedError("ResourceNotFoundException", f"{arn} does not exist")


def _list_images() -> dict[str, Any]:
    versions = {}
    for build in _builds():
        arn = build.arn.rpartition("/")[0]
        shown = ("name", "type", "platform", "osVersion", "dateCreated", "buildType")
        summary = _summarized(build)
        versions[arn] = {
            "arn": arn,
            "version": build.recipe["Version"],
            "owner": account_id(),
            **{key: summary[key] for key in shown},
        }
    return {"imageVersionList": list(versions.values())}


def _list_image_builds(asked: dict[str, Any]) -> dict[str, Any]:
    version = asked.get("imageVersionArn")
    found = [b for b in _builds() if version in (None, b.arn.rpartition("/")[0])]
    return {"imageSummaryList": [{**_summarized(b), "owner": account_id()} for b in found]}


def _list_workflows(asked: dict[str, Any]) -> dict[str, Any]:
    arn = str(asked.get("imageBuildVersionArn", ""))
    return {"imageBuildVersionArn": arn, "workflowExecutions": _build(arn).workflows}


def _cancel(asked: dict[str, Any]) -> dict[str, Any]:
    build = _build(str(asked.get("imageBuildVersionArn", "")))
    if build.done.is_set():
        message = f"{build.arn} is {build.status} and cannot be cancelled"
        raise _RefusedError("InvalidRequestException", message)
    # Whoever asks does not wait: the build sees it at its next pause.
    build.cancelled.set()
    return {"imageBuildVersionArn": build.arn, "clientToken": asked.get("clientToken", "")}


def _delete(arn: str) -> dict[str, Any]:
    build = _build(arn)
    if not build.done.is_set():
        raise _RefusedError("ResourceInUseException", f"{arn} is being built")
    del _store[arn]
    return {"imageBuildVersionArn": arn}


def _answer(path: str, asked: dict[str, Any], query: dict[str, list[str]]) -> dict[str, Any]:
    if path in _LISTS:
        kind, member = _LISTS[path]
        return {member: [_described(r) for r in _store.values() if r["kind"] == kind]}
    if path in _READS:
        parameter, member = _READS[path]
        arn = (query.get(parameter) or [""])[0]
        if record := _store.get(arn):
            return {member: _described(record)}
        raise _RefusedError("ResourceNotFoundException", f"{arn} does not exist")
    match path:
        case "/ListImages":
            return _list_images()
        case "/ListImageBuildVersions":
            return _list_image_builds(asked)
        case "/ListWorkflowExecutions":
            return _list_workflows(asked)
        case "/CancelImageCreation":
            return _cancel(asked)
        case "/DeleteImage":
            return _delete((query.get("imageBuildVersionArn") or [""])[0])
    message = f"the embedded account does not know Image Builder's {path.lstrip('/')}"
    raise _RefusedError("InvalidRequestException", message)


async def handle_request(
    _method: str, path: str, _headers: dict[str, str], body: bytes, query: dict[str, list[str]]
) -> tuple[int, dict[str, str], bytes]:
    """Answer an operation of Image Builder; one that is not known here is refused by name."""
    json_type = {"Content-Type": "application/json"}
    try:
        answer = {"requestId": new_uuid(), **_answer(path, json.loads(body or b"{}"), query)}
    except _RefusedError as error:
        refused = {**json_type, "x-amzn-errortype": error.code}
        return 400, refused, json.dumps({"message": str(error)}).encode()
    return 200, json_type, json.dumps(answer).encode()


def mend(records: Any) -> None:
    """Route requests signed for Image Builder to this module; `records` are what it tells of."""
    global _store
    _store = records
    app.SERVICE_HANDLERS["imagebuilder"] = handle_request
    router.SERVICE_PATTERNS.setdefault("imagebuilder", {})
