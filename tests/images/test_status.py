from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from clusterbox.cli import images_status
from clusterbox.errors import InputError
from clusterbox.images.live import LivePart
from clusterbox.images.status import Account, ImageStatus, Status, fetch_account, find_status
from clusterbox.site.environment import Environment
from tests.images.fake_ec2 import FakeEc2, Record, image, instance, template
from tests.images.small_site import ADMIN, LOCKED, OLD, write
from tests.site.site_files import LOCK, edit

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
PARENT = "ami-0000000b"
DEFINITION = """\
name: compute
description: image of all nodes
os: alinux2023
parent: {owner: self, name_filter: base-*}
parallelcluster_version: 3.16.1
root_gib: 45
build_instance_type: m6a.2xlarge
kernel: {policy: full}
steps: [10-one.sh]
verify: [units]
"""
IMAGES = [
    image(LOCKED, "dev-compute-2026-10-20", "2026-10-20T00:00:00.000Z"),
    image(ADMIN, "dev-admin", "2026-11-22T00:00:00.000Z"),
    image(OLD, "dev-compute-2026-09-20"),
]


def define(root: Path) -> None:
    for folder, name, text in (
        ("images", "compute.yaml", DEFINITION),
        ("steps", "10-one.sh", "# os: alinux2023\n"),
        ("verify", "units.sh", ""),
    ):
        (root / "ami" / folder).mkdir(parents=True)
        (root / "ami" / folder / name).write_text(text, encoding="utf-8")


def compute(**keys: str) -> str:
    """Return the lock with more keys in the entry of the image of nodes."""
    more = "".join(f"      {key}: {value}\n" for key, value in keys.items())
    return edit(LOCK, "      root_gib: 45\n", f"      root_gib: 45\n{more}")


def status(root: Path, ec2: FakeEc2 | None, pins: str = "", lock: str = LOCK) -> Status:
    environment = write(root, pins, lock)
    account = None if ec2 is None else ask(root, environment, ec2)
    return find_status(root, environment, account, NOW)


def ask(root: Path, environment: Environment, ec2: FakeEc2) -> Account:
    return fetch_account(root, environment, cast(Any, ec2))


def image_of(found: Status) -> ImageStatus:
    return found.images[0]


def states(found: Status) -> dict[str, str]:
    return {f"{part.kind} {part.name}".rstrip(): part.state for part in found.parts}


def drifting(found: Status) -> list[str]:
    return [f"{part.kind} {part.name}".rstrip() for part in found.parts if part.is_drift]


def standing(
    queue: str = LOCKED, nodes: tuple[str, ...] = (), head: str = LOCKED, login: str = LOCKED
) -> FakeEc2:
    """Return an account in which the cluster stands with these AMIs."""
    tags = {"cluster": "dev-eco", "node": "Compute"}
    running = [instance(f"i-{n}", ami, **tags, queue="eco") for n, ami in enumerate(nodes)]
    return FakeEc2(
        images=[*IMAGES],
        instances=[
            instance("i-head", head, cluster="dev-eco", node="HeadNode"),
            instance("i-box", ADMIN, Name="dev-box", Environment="dev"),
            *running,
        ],
        templates=[
            template(queue, **tags, queue="eco"),
            template(LOCKED, **tags, queue="inherits"),
            template(login, cluster="dev-eco", node="LoginNode", pool="login"),
        ],
    )


def test_age_is_counted_from_the_bake(tmp_path: Path) -> None:
    lock = compute(baked="'2026-10-18T13:00:00Z'")
    found = image_of(status(tmp_path, None, lock=lock))
    assert (found.age_days, found.max_age_days, found.is_old) == (34, 35, False)


def test_without_a_bake_age_is_counted_from_the_account(tmp_path: Path) -> None:
    found = image_of(status(tmp_path, standing()))
    assert (found.age_days, found.name) == (33, "dev-compute-2026-10-20")


def test_an_age_that_nobody_knows_is_too_old(tmp_path: Path) -> None:
    found = image_of(status(tmp_path, None))
    assert (found.age_days, found.is_old, found.is_in_account) == (None, True, None)


def test_an_image_is_old_after_the_days_that_it_may_have(tmp_path: Path) -> None:
    lock = compute(baked="'2026-10-17T12:00:00Z'")
    found = image_of(status(tmp_path, None, lock=lock))
    assert (found.age_days, found.is_old) == (36, True)


