"""Queues come to the promoted image; no job ends that nobody wanted to end."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from clusterbox.deployment.cdk import CdkError
from clusterbox.deployment.site import BusyError
from clusterbox.images.context import Context, StepFailedError
from clusterbox.images.doors import open_scheduler
from clusterbox.images.plan import Step
from clusterbox.images.rollout import queues
from clusterbox.site.environment import Environment
from clusterbox.site.images import ClusterPins, render_lock
from clusterbox.site.load import Repository
from tests.images.fake_cluster import (
    CLUSTER,
    NEW,
    OLD,
    FakeCluster,
    run_killed,
    write_repository,
)

STEP = Step(
    id=f"queues:{CLUSTER}/eco", action="queues", subject={"cluster": CLUSTER, "queues": "eco"}
)


@pytest.fixture
def fake(tmp_path: Path) -> FakeCluster:
    return FakeCluster(write_repository(tmp_path / "site"))


def pins(fake: FakeCluster) -> ClusterPins:
    return Repository(fake.root).load_lock().pins_of("ws-dev", CLUSTER)


def move(fake: FakeCluster, **options: Any) -> Any:
    return queues(fake.context(**options), STEP, fake.doors())


def test_a_queue_loses_its_pin_and_launches_the_new_image(fake: FakeCluster) -> None:
    result = move(fake)
    assert result == {"cluster": CLUSTER, "queues": {"eco": NEW}, "requeued": []}
    assert fake.queue_amis == {"eco": NEW}
    assert pins(fake).queues == {}
    assert pins(fake).login["login"].ami == OLD, "the pool waits for its own step"
    assert pins(fake).head == OLD
    assert '"eco"' not in fake.parameters["pins"]


def test_a_running_job_ends_by_itself_before_its_node_goes(fake: FakeCluster) -> None:
    job = fake.start_job(hours=3)
    result = move(fake)
    assert job.state == "COMPLETED"
    assert result["requeued"] == []
    assert fake.now - timedelta(hours=3) >= job.ends - timedelta(hours=3)  # type: ignore[operator]
    assert fake.nodes == {}


def test_a_drain_that_takes_too_long_names_the_job_and_leaves_it(fake: FakeCluster) -> None:
    job = fake.start_job(hours=48)
    with pytest.raises(StepFailedError, match="did not drain within 24 h") as error:
        move(fake)
    assert "job 7 of ada (model) on eco-dy-n8c32g-1, 1:00:00 left" in str(error.value)
    assert "--terminate" in str(error.value)
    assert job.state == "RUNNING"
    assert fake.queue_amis == {"eco": NEW}, "new nodes have the new image"
    job.ends = fake.now
    assert move(fake)["queues"] == {"eco": NEW}


def test_terminate_requeues_the_job_and_records_it(fake: FakeCluster) -> None:
    job = fake.start_job(hours=48)
    result = move(fake, terminate=True, drain_seconds=60.0)
    assert result["requeued"] == ["7"]
    assert "requeued" in fake.log
    assert job.state in ("PENDING", "RUNNING", "COMPLETED")
    assert all(
        machine["ImageId"] == NEW
        for machine in fake.machines.values()
        if machine["tags"]["parallelcluster:node-type"] == "Compute"
    )


def test_a_job_that_cannot_be_requeued_is_told(fake: FakeCluster) -> None:
    job = fake.start_job(hours=48)
    fake.requeue_refused = True
    with pytest.raises(StepFailedError, match="does not requeue job 7 of ada"):
        move(fake, terminate=True, drain_seconds=60.0)
    assert job.state == "RUNNING"


def test_a_busy_cluster_is_left_when_only_idle_ones_are_wanted(fake: FakeCluster) -> None:
    fake.start_job()
    result = move(fake, when_idle=True)
    assert result["skipped"] == f"left: 1 job runs on {CLUSTER}"
    assert fake.deployments == 0
    assert pins(fake).queues == {"eco": OLD}


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("QueueUpdateStrategy: COMPUTE_FLEET_STOP", "is COMPUTE_FLEET_STOP"),
        ("", "is not set, which means COMPUTE_FLEET_STOP"),
    ],
)
def test_a_queue_that_cannot_change_while_it_runs_is_refused_before(
    fake: FakeCluster, strategy: str, message: str
) -> None:
    path = fake.root / "cluster_configs" / "eco-login.yaml"
    path.write_text(path.read_text().replace("QueueUpdateStrategy: DRAIN", strategy))
    with pytest.raises(StepFailedError, match=message):
        move(fake)
    assert fake.deployments == 0
    assert pins(fake).queues == {"eco": OLD}


def test_a_strategy_that_ends_jobs_is_refused_while_jobs_run(fake: FakeCluster) -> None:
    path = fake.root / "cluster_configs" / "eco-login.yaml"
    path.write_text(path.read_text().replace("Strategy: DRAIN", "Strategy: TERMINATE"))
    fake.start_job()
    with pytest.raises(StepFailedError, match="which would end job 7 of ada"):
        move(fake)
    assert fake.deployments == 0


def test_a_deployment_that_was_rolled_back_leaves_lock_and_cluster_as_they_were(
    fake: FakeCluster,
) -> None:
    before = (fake.root / "ami" / "images.lock.yaml").read_text()
    fake.deploy_errors = [CdkError("no such image")]
    fake.stack["StackStatus"] = "UPDATE_ROLLBACK_COMPLETE"
    with pytest.raises(
        StepFailedError, match=r"was not changed, and runs as before.*no such image"
    ):
        move(fake)
    assert (fake.root / "ami" / "images.lock.yaml").read_text() == before
    assert OLD in fake.parameters["pins"]
    assert fake.queue_amis == {"eco": OLD}
    assert move(fake)["queues"] == {"eco": NEW}


def test_a_deployment_that_may_go_on_is_taken_up_again(fake: FakeCluster) -> None:
    class ExpiredError(CdkError):
        def __init__(self) -> None:
            fake.stack["StackStatus"] = "UPDATE_IN_PROGRESS"
            super().__init__("credentials expired")

    def fail(*_words: Any) -> None:
        raise ExpiredError

    doors = fake.doors()
    object.__setattr__(doors, "deploy", fail)
    with pytest.raises(StepFailedError, match="may go on in the account"):
        queues(fake.context(), STEP, doors)
    assert pins(fake).queues == {}, "the lock says what the account is on its way to"
    sleep = fake.sleep

    def settle(seconds: float) -> None:
        sleep(seconds)
        fake.stack["StackStatus"] = "UPDATE_COMPLETE"

    fake.sleep = settle  # type: ignore[method-assign]
    assert move(fake)["queues"] == {"eco": NEW}


def test_what_a_killed_run_still_deploys_is_waited_for(fake: FakeCluster) -> None:
    fake.deploy_errors = [BusyError("another run is at work"), BusyError("another run is at work")]
    assert move(fake)["queues"] == {"eco": NEW}
    assert fake.deployments == 3


def test_a_head_node_that_stops_answering_is_told_with_what_is_known(fake: FakeCluster) -> None:
    fake.start_job(hours=48)
    doors = fake.doors()
    deploy = doors.deploy

    def deploy_and_lose(*words: Any) -> None:
        deploy(*words)
        fake.unreachable = True

    object.__setattr__(doors, "deploy", deploy_and_lose)
    with pytest.raises(StepFailedError, match="has not answered for 10 min"):
        queues(fake.context(), STEP, doors)


def test_an_unknown_queue_is_told_with_those_there_are(fake: FakeCluster) -> None:
    step = Step(id="q", action="queues", subject={"cluster": CLUSTER, "queues": "big"})
    with pytest.raises(Exception, match="has no queue big; it has: eco"):
        queues(fake.context(), step, fake.doors())


def test_killed_anywhere_and_run_again_it_ends_the_same(tmp_path: Path) -> None:
    number = iter(range(10_000))

    def make() -> FakeCluster:
        fake = FakeCluster(write_repository(tmp_path / str(next(number))))
        fake.start_job(hours=0.01)
        return fake

    def check(fake: FakeCluster, result: Any) -> None:
        assert result["queues"] == {"eco": NEW}
        assert fake.queue_amis == {"eco": NEW}
        assert pins(fake).queues == {}
        assert fake.jobs["7"].state == "COMPLETED"
        assert fake.nodes == {}

    assert run_killed(make, move, check) > 20


@pytest.mark.parametrize("fails", [False, True])
def test_what_another_environment_writes_meanwhile_is_not_lost(
    fake: FakeCluster, fails: bool
) -> None:
    doors = fake.doors()

    def deploy(context: Context, environment: Environment, cluster: str) -> None:
        lock = Repository(fake.root).load_lock()
        entry = lock.environments["sandbox"]["compute"].model_copy(update={"ami": "ami-0000beef"})
        path = fake.root / "ami" / "images.lock.yaml"
        path.write_text(render_lock(lock.with_image("sandbox", "compute", entry)))
        fake.deploy(context, environment, cluster)

    object.__setattr__(doors, "deploy", deploy)
    if fails:
        fake.deploy_errors = [CdkError("no such image")]
        fake.stack["StackStatus"] = "UPDATE_ROLLBACK_COMPLETE"
        with pytest.raises(StepFailedError, match="was not changed"):
            queues(fake.context(), STEP, doors)
    else:
        queues(fake.context(), STEP, doors)
    lock = Repository(fake.root).load_lock()
    assert lock.environments["sandbox"]["compute"].ami == "ami-0000beef"
    assert pins(fake).queues == ({"eco": OLD} if fails else {})


def test_what_another_environment_writes_while_a_deployment_settles_is_not_lost(
    fake: FakeCluster,
) -> None:
    fake.stack["StackStatus"] = "UPDATE_IN_PROGRESS"
    sleep = fake.sleep

    def settle(seconds: float) -> None:
        sleep(seconds)
        if fake.stack["StackStatus"] == "UPDATE_IN_PROGRESS":
            lock = Repository(fake.root).load_lock()
            found = lock.environments["sandbox"]["compute"]
            entry = found.model_copy(update={"ami": "ami-0000beef"})
            path = fake.root / "ami" / "images.lock.yaml"
            path.write_text(render_lock(lock.with_image("sandbox", "compute", entry)))
            fake.stack["StackStatus"] = "UPDATE_COMPLETE"

    fake.sleep = settle  # type: ignore[method-assign]
    move(fake)
    lock = Repository(fake.root).load_lock()
    assert lock.environments["sandbox"]["compute"].ami == "ami-0000beef"


def test_of_a_cluster_that_was_left_in_part_nothing_further_is_moved(fake: FakeCluster) -> None:
    context = fake.context(when_idle=True)
    canary = Step(
        id=f"queues:{CLUSTER}/other",
        action="queues",
        subject={"cluster": CLUSTER, "queues": "other"},
    )
    plan = replace(context.plan, steps=(canary, STEP))
    left = {canary.id: {"skipped": f"left: 1 job runs on {CLUSTER}"}}
    result = queues(replace(context, plan=plan, results=left), STEP, fake.doors())
    assert canary.id in result["skipped"]
    assert fake.deployments == 0


def test_a_job_that_ended_before_it_could_be_requeued_does_not_run_twice(
    fake: FakeCluster,
) -> None:
    job = fake.start_job(hours=48)
    scheduler = open_scheduler(fake.context(), CLUSTER, fake.doors())
    [seen] = scheduler.fetch_jobs()
    job.state = "COMPLETED"
    assert scheduler.requeue([seen]) == []
    assert job.state == "COMPLETED"
