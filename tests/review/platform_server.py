"""A server on loopback that speaks as much of GitHub's and GitLab's APIs as comments need."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

TOKEN = "token-of-the-bot-0123456789"
BOT = 41898282
SOMEBODY = 7


@dataclass
class Answer:
    """What the server answers in place of its own answer, once."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: str = '{"message": "out of order"}'
    # Do what was asked for all the same, as a server whose answer gets lost.
    works: bool = False
    # Close the connection without an answer.
    drops: bool = False


@dataclass
class PlatformServer:
    """One pull request (number 5 of o/r) or merge request (number 5 of project 12)."""

    platform: Literal["github", "gitlab"]
    comments: list[dict[str, Any]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    # By method: the answers that come before the server's own ones.
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    # Comments that are deleted by somebody right after they are listed.
    vanishing: set[int] = field(default_factory=set)
    link_header: bool = True
    port: int = 0
    _next: int = 100
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a CI job."""
        if self.platform == "github":
            return {
                "GITHUB_API_URL": self.address,
                "GITHUB_REPOSITORY": "o/r",
                "GITHUB_REF": "refs/pull/5/merge",
                "GITHUB_TOKEN": TOKEN,
            }
        return {
            "CI_API_V4_URL": f"{self.address}/api/v4",
            "CI_PROJECT_ID": "12",
            "CI_PROJECT_URL": "https://gitlab.example.gov/o/r",
            "CI_MERGE_REQUEST_IID": "5",
            "CLUSTERBOX_GITLAB_TOKEN": TOKEN,
        }

    def add(self, body: str, user: int = BOT, **more: Any) -> int:
        """Add a comment, and return its id."""
        self._next += 1
        author = "user" if self.platform == "github" else "author"
        self.comments.append({"id": self._next, "body": body, author: {"id": user}, **more})
        return self._next

    def bodies(self) -> list[str]:
        return [comment["body"] for comment in self.comments]

    def count(self, method: str) -> int:
        """Return how many calls with a method there were, without GitHub's question who one is."""
        return sum(
            line.startswith(f"{method} ") and not line.endswith("/graphql")
            for line in self.requests
        )

    def handle(self, request: _Handler) -> Answer:
        """Answer one request as the platform would."""
        with self._lock:
            self.requests.append(f"{request.command} {request.path}")
            special = self.answers.get(request.command, [])
            if special and not request.path.endswith("/graphql"):
                answer = special.pop(0)
                if answer.works:
                    self._answer(request)
                return answer
            return self._answer(request)

    def _answer(self, request: _Handler) -> Answer:
        sent = request.headers.get("Authorization") or request.headers.get("PRIVATE-TOKEN")
        if sent not in (f"Bearer {TOKEN}", TOKEN):
            return Answer(401, body='{"message": "Bad credentials"}')
        parts = urlsplit(request.path)
        if self.platform == "github":
            # GitHub Enterprise Server has its APIs at /api/v3 and /api/graphql.
            parts = parts._replace(path=re.sub(r"^/api(/v3)?/", "/", parts.path))
        if (request.command, parts.path) == ("POST", "/graphql"):
            return Answer(200, body=json.dumps({"data": {"viewer": {"databaseId": BOT}}}))
        if (request.command, parts.path) == ("GET", "/api/v4/user"):
            return Answer(200, body=json.dumps({"id": BOT}))
        if self.platform == "github":
            found = re.fullmatch(
                r"/repos/o/r/issues/(?:5/comments|comments/(?P<id>\d+))", parts.path
            )
        else:
            found = re.fullmatch(
                r"/api/v4/projects/12/merge_requests/5/notes(?:/(?P<id>\d+))?", parts.path
            )
        if found is None:
            return Answer(404, body='{"message": "Not Found"}')
        if found["id"]:
            return self._change(request, int(found["id"]))
        if request.command == "POST":
            self.add(request.payload()["body"])
            return Answer(201, body=json.dumps(self._shown(self.comments[-1])))
        return self._list(parse_qs(parts.query), parts.path)

    def _change(self, request: _Handler, number: int) -> Answer:
        known = next((comment for comment in self.comments if comment["id"] == number), None)
        if known is None:
            return Answer(404, body='{"message": "Not Found"}')
        if request.command == "DELETE":
            self.comments.remove(known)
            return Answer(204, body="")
        if request.command != ("PATCH" if self.platform == "github" else "PUT"):
            return Answer(405)
        known["body"] = request.payload()["body"]
        return Answer(200, body=json.dumps(self._shown(known)))

    def _list(self, query: dict[str, list[str]], path: str) -> Answer:
        size, page = int(query["per_page"][0]), int(query["page"][0])
        shown = self.comments if self.platform == "github" else self.comments[::-1]
        items = shown[(page - 1) * size : page * size]
        more = len(shown) > page * size
        following = f"{self.address}{path}?per_page={size}&page={page + 1}"
        headers = {}
        if more and self.link_header:
            headers["Link"] = f'<{self.address}{path}>; rel="first", <{following}>; rel="next"'
        if self.platform == "gitlab":
            headers["X-Next-Page"] = str(page + 1) if more else ""
        body = json.dumps([self._shown(item) for item in items])
        self.comments = [item for item in self.comments if item["id"] not in self.vanishing]
        return Answer(200, headers, body)

    def _shown(self, comment: dict[str, Any]) -> dict[str, Any]:
        if self.platform == "gitlab":
            return comment
        return {
            **comment,
            "html_url": f"https://github.com/o/r/pull/5#issuecomment-{comment['id']}",
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: two would wait for each other
    platform: PlatformServer

    def payload(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.content)
        return found

    def handle_one(self) -> None:
        self.content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = self.platform.handle(self)
        if answer.drops:
            self.close_connection = True
            return
        content = answer.body.encode()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def serve(platform: Literal["github", "gitlab"]) -> Iterator[PlatformServer]:
    """Run a server as long as the context lasts."""
    state = PlatformServer(platform)
    methods = ("GET", "POST", "PATCH", "PUT", "DELETE")
    answering = {f"do_{method}": _Handler.handle_one for method in methods}
    handler = type("Handler", (_Handler,), {"platform": state, **answering})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    state.port = server.server_address[1]
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
