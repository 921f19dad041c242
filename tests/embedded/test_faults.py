"""Faults are put into a running account, hit what they are about, and are used up by it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from clusterbox.embedded.account import EmbeddedAccount
from clusterbox.embedded.faults import (
    BuildFault,
    ExpiredCredentials,
    HeldBuild,
    MissingImages,
    ThrottledCalls,
)
from clusterbox.embedded.server.call_faults import identify

# Service, a call of it, the operation as a fault names it, and the error codes that AWS has.
CALLS = [
    ("ec2", lambda c: c.describe_vpcs(), "DescribeVpcs", "RequestLimitExceeded", "RequestExpired"),
    (
        "cloudformation",
        lambda c: c.list_stacks(),
        "ListStacks",
        "Throttling",
        "ExpiredToken",
    ),
    (
        "ssm",
        lambda c: c.describe_parameters(),
        "DescribeParameters",
        "ThrottlingException",
        "ExpiredTokenException",
    ),
    (
        "imagebuilder",
        lambda c: c.list_images(),
        "ListImages",
        "TooManyRequestsException",
        "ExpiredTokenException",
    ),
    ("s3", lambda c: c.list_buckets(), "GET", "SlowDown", "ExpiredToken"),
]


@pytest.fixture
def faulty(account: EmbeddedAccount) -> Iterator[EmbeddedAccount]:
    """The account of the session, without any fault afterwards."""
    yield account
    account.clear_faults()


def client(account: EmbeddedAccount, service: str) -> Any:
    """Return a client that asks once: others try again where they are throttled."""
    import boto3

    made: Any = boto3.client
    return made(
        service,
        endpoint_url=account.endpoint_url,
        region_name=account.region,
        aws_access_key_id=account.account,
        aws_secret_access_key="embedded",
        config=Config(retries={"total_max_attempts": 1}, proxies={}),
    )


@pytest.mark.parametrize(("service", "call", "operation", "throttled", "expired"), CALLS)
def test_calls_are_refused_as_each_service_refuses_them(
    faulty: EmbeddedAccount,
    service: str,
    call: Any,
    operation: str,
    throttled: str,
    expired: str,
) -> None:
    asked = client(faulty, service)
    faulty.inject(
        ThrottledCalls(service=service, operation=operation),
        ExpiredCredentials(service=service, operation=operation),
    )
    for code in (throttled, expired):
        with pytest.raises(ClientError) as refused:
            call(asked)
        assert refused.value.response["Error"]["Code"] == code
    call(asked)
    assert faulty.waiting_faults() == []


def test_an_operation_is_throttled_as_often_as_said_and_no_other_is(
    faulty: EmbeddedAccount,
) -> None:
    ec2 = client(faulty, "ec2")
    faulty.inject(ThrottledCalls(service="ec2", operation="DescribeSubnets", times=2))
    ec2.describe_vpcs()
    for left in (1, 0):
        with pytest.raises(ClientError, match="RequestLimitExceeded"):
            ec2.describe_subnets()
        assert sum(fault["times"] for fault in faulty.waiting_faults()) == left
    ec2.describe_subnets()


def test_a_client_that_tries_again_gets_through(faulty: EmbeddedAccount) -> None:
    faulty.inject(ThrottledCalls(service="ec2", operation="DescribeSubnets"))
    faulty.client("ec2").describe_subnets()
    assert faulty.waiting_faults() == []


def test_a_call_that_no_fault_hits_keeps_its_body(faulty: EmbeddedAccount) -> None:
    faulty.inject(ThrottledCalls(service="sqs"))
    ssm = client(faulty, "ssm")
    ssm.put_parameter(Name="/fault/kept", Value="whole", Type="String", Overwrite=True)
    assert ssm.get_parameter(Name="/fault/kept")["Parameter"]["Value"] == "whole"


def test_faults_of_one_kind_can_be_cleared(faulty: EmbeddedAccount) -> None:
    faulty.inject(HeldBuild(image="compute"), BuildFault(image="compute", stage="test"))
    faulty.clear_faults("hold")
    assert [fault["kind"] for fault in faulty.waiting_faults()] == ["build"]
    faulty.clear_faults()
    assert faulty.waiting_faults() == []


def test_images_go_missing_at_once(faulty: EmbeddedAccount) -> None:
    image = {
        "id": "ami-0fa01700000000001",
        "name": "goes-missing-1",
        "os": "alinux2023",
        "architecture": "x86_64",
        "root_gib": 8,
    }
    faulty.seed({"images": [image]})
    done = faulty.inject(MissingImages(name="goes-missing-*"))
    assert done == ["deregistered ami-0fa01700000000001 goes-missing-1"]
    found = faulty.client("ec2").describe_images(ImageIds=[str(image["id"])])
    assert found["Images"] == []


def test_a_fault_that_there_is_not_is_refused_with_its_place(account: EmbeddedAccount) -> None:
    unknown = json.dumps([{"kind": "build", "image": "compute", "stage": "paint"}])
    status, answer = account._request("POST", "/_clusterbox/faults", unknown)
    assert status == 400
    assert "stage" in answer["problems"][0]
    assert "paint" in answer["problems"][0]


def test_functions_of_the_account_are_not_hit() -> None:
    headers = {
        "authorization": "AWS4-HMAC-SHA256 Credential=1/20261122/us-west-2/ec2/aws4_request",
        "content-type": "application/x-www-form-urlencoded; charset=utf-8",
    }
    body = b"Action=DescribeImages&Version=2016-11-15"
    call = identify("POST", "/", headers, body)
    assert call is not None
    assert (call.service, call.operation, call.protocol) == ("ec2", "DescribeImages", "ec2")
    of_function = {**headers, "user-agent": "Boto3/1.42 exec-env/AWS_Lambda_python3.12"}
    assert identify("POST", "/", of_function, body) is None
