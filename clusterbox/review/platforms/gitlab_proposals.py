"""Proposed changes as merge requests on GitLab.

What the token needs: a project access token with the scope `api` and a role that may push to new
branches and open merge requests, which is Developer.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from typing import Any
from urllib.parse import quote, urlencode

from clusterbox.errors import ClusterboxError
from clusterbox.review.platforms.gitlab import TOKEN, GitLabProject, escape_quick_actions
from clusterbox.review.platforms.http import Clock, RefusedError, UnsureError
from clusterbox.review.platforms.proposals import Proposal, Proposals, check_commit

_REASONS = {
    401: (
        f"the token in {TOKEN} is not valid or has expired; make a project access token with the "
        "scope `api`"
    ),
    403: (
        "the token may not push a branch or open a merge request: its scope must be `api`, and its "
        "role at least Developer; look also at the project's protected branches"
    ),
    404: "there is no such project, or the token cannot see it; look at CI_PROJECT_ID",
}


class GitLabProposals(Proposals):
    """Merge requests from branches of the project itself, through GitLab's REST API."""

    def __init__(self, environment: Mapping[str, str], clock: Clock) -> None:
        """Read the variables of GitLab CI; raises InputError with all that are missing."""
        missing = [] if environment.get("CI_COMMIT_SHA") else ["CI_COMMIT_SHA"]
        place = GitLabProject.open(environment, clock, "the project that may push", missing)
        self._start = check_commit("CI_COMMIT_SHA", environment["CI_COMMIT_SHA"])
        self._address = place.address
        self._session = place.session

    def _explained(self) -> AbstractContextManager[None]:
        """Return a block in which the platform's refusals become reasons for people."""
        return _explained("take the change as a merge request")

    def _is_open_already(self, error: RefusedError) -> bool:
        """Return whether a refusal says that another request of this branch is open."""
        # 409 says that another one of this branch is open.
        return error.status == 409

    def _commit(self, proposal: Proposal) -> bool | None:
        """Return whether a commit was added; None where there is nothing to propose."""
        for attempt in count(1):
            exists = self._has_branch(proposal.branch)
            actions = self._compare(proposal, proposal.branch if exists else self._start)
            if not actions:
                return False if exists else None
            payload: dict[str, Any] = {
                "branch": proposal.branch,
                "commit_message": proposal.message,
                "actions": actions,
            }
            if not exists:
                payload["start_sha"] = self._start
            try:
                self._session.call(
                    "POST", f"{self._address}/repository/commits", payload, repeatable=False
                )
            except UnsureError as error:
                # It may have worked all the same: the branch is compared again.
                self._session.wait(attempt, str(error))
                continue
            except RefusedError as error:
                # 400: the branch or the file was changed meanwhile.
                if error.status != 400:
                    raise
                self._session.wait(attempt, str(error))
                continue
            return True
        raise AssertionError("unreachable: wait() ends the attempts")

    def _has_branch(self, branch: str) -> bool:
        address = f"{self._address}/repository/branches/{quote(branch, safe='')}"
        return self._read(address) is not None

    def _compare(self, proposal: Proposal, at: str) -> list[dict[str, str]]:
        """Return what makes the files of a branch or commit those of the proposal."""
        actions = []
        for path, content in sorted(proposal.files.items()):
            place = f"{self._address}/repository/files/{quote(path, safe='')}"
            found = self._read(f"{place}?{urlencode({'ref': at})}")
            encoded = base64.b64encode(content.encode()).decode()
            action = {"file_path": path, "content": encoded, "encoding": "base64"}
            if found is None:
                actions.append({**action, "action": "create"})
            elif base64.b64decode(found["content"]) != content.encode():
                # Refused where somebody changes the file between this look and the commit.
                known = str(found["last_commit_id"])
                actions.append({**action, "action": "update", "last_commit_id": known})
        return actions

    def _find(self, branch: str) -> dict[str, Any] | None:
        """Return the open merge request of a branch."""
        query = urlencode({"source_branch": branch, "state": "opened", "per_page": 100, "page": 1})
        found = self._session.pages(f"{self._address}/merge_requests?{query}")
        return next((item for item in found if item["source_branch"] == branch), None)

    def _open(self, proposal: Proposal) -> str:
        project = self._session.record(self._session.call("GET", self._address))
        payload = {
            "source_branch": proposal.branch,
            "target_branch": project["default_branch"],
            "title": proposal.title,
            "description": escape_quick_actions(proposal.body),
            "remove_source_branch": True,
        }
        address = f"{self._address}/merge_requests"
        answer = self._session.call("POST", address, payload, repeatable=False)
        return str(self._session.record(answer)["web_url"])

    def _update(self, found: Mapping[str, Any], proposal: Proposal) -> str:
        wanted = {"title": proposal.title, "description": escape_quick_actions(proposal.body)}
        if any(found.get(key) != value for key, value in wanted.items()):
            self._session.call("PUT", f"{self._address}/merge_requests/{found['iid']}", wanted)
        return str(found["web_url"])

    def _read(self, address: str) -> dict[str, Any] | None:
        """Return what is at an address, or None where there is nothing."""
        try:
            return self._session.record(self._session.call("GET", address))
        except RefusedError as error:
            if error.status == 404:
                return None
            raise


@contextmanager
def _explained(work: str) -> Iterator[None]:
    """Say in words what GitLab refuses, and what to do."""
    try:
        yield
    except RefusedError as error:
        reason = _REASONS.get(error.status, "look at the reason that GitLab gives")
        raise ClusterboxError(f"GitLab refuses to {work}: {error}. What to do: {reason}.") from None
    except (KeyError, TypeError) as error:
        raise ClusterboxError(f"GitLab's answer lacks {error}, asked to {work}") from error
