"""The stack of images: what is published, who may do what, and what is told."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from botocore import xform_name
from botocore.session import get_session

from clusterbox.site.image_definitions import bake_name
from clusterbox.site.load import Repository
from stacks import build_app
from stacks.permissions import patch_day
from tests.conftest import Templates
from tests.deployment.conftest import copy_repository
from tests.stacks.resources import Resource, each, only

ALARMS = {"Ref": "Alarms04B5A0BF"}
LETTERS = {"Fn::GetAtt": ["DeadLettersBBF8BAAB", "Arn"]}


def stack_of(templates: Templates) -> dict[str, Any]:
    """Return the template of the images stack."""
    (template,) = (each for name, each in templates.items() if name.endswith("-images"))
    return template


def statements(template: dict[str, Any], policy: str) -> dict[str, dict[str, Any]]:
    """Return the statements of the managed policies whose logical id starts so, by Sid."""
    return {
        statement["Sid"]: statement
        for _, logical_id, resource in each({"": template}, "AWS::IAM::ManagedPolicy")
        if re.match(rf"{policy}\d?[0-9A-F]{{8}}", logical_id)
        for statement in resource["Properties"]["PolicyDocument"]["Statement"]
    }


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@pytest.fixture(scope="module")
def variants(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Return the template of the stack for environments that ask for something else."""
    copy = copy_repository(root, tmp_path_factory.mktemp("variants") / "site")
    path = copy / "environments" / "ws-dev.yaml"
    text = path.read_text(encoding="utf-8")
    start = text.index("\npatch_day:\n")
    assert "\n  schedule:" in text[start:]
    asked = {
        "none": text[:start],
        "by-hand": re.sub(r"\n  schedule: .*", "", text),
        "gitlab": text + "  pipeline: gitlab\n  token_secret: ws-dev/trigger\n",
        "replace": text + "  head: replace\n",
    }
    found = {}
    for name, edited in asked.items():
        path.write_text(edited, encoding="utf-8")
        out = copy.parent / name
        build_app(copy, "ws-dev", outdir=out).synth()
        found[name] = json.loads((out / "ws-dev-images.template.json").read_text())
    return found


def test_the_locked_ids_are_published(root: Path, templates: Templates) -> None:
    (name,) = (stack.removesuffix("-images") for stack in templates if stack.endswith("-images"))
    repository = Repository(root)
    locked = repository.load_images(repository.load_environment(name))
    published = {
        item["Properties"]["Name"]: item["Properties"]["Value"]
        for _, _, item in each({"": stack_of(templates)}, "AWS::SSM::Parameter")
    }
    assert published == {
        f"/clusterbox/{name}/images/{image}": entry.ami for image, entry in locked.items()
    }


def test_the_verifier_reads_the_bundle_and_reaches_systems_manager_alone(
    ws_dev: Templates, sandbox: Templates
) -> None:
    found = statements(stack_of(ws_dev), "VerifyPolicy")
    assert set(found) == {"SessionManager", "Bundle"}
    assert found["Bundle"]["Resource"] == "arn:aws:s3:::dev-ws-parallelcluster-testbucket/images/*"
    assert found["Bundle"]["Action"] == "s3:GetObject"
    # A bucket that the site makes is encrypted with the site's key.
    assert "SiteKey" in statements(stack_of(sandbox), "VerifyPolicy")
    profile = only(stack_of(ws_dev), "AWS::IAM::InstanceProfile")["Properties"]
    assert (profile["InstanceProfileName"], profile["Path"]) == ("ws-dev-image-verify", "/ws/")


def test_without_a_patch_day_only_what_is_locked_and_the_verifier_are_there(
    variants: dict[str, dict[str, Any]],
) -> None:
    kinds = {item["Type"] for item in variants["none"]["Resources"].values()}
    assert kinds == {
        "AWS::IAM::InstanceProfile",
        "AWS::IAM::ManagedPolicy",
        "AWS::IAM::Role",
        "AWS::SSM::Parameter",
    }


