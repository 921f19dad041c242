"""The change of the image lock as a pull or merge request, where the platform's variables are given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from clusterbox.errors import InputError
from clusterbox.review.markup import code, table, text
from clusterbox.review.platforms import Platform
from clusterbox.review.platforms.github_proposals import GitHubProposals
from clusterbox.review.platforms.gitlab import TOKEN as GITLAB_TOKEN
from clusterbox.review.platforms.gitlab_proposals import GitLabProposals
from clusterbox.review.platforms.http import Clock
from clusterbox.review.platforms.proposals import Proposal, Proposals, Proposed
from clusterbox.site.images import LOCK, ClusterPins, ImageLock, LockedImage
from clusterbox.site.load import Repository

_TOKENS = ("GITHUB_TOKEN", GITLAB_TOKEN)


def find_platform(variables: Mapping[str, str]) -> Platform | None:
    """Return the platform that takes the change, by the variables of a CI job; None outside of one.

    A job elsewhere, such as CodeBuild's, that is given the variables has a platform too.
    """
    if variables.get("GITHUB_ACTIONS") == "true" or variables.get("GITHUB_REPOSITORY"):
        return "github"
    if variables.get("GITLAB_CI") == "true" or variables.get("CI_API_V4_URL"):
        return "gitlab"
    return None


def open_platform(variables: Mapping[str, str], clock: Clock | None = None) -> Proposals | None:
    """Return where changes are proposed; None where nothing says that there is such a place.

    Raises InputError for variables that are missing or malformed: in a job the lock would be lost
    with its folder.
    """
    platform = find_platform(variables)
    if platform is None:
        return None
    kind = GitHubProposals if platform == "github" else GitLabProposals
    return kind(variables, clock or Clock())


def branch_name(environment: str, run: str) -> str:
    """Return the branch of a run, which is the same whenever it is called.

    Runs of two environments have the same id where they begin on one day: on one branch, each would
    take the other's images out of the lock again.
    """
    return f"patch-day/{environment}/{run}"


def propose_lock(
    place: Proposals, root: Path, environment: str, run: str, variables: Mapping[str, str]
) -> Proposed | None:
    """Propose the lock as it is in the working tree; return None where nothing differs.

    May be called as often as the lock changes: the branch and the request stay the same. Raises
    InputError where a token stands in what would be sent.
    """
    content = (root / LOCK).read_text(encoding="utf-8")
    title = f"Images of {environment}: patch day {run}"
    body = render_body(Repository(root).load_lock(), environment, run)
    for name in _TOKENS:
        value = variables.get(name, "")
        if len(value) >= 8 and any(value in sent for sent in (content, title, body)):
            raise InputError(f"the change holds the value of {name}; it is not sent")
    return place.propose(
        Proposal(
            branch=branch_name(environment, run),
            title=title,
            body=body,
            message=f"{title}\n\nWritten by `clusterbox patch-day`; {LOCK} is the whole change.",
            files={LOCK.as_posix(): content},
        )
    )


def render_body(lock: ImageLock, environment: str, run: str) -> str:
    """Return what the request says, as Markdown: images old and new, and what is pinned still."""
    rows = [
        _image_row(name, entry) for name, entry in lock.environments.get(environment, {}).items()
    ]
    columns = ["image", "AMI", "before", "kernel", "before", "Slurm", "verified"]
    parts = [
        f"The images of {code(environment)} after the patch day {code(run)}.",
        table(columns, rows),
    ]
    pinned = [
        [text(cluster), text(part), code(ami)]
        for cluster, pins in sorted(lock.pins.get(environment, {}).items())
        for part, ami in _pinned(pins)
    ]
    if pinned:
        parts += [
            "Pinned, so that merging and deploying moves nothing that still runs another image:",
            table(["cluster", "part", "AMI"], pinned),
        ]
    parts.append(
        f"`clusterbox images report {environment}` tells what was done; "
        f"`clusterbox images rollback {environment}` brings the entries before back."
    )
    return "\n\n".join(parts) + "\n"


def _image_row(name: str, entry: LockedImage) -> list[str]:
    before = entry.previous
    verified = entry.verified
    return [
        text(name),
        code(entry.ami),
        code(before.ami) if before else "",
        text(entry.kernel or "not known"),
        text((before.kernel if before else None) or "not known"),
        text(entry.slurm_version or ""),
        text(f"{verified.at}, {len(verified.checks)} checks" if verified else "no"),
    ]


def _pinned(pins: ClusterPins) -> Iterator[tuple[str, str]]:
    if pins.head is not None:
        yield "head node", pins.head
    for queue, ami in pins.queues.items():
        yield f"queue {queue}", ami
    for pool, pin in pins.login.items():
        yield f"login pool {pool}{' (closed)' if pin.closed else ''}", pin.ami
