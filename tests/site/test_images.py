from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from clusterbox.errors import InputError, Problem, ProblemsError
from clusterbox.site.images import (
    ClusterPins,
    ImageLock,
    LockedImage,
    LoginPin,
    Verification,
    parse_time,
    render_lock,
    render_time,
)
from clusterbox.site.load import Repository, parse_model
from clusterbox.site.yaml_file import parse_yaml
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
                "8: environments.dev.compute.arch: is not a known key; allowed here: ami, name, "
                "parent, os, architecture, root_gib, parallelcluster_version, slurm_version, "
                "kernel, baked, packages_digest, verified, origin, previous",
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
            "      root_gib: 45\n",
            "      root_gib: 45\n      previous: {ami: ami-00000001, os: alinux2023, root_gib: 45, "
            "origin: itself}\n",
            [
                "7: environments.dev.compute.previous.ami: must differ from ami of the entry "
                "(found: 'ami-00000001')"
            ],
            id="a previous entry of the same image",
        ),
        pytest.param(
            "      root_gib: 45\n",
            "      root_gib: 45\n      baked: 2026-11-22T10:00:00Z\n      packages_digest: abc\n"
            "      verified: {at: '2026-13-01T00:00:00Z', checks: [units, units], passed: true}\n",
            [
                "7: environments.dev.compute.baked: must be a time in UTC in quotes, such as "
                "2026-11-22T10:00:00Z (found: 2026-11-22 10:00:00+00:00)",
                "8: environments.dev.compute.packages_digest: must be a SHA-256 of 64 hex digits "
                "(found: 'abc')",
                "9: environments.dev.compute.verified.at: must be a time in UTC in quotes, such "
                "as 2026-11-22T10:00:00Z (found: '2026-13-01T00:00:00Z')",
                "9: environments.dev.compute.verified.checks[1]: must stand only once in the list "
                "(found: 'units')",
            ],
            id="times without quotes or of no calendar, and what is no digest",
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
                "1: images: is not a known key; allowed here: environments, pins",
            ],
            id="another first key",
        ),
    ],
)
def test_a_wrong_lock_is_reported(tmp_path: Path, old: str, new: str, problems: list[str]) -> None:
    assert problems_of(tmp_path, edit(LOCK, old, new)) == problems


BAKED = LockedImage(
    ami="ami-0000000b",
    name="dev-compute-2026-11-22 2026-11-22T10-00-00.000Z",
    parent="ami-0000000c",
    os="alinux2023",
    root_gib=45,
    parallelcluster_version="3.16.1",
    slurm_version="25.11.8",
    kernel="6.1.158-178.288.amzn2023.x86_64",
    baked="2026-11-22T10:00:00Z",
    packages_digest="0" * 64,
    verified=Verification(at="2026-11-22T10:30:00Z", checks=("units", "time-zone"), passed=True),
    origin='baked, as "they" say: #1, for {all}',
)
PINS = ClusterPins(
    head="ami-00000001",
    queues={"eco": "ami-00000001", "on": "ami-00000001"},
    login={"yes": LoginPin(ami="ami-00000001", closed=True)},
)


def reread(text: str) -> ImageLock:
    problems: list[Problem] = []
    lock = parse_model(ImageLock, parse_yaml(text, name="lock"), problems)
    assert (problems, lock is None) == ([], False)
    assert lock is not None
    return lock


def promoted() -> ImageLock:
    lock = reread(LOCK)
    old = lock.environments["dev"]["compute"]
    new = BAKED.model_copy(update={"previous": old.without_previous()})
    return lock.with_image("dev", "compute", new).with_pins("dev", "dev-eco", PINS)


def test_the_shipped_lock_is_written_as_it_stands(root: Path) -> None:
    text = (root / "ami" / "images.lock.yaml").read_text(encoding="utf-8")
    assert render_lock(Repository(root).load_lock()) == text


def test_a_lock_that_is_written_reads_the_same() -> None:
    lock = promoted()
    assert reread(render_lock(lock)) == lock
    assert lock.environments["dev"]["compute"].previous is not None


def test_the_same_lock_gives_the_same_text() -> None:
    text = render_lock(promoted())
    assert render_lock(reread(text)) == text


def test_text_that_yaml_would_read_as_something_else_is_quoted() -> None:
    text = render_lock(promoted())
    assert "\n      baked: '2026-11-22T10:00:00Z'\n" in text
    assert "\n        checks: [units, time-zone]\n" in text


def test_text_of_several_lines_is_kept() -> None:
    entry = BAKED.model_copy(update={"origin": "one\n  two: 3\n"})
    lock = ImageLock(environments={"dev": {"compute": entry}})
    assert reread(render_lock(lock)) == lock


def test_entries_keep_their_order_and_pins_are_sorted() -> None:
    lock = promoted().with_pins("dev", "a-first", ClusterPins(head="ami-0000000c"))
    text = render_lock(lock)
    assert text.index("    compute:\n") < text.index("    admin:\n")
    assert text.index("    a-first:\n") < text.index("    dev-eco:\n")


def test_pins_that_are_empty_leave_nothing_behind() -> None:
    lock = promoted().with_pins("dev", "dev-eco", ClusterPins())
    assert lock.pins == {}
    assert "pins" not in render_lock(lock)


def test_a_cluster_without_pins_gets_empty_ones() -> None:
    assert promoted().pins_of("dev", "dev-eco") == PINS
    assert not promoted().pins_of("dev", "other")
    assert not promoted().pins_of("prod", "dev-eco")


def test_another_environment_s_entries_stay() -> None:
    lock = reread(LOCK + OTHER).with_image("dev", "compute", BAKED)
    assert lock.environments["prod"] == reread(LOCK + OTHER).environments["prod"]
    assert list(lock.environments["dev"]) == ["compute", "admin"]


def test_an_environment_without_images_can_be_written() -> None:
    lock = ImageLock(environments={"dev": {}})
    assert reread(render_lock(lock)) == lock


def test_times_are_in_utc_and_whole_seconds() -> None:
    time = datetime(2026, 11, 22, 3, 0, 0, 999_999, timezone(timedelta(hours=-7)))
    assert render_time(time) == "2026-11-22T10:00:00Z"
    assert parse_time(render_time(time)) == datetime(2026, 11, 22, 10, tzinfo=UTC)
