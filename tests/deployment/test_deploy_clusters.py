"""Deploying some clusters deploys nothing else, and one run at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clusterbox.deployment import limits
from clusterbox.deployment import site as sites
from clusterbox.deployment.cdk import Assembly
from clusterbox.deployment.progress import Progress
from clusterbox.deployment.site import BusyError, Site
from clusterbox.errors import InputError
from clusterbox.site.load import Repository
from tests.conftest import ROOT


class Cli:
    """The CDK CLI, which only notes what it is to deploy."""

    deployed: list[str]

    def __init__(self) -> None:
        self.deployed = []

    def deploy(
        self, _assembly: Assembly, stacks: Sequence[str], _note: Callable[[str], None]
    ) -> dict[str, bool]:
        self.deployed += stacks
        return dict.fromkeys(stacks, True)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Cli:
    found = Cli()
    names = ("ws-dev-network", "ws-dev-cluster-ws-eco", "ws-dev-cluster-ws-eco-login")
    assembly = Assembly(Path("out"), dict.fromkeys(names, ()), frozenset())
    monkeypatch.setattr(sites.Site, "_synthesize", lambda _self: assembly)
    monkeypatch.setattr(sites.Site, "_cli", lambda *_words: found)
    # What limits need of prices and of the bucket is theirs to test.
    monkeypatch.setattr(limits, "render_scripts", lambda *_words: [])
    monkeypatch.setattr(limits, "upload_scripts", lambda *_words: None)
    return found


def make_site(folder: Path) -> Site:
    return Site(folder, Repository(ROOT).load_environment("ws-dev"), Progress())


TARGET: Any = SimpleNamespace(client=None)


def test_only_the_stacks_of_the_clusters_are_deployed(cli: Cli, tmp_path: Path) -> None:
    changed = make_site(tmp_path).deploy_clusters(TARGET, ["ws-eco"])
    assert changed == {"ws-dev-cluster-ws-eco": True}
    assert cli.deployed == ["ws-dev-cluster-ws-eco"]


def test_a_cluster_that_is_not_in_the_environment_is_told(cli: Cli, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no stack ws-dev-cluster-big; it has: ws-dev-n"):
        make_site(tmp_path).deploy_clusters(TARGET, ["ws-eco", "big"])
    assert cli.deployed == []


def test_while_another_run_is_at_work_nothing_is_deployed(cli: Cli, tmp_path: Path) -> None:
    lock = tmp_path / ".clusterbox" / "sites" / "ws-dev" / "lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match="another run is at work on ws-dev"):
            make_site(tmp_path).deploy_clusters(TARGET, ["ws-eco"])
    assert cli.deployed == []
