from __future__ import annotations

from pathlib import Path

from clusterbox.clusters.compose import offline_values
from clusterbox.site.load import Repository
from clusterbox.site.references import reference_names


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
