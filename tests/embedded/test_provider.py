from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.exceptions import ClientError

from clusterbox.embedded.account import EmbeddedAccount
from tests.embedded.cluster_stack import (
    ACCOUNT,
    CONFIGURATION,
    IMAGE,
    NODE,
    PCLUSTER_PYTHON,
    REGION,
    SEED,
    SUBNET,
    ClusterStack,
    changed,
    needs_pcluster,
    with_max_count,
)


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedAccount]:
    state_dir = tmp_path_factory.mktemp("provider")
    started = EmbeddedAccount.start(
        state_dir,
        account=ACCOUNT,
        region=REGION,
        extra_env={
            "CLUSTERBOX_PCLUSTER_PYTHON": str(PCLUSTER_PYTHON),
            "JSII_NODE": NODE or "",
        },
    )
    started.seed(SEED)
    started.client("ec2").modify_vpc_attribute(
        VpcId="vpc-0a1b2c3d4e5f60718", EnableDnsHostnames={"Value": True}
    )
    yield started
    EmbeddedAccount.stop(state_dir)


@pytest.fixture(scope="module")
def cluster(account: EmbeddedAccount) -> ClusterStack:
    """One created cluster; the tests below change it, in their order."""
    stack = ClusterStack(account)
    status = stack.deploy(CONFIGURATION)
    assert status == "CREATE_COMPLETE", stack.reason()
    return stack


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the command keeps its log."""
    return tmp_path_factory.mktemp("home")


def pcluster(account: EmbeddedAccount, home: Path, *words: str) -> dict[str, Any]:
    """Run the unmodified command and return what it prints."""
    endpoint = f"http://127.0.0.1:{account.port}"
    done = subprocess.run(
        [PCLUSTER_PYTHON, "-m", "pcluster.cli.entrypoint", *words],
        env=account.process_environment()
        | {"AWS_ENDPOINT_URL": endpoint, "HOME": str(home), "JSII_NODE": NODE or "node"},
        capture_output=True,
        text=True,
        check=False,
    )
    answer: dict[str, Any] = json.loads(done.stdout or "{}")
    assert answer, done.stderr
    return answer


@needs_pcluster
@pytest.mark.integration
class TestCluster:
    def test_stack_answers_the_head_node_of_parallelclusters_own_stack(
        self, cluster: ClusterStack
    ) -> None:
        outputs = cluster.outputs()
        assert outputs["clusterStatus"] == "CREATE_COMPLETE"
        ec2 = cluster.account.client("ec2")
        found = ec2.describe_instances(InstanceIds=[outputs["headNodeinstanceId"]])
        head_node = found["Reservations"][0]["Instances"][0]
        assert head_node["PrivateIpAddress"] == outputs["headNodeprivateIpAddress"]
        assert (head_node["SubnetId"], head_node["ImageId"]) == (SUBNET, IMAGE)
        tags = {tag["Key"]: tag["Value"] for tag in head_node["Tags"]}
        assert tags["parallelcluster:node-type"] == "HeadNode"
        assert tags["parallelcluster:cluster-name"] == "ws"
        assert (tags["project"], tags["cost"]) == ("hpc", "LC-1")

    def test_command_lists_one_cluster_and_none_of_its_nested_stacks(
        self, cluster: ClusterStack, home: Path
    ) -> None:
        clusters = pcluster(cluster.account, home, "list-clusters")["clusters"]
        assert [c["clusterName"] for c in clusters] == ["ws"]

    def test_command_describes_head_node_login_nodes_and_fleet(
        self, cluster: ClusterStack, home: Path
    ) -> None:
        described = pcluster(cluster.account, home, "describe-cluster", "-n", "ws")
        address = cluster.outputs()["headNodeprivateIpAddress"]
        assert described["headNode"]["privateIpAddress"] == address
        assert "publicIpAddress" not in described["headNode"]
        assert described["computeFleetStatus"] == "RUNNING"
        assert described["loginNodes"][0]["healthyNodes"] == 1
        tags = [(tag["key"], tag["value"]) for tag in described["tags"]]
        assert tags[:3] == [
            ("project", "hpc"),
            ("cost", "LC-1"),
            ("parallelcluster:custom_resource", "cluster"),
        ]

    def test_configuration_that_did_not_change_is_a_success(self, cluster: ClusterStack) -> None:
        assert cluster.deploy(CONFIGURATION, DeletionPolicy="Retain") == "UPDATE_COMPLETE"
        assert cluster.outputs()["clusterStatus"] == "CREATE_COMPLETE"

    def test_change_that_needs_no_stop_is_made(self, cluster: ClusterStack, home: Path) -> None:
        assert cluster.deploy(with_max_count(10)) == "UPDATE_COMPLETE"
        assert cluster.outputs()["clusterStatus"] == "UPDATE_COMPLETE"
        described = pcluster(cluster.account, home, "describe-cluster", "-n", "ws")
        assert described["clusterStatus"] == "UPDATE_COMPLETE"

    def test_change_parallelcluster_refuses_is_rolled_back_with_its_reason(
        self, cluster: ClusterStack
    ) -> None:
        refused = with_max_count(10)
        refused["HeadNode"]["InstanceType"] = "t3.large"
        assert cluster.deploy(refused) == "UPDATE_ROLLBACK_COMPLETE"
        reason = json.loads(cluster.reason())
        assert reason["message"] == "Update failure"
        error = reason["updateValidationErrors"][0]
        assert error["parameter"] == "HeadNode.InstanceType"
        assert (error["currentValue"], error["requestedValue"]) == ("t3.medium", "t3.large")
        assert "not currently supported" in error["message"]

    def test_other_name_is_refused(self, cluster: ClusterStack) -> None:
        status = cluster.deploy(with_max_count(10), ClusterName="other")
        assert status == "UPDATE_ROLLBACK_COMPLETE"
        assert cluster.reason() == "Cannot update the ClusterName in the properties."

    def test_further_property_is_refused_by_the_library(self, cluster: ClusterStack) -> None:
        status = cluster.deploy(with_max_count(10), ServiceTimeout="300")
        assert status == "UPDATE_ROLLBACK_COMPLETE"
        assert "unexpected arguments: {'service_timeout'}" in cluster.reason()

    def test_stopped_fleet_lets_the_command_make_a_queue_smaller(
        self, cluster: ClusterStack, home: Path, tmp_path: Path
    ) -> None:
        account, fleet = cluster.account, ("update-compute-fleet", "-n", "ws", "--status")
        described = pcluster(account, home, "describe-cluster", "-n", "ws")
        # The stack's values arrive as text, and the library takes 60 for a change of "60": an
        # update by command has to start from the configuration that the cluster has.
        url = described["clusterConfiguration"]["url"]
        with urllib.request.urlopen(url) as answer:  # noqa: S310 - the account's own address
            smaller = yaml.safe_load(answer.read())
        smaller["Scheduling"]["SlurmQueues"][0]["ComputeResources"][0]["MaxCount"] = "2"
        file = tmp_path / "smaller.yaml"
        file.write_text(yaml.safe_dump(smaller))
        update = ("update-cluster", "-n", "ws", "-c", str(file))
        refusal = pcluster(account, home, *update)
        assert "Stop the compute fleet" in refusal["updateValidationErrors"][0]["message"]
        assert pcluster(account, home, *fleet, "STOP_REQUESTED")["status"] == "STOPPED"
        assert pcluster(account, home, *update)["cluster"]["clusterStatus"] == "UPDATE_IN_PROGRESS"
        assert cluster.settled("ws") == "UPDATE_COMPLETE"

    def test_retained_cluster_outlives_its_stack_until_the_command_deletes_it(
        self, cluster: ClusterStack, home: Path
    ) -> None:
        account = cluster.account
        assert cluster.deploy(with_max_count(2), DeletionPolicy="Retain") == "UPDATE_COMPLETE"
        assert cluster.delete() == "DELETE_COMPLETE"
        described = pcluster(account, home, "describe-cluster", "-n", "ws")
        assert described["headNode"]["state"] == "running"
        deleting = pcluster(account, home, "delete-cluster", "-n", "ws")
        assert deleting["cluster"]["clusterStatus"] == "DELETE_IN_PROGRESS"
        assert cluster.settled(described["cloudformationStackArn"]) == "DELETE_COMPLETE"
        found = account.client("ec2").describe_instances(
            Filters=[{"Name": "tag:parallelcluster:cluster-name", "Values": ["ws"]}]
        )
        states = {i["State"]["Name"] for r in found["Reservations"] for i in r["Instances"]}
        assert states <= {"terminated"}
        with pytest.raises(ClientError, match="does not exist"):
            account.client("cloudformation").describe_stacks(StackName="ws")


@needs_pcluster
@pytest.mark.integration
class TestRefusedCreation:
    def test_every_schema_error_is_in_the_reason_with_its_path(
        self, account: EmbeddedAccount
    ) -> None:
        stack = ClusterStack(account, "site-schema")
        wrong = deepcopy(CONFIGURATION)
        wrong["HeadNode"]["Instancetype"] = "t3.medium"
        wrong["Scheduling"]["SlurmQueues"][0]["ComputeResources"][0]["MaxCount"] = "many"
        status = stack.deploy(wrong, ClusterName="schema")
        assert status == "ROLLBACK_COMPLETE"
        reason = stack.reason()
        assert "HeadNode" in reason
        assert "Instancetype" in reason
        assert "MaxCount" in reason
        assert "Not a valid integer" in reason

    def test_validators_refuse_an_instance_type_that_does_not_exist(
        self, account: EmbeddedAccount
    ) -> None:
        stack = ClusterStack(account, "site-type")
        wrong = changed("HeadNode", "InstanceType", to="t3.humongous")
        assert stack.deploy(wrong, ClusterName="type") == "ROLLBACK_COMPLETE"
        assert "t3.humongous" in stack.reason()

    def test_validators_know_what_an_instance_type_can(self, account: EmbeddedAccount) -> None:
        (described,) = account.client("ec2").describe_instance_types(InstanceTypes=["c5.xlarge"])[
            "InstanceTypes"
        ]
        assert described["VCpuInfo"]["DefaultVCpus"] == 4
        assert described["MemoryInfo"]["SizeInMiB"] == 8192
        assert described["NetworkInfo"]["EfaSupported"] is False
        stack = ClusterStack(account, "site-efa")
        wrong = deepcopy(CONFIGURATION)
        resource = wrong["Scheduling"]["SlurmQueues"][0]["ComputeResources"][0]
        resource.update(InstanceType="c5.xlarge", Efa={"Enabled": True})
        assert stack.deploy(wrong, ClusterName="efa") == "ROLLBACK_COMPLETE"
        assert "c5.xlarge" in stack.reason()
        assert "EFA" in stack.reason()

    def test_failure_of_the_clusters_own_stack_is_explained_and_leaves_nothing(
        self, account: EmbeddedAccount
    ) -> None:
        stack = ClusterStack(account, "site-key")
        wrong = changed("HeadNode", "Ssh", "KeyName", to="lost")
        # The validators would find it; without them the launch of the head node does.
        status = stack.deploy(wrong, ClusterName="key", SuppressValidators="ALL")
        assert status == "ROLLBACK_COMPLETE"
        assert "key is CREATE_FAILED" in stack.reason()
        assert "HeadNode: The key pair 'lost' does not exist" in stack.reason()
        assert stack.settled("key") == "ROLLBACK_COMPLETE"
