from __future__ import annotations

from pathlib import Path

import pytest

from clusterbox.errors import InputError, ProblemsError
from tests.site.site_files import LOCK, edit, write_site

OTHER = """\
  prod:
    compute: {ami: ami-00000003, os: rocky9, architecture: arm64, root_gib: 45, origin: bought}
"""


def problems_of(root: Path, lock: str) -> list[str]:
    """Return the lines of the error that the lock of that text raises."""
    repository = write_site(root, lock=lock)
    with pytest.raises(ProblemsError) as caught:
        repository.load_images(repository.load_environment("dev"))
    return [str(problem).removeprefix("ami/images.lock.yaml:") for problem in caught.value.problems]


def test_the_images_of_the_environment_are_returned_by_name(tmp_path: Path) -> None:
    repository = write_site(tmp_path, lock=LOCK + OTHER)
    images = repository.load_images(repository.load_environment("dev"))
    assert {name: image.ami for name, image in images.items()} == {
        "compute": "ami-00000001",
        "admin": "ami-00000002",
    }


def test_a_missing_lock_is_named(tmp_path: Path) -> None:
    repository = write_site(tmp_path)
    environment = repository.load_environment("dev")
    (tmp_path / "ami" / "images.lock.yaml").unlink()
    with pytest.raises(InputError, match=r"^ami/images\.lock\.yaml: there is no such file$"):
        repository.load_images(environment)


@pytest.mark.parametrize(
    ("old", "new", "problems"),
    [
        pytest.param(
            "    admin:\n",
            "    login:\n",
            [
                "2: environments.dev: must have an entry admin: environments/dev.yaml uses it",
            ],
            id="an image that the environment uses is missing",
        ),
        pytest.param(
            "  dev:\n",
            "  prod:\n",
            [
                "1: environments.dev: must have an entry compute: environments/dev.yaml uses it",
                "1: environments.dev: must have an entry admin: environments/dev.yaml uses it",
            ],
            id="the environment is missing",
        ),
        pytest.param(
            "ami-00000001",
            "00000001",
            [
                "4: environments.dev.compute.ami: must be the id of an AMI: "
                "ami- and 8 to 17 hex digits (found: 1)"
            ],
            id="an id without prefix",
        ),
        pytest.param(
            "      ami: ami-00000001\n      os: alinux2023\n",
            "      ami: ami-00000001\n      os: debian\n",
            [
                "5: environments.dev.compute.os: must be one of 'alinux2', 'alinux2023', 'rhel8', "
                "'rhel9', 'rocky8', 'rocky9', 'ubuntu2204' or 'ubuntu2404' (found: 'debian')"
            ],
            id="an operating system that ParallelCluster does not have",
        ),
        pytest.param(
            "      root_gib: 45\n",
            "      root_gib: 45\n      parallelcluster_version: 3.16\n      arch: arm64\n",
            [
                "7: environments.dev.compute.parallelcluster_version: "
                "must be three numbers with dots, such as 3.16.1 (found: 3.16)",
                "8: environments.dev.compute.arch: is not a known key; allowed here: ami, parent, "
                "os, architecture, root_gib, parallelcluster_version, origin",
            ],
            id="a version of two numbers and an unknown key",
        ),
        pytest.param(
            "      root_gib: 45\n",
            "",
            ["3: environments.dev.compute.root_gib: must be given: size of the root volume in GiB"],
            id="a missing key",
        ),
        pytest.param(
            LOCK.split("\n", 1)[1],
            "  dev: [compute, admin]\n",
            [
                "2: environments.dev: must be a mapping of keys to values "
                "(found: ['compute', 'admin'])"
            ],
            id="a list where a mapping belongs",
        ),
        pytest.param(
            "environments:\n",
            "images:\n",
            [
                "1: environments: must be given: locked images",
                "1: images: is not a known key; allowed here: environments",
            ],
            id="another first key",
        ),
    ],
)
def test_a_wrong_lock_is_reported(tmp_path: Path, old: str, new: str, problems: list[str]) -> None:
    assert problems_of(tmp_path, edit(LOCK, old, new)) == problems
