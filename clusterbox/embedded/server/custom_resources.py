"""Custom resources whose Lambda function fails: the resource fails at once, with its error.

ministack, like CloudFormation, waits for the function's answer for up to an hour. CloudFormation
cannot know that a function crashed; here it is known, and waiting for it helps no one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ministack.services import lambda_svc
from ministack.services.cloudformation import custom_resource

from clusterbox.embedded.server.ministack_api import ResourceType

RESOURCE_TYPES: dict[str, ResourceType] = {}

# How ministack answers for a function it cannot run at all, with status 200.
_NOT_RUN = "Mock response"


def failure_of(result: Any) -> str | None:
    """Return why an invocation failed, or None when the function ran to its end."""
    if not isinstance(result, dict):
        return None
    body = result.get("body")
    text = body.get("body") if isinstance(body, dict) else None
    if isinstance(text, str) and text.startswith(_NOT_RUN):
        return text.removeprefix(_NOT_RUN).strip(" -")
    if result.get("throttle"):
        return "the function was throttled"
    if not result.get("error"):
        return None
    if not isinstance(body, dict):
        return str(body)
    kind, message = body.get("errorType"), body.get("errorMessage")
    return f"{kind}: {message}" if kind else str(message)


def _answer_failure(event: dict[str, Any], function: str, reason: str) -> None:
    token = event["ResponseURL"].rpartition("/")[2]
    with custom_resource._lock:
        waiting = custom_resource._pending.get(token)
        if waiting is None or waiting["result"] is not None:
            return  # The function answered before it failed: its answer counts.
    custom_resource.deliver_response(
        token,
        {
            "Status": "FAILED",
            "Reason": f"Lambda function {function} failed before it answered: {reason}",
            "PhysicalResourceId": event.get("PhysicalResourceId"),
        },
    )


def _fail_fast(execute: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def execute_and_report(function: Any, event: Any) -> Any:
        waits = isinstance(event, dict) and {"ResponseURL", "LogicalResourceId"} <= event.keys()
        name = (function.get("config") or function).get("FunctionName", "?")
        try:
            result = execute(function, event)
        except BaseException as error:
            if waits:
                _answer_failure(event, name, f"{type(error).__name__}: {error}")
            raise
        if waits and (reason := failure_of(result)):
            _answer_failure(event, name, reason)
        return result

    return execute_and_report


def mend() -> None:
    """Report a failed invocation to the custom resource that waits for it."""
    lambda_svc._execute_function_with_config_scope = _fail_fast(
        lambda_svc._execute_function_with_config_scope
    )
