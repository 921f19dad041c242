"""The copy in which is rehearsed: a whole site, of which some clusters may be left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterbox.errors import InputError
from clusterbox.rehearsal.copies import copy_site, keep_clusters
from clusterbox.site.load import Repository
from tests.conftest import ROOT


def test_a_copy_is_a_site_and_an_earlier_one_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    (folder / "left-over").touch()
    copy = copy_site(ROOT, folder)
    assert not (copy / "left-over").exists()
    assert (copy / ".venv").is_symlink()
    ours, theirs = Repository(ROOT), Repository(copy)
    for name in ours.environment_names():
        assert theirs.load_environment(name) == ours.load_environment(name)
    assert theirs.load_lock() == ours.load_lock()


def test_other_clusters_go_with_their_budgets(tmp_path: Path) -> None:
    copy = copy_site(ROOT, tmp_path / "copy")
    keep_clusters(copy, "ws-dev", ["ws-eco-login"])
    found = Repository(copy).load_environment("ws-dev")
    whole = Repository(ROOT).load_environment("ws-dev")
    assert [entry.name for entry in found.clusters] == ["ws-eco-login"]
    assert found.account == whole.account
    assert found.budgets is not None
    assert list(found.budgets.clusters) == ["ws-eco-login"]
    assert found.network == whole.network


def test_none_named_keeps_all_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    copy = copy_site(ROOT, tmp_path / "copy")
    keep_clusters(copy, "ws-dev", [])
    assert len(Repository(copy).load_environment("ws-dev").clusters) == 2
    with pytest.raises(InputError, match=r"no cluster nonsense; it has: ws-eco, ws-eco-login"):
        keep_clusters(copy, "ws-dev", ["nonsense"])
