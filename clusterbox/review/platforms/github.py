"""The comments of one GitHub pull request.

What the token needs: `pull-requests: write` of a workflow's `GITHUB_TOKEN`, or the repository
permission "Pull requests: read and write" of a fine-grained token, and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterbox.errors import ClusterboxError, InputError
from clusterbox.review.platforms import (
    Comment,
    Discussion,
    author_of,
    check_endpoint,
    check_token,
    read_comment,
)
from clusterbox.review.platforms.http import Clock, RefusedError, Session

_REASONS = {
    401: "the token is not valid or has expired; give the job GITHUB_TOKEN: ${{ github.token }}",
    403: (
        "the token may not comment on pull requests; the job needs `permissions: pull-requests: "
        "write`. The token of a pull request from a fork only reads, whatever the job says"
    ),
    404: (
        "there is no such pull request, or the token cannot see it; look at GITHUB_REPOSITORY and "
        "at the permission `pull-requests: write`"
    ),
}


@dataclass(frozen=True)
class GitHubRepository:
    """A repository on GitHub, as the variables of a job of GitHub Actions name it."""

    api: str
    # OWNER/REPOSITORY
    name: str
    session: Session

    @property
    def address(self) -> str:
        """Where the API has the repository."""
        return f"{self.api}/repos/{self.name}"

    @classmethod
    def open(
        cls,
        environment: Mapping[str, str],
        clock: Clock,
        of: str,
        missing: Sequence[str] = (),
    ) -> GitHubRepository:
        """Read the variables of a job of `of`; raises InputError with all that are `missing`."""
        needed = ("GITHUB_API_URL", "GITHUB_REPOSITORY", "GITHUB_TOKEN")
        missing = [*(name for name in needed if not environment.get(name)), *missing]
        if missing:
            raise InputError(f"not in a GitHub Actions job of {of}: missing {', '.join(missing)}")
        api = check_endpoint("GITHUB_API_URL", environment["GITHUB_API_URL"])
        repository = environment["GITHUB_REPOSITORY"]
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
            raise InputError(f"GITHUB_REPOSITORY must be OWNER/REPOSITORY, not {repository!r}")
        token = check_token("GITHUB_TOKEN", environment["GITHUB_TOKEN"])
        headers = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
            "User-Agent": "clusterbox",
        }
        return cls(api, repository, Session(token, headers, clock))


class GitHubDiscussion(Discussion):
    """The comments of a pull request, through GitHub's REST API."""

    def __init__(self, environment: Mapping[str, str], clock: Clock) -> None:
        """Read the variables of GitHub Actions; raises InputError with all that are missing."""
        number = _pull_request_number(environment)
        more = [] if number else ["GITHUB_REF or GITHUB_EVENT_PATH of a pull request"]
        place = GitHubRepository.open(environment, clock, "a pull request", more)
        self._graphql = f"{place.api.removesuffix('/v3')}/graphql"
        self._comments = f"{place.address}/issues/comments"
        self._of_pull_request = f"{place.address}/issues/{number}/comments"
        self._session = place.session
        self._user: int | None = None

    def own_comments(self) -> list[Comment]:
        """Return the comments of the token's user, oldest first."""
        with _explained("read the comments of the pull request"):
            user = self._fetch_user()
            found = [
                _comment(item)
                for item in self._session.pages(f"{self._of_pull_request}?per_page=100&page=1")
                if author_of(item, "user") == user
            ]
        return sorted(found, key=lambda comment: comment.id)

    def create(self, body: str) -> Comment:
        """Add a comment; raises UnsureError where nobody can tell whether it was added."""
        with _explained("comment on the pull request"):
            response = self._session.call(
                "POST", self._of_pull_request, {"body": body}, repeatable=False
            )
            return _comment(self._session.record(response))

    def update(self, comment: Comment, body: str) -> Comment | None:
        """Replace the text of a comment, or return None where it has been deleted meanwhile."""
        with _explained("update its comment on the pull request"):
            try:
                response = self._session.call(
                    "PATCH", f"{self._comments}/{comment.id}", {"body": body}
                )
            except RefusedError as error:
                if error.status == 404:
                    return None
                raise
            return _comment(self._session.record(response))

    def delete(self, comment: Comment) -> None:
        """Delete a comment; one that is gone already is fine."""
        with _explained("delete an earlier comment of its own"):
            try:
                self._session.call("DELETE", f"{self._comments}/{comment.id}")
            except RefusedError as error:
                if error.status != 404:
                    raise

    def pause(self, attempt: int, failure: str) -> None:
        """Wait after a failed attempt; raises ClusterboxError with the failure when time is up."""
        self._session.wait(attempt, failure)

    def _fetch_user(self) -> int:
        """Return the id of the token's user.

        By GraphQL, because REST's `/user` is closed to the token of a workflow and of an app.
        """
        if self._user is None:
            query = {"query": "query { viewer { databaseId } }"}
            response = self._session.call("POST", self._graphql, query)
            answer = self._session.record(response)
            try:
                self._user = int(answer["data"]["viewer"]["databaseId"])
            except (KeyError, TypeError, ValueError) as error:
                raise ClusterboxError(
                    f"GitHub does not say whose token this is, at {self._graphql}"
                ) from error
        return self._user


def _pull_request_number(environment: Mapping[str, str]) -> int | None:
    named = re.fullmatch(r"refs/pull/([1-9]\d*)/(?:merge|head)", environment.get("GITHUB_REF", ""))
    if named:
        return int(named[1])
    path = environment.get("GITHUB_EVENT_PATH", "")
    if not path:
        return None
    try:
        event = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"GITHUB_EVENT_PATH: {path} cannot be read as JSON") from error
    pull_request = event.get("pull_request") if isinstance(event, dict) else None
    number = pull_request.get("number") if isinstance(pull_request, dict) else None
    return number if isinstance(number, int) and number > 0 else None


def _comment(item: dict[str, Any]) -> Comment:
    return read_comment(item, str(item.get("html_url") or ""))


@contextmanager
def _explained(work: str) -> Iterator[None]:
    """Say in words what GitHub refuses, and what to do."""
    try:
        yield
    except RefusedError as error:
        reason = _REASONS.get(error.status, "look at the reason that GitHub gives")
        raise ClusterboxError(f"GitHub refuses to {work}: {error}. What to do: {reason}.") from None
