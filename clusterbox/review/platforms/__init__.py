"""The comments of one pull or merge request, on the platforms that host the repository."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from clusterbox.errors import ClusterboxError, InputError

Platform = Literal["github", "gitlab"]

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


@dataclass(frozen=True)
class Comment:
    """A comment that exists."""

    id: int
    body: str
    url: str


def read_comment(item: Mapping[str, Any], url: str) -> Comment:
    """Return a comment of an API's answer; raises ClusterboxError where it is none."""
    number = item.get("id")
    if not isinstance(number, int):
        raise ClusterboxError("the platform answers with a comment that has no number")
    return Comment(number, str(item.get("body") or ""), url)


def author_of(item: Mapping[str, Any], key: str) -> int | None:
    """Return the number of a comment's author; None for a deleted account."""
    author = item.get(key)
    number = author.get("id") if isinstance(author, Mapping) else None
    return number if isinstance(number, int) else None


class Discussion(ABC):
    """The comments of one pull or merge request, as the user whose token it is."""

    @abstractmethod
    def own_comments(self) -> list[Comment]:
        """Return the comments of the token's user, oldest first."""

    @abstractmethod
    def create(self, body: str) -> Comment:
        """Add a comment; raises UnsureError where nobody can tell whether it was added."""

    @abstractmethod
    def update(self, comment: Comment, body: str) -> Comment | None:
        """Replace the text of a comment, or return None where it has been deleted meanwhile."""

    @abstractmethod
    def delete(self, comment: Comment) -> None:
        """Delete a comment; one that is gone already is fine."""

    @abstractmethod
    def pause(self, attempt: int, failure: str) -> None:
        """Wait after a failed attempt; raises ClusterboxError with the failure when time is up."""


def check_endpoint(variable: str, url: str) -> str:
    """Return the address without a slash at its end.

    Raises InputError where a token sent to it could be read on its way.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InputError(f"{variable} is not an address: {error}") from error
    secure = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    # An address with a user's name in it can look like that of another host.
    if not secure or not parts.hostname or "@" in parts.netloc:
        raise InputError(
            f"{variable} must be an address that begins with https:// and names no user, "
            f"because a token is sent to it; its host is {parts.hostname or 'not given'}"
        )
    return url.rstrip("/")


def check_token(variable: str, token: str) -> str:
    """Return the token; raises InputError, without showing it, where it cannot be one."""
    if not re.fullmatch(r"[\x21-\x7e]{8,}", token):
        raise InputError(
            f"{variable} does not hold a token: at least 8 characters, no spaces or line ends"
        )
    return token
