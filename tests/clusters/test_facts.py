from __future__ import annotations

import re
from pathlib import Path

import pytest

from clusterbox.clusters.composed import ComposedCluster, compose_environment, read_native
from clusterbox.clusters.facts import account_facts


def composed(root: Path, environment: str, cluster: str) -> ComposedCluster:
    return next(item for item in compose_environment(root, environment) if item.name == cluster)


@pytest.fixture
def native(tmp_path: Path) -> ComposedCluster:
    path = tmp_path / "native.yaml"
    path.write_text(
        "Region: eu-central-1\n"
        "HeadNode:\n"
        "  InstanceType: t3.medium\n"
        "  Networking: {SubnetId: subnet-00000001}\n"
        "Scheduling:\n"
        "  SlurmQueues:\n"
        "    - Networking: {SubnetIds: [subnet-00000002]}\n"
        "      ComputeResources: [{InstanceType: c6i.large}]\n"
        "Iam: {PermissionsBoundary: 'arn:aws:iam::210987654321:policy/b'}\n"
    )
    return read_native(path)


def test_a_native_configuration_states_nothing_but_where_it_is(native: ComposedCluster) -> None:
    facts = account_facts(native)
    assert facts["site"] is False
    assert (facts["account"], facts["region"], facts["partition"]) == (
        "210987654321",
        "eu-central-1",
        "aws",
    )
    assert facts["instance_types"] == ["c6i.large", "t3.medium"]
    assert facts["named_subnets"] == ["subnet-00000001", "subnet-00000002"]
    for stated in ("subnets", "security_groups", "images", "file_systems", "buckets", "policies"):
        assert not facts[stated]


def test_a_site_states_its_database_and_what_a_deployment_leaves_for_head_nodes(
    root: Path,
) -> None:
    cluster = composed(root, "sandbox", "sandbox-economy-hpc")
    facts = account_facts(cluster)
    settings = cluster.configuration["Scheduling"]["SlurmSettings"]["Database"]
    assert facts["secrets"] == [settings["PasswordSecretArn"]]
    script = cluster.configuration["HeadNode"]["CustomActions"]["OnNodeConfigured"]["Script"]
    assert facts["objects"] == [script.removeprefix("s3://")]
    groups = cluster.configuration["HeadNode"]["Networking"]["SecurityGroups"]
    assert set(groups) <= facts["security_groups"].keys()
    assert account_facts(composed(root, "ws-dev", "ws-eco"))["secrets"] == []


def test_a_site_states_its_network_and_images(root: Path) -> None:
    facts = account_facts(composed(root, "ws-dev", "ws-eco"))
    assert facts["vpc"] == {"id": "vpc-0c0ffee0000000001", "made_here": False}
    assert facts["subnets"] == {
        "subnet-08f1118dd59133513": {
            "cidr": "10.12.64.0/22",
            "zone": "us-west-2a",
            "public": False,
        }
    }
    assert facts["images"]["ami-067d504ae48dd3252"] == {
        "os": "alinux2023",
        "architecture": "x86_64",
        "parallelcluster_version": "3.16.1",
        "root_gib": 45,
    }
    assert facts["policies"] == [
        "arn:aws:iam::427491229895:policy/csr-Developer-Permissions-Boundary"
    ]
    assert "ws-dev-ws-eco-head-node" in facts["roles"]


def test_versioning_is_known_only_of_buckets_that_the_site_makes(root: Path) -> None:
    buckets = account_facts(composed(root, "ws-dev", "ws-eco"))["buckets"]
    assert buckets["ws-out"] == {"made_here": False}
    assert buckets["ws-dev-427491229895-logs"] == {"made_here": True}


def test_the_facts_are_those_that_are_documented(root: Path, native: ComposedCluster) -> None:
    rows = re.findall(r"^\s*\| (`.*?) \|", account_facts.__doc__ or "", re.MULTILINE)
    documented = set(re.findall(r"`(\w+)`", " ".join(rows)))
    for cluster in (native, composed(root, "sandbox", "sandbox-eco")):
        assert set(account_facts(cluster)) == documented


def test_the_rules_of_the_groups_are_those_of_the_stacks(
    root: Path, sandbox: dict[str, dict[str, object]]
) -> None:
    facts = account_facts(composed(root, "sandbox", "sandbox-eco"))
    resources = sandbox["sandbox-security"]["Resources"]
    assert isinstance(resources, dict)
    nfs = [
        item["Properties"]
        for item in resources.values()
        if item["Properties"].get("Description") in ("NFS from cluster", "NFS to cluster")
    ]
    made = {(rule["FromPort"], rule["ToPort"], rule["IpProtocol"]) for rule in nfs}
    (file_system,) = facts["file_systems"].values()
    group = facts["security_groups"][file_system["security_groups"][0]]
    stated = {
        (rule["FromPort"], rule["ToPort"], rule["IpProtocol"])
        for rule in group["inbound"] + group["outbound"]
    }
    assert len(nfs) == 2
    assert stated == made
