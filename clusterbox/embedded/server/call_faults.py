"""Refusing AWS calls on request: throttled, or with credentials that have expired.

The answers have the shape of each protocol, so that every client takes them for AWS's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qs

from clusterbox.embedded.faults import CallFault

Protocol = Literal["ec2", "query", "json", "rest-json", "s3"]
_THROTTLED = {
    "ec2": (503, "RequestLimitExceeded", "Request limit exceeded."),
    "query": (400, "Throttling", "Rate exceeded"),
    "json": (400, "ThrottlingException", "Rate exceeded"),
    "rest-json": (429, "TooManyRequestsException", "Too Many Requests"),
    "s3": (503, "SlowDown", "Please reduce your request rate."),
}
_EXPIRED = {
    "ec2": (400, "RequestExpired", "Request has expired."),
    "query": (403, "ExpiredToken", "The security token included in the request is expired"),
    "json": (400, "ExpiredTokenException", "The security token included in the request is expired"),
    "rest-json": (
        403,
        "ExpiredTokenException",
        "The security token included in the request is expired",
    ),
    "s3": (400, "ExpiredToken", "The provided token has expired."),
}
_SCOPE = re.compile(r"Credential=[^/]+/\d{8}/[^/]+/([^/]+)/aws4_request")


@dataclass(frozen=True)
class Call:
    """Which operation of which service a request asks for."""

    service: str
    # As the API calls it; for S3 the HTTP method, for other REST services the path.
    operation: str
    protocol: Protocol


def identify(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Call | None:
    """Return what a signed request asks for; None for one that is unsigned, or is not a user's.

    Functions of the account itself call with a role of their own, whose credentials are renewed.
    """
    scope = _SCOPE.search(headers.get("authorization", ""))
    if scope is None or "exec-env/AWS_Lambda" in headers.get("user-agent", ""):
        return None
    service = scope[1]
    if service == "s3":
        return Call(service, method, "s3")
    if target := headers.get("x-amz-target"):
        return Call(service, target.rpartition(".")[2], "json")
    if "x-www-form-urlencoded" in headers.get("content-type", ""):
        action = (parse_qs(body.decode(errors="replace")).get("Action") or [""])[0]
        return Call(service, action, "ec2" if service == "ec2" else "query")
    return Call(service, path.strip("/").partition("/")[0], "rest-json")


def refusal(fault: CallFault, call: Call) -> tuple[int, dict[str, str], bytes]:
    """Return the answer to a call that the fault hits: status, headers and body."""
    answers = _THROTTLED if fault.kind == "throttle" else _EXPIRED
    status, code, message = answers[call.protocol]
    if call.protocol in ("json", "rest-json"):
        headers = {"content-type": "application/json", "x-amzn-errortype": code}
        return status, headers, json.dumps({"__type": code, "message": message}).encode()
    error = f"<Code>{code}</Code><Message>{message}</Message>"
    if call.protocol == "ec2":
        text = (
            f"<Response><Errors><Error>{error}</Error></Errors><RequestID>0</RequestID></Response>"
        )
    elif call.protocol == "s3":
        text = f"<Error>{error}<RequestId>0</RequestId></Error>"
    else:
        error = f"<Error><Type>Sender</Type>{error}</Error>"
        text = f"<ErrorResponse>{error}<RequestId>0</RequestId></ErrorResponse>"
    return status, {"content-type": "text/xml"}, text.encode()