def schedules(template: dict[str, Any]) -> dict[str, Resource]:
    """Return the schedules' properties by the start of their logical ids."""
    return {
        logical_id[:8]: item["Properties"]
        for _, logical_id, item in each({"": template}, "AWS::Scheduler::Schedule")
    }


def test_the_schedule_starts_the_project_in_the_site_s_time_zone(ws_dev: Templates) -> None:
    schedule = schedules(stack_of(ws_dev))["PatchDay"]
    assert schedule["ScheduleExpression"] == "cron(0 18 ? * 3#3 *)"
    assert schedule["ScheduleExpressionTimezone"] == "America/Denver"
    project = {"Fn::GetAtt": ["PatchDayProjectFD40FDC4", "Arn"]}
    assert schedule["Target"]["Arn"] == project
    assert schedule["Target"]["DeadLetterConfig"] == {"Arn": LETTERS}
    start = statements(stack_of(ws_dev), "PatchDayScheduleRolePolicy")["Start"]
    assert (start["Action"], start["Resource"]) == ("codebuild:StartBuild", project)


def test_who_starts_it_by_hand_has_the_project_and_no_schedule(
    variants: dict[str, dict[str, Any]],
) -> None:
    assert list(schedules(variants["by-hand"])) == ["AgeTwice"]
    assert only(variants["by-hand"], "AWS::CodeBuild::Project")


def test_the_project_runs_the_command_in_the_archive_of_the_last_deployment(
    ws_dev: Templates,
) -> None:
    project = only(stack_of(ws_dev), "AWS::CodeBuild::Project")["Properties"]
    (command,) = json.loads(project["Source"]["BuildSpec"])["phases"]["build"]["commands"]
    assert command == "bash stacks/image_functions/patch_day.sh"
    archive = "dev-ws-parallelcluster-testbucket/patch-day/ws-dev.zip"
    assert project["Source"]["Location"] == archive
    variables = {
        item["Name"]: item["Value"] for item in project["Environment"]["EnvironmentVariables"]
    }
    assert variables["CLUSTERBOX_RECORDS"] == "s3://ws-dev-427491229895-logs/patch-day/ws-dev"
    assert project["TimeoutInMinutes"] == 36 * 60
    # Two at a time would write one lock.
    assert project["ConcurrentBuildLimit"] == 1


def test_who_deploys_writes_the_archive_and_the_project_only_reads_it(ws_dev: Templates) -> None:
    archive = "arn:aws:s3:::dev-ws-parallelcluster-testbucket/patch-day/ws-dev.zip"
    found = run_statements(ws_dev)
    assert found["Source"]["Resource"] == archive
    assert "s3:PutObject" not in found["Source"]["Action"]
    writing = [
        resource
        for item in found.values()
        if "s3:PutObject" in listed(item["Action"])
        for resource in listed(item["Resource"])
    ]
    assert not [resource for resource in writing if fnmatchcase(archive, resource)]
    deploys = statements(ws_dev["ws-dev-identity"], "GitLabDeployPolicy")["PatchDaySource"]
    assert (deploys["Action"], deploys["Resource"]) == ("s3:PutObject", archive)


def test_a_change_of_a_cluster_is_none_of_this_stack(root: Path, tmp_path: Path) -> None:
    copy = copy_repository(root, tmp_path / "site")
    for number, count in enumerate(("MaxCount: 3", "MaxCount: 4")):
        path = copy / "cluster_configs" / "eco.yaml"
        path.write_text(path.read_text().replace("MaxCount: 3", count))
        build_app(copy, "ws-dev", outdir=tmp_path / str(number)).synth()
    before, after = (
        (tmp_path / str(number) / "ws-dev-images.template.json").read_text() for number in (0, 1)
    )
    assert before == after


def test_a_patch_day_that_fails_is_told(ws_dev: Templates) -> None:
    rule = only(stack_of(ws_dev), "AWS::Events::Rule")["Properties"]
    assert rule["EventPattern"]["detail"]["project-name"] == [{"Ref": "PatchDayProjectFD40FDC4"}]
    assert {"FAILED", "TIMED_OUT"} <= set(rule["EventPattern"]["detail"]["build-status"])
    assert [target["Arn"] for target in rule["Targets"]] == [ALARMS]


