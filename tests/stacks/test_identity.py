from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam

from stacks.permissions.roles import UNSCOPED_ACTIONS, Statement, unscoped
from tests.conftest import Templates
from tests.stacks.resources import each

PRINCIPALS = ("AWS::IAM::Role", "AWS::IAM::User")


def test_every_principal_of_ws_dev_carries_the_hosting_service_s_boundary(
    ws_dev: Templates,
) -> None:
    boundary = "arn:aws:iam::427491229895:policy/csr-Developer-Permissions-Boundary"
    found = {
        (stack, logical_id): resource["Properties"].get("PermissionsBoundary")
        for stack, logical_id, resource in each(ws_dev, *PRINCIPALS)
    }
    assert len(found) == 23
    assert set(found.values()) == {boundary}


def test_every_principal_of_sandbox_carries_the_boundary_that_the_site_makes(
    sandbox: Templates,
) -> None:
    boundary = "arn:aws:iam::123456789012:policy/clusterbox-sandbox-boundary"
    roles = {logical_id: role for _, logical_id, role in each(sandbox, *PRINCIPALS)}
    assert any("CustomVpcRestrictDefaultSG" in logical_id for logical_id in roles)
    assert {role["Properties"].get("PermissionsBoundary") for role in roles.values()} == {boundary}


def test_a_role_that_a_construct_library_makes_by_itself_is_bounded_too() -> None:
    app = cdk.App(context={"@aws-cdk/core:permissionsBoundary": {"arn": "arn:aws:iam::1:policy/b"}})
    stack = cdk.Stack(app, "Any")
    iam.LazyRole(stack, "Lazy", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com")).role_arn  # noqa: B018
    cdk.CfnResource(
        stack, "Raw", type="AWS::IAM::Role", properties={"AssumeRolePolicyDocument": {}}
    )
    template = app.synth().get_stack_by_name("Any").template
    bounds = [item["Properties"]["PermissionsBoundary"] for item in template["Resources"].values()]
    assert bounds == ["arn:aws:iam::1:policy/b"] * 2


def test_the_boundary_stands_before_everything_else_where_the_site_makes_it(
    root: Path, tmp_path: Path
) -> None:
    from stacks import build_app

    build_app(root, "sandbox", outdir=tmp_path).synth()
    artifacts = json.loads((tmp_path / "manifest.json").read_text())["artifacts"]
    stacks = {k: v for k, v in artifacts.items() if v["type"] == "aws:cloudformation:stack"}
    waiting = {
        name for name, item in stacks.items() if "sandbox-boundary" in item.get("dependencies", [])
    }
    assert waiting == set(stacks) - {"sandbox-boundary"}


def test_the_made_boundary_forbids_changing_itself(sandbox: Templates) -> None:
    (policy,) = [
        item for _, _, item in each({"": sandbox["sandbox-boundary"]}, "AWS::IAM::ManagedPolicy")
    ]
    denied = [
        statement
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if statement["Effect"] == "Deny" and "iam:CreatePolicyVersion" in statement["Action"]
    ]
    assert denied[0]["Resource"] == "arn:aws:iam::123456789012:policy/clusterbox-sandbox-boundary"


def test_roles_have_the_path_and_the_prefix_of_the_hosting_rules(ws_dev: Templates) -> None:
    for _, logical_id, role in each(ws_dev, "AWS::IAM::Role"):
        assert role["Properties"]["Path"] == "/ws/", logical_id
        assert role["Properties"]["RoleName"].startswith("ws-dev-"), logical_id


def test_no_policy_gives_s3_or_administrator_rights_as_a_whole(templates: Templates) -> None:
    text = json.dumps(templates)
    assert "AmazonS3FullAccess" not in text
    assert "AdministratorAccess" not in text


def test_a_wildcard_resource_stands_only_where_aws_has_no_narrower_one(
    templates: Templates,
) -> None:
    checked = 0
    for stack, logical_id, policy in each(templates, "AWS::IAM::ManagedPolicy", "AWS::IAM::Policy"):
        if logical_id == "Boundary9BA62571" or stack.endswith("-boundary"):
            continue  # a ceiling, which grants nothing
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]:
            resources = statement["Resource"]
            if "*" not in (resources if isinstance(resources, list) else [resources]):
                continue
            actions = statement["Action"]
            for action in actions if isinstance(actions, list) else [actions]:
                assert action in UNSCOPED_ACTIONS, (stack, logical_id, statement["Sid"], action)
                checked += 1
    assert checked > 20


def test_a_wildcard_without_a_reason_is_refused() -> None:
    with pytest.raises(ValueError, match="says no reason"):
        Statement("Bad", ["s3:GetObject"], ["arn:aws:s3:::bucket/*"])


def test_an_action_that_can_be_scoped_cannot_be_given_on_everything() -> None:
    with pytest.raises(KeyError):
        unscoped("Bad", ["ec2:TerminateInstances"])


