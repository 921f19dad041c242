"""Scripts on machines in AWS, through a Systems Manager that is a fake here."""

from __future__ import annotations

import base64
import gzip
import shlex
import subprocess
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clusterbox.errors import ClusterboxError
from clusterbox.run_command import Machine, RunCommandError, TooMuchOutputError, find_head_node


class FakeSystemsManager:
    """Runs each command here at once with sh, and answers after it was asked twice."""

    class exceptions:  # noqa: N801 -- boto3's name
        """The errors of boto3's client."""

        class InvocationDoesNotExist(Exception):  # noqa: N818 -- boto3's name
            """It is not there yet."""

    def __init__(self, answer: dict[str, Any] | None = None, pings: tuple[str, ...] = ()) -> None:
        self.answer = answer
        self.pings = list(pings)
        self.sent: list[dict[str, Any]] = []
        self.asked = 0

    def send_command(self, **words: Any) -> dict[str, Any]:
        self.sent.append(words)
        return {"Command": {"CommandId": "c-1"}}

    def get_command_invocation(self, **_words: Any) -> dict[str, Any]:
        self.asked += 1
        if self.asked == 1:
            raise self.exceptions.InvocationDoesNotExist
        if self.asked == 2:
            return {"Status": "InProgress"}
        return self.answer or self._run(self.sent[-1]["Parameters"]["commands"][0])

    def describe_instance_information(self, **_words: Any) -> dict[str, Any]:
        ping = self.pings.pop(0) if self.pings else ""
        return {"InstanceInformationList": [{"PingStatus": ping}] if ping else []}

    @staticmethod
    def _run(command: str) -> dict[str, Any]:
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        return {
            "Status": "Success" if done.returncode == 0 else "Failed",
            "ResponseCode": done.returncode,
            "StandardOutputContent": done.stdout,
            "StandardErrorContent": done.stderr,
        }


def machine(ssm: FakeSystemsManager) -> Machine:
    return Machine("i-1", ssm, sleep=lambda _seconds: None)


def test_the_output_of_a_script_comes_back_whole_though_it_is_long() -> None:
    assert machine(FakeSystemsManager()).run("yes line | head -20000") == "line\n" * 20_000


def test_a_failing_script_tells_its_exit_code_output_and_errors() -> None:
    with pytest.raises(RunCommandError, match="exit code 3: bad") as caught:
        machine(FakeSystemsManager()).run("echo 'so far'; echo bad >&2; exit 3")
    error = caught.value
    assert (error.status, error.exit_code, error.output, error.said) == (
        "Failed",
        3,
        "so far\n",
        "bad",
    )


def test_a_script_with_any_quotes_is_run_as_it_is() -> None:
    script = """printf '%s\\n' "it's" 'a "b" $HOME'"""
    assert machine(FakeSystemsManager()).run(script) == 'it\'s\na "b" $HOME\n'


@pytest.mark.parametrize("content", ["x" * 24_000, "H4sIAAAA", "no base64!"])
def test_output_that_was_cut_off_is_never_taken_for_whole(content: str) -> None:
    ssm = FakeSystemsManager({"Status": "Success", "StandardOutputContent": content})
    with pytest.raises(TooMuchOutputError, match="more than Systems Manager returns"):
        machine(ssm).run("true")


def test_a_script_that_takes_too_long_is_told_as_systems_manager_tells_it() -> None:
    packed = base64.b64encode(gzip.compress(b"begun\n")).decode()
    answer = {
        "Status": "TimedOut",
        "StatusDetails": "ExecutionTimedOut",
        "ResponseCode": -1,
        "StandardOutputContent": packed,
    }
    ssm = FakeSystemsManager(answer)
    with pytest.raises(RunCommandError, match="ExecutionTimedOut: begun") as caught:
        machine(ssm).run("sleep 9", timeout_seconds=5)
    assert caught.value.status == "TimedOut"
    assert ssm.sent[0]["Parameters"]["executionTimeout"] == ["5"]
    # Systems Manager takes no shorter time for a delivery.
    assert ssm.sent[0]["TimeoutSeconds"] == 30


def test_a_machine_that_never_answers_is_told() -> None:
    ssm = FakeSystemsManager({"Status": "Pending"})
    with pytest.raises(RunCommandError, match="did not reach i-1 within 35 s") as caught:
        machine(ssm).run("true", timeout_seconds=5)
    assert caught.value.status == "Unreachable"


def test_a_machine_that_systems_manager_does_not_know_is_told() -> None:
    class Refusing(FakeSystemsManager):
        def send_command(self, **_words: Any) -> dict[str, Any]:
            raise ClientError({"Error": {"Code": "InvalidInstanceId"}}, "SendCommand")

    with pytest.raises(RunCommandError, match="AmazonSSMManagedInstanceCore") as caught:
        machine(Refusing()).run("true")
    assert caught.value.status == "Unreachable"


def test_another_refusal_is_left_to_the_caller() -> None:
    class Refusing(FakeSystemsManager):
        def send_command(self, **_words: Any) -> dict[str, Any]:
            raise ClientError({"Error": {"Code": "ThrottlingException"}}, "SendCommand")

    with pytest.raises(ClientError, match="ThrottlingException"):
        machine(Refusing()).run("true")


def test_a_machine_is_waited_for_until_its_agent_answers() -> None:
    ssm = FakeSystemsManager(pings=("", "ConnectionLost", "Online"))
    machine(ssm).wait_until_online(timeout_seconds=10)
    assert ssm.pings == []
    with pytest.raises(RunCommandError, match="not reached by Systems Manager within 3 s"):
        machine(FakeSystemsManager()).wait_until_online(timeout_seconds=3)


class Instances:
    """EC2 with some instances, whatever is asked for."""

    def __init__(self, *ids: str) -> None:
        self.ids = ids
        self.filters: list[dict[str, Any]] = []

    def get_paginator(self, _operation: str) -> Instances:
        return self

    def paginate(self, **words: Any) -> list[dict[str, Any]]:
        self.filters = words["Filters"]
        return [{"Reservations": [{"Instances": [{"InstanceId": i} for i in self.ids]}]}]


def test_the_head_node_is_found_by_its_tags() -> None:
    ec2 = Instances("i-7")
    assert find_head_node(ec2, None, "tiny").instance == "i-7"
    assert {"Name": "tag:parallelcluster:node-type", "Values": ["HeadNode"]} in ec2.filters
    with pytest.raises(ClusterboxError, match="no head node of tiny runs"):
        find_head_node(Instances(), None, "tiny")


def test_what_is_sent_is_one_command_of_bash() -> None:
    ssm = FakeSystemsManager()
    machine(ssm).run("true")
    [command] = ssm.sent[0]["Parameters"]["commands"]
    assert shlex.split(command)[:2] == ["bash", "-c"]
