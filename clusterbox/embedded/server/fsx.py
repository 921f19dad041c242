"""FSx: no file system can be made here, so that its list is empty."""

from __future__ import annotations

import json
from typing import Any

from ministack import app
from ministack.core import router

from clusterbox.embedded.server.ministack_api import ResourceType

RESOURCE_TYPES: dict[str, ResourceType] = {}

_TARGET = "AWSSimbaAPIService_v20180301"
_CONTENT_TYPE = "application/x-amz-json-1.1"


async def _answer(
    _method: str, _path: str, headers: dict[str, str], _body: bytes, _parameters: Any
) -> tuple[int, dict[str, str], bytes]:
    answered = {"Content-Type": _CONTENT_TYPE}  # The server adds to it.
    operation = headers.get("x-amz-target", "").rpartition(".")[2]
    if operation == "DescribeFileSystems":
        return 200, answered, json.dumps({"FileSystems": []}).encode()
    refusal = {"__type": "UnsupportedOperation", "message": f"{operation} does not exist here"}
    return 400, answered, json.dumps(refusal).encode()


def mend() -> None:
    """Route FSx's requests to the empty list."""
    router.SERVICE_PATTERNS["fsx"] = {"target_prefixes": [_TARGET], "credential_scope": "fsx"}
    app.SERVICE_HANDLERS["fsx"] = _answer
