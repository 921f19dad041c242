from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest

from clusterbox.embedded.provider import function
from clusterbox.embedded.provider.template import provider_objects, provider_template
from tests.embedded.cluster_stack import REGION, TEMPLATE_URL


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
