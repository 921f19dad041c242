"""The comments (notes) of one GitLab merge request.

What the token needs: a project access token with the scope `api` and a role that may comment, which
is Reporter in a private project. A job's own `CI_JOB_TOKEN` may not call GitLab's notes API.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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

TOKEN = "CLUSTERBOX_GITLAB_TOKEN"  # noqa: S105 -- the name of the variable
_REASONS = {
    401: (
        f"the token in {TOKEN} is not valid or has expired; make a project access token with the "
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


def escape_quick_actions(text: str) -> str:
    """Return a text of which GitLab does nothing: a line that begins with a slash is a command.

    It would be done with the rights of the token.
    """
    return re.sub(r"^/", " /", text, flags=re.MULTILINE)


def check_number(name: str, value: str) -> str:
    """Return the value of a variable that is a number; raises InputError where it is none."""
    if not re.fullmatch(r"[1-9]\d*", value):
        raise InputError(f"{name} must be a number, not {value!r}")
    return value


@dataclass(frozen=True)
class GitLabProject:
    """A project on GitLab, as the variables of a job of GitLab CI name it."""

    api: str
    number: str
    session: Session

    @property
    def address(self) -> str:
        """Where the API has the project."""
        return f"{self.api}/projects/{self.number}"

    @classmethod
    def open(
        cls,
        environment: Mapping[str, str],
        clock: Clock,
        of: str,
        missing: Sequence[str] = (),
    ) -> GitLabProject:
        """Read the variables of a job of `of`; raises InputError with all that are `missing`."""
        needed = ("CI_API_V4_URL", "CI_PROJECT_ID", TOKEN)
        missing = [*(name for name in needed if not environment.get(name)), *missing]
        if missing:
            raise InputError(
                f"not in a GitLab job of {of}: missing {', '.join(missing)}. {TOKEN} is a project "
                "access token with the scope `api`; CI_JOB_TOKEN cannot be used in its place"
            )
        api = check_endpoint("CI_API_V4_URL", environment["CI_API_V4_URL"])
        number = check_number("CI_PROJECT_ID", environment["CI_PROJECT_ID"])
        token = check_token(TOKEN, environment[TOKEN])
        headers = {"PRIVATE-TOKEN": token, "User-Agent": "clusterbox"}
        # Set by the runner where the server's certificate is signed by an authority of its own.
        ca_file = environment.get("CI_SERVER_TLS_CA_FILE") or None
        return cls(api, number, Session(token, headers, clock, ca_file))


class GitLabDiscussion(Discussion):
    """The notes of a merge request, through GitLab's REST API."""

    def __init__(self, environment: Mapping[str, str], clock: Clock) -> None:
        """Read the variables of GitLab CI; raises InputError with all that are missing."""
        # In a pipeline of a fork CI_PROJECT_ID is the fork; the merge request is elsewhere.
        upstream = environment.get("CI_MERGE_REQUEST_PROJECT_ID")
        if upstream:
            environment = {**environment, "CI_PROJECT_ID": upstream}
        number = environment.get("CI_MERGE_REQUEST_IID", "")
        place = GitLabProject.open(
            environment,
            clock,
            "a merge request that may comment",
            [] if number else ["CI_MERGE_REQUEST_IID"],
        )
        check_number("CI_MERGE_REQUEST_IID", number)
        self._api = place.api
        self._notes = f"{place.address}/merge_requests/{number}/notes"
        page = environment.get("CI_MERGE_REQUEST_PROJECT_URL") or environment.get("CI_PROJECT_URL")
        self._page = f"{page}/-/merge_requests/{number}" if page else self._notes
        self._session = place.session
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
