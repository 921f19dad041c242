"""A rollout on a deployed site: real CDK, a real slurmctld, instances of the embedded account.

The tests follow one cluster through its patch day and depend on their order.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from clusterbox.deployment.pins import read_published_pins
from clusterbox.deployment.progress import Progress
from clusterbox.embedded.slurm import SlurmCluster
from clusterbox.images.blue_green import replace as replace_cluster
from clusterbox.images.context import Clock, Context, StepFailedError
from clusterbox.images.doors import DOORS, Doors
from clusterbox.images.fleet import RESERVATION
from clusterbox.images.gate import gate
from clusterbox.images.head_node import TAG_PATCHED, head
from clusterbox.images.live import fetch_live
from clusterbox.images.login import login
from clusterbox.images.plan import Options, Plan, Step
from clusterbox.images.rollback import plan_rollback, swap_lock, what_runs
from clusterbox.images.rollout import queues
from clusterbox.site.environment import Environment
from clusterbox.site.images import ClusterPins, LockedImage, LoginPin, render_lock
from clusterbox.site.load import Repository
from clusterbox.site.pins import find_configured_parts
from tests.deployment.conftest import copy_repository
from tests.rehearsal import Rehearsal, join_slurm, rehearse
from tests.slurm_cluster import needs_slurm, wait_for

CLUSTER, RUN = "ws-eco-login", "2026-11-22"
NEW = "ami-0bbbbbbbbbbbbbbb2"
NODE = "eco-dy-n8c32g-1"

pytestmark = needs_slurm


@pytest.fixture(scope="module")
def site(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    copy = copy_repository(root, tmp_path_factory.mktemp("rollout"))
    promote(copy)
    expect_imports(copy, "[]")
    with rehearse(copy, cluster=CLUSTER) as found:
        yield found


def old_ami(root: Path) -> str:
    entry = Repository(root).load_lock().environments["ws-dev"]["compute"]
    assert entry.previous is not None
    return entry.previous.ami


def promote(root: Path) -> None:
    """Write the lock as a promotion does: the new image, its previous, and pins of all parts."""
    repository = Repository(root)
    lock = repository.load_lock()
    old = lock.environments["ws-dev"]["compute"].without_previous()
    new = LockedImage(**{**old.model_dump(), "ami": NEW}, previous=old)
    lock = lock.with_image("ws-dev", "compute", new)
    for cluster in repository.load_environment("ws-dev").clusters:
        parts = find_configured_parts(repository.load_cluster(cluster))
        pins = ClusterPins(
            head=old.ami,
            queues={part.name: old.ami for part in parts if part.kind == "queue"},
            login={part.name: LoginPin(ami=old.ami) for part in parts if part.kind == "login"},
        )
        lock = lock.with_pins("ws-dev", cluster.name, pins)
    (root / "ami" / "images.lock.yaml").write_text(render_lock(lock))


def expect_imports(root: Path, imports: str) -> None:
    """Let the image's definition expect other Python modules."""
    path = root / "ami" / "images" / "compute.yaml"
    path.write_text(re.sub(r"imports: .*", f"imports: {imports}", path.read_text()))


