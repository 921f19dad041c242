from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clusterbox.embedded.account import EmbeddedAccount
from tests.embedded.stack_driver import ACCOUNT, Stack, outputs_of

_EC2_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "ec2.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}
_READ_ONLY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:Get*", "Resource": "*"}],
}
_NO_BOUNDARY = f"arn:aws:iam::{ACCOUNT}:policy/no-such-boundary"


@pytest.fixture(scope="module")
def iam(account: EmbeddedAccount) -> Any:
    return account.client("iam")


def role(**properties: Any) -> dict[str, Any]:
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {"AssumeRolePolicyDocument": _EC2_TRUST, **properties},
    }


def policy(name: str, **properties: Any) -> dict[str, Any]:
    return {
        "Type": "AWS::IAM::ManagedPolicy",
        "Properties": {"ManagedPolicyName": name, "PolicyDocument": _READ_ONLY, **properties},
    }


def test_a_role_keeps_its_boundary_and_path_and_loses_the_boundary_on_update(
    stack: Stack, iam: Any
) -> None:
    bounded = role(Path="/site/", RoleName="bounded", PermissionsBoundary={"Ref": "Boundary"})
    resources = {"Boundary": policy("kept-boundary", Path="/agency/"), "Role": bounded}
    assert stack.create(resources, Outputs=outputs_of(Arn="Role.Arn")) == "CREATE_COMPLETE"
    assert stack.outputs()["Arn"] == f"arn:aws:iam::{ACCOUNT}:role/site/bounded"
    boundary = iam.get_role(RoleName="bounded")["Role"]["PermissionsBoundary"]
    arn = f"arn:aws:iam::{ACCOUNT}:policy/agency/kept-boundary"
    assert boundary["PermissionsBoundaryArn"] == arn

    del bounded["Properties"]["PermissionsBoundary"]
    assert stack.update(resources) == "UPDATE_COMPLETE"
    assert "PermissionsBoundary" not in iam.get_role(RoleName="bounded")["Role"]
    assert stack.delete() == "DELETE_COMPLETE"


def test_a_role_gains_a_boundary_on_update(stack: Stack, iam: Any) -> None:
    resources = {"Boundary": policy("late-boundary"), "Role": role(RoleName="late")}
    assert stack.create(resources) == "CREATE_COMPLETE"
    resources["Role"] = role(RoleName="late", PermissionsBoundary={"Ref": "Boundary"})
    assert stack.update(resources) == "UPDATE_COMPLETE"
    found = iam.get_role(RoleName="late")["Role"]["PermissionsBoundary"]
    assert found["PermissionsBoundaryArn"].endswith("policy/late-boundary")
    stack.delete()


def test_a_role_with_a_boundary_that_does_not_exist_is_refused(stack: Stack) -> None:
    assert stack.create({"Role": role(PermissionsBoundary=_NO_BOUNDARY)}) == "ROLLBACK_COMPLETE"
    assert f"Scope ARN: {_NO_BOUNDARY} does not exist" in stack.failures()["Role"]


def test_an_update_to_a_boundary_that_does_not_exist_is_rolled_back(stack: Stack, iam: Any) -> None:
    resources = {"Boundary": policy("first-boundary")}
    resources["Role"] = role(RoleName="steady", PermissionsBoundary={"Ref": "Boundary"})
    assert stack.create(resources) == "CREATE_COMPLETE"
    resources["Role"] = role(RoleName="steady", PermissionsBoundary=_NO_BOUNDARY)
    assert stack.update(resources) == "UPDATE_ROLLBACK_COMPLETE"
    found = iam.get_role(RoleName="steady")["Role"]["PermissionsBoundary"]
    assert found["PermissionsBoundaryArn"].endswith("policy/first-boundary")
    stack.delete()


def test_iams_own_calls_refuse_a_boundary_or_policy_that_does_not_exist(iam: Any) -> None:
    trust = json.dumps(_EC2_TRUST)
    with pytest.raises(ClientError, match="NoSuchEntity"):
        iam.create_role(
            RoleName="r1", AssumeRolePolicyDocument=trust, PermissionsBoundary=_NO_BOUNDARY
        )
    iam.create_role(RoleName="r2", AssumeRolePolicyDocument=trust)
    with pytest.raises(ClientError, match="NoSuchEntity"):
        iam.put_role_permissions_boundary(RoleName="r2", PermissionsBoundary=_NO_BOUNDARY)
    with pytest.raises(ClientError, match="NoSuchEntity"):
        iam.attach_role_policy(RoleName="r2", PolicyArn=_NO_BOUNDARY)
    iam.delete_role(RoleName="r2")