def test_an_old_image_is_told_and_so_is_one_that_nobody_knows_the_age_of(
    templates: Templates,
) -> None:
    template = stack_of(templates)
    alarms = [item["Properties"] for _, _, item in each({"": template}, "AWS::CloudWatch::Alarm")]
    assert all(alarm["AlarmActions"] == [ALARMS] for alarm in alarms)
    ages = [alarm for alarm in alarms if alarm.get("Namespace") == patch_day.METRICS]
    assert {alarm["Dimensions"][1]["Value"] for alarm in ages} == {"compute", "admin"}
    for alarm in ages:
        assert (alarm["MetricName"], alarm["Threshold"]) == ("AgeDays", 35)
        assert alarm["ComparisonOperator"] == "GreaterThanThreshold"
        assert alarm["TreatMissingData"] == "breaching"
    letters = [alarm for alarm in alarms if alarm not in ages]
    assert {alarm["Dimensions"][0]["Value"]["Fn::GetAtt"][0] for alarm in letters} == {
        LETTERS["Fn::GetAtt"][0]
    }


def test_the_function_measures_what_is_locked(templates: Templates) -> None:
    template = stack_of(templates)
    (function,) = (
        item["Properties"]
        for _, logical_id, item in each({"": template}, "AWS::Lambda::Function")
        if logical_id.startswith("AgeFunction")
    )
    locked = {
        item["Properties"]["Name"].rpartition("/")[2]: item["Properties"]["Value"]
        for _, _, item in each({"": template}, "AWS::SSM::Parameter")
    }
    variables = function["Environment"]["Variables"]
    assert json.loads(variables["CLUSTERBOX_IMAGES"]) == locked
    assert function["DeadLetterConfig"] == {"TargetArn": LETTERS}
    measure = statements(template, "AgeRolePolicy")["Measure"]
    assert measure["Condition"] == {
        "StringEquals": {"cloudwatch:namespace": variables["CLUSTERBOX_METRICS"]}
    }


def test_topics_logs_and_letters_are_encrypted_and_users_are_told_too(ws_dev: Templates) -> None:
    template = stack_of(ws_dev)
    for kind, key in (
        ("AWS::SNS::Topic", "KmsMasterKeyId"),
        ("AWS::SQS::Queue", "KmsMasterKeyId"),
        ("AWS::Logs::LogGroup", "KmsKeyId"),
        ("AWS::CodeBuild::Project", "EncryptionKey"),
    ):
        found = [item["Properties"] for _, _, item in each({"": template}, kind)]
        assert found
        assert all("Fn::ImportValue" in item[key] for item in found), kind
    told: dict[str, set[str]] = {}
    for _, _, item in each({"": template}, "AWS::SNS::Subscription"):
        properties = item["Properties"]
        told.setdefault(properties["TopicArn"]["Ref"], set()).add(properties["Endpoint"])
    topics = {
        logical_id: item["Properties"].get("TopicName")
        for _, logical_id, item in each({"": template}, "AWS::SNS::Topic")
    }
    assert {topics[topic]: addresses for topic, addresses in told.items()} == {
        "ws-dev-patch-day": {"ws-platform@lcnext.example.gov", "ws-users@lcnext.example.gov"},
        None: {"ws-platform@lcnext.example.gov"},
    }


def run_statements(templates: Templates) -> dict[str, dict[str, Any]]:
    """Return what a patch day may do, in CodeBuild or in a pipeline."""
    template = stack_of(templates)
    return statements(template, "PatchDayRolePolicy") or statements(
        template, "PatchDayGitHubRolePolicy"
    )


