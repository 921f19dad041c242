"""Systems Manager documents: the scripts that Run Command runs (`run_command`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ministack.core.responses import error_response_json

from clusterbox.embedded.server.ministack_api import (
    Properties,
    Resource,
    ResourceFailedError,
    ResourceType,
    account_id,
    physical_name,
    region,
)

# AWS's own documents begin so; ministack knows those that it can run.
_OF_AWS = "AWS-"
_Key = tuple[str, str, str]  # account, region, name

_contents: dict[_Key, str] = {}


def _key(name: str) -> _Key:
    return account_id(), region(), name


def _keep(name: str, properties: Properties) -> Resource:
    content = properties["Content"]
    _contents[_key(name)] = content if isinstance(content, str) else json.dumps(content)
    return name, {}


def create_document(logical_id: str, properties: Properties, stack: str) -> Resource:
    """Create a document; Ref is its name, which must not be another document's."""
    name = properties.get("Name") or physical_name(stack, logical_id, 128)
    if _key(name) in _contents:
        raise ResourceFailedError(
            f"Document with name {name} already exists. (DocumentAlreadyExists)"
        )
    return _keep(name, properties)


def update_document(name: str, _old: Properties, properties: Properties, _stack: str) -> Resource:
    """Give the document a new version, which becomes the default one."""
    return _keep(name, properties)


def delete_document(name: str, _properties: Properties) -> None:
    """Delete the document; one that is gone already is no error."""
    _contents.pop(_key(name), None)


RESOURCE_TYPES: dict[str, ResourceType] = {
    "AWS::SSM::Document": {
        "create": create_document,
        "update": update_document,
        "delete": delete_document,
        "replacing": ("Name", "DocumentType"),
    },
}


def content_of(name: str) -> str | None:
    """Return a document's content as JSON; None when the account has no such document."""
    return _contents.get(_key(name))


def refuse_unknown(send: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    """Return SendCommand which refuses a document that does not exist, as Systems Manager does."""

    def send_command(request: dict[str, Any]) -> Any:
        name = str(request.get("DocumentName", ""))
        if name and not name.startswith(_OF_AWS) and _key(name) not in _contents:
            return error_response_json(
                "InvalidDocument", f"Document with name {name} does not exist.", 400
            )
        return send(request)

    return send_command


def mend() -> None:
    """Do nothing more: Run Command asks here for its documents."""
