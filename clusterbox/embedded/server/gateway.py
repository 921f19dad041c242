"""The HTTP server: ministack's application, with the project's own paths in front of it."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config
from ministack import app as ministack_app
from ministack.core.responses import request_scope
from pydantic import ValidationError

from clusterbox.embedded.faults import FAULTS
from clusterbox.embedded.seed import SeedDocument, problems_of
from clusterbox.embedded.server import (
    call_faults,
    extension,
    fault_store,
    machine_control,
    seed_check,
    seeding,
)
from clusterbox.embedded.server.__main__ import LOOPBACK

STATUS_PATH = "/_clusterbox/status"
SEED_PATH = "/_clusterbox/seed"
FAULTS_PATH = "/_clusterbox/faults"
MACHINES_PATH = "/_clusterbox/machines"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Gateway:
    """An ASGI application that answers ``/_clusterbox/*`` itself and passes the rest on."""

    def __init__(self, account: str, region: str) -> None:
        self.account = account
        self.region = region

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the start and the end of the server."""
        if scope["type"] != "http" or not scope["path"].startswith("/_clusterbox/"):
            if scope["type"] == "http" and fault_store.hits_calls():
                receive, refused = await _look_for_fault(scope, receive, send)
                if refused:
                    return
            await ministack_app.app(scope, receive, send)
            return
        # The whole answer is made without awaiting, so no AWS call sees half a seed.
        body = await _read(receive)
        with request_scope(self.account, self.region):
            status, answer = self.answer(scope["method"], scope["path"], body)
        await _send_json(send, status, answer)

    def answer(self, method: str, path: str, body: bytes) -> tuple[HTTPStatus, Any]:
        """Return the status and the JSON document for one of the project's own paths."""
        match method, path:
            case "GET", "/_clusterbox/status":
                return HTTPStatus.OK, self.status()
            case "POST", "/_clusterbox/seed":
                return _seed(body)
            case "POST", "/_clusterbox/faults":
                return _inject(body)
            case "GET", "/_clusterbox/faults":
                return HTTPStatus.OK, {"waiting": fault_store.waiting()}
            case "DELETE", "/_clusterbox/faults":
                fault_store.clear(body.decode() or None)
                return HTTPStatus.OK, {"waiting": fault_store.waiting()}
            case "POST", "/_clusterbox/machines":
                return machine_control.answer(body)
            case _:
                legal = (
                    f"GET {STATUS_PATH}, POST {SEED_PATH}, POST {MACHINES_PATH}, and {FAULTS_PATH}"
                )
                return HTTPStatus.NOT_FOUND, {"problems": [f"{method} {path}: use {legal}"]}

    def status(self) -> dict[str, Any]:
        """Return who this account is and how many stack resources it holds."""
        return {
            "account": self.account,
            "region": self.region,
            "pid": os.getpid(),
            "resources": extension.count_stack_resources(),
            "extension": extension.VERSION,
            "ministack": version("ministack"),
        }


def _seed(body: bytes) -> tuple[HTTPStatus, Any]:
    try:
        document = SeedDocument.model_validate_json(body)
    except ValidationError as error:
        return HTTPStatus.BAD_REQUEST, {"problems": problems_of(error)}
    problems = seed_check.problems(document)
    if problems:
        return HTTPStatus.BAD_REQUEST, {"problems": problems}
    return HTTPStatus.OK, seeding.apply(document).model_dump()


def _inject(body: bytes) -> tuple[HTTPStatus, Any]:
    try:
        faults = FAULTS.validate_json(body)
    except ValidationError as error:
        return HTTPStatus.BAD_REQUEST, {"problems": problems_of(error)}
    return HTTPStatus.OK, {"done": fault_store.inject(faults)}


async def _look_for_fault(scope: Scope, receive: Receive, send: Send) -> tuple[Receive, bool]:
    """Refuse a call that a fault hits; return how its body is read again, and whether it was."""
    body = await _read(receive)
    headers = {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]}
    call = call_faults.identify(scope["method"], scope["path"], headers, body)
    fault = call and fault_store.take_call_fault(call.service, call.operation)
    if call and fault:
        status, answer_headers, answer = call_faults.refusal(fault, call)
        await _send(send, status, answer_headers, answer)
        return receive, True
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def read_again() -> MutableMapping[str, Any]:
        return messages.pop() if messages else await receive()

    return read_again, False


async def _read(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if not message.get("more_body"):
            return body


async def _send_json(send: Send, status: HTTPStatus, answer: Any) -> None:
    body = json.dumps(answer).encode()
    await _send(send, int(status), {"content-type": "application/json"}, body)


async def _send(send: Send, status: int, headers: dict[str, str], body: bytes) -> None:
    all_headers = {**headers, "content-length": str(len(body))}
    pairs = [(name.encode(), value.encode()) for name, value in all_headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


async def serve(*, port: int, account: str, region: str) -> None:
    """Serve the account on the loopback address until a TERM or INT signal."""
    extension.install()
    config = Config()
    config.bind = [f"{LOOPBACK}:{port}"]
    config.keep_alive_timeout = 75
    # Nothing is lost by ending at once: the state is in memory and goes with the process.
    config.graceful_timeout = 0.2
    config.loglevel = "WARNING"
    await hypercorn_serve(Gateway(account, region), config)  # type: ignore[arg-type]
