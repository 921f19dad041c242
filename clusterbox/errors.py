"""The errors that the command reports in one line, without a traceback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class ClusterboxError(Exception):
    """Base of every error a user can cause or mend; the command exits with 1."""


class InputError(ClusterboxError):
    """Something the user wrote cannot be used; the command exits with 2."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong in one file: where it stands, what was found, what is allowed."""

    file: str
    path: str
    message: str
    line: int | None = None
    value: str | None = None

    def __str__(self) -> str:
        """Return `file:line: path: message (found: value)`."""
        where = f"{self.file}:{self.line}" if self.line is not None else self.file
        found = f" (found: {self.value})" if self.value is not None else ""
        return f"{where}: {self.path or 'the file'}: {self.message}{found}"


class ProblemsError(InputError):
    """All the problems of one or more files, reported at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        noun = "problem" if len(self.problems) == 1 else "problems"
        super().__init__(f"{len(self.problems)} {noun}:\n{lines}")
