from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from clusterbox.errors import InputError
from clusterbox.review.revisions import Cache, find_revisions, list_files


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main"]
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a repository with two commits on main and one on a branch from the first."""
    folder = tmp_path / "clone"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "a").write_text("one")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    git(folder, "checkout", "-qb", "change")
    (folder / "a").write_text("changed")
    git(folder, "commit", "-qam", "changed")
    git(folder, "checkout", "-q", "main")
    (folder / "b").write_text("later on main")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "two")
    git(folder, "checkout", "-q", "change")
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache.open(tmp_path / "cache")


def test_the_base_is_where_the_change_left_it(clone: Path, cache: Cache) -> None:
    base, head = find_revisions(clone, "main", "change", cache)
    assert base is not None
    assert [path.name for path in list_files(base)] == ["a"]
    assert (base.folder / "a").read_text() == "one"
    assert (head.folder / "a").read_text() == "changed"
    assert base.commit == git(clone, "merge-base", "main", "change")
    assert base.title == f"main ({base.commit[:10]})"


def test_without_a_head_the_working_tree_is_judged_as_it_is(clone: Path, cache: Cache) -> None:
    (clone / "a").write_text("not committed")
    (clone / "new").write_text("not added")
    (clone / ".gitignore").write_text("ignored\n")
    (clone / "ignored").write_text("not of the repository")
    _, head = find_revisions(clone, "main", None, cache)
    assert head.folder == clone
    assert head.commit is None
    assert head.title == "the working tree (3 files not committed)"
    assert [path.name for path in list_files(head)] == [".gitignore", "a", "new"]


def test_a_file_that_was_deleted_but_not_committed_is_not_listed(clone: Path, cache: Cache) -> None:
    (clone / "a").unlink()
    _, head = find_revisions(clone, "main", None, cache)
    assert list_files(head) == []


def test_nothing_is_written_into_the_repository(clone: Path, cache: Cache) -> None:
    def state() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in sorted(clone.rglob("*"))}

    (clone / "a").touch()
    before = state()
    find_revisions(clone, "main", "change", cache)
    find_revisions(clone, "main", None, cache)
    assert state() == before


def test_a_commit_is_exported_once(clone: Path, cache: Cache) -> None:
    base, _ = find_revisions(clone, "main", "change", cache)
    assert base is not None
    (base.folder / "mark").write_text("kept")
    again, _ = find_revisions(clone, "main", "change", cache)
    assert again is not None
    assert (again.folder / "mark").exists()


@pytest.mark.parametrize("ref", ["no-such-branch", "--help", "main:a", ""])
def test_a_ref_that_is_no_commit_is_refused(clone: Path, cache: Cache, ref: str) -> None:
    with pytest.raises(InputError, match="commit"):
        find_revisions(clone, ref, None, cache)


def test_a_missing_ref_says_what_to_fetch(clone: Path, cache: Cache) -> None:
    with pytest.raises(InputError, match="git fetch origin main2; in CI: fetch-depth 0"):
        find_revisions(clone, "origin/main2", None, cache)


def test_without_a_common_commit_there_is_no_base(clone: Path, cache: Cache) -> None:
    git(clone, "checkout", "-q", "--orphan", "unrelated")
    git(clone, "commit", "-qm", "unrelated")
    base, head = find_revisions(clone, "main", "unrelated", cache)
    assert base is None
    assert (head.folder / "a").exists()


def test_a_shallow_clone_is_told_to_fetch_more(tmp_path: Path, clone: Path, cache: Cache) -> None:
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "-q", "--depth=1", "--branch=change", f"file://{clone}", str(shallow))
    git(shallow, "fetch", "-q", "--depth=1", "origin", "main:main")
    with pytest.raises(InputError, match="unshallow"):
        find_revisions(shallow, "main", None, cache)


def test_a_folder_without_git_is_refused(tmp_path: Path, cache: Cache) -> None:
    (tmp_path / "plain").mkdir()
    with pytest.raises(InputError, match="not in a git repository"):
        find_revisions(tmp_path / "plain", "main", None, cache)


def test_a_repository_may_be_a_folder_of_a_larger_one(clone: Path, cache: Cache) -> None:
    (clone / "site").mkdir()
    (clone / "site" / "c").write_text("c")
    git(clone, "add", ".")
    git(clone, "commit", "-qm", "site")
    _, head = find_revisions(clone / "site", "main", "change", cache)
    assert [path.name for path in list_files(head)] == ["c"]


def test_a_link_out_of_the_repository_is_refused(clone: Path, cache: Cache) -> None:
    (clone / "out").symlink_to("/etc/passwd")
    git(clone, "add", ".")
    git(clone, "commit", "-qm", "link")
    with pytest.raises(InputError, match="cannot be exported"):
        find_revisions(clone, "main", "change", cache)


def test_the_working_tree_of_a_site_in_a_subfolder_is_without_what_git_ignores(
    clone: Path, cache: Cache
) -> None:
    (clone / "site" / ".venv").mkdir(parents=True)
    (clone / "site" / ".venv" / "library").touch()
    (clone / "site" / "c").touch()
    (clone / ".gitignore").write_text(".venv\n")
    _, head = find_revisions(clone / "site", "main", None, cache)
    assert [path.name for path in list_files(head)] == ["c"]


def test_files_that_archives_leave_out_are_exported(clone: Path, cache: Cache) -> None:
    (clone / ".gitattributes").write_text("a export-ignore\nb export-subst\n")
    (clone / "b").write_text("$Format:%H$")
    git(clone, "add", ".")
    git(clone, "commit", "-qm", "attributes")
    _, head = find_revisions(clone, "main", "change", cache)
    assert [path.name for path in list_files(head)] == [".gitattributes", "a", "b"]
    assert (head.folder / "b").read_text() == "$Format:%H$"
    assert [path.name for path in (cache.folder / "trees").iterdir() if path.is_file()] == []


def test_links_within_the_repository_and_loops_are_exported(clone: Path, cache: Cache) -> None:
    (clone / "link").symlink_to("a")
    (clone / "loop").symlink_to("loop")
    git(clone, "add", ".")
    git(clone, "commit", "-qm", "links")
    _, head = find_revisions(clone, "main", "change", cache)
    assert [path.name for path in list_files(head)] == ["a", "link"]


@pytest.mark.parametrize("committed", [True, False])
def test_names_of_files_are_bytes(clone: Path, cache: Cache, committed: bool) -> None:
    name = os.fsdecode(b"\xff.yaml")
    (clone / name).touch()
    if committed:
        git(clone, "add", ".")
        git(clone, "commit", "-qm", "odd")
    _, head = find_revisions(clone, "main", "change" if committed else None, cache)
    assert Path(name) in list_files(head)


def test_an_interrupted_entry_is_made_again(cache: Cache) -> None:
    def interrupted(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.make("assemblies", "key", interrupted)
    assert list((cache.folder / "assemblies").iterdir()) == []
    entry = cache.make("assemblies", "key", lambda folder: (folder / "whole").touch())
    assert [path.name for path in entry.iterdir()] == ["whole"]


def test_only_the_newest_entries_are_kept(cache: Cache) -> None:
    for number in range(25):
        entry = cache.make("trees", f"{number:02}", lambda folder: (folder / "x").touch())
        os.utime(entry, (number, number))
    kept = sorted(path.name for path in (cache.folder / "trees").iterdir())
    assert kept == [f"{number:02}" for number in range(5, 25)]


def test_a_cache_that_others_can_write_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(InputError, match="can be written by others"):
        Cache.open(folder)


def test_a_cache_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(InputError, match="can be written by others"):
        Cache.open(tmp_path / "link")