@pytest.mark.parametrize(
    ("lock", "images", "expected"),
    [
        pytest.param(
            compute(parent=PARENT),
            [image(PARENT, "base-2")],
            ("no", ""),
            id="the newest is the one of the bake",
        ),
        pytest.param(
            compute(parent="ami-0000000a"),
            [image(PARENT, "base-2")],
            ("yes", f"{PARENT} (base-2)"),
            id="a newer one",
        ),
        pytest.param(
            LOCK,
            [image(PARENT, "base-2")],
            (
                "unknown",
                f"the lock does not say what it was baked from; the newest is {PARENT} (base-2)",
            ),
            id="an entry without parent",
        ),
    ],
)
def test_a_newer_parent_is_found(
    tmp_path: Path, lock: str, images: list[Record], expected: tuple[str, str]
) -> None:
    define(tmp_path)
    ec2 = standing()
    ec2.images += images
    found = image_of(status(tmp_path, ec2, lock=lock))
    assert (found.newer_parent, found.parent) == expected


def test_a_parent_that_is_gone_is_unknown_with_the_reason(tmp_path: Path) -> None:
    define(tmp_path)
    found = image_of(status(tmp_path, standing(), lock=compute(parent=PARENT)))
    assert found.newer_parent == "unknown"
    assert "no available x86_64 image of self is called base-*" in found.parent


def test_an_image_without_definition_has_no_known_parent(tmp_path: Path) -> None:
    found = image_of(status(tmp_path, standing()))
    assert (found.newer_parent, found.parent) == (
        "unknown",
        "no ami/images/compute.yaml says what it is baked from",
    )


@pytest.mark.parametrize(
    ("lock", "versions"),
    [
        (compute(parallelcluster_version="3.16.1", slurm_version="25.11.8"), ""),
        (compute(parallelcluster_version="3.16.1"), ""),
        (LOCK, "ParallelCluster none is locked, and 3.16.1 defined"),
        (
            compute(parallelcluster_version="3.15.0", slurm_version="24.5.1"),
            "ParallelCluster 3.15.0 is locked, and 3.16.1 defined; "
            "ParallelCluster 3.15.0 is locked, and the site runs 3.16.1; "
            "Slurm 24.5.1 is locked, and 25.11.8 defined",
        ),
    ],
)
def test_versions_that_differ_are_told(tmp_path: Path, lock: str, versions: str) -> None:
    define(tmp_path)
    assert image_of(status(tmp_path, None, lock=lock)).versions == versions


@pytest.mark.parametrize(
    ("verified", "said"),
    [
        ("{at: '2026-11-20T10:00:00Z', checks: [units], passed: true}", "2026-11-20T10:00:00Z"),
        (
            "{at: '2026-11-20T10:00:00Z', checks: [units], passed: false}",
            "FAILED 2026-11-20T10:00:00Z",
        ),
    ],
)
def test_the_verification_is_told(tmp_path: Path, verified: str, said: str) -> None:
    assert image_of(status(tmp_path, None, lock=compute(verified=verified))).verified == said


def test_parts_that_run_the_locked_image_do_not_drift(tmp_path: Path) -> None:
    found = status(tmp_path, standing(nodes=(LOCKED,)))
    assert states(found) == {
        "head": "as locked",
        "queue eco": "as locked",
        "queue inherits": "has no image of its own",
        "login login": "as locked",
        "admin-box dev-box": "as locked",
    }
    assert drifting(found) == []


def test_a_cluster_that_does_not_stand_is_no_drift(tmp_path: Path) -> None:
    found = status(tmp_path, FakeEc2(images=[*IMAGES]))
    assert set(states(found).values()) == {"not deployed", "has no image of its own; not deployed"}
    assert drifting(found) == []


@pytest.mark.parametrize(
    ("ec2", "part", "state"),
    [
        pytest.param(
            standing(nodes=(OLD, LOCKED, OLD)),
            "queue eco",
            f"runs {OLD} on 2 instances: drains",
            id="nodes of the older image beside new ones",
        ),
        pytest.param(
            standing(queue=OLD, nodes=(OLD,)),
            "queue eco",
            f"new nodes get {OLD}: deploy; 1 instance runs it",
            id="a queue that was not deployed",
        ),
        pytest.param(
            standing(head=OLD),
            "head",
            f"runs {OLD}: cannot change, pin it or replace the cluster",
            id="a head node of another image",
        ),
        pytest.param(
            standing(login=OLD),
            "login login",
            f"new nodes get {OLD}: deploy",
            id="a pool of another image",
        ),
    ],
)
def test_what_runs_another_image_drifts(
    tmp_path: Path, ec2: FakeEc2, part: str, state: str
) -> None:
    found = status(tmp_path, ec2)
    assert states(found)[part] == state
    assert drifting(found) == [part]


