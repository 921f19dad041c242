from __future__ import annotations

import json
import shutil
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clusterbox.embedded.account import EmbeddedAccount
from tests.embedded.stack_driver import Stack, outputs_of

_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "lambda.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}
_ANSWERS = """
import json, os, urllib.request
def handler(event, context):
    answer = {"Status": "SUCCESS", "PhysicalResourceId": "made", "Data": {
        "Region": os.environ["AWS_REGION"], "Was": event["ResourceProperties"]["Value"]}}
    for name in ("StackId", "RequestId", "LogicalResourceId"):
        answer[name] = event[name]
    request = urllib.request.Request(
        event["ResponseURL"], json.dumps(answer).encode(), {"Content-Type": ""}, method="PUT")
    urllib.request.urlopen(request).read()
"""
_ANSWERS_WITH_NODE = """
exports.handler = async (event) => {
  const body = JSON.stringify({Status: "SUCCESS", PhysicalResourceId: "made", Data: {
    Region: process.env.AWS_REGION, Was: event.ResourceProperties.Value},
    StackId: event.StackId, RequestId: event.RequestId,
    LogicalResourceId: event.LogicalResourceId});
  await fetch(event.ResponseURL, {method: "PUT", body});
};
"""


def custom_resource(code: str, value: str = "1", runtime: str = "python3.12") -> dict[str, Any]:
    function = {
        "Runtime": runtime,
        "Handler": "index.handler",
        "Role": {"Fn::GetAtt": ["Role", "Arn"]},
        "Code": {"ZipFile": code},
        "Timeout": 5,
    }
    arn = {"Fn::GetAtt": ["Function", "Arn"]}
    return {
        "Role": {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": _TRUST}},
        "Function": {"Type": "AWS::Lambda::Function", "Properties": function},
        "Custom": {"Type": "Custom::Cluster", "Properties": {"ServiceToken": arn, "Value": value}},
    }


def bucket(name: str, **attributes: Any) -> dict[str, Any]:
    return {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": name}, **attributes}


def test_a_stack_with_an_unknown_type_is_refused_and_not_made(stack: Stack) -> None:
    with pytest.raises(ClientError, match=r"Unrecognized resource types: \[AWS::HPC::Magic\]"):
        stack.create({"Wand": {"Type": "AWS::HPC::Magic"}})
    with pytest.raises(ClientError, match="does not exist"):
        stack.describe()


def test_a_protected_stack_is_not_deleted(stack: Stack, account: EmbeddedAccount) -> None:
    cloudformation = account.client("cloudformation")
    stack.create({"Data": bucket("site-protected")})
    protect = {"StackName": stack.name, "EnableTerminationProtection": True}
    cloudformation.update_termination_protection(**protect)
    with pytest.raises(ClientError, match="TerminationProtection is enabled"):
        stack.delete()
    assert stack.describe()["StackStatus"] == "CREATE_COMPLETE"
    protect["EnableTerminationProtection"] = False
    cloudformation.update_termination_protection(**protect)
    assert stack.delete() == "DELETE_COMPLETE"


@pytest.mark.parametrize("policy", ["Retain", "RetainExceptOnCreate"])
def test_a_retained_resource_outlives_its_stack(
    stack: Stack, account: EmbeddedAccount, policy: str
) -> None:
    name = f"site-{policy.lower()}"
    stack.create({"Data": bucket(name, DeletionPolicy=policy), "Gone": bucket(f"{name}-gone")})
    assert stack.delete() == "DELETE_COMPLETE"
    names = {b["Name"] for b in account.client("s3").list_buckets()["Buckets"]}
    assert name in names
    assert f"{name}-gone" not in names


def test_a_resource_dropped_from_a_template_but_retained_stays(
    stack: Stack, account: EmbeddedAccount
) -> None:
    stack.create({"Data": bucket("site-dropped", DeletionPolicy="Retain"), "Other": bucket("o-1")})
    assert stack.update({"Other": bucket("o-1")}) == "UPDATE_COMPLETE"
    assert account.client("s3").head_bucket(Bucket="site-dropped")
    stack.delete()


def test_an_export_in_use_keeps_its_stack_from_being_deleted(
    stack: Stack, account: EmbeddedAccount
) -> None:
    output = {"Name": {"Value": {"Ref": "Data"}, "Export": {"Name": "exported-bucket"}}}
    stack.create({"Data": bucket("site-exported")}, Outputs=output)
    user = Stack(account, "uses-an-export")
    parameter = {"Type": "String", "Name": "/u", "Value": {"Fn::ImportValue": "exported-bucket"}}
    user.create({"P": {"Type": "AWS::SSM::Parameter", "Properties": parameter}})
    with pytest.raises(ClientError, match="is imported by stack uses-an-export"):
        stack.delete()
    assert user.delete() == "DELETE_COMPLETE"
    assert stack.delete() == "DELETE_COMPLETE"


def test_a_nested_stack_is_fetched_from_the_accounts_own_s3_by_its_public_url(
    stack: Stack, account: EmbeddedAccount
) -> None:
    inner = {
        "Parameters": {"Name": {"Type": "String"}},
        "Resources": {"Data": bucket("x") | {"Properties": {"BucketName": {"Ref": "Name"}}}},
        "Outputs": {"ServiceToken": {"Value": {"Fn::GetAtt": ["Data", "Arn"]}}},
    }
    key = "parallelcluster/3.16.1/templates/custom_resource/cluster.yaml"
    stored = {"bucket": "us-west-2-aws-parallelcluster", "key": key, "body": json.dumps(inner)}
    account.seed({"objects": [stored]})
    host = "https://us-west-2-aws-parallelcluster.s3.us-west-2.amazonaws.com"
    provider = {"TemplateURL": f"{host}/{key}", "Parameters": {"Name": "from-nested"}}
    resources = {"Provider": {"Type": "AWS::CloudFormation::Stack", "Properties": provider}}
    outputs = outputs_of(Token="Provider.Outputs.ServiceToken")
    assert stack.create(resources, Outputs=outputs) == "CREATE_COMPLETE"
    assert stack.outputs() == {"Token": "arn:aws:s3:::from-nested"}
    assert stack.delete() == "DELETE_COMPLETE"


def test_a_stack_is_made_from_a_template_url(stack: Stack, account: EmbeddedAccount) -> None:
    template = json.dumps({"Resources": {"Data": bucket("from-url")}})
    account.seed({"objects": [{"bucket": "templates-url", "key": "a/b.json", "body": template}]})
    account.client("cloudformation").create_stack(
        StackName=stack.name,
        TemplateURL="https://templates-url.s3.us-west-2.amazonaws.com/a/b.json",
    )
    assert stack.settled() == "CREATE_COMPLETE"
    stack.delete()


@pytest.mark.parametrize(
    ("runtime", "code"), [("python3.12", _ANSWERS), ("nodejs22.x", _ANSWERS_WITH_NODE)]
)
def test_a_custom_resource_is_made_changed_and_deleted_by_its_function(
    stack: Stack, runtime: str, code: str
) -> None:
    if runtime.startswith("nodejs") and not shutil.which("node"):
        pytest.skip("there is no node on the PATH")
    outputs = outputs_of(Region="Custom.Region", Was="Custom.Was")
    assert stack.create(custom_resource(code, "1", runtime), Outputs=outputs) == "CREATE_COMPLETE"
    assert stack.outputs() == {"Region": "us-west-2", "Was": "1"}
    assert stack.update(custom_resource(code, "2", runtime), Outputs=outputs) == "UPDATE_COMPLETE"
    assert stack.outputs()["Was"] == "2"
    assert stack.ids()["Custom"] == "made"
    assert stack.delete() == "DELETE_COMPLETE"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_library\ndef handler(e, c): pass", "No module named 'no_such_library'"),
        ("def handler(e, c):\n    raise ValueError('no quota')", "no quota"),
        ("def handler(e, c:\n", "was never closed"),
        ("def other(e, c): pass", "handler"),
        ("import sys\ndef handler(e, c):\n    sys.exit(3)", "failed before it answered"),
    ],
)
def test_a_function_that_crashes_fails_its_custom_resource_at_once(
    stack: Stack, code: str, reason: str
) -> None:
    start = time.monotonic()
    assert stack.create(custom_resource(code)) == "ROLLBACK_COMPLETE"
    assert time.monotonic() - start < 5
    told = stack.failures()["Custom"]
    assert "Lambda function" in told
    assert reason in told


def test_an_answer_counts_when_the_function_crashes_after_it(stack: Stack) -> None:
    late = _ANSWERS + "    raise RuntimeError('too late to matter')\n"
    assert stack.create(custom_resource(late)) == "CREATE_COMPLETE"
    assert stack.delete() == "DELETE_COMPLETE"


def test_a_runtime_that_cannot_run_here_is_told_at_once(stack: Stack) -> None:
    start = time.monotonic()
    assert stack.create(custom_resource("class A {}", runtime="java21")) == "ROLLBACK_COMPLETE"
    assert time.monotonic() - start < 5
    assert "failed before it answered" in stack.failures()["Custom"]
