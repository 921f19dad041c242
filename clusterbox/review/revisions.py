"""The two sides of a review as folders: commits are exported, and the working tree is itself.

A commit is written with an index of its own rather than with `git worktree`, which would write into the
repository's own `.git` (docs/adr/0017-review-by-export.md).
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clusterbox.errors import ClusterboxError, InputError

# An export or an assembly that nobody asked for any more; the newest are kept.
_KEPT_ENTRIES = 20


@dataclass(frozen=True)
class Revision:
    """One state of the repository: the folder that holds it and how it is called."""

    name: str
    folder: Path
    commit: str | None
    changed_files: int = 0

    @property
    def title(self) -> str:
        """Return how a reader knows it: `main (1a2b3c4d5e)` or `the working tree`."""
        if self.commit is None:
            return f"the working tree ({self.changed_files} files not committed)"
        short = self.commit[:10]
        return short if self.commit.startswith(self.name) else f"{self.name} ({short})"


@dataclass(frozen=True)
class Cache:
    """A folder of exported commits and assemblies, which belongs to one user."""

    folder: Path

    @classmethod
    def open(cls, given: Path | None) -> Cache:
        """Return the given folder as a cache, or the user's own in the temporary folder.

        Raises InputError when the one in the temporary folder belongs to somebody else, who could
        change what a review runs.
        """
        folder = given or Path(tempfile.gettempdir()) / f"clusterbox-review-{os.getuid()}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise InputError(
                f"{folder} can be written by others and cannot be used as a cache; "
                "remove it, or name another folder with --cache"
            )
        return cls(folder.resolve())

    def export(self, root: Path, commit: str) -> Path:
        """Return a folder with the commit's files, exported when it is not there yet."""
        return self.make("trees", commit, lambda folder: _export(root, commit, folder))

    def make(self, kind: str, key: str, fill: Callable[[Path], None]) -> Path:
        """Return the folder of an entry; `fill` is called with a new folder when there is none.

        An interrupted run leaves no entry: a folder gets its name only when it is complete.
        """
        entry = self.folder / kind / key
        if entry.is_dir():
            os.utime(entry)
            return entry
        entry.parent.mkdir(mode=0o700, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{key[:12]}-", dir=entry.parent))
        try:
            fill(unfinished)
            try:
                unfinished.rename(entry)
            except OSError:
                # Another run was faster; both wrote the same.
                if not entry.is_dir():
                    raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        self._forget_old(entry.parent)
        return entry

    def _forget_old(self, folder: Path) -> None:
        entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
        entries.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in entries[_KEPT_ENTRIES:]:
            shutil.rmtree(path, ignore_errors=True)


def find_revisions(
    root: Path, base: str, head: str | None, cache: Cache
) -> tuple[Revision | None, Revision]:
    """Return both sides of a review, exported where they are commits.

    The base is the commit where the head left `base`, as platforms compare requests: what came to
    `base` since then is not the change's doing. It is None when the two share no commit. Without
    `head` the working tree is judged, as it is. Raises InputError when the repository is no git
    repository, or a ref is unknown.
    """
    if _git(root, "rev-parse", "--show-toplevel", check=False) is None:
        raise InputError(f"{root} is not in a git repository, so there is no base to compare with")
    prefix = (_git(root, "rev-parse", "--show-prefix") or "").strip()
    base_commit = _resolve(root, base)
    head_commit = _resolve(root, head or "HEAD")
    shared = _git(root, "merge-base", base_commit, head_commit, check=False)
    older = None
    if shared is not None:
        commit = shared.strip()
        older = Revision(base, cache.export(root, commit) / prefix, commit)
    elif (_git(root, "rev-parse", "--is-shallow-repository") or "").strip() == "true":
        raise InputError(
            f"{base} and {head or 'HEAD'} share no commit in this shallow clone; fetch the whole "
            "history first: git fetch --unshallow (in CI: fetch-depth 0, GIT_DEPTH 0)"
        )
    if head is not None:
        folder = cache.export(root, head_commit) / prefix
        return older, Revision(head, folder, head_commit)
    status = _git(root, "status", "--porcelain", "--untracked-files=all") or ""
    return older, Revision("working tree", root, None, len(status.splitlines()))


def export_commit(root: Path, ref: str, folder: Path) -> Path:
    """Export a commit into a folder and return where `root` lies in it.

    Raises InputError when the repository is no git repository, or the ref is unknown.
    """
    if _git(root, "rev-parse", "--show-toplevel", check=False) is None:
        raise InputError(f"{root} is not in a git repository, so there is no commit {ref}")
    _export(root, _resolve(root, ref), folder)
    return folder / (_git(root, "rev-parse", "--show-prefix") or "").strip()


def list_files(revision: Revision) -> list[Path]:
    """Return the files of a revision, relative to its folder, sorted; ignored ones are not its."""
    folder = revision.folder
    if revision.commit is None:
        # The folder may lie anywhere in its repository: git names what is below it.
        listed = _git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard") or ""
        names = {Path(name) for name in listed.split("\0") if name}
        return sorted(path for path in names if (folder / path).is_file())
    return sorted(
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )


def _resolve(root: Path, ref: str) -> str:
    if ref.startswith("-"):
        raise InputError(f"{ref!r} is not the name of a commit")
    found = _git(root, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}", check=False)
    if found is None:
        raise InputError(
            f"there is no commit {ref!r} in this clone; fetch it first "
            f"(git fetch origin {ref.removeprefix('origin/')}; in CI: fetch-depth 0, GIT_DEPTH 0)"
        )
    return found.strip()


def _export(root: Path, commit: str, folder: Path) -> None:
    """Write the files of a commit as a checkout would, with an index of its own.

    `git archive` would leave out what `export-ignore` in .gitattributes names.
    """
    top = (_git(root, "rev-parse", "--show-toplevel") or "").strip()
    index = folder.with_name(f"{folder.name}.index")
    try:
        # A sparse checkout would leave out files too.
        whole = ("-c", "core.sparseCheckout=false")
        _git(Path(top), *whole, "read-tree", commit, index=index)
        _git(Path(top), *whole, "checkout-index", "--all", f"--prefix={folder}/", index=index)
    finally:
        index.unlink(missing_ok=True)
    for path in folder.rglob("*"):
        if path.is_symlink() and not _leads_inside(path, folder.resolve()):
            raise InputError(
                f"commit {commit[:10]} cannot be exported: {path.relative_to(folder)} is a link that "
                "leads out of the repository"
            )


def _leads_inside(link: Path, folder: Path) -> bool:
    try:
        return not link.readlink().is_absolute() and link.resolve().is_relative_to(folder)
    except (OSError, RuntimeError):  # a loop, which leads nowhere
        return True


def _git(folder: Path, *words: str, check: bool = True, index: Path | None = None) -> str | None:
    """Return what git prints, or None when it fails and `check` is off."""
    try:
        # Without optional locks even `git status` leaves the index as it is.
        command = ["git", "--no-optional-locks", "-C", str(folder), *words]
        done = subprocess.run(
            command,
            env={**os.environ, "GIT_INDEX_FILE": str(index)} if index else None,
            capture_output=True,
            encoding="utf-8",
            # Names of files are bytes.
            errors="surrogateescape",
        )
    except FileNotFoundError as error:
        raise ClusterboxError("git is not installed, and a review needs it") from error
    if done.returncode != 0:
        if check:
            # A full disk is told of for every file.
            told = "\n".join(done.stderr.strip().splitlines()[-3:])
            raise ClusterboxError(f"`git {' '.join(words)}` failed: {told}")
        return None
    return done.stdout
