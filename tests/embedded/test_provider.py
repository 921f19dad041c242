from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.exceptions import ClientError

from clusterbox.embedded.account import EmbeddedAccount
from clusterbox.embedded.provider import function
from clusterbox.embedded.provider.template import provider_objects, provider_template

ACCOUNT = "427491229895"
REGION = "us-west-2"
SUBNET = "subnet-08f1118dd59133513"
GROUP = "sg-06842c1ea45eb2039"
IMAGE = "ami-067d504ae48dd3252"
TEMPLATE_URL = (
    f"https://{REGION}-aws-parallelcluster.s3.{REGION}.amazonaws.com/parallelcluster/3.16.1"
    "/templates/custom_resource/cluster.yaml"
)
SETTLE_SECONDS = 60.0

ROOT = Path(__file__).parents[2]
PCLUSTER_PYTHON = Path(
    os.environ.get("CLUSTERBOX_PCLUSTER_PYTHON", ROOT / ".venv-pcluster" / "bin" / "python")
)
NODE = os.environ.get("JSII_NODE") or shutil.which(
    "node", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
)

needs_pcluster = pytest.mark.skipif(
    not PCLUSTER_PYTHON.is_file() or NODE is None,
    reason="needs ParallelCluster's environment (CLUSTERBOX_PCLUSTER_PYTHON) and Node",
)

SEED = {
    "vpcs": [{"id": "vpc-0a1b2c3d4e5f60718", "cidr": "10.12.64.0/21"}],
    "subnets": [
        {
            "id": SUBNET,
            "vpc_id": "vpc-0a1b2c3d4e5f60718",
            "cidr": "10.12.64.0/22",
            "availability_zone": "us-west-2a",
        }
    ],
    "security_groups": [
        {
            "id": GROUP,
            "vpc_id": "vpc-0a1b2c3d4e5f60718",
            "name": "nodes",
            "description": "cluster nodes",
            "ingress": [{"protocol": "-1", "source_group": GROUP}],
        }
    ],
    "key_pairs": ["site"],
    "roles": [
        *({"name": n, "service": "ec2.amazonaws.com"} for n in ("head", "login", "compute")),
        {"name": "provider", "service": "lambda.amazonaws.com"},
    ],
    "buckets": ["site-clusters"],
    "images": [
        {
            "id": IMAGE,
            "name": "site-image",
            "os": "alinux2023",
            "architecture": "x86_64",
            "root_gib": 45,
            "tags": {
                "parallelcluster:version": "3.16.1",
                "parallelcluster:os": "alinux2023",
                "parallelcluster:build_status": "available",
            },
        }
    ],
    "file_systems": [{"id": "fs-0123456789abcdef0", "security_group": GROUP, "subnets": [SUBNET]}],
    "objects": provider_objects(REGION),
}


def role(name: str) -> dict[str, str]:
    return {"InstanceRole": f"arn:aws:iam::{ACCOUNT}:role/{name}"}


NETWORK = {"SubnetIds": [SUBNET], "SecurityGroups": [GROUP]}
CONFIGURATION: dict[str, Any] = {
    "Region": REGION,
    "CustomS3Bucket": "site-clusters",
    "Image": {"Os": "alinux2023", "CustomAmi": IMAGE},
    "Tags": [{"Key": "cost", "Value": "LC-1"}],
    "HeadNode": {
        "InstanceType": "t3.medium",
        "Networking": {"SubnetId": SUBNET, "SecurityGroups": [GROUP]},
        "Ssh": {"KeyName": "site"},
        "LocalStorage": {"RootVolume": {"Size": 60, "Encrypted": True}},
        "Imds": {"Secured": True},
        "Iam": role("head"),
    },
    "LoginNodes": {
        "Pools": [
            {
                "Name": "login",
                "InstanceType": "t3.medium",
                "Count": 1,
                "Networking": NETWORK,
                "Iam": role("login"),
            }
        ]
    },
    "Scheduling": {
        "Scheduler": "slurm",
        "SlurmSettings": {"QueueUpdateStrategy": "DRAIN"},
        "SlurmQueues": [
            {
                "Name": "cpu",
                "ComputeResources": [
                    {"Name": "c5", "InstanceType": "c5.xlarge", "MinCount": 0, "MaxCount": 4}
                ],
                "Networking": NETWORK,
                "Iam": role("compute"),
            }
        ],
    },
    "SharedStorage": [
        {
            "Name": "home",
            "MountDir": "/shared",
            "StorageType": "Efs",
            "EfsSettings": {"FileSystemId": "fs-0123456789abcdef0", "EncryptionInTransit": True},
        }
    ],
    "Imds": {"ImdsSupport": "v2.0"},
}


