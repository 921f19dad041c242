"""A Slurm here joined to the account in which its cluster stands: nodes are instances.

The tests of this module follow one site through its life and depend on their order.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clusterbox.embedded.slurm.fleet import changed_queues, mounts
from clusterbox.errors import ClusterboxError
from tests.deployment.conftest import copy_repository
from tests.rehearsal import Rehearsal, join_slurm, rehearse
from tests.slurm_cluster import needs_slurm, wait_for

NODE = "eco-dy-n8c32g-1"
OLD = "ami-067d504ae48dd3252"
NEW = "ami-0258c61d5a80b6572"


@pytest.fixture(scope="module")
def site(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    copy = copy_repository(root, tmp_path_factory.mktemp("fleet"))
    with rehearse(copy) as found:
        yield found


def set_image(site: Rehearsal, file: str, part: str, image: str) -> None:
    """Let a queue or login pool of a configuration run an AMI; `part` begins its entry."""
    path = site.root / "cluster_configs" / file
    text = path.read_text()
    before, begin, rest = text.partition(f"- Name: {part}\n")
    assert begin, text
    head, key, tail = rest.partition("CustomAmi: ")
    after = tail.partition("\n")[2]
    path.write_text(f"{before}{begin}{head}{key}{image}\n{after}")


def replace(site: Rehearsal, file: str, old: str, new: str) -> None:
    path = site.root / "cluster_configs" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def submit(site: Rehearsal, script: str, *options: str) -> str:
    return site.slurm.door.submit(script, "--partition=eco", f"--nodelist={NODE}", *options)


def wait_for_state(site: Rehearsal, job: str, *states: str) -> str:
    """Return a job's state once it is one of these; it is COMPLETED when it is not queued."""

    def found() -> str | None:
        queued = {j.id: j.state for j in site.slurm.door.fetch_queue()}
        state = queued.get(job, "COMPLETED")
        return state if state in states else None

    return wait_for(f"job {job} {states}", found, seconds=120)


pytestmark = needs_slurm


def test_a_job_powers_up_an_instance_of_the_launch_template(
    site: Rehearsal, tmp_path: Path
) -> None:
    script = "uname -r; systemctl is-active slurmd; echo kept >/wspcefs/shared; cat /wspcefs/shared"
    job = submit(site, script, f"--output={tmp_path}/out")
    wait_for_state(site, job, "COMPLETED")
    [instance] = site.instances()
    tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
    assert site.slurm.instances() == {NODE: instance["InstanceId"]}
    assert (instance["ImageId"], instance["InstanceType"]) == (OLD, "t3a.2xlarge")
    assert instance["PrivateIpAddress"].startswith("10.12.6")
    assert tags["parallelcluster:queue-name"] == "eco"
    assert tags["parallelcluster:compute-resource-name"] == "n8c32g"
    # The job ran in the instance's machine: its kernel is that of the image, not this machine's.
    kernel = site.account.machine(instance["InstanceId"])["state"]["running"]
    out = tmp_path / "out"
    wait_for("the output", lambda: out.exists() and out.read_text().endswith("kept\n"))
    assert out.read_text().split() == [kernel, "active", "kept"]
    item = site.client("dynamodb").get_item(
        TableName="parallelcluster-slurm-ws-eco", Key={"Id": {"S": NODE}}
    )["Item"]
    assert item["InstanceId"]["S"] == instance["InstanceId"]


def test_the_head_node_runs_slurms_commands_through_run_command(site: Rehearsal) -> None:
    assert NODE in site.on_head("scontrol show node --oneliner")
    said = site.on_head(
        "sbatch --parsable --partition=eco --wrap 'true' && sinfo -V && ls -d /wspcefs"
    )
    job, version, folder = said.splitlines()
    assert version == "slurm 25.11.8"
    assert folder == "/wspcefs"
    wait_for_state(site, job, "COMPLETED")


def test_drain_lets_a_running_job_end_and_replaces_its_instance(site: Rehearsal) -> None:
    job = submit(site, f"while [ ! -e {site.root}/go-on ]; do sleep 0.2; done")
    wait_for_state(site, job, "RUNNING")
    before = site.slurm.instances()[NODE]
    set_image(site, "eco.yaml", "eco", NEW)
    site.deploy()
    wait_for("draining", lambda: "DRAIN" in site.slurm.door.fetch_node(NODE).states)
    assert wait_for_state(site, job, "RUNNING")
    assert site.slurm.instances()[NODE] == before
    (site.root / "go-on").touch()
    wait_for("the end of the instance", lambda: NODE not in site.slurm.instances())
    job = submit(site, "true")
    wait_for_state(site, job, "COMPLETED")
    assert site.slurm.instances()[NODE] != before
    assert site.image_of(NODE) == NEW
    assert [i["ImageId"] for i in site.instances()] == [NEW]


