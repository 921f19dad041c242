"""Changes of files, proposed as one pull or merge request."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from clusterbox.errors import InputError
from clusterbox.review.platforms.http import RefusedError, Session, UnsureError

# The names of branches that git takes everywhere, and that need no quoting in an address
# (git-check-ref-format).
_BRANCH = re.compile(r"[A-Za-z0-9][\w-]*(?:[./][A-Za-z0-9_][\w-]*)*")
_PATH = re.compile(r"[\w-][\w.-]*(?:/[\w-][\w.-]*)*")
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What a branch shall hold, and what its pull or merge request says.

    `files` are texts by their path in the repository. A first line of `message` is the commit's
    subject.
    """

    branch: str
    title: str
    body: str = field(repr=False)
    message: str
    files: Mapping[str, str] = field(repr=False)

    def __post_init__(self) -> None:
        """Raise InputError where a name could not stand in an address or a reference."""
        if not _BRANCH.fullmatch(self.branch) or self.branch.endswith(".lock"):
            raise InputError(f"{self.branch!r} cannot be the name of a branch")
        for path in self.files:
            if not _PATH.fullmatch(path):
                raise InputError(f"{path!r} cannot be the path of a proposed file")
        if not self.files:
            raise InputError("a proposal must hold a file")


@dataclass(frozen=True)
class Proposed:
    """The pull or merge request: where it is, and what this call did to it."""

    url: str
    # A commit was added to its branch.
    committed: bool
    # It did not exist before.
    opened: bool


class Proposals(ABC):
    """Where a repository takes proposals, as the user whose token it is."""

    _session: Session

    def propose(self, proposal: Proposal) -> Proposed | None:
        """Make the branch hold the files, and its request say the text.

        A branch that has the files already gets no commit, and an open request of it is updated.
        A commit is added behind what is on the branch: nothing of it is ever lost. A new branch
        starts at the commit that the job works on, so that what others have changed since shows as
        a conflict. Returns None where that commit has the files already: there is nothing to
        propose. Raises ClusterboxError for what the platform refuses.
        """
        with self._explained():
            committed = self._commit(proposal)
            if committed is None:
                return None
            for attempt in count(1):
                found = self._find(proposal.branch)
                if found is not None:
                    return Proposed(self._update(found, proposal), committed, opened=False)
                try:
                    return Proposed(self._open(proposal), committed, opened=True)
                except UnsureError as error:
                    # It may have been opened all the same, so it is looked for again.
                    self._session.wait(attempt, str(error))
                except RefusedError as error:
                    if not self._is_open_already(error):
                        raise
                    self._session.wait(attempt, str(error))
        raise AssertionError("unreachable: wait() ends the attempts")

    @abstractmethod
    def _explained(self) -> AbstractContextManager[None]:
        """Return a block in which the platform's refusals become reasons for people."""

    @abstractmethod
    def _commit(self, proposal: Proposal) -> bool | None:
        """Return whether a commit was added; None where there is nothing to propose."""

    @abstractmethod
    def _find(self, branch: str) -> Mapping[str, Any] | None:
        """Return the open request of a branch."""

    @abstractmethod
    def _open(self, proposal: Proposal) -> str:
        """Open a request and return its URL; raises UnsureError and RefusedError."""

    @abstractmethod
    def _update(self, found: Mapping[str, Any], proposal: Proposal) -> str:
        """Make an open request say the text, and return its URL."""

    @abstractmethod
    def _is_open_already(self, error: RefusedError) -> bool:
        """Return whether a refusal says that another request of this branch is open."""


def check_commit(variable: str, commit: str) -> str:
    """Return the id of a commit; raises InputError where it is none."""
    if not _COMMIT.fullmatch(commit):
        raise InputError(f"{variable} must be the id of a commit, not {commit!r}")
    return commit
