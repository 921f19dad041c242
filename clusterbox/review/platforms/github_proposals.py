"""Proposed changes as pull requests on GitHub.

What the token needs: `contents: write` and `pull-requests: write` of a workflow's `GITHUB_TOKEN`
(with "Allow GitHub Actions to create and approve pull requests" in the repository's settings), or
these permissions of a fine-grained token. A pull request of a `GITHUB_TOKEN` starts no workflow
(GitHub's documentation, "Triggering a workflow from a workflow"); that of a token of its own does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from typing import Any

from clusterbox.errors import ClusterboxError
from clusterbox.review.platforms.github import GitHubRepository
from clusterbox.review.platforms.http import Clock, RefusedError
from clusterbox.review.platforms.proposals import Proposal, Proposals, check_commit

_REASONS = {
    401: "the token is not valid or has expired; give the job GITHUB_TOKEN: ${{ github.token }}",
    403: (
        "the job needs `permissions: contents: write` and `pull-requests: write`, and the "
        "repository the setting that GitHub Actions may create pull requests (Settings, Actions, "
        "General)"
    ),
    404: (
        "the repository is not there or the token cannot see it; look at GITHUB_REPOSITORY and at "
        "the permissions `contents: write` and `pull-requests: write`"
    ),
}


class GitHubProposals(Proposals):
    """Pull requests from branches of the repository itself, through GitHub's REST API."""

    def __init__(self, environment: Mapping[str, str], clock: Clock) -> None:
        """Read the variables of GitHub Actions; raises InputError with all that are missing."""
        missing = [] if environment.get("GITHUB_SHA") else ["GITHUB_SHA"]
        place = GitHubRepository.open(environment, clock, "the repository", missing)
        self._start = check_commit("GITHUB_SHA", environment["GITHUB_SHA"])
        self._address = place.address
        self._owner = place.name.partition("/")[0]
        self._session = place.session

    def _explained(self) -> AbstractContextManager[None]:
        """Return a block in which the platform's refusals become reasons for people."""
        return _explained("take the change as a pull request")

    def _is_open_already(self, error: RefusedError) -> bool:
        """Return whether a refusal says that another request of this branch is open."""
        # 422 is GitHub's word for one that exists, among others.
        return error.status == 422 and "already exists" in str(error)

    def _commit(self, proposal: Proposal) -> bool | None:
        """Return whether a commit was added; None where there is nothing to propose."""
        for attempt in count(1):
            head = self._read_branch(proposal.branch)
            parent = head or self._start
            base = self._get(f"git/commits/{parent}")["tree"]["sha"]
            files = [
                {"path": path, "mode": "100644", "type": "blob", "content": content}
                for path, content in sorted(proposal.files.items())
            ]
            # A tree's id is made of its content: the same files in the same place are the same tree.
            tree = self._post("git/trees", {"base_tree": base, "tree": files})["sha"]
            if tree == base:
                return None if head is None else False
            commit = self._post(
                "git/commits", {"message": proposal.message, "tree": tree, "parents": [parent]}
            )["sha"]
            try:
                if head is None:
                    self._post("git/refs", {"ref": f"refs/heads/{proposal.branch}", "sha": commit})
                else:
                    self._change(f"git/refs/heads/{proposal.branch}", {"sha": commit})
            except RefusedError as error:
                # 422: the branch was made or moved meanwhile, perhaps by a call whose answer was
                # lost. Its files are compared again.
                if error.status != 422:
                    raise
                self._session.wait(attempt, str(error))
                continue
            return True
        raise AssertionError("unreachable: wait() ends the attempts")

    def _read_branch(self, branch: str) -> str | None:
        """Return the commit at the end of a branch, or None where there is no such branch."""
        try:
            return str(self._get(f"git/ref/heads/{branch}")["object"]["sha"])
        except RefusedError as error:
            if error.status == 404:
                return None
            raise

    def _find(self, branch: str) -> dict[str, Any] | None:
        """Return the open pull request of a branch."""
        query = f"head={self._owner}:{branch}&state=open&per_page=100&page=1"
        found = self._session.pages(f"{self._address}/pulls?{query}")
        return next((item for item in found if item["head"]["ref"] == branch), None)

    def _open(self, proposal: Proposal) -> str:
        base = self._read_default_branch()
        payload = {
            "title": proposal.title,
            "head": proposal.branch,
            "base": base,
            "body": proposal.body,
        }
        return str(self._post("pulls", payload, repeatable=False)["html_url"])

    def _update(self, found: Mapping[str, Any], proposal: Proposal) -> str:
        wanted = {"title": proposal.title, "body": proposal.body}
        if any(found.get(key) != value for key, value in wanted.items()):
            self._change(f"pulls/{found['number']}", wanted)
        return str(found["html_url"])

    def _read_default_branch(self) -> str:
        answer = self._session.call("GET", self._address)
        return str(self._session.record(answer)["default_branch"])

    def _get(self, path: str) -> dict[str, Any]:
        return self._session.record(self._session.call("GET", f"{self._address}/{path}"))

    def _post(self, path: str, payload: object, *, repeatable: bool = True) -> dict[str, Any]:
        address = f"{self._address}/{path}"
        answer = self._session.call("POST", address, payload, repeatable=repeatable)
        return self._session.record(answer)

    def _change(self, path: str, payload: object) -> None:
        self._session.call("PATCH", f"{self._address}/{path}", payload)


@contextmanager
def _explained(work: str) -> Iterator[None]:
    """Say in words what GitHub refuses, and what to do."""
    try:
        yield
    except RefusedError as error:
        reason = _REASONS.get(error.status, "look at the reason that GitHub gives")
        raise ClusterboxError(f"GitHub refuses to {work}: {error}. What to do: {reason}.") from None
    except (KeyError, TypeError) as error:
        raise ClusterboxError(f"GitHub's answer lacks {error}, asked to {work}") from error