def test_a_role_may_attach_aws_policies_but_no_missing_one_of_its_own_account(
    stack: Stack,
) -> None:
    core = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"
    assert stack.create({"Role": role(ManagedPolicyArns=[core, _NO_BOUNDARY])}) == (
        "ROLLBACK_COMPLETE"
    )
    assert f"Policy {_NO_BOUNDARY} does not exist" in stack.failures()["Role"]


@pytest.mark.parametrize(
    ("kind", "there"), [("role", role(RoleName="one-of-a-kind")), ("policy", policy("one"))]
)
def test_a_name_that_is_taken_is_refused_and_its_owner_stays(
    stack: Stack, account: EmbeddedAccount, kind: str, there: dict[str, Any]
) -> None:
    assert stack.create({"Mine": there}) == "CREATE_COMPLETE"
    other = Stack(account, f"second-{kind}")
    assert other.create({"Theirs": there}) == "ROLLBACK_COMPLETE"
    assert "already exists" in other.failures()["Theirs"]
    other.delete()
    assert stack.delete() == "DELETE_COMPLETE"


def test_a_boundary_in_use_is_not_deleted(stack: Stack, account: EmbeddedAccount) -> None:
    owner = Stack(account, "boundary-owner")
    assert owner.create({"Boundary": policy("used-boundary")}) == "CREATE_COMPLETE"
    arn = f"arn:aws:iam::{ACCOUNT}:policy/used-boundary"
    assert stack.create({"Role": role(PermissionsBoundary=arn)}) == "CREATE_COMPLETE"
    assert owner.delete() == "DELETE_FAILED"
    assert "DeleteConflict" in owner.failures()["Boundary"]
    assert stack.delete() == "DELETE_COMPLETE"
    assert owner.delete() == "DELETE_COMPLETE"


def test_an_instance_profiles_ref_is_its_name_whatever_its_path(stack: Stack, iam: Any) -> None:
    profile: dict[str, Any] = {"Path": "/site/", "Roles": [{"Ref": "Role"}]}
    resources = {"Role": role(), "Other": role()}
    resources["Profile"] = {"Type": "AWS::IAM::InstanceProfile", "Properties": profile}
    outputs = outputs_of(Name="Profile", Arn="Profile.Arn")
    assert stack.create(resources, Outputs=outputs) == "CREATE_COMPLETE"
    name, arn = stack.outputs()["Name"], stack.outputs()["Arn"]
    assert arn == f"arn:aws:iam::{ACCOUNT}:instance-profile/site/{name}"

    profile["Roles"] = [{"Ref": "Other"}]
    assert stack.update(resources, Outputs=outputs) == "UPDATE_COMPLETE"
    found = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
    assert [r["RoleName"] for r in found["Roles"]] == [stack.ids()["Other"]]
    assert stack.delete() == "DELETE_COMPLETE"
    with pytest.raises(ClientError, match="NoSuchEntity"):
        iam.get_instance_profile(InstanceProfileName=name)


def test_an_oidc_provider_is_made_changed_and_deleted(stack: Stack, iam: Any) -> None:
    provider: dict[str, Any] = {
        "Url": "https://token.actions.example.com",
        "ClientIdList": ["sts.amazonaws.com"],
        "ThumbprintList": ["a" * 40],
    }
    resources = {"Oidc": {"Type": "AWS::IAM::OIDCProvider", "Properties": provider}}
    assert stack.create(resources) == "CREATE_COMPLETE"
    arn = stack.ids()["Oidc"]
    assert arn == f"arn:aws:iam::{ACCOUNT}:oidc-provider/token.actions.example.com"
    provider["ClientIdList"] = ["sts.amazonaws.com", "hpc"]
    assert stack.update(resources) == "UPDATE_COMPLETE"
    found = iam.get_open_id_connect_provider(OpenIDConnectProviderArn=arn)
    assert (found["ClientIDList"], found["ThumbprintList"]) == (
        ["sts.amazonaws.com", "hpc"],
        ["a" * 40],
    )
    assert stack.delete() == "DELETE_COMPLETE"
    with pytest.raises(ClientError, match="NoSuchEntity"):
        iam.get_open_id_connect_provider(OpenIDConnectProviderArn=arn)