def test_a_node_whose_instance_is_terminated_loses_its_job_which_is_requeued(
    site: Rehearsal,
) -> None:
    job = submit(site, "sleep 600")
    wait_for_state(site, job, "RUNNING")
    before = site.slurm.instances()[NODE]
    site.client("ec2").terminate_instances(InstanceIds=[before])
    wait_for("another", lambda: site.slurm.instances().get(NODE, before) != before, seconds=120)
    wait_for_state(site, job, "RUNNING")
    site.slurm.door.cancel(job)


def test_terminate_ends_nodes_at_once_and_requeues_their_jobs(site: Rehearsal) -> None:
    job = submit(site, "sleep 600")
    wait_for_state(site, job, "RUNNING")
    before = site.slurm.instances()[NODE]
    replace(site, "eco.yaml", "QueueUpdateStrategy: DRAIN", "QueueUpdateStrategy: TERMINATE")
    set_image(site, "eco.yaml", "eco", OLD)
    site.deploy()
    wait_for("another", lambda: site.slurm.instances().get(NODE, before) != before, seconds=120)
    assert site.image_of(NODE) == OLD
    wait_for_state(site, job, "RUNNING")
    site.slurm.door.cancel(job)


def test_a_spot_queue_has_spot_instances(site: Rehearsal) -> None:
    site.slurm.door.submit("sleep 600", "--partition=spot")
    node = "spot-dy-s8c32g-1"
    wait_for("an instance", lambda: node in site.slurm.instances())
    wanted = site.slurm.instances()[node]
    [spot] = [i for i in site.instances() if i["InstanceId"] == wanted]
    assert spot["InstanceLifecycle"] == "spot"


def test_a_login_pool_has_as_many_instances_as_its_count(site: Rehearsal) -> None:
    [before] = site.instances("LoginNode", "ws-eco-login")
    assert before["ImageId"] == OLD
    replace(site, "eco-login.yaml", " Count: 1\n", " Count: 0\n")
    site.deploy()
    assert site.instances("LoginNode", "ws-eco-login") == []
    replace(site, "eco-login.yaml", " Count: 0\n", " Count: 1\n")
    set_image(site, "eco-login.yaml", "login", NEW)
    site.deploy()
    [after] = site.instances("LoginNode", "ws-eco-login")
    tags = {tag["Key"]: tag["Value"] for tag in after["Tags"]}
    assert after["ImageId"] == NEW
    assert tags["parallelcluster:login-nodes-pool"] == "login"


def test_the_end_of_a_slurm_ends_its_instances(site: Rehearsal) -> None:
    assert site.instances()
    site.slurm.stop(site.slurm.folder)
    assert site.instances() == []


def test_a_cluster_that_is_not_deployed_is_told(site: Rehearsal) -> None:
    site.client("ec2").terminate_instances(
        InstanceIds=[i["InstanceId"] for i in site.instances("HeadNode", "ws-eco-login")]
    )
    with (
        pytest.raises(ClusterboxError, match="no head node of ws-eco-login runs"),
        join_slurm(site.root, site.account, "ws-eco-login"),
    ):
        pass


def test_the_queues_of_a_change_set_are_those_of_the_queue_update_strategy() -> None:
    def change(parameter: str, policy: str) -> dict[str, str]:
        return {"parameter": parameter, "updatePolicy": policy}

    strategy = "QUEUE_UPDATE_STRATEGY"
    changes = [
        change("Scheduling.SlurmQueues[b].Image.CustomAmi", strategy),
        change("Scheduling.SlurmQueues[a].ComputeResources[c].MaxCount", "SUPPORTED"),
        change("Scheduling.SlurmQueues[b].ComputeResources[d].InstanceType", strategy),
        change("HeadNode.Ssh.KeyName", "UNSUPPORTED"),
    ]
    assert changed_queues({"changeSet": changes}) == ["b"]
    assert changed_queues({}) == []


def test_mounts_are_named_by_what_is_mounted() -> None:
    storage = [
        {
            "Name": "a",
            "StorageType": "Efs",
            "MountDir": "/a",
            "EfsSettings": {"FileSystemId": "fs-1"},
        },
        {"Name": "b", "StorageType": "Ebs", "MountDir": "/b"},
    ]
    assert mounts({"SharedStorage": storage}) == {"/a": "fs-1", "/b": "b"}
    assert mounts({}) == {}