def changed(*path: str | int, to: object) -> dict[str, Any]:
    """Return the configuration with the value at one path replaced."""
    configuration = deepcopy(CONFIGURATION)
    place: Any = configuration
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = to
    return configuration


def with_max_count(count: int) -> dict[str, Any]:
    path = ("Scheduling", "SlurmQueues", 0, "ComputeResources", 0, "MaxCount")
    return changed(*path, to=count)


@dataclass(frozen=True)
class ClusterStack:
    """A stack with the provider and one cluster in it, as the cluster stacks have them."""

    account: EmbeddedAccount
    name: str = "site-ws"

    def deploy(self, configuration: dict[str, Any], **properties: str) -> str:
        """Create or update the stack; return the status it settles in."""
        client = self.account.client("cloudformation")
        attributes = ("headNode.privateIpAddress", "headNode.instanceId", "clusterStatus")
        template = {
            "Resources": {
                "Provider": {
                    "Type": "AWS::CloudFormation::Stack",
                    "Properties": {
                        "TemplateURL": TEMPLATE_URL,
                        "Parameters": {"CustomLambdaRole": f"arn:aws:iam::{ACCOUNT}:role/provider"},
                    },
                },
                "Cluster": {
                    "Type": "Custom::PclusterCluster",
                    "Properties": {
                        "ServiceToken": {"Fn::GetAtt": ["Provider", "Outputs.ServiceToken"]},
                        "ClusterName": "ws",
                        "ClusterConfiguration": configuration,
                        "DeletionPolicy": "Delete",
                        **properties,
                    },
                },
            },
            "Outputs": {
                name.replace(".", ""): {"Value": {"Fn::GetAtt": ["Cluster", name]}}
                for name in attributes
            },
        }
        asked = {
            "StackName": self.name,
            "TemplateBody": json.dumps(template),
            "Tags": [{"Key": "project", "Value": "hpc"}],
        }
        try:
            client.create_stack(**asked)
        except client.exceptions.AlreadyExistsException:
            client.update_stack(**asked)
        return self.settled(self.name)

    def delete(self) -> str:
        client = self.account.client("cloudformation")
        stack_id = client.describe_stacks(StackName=self.name)["Stacks"][0]["StackId"]
        client.delete_stack(StackName=self.name)
        return self.settled(stack_id)

    def settled(self, name: str) -> str:
        client = self.account.client("cloudformation")
        end = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < end:
            status = str(client.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"])
            if not status.endswith("_IN_PROGRESS"):
                return status
            time.sleep(0.1)
        raise AssertionError(f"{name} is still {status}")

    def outputs(self) -> dict[str, str]:
        client = self.account.client("cloudformation")
        stack = client.describe_stacks(StackName=self.name)["Stacks"][0]
        return {o["OutputKey"]: o["OutputValue"] for o in stack["Outputs"]}

    def reason(self) -> str:
        """Return why the cluster failed last."""
        client = self.account.client("cloudformation")
        events = client.describe_stack_events(StackName=self.name)["StackEvents"]
        failed = [
            e["ResourceStatusReason"]
            for e in events
            if e["LogicalResourceId"] == "Cluster" and e["ResourceStatus"].endswith("_FAILED")
        ]
        return str(failed[0])


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


def test_template_says_that_it_is_a_stand_in_and_has_the_official_interface() -> None:
    template = json.loads(provider_template())
    assert "STAND-IN" in template["Description"]
    assert set(template["Parameters"]) == {
        "CustomLambdaRole",
        "AdditionalIamPolicies",
        "CustomBucket",
    }
    assert set(template["Outputs"]) == {"ServiceToken", "LogGroupArn", "LambdaLayerArn"}


def test_template_is_published_where_the_cluster_stacks_look_for_it() -> None:
    published = {
        f"https://{o['bucket']}.s3.{REGION}.amazonaws.com/{o['key']}"
        for o in provider_objects(REGION)
    }
    assert TEMPLATE_URL in published


def event(kind: str, **properties: object) -> dict[str, Any]:
    given = {"ServiceToken": "arn", "ClusterName": "ws", **properties}
    return {"RequestType": kind, "PhysicalResourceId": "ws", "ResourceProperties": given}


def test_retained_cluster_is_deleted_without_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLUSTERBOX_PCLUSTER_PYTHON", raising=False)
    assert function.serve(event("Delete", DeletionPolicy="Retain")) == {}


def test_missing_environment_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLUSTERBOX_PCLUSTER_PYTHON", raising=False)
    with pytest.raises(function.RefusedError, match=r"make setup.*\.venv-pcluster"):
        function.serve(event("Delete"))


def test_deletion_policy_has_two_values() -> None:
    with pytest.raises(function.RefusedError, match=r'one of \["Retain", "Delete"\]'):
        function.serve(event("Delete", DeletionPolicy="Snapshot"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ClusterConfiguration": {}, "ClusterName": "other"}, "Cannot update the ClusterName"),
        ({}, "Couldn't find a ClusterConfiguration"),
    ],
)
def test_update_without_its_properties_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(function.RefusedError, match=message):
        function.serve(event("Update", **given))


def test_stack_tags_come_first_and_the_configurations_own_win() -> None:
    own = {"Tags": [{"Key": "cost", "Value": "mine"}], "Region": "us-west-2"}
    stack = [{"Key": "project", "Value": "hpc"}, {"Key": "cost", "Value": "stack"}]
    assert function.with_tags(own, stack) == {
        "Region": "us-west-2",
        "Tags": [
            {"Key": "project", "Value": "hpc"},
            {"Key": "cost", "Value": "mine"},
            {"Key": "parallelcluster:custom_resource", "Value": "cluster"},
        ],
    }


def test_attributes_are_the_described_cluster_flattened() -> None:
    cluster = {
        "clusterName": "ws",
        "headNode": {"privateIpAddress": "10.12.64.5"},
        "failures": [{"failureCode": "X"}],
        "tags": [{"key": "a"}],
        "scheduler": {"type": "slurm"},
        "clusterConfiguration": {"url": "u"},
    }
    assert function.attributes({"cluster": cluster, "validationMessages": []}) == {
        "clusterName": "ws",
        "headNode.privateIpAddress": "10.12.64.5",
        "failures.0.failureCode": "X",
        "validationMessages": "[]",
    }


def test_response_cloudformation_would_refuse_becomes_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[dict[str, Any]] = []

    class Answered:
        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    def urlopen(request: Any, timeout: float) -> Answered:
        sent.append(json.loads(request.data))
        return Answered()

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    asked = {
        **event("Create"),
        "StackId": "arn:stack",
        "RequestId": "r",
        "LogicalResourceId": "Cluster",
        "ResponseURL": "http://localhost/answer",
    }
    function.respond(asked, "SUCCESS", data={"long": "x" * 4096})
    assert sent[0]["Status"] == "FAILED"
    assert sent[0]["Reason"].startswith("Response object is too long")
