"""A server on loopback that speaks as much of GitHub's and GitLab's APIs as the commands need."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

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
class Git:
    """Branches and commits, of which each is its files."""

    trees: dict[str, dict[str, str]] = field(default_factory=dict)
    # Commit → tree and message; branches → commit.
    commits: dict[str, tuple[str, str]] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    start: str = ""

    def __post_init__(self) -> None:
        tree = self.add_tree({"README.md": "A site.\n", "ami/images.lock.yaml": "old\n"})
        self.start = self.branches["main"] = self.add_commit(tree, "Start", "")

    def add_tree(self, files: dict[str, str]) -> str:
        """Keep a tree, and return its id, which is made of its content."""
        name = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:40]
        self.trees[name] = files
        return name

    def add_commit(self, tree: str, message: str, parent: str) -> str:
        name = hashlib.sha256(
            f"{tree} {message} {parent} {len(self.commits)}".encode()
        ).hexdigest()[:40]
        self.commits[name] = (tree, message)
        self.parents[name] = parent
        return name

    def files(self, at: str) -> dict[str, str] | None:
        """Return the files of a branch or commit."""
        commit = self.branches.get(at, at)
        return self.trees[self.commits[commit][0]] if commit in self.commits else None

    def history(self, branch: str) -> list[str]:
        """Return the messages of a branch, the newest first."""
        found, commit = [], self.branches[branch]
        while commit:
            found.append(self.commits[commit][1])
            commit = self.parents[commit]
        return found

    def push(self, branch: str, files: dict[str, str], message: str) -> None:
        """Add a commit of somebody to a branch."""
        old = self.branches[branch]
        tree = self.add_tree({**(self.files(branch) or {}), **files})
        self.branches[branch] = self.add_commit(tree, message, old)


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
    # The default branch `main`, at the commit that the job works on.
    git: Git = field(default_factory=lambda: Git())
    # Pull or merge requests that were opened: number, branch, title, body, state.
    proposals: list[dict[str, Any]] = field(default_factory=list)
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
                "GITHUB_SHA": self.git.start,
                "GITHUB_TOKEN": TOKEN,
            }
        return {
            "CI_API_V4_URL": f"{self.address}/api/v4",
            "CI_PROJECT_ID": "12",
            "CI_PROJECT_URL": "https://gitlab.example.gov/o/r",
            "CI_MERGE_REQUEST_IID": "5",
            "CI_COMMIT_SHA": self.git.start,
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
        answer = answer_proposals(self, request.command, request.path, request.content)
        if answer is not None:
            return answer
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


def answer_proposals(
    server: PlatformServer, method: str, path: str, content: bytes
) -> Answer | None:
    """Answer what is asked of branches, commits, files and requests; None for other addresses."""
    parts = urlsplit(path)
    payload = json.loads(content) if content else {}
    query = {key: values[0] for key, values in parse_qs(parts.query).items()}
    if server.platform == "github":
        place = re.sub(r"^/api(/v3)?/", "/", parts.path)
        return _answer_github(server, method, place.removeprefix("/repos/o/r"), query, payload)
    place = parts.path.removeprefix("/api/v4/projects/12")
    return _answer_gitlab(server, method, place, query, payload)


def _said(status: int, found: object) -> Answer:
    return Answer(status, body=json.dumps(found))


def _answer_github(
    server: PlatformServer, method: str, place: str, query: dict[str, str], payload: dict[str, Any]
) -> Answer | None:
    git = server.git
    if (method, place) == ("GET", ""):
        return _said(200, {"default_branch": "main"})
    if found := re.fullmatch(r"/git/ref/heads/(.+)", place):
        if found[1] not in git.branches:
            return _said(404, {"message": "Not Found"})
        return _said(200, {"object": {"sha": git.branches[found[1]]}})
    if found := re.fullmatch(r"/git/commits/(\w+)", place):
        return _said(200, {"sha": found[1], "tree": {"sha": git.commits[found[1]][0]}})
    if (method, place) == ("POST", "/git/trees"):
        files = {item["path"]: item["content"] for item in payload["tree"]}
        return _said(201, {"sha": git.add_tree({**git.trees[payload["base_tree"]], **files})})
    if (method, place) == ("POST", "/git/commits"):
        commit = git.add_commit(payload["tree"], payload["message"], payload["parents"][0])
        return _said(201, {"sha": commit})
    if (method, place) == ("POST", "/git/refs"):
        branch = payload["ref"].removeprefix("refs/heads/")
        if branch in git.branches:
            return _said(422, {"message": "Reference already exists"})
        git.branches[branch] = payload["sha"]
        return _said(201, {})
    if found := re.fullmatch(r"/git/refs/heads/(.+)", place):
        if git.parents[payload["sha"]] != git.branches[found[1]]:
            return _said(422, {"message": "Update is not a fast forward"})
        git.branches[found[1]] = payload["sha"]
        return _said(200, {})
    if place == "/pulls" and method == "GET":
        owner, _, branch = query["head"].partition(":")
        assert (owner, query["state"]) == ("o", "open")
        return _said(200, [_pull(item) for item in _open_of(server, branch)])
    if place == "/pulls":
        if _open_of(server, payload["head"]):
            error = {"message": f"A pull request already exists for o:{payload['head']}."}
            return _said(422, {"message": "Validation Failed", "errors": [error]})
        assert payload["base"] == "main"
        item = _add(server, payload["head"], payload["title"], payload["body"])
        return _said(201, _pull(item))
    if found := re.fullmatch(r"/pulls/(\d+)", place):
        item = server.proposals[int(found[1]) - 1]
        item |= {"title": payload["title"], "body": payload["body"]}
        return _said(200, _pull(item))
    return None


def _answer_gitlab(
    server: PlatformServer, method: str, place: str, query: dict[str, str], payload: dict[str, Any]
) -> Answer | None:
    git = server.git
    if (method, place) == ("GET", ""):
        return _said(200, {"default_branch": "main"})
    if found := re.fullmatch(r"/repository/branches/([^/]+)", place):
        known = unquote(found[1]) in git.branches
        return _said(200, {"name": unquote(found[1])}) if known else _said(404, {"message": "404"})
    if found := re.fullmatch(r"/repository/files/([^/]+)", place):
        files = git.files(query["ref"]) or {}
        name = unquote(found[1])
        if name not in files:
            return _said(404, {"message": "404 File Not Found"})
        encoded = base64.b64encode(files[name].encode()).decode()
        last = hashlib.sha256(files[name].encode()).hexdigest()[:40]
        return _said(200, {"content": encoded, "encoding": "base64", "last_commit_id": last})
    if (method, place) == ("POST", "/repository/commits"):
        return _commit_on_gitlab(git, payload)
    if place == "/merge_requests" and method == "GET":
        assert query["state"] == "opened"
        return _said(200, [_merge(item) for item in _open_of(server, query["source_branch"])])
    if place == "/merge_requests":
        branch = payload["source_branch"]
        if _open_of(server, branch):
            return _said(409, {"message": ["Another open merge request already exists"]})
        assert (payload["target_branch"], payload["remove_source_branch"]) == ("main", True)
        item = _add(server, branch, payload["title"], payload["description"])
        return _said(201, _merge(item))
    if (found := re.fullmatch(r"/merge_requests/(\d+)", place)) and method == "PUT":
        item = server.proposals[int(found[1]) - 1]
        item |= {"title": payload["title"], "body": payload["description"]}
        return _said(200, _merge(item))
    return None


def _commit_on_gitlab(git: Git, payload: dict[str, Any]) -> Answer:
    branch = payload["branch"]
    if ("start_sha" in payload) == (branch in git.branches):
        return _said(400, {"message": "A branch called that already exists, or does not"})
    old = git.branches.get(branch) or payload["start_sha"]
    files = dict(git.files(old) or {})
    for action in payload["actions"]:
        name = action["file_path"]
        if (action["action"] == "update") != (name in files):
            return _said(400, {"message": "A file with this name already exists, or does not"})
        known = hashlib.sha256(files.get(name, "").encode()).hexdigest()[:40]
        if action.get("last_commit_id", known) != known:
            return _said(400, {"message": "You are attempting to update a file that has changed"})
        files[name] = base64.b64decode(action["content"]).decode()
    commit = git.add_commit(git.add_tree(files), payload["commit_message"], old)
    git.branches[branch] = commit
    return _said(201, {"id": commit})


def _open_of(server: PlatformServer, branch: str) -> list[dict[str, Any]]:
    return [
        item for item in server.proposals if (item["branch"], item["state"]) == (branch, "open")
    ]


def _add(server: PlatformServer, branch: str, title: str, body: str) -> dict[str, Any]:
    number = len(server.proposals) + 1
    server.proposals.append(
        {"number": number, "branch": branch, "title": title, "body": body, "state": "open"}
    )
    return server.proposals[-1]


def _pull(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "number": item["number"],
        "title": item["title"],
        "body": item["body"],
        "head": {"ref": item["branch"]},
        "html_url": f"https://github.com/o/r/pull/{item['number']}",
    }


def _merge(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "iid": item["number"],
        "title": item["title"],
        "description": item["body"],
        "source_branch": item["branch"],
        "web_url": f"https://gitlab.example.gov/o/r/-/merge_requests/{item['number']}",
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: two would wait for each other
    platform: PlatformServer
    content: bytes

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
