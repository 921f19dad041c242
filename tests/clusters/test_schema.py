from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest

from clusterbox.clusters.compose import compose_offline, offline_values
from clusterbox.clusters.schema import check_schemas
from clusterbox.pcluster import Pcluster, PclusterError
from clusterbox.site.load import Repository
from clusterbox.site.references import reference_names

Configs = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def composed(root: Path) -> Configs:
    """Return every shipped cluster's configuration, composed."""
    repository = Repository(root)
    configs: Configs = {}
    for name in repository.environment_names():
        environment = repository.load_environment(name)
        images = repository.load_images(environment)
        for entry in environment.clusters:
            config = repository.load_cluster(entry)
            configs[entry.name] = compose_offline(environment, entry.name, config, images)
    return configs


@pytest.fixture
def pcluster(root: Path) -> Pcluster:
    return Pcluster(root / ".venv-pcluster", os.environ)


@pytest.mark.integration
def test_every_shipped_cluster_loads_in_parallelcluster_s_own_schema(
    pcluster: Pcluster, composed: Configs
) -> None:
    assert sorted(composed) == ["sandbox-eco", "sandbox-economy-hpc", "ws-eco", "ws-eco-login"]
    assert check_schemas(pcluster, composed) == []


@pytest.mark.integration
def test_what_the_schema_refuses_is_told_with_its_path(
    pcluster: Pcluster, composed: Configs
) -> None:
    bad = copy.deepcopy(composed["ws-eco"])
    bad["Scheduling"]["SlurmQueues"][0]["ComputeResources"][0]["MaxCount"] = "many"
    bad["HeadNode"]["Colour"] = "red"
    found = {item.path: item.message for item in check_schemas(pcluster, {"ws-eco": bad})}
    assert found == {
        "HeadNode.Colour": "Unknown field.",
        "Scheduling.SlurmQueues[0].ComputeResources[0].MaxCount": "Not a valid integer.",
    }


@pytest.mark.integration
def test_the_second_environment_holds_the_version_that_the_stacks_deploy(
    pcluster: Pcluster,
) -> None:
    from clusterbox.site.names import PARALLELCLUSTER_VERSION

    done = pcluster.run_python("-c", "import pcluster.utils as u; print(u.get_installed_version())")
    assert done.stdout.strip() == PARALLELCLUSTER_VERSION


def test_an_environment_that_is_not_installed_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PclusterError, match="run `make setup`"):
        check_schemas(Pcluster(tmp_path, os.environ), {})


def test_offline_values_cover_exactly_the_known_references(root: Path) -> None:
    repository = Repository(root)
    for name in repository.environment_names():
        environment = repository.load_environment(name)
        values = offline_values(environment, "any", repository.load_images(environment))
        assert set(values) == set(reference_names(environment))


def test_stand_in_ids_are_the_same_in_every_run_and_differ_between_environments(root: Path) -> None:
    repository = Repository(root)
    found = {}
    for name in repository.environment_names():
        environment = repository.load_environment(name)
        values = offline_values(environment, "any", repository.load_images(environment))
        found[name] = values["storage.wspcefs"]
    assert found == {"sandbox": "fs-d0d923fc693cf1e23", "ws-dev": "fs-2038cf8b4f7419d55"}