def test_a_patch_day_makes_no_role_and_passes_only_those_of_images(templates: Templates) -> None:
    found = run_statements(templates)
    actions = {action for item in found.values() for action in listed(item["Action"])}
    forbidden = re.compile(
        r"iam:(Attach|Put|Update|CreateRole|CreatePolicy|CreateUser|CreateAccess|DeleteRole)|"
        r"sts:(?!AssumeRole$)|kms:(Put|Schedule|Disable)|s3:(PutBucket|DeleteBucket)|ec2:Delete(?!Snap|Tags)|\*$"
    )
    assert [action for action in actions if forbidden.match(action)] == []
    assert {action for action in actions if "*" in action} == {
        "ec2:Describe*",
        "autoscaling:Describe*",
    }
    passed = {
        resource.rpartition("-image-")[2]: item["Condition"]["StringEquals"]["iam:PassedToService"]
        for item in found.values()
        if "iam:PassRole" in listed(item["Action"])
        for resource in listed(item["Resource"])
    }
    assert passed == {
        "build": "ec2.amazonaws.com",
        "verify": "ec2.amazonaws.com",
        "cleanup": "lambda.amazonaws.com",
    }


def test_what_ends_or_removes_something_is_narrowed_by_tags(ws_dev: Templates) -> None:
    found = run_statements(ws_dev)
    own = {"aws:ResourceTag/Environment": "ws-dev"}
    for sid in ("EndVerifier", "PatchHeadNode", "RetireImage", "RetireOwnSnapshot"):
        condition = found[sid]["Condition"]["StringEquals"]
        assert own.items() <= condition.items(), sid
    end = found["EndVerifier"]["Condition"]
    assert end["StringLike"] == {"aws:ResourceTag/clusterbox:verifies": "*"}
    assert end["Null"] == {"aws:ResourceTag/parallelcluster:cluster-name": "true"}
    head = found["PatchHeadNode"]["Condition"]["StringEquals"]
    assert head["aws:ResourceTag/parallelcluster:node-type"] == "HeadNode"
    command = found["OnOwnMachines"]["Condition"]["StringEquals"]
    assert command == {"ssm:resourceTag/Environment": "ws-dev"}
    sending = {sid for sid, item in found.items() if "ssm:SendCommand" in listed(item["Action"])}
    assert sending == {"RunScript", "OnOwnMachines"}
    assert found["RunScript"]["Resource"] == "arn:aws:ssm:us-west-2::document/AWS-RunShellScript"


def test_a_patch_day_writes_only_stacks_of_its_own_bakes(root: Path, ws_dev: Templates) -> None:
    resources = listed(run_statements(ws_dev)["BuildStacks"]["Resource"])
    stacks = [resource.partition(":stack/")[2] for resource in resources]
    assert sorted(stacks) == ["ws-dev-admin-*/*", "ws-dev-compute-*/*"]
    environment = Repository(root).load_environment("ws-dev")
    for image in environment.images:
        assert bake_name("ws-dev", image, "2026-11-22").startswith(f"ws-dev-{image}-")
    # The environment's own stacks have other names.
    units = [name for name in ws_dev if not name.startswith("ws-dev-cluster-")]
    assert not [unit for unit in units if re.match(r"ws-dev-(compute|admin)-", unit)]


def test_records_are_one_folder_of_the_logs_bucket(ws_dev: Templates) -> None:
    found = run_statements(ws_dev)
    bucket = "arn:aws:s3:::ws-dev-427491229895-logs"
    assert found["Records"]["Resource"] == f"{bucket}/patch-day/ws-dev/*"
    assert found["ListRecords"]["Resource"] == bucket


def test_who_replaces_head_nodes_may_do_what_the_provider_may(
    variants: dict[str, dict[str, Any]],
) -> None:
    found = statements(variants["replace"], "PatchDayRolePolicy")
    assert "ClustersNodesOfClusters" in found
    template = variants["replace"]
    role = template["Resources"]["PatchDayRole82BA30C2"]["Properties"]
    # IAM attaches ten managed policies to a role, unless it is asked for more.
    assert len(role["ManagedPolicyArns"]) <= 10


def test_no_policy_has_two_statements_of_one_id(
    templates: Templates, variants: dict[str, dict[str, Any]]
) -> None:
    checked = 0
    for _, logical_id, policy in each({**templates, **variants}, "AWS::IAM::ManagedPolicy"):
        ids = [item["Sid"] for item in policy["Properties"]["PolicyDocument"]["Statement"]]
        assert len(ids) == len(set(ids)), logical_id
        checked += 1
    assert checked > 20


