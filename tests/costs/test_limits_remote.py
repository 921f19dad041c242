"""Slurm's commands on a head node through Systems Manager."""

from __future__ import annotations

import base64
import gzip
from typing import Any

import pytest

from clusterbox.costs.limits_remote import HeadNode, find_head_node
from clusterbox.errors import ClusterboxError
from clusterbox.slurm import SlurmError


class Invocations:
    """Systems Manager of a node, which answers one command after it was asked twice."""

    class exceptions:  # noqa: N801 -- boto3's name
        """The errors of boto3's client."""

        class InvocationDoesNotExist(Exception):  # noqa: N818 -- boto3's name
            """It is not there yet."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self.commands: list[str] = []
        self.asked = 0

    def send_command(self, **words: Any) -> dict[str, Any]:
        self.commands += words["Parameters"]["commands"]
        return {"Command": {"CommandId": "c-1"}}

    def get_command_invocation(self, **_words: Any) -> dict[str, Any]:
        self.asked += 1
        if self.asked == 1:
            raise self.exceptions.InvocationDoesNotExist
        return {"Status": "InProgress"} if self.asked == 2 else self.answer


class Instances:
    """EC2 with some instances, whatever is asked for."""

    def __init__(self, ids: list[str]) -> None:
        self.ids = ids
        self.filters: list[dict[str, Any]] = []

    def get_paginator(self, _operation: str) -> Instances:
        return self

    def paginate(self, **words: Any) -> list[dict[str, Any]]:
        self.filters = words["Filters"]
        instances = [{"InstanceId": name} for name in self.ids]
        return [{"Reservations": [{"Instances": instances}]}]


def node_with(answer: dict[str, Any]) -> tuple[HeadNode, Invocations]:
    ssm = Invocations(answer)
    return HeadNode("tiny", "i-1", ssm, sleep=lambda _seconds: None), ssm


def test_what_a_command_prints_comes_back() -> None:
    output = base64.b64encode(gzip.compress(b"a|b\n")).decode()
    node, ssm = node_with({"Status": "Success", "StandardOutputContent": output})
    assert node.run("sacctmgr", "show", "a b") == "a|b\n"
    [command] = ssm.commands
    assert "sacctmgr show" in command
    assert "PATH=/opt/slurm/bin:$PATH" in command


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"Status": "Failed", "StandardErrorContent": "denied"}, "Failed: denied"),
        ({"Status": "Success", "StandardOutputContent": "x" * 24_000}, "limits script tiny"),
        ({"Status": "Success", "StandardOutputContent": "H4sIAAAA"}, "limits script tiny"),
        ({"Status": "Pending"}, "did not reach i-1 within 150 s"),
    ],
)
def test_what_fails_is_told(answer: dict[str, Any], message: str) -> None:
    node, _ = node_with(answer)
    with pytest.raises(SlurmError, match=message):
        node.run("sinfo")


def test_the_head_node_is_found_by_its_tags() -> None:
    ec2 = Instances(["i-7"])
    assert find_head_node(ec2, None, "tiny").instance == "i-7"
    assert {"Name": "tag:parallelcluster:cluster-name", "Values": ["tiny"]} in ec2.filters
    assert {"Name": "instance-state-name", "Values": ["running"]} in ec2.filters


def test_a_cluster_whose_head_node_does_not_run_is_told() -> None:
    with pytest.raises(ClusterboxError, match="no head node of tiny runs"):
        find_head_node(Instances([]), None, "tiny")
