from __future__ import annotations

from pathlib import Path

import pytest

from clusterbox.deployment import site as site_module
from clusterbox.deployment.progress import Progress
from clusterbox.deployment.site import Site
from clusterbox.deployment.targets import Target
from clusterbox.pcluster import Pcluster
from clusterbox.site.load import Repository


class AnyTarget(Target):
    """A target of which nothing but its address is asked."""

    def process_environment(self) -> dict[str, str]:
        return {}

    def client(self, service: str) -> object:
        raise AssertionError(f"{service} is not asked")


@pytest.mark.parametrize(
    ("states", "deleted"),
    [
        pytest.param({}, [], id="nothing stands"),
        pytest.param(
            {"ws-eco": "CREATE_COMPLETE", "ws-dev-cluster-ws-eco": "CREATE_COMPLETE"},
            [],
            id="a cluster that works",
        ),
        pytest.param(
            {"ws-eco": "CREATE_FAILED", "ws-dev-cluster-ws-eco": "ROLLBACK_FAILED"},
            ["ws-eco"],
            id="a cluster that failed at first, with its stack",
        ),
        pytest.param(
            {"ws-eco": "ROLLBACK_COMPLETE"}, ["ws-eco"], id="a cluster whose stack is gone"
        ),
        pytest.param(
            {
                "ws-eco": "UPDATE_ROLLBACK_FAILED",
                "ws-dev-cluster-ws-eco": "UPDATE_ROLLBACK_COMPLETE",
            },
            [],
            id="a cluster that once worked is never deleted",
        ),
        pytest.param(
            {"ws-eco": "CREATE_FAILED", "ws-dev-cluster-ws-eco": "UPDATE_COMPLETE"},
            [],
            id="a cluster whose stack says that it stands",
        ),
    ],
)
def test_only_clusters_that_never_stood_are_cleared_away(
    root: Path, monkeypatch: pytest.MonkeyPatch, states: dict[str, str], deleted: list[str]
) -> None:
    asked: list[str] = []

    def delete_cluster(self: Pcluster, name: str, region: str) -> bool:
        asked.append(name)
        return True

    monkeypatch.setattr(site_module, "fetch_stack_states", lambda _client: states)
    monkeypatch.setattr(Pcluster, "delete_cluster", delete_cluster)
    site = Site(root, Repository(root).load_environment("ws-dev"), Progress())
    site._clear_failed_clusters(AnyTarget())
    assert asked == deleted
