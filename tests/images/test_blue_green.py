"""A cluster is replaced by a second one; users always have one that works."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from clusterbox.deployment.cdk import CdkError
from clusterbox.images.blue_green import find_inner_storage, replace, successor
from clusterbox.images.context import StepFailedError
from clusterbox.images.plan import Step
from clusterbox.site.load import Repository
from clusterbox.site.yaml_file import parse_yaml
from tests.images.fake_cluster import CLUSTER, NEW, FakeCluster, run_killed, write_repository

STEP = Step(id=f"replace:{CLUSTER}", action="replace", subject={"cluster": CLUSTER})
SECOND = f"{CLUSTER}-b"
GOOD = f"ami: {NEW}\nnode: n\ngate: done, 0 failed"


def make_cluster(folder: Path) -> FakeCluster:
    fake = FakeCluster(write_repository(folder))
    fake.gate_output = GOOD
    return fake


@pytest.fixture
def fake(tmp_path: Path) -> FakeCluster:
    return make_cluster(tmp_path / "site")


def run(fake: FakeCluster, **options: Any) -> Any:
    return replace(fake.context(**options), STEP, fake.doors())


def clusters(fake: FakeCluster) -> list[str]:
    environment = Repository(fake.root).load_environment("ws-dev")
    return [entry.name for entry in environment.clusters]


@pytest.mark.parametrize(
    ("name", "after"), [("eco", "eco-b"), ("eco-b", "eco-c"), ("hpc-big", "hpc-big-b")]
)
def test_names_follow_one_another(name: str, after: str) -> None:
    assert successor(name) == after


def test_users_are_switched_and_the_old_cluster_goes(fake: FakeCluster) -> None:
    result = run(fake)
    assert result["replacement"] == SECOND
    assert [each["ami"] for each in result["gates"]] == [NEW]
    assert fake.parameters[f"/clusterbox/ws-dev/clusters/{CLUSTER}/active"] == SECOND
    assert fake.removed == [CLUSTER]
    assert clusters(fake) == ["ws-eco", SECOND]
    lock = Repository(fake.root).load_lock()
    assert list(lock.pins["ws-dev"]) == ["ws-eco"], "the new one runs the locked image"
    environment = Repository(fake.root).load_environment("ws-dev")
    assert environment.budgets is not None
    assert SECOND in environment.budgets.clusters
    assert "Sign in to ws-eco-login-b" in result["notice"]
    assert "# What AWS bills" in (fake.root / "environments" / "ws-dev.yaml").read_text()


def test_running_and_waiting_jobs_end_before_the_old_cluster_goes(fake: FakeCluster) -> None:
    job = fake.start_job(hours=2)
    run(fake)
    assert job.state == "COMPLETED"
    assert fake.partitions == {"eco": "DRAIN"}, "no new jobs were taken"


def test_jobs_that_do_not_end_keep_both_clusters(fake: FakeCluster) -> None:
    job = fake.start_job(hours=48)
    with pytest.raises(StepFailedError, match=f"users are on {SECOND}.*job 7 of ada"):
        run(fake)
    assert fake.removed == []
    assert clusters(fake) == ["ws-eco", CLUSTER, SECOND]
    job.ends = fake.now + timedelta(seconds=1)
    run(fake)
    assert fake.removed == [CLUSTER]


def test_terminate_ends_what_is_left_and_records_it(fake: FakeCluster) -> None:
    job = fake.start_job(hours=48)
    run(fake, terminate=True, drain_seconds=60.0)
    assert job.state == "CANCELLED"
    assert "ended" in fake.log


def test_a_second_cluster_that_fails_leaves_users_where_they_are(fake: FakeCluster) -> None:
    fake.deploy_errors = [CdkError("no capacity")]
    with pytest.raises(StepFailedError, match=f"users stay on {CLUSTER}.*no capacity"):
        run(fake)
    assert fake.parameters.get(f"/clusterbox/ws-dev/clusters/{CLUSTER}/active") is None
    assert fake.removed == []
    assert fake.partitions == {"eco": "UP"}
    run(fake)
    assert fake.removed == [CLUSTER]


def test_a_gate_that_fails_leaves_users_where_they_are(fake: FakeCluster) -> None:
    fake.gate_output = '{"check": "dns", "ok": false, "detail": "x"}\ngate: done, 1 failed'
    with pytest.raises(StepFailedError, match=f"users stay on {CLUSTER}.*dns"):
        run(fake)
    assert fake.removed == []


def test_a_name_that_is_too_long_changes_nothing(tmp_path: Path) -> None:
    longest = "a" * 40
    fake = FakeCluster(write_repository(tmp_path / "site"), cluster=longest)
    path = fake.root / "environments" / "ws-dev.yaml"
    for each in (path, fake.root / "ami" / "images.lock.yaml"):
        each.write_text(each.read_text().replace(CLUSTER, longest))
    before = path.read_text()
    step = Step(id="r", action="replace", subject={"cluster": longest})
    with pytest.raises(StepFailedError, match=f"cannot be replaced by a cluster {longest}-b"):
        replace(fake.context(), step, fake.doors())
    assert path.read_text() == before
    assert fake.deployments == 0


def test_killed_anywhere_and_run_again_there_is_one_cluster(tmp_path: Path) -> None:
    number = iter(range(10_000))

    def make() -> FakeCluster:
        return make_cluster(tmp_path / str(next(number)))

    def check(fake: FakeCluster, result: Any) -> None:
        assert result["replacement"] == SECOND
        assert fake.removed == [CLUSTER]
        assert clusters(fake) == ["ws-eco", SECOND]

    assert run_killed(make, run, check) > 15


def test_the_disk_of_the_old_head_node_is_kept_as_a_snapshot(fake: FakeCluster) -> None:
    run(fake)
    assert [each["tags"]["parallelcluster:cluster-name"] for each in fake.snapshots] == [CLUSTER]


@pytest.mark.parametrize(
    ("share", "inner"),
    [
        ("{MountDir: /a, StorageType: Efs, EfsSettings: {FileSystemId: fs-1}}", False),
        ("{MountDir: /a, StorageType: FsxOntap, FsxOntapSettings: {VolumeId: fsvol-1}}", False),
        ("{MountDir: /a, StorageType: Efs, EfsSettings: {Encrypted: true}}", True),
        ("{MountDir: /a, StorageType: Ebs, EbsSettings: {VolumeId: vol-1}}", True),
        ("{MountDir: /a, StorageType: Ebs}", True),
    ],
)
def test_storage_that_would_go_with_the_old_cluster_is_told(share: str, inner: bool) -> None:
    config = parse_yaml(f"SharedStorage: [{share}]\n", name="hpc.yaml")
    assert (find_inner_storage(config) is not None) == inner
