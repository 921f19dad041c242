"""A change of the image lock, step by step as a rollout makes it, judged by the real library."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from clusterbox.clusters.compare import Comparison, compare_clusters
from clusterbox.clusters.composed import ComposedCluster, compose_environment
from clusterbox.clusters.facts import account_facts
from clusterbox.clusters.findings import Level
from clusterbox.clusters.rules import find_rule_findings
from clusterbox.clusters.sections import values_of
from clusterbox.clusters.update_policies import Need, Verdict
from clusterbox.clusters.validate import validate_clusters
from clusterbox.pcluster import Pcluster
from clusterbox.site.images import ClusterPins, ImageLock, LoginPin, render_lock
from clusterbox.site.load import Repository

NEW = "ami-0aaaaaaaaaaaaaaa1"
CLUSTER = "ws-eco-login"
Clusters = Mapping[str, ComposedCluster]


def promote(lock: ImageLock) -> ImageLock:
    """Return the lock with a new image for nodes, and the one before it as its previous."""
    old = lock.environments["ws-dev"]["compute"]
    new = old.model_copy(
        update={"ami": NEW, "name": "ws-dev-compute-1", "previous": old.without_previous()}
    )
    return lock.with_image("ws-dev", "compute", new)


def pin(change: Callable[[str], ClusterPins]) -> Callable[[ImageLock], ImageLock]:
    def edit(lock: ImageLock) -> ImageLock:
        old = lock.environments["ws-dev"]["compute"].ami
        return promote(lock).with_pins("ws-dev", CLUSTER, change(old))

    return edit


STEPS: dict[str, Callable[[ImageLock], ImageLock]] = {
    "before": lambda lock: lock,
    "promoted": pin(
        lambda old: ClusterPins(head=old, queues={"eco": old}, login={"login": LoginPin(ami=old)})
    ),
    "queue moved": pin(lambda old: ClusterPins(head=old, login={"login": LoginPin(ami=old)})),
    "pool closed": pin(
        lambda old: ClusterPins(head=old, login={"login": LoginPin(ami=old, closed=True)})
    ),
    "pool moved": pin(
        lambda old: ClusterPins(head=old, login={"login": LoginPin(ami=NEW, closed=True)})
    ),
    "only the head node pinned": pin(lambda old: ClusterPins(head=old)),
    "nothing pinned": promote,
}


@pytest.fixture(scope="module")
def clusters(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Clusters:
    """Return the cluster as each step of a rollout composes it."""
    folder = tmp_path_factory.mktemp("site")
    for name in ("environments", "cluster_configs", "ami"):
        shutil.copytree(root / name, folder / name)
    lock = Repository(root).load_lock()
    found = {}
    for step, change in STEPS.items():
        (folder / "ami" / "images.lock.yaml").write_text(render_lock(change(lock)), "utf-8")
        composed = {item.name: item for item in compose_environment(folder, "ws-dev")}
        found[step] = composed[CLUSTER]
    return found


@pytest.fixture(scope="module")
def compared(root: Path, clusters: Clusters) -> dict[str, Comparison]:
    """Return what each step changes, compared in one process."""
    steps = [*STEPS]
    pairs = {
        after: (clusters[before].configuration, clusters[after].configuration)
        for before, after in pairwise(steps)
    }
    pairs["pool moved while it is open"] = (
        clusters["queue moved"].configuration,
        clusters["only the head node pinned"].configuration,
    )
    return compare_clusters(Pcluster(root / ".venv-pcluster", os.environ), pairs)


def test_the_clusters_stay_as_they_are_when_a_new_image_is_locked(clusters: Clusters) -> None:
    assert clusters["promoted"].configuration == clusters["before"].configuration
    assert clusters["nothing pinned"].configuration != clusters["before"].configuration


def test_a_pinned_image_is_one_that_the_site_knows(clusters: Clusters) -> None:
    for step, cluster in clusters.items():
        assert find_rule_findings(cluster) == [], step
        named = {ami for _, ami in values_of(cluster.configuration, "CustomAmi")}
        assert named <= set(account_facts(cluster)["images"]), step


@pytest.mark.integration
def test_a_rollout_needs_nothing_but_its_own_steps(compared: dict[str, Comparison]) -> None:
    found = {step: (item.verdict, item.allowed) for step, item in compared.items()}
    assert found == {
        "promoted": (Verdict.UNCHANGED, True),
        "queue moved": (Verdict.DRAINS, True),
        "pool closed": (Verdict.LIVE, True),
        "pool moved": (Verdict.LIVE, True),
        "only the head node pinned": (Verdict.LIVE, True),
        "nothing pinned": (Verdict.REPLACES, False),
        "pool moved while it is open": (Verdict.STOPS_LOGIN, False),
    }


@pytest.mark.integration
def test_the_image_of_the_cluster_can_never_change(compared: dict[str, Comparison]) -> None:
    (change,) = compared["nothing pinned"].changes
    assert (change.path, change.needs) == ("Image.CustomAmi", (Need.NEW_CLUSTER,))


@pytest.mark.integration
def test_a_pool_that_is_open_has_to_be_closed_first(compared: dict[str, Comparison]) -> None:
    needs = {
        change.path: change.needs for change in compared["pool moved while it is open"].changes
    }
    assert needs == {"LoginNodes.Pools[login].Image.CustomAmi": (Need.LOGIN_TO_ZERO,)}


@pytest.mark.integration
def test_every_step_is_a_configuration_that_parallelcluster_takes(
    root: Path, clusters: Clusters
) -> None:
    pcluster = Pcluster(root / ".venv-pcluster", os.environ)
    for step, validation in validate_clusters(pcluster, clusters).items():
        worst = [item for item in validation.findings if item.level is not Level.INFO]
        assert worst == [], step
