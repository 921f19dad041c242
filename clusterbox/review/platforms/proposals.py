"""Changes of files, proposed as one pull or merge request."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from clusterbox.errors import InputError

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

    @abstractmethod
    def propose(self, proposal: Proposal) -> Proposed | None:
        """Make the branch hold the files, and its request say the text.

        A branch that has the files already gets no commit, and an open request of it is updated.
        A commit is added behind what is on the branch: nothing of it is ever lost. A new branch
        starts at the commit that the job works on, so that what others have changed since shows as
        a conflict. Returns None where that commit has the files already: there is nothing to
        propose. Raises ClusterboxError for what the platform refuses.
        """


def check_commit(variable: str, commit: str) -> str:
    """Return the id of a commit; raises InputError where it is none."""
    if not _COMMIT.fullmatch(commit):
        raise InputError(f"{variable} must be the id of a commit, not {commit!r}")
    return commit
