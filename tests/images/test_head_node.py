"""A head node is patched in place: nothing is lost, and jobs wait until it is what it was."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from clusterbox.errors import ClusterboxError
from clusterbox.images.context import StepFailedError
from clusterbox.images.execute import StoppedError
from clusterbox.images.fleet import RESERVATION
from clusterbox.images.head_facts import Facts, compare_facts, parse_changes, parse_facts
from clusterbox.images.head_node import TAG_PATCHED, TAG_TYPE, check_memory, head
from clusterbox.images.plan import Step
from clusterbox.site.image_definitions import ImageDefinition, load_image_definition
from tests.conftest import ROOT
from tests.images.fake_cluster import (
    CLUSTER,
    HEAD,
    RUN,
    FakeCluster,
    run_killed,
    write_repository,
)

STEP = Step(id=f"head:{CLUSTER}", action="head", subject={"cluster": CLUSTER})


@pytest.fixture
def fake(tmp_path: Path) -> FakeCluster:
    return FakeCluster(write_repository(tmp_path / "site"))


def patch(fake: FakeCluster, **options: Any) -> Any:
    return head(fake.context(**options), STEP, fake.doors())


def test_it_is_patched_with_a_snapshot_and_jobs_start_again(fake: FakeCluster) -> None:
    result = patch(fake)
    assert result["instance"] == HEAD
    assert result["snapshot"] == "snap-0"
    assert result["packages"]["upgraded"] == {"openssl": ["3.0-1", "3.0-2"]}
    assert fake.boot == 2
    assert fake.reservations == set()
    assert fake.machines[HEAD]["tags"][TAG_PATCHED] == RUN
    assert fake.snapshots[0]["tags"]["clusterbox:run"] == RUN
    assert fake.log == ["held", "snapshot", "rebooting", "released", "patched"]


def test_once_patched_it_is_left_alone(fake: FakeCluster) -> None:
    first = patch(fake)
    assert patch(fake) == first
    assert (fake.boot, fake.updates, len(fake.snapshots)) == (2, 1, 1)


def test_a_job_that_waits_starts_only_after_the_reboot(fake: FakeCluster) -> None:
    running = fake.start_job(hours=1)
    waiting = fake.start_job("8")
    waiting.state, waiting.node = "PENDING", ""
    patch(fake)
    assert running.state == "COMPLETED"
    assert waiting.state == "PENDING", "held until the very end, also while slurmctld started"
    fake.sleep(1)
    assert waiting.state == "RUNNING"


def test_a_job_that_does_not_end_leaves_the_head_node_untouched(fake: FakeCluster) -> None:
    job = fake.start_job(hours=48)
    with pytest.raises(StepFailedError, match="was not touched, and jobs start again"):
        patch(fake)
    assert job.state == "RUNNING"
    assert fake.reservations == set()
    assert (fake.boot, fake.updates, fake.snapshots) == (1, 0, [])


def test_terminate_requeues_jobs_after_their_time(fake: FakeCluster) -> None:
    job = fake.start_job(hours=48)
    patch(fake, terminate=True, drain_seconds=600.0)
    assert job.state == "PENDING"
    assert "requeued" in fake.log
    assert fake.boot == 2


def test_a_busy_cluster_is_left_when_only_idle_ones_are_wanted(fake: FakeCluster) -> None:
    fake.start_job()
    assert "1 job runs" in patch(fake, when_idle=True)["skipped"]
    assert fake.reservations == set()


def test_a_reboot_that_never_ends_keeps_jobs_and_tells_the_way_back(fake: FakeCluster) -> None:
    fake.never_back = True
    with pytest.raises(StepFailedError, match="does not answer Systems Manager") as error:
        patch(fake)
    assert f"create-replace-root-volume-task --instance-id {HEAD} --snapshot-id snap-0" in str(
        error.value
    )
    assert f"scontrol delete ReservationName={RESERVATION}" in str(error.value)
    assert fake.reservations == {RESERVATION}
    assert TAG_PATCHED not in fake.machines[HEAD]["tags"]


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("efa", "kernel modules that were loaded are not: efa"),
        ("slurmctld.service", "services that were enabled are not: slurmctld.service"),
    ],
)
def test_what_is_missing_after_the_reboot_keeps_jobs(
    fake: FakeCluster, lost: str, message: str
) -> None:
    fake.lost_after_reboot = {lost}
    with pytest.raises(StepFailedError, match=message):
        patch(fake)
    assert fake.reservations == {RESERVATION}
    fake.modules.add("efa")
    fake.units.add("slurmctld.service")
    assert patch(fake)["instance"] == HEAD, "mended by hand and resumed, it goes on"
    assert (fake.boot, fake.updates) == (2, 1)
    assert fake.reservations == set()


def test_a_service_may_take_a_while_to_start(fake: FakeCluster) -> None:
    sleep, reboots = fake.sleep, fake.boot

    def start_late(seconds: float) -> None:
        sleep(seconds)
        late = fake.boot > reboots and fake.down_until is not None
        if late and fake.now < fake.down_until + timedelta(seconds=60):  # type: ignore[operator]
            fake.stopped_units = {"node-exporter.service"}
        else:
            fake.stopped_units = set()

    fake.sleep = start_late  # type: ignore[method-assign]
    assert patch(fake)["instance"] == HEAD


def test_it_is_resized_for_the_update_and_gets_its_type_back(fake: FakeCluster) -> None:
    result = patch(fake, resize_head="m6a.large")
    assert result["instance"] == HEAD
    assert fake.machines[HEAD]["InstanceType"] == "t3.medium"
    assert TAG_TYPE not in fake.machines[HEAD]["tags"]
    assert fake.log.count("resizing") == 2
    assert fake.boot == 4, "started as the other type, rebooted, started as its own"


def test_too_little_memory_is_refused_before_anything_is_held(fake: FakeCluster) -> None:
    fake.memory_available_gib = 0.3
    with pytest.raises(StepFailedError, match=r"307 MiB of memory available.*--resize-head"):
        patch(fake)
    assert fake.log == []
    assert fake.reservations == set()


def test_a_head_node_that_is_not_reached_is_not_touched(fake: FakeCluster) -> None:
    fake.unreachable = True
    with pytest.raises(ClusterboxError, match="does not reach"):
        patch(fake)
    assert (fake.boot, fake.snapshots) == (1, [])


@pytest.mark.parametrize("options", [{}, {"resize_head": "m6a.large"}])
def test_killed_anywhere_and_run_again_it_is_patched_once(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    number = iter(range(10_000))
    root = write_repository(tmp_path / "site")

    def make() -> FakeCluster:
        next(number)
        fake = FakeCluster(root)
        fake.start_job(hours=0.01)
        return fake

    def check(fake: FakeCluster, result: Any) -> None:
        assert result["packages"]["upgraded"] == {"openssl": ["3.0-1", "3.0-2"]}
        assert fake.updates == 1
        assert len(fake.snapshots) == 1
        assert fake.reservations == set()
        assert fake.jobs["7"].state == "COMPLETED"
        machine = fake.machines[HEAD]
        assert machine["tags"][TAG_PATCHED] == RUN
        assert machine["InstanceType"] == "t3.medium"
        assert TAG_TYPE not in machine["tags"]
        assert machine["State"] == {"Name": "running"}
        if not options:
            assert fake.boot == 2, "a reboot that has been is not made again"

    assert run_killed(make, lambda fake: patch(fake, **options), check) > 30


# Memory


def definition(**changes: Any) -> ImageDefinition:
    found = load_image_definition(ROOT, "compute")
    return found.model_copy(update=changes)


FACTS = Facts(
    boot_id="1",
    kernel="6.1",
    modules=frozenset(),
    enabled=frozenset(),
    active=frozenset(),
    memory_total_kib=4 * 1024 * 1024,
    memory_available_kib=2 * 1024 * 1024,
)


def test_modules_are_only_built_where_the_kernel_may_move(fake: FakeCluster) -> None:
    machine = fake.context()
    del machine
    from clusterbox.images.fleet import ClusterMachine

    small = ClusterMachine("i-1", "ami-1", "head", "", "running", "", "t3.medium")
    check_memory(FACTS, definition(), small, None)
    moving = definition(parallelcluster_version=None)
    with pytest.raises(StepFailedError, match=r"4.0 GiB of memory, and building the modules efa"):
        check_memory(FACTS, moving, small, None)
    check_memory(FACTS, moving, small, "m6a.large")
    large = dataclasses.replace(FACTS, memory_total_kib=int(7.6 * 1024 * 1024))
    check_memory(large, moving, small, None)


# Facts


def test_modules_that_come_and_go_are_no_fault() -> None:
    before = dataclasses.replace(FACTS, modules=frozenset({"efa", "loop", "lustre", "tcp_diag"}))
    after = dataclasses.replace(FACTS, modules=frozenset({"lustre"}))
    assert compare_facts(before, after, ()).faults == (
        "kernel modules that were loaded are not: efa",
    )
    assert compare_facts(before, after, ["loop"]).faults == (
        "kernel modules that were loaded are not: efa, loop",
    )


def test_a_service_that_nobody_enabled_need_not_run_again() -> None:
    before = dataclasses.replace(FACTS, enabled=frozenset({"a"}), active=frozenset({"a", "b"}))
    assert compare_facts(before, dataclasses.replace(before, active=frozenset({"a"})), ()) == (
        compare_facts(before, before, ())
    )
    found = compare_facts(before, dataclasses.replace(before, active=frozenset({"b"})), ())
    assert found.faults == ("services that ran do not: a",)
    assert found.wait_seconds == 300


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"boot_id": 1}'])
def test_what_is_no_facts_is_told(text: str) -> None:
    with pytest.raises(ClusterboxError, match="told no facts"):
        parse_facts(text)
    with pytest.raises(ClusterboxError, match="told no changes"):
        parse_changes(text)


# The scripts, for real


PROGRAMS = {
    "lsmod": "echo 'Module Size Used by'; echo 'efa 1 0'; echo 'ena 1 0'",
    "uname": "echo 6.1.1-1.amzn2023.x86_64",
    "rpm": 'cat "$PACKAGES"',
    "systemctl": (
        'case "$1" in list-unit-files) echo "sshd.service enabled enabled"; '
        'echo "cups.service disabled disabled";; '
        '*) echo "sshd.service loaded active running OpenSSH server daemon";; esac'
    ),
}


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a machine whose programs are the test's."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in PROGRAMS.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    packages = tmp_path / "packages"
    packages.write_text("gpg-pubkey 1-1\nkernel 6.1-1\nkernel 6.1-2\nopenssl 3.0-1\n")
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "PACKAGES": str(packages)}


def run(name: str, *words: str, environment: dict[str, str]) -> str:
    script = ROOT / "ami" / "patch" / name
    done = subprocess.run(
        ["bash", str(script), *words], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_facts_are_kept_as_they_were_first(machine: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "run" / "before.json"
    first = parse_facts(run("facts.sh", str(file), environment=machine))
    assert first.kernel == "6.1.1-1.amzn2023.x86_64"
    assert first.modules == {"efa", "ena"}
    assert first.enabled == first.active == {"sshd.service"}
    assert first.memory_total_kib > 0
    Path(machine["PACKAGES"]).write_text("kernel 6.1-2\nopenssl 3.0-2\nzlib 1-1\n")
    assert parse_facts(run("facts.sh", str(file), environment=machine)) == first
    after = tmp_path / "run" / "after.json"
    run("facts.sh", str(after), environment=machine)
    assert parse_changes(
        run("facts.sh", "--changes", str(file), str(after), environment=machine)
    ) == {
        "added": {"zlib": "1-1"},
        "removed": {},
        "upgraded": {"kernel": ["6.1-1, 6.1-2", "6.1-2"], "openssl": ["3.0-1", "3.0-2"]},
    }
    assert json.loads(file.read_text())["packages"]["kernel"] == "6.1-1, 6.1-2"
    assert "openssl" not in run("facts.sh", environment=machine), "packages are not printed"


def write_step(folder: Path, text: str) -> None:
    step = folder / "steps" / "10-os-updates.sh"
    step.parent.mkdir(parents=True)
    step.write_text(f"#!/bin/bash\n{text}\n")
    step.chmod(0o755)


def follow(folder: Path, environment: dict[str, str]) -> str:
    """Ask until it is over; every question comes back at once."""
    for _ in range(600):
        said = run("update.sh", str(folder), environment=environment)
        if said != "running\n":
            return said
        subprocess.run(["sleep", "0.05"], check=True)
    raise AssertionError("the update never ended")


def test_an_update_runs_once_however_often_it_is_asked_for(
    machine: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    write_step(folder, f'echo started >>"{tmp_path}/starts"; sleep 0.5')
    assert run("update.sh", str(folder), environment=machine) == "running\n"
    assert run("update.sh", str(folder), environment=machine) == "running\n"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert follow(folder, machine) == f"done {boot}\n"
    assert run("update.sh", str(folder), environment=machine) == f"done {boot}\n"
    assert (tmp_path / "starts").read_text() == "started\n"


def test_an_update_that_fails_tells_its_end_and_is_tried_again(
    machine: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    write_step(folder, 'echo "Error: no space left"; [[ -e "$(dirname "$0")/mended" ]] || exit 3')
    run("update.sh", str(folder), environment=machine)
    assert follow(folder, machine) == "failed 3\nError: no space left\n"
    (folder / "steps" / "mended").touch()
    (folder / "status").unlink()
    run("update.sh", str(folder), environment=machine)
    assert follow(folder, machine).startswith("done ")


def test_stopped_while_it_waits_for_jobs_it_lets_others_start_again(fake: FakeCluster) -> None:
    fake.start_job(hours=48)

    def stop() -> None:
        if fake.reservations:
            raise StoppedError("interrupted")

    with pytest.raises(StoppedError):
        head(dataclasses.replace(fake.context(), check=stop), STEP, fake.doors())
    assert fake.reservations == set()
    assert fake.log[-1] == "released"