def test_what_is_pinned_to_what_it_runs_does_not_drift(tmp_path: Path) -> None:
    pins = (
        f"{{head: {OLD}, queues: {{eco: {OLD}}}, login: {{login: {{ami: {OLD}, closed: true}}}}}}"
    )
    found = status(tmp_path, standing(queue=OLD, nodes=(OLD,), head=OLD, login=OLD), pins)
    assert states(found) == {
        "head": "pinned",
        "queue eco": "pinned",
        # It follows the cluster, whose image is pinned with the head node.
        "queue inherits": f"pinned, has no image of its own; new nodes get {LOCKED}: deploy",
        "login login": "closed, pinned",
        "admin-box dev-box": "as locked",
    }
    assert drifting(found) == ["queue inherits"]


def test_an_image_that_is_gone_is_told_where_it_is_used(tmp_path: Path) -> None:
    ec2 = standing()
    ec2.images = [each for each in ec2.images if each["ImageId"] != LOCKED]
    found = status(tmp_path, ec2)
    assert states(found)["queue eco"] == "AMI is gone from the account"
    assert drifting(found) == ["head", "queue eco", "queue inherits", "login login"]
    assert [each.is_in_account for each in found.images] == [False, True]


def test_a_queue_that_the_repository_does_not_have_is_told(tmp_path: Path) -> None:
    environment = write(tmp_path)
    account = ask(tmp_path, environment, standing())
    extra = LivePart("dev", "dev-eco", "queue", "left", (OLD,), {})
    more = Account([*account.live, extra], account.images, account.parents, account.problems)
    last = find_status(tmp_path, environment, more, NOW).parts[-1]
    assert (last.name, last.live, last.repository, last.is_drift) == ("left", (OLD,), None, True)


def test_a_queue_that_a_standing_cluster_lacks_is_told(tmp_path: Path) -> None:
    ec2 = standing()
    ec2.templates = ec2.templates[1:]
    assert states(status(tmp_path, ec2))["queue eco"] == "not there, though its cluster stands"


Command = Callable[..., int]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Return the command, run on a site that stands nowhere."""
    write(tmp_path)
    (tmp_path / "cdk.json").write_text("{}", encoding="utf-8")

    def run(*words: str) -> int:
        parser = argparse.ArgumentParser()
        images_status.add_arguments(parser)
        return images_status.run(parser.parse_args(words), tmp_path)

    return run


def test_offline_it_says_what_the_repository_knows(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--offline", "--format", "markdown") == 0
    out, err = capsys.readouterr()
    assert "| dev | dev-eco | queue eco | compute | ami-00000001 | not asked |  |" in out
    assert "| dev | compute | ami-00000001 |  | unknown | unknown |  | no |" in out
    assert err == "clusterbox: dev: no account was asked; live AMIs are not known\n"


def test_without_a_running_account_it_says_so(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("dev") == 0
    assert "no account was asked: no embedded account of it runs" in capsys.readouterr().err


def test_json_has_both_tables_or_one(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    command("--offline", "--format", "json")
    both = json.loads(capsys.readouterr().out)
    command("--offline", "--format", "json", "--only", "parts")
    assert json.loads(capsys.readouterr().out) == both["parts"]
    assert [item["image"] for item in both["images"]] == ["compute", "admin"]


def test_one_table_is_one_csv(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    command("--offline", "--format", "csv", "--only", "images")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("environment,image,ami,")
    assert len(lines) == 3


def test_an_unknown_age_fails_on_request(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--offline", "--fail-on", "age") == 1
    assert "dev: compute is of unknown age: the lock has no `baked`" in capsys.readouterr().err


def test_drift_that_cannot_be_known_fails_on_request(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--fail-on", "drift") == 1
    assert "dev: drift is not known without an account" in capsys.readouterr().err


def test_drift_is_not_asked_for_offline(command: Command) -> None:
    with pytest.raises(InputError, match="--fail-on drift needs an account"):
        command("--offline", "--fail-on", "drift")


def test_drift_fails_on_request(
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def ask_standing(_options: Any, root: Path, environment: Environment) -> Account:
        return ask(root, environment, standing(head=OLD))

    monkeypatch.setattr(images_status, "_ask", ask_standing)
    assert command("dev", "--fail-on", "drift") == 1
    assert f"dev: dev-eco head node: runs {OLD}" in capsys.readouterr().err
    assert command("dev") == 0