class Told(Progress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def context(site: Rehearsal, **options: Any) -> Context:
    return Context(
        root=site.root,
        environment=site.environment,
        target=site.target,
        progress=Told(),
        plan=Plan(
            run=RUN,
            environment="ws-dev",
            created=datetime.now(UTC).isoformat(),
            options=Options(**{"drain_seconds": 120.0, "gate_seconds": 120.0, **options}),
            images=(),
            steps=(),
            world={},
        ),
        clock=Clock(sleep=lambda seconds: time.sleep(min(seconds, 0.3))),
    )


def quick_clock() -> Clock:
    """Return a clock on which a second of waiting takes a tenth of it."""
    start = time.monotonic()
    begun = datetime.now(UTC)
    return Clock(
        now=lambda: begun + timedelta(seconds=10 * (time.monotonic() - start)),
        sleep=lambda seconds: time.sleep(seconds / 10),
    )


def step(action: str, **subject: str) -> Step:
    return Step(id=action, action=action, subject={"cluster": CLUSTER, **subject})  # type: ignore[arg-type]


QUEUES = step("queues", queues="eco")
GATE = step("gate", queue="eco")
LOGIN = step("login", pool="login")
HEAD = step("head")


def pins(site: Rehearsal) -> ClusterPins:
    return Repository(site.root).load_lock().pins_of("ws-dev", CLUSTER)


def submit(site: Rehearsal, script: str) -> str:
    job = site.slurm.door.submit(script, "--partition=eco", f"--nodelist={NODE}", "--requeue")
    wait_for_state(site, job, "RUNNING")
    return job


def state_of(site: Rehearsal, job: str) -> str:
    return {each.id: each.state for each in site.slurm.door.fetch_queue()}.get(job, "GONE")


def wait_for_state(site: Rehearsal, job: str, *states: str) -> None:
    wait_for(f"job {job} {states}", lambda: state_of(site, job) in states, seconds=90)


def images(site: Rehearsal, node_type: str) -> set[str]:
    return {instance["ImageId"] for instance in site.instances(node_type)}


def test_a_drain_that_takes_too_long_leaves_the_job_and_the_site_consistent(
    site: Rehearsal,
) -> None:
    job = submit(site, "sleep 600")
    old = site.image_of(NODE)
    assert old == old_ami(site.root)
    with pytest.raises(StepFailedError, match=rf"did not drain.*job {job} of root") as error:
        queues(context(site, drain_seconds=3.0), QUEUES)
    assert "--terminate" in str(error.value)
    assert state_of(site, job) == "RUNNING"
    assert site.image_of(NODE) == old
    rows = {(row.kind, row.name): row for row in what_runs(context(site)) if row.cluster == CLUSTER}
    assert rows["queue", "eco"].launches == NEW
    assert rows["queue", "eco"].state == "1 still on an earlier image"
    assert rows["login", "login"].launches == old
    published = read_published_pins(site.client("ssm"), site.environment)
    assert published is not None
    assert published.run == RUN
    assert published.pins[CLUSTER] == pins(site)


def test_terminate_requeues_the_job_and_it_starts_on_the_new_image(site: Rehearsal) -> None:
    [job] = [each.id for each in site.slurm.door.fetch_queue()]
    result = queues(context(site, drain_seconds=1.0, terminate=True), QUEUES)
    assert result["requeued"] == [job]
    assert pins(site).queues == {}
    wait_for_state(site, job, "RUNNING")
    assert images(site, "Compute") == {NEW}
    site.slurm.door.cancel(job)
    wait_for_state(site, job, "GONE")


def test_the_gate_runs_a_job_on_the_new_image(site: Rehearsal) -> None:
    result = gate(context(site), GATE)
    assert result["ami"] == NEW
    assert [check["check"] for check in result["checks"]] == [
        "mount /wspcefs",
        "dns",
        "s3",
        "slurm",
    ]
    assert all(check["ok"] for check in result["checks"])
    assert "clusterbox-gate" not in site.on_head("ls -a /wspcefs/.clusterbox /wspcefs")


def test_a_gate_whose_job_finds_something_missing_stops(site: Rehearsal) -> None:
    # The image that stands here was made without the science base.
    expect_imports(site.root, "[numpy, scipy]")
    with pytest.raises(StepFailedError, match=r'"check": "imports", "ok": false'):
        gate(context(site), GATE)


def test_a_job_that_runs_ends_by_itself_when_a_queue_drains(site: Rehearsal) -> None:
    # Back to the earlier image, as a rollback in the middle of a rollout.
    job = submit(site, "sleep 15")
    plan = plan_rollback(site.root, site.environment, fetch_live(site.target, site.environment))
    assert [each.id for each in plan.steps] == [f"queues:{CLUSTER}/eco"]
    back = old_ami(site.root)
    lock = swap_lock(site.root, plan)
    assert lock.environments["ws-dev"]["compute"].ami == back
    assert pins(site).queues == {"eco": NEW}
    assert pins(site).login == {}
    result = queues(context(site), plan.steps[0])
    assert result == {"cluster": CLUSTER, "queues": {"eco": back}, "requeued": []}
    assert state_of(site, job) == "GONE"
    assert images(site, "Compute") <= {back}
    # And forward again.
    forward = plan_rollback(site.root, site.environment, fetch_live(site.target, site.environment))
    swap_lock(site.root, forward)
    for each in forward.steps:
        if each.action == "queues":
            queues(context(site), each)
    assert Repository(site.root).load_lock().environments["ws-dev"]["compute"].ami == NEW


def test_login_nodes_are_replaced(site: Rehearsal) -> None:
    assert images(site, "LoginNode") == {old_ami(site.root)}
    result = login(context(site), LOGIN)
    assert result["ami"] == NEW
    assert images(site, "LoginNode") == {NEW}
    assert pins(site).login == {}


def test_the_head_node_is_patched_while_jobs_wait(site: Rehearsal) -> None:
    before = site.on_head("cat /proc/sys/kernel/random/boot_id; rpm -qa | sort")
    waiting: list[str] = []
    told = context(site)

    def note(event: str, **_facts: Any) -> None:
        if event == "held":
            return
        if event == "snapshot":
            waiting.append(site.slurm.door.submit("true", "--partition=eco"))

    result = head(replace(told, note=note), HEAD)
    assert result["instance"] == site.head().instance
    assert result["packages"]["upgraded"] or before
    after = site.on_head("cat /proc/sys/kernel/random/boot_id; rpm -qa | sort")
    assert after.splitlines()[0] != before.splitlines()[0]
    [snapshot] = site.client("ec2").describe_snapshots(SnapshotIds=[result["snapshot"]])[
        "Snapshots"
    ]
    tags = {tag["Key"]: tag["Value"] for tag in snapshot["Tags"]}
    assert tags["clusterbox:run"] == RUN
    [instance] = site.instances("HeadNode")
    assert {tag["Key"]: tag["Value"] for tag in instance["Tags"]}[TAG_PATCHED] == RUN
    assert RESERVATION not in site.on_head("scontrol show reservations")
    wait_for_state(site, waiting[0], "GONE")
    assert head(told, HEAD)["snapshot"] == result["snapshot"], "a second call changes nothing"


def test_a_head_node_that_lacks_a_module_afterwards_keeps_jobs(site: Rehearsal) -> None:
    site.account.machine(site.head().instance, at_reboot={"modules": ["efa"]})
    other = context(site)
    other = replace(other, plan=replace(other.plan, run="2026-12-13"), clock=quick_clock())
    with pytest.raises(
        StepFailedError, match=r"modules that were loaded are not: efa.*replace-root"
    ):
        head(other, HEAD, Doors())
    assert RESERVATION in site.on_head("scontrol show reservations")
    job = site.slurm.door.submit("true", "--partition=eco")
    time.sleep(3)
    assert state_of(site, job) == "PENDING"
    site.on_head(f"scontrol delete ReservationName={RESERVATION}")
    wait_for_state(site, job, "GONE")


def test_a_cluster_is_replaced_by_a_second_one(site: Rehearsal) -> None:
    expect_imports(site.root, "[]")
    second = f"{CLUSTER}-b"
    with ExitStack() as stack:
        joined: list[SlurmCluster] = []

        def deploy(context: Context, environment: Environment, cluster: str) -> None:
            DOORS.deploy(context, environment, cluster)
            if not joined:
                joined.append(stack.enter_context(join_slurm(site.root, site.account, cluster)))

        result = replace_cluster(context(site), step("replace"), replace(DOORS, deploy=deploy))
    assert result["replacement"] == second
    assert [each["ami"] for each in result["gates"]] == [NEW]
    assert {each["ImageId"] for each in site.instances("HeadNode", second)} == {NEW}
    assert site.instances("HeadNode") == []
    environment = Repository(site.root).load_environment("ws-dev")
    assert [entry.name for entry in environment.clusters] == ["ws-eco", second]
    active = site.client("ssm").get_parameter(Name=f"/clusterbox/ws-dev/clusters/{CLUSTER}/active")
    assert active["Parameter"]["Value"] == second