def test_githubs_pipeline_is_started_by_a_function_and_trusted_behind_the_gate(
    sandbox: Templates,
) -> None:
    template = stack_of(sandbox)
    assert not [*each({"": template}, "AWS::CodeBuild::Project")]
    (function,) = (
        (logical_id, item["Properties"])
        for _, logical_id, item in each({"": template}, "AWS::Lambda::Function")
        if logical_id.startswith("PatchDay")
    )
    assert function[1]["Environment"]["Variables"] == {
        "CLUSTERBOX_ENVIRONMENT": "sandbox",
        "CLUSTERBOX_TOKEN_SECRET": "clusterbox/sandbox/github-actions",
        "CLUSTERBOX_PLATFORM": "github",
        "CLUSTERBOX_HOST": "api.github.com",
        "CLUSTERBOX_PROJECT": "lcnext/clusterbox",
        "CLUSTERBOX_BRANCH": "main",
        "CLUSTERBOX_ACCOUNT": "123456789012",
        "CLUSTERBOX_GATE": "sandbox",
    }
    target = schedules(template)["PatchDay"]["Target"]
    assert target["Arn"] == {"Fn::GetAtt": [function[0], "Arn"]}
    token = statements(template, "PatchDayStartRolePolicy")["Token"]
    assert token["Resource"].endswith(":secret:clusterbox/sandbox/github-actions-??????")
    role = template["Resources"]["PatchDayGitHubRole4E698BB3"]["Properties"]
    assert role["MaxSessionDuration"] == 6 * 3600
    (trust,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Condition"] == {
        "StringEquals": {
            "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
            "token.actions.githubusercontent.com:sub": "repo:lcnext/clusterbox:environment:sandbox",
        }
    }


def test_gitlabs_pipeline_is_trusted_from_its_branch_alone(
    variants: dict[str, dict[str, Any]],
) -> None:
    template = variants["gitlab"]
    (role,) = (
        item["Properties"]
        for _, _, item in each({"": template}, "AWS::IAM::Role")
        if item["Properties"]["RoleName"] == "ws-dev-ci-gitlab-patch-day"
    )
    (trust,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Condition"]["StringEquals"]["gitlab.example.gov:sub"] == (
        "project_path:lcnext/clusterbox:ref_type:branch:ref:main"
    )
    assert set(trust["Condition"]) == {"StringEquals"}
    function = next(
        item["Properties"]
        for _, logical_id, item in each({"": template}, "AWS::Lambda::Function")
        if logical_id.startswith("PatchDay")
    )
    assert function["Environment"]["Variables"]["CLUSTERBOX_HOST"] == "gitlab.example.gov"


# Calls whose permission has another name than the call.
_OTHER_NAMES = {
    ("s3", "HeadObject"): "s3:GetObject",
    ("s3", "ListObjectsV2"): "s3:ListBucket",
    ("s3", "ListObjectVersions"): "s3:ListBucketVersions",
    ("s3", "DeleteObjects"): "s3:DeleteObject",
}


def _calls(root: Path) -> set[tuple[str, str]]:
    """Return the calls of AWS, as service and operation, that a patch day's modules make."""
    session = get_session()
    files = [
        *(root / "clusterbox" / "images").glob("*.py"),
        *(root / "clusterbox" / name for name in ("run_command.py", "deployment/pins.py")),
    ]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files if path.exists())
    found = set()
    for service in ("ec2", "ssm", "s3", "sns", "kms", "cloudformation", "imagebuilder", "iam"):
        operations = session.get_service_model(service).operation_names
        methods = {xform_name(operation): operation for operation in operations}
        client = rf'(?:\b{service}|\bclient\("{service}"\))\s*\.'
        named = re.findall(client + r'(\w+)\(\s*(?:"(\w+)")?', text)
        for method, argument in named:
            name = argument if method == "get_paginator" else method
            if name in methods:
                found.add((service, methods[name]))
    return found


