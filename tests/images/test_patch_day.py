"""A whole patch day through the command, killed at every step, and back again; on a real Slurm."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clusterbox.deployment.progress import Progress
from clusterbox.embedded.faults import ExpiredCredentials
from clusterbox.images.usage import find_parts
from clusterbox.rehearsal.site import RehearsedSite, rehearse_site
from clusterbox.site.load import Repository
from tests.deployment.conftest import copy_repository
from tests.slurm_cluster import needs_slurm

pytestmark = needs_slurm

CLUSTER = "ws-eco-login"
OPTIONS = ("--drain-hours", "0.1", "--gate-minutes", "3")
# Steps that are over before anybody could kill them in the middle.
MOST_STARTS = 40


@pytest.fixture(scope="module")
def site(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RehearsedSite]:
    """Return a deployed site of one cluster with queue, pool and head node, and its Slurm."""
    copy = copy_repository(root, tmp_path_factory.mktemp("patch-day"))
    file = copy / "environments" / "ws-dev.yaml"
    text = file.read_text(encoding="utf-8")
    text = text.replace("  - {name: ws-eco, config: eco.yaml}\n", "")
    text = re.sub(r"^    ws-eco: \{.*\n", "", text, flags=re.MULTILINE)
    file.write_text(re.sub(r"^( +canary:) .*$", rf"\1 {CLUSTER}/eco", text, flags=re.MULTILINE))
    with rehearse_site(copy, "ws-dev", Progress()) as found:
        yield found


def _command(site: RehearsedSite, *words: str) -> list[str]:
    return [sys.executable, "-m", "clusterbox.cli.main", "--root", str(site.root), "images", *words]


def _start(site: RehearsedSite, log: Path, *words: str) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen(_command(site, *words), stdout=file, stderr=file)


def _run(site: RehearsedSite, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(site, *words), capture_output=True, text=True, timeout=300)


def _events(site: RehearsedSite) -> list[dict[str, Any]]:
    found = []
    for path in sorted((site.root / ".clusterbox" / "patch-day" / "ws-dev").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue  # Half a line of a killed process.
    return found


def _started(site: RehearsedSite) -> list[str]:
    return [event["step"] for event in _events(site) if event["event"] == "started"]


def _lock(site: RehearsedSite) -> Any:
    return Repository(site.root).load_lock()


def test_killed_at_every_step_it_still_does_everything_once(
    site: RehearsedSite, tmp_path: Path
) -> None:
    before = _lock(site).environments["ws-dev"]["compute"].ami
    log = tmp_path / "run.log"
    killed: list[str] = []
    for turn in range(MOST_STARTS):
        process = _start(site, log, "run", "ws-dev", "compute", *OPTIONS)
        step = _wait_for_another_step(site, process, killed)
        if step is None:
            assert process.wait() == 0, log.read_text()
            break
        if turn == 0:
            refused = _run(site, "run", "ws-dev", "compute", *OPTIONS)
            assert refused.returncode == 1
            assert "another patch day is under way" in refused.stderr
        # Later in the step the further the day has come.
        time.sleep(min(0.1 * turn, 1.0))
        if process.poll() == 0:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed.append(step)
    text = log.read_text()
    assert {step.partition(":")[0] for step in killed} >= {
        "bake",
        "verify",
        "queues",
        "gate",
        "login",
        "head",
    }, text
    _check_done_once(site, before)


def _wait_for_another_step(
    site: RehearsedSite, process: subprocess.Popen[bytes], killed: list[str]
) -> str | None:
    """Return a step that has begun and was not killed yet; None when the run has ended."""
    end = time.monotonic() + 240
    while time.monotonic() < end:
        for step in _started(site):
            if step not in killed:
                return step
        if process.poll() is not None:
            return None
        time.sleep(0.02)
    raise AssertionError("no step began within four minutes")


def _check_done_once(site: RehearsedSite, before: str) -> None:
    ec2 = site.target.client("ec2")
    entry = _lock(site).environments["ws-dev"]["compute"]
    assert entry.previous is not None
    assert entry.previous.ami == before
    tags = [
        {"Name": "tag:clusterbox:image", "Values": ["compute"]},
        {"Name": "tag:Environment", "Values": ["ws-dev"]},
    ]
    images = ec2.describe_images(Owners=["self"], Filters=tags)["Images"]
    assert [image["ImageId"] for image in images] == [entry.ami]
    parts = {(part.kind, part.name): part.ami for part in find_parts(site.root, site.environment)}
    assert parts["queue", "eco"] == parts["login", "login"] == entry.ami
    assert parts["head", ""] == before
    # Neither a machine of a verification nor a stack of a bake is left.
    running = [
        instance
        for reservation in ec2.describe_instances()["Reservations"]
        for instance in reservation["Instances"]
        if instance["State"]["Name"] == "running"
    ]
    kinds = {tag["Value"] for each in running for tag in each["Tags"] if tag["Key"] == "Name"}
    assert not [kind for kind in kinds if "verify" in kind.lower()]
    stacks = site.target.client("cloudformation").describe_stacks()["Stacks"]
    assert not [stack for stack in stacks if "compute-20" in stack["StackName"]]
    door = site.slurms[CLUSTER].door
    assert {each["State"] for each in door.fetch_partitions().values()} == {"UP"}
    assert "ReservationName" not in door.run("scontrol", "show", "reservations")
    snapshots = [
        each
        for each in ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]
        if any(tag["Key"] == "clusterbox:run" for tag in each.get("Tags", ()))
    ]
    assert len(snapshots) == 1
    listed = site.target.client("s3").list_objects_v2(
        Bucket=site.environment.storage.buckets.logs.name, Prefix="patch-day/"
    )
    keys = [entry["Key"] for entry in listed["Contents"]]
    assert not [key for key in keys if key.endswith("lease.json")]
    done = [event["step"] for event in _events(site) if event["event"] in ("done", "skipped")]
    assert len(done) == len(set(done))
    assert _events(site)[-1]["event"] == "completed"


def test_status_and_report_tell_of_it(site: RehearsedSite) -> None:
    status = _run(site, "status", "ws-dev", "--fail-on", "drift")
    assert status.returncode == 0, status.stdout + status.stderr
    report = _run(site, "report", "ws-dev")
    assert "completed" in report.stdout
    assert "gate:ws-eco-login/eco" in report.stdout


def test_a_plan_is_refused_when_the_world_has_changed(site: RehearsedSite, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    assert _run(site, "plan", "ws-dev", "compute", "--output", str(plan)).returncode == 0
    definition = site.root / "ami" / "images" / "compute.yaml"
    text = definition.read_text(encoding="utf-8")
    definition.write_text(text.replace("root_gib: 45", "root_gib: 46"), encoding="utf-8")
    try:
        refused = _run(site, "run", "ws-dev", "--plan", str(plan))
    finally:
        definition.write_text(text, encoding="utf-8")
    assert refused.returncode == 1
    assert "bundle of compute" in refused.stderr
    assert "plan again" in refused.stderr


def test_it_is_rolled_back_and_credentials_that_expire_only_stop_it(site: RehearsedSite) -> None:
    after = _lock(site).environments["ws-dev"]["compute"]
    assert after.previous is not None
    # Every attempt of boto3's own, and more.
    site.target.account.inject(ExpiredCredentials(service="ssm", times=20))
    stopped = _run(site, "rollback", "ws-dev", "compute", *OPTIONS)
    assert stopped.returncode == 1
    assert "xpired" in stopped.stderr
    site.target.account.clear_faults()
    done = _run(site, "rollback", "ws-dev", "compute", *OPTIONS)
    assert done.returncode == 0, done.stdout + done.stderr
    back = _lock(site).environments["ws-dev"]["compute"]
    assert (back.ami, back.previous.ami) == (after.previous.ami, after.ami)
    parts = {(part.kind, part.name): part.ami for part in find_parts(site.root, site.environment)}
    assert set(parts.values()) == {back.ami, parts["admin-box", "ws-pc-adminbox"]}
    assert _lock(site).pins == {}


def test_what_is_not_there_is_refused(site: RehearsedSite) -> None:
    assert _run(site, "run", "ws-dev", "nonsense").returncode == 2
    assert _run(site, "verify", "ws-dev").returncode == 2
    assert _run(site, "abandon", "ws-dev").returncode == 2
    assert _run(site, "report", "ws-dev", "1999-01-01").returncode == 2
