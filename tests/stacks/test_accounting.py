"""The server of Slurm's accounting databases."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from stacks import build_app
from tests.conftest import Templates
from tests.deployment.conftest import copy_repository
from tests.stacks.resources import each, only

STACK = "sandbox-accounting"
CLUSTER = "sandbox-cluster-sandbox-economy-hpc"
SECRET = "arn:aws:secretsmanager:us-west-2:427491229895:secret:slurm-AbCdEf"
KEY = "arn:aws:kms:us-west-2:427491229895:key/0a1b"


def server(sandbox: Templates) -> dict[str, Any]:
    found: dict[str, Any] = only(sandbox[STACK], "AWS::RDS::DBCluster")["Properties"]
    return found


def test_the_server_is_encrypted_protected_and_backed_up(sandbox: Templates) -> None:
    found = server(sandbox)
    assert found["StorageEncrypted"] is True
    assert "Fn::ImportValue" in found["KmsKeyId"]
    assert found["DeletionProtection"] is True
    assert found["BackupRetentionPeriod"] == 35
    writer = only(sandbox[STACK], "AWS::RDS::DBInstance")["Properties"]
    assert writer["PubliclyAccessible"] is False
    assert writer["DBInstanceClass"] == "db.serverless"


def test_the_server_refuses_clients_without_tls(sandbox: Templates) -> None:
    parameters = only(sandbox[STACK], "AWS::RDS::DBClusterParameterGroup")
    assert parameters["Properties"]["Parameters"]["require_secure_transport"] == "ON"
    assert server(sandbox)["DBClusterParameterGroupName"] == {"Ref": "Parameters"}


def test_the_server_may_stand_in_two_zones(sandbox: Templates) -> None:
    subnets = only(sandbox[STACK], "AWS::RDS::DBSubnetGroup")["Properties"]["SubnetIds"]
    assert len({json.dumps(subnet) for subnet in subnets}) == 2


def test_the_password_is_the_whole_text_of_its_secret_and_stands_in_no_template(
    sandbox: Templates,
) -> None:
    secret = only(sandbox[STACK], "AWS::SecretsManager::Secret")["Properties"]
    # ParallelCluster takes the text for the password: no JSON, and nothing that ends a setting.
    assert secret["GenerateSecretString"] == {"ExcludePunctuation": True, "PasswordLength": 40}
    assert "Fn::ImportValue" in secret["KmsKeyId"]
    assert server(sandbox)["MasterUserPassword"] == {
        "Fn::Join": [
            "",
            [
                "{{resolve:secretsmanager:",
                {"Fn::GetAtt": ["Password", "Id"]},
                ":SecretString}}",
            ],
        ]
    }


def test_nothing_but_head_nodes_reaches_the_server(sandbox: Templates) -> None:
    (rule,) = [
        rule["Properties"]
        for _, _, rule in each({STACK: sandbox[STACK]}, "AWS::EC2::SecurityGroupIngress")
    ]
    assert rule["GroupId"]["Fn::GetAtt"][0].startswith("Server")
    assert rule["SourceSecurityGroupId"]["Fn::GetAtt"][0].startswith("Clients")
    assert (rule["FromPort"], rule["ToPort"], rule["IpProtocol"]) == (3306, 3306, "tcp")
    for _, _, group in each({STACK: sandbox[STACK]}, "AWS::EC2::SecurityGroup"):
        assert "SecurityGroupIngress" not in group["Properties"]
    config = configuration(sandbox)
    assert len(config["HeadNode"]["Networking"]["SecurityGroups"]) == 3
    for queue in config["Scheduling"]["SlurmQueues"]:
        assert len(queue["Networking"]["SecurityGroups"]) == 1


def configuration(sandbox: Templates) -> dict[str, Any]:
    cluster = only(sandbox[CLUSTER], "Custom::PclusterCluster")["Properties"]
    found: dict[str, Any] = cluster["ClusterConfiguration"]
    return found


def test_the_cluster_has_its_database_and_runs_its_limits(sandbox: Templates) -> None:
    config = configuration(sandbox)
    database = config["Scheduling"]["SlurmSettings"]["Database"]
    assert database["UserName"] == "slurm"
    assert database["Uri"]["Fn::Join"][1][1] == ":3306"
    assert "Fn::ImportValue" in database["PasswordSecretArn"]
    script = (
        "s3://sandbox-123456789012-parallelcluster/parallelcluster/limits/sandbox-economy-hpc.sh"
    )
    actions = config["HeadNode"]["CustomActions"]
    assert actions["OnNodeConfigured"] == {"Script": script}
    assert actions["OnNodeUpdated"]["Script"] == script
    # Another budget is another argument, and so an update of the cluster that runs the script.
    (revision,) = actions["OnNodeUpdated"]["Args"]
    assert len(revision) == 12


def statements(template: Mapping[str, Any], prefix: str) -> dict[str, dict[str, Any]]:
    return {
        statement["Sid"]: statement
        for logical_id, policy in template["Resources"].items()
        if policy["Type"] == "AWS::IAM::ManagedPolicy" and logical_id.startswith(prefix)
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
    }


def test_the_head_node_reads_the_password_and_uses_the_key_for_that_alone(
    sandbox: Templates,
) -> None:
    found = statements(sandbox[CLUSTER], "HeadNodePolicy")
    config = configuration(sandbox)
    secret = config["Scheduling"]["SlurmSettings"]["Database"]["PasswordSecretArn"]
    assert found["ReadSecrets"]["Action"] == "secretsmanager:GetSecretValue"
    assert found["ReadSecrets"]["Resource"] == secret
    assert found["SecretKeys"]["Action"] == "kms:Decrypt"
    assert found["SecretKeys"]["Condition"] == {
        "StringEquals": {"kms:ViaService": "secretsmanager.us-west-2.amazonaws.com"}
    }
    for role in ("ComputePolicy", "LoginPolicy"):
        assert "secretsmanager" not in json.dumps(statements(sandbox[CLUSTER], role))


def test_the_provider_looks_whether_the_secret_exists_and_cannot_read_it(
    sandbox: Templates,
) -> None:
    found = statements(sandbox["sandbox-identity"], "ProviderPolicy")["AccountingSecret"]
    assert found["Action"] == "secretsmanager:DescribeSecret"
    assert found["Resource"] == (
        "arn:aws:secretsmanager:us-west-2:123456789012:secret:clusterbox-sandbox-accounting-??????"
    )


def test_who_deploys_may_leave_limits_for_head_nodes_and_nothing_else(sandbox: Templates) -> None:
    found = statements(sandbox["sandbox-identity"], "GitHubDeployPolicy")["LimitScripts"]
    assert found["Action"] == ["s3:GetObject", "s3:PutObject"]
    folder = "arn:aws:s3:::sandbox-123456789012-parallelcluster/parallelcluster/limits"
    assert found["Resource"] == [
        f"{folder}/sandbox-eco.sh",
        f"{folder}/sandbox-economy-hpc.sh",
    ]
    assert "LimitScripts" not in statements(sandbox["sandbox-identity"], "GitHubReadOnlyPolicy")


def test_the_admin_box_runs_commands_on_head_nodes_of_the_site_alone(sandbox: Templates) -> None:
    found = {
        sid: statement
        for sid, statement in statements(sandbox["sandbox-admin"], "").items()
        if "ssm:SendCommand" in statement["Action"]
    }
    assert sorted(found) == ["OnHeadNodes", "RunCommands"]
    assert found["RunCommands"]["Resource"] == (
        "arn:aws:ssm:us-west-2::document/AWS-RunShellScript"
    )
    assert found["OnHeadNodes"]["Condition"] == {
        "StringEquals": {
            "ssm:resourceTag/parallelcluster:cluster-name": ["sandbox-eco", "sandbox-economy-hpc"],
            "ssm:resourceTag/parallelcluster:node-type": "HeadNode",
        }
    }


def test_an_environment_without_the_section_has_no_server(ws_dev: Templates) -> None:
    assert "ws-dev-accounting" not in ws_dev
    assert list(each(ws_dev, "AWS::RDS::DBCluster")) == []


@pytest.fixture(scope="module")
def existing(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Templates:
    """Return the templates of ws-dev with a server that exists already."""
    folder = tmp_path_factory.mktemp("existing")
    copy = copy_repository(root, folder / "copy")
    with (copy / "environments" / "ws-dev.yaml").open("a", encoding="utf-8") as file:
        file.write(
            "\naccounting_database:\n"
            "  host: db.example.gov\n"
            "  port: 3307\n"
            f"  secret: {SECRET}\n"
            f"  secret_key: {KEY}\n"
            "  security_group: sg-00000001\n"
        )
    config = copy / "cluster_configs" / "eco.yaml"
    text = config.read_text(encoding="utf-8")
    database = (
        "    Database:\n"
        "      Uri: ${accounting.host}\n"
        "      UserName: ${accounting.user}\n"
        "      PasswordSecretArn: ${accounting.secret}\n"
    )
    config.write_text(text.replace("    Dns:\n", f"{database}    Dns:\n", 1), encoding="utf-8")
    build_app(copy, "ws-dev", outdir=folder / "out").synth()
    return {
        path.name.removesuffix(".template.json"): json.loads(path.read_text(encoding="utf-8"))
        for path in (folder / "out").glob("*.template.json")
    }


def test_a_server_that_exists_is_let_in_to_and_left_alone(existing: Templates) -> None:
    stack = existing["ws-dev-accounting"]
    kinds = {item["Type"] for item in stack["Resources"].values()}
    assert kinds - {"AWS::CDK::Metadata"} == {
        "AWS::EC2::SecurityGroup",
        "AWS::EC2::SecurityGroupIngress",
    }
    rule = only(stack, "AWS::EC2::SecurityGroupIngress")["Properties"]
    assert (rule["GroupId"], rule["FromPort"]) == ("sg-00000001", 3307)
    cluster = existing["ws-dev-cluster-ws-eco"]
    config = only(cluster, "Custom::PclusterCluster")["Properties"]["ClusterConfiguration"]
    assert config["Scheduling"]["SlurmSettings"]["Database"] == {
        "Uri": "db.example.gov:3307",
        "UserName": "slurm",
        "PasswordSecretArn": SECRET,
    }
    found = statements(cluster, "HeadNodePolicy")
    assert found["ReadSecrets"]["Resource"] == SECRET
    assert found["SecretKeys"]["Resource"] == KEY
