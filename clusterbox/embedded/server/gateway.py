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

from clusterbox.embedded.seed import SeedDocument, problems_of
from clusterbox.embedded.server import extension, seed_check, seeding
from clusterbox.embedded.server.__main__ import LOOPBACK

STATUS_PATH = "/_clusterbox/status"
SEED_PATH = "/_clusterbox/seed"

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
            case _:
                legal = f"GET {STATUS_PATH} and POST {SEED_PATH}"
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


async def _read(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if not message.get("more_body"):
            return body


async def _send_json(send: Send, status: HTTPStatus, answer: Any) -> None:
    body = json.dumps(answer).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
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
