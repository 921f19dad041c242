"""Which environments a change touches, told by the files that git says are different."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from clusterbox.errors import ClusterboxError, InputError

# What both platforms name as the commit before the first one of a branch.
NO_COMMIT = "0" * 40
# Every environment's templates, or the way in which they are deployed, come from these.
_EVERYWHERE = (
    "stacks",
    "clusterbox/site",
    "clusterbox/deployment",
    "clusterbox/errors.py",
    "app.py",
    "cdk.json",
    "package.json",
    "package-lock.json",
    "requirements.txt",
)
_ENVIRONMENTS = PurePosixPath("environments")
_CLUSTERS = PurePosixPath("cluster_configs")
_IMAGES = "ami/images.lock.yaml"


@dataclass(frozen=True)
class Site:
    """What deployments in CI need to know of one environment."""

    name: str
    account: str
    region: str
    configs: frozenset[str]
    # The GitHub environment whose reviewers agree to a deployment; None where GitHub deploys none.
    github_environment: str | None
    on_gitlab: bool


def changed_environments(root: Path, base_ref: str, head_ref: str = "HEAD") -> list[str]:
    """Return the names of the environments at `head_ref` that differ since `base_ref`, sorted.

    Commits are compared as they are, not from their common ancestor; the working tree does not
    count. With NO_COMMIT as the base, every environment is new. One that was removed is not named:
    it can no longer be deployed. Raises InputError where a commit or the repository is missing.
    """
    return sorted(site.name for site in changed_sites(root, base_ref, head_ref))


def changed_sites(root: Path, base_ref: str, head_ref: str = "HEAD") -> list[Site]:
    """Return the environments at `head_ref` that differ since `base_ref`, sorted by name.

    Raises InputError where a commit or the repository is missing, or a file is not YAML.
    """
    head = _find_commit(root, head_ref)
    sites = read_sites(root, head)
    if base_ref == NO_COMMIT:
        return sites
    base = _find_commit(root, base_ref)
    # Without renames: a file that moved is one that went and one that came.
    paths = _git(root, "diff", "--name-only", "--no-renames", "--relative", "-z", base, head)
    changed = [PurePosixPath(path) for path in paths.split("\0") if path]
    if any(_is_everywhere(path) for path in changed):
        return sites
    names = {path.stem for path in changed if _is_environment(path)}
    configs = {str(path.relative_to(_CLUSTERS)) for path in changed if _CLUSTERS in path.parents}
    if PurePosixPath(_IMAGES) in changed:
        names |= _different(_images(root, base), _images(root, head))
    return [site for site in sites if site.name in names or site.configs & configs]


def read_sites(root: Path, ref: str = "HEAD") -> list[Site]:
    """Return the environments of a commit, sorted by name.

    They are read leniently, because `clusterbox check` is what finds mistakes in them.
    """
    commit = _find_commit(root, ref)
    names = _git(root, "ls-tree", "-z", "--name-only", commit, "--", "environments/").split("\0")
    paths = sorted(PurePosixPath(name) for name in names if name)
    return [
        _site(path.stem, _read(root, commit, str(path))) for path in paths if _is_environment(path)
    ]


def _site(name: str, data: Any) -> Site:
    clusters = _at(data, "clusters")
    configs = [_at(entry, "config") for entry in clusters] if isinstance(clusters, list) else []
    approval = _at(data, "hosting", "ci", "github", "environment")
    return Site(
        name=name,
        account=str(_at(data, "account") or ""),
        region=str(_at(data, "region") or ""),
        configs=frozenset(config for config in configs if isinstance(config, str)),
        github_environment=approval if isinstance(approval, str) else None,
        on_gitlab=_at(data, "hosting", "ci", "gitlab") is not None,
    )


def _at(data: Any, *keys: str) -> Any:
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def _is_everywhere(path: PurePosixPath) -> bool:
    return any(
        path == (folder := PurePosixPath(name)) or folder in path.parents for name in _EVERYWHERE
    )


def _is_environment(path: PurePosixPath) -> bool:
    return path.parent == _ENVIRONMENTS and path.suffix == ".yaml" and not path.name.startswith(".")


def _different(base: Mapping[str, Any], head: Mapping[str, Any]) -> set[str]:
    return {name for name in {*base, *head} if base.get(name) != head.get(name)}


def _images(root: Path, commit: str) -> dict[str, Any]:
    """Return what the lock says of each environment: its images, and the pins of its clusters."""
    data = _read(root, commit, _IMAGES)
    parts = [_at(data, key) for key in ("environments", "pins")]
    known = [part if isinstance(part, dict) else {} for part in parts]
    return {name: [part.get(name) for part in known] for name in {**known[0], **known[1]}}


def _read(root: Path, commit: str, path: str) -> Any:
    """Return the data of a YAML file of a commit; None where the commit does not have it."""
    if not _git(root, "ls-tree", "-z", "--name-only", commit, "--", path):
        return None
    text = _git(root, "show", f"{commit}:./{path}")
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path} at {commit[:10]} is not YAML: {error}") from error


def _find_commit(root: Path, ref: str) -> str:
    """Return the full id of a commit; raises InputError, with what to do, where there is none."""
    found = _run(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    if found.returncode == 0:
        return found.stdout.strip()
    shallow = _run(root, "rev-parse", "--is-shallow-repository")
    if shallow.returncode != 0:
        raise InputError(f"{root} is not in a git repository: {shallow.stderr.strip()}")
    if shallow.stdout.strip() == "true":
        raise InputError(
            f"there is no commit {ref!r} in this shallow clone; fetch the whole history: "
            "`git fetch --unshallow`, or in CI `fetch-depth: 0` (GitHub), `GIT_DEPTH: 0` (GitLab)"
        )
    raise InputError(
        f"there is no commit {ref!r} in {root}; fetch it, or name another one. After a forced push "
        "the commit before it is gone from new clones"
    )


def _git(root: Path, *words: str) -> str:
    found = _run(root, *words)
    if found.returncode != 0:
        raise ClusterboxError(f"git {words[0]} failed in {root}: {found.stderr.strip()}")
    return found.stdout


def _run(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["git", "-C", str(root), *words],
            capture_output=True,
            check=False,
            encoding="utf-8",
            errors="surrogateescape",
        )
    except FileNotFoundError as error:
        raise InputError("git is not installed; changes are found by git") from error
