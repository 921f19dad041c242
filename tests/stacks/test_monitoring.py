"""The machine that watches the site."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clusterbox.site import names
from stacks import build_app
from tests.conftest import Templates
from tests.deployment.conftest import copy_repository
from tests.stacks.resources import only

STACK = "sandbox-monitoring"
SECTION = """
monitoring:
  image: admin
  subnet: compute.a
  volume_gib: 80
  notify: [ada@example.gov, ben@example.gov]
"""


def synthesize(root: Path, folder: Path, section: str) -> Templates:
    copy = copy_repository(root, folder / "repository")
    path = copy / "environments" / "sandbox.yaml"
    path.write_text(path.read_text(encoding="utf-8") + section, encoding="utf-8")
    build_app(copy, "sandbox", outdir=folder / "out").synth()
    return {
        path.name.removesuffix(".template.json"): json.loads(path.read_text(encoding="utf-8"))
        for path in (folder / "out").glob("*.template.json")
    }


@pytest.fixture(scope="module")
def site(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Templates:
    return synthesize(root, tmp_path_factory.mktemp("monitoring"), SECTION)


@pytest.fixture(scope="module")
def managed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Templates:
    mail = "{server: 'smtp.example.gov:587', sender: hpc@example.gov, secret: smtp/alerts}"
    return synthesize(
        root, tmp_path_factory.mktemp("managed"), f"{SECTION}  managed: true\n  mail: {mail}\n"
    )


def every(template: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    found = template["Resources"].values()
    return [one["Properties"] for one in found if one["Type"] == kind]


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def statements(template: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        statement
        for policy in every(template, "AWS::IAM::ManagedPolicy")
        for statement in policy["PolicyDocument"]["Statement"]
    ]


def test_an_environment_without_the_section_has_no_such_stack(templates: Templates) -> None:
    assert not [name for name in templates if name.endswith("-monitoring")]


def test_the_machine_is_private_encrypted_and_takes_only_imds_v2(site: Templates) -> None:
    machine = only(site[STACK], "AWS::EC2::Instance")["Properties"]
    assert machine["NetworkInterfaces"][0]["AssociatePublicIpAddress"] is False
    assert machine["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
    template = only(site[STACK], "AWS::EC2::LaunchTemplate")["Properties"]
    assert template["LaunchTemplateData"]["MetadataOptions"]["HttpTokens"] == "required"
    assert "KeyName" not in machine


def test_the_data_is_on_an_encrypted_volume_of_which_a_snapshot_stays(site: Templates) -> None:
    volume = site[STACK]["Resources"]["Data"]
    assert volume["Properties"]["Encrypted"] is True
    assert volume["Properties"]["Size"] == 80
    assert volume["Properties"]["AvailabilityZone"] == "us-west-2a"
    assert "Fn::ImportValue" in volume["Properties"]["KmsKeyId"]
    assert volume["DeletionPolicy"] == volume["UpdateReplacePolicy"] == "Snapshot"


def test_nothing_comes_in_and_only_the_exporters_ports_of_nodes_are_asked(site: Templates) -> None:
    group = only(site[STACK], "AWS::EC2::SecurityGroup")["Properties"]
    assert "SecurityGroupIngress" not in group
    rules = every(site[STACK], "AWS::EC2::SecurityGroupIngress")
    ports = {(rule["FromPort"], rule["ToPort"]) for rule in rules}
    assert ports == {(port, port) for port in names.SCRAPE_PORTS.values()}
    assert len({json.dumps(rule["SourceSecurityGroupId"]) for rule in rules}) == 1
    assert all("CidrIp" not in rule for rule in rules)


def test_the_role_has_the_boundary_and_changes_no_machine(site: Templates) -> None:
    role = only(site[STACK], "AWS::IAM::Role")["Properties"]
    assert "clusterbox-sandbox-boundary" in json.dumps(role["PermissionsBoundary"])
    assert role["RoleName"] == "sandbox-monitoring"
    actions = {action for one in statements(site[STACK]) for action in listed(one["Action"])}
    assert {"ec2:Describe*", "sns:Publish", "secretsmanager:GetSecretValue"} <= actions
    changing = ("Create", "Delete", "Terminate", "Run", "Modify", "Put", "Stop", "Start")
    assert not [
        action
        for action in actions
        if action.partition(":")[2].startswith(changing)
        and not action.startswith(("ssmmessages:", "ec2messages:"))
    ]
    # On head nodes it would be root.
    assert "ssm:SendCommand" not in actions


def test_grafana_has_a_password_that_nobody_chose_and_stands_in_no_template(
    site: Templates,
) -> None:
    secret = only(site[STACK], "AWS::SecretsManager::Secret")["Properties"]
    assert secret["GenerateSecretString"] == {"ExcludePunctuation": True, "PasswordLength": 40}
    assert "Fn::ImportValue" in secret["KmsKeyId"]


def test_without_a_mail_server_the_topic_tells_people(site: Templates) -> None:
    subscribed = every(site[STACK], "AWS::SNS::Subscription")
    assert {one["Endpoint"] for one in subscribed} == {"ada@example.gov", "ben@example.gov"}
    topic = only(site[STACK], "AWS::SNS::Topic")["Properties"]
    assert "Fn::ImportValue" in topic["KmsMasterKeyId"]


def test_cloudwatch_tells_when_the_machine_that_watches_is_gone(site: Templates) -> None:
    alarm = only(site[STACK], "AWS::CloudWatch::Alarm")["Properties"]
    assert alarm["MetricName"] == "StatusCheckFailed"
    assert alarm["TreatMissingData"] == "breaching"
    (topic,) = [
        name for name, one in site[STACK]["Resources"].items() if one["Type"] == "AWS::SNS::Topic"
    ]
    assert alarm["AlarmActions"] == [{"Ref": topic}]


def test_no_managed_workspace_is_made_unless_it_is_asked_for(site: Templates) -> None:
    assert not every(site[STACK], "AWS::APS::Workspace")


def test_the_managed_workspace_is_encrypted_and_may_be_written_to_alone(
    managed: Templates,
) -> None:
    workspace = only(managed[STACK], "AWS::APS::Workspace")["Properties"]
    assert "Fn::ImportValue" in workspace["KmsKeyArn"]
    (write,) = [one for one in statements(managed[STACK]) if "aps:RemoteWrite" in one["Action"]]
    assert write["Action"] == "aps:RemoteWrite"
    assert write["Resource"] == {"Fn::GetAtt": ["Workspace", "Arn"]}
    user_data = json.dumps(only(managed[STACK], "AWS::EC2::Instance")["Properties"]["UserData"])
    assert "api/v1/remote_write" in user_data


def test_with_a_mail_server_nobody_is_subscribed_and_its_secret_is_read(
    managed: Templates,
) -> None:
    assert not every(managed[STACK], "AWS::SNS::Subscription")
    (read,) = [one for one in statements(managed[STACK]) if one["Sid"] == "MailPassword"]
    assert (
        read["Resource"]
        == "arn:aws:secretsmanager:us-west-2:123456789012:secret:smtp/alerts-??????"
    )
