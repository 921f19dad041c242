"""The comments (notes) of one GitLab merge request.

What the token needs: a project access token with the scope `api` and a role that may comment, which
is Reporter in a private project. A job's own `CI_JOB_TOKEN` may not call GitLab's notes API.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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

_TOKEN = "CLUSTERBOX_GITLAB_TOKEN"  # noqa: S105 -- the name of the variable
_REASONS = {
    401: (
        f"the token in {_TOKEN} is not valid or has expired; make a project access token with the "
        "scope `api`"
    ),
    403: (
        "the token may not comment on merge requests: its scope must be `api`, and its role at "
        "least Reporter (Developer where your server asks for it)"
    ),
    404: (
        "there is no such merge request, or the token cannot see the project: it must be a token "
        "of the project in which the merge request is, not of a fork"
    ),
}


class GitLabDiscussion(Discussion):
    """The notes of a merge request, through GitLab's REST API."""

    def __init__(self, environment: Mapping[str, str], clock: Clock) -> None:
        """Read the variables of GitLab CI; raises InputError with all that are missing."""
        # In a pipeline of a fork CI_PROJECT_ID is the fork; the merge request is elsewhere.
        project = environment.get("CI_MERGE_REQUEST_PROJECT_ID") or environment.get(
            "CI_PROJECT_ID", ""
        )
        missing = [
            name
            for name in ("CI_API_V4_URL", "CI_MERGE_REQUEST_IID", _TOKEN)
            if not environment.get(name)
        ]
        if not project:
            missing.append("CI_PROJECT_ID")
        if missing:
            raise InputError(
                "not in a GitLab job of a merge request that may comment: missing "
                f"{', '.join(missing)}. {_TOKEN} is a project access token with the scope `api`; "
                "CI_JOB_TOKEN cannot be used in its place"
            )
        api = check_endpoint("CI_API_V4_URL", environment["CI_API_V4_URL"])
        number = environment["CI_MERGE_REQUEST_IID"]
        for name, value in (("CI_PROJECT_ID", project), ("CI_MERGE_REQUEST_IID", number)):
            if not re.fullmatch(r"[1-9]\d*", value):
                raise InputError(f"{name} must be a number, not {value!r}")
        token = check_token(_TOKEN, environment[_TOKEN])
        self._api = api
        self._notes = f"{api}/projects/{project}/merge_requests/{number}/notes"
        page = environment.get("CI_MERGE_REQUEST_PROJECT_URL") or environment.get("CI_PROJECT_URL")
        self._page = f"{page}/-/merge_requests/{number}" if page else self._notes
        self._session = Session(
            token,
            {"PRIVATE-TOKEN": token, "User-Agent": "clusterbox"},
            clock,
            # Set by the runner where the server's certificate is signed by an authority of its own.
            environment.get("CI_SERVER_TLS_CA_FILE") or None,
        )
        self._user: int | None = None

    def own_comments(self) -> list[Comment]:
        """Return the notes of the token's user, oldest first."""
        with _explained("read the comments of the merge request"):
            user = self._fetch_user()
            found = [
                self._comment(item)
                for item in self._session.pages(f"{self._notes}?per_page=100&page=1")
                if not item.get("system") and author_of(item, "author") == user
            ]
        return sorted(found, key=lambda comment: comment.id)

    def create(self, body: str) -> Comment:
        """Add a note; raises UnsureError where nobody can tell whether it was added."""
        with _explained("comment on the merge request"):
            response = self._session.call("POST", self._notes, {"body": body}, repeatable=False)
            return self._comment(self._session.record(response))

    def update(self, comment: Comment, body: str) -> Comment | None:
        """Replace the text of a note, or return None where it has been deleted meanwhile."""
        with _explained("update its comment on the merge request"):
            try:
                response = self._session.call("PUT", f"{self._notes}/{comment.id}", {"body": body})
            except RefusedError as error:
                if error.status == 404:
                    return None
                raise
            return self._comment(self._session.record(response))

    def delete(self, comment: Comment) -> None:
        """Delete a note; one that is gone already is fine."""
        with _explained("delete an earlier comment of its own"):
            try:
                self._session.call("DELETE", f"{self._notes}/{comment.id}")
            except RefusedError as error:
                if error.status != 404:
                    raise

    def pause(self, attempt: int, failure: str) -> None:
        """Wait after a failed attempt; raises ClusterboxError with the failure when time is up."""
        self._session.wait(attempt, failure)

    def _fetch_user(self) -> int:
        if self._user is None:
            found = self._session.record(self._session.call("GET", f"{self._api}/user"))
            if not isinstance(found.get("id"), int):
                raise ClusterboxError("GitLab does not say whose token this is")
            self._user = found["id"]
        return self._user

    def _comment(self, item: dict[str, Any]) -> Comment:
        return read_comment(item, f"{self._page}#note_{item.get('id')}")


@contextmanager
def _explained(work: str) -> Iterator[None]:
    """Say in words what GitLab refuses, and what to do."""
    try:
        yield
    except RefusedError as error:
        reason = _REASONS.get(error.status, "look at the reason that GitLab gives")
        raise ClusterboxError(f"GitLab refuses to {work}: {error}. What to do: {reason}.") from None