# Permissions for what `pcluster build-image`, `describe-image`, `delete-image`, `get-image-log-events`
# and `get-image-stack-events` call, recorded in a rehearsal, and for what CloudFormation does in
# their caller's name (ParallelClusterImageManagedPolicy, and the Service Authorization Reference's
# "dependent actions" of Image Builder).
_PCLUSTER_NEEDS = {
    "cloudformation:CreateStack",
    "cloudformation:DeleteStack",
    "cloudformation:DescribeStackEvents",
    "cloudformation:DescribeStackResource",
    "cloudformation:DescribeStacks",
    "ec2:DeleteSnapshot",
    "ec2:DeregisterImage",
    "ec2:DescribeImageAttribute",
    "ec2:DescribeImages",
    "ec2:DescribeInstanceTypeOfferings",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeInstances",
    "ec2:DescribeSecurityGroups",
    "iam:AddRoleToInstanceProfile",
    "iam:CreateInstanceProfile",
    "iam:CreateServiceLinkedRole",
    "iam:DeleteInstanceProfile",
    "iam:GetInstanceProfile",
    "iam:GetPolicy",
    "iam:GetRole",
    "iam:PassRole",
    "iam:RemoveRoleFromInstanceProfile",
    "imagebuilder:CancelImageCreation",
    "imagebuilder:CreateComponent",
    "imagebuilder:CreateDistributionConfiguration",
    "imagebuilder:CreateImage",
    "imagebuilder:CreateImageRecipe",
    "imagebuilder:CreateInfrastructureConfiguration",
    "imagebuilder:DeleteComponent",
    "imagebuilder:DeleteDistributionConfiguration",
    "imagebuilder:DeleteImage",
    "imagebuilder:DeleteImageRecipe",
    "imagebuilder:DeleteInfrastructureConfiguration",
    "imagebuilder:GetImage",
    "imagebuilder:TagResource",
    "lambda:AddPermission",
    "lambda:CreateFunction",
    "lambda:DeleteFunction",
    "lambda:GetFunction",
    "lambda:RemovePermission",
    "lambda:TagResource",
    "logs:CreateLogGroup",
    "logs:DeleteLogGroup",
    "logs:DescribeLogGroups",
    "logs:GetLogEvents",
    "logs:TagResource",
    "logs:UntagResource",
    "s3:DeleteObject",
    "s3:DeleteObjectVersion",
    "s3:GetBucketLocation",
    "s3:GetBucketVersioning",
    "s3:GetObject",
    "s3:GetObjectVersion",
    "s3:ListBucket",
    "s3:ListBucketVersions",
    "s3:PutObject",
    "sns:CreateTopic",
    "sns:DeleteTopic",
    "sns:GetTopicAttributes",
    "sns:Publish",
    "sns:Subscribe",
    "sns:TagResource",
    "sns:Unsubscribe",
}


def test_what_a_bake_asks_of_topics_and_of_the_boundary_is_allowed_on_these(
    ws_dev: Templates,
) -> None:
    found = run_statements(ws_dev)
    assert "sns:Publish" in listed(found["BuildTopic"]["Action"])
    boundary = "arn:aws:iam::427491229895:policy/"
    assert listed(found["ReadBoundary"]["Action"]) == ["iam:GetPolicy"]
    assert found["ReadBoundary"]["Resource"].startswith(boundary)


def test_a_patch_day_may_make_every_call_that_it_makes(root: Path) -> None:
    environment = Repository(root).load_environment("ws-dev")
    allowed = {
        action
        for statement in patch_day.run(
            environment, key_arn="key", notices="notices", alarms="alarms", replaces=False
        )
        for action in statement.actions
    }
    calls = _calls(root)
    assert len(calls) > 10
    needed = {
        _OTHER_NAMES.get((service, operation), f"{service}:{operation}")
        for service, operation in calls
    } | _PCLUSTER_NEEDS
    wildcards = tuple(action.rstrip("*") for action in allowed if action.endswith("*"))
    assert {action for action in needed if not action.startswith(wildcards)} - allowed == set()
