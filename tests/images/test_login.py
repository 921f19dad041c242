"""A pool of login nodes comes to the promoted image, and is never left closed silently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clusterbox.deployment.cdk import CdkError
from clusterbox.images.context import StepFailedError
from clusterbox.images.login import login
from clusterbox.images.plan import Step
from clusterbox.site.images import ClusterPins
from clusterbox.site.load import Repository
from tests.images.fake_cluster import (
    CLUSTER,
    NEW,
    OLD,
    FakeCluster,
    FakeJob,
    run_killed,
    write_repository,
)

STEP = Step(
    id=f"login:{CLUSTER}/login", action="login", subject={"cluster": CLUSTER, "pool": "login"}
)


@pytest.fixture
def fake(tmp_path: Path) -> FakeCluster:
    return FakeCluster(write_repository(tmp_path / "site"))


def pins(fake: FakeCluster) -> ClusterPins:
    return Repository(fake.root).load_lock().pins_of("ws-dev", CLUSTER)


def move(fake: FakeCluster, **options: Any) -> Any:
    return login(fake.context(**options), STEP, fake.doors())


def test_the_pool_is_closed_and_opened_on_the_new_image(fake: FakeCluster) -> None:
    assert move(fake) == {"cluster": CLUSTER, "pool": "login", "ami": NEW, "nodes": 1}
    assert fake.pool == {"ami": NEW, "count": 1}
    assert fake.log.index("login-closed") < fake.log.index("login-opened")
    assert pins(fake).login == {}
    assert pins(fake).queues == {"eco": OLD}, "queues wait for their own step"


def test_a_pool_that_is_on_the_image_is_left_alone(fake: FakeCluster) -> None:
    move(fake)
    deployments = fake.deployments
    assert move(fake)["ami"] == NEW
    assert fake.deployments == deployments


def test_a_pool_that_cannot_be_closed_stays_as_it_is(fake: FakeCluster) -> None:
    fake.deploy_errors = [CdkError("denied")]
    with pytest.raises(StepFailedError, match="was not changed, and runs as before"):
        move(fake)
    assert fake.pool == {"ami": OLD, "count": 1}
    assert pins(fake).login["login"].closed is False


def test_a_pool_that_cannot_be_opened_is_told_loudly_and_opened_by_the_next_call(
    fake: FakeCluster,
) -> None:
    doors = fake.doors()
    deploy = doors.deploy

    def deploy_once(*words: Any) -> None:
        if fake.deployments == 1:
            fake.deploy_errors = [CdkError("denied")]
        deploy(*words)

    object.__setattr__(doors, "deploy", deploy_once)
    with pytest.raises(StepFailedError, match="THE POOL login OF ws-eco-login HAS NO LOGIN NODES"):
        login(fake.context(), STEP, doors)
    assert fake.pool == {"ami": OLD, "count": 0}
    assert pins(fake).login["login"].closed is True
    assert move(fake)["ami"] == NEW
    assert fake.pool == {"ami": NEW, "count": 1}


def test_nodes_that_do_not_start_are_told_loudly(fake: FakeCluster) -> None:
    fake.login_never_starts = True
    with pytest.raises(StepFailedError, match=r"IS NOT OPEN: of 1 login nodes on ami-.*: none"):
        move(fake)
    fake.login_never_starts = False
    assert move(fake)["nodes"] == 1


def test_a_busy_cluster_is_left_when_only_idle_ones_are_wanted(fake: FakeCluster) -> None:
    fake.start_job()
    assert "1 job runs" in move(fake, when_idle=True)["skipped"]
    assert fake.pool == {"ami": OLD, "count": 1}


def test_killed_anywhere_and_run_again_the_pool_is_open(tmp_path: Path) -> None:
    number = iter(range(10_000))

    def make() -> FakeCluster:
        return FakeCluster(write_repository(tmp_path / str(next(number))))

    def check(fake: FakeCluster, result: Any) -> None:
        assert result["ami"] == NEW
        assert fake.pool == {"ami": NEW, "count": 1}
        assert pins(fake).login == {}
        assert [machine["ImageId"] for key, machine in fake.machines.items() if "login" in key] == [
            NEW
        ]

    assert run_killed(make, move, check) > 20


def _call_from_login(fake: FakeCluster, hours: float) -> FakeJob:
    job = fake.start_job(hours=hours)
    [address] = [
        machine["PrivateIpAddress"] for key, machine in fake.machines.items() if "login" in key
    ]
    job.caller = f"ip-{address.replace('.', '-')}.ec2.internal"
    return job


def test_an_interactive_job_ends_before_the_node_on_which_it_was_started(fake: FakeCluster) -> None:
    job = _call_from_login(fake, hours=3)
    move(fake)
    assert job.state == "COMPLETED"
    assert fake.pool["ami"] == NEW


def test_an_interactive_job_that_does_not_end_leaves_the_pool_as_it_is(fake: FakeCluster) -> None:
    job = _call_from_login(fake, hours=48)
    with pytest.raises(StepFailedError, match=r"was not touched: interactive jobs.*job 7 of ada"):
        move(fake)
    assert job.state == "RUNNING"
    assert fake.pool == {"ami": OLD, "count": 1}
    assert fake.deployments == 0
    move(fake, terminate=True, drain_seconds=60.0)
    assert fake.pool["ami"] == NEW


def test_a_job_of_a_script_needs_no_login_node(fake: FakeCluster) -> None:
    job = fake.start_job(hours=48)
    move(fake)
    assert job.state == "RUNNING"