def test_the_head_node_ends_only_nodes_of_its_own_cluster(ws_dev: Templates) -> None:
    template = ws_dev["ws-dev-cluster-ws-eco"]
    statements = [
        statement
        for _, logical_id, policy in each({"": template}, "AWS::IAM::ManagedPolicy")
        if logical_id.startswith("HeadNode")
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
    ]
    end = next(item for item in statements if item["Sid"] == "EndNodes")
    assert end["Condition"] == {
        "StringEquals": {"ec2:ResourceTag/parallelcluster:cluster-name": "ws-eco"}
    }


def test_the_provider_can_neither_make_roles_nor_change_them(templates: Templates) -> None:
    forbidden = {"iam:CreateRole", "iam:PutRolePolicy", "iam:AttachRolePolicy", "iam:*"}
    (identity,) = [t for name, t in templates.items() if name.endswith("-identity")]
    for _, logical_id, policy in each({"": identity}, "AWS::IAM::ManagedPolicy"):
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]:
            actions = statement["Action"]
            assert not forbidden & set(actions if isinstance(actions, list) else [actions]), (
                logical_id
            )


def test_ci_deploys_from_its_branch_or_environment_alone(
    ws_dev: Templates, sandbox: Templates
) -> None:
    def trust(template: dict[str, Any], prefix: str) -> dict[str, Any]:
        (role,) = [r for _, i, r in each({"": template}, "AWS::IAM::Role") if i.startswith(prefix)]
        condition: dict[str, Any] = role["Properties"]["AssumeRolePolicyDocument"]["Statement"][0][
            "Condition"
        ]
        return condition

    deploy = trust(ws_dev["ws-dev-identity"], "GitLabDeploy")
    assert deploy == {
        "StringEquals": {
            "gitlab.example.gov:aud": "https://gitlab.example.gov",
            "gitlab.example.gov:sub": "project_path:lcnext/clusterbox:ref_type:branch:ref:main",
        }
    }
    deploy = trust(sandbox["sandbox-identity"], "GitHubDeploy")
    assert deploy["StringEquals"] == {
        "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
        "token.actions.githubusercontent.com:sub": "repo:lcnext/clusterbox:environment:sandbox",
    }
    read = trust(sandbox["sandbox-identity"], "GitHubReadOnly")
    assert read["StringEquals"] == {
        "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
        "token.actions.githubusercontent.com:sub": "repo:lcnext/clusterbox:pull_request",
    }


def test_no_managed_policy_is_longer_than_iam_takes(templates: Templates) -> None:
    for stack, logical_id, policy in each(templates, "AWS::IAM::ManagedPolicy"):
        text = json.dumps(policy["Properties"]["PolicyDocument"], separators=(",", ":"))
        # IAM counts without white space; a reference becomes an ARN that is about as long.
        assert len("".join(text.split())) <= 6144, (stack, logical_id)


def test_statements_beyond_one_policy_go_to_a_second(ws_dev: Templates) -> None:
    policies = [
        logical_id
        for _, logical_id, _ in each({"": ws_dev["ws-dev-identity"]}, "AWS::IAM::ManagedPolicy")
        if logical_id.startswith("ProviderPolicy")
    ]
    assert len(policies) == 2


def test_the_provider_changes_only_stacks_of_the_site_s_clusters(ws_dev: Templates) -> None:
    changing = [
        resource
        for _, _, policy in each({"": ws_dev["ws-dev-identity"]}, "AWS::IAM::ManagedPolicy")
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if "cloudformation:UpdateStack" in statement["Action"]
        for resource in statement["Resource"]
    ]
    stack = "arn:aws:cloudformation:us-west-2:427491229895:stack"
    assert set(changing) == {
        f"{stack}/{cluster}{nested}/*"
        for cluster in ("ws-eco", "ws-eco-login")
        for nested in ("", "-ComputeFleet*", "-LoginNodes*")
    }


def test_the_boundary_is_deployed_before_the_bootstrap_and_so_without_its_roles(
    root: Path, tmp_path: Path
) -> None:
    from stacks import build_app

    build_app(root, "sandbox", outdir=tmp_path).synth()
    artifacts = json.loads((tmp_path / "manifest.json").read_text())["artifacts"]
    properties = artifacts["sandbox-boundary"]["properties"]
    assert not {"assumeRoleArn", "cloudFormationExecutionRoleArn"} & set(properties)
    assert "stackTemplateAssetObjectUrl" not in properties


def test_the_made_boundary_lets_nobody_pass_or_assume_roles_of_others(sandbox: Templates) -> None:
    (policy,) = [
        item for _, _, item in each({"": sandbox["sandbox-boundary"]}, "AWS::IAM::ManagedPolicy")
    ]
    powers = {"iam:PassRole", "sts:AssumeRole", "iam:UpdateAssumeRolePolicy", "iam:CreateRole"}
    found = 0
    for statement in policy["Properties"]["PolicyDocument"]["Statement"]:
        if statement["Effect"] == "Allow" and powers & set(statement["Action"]):
            found += 1
            assert set(statement["Resource"]) == {
                "arn:aws:iam::123456789012:role/sandbox-*",
                "arn:aws:iam::123456789012:role/cdk-hnb659fds-*",
            }
    assert found == 3
