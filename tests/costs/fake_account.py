"""An account whose answers a test writes down, in pages; a call that it does not know is an error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from clusterbox.aws import Account

ACCOUNT = "427491229895"
REGION = "us-west-2"
NOW = datetime(2026, 11, 22, 6, 0, tzinfo=UTC)

# Every list that a report reads, where a test says nothing else: nothing there.
NOTHING: dict[str, list[Mapping[str, Any]]] = {
    "ec2.describe_instances": [{"Reservations": []}],
    "ec2.describe_volumes": [{"Volumes": []}],
    "ec2.describe_snapshots": [{"Snapshots": []}],
    "ec2.describe_images": [{"Images": []}],
    "ec2.describe_addresses": [{"Addresses": []}],
    "ec2.describe_nat_gateways": [{"NatGateways": []}],
    "ec2.describe_vpc_endpoints": [{"VpcEndpoints": []}],
    "ec2.describe_launch_template_versions": [{"LaunchTemplateVersions": []}],
    "elbv2.describe_load_balancers": [{"LoadBalancers": []}],
    "efs.describe_file_systems": [{"FileSystems": []}],
    "fsx.describe_file_systems": [{"FileSystems": []}],
    "s3.list_buckets": [{"Buckets": []}],
    "s3.get_bucket_tagging": [{"TagSet": []}],
    "cloudwatch.list_metrics": [{"Metrics": []}],
    "cloudwatch.get_metric_data": [{"MetricDataResults": []}],
    "cloudwatch.get_metric_statistics": [{"Datapoints": []}],
}

Answer = Mapping[str, Any] | Exception


class FakeClient:
    """A client of one service; an exception among the pages is raised when its turn comes."""

    def __init__(self, service: str, answers: Mapping[str, Sequence[Answer]]) -> None:
        self._service = service
        self._answers = answers

    def get_paginator(self, operation: str) -> FakeClient._Paginator:
        return self._Paginator(self._answers[f"{self._service}.{operation}"])

    def __getattr__(self, operation: str) -> Any:
        answers = self._answers[f"{self._service}.{operation}"]
        return lambda **_words: next(_give(answers))

    class _Paginator:
        def __init__(self, answers: Sequence[Answer]) -> None:
            self._answers = answers

        def paginate(self, **_words: Any) -> Iterator[Mapping[str, Any]]:
            return _give(self._answers)


def _give(answers: Sequence[Answer]) -> Iterator[Mapping[str, Any]]:
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
        yield answer


def fake_account(answers: Mapping[str, Sequence[Answer]], account: str = ACCOUNT) -> Account:
    """Return an account with these answers by `service.operation`, and nothing else in it."""
    known = {**NOTHING, **answers}
    return Account(account, REGION, lambda service: FakeClient(service, known))


def refusal(code: str, operation: str = "DescribeVolumes") -> ClientError:
    """Return the error with which AWS refuses a call."""
    response: Any = {"Error": {"Code": code, "Message": f"{code} for the test"}}
    return ClientError(response, operation)


def instance(
    name: str, kind: str, state: str = "running", ip: str = "", **more: Any
) -> dict[str, Any]:
    """Return an instance as DescribeInstances tells it, without disks; its id comes of its name."""
    tags = {"Name": name, **more.pop("tags", {})}
    return {
        "InstanceId": f"i-{name}",
        "InstanceType": kind,
        "State": {"Name": state},
        "PrivateIpAddress": ip,
        "Placement": {"AvailabilityZone": f"{REGION}a", "Tenancy": "default"},
        "PlatformDetails": "Linux/UNIX",
        "LaunchTime": NOW,
        "Tags": tag_list(tags),
        **more,
    }


def volume(identity: str, gib: int, instance_id: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a gp3 volume as DescribeVolumes tells it, attached or not."""
    return {
        "VolumeId": identity,
        "Size": gib,
        "VolumeType": "gp3",
        "Iops": 3000,
        "Throughput": 125,
        "State": "in-use" if instance_id else "available",
        "CreateTime": NOW,
        "Attachments": [{"InstanceId": instance_id}] if instance_id else [],
        **more,
    }


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags as EC2 lists them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def reservations(*groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one page of DescribeInstances: a reservation for each group of instances."""
    return {"Reservations": [{"Instances": list(group)} for group in groups]}
