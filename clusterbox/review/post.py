"""Post the comment of a review, or update the one that was posted before."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import count

from clusterbox.errors import InputError
from clusterbox.review.platforms import Comment, Discussion, Platform
from clusterbox.review.platforms.github import GitHubDiscussion
from clusterbox.review.platforms.gitlab import GitLabDiscussion
from clusterbox.review.platforms.http import Clock, UnsureError

# Characters that a comment may hold. GitHub refuses more with "body is too long (maximum is 65536
# characters)"; GitLab's is the validation of a note's text (`Note`: maximum 1,000,000 characters).
LIMITS: Mapping[Platform, int] = {"github": 65_536, "gitlab": 1_000_000}
_DISCUSSIONS = {"github": GitHubDiscussion, "gitlab": GitLabDiscussion}


def marker(name: str = "clusterbox") -> str:
    """Return the line, hidden in a rendered page, by which a comment is found again.

    Raises InputError for a name that cannot stand in it.
    """
    if not re.fullmatch(r"[A-Za-z0-9._]+(?:-[A-Za-z0-9._]+)*", name):
        raise InputError(
            f"the name of a review must be letters, digits, dots and single dashes, not {name!r}"
        )
    return f"<!-- clusterbox review: {name} -->"


def room(platform: Platform, name: str = "clusterbox") -> int:
    """Return how many characters a body may have beside its marker."""
    return LIMITS[platform] - len(marker(name)) - 1


def post_comment(
    platform: Platform,
    body: str,
    *,
    environment: Mapping[str, str],
    name: str = "clusterbox",
    clock: Clock | None = None,
) -> str:
    """Make `body` the one comment of this review on its pull or merge request; return its URL.

    Where it goes and whose token it is come from the variables of the CI job in `environment`.
    An earlier comment of the same user that begins with the marker of `name` is updated; of
    several, which two jobs at the same time can leave, the newest, and the others are deleted.
    Raises InputError for missing variables and a body that is too long, ClusterboxError for what
    the platform refuses or where it does not answer within ten minutes.
    """
    # Platforms drop carriage returns, after which a line could begin with what stood behind one.
    body = body.replace("\r\n", "\n").replace("\r", " ")
    text = f"{marker(name)}\n{body.removeprefix(marker(name)).lstrip()}"
    if platform == "gitlab":
        # A line that begins with a slash would be a quick action, done with the token's rights.
        text = re.sub(r"^/", " /", text, flags=re.MULTILINE)
    if len(text) > LIMITS[platform]:
        raise InputError(
            f"the comment has {len(text):,} characters with its marker, and {platform} takes "
            f"{LIMITS[platform]:,}; make it shorter first"
        )
    for variable in ("GITHUB_TOKEN", "CLUSTERBOX_GITLAB_TOKEN"):
        if len(environment.get(variable, "")) >= 8 and environment[variable] in text:
            raise InputError(f"the comment holds the value of {variable}; it is not posted")
    discussion = _DISCUSSIONS[platform](environment, clock or Clock())
    return _publish(discussion, text, marker(name)).url


def _publish(discussion: Discussion, text: str, mark: str) -> Comment:
    for attempt in count(1):
        # Looked for again after each attempt, because an addition without an answer may have
        # worked. Only at its beginning: a comment that quotes the marker is another one.
        earlier = [
            comment
            for comment in discussion.own_comments()
            if comment.body.lstrip().startswith(mark)
        ]
        while earlier:
            updated = discussion.update(earlier.pop(), text)
            if updated is not None:
                for comment in earlier:
                    discussion.delete(comment)
                return updated
        try:
            return discussion.create(text)
        except UnsureError as error:
            discussion.pause(attempt, str(error))
    raise AssertionError("unreachable: pause() ends the attempts")
