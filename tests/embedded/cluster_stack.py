"""A site with one cluster, and the stack that makes it, for the tests of the provider."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clusterbox.embedded.account import EmbeddedAccount
from clusterbox.embedded.provider.template import provider_objects

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
