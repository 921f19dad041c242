"""The door to machines in AWS: shell scripts through Run Command of Systems Manager."""

from __future__ import annotations

import base64
import binascii
import gzip
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from clusterbox.errors import ClusterboxError
from clusterbox.site import names

_UNDER_WAY = ("Pending", "InProgress", "Delayed", "Cancelling")
_DEFAULT_SECONDS = 120.0
_POLL_SECONDS = 1.0
# Systems Manager returns the first 24,000 characters of what a script prints.
_MOST_OUTPUT = 24_000
# The shortest and the longest time for the delivery that Systems Manager takes.
_SHORTEST_DELIVERY, _LONGEST_DELIVERY = 30, 2_592_000
# What it may take longer than the script itself: delivery, and the answer.
_SLACK_SECONDS = 30.0


class RunCommandError(ClusterboxError):
    """A script on a machine did not succeed.

    `status` is Systems Manager's (Failed, TimedOut, Cancelled), or Unreachable where the machine
    never took the script; `exit_code` the script's, where it has one; `output` and `said` what it
    had printed on standard output and standard error.
    """

    def __init__(
        self,
        message: str,
        *,
        status: str,
        exit_code: int | None = None,
        output: str = "",
        said: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.exit_code = exit_code
        self.output = output
        self.said = said


class TooMuchOutputError(RunCommandError):
    """A script printed more than Systems Manager returns, even compressed."""


@dataclass(frozen=True)
class Machine:
    """An instance that Systems Manager reaches; `ssm` is boto3's client."""

    instance: str
    ssm: Any = field(repr=False)
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    # What Systems Manager's history shows as the reason.
    comment: str = "clusterbox"

    def run(self, script: str, *, timeout_seconds: float = _DEFAULT_SECONDS) -> str:
        """Run a bash script as root and return what it printed on standard output.

        It runs with `set -e` only where it says so itself. Raises RunCommandError when it fails,
        when it takes longer than the time-out, or when Systems Manager does not reach the machine
        within it; TooMuchOutputError when the output is too long.
        """
        answer = self._wait(self.send(script, timeout_seconds=timeout_seconds), timeout_seconds)
        raw = str(answer.get("StandardOutputContent", ""))
        said = str(answer.get("StandardErrorContent", "")).strip()
        if answer["Status"] != "Success":
            self._raise(answer, _decode(raw) or "", said)
        output = _decode(raw)
        if output is None:
            raise TooMuchOutputError(
                f"what a script printed on {self.instance} is more than Systems Manager returns",
                status="Success",
                exit_code=0,
            )
        return output

    def send(self, script: str, *, timeout_seconds: float = _DEFAULT_SECONDS) -> str:
        """Start a bash script as root and return the id of the command, without waiting for it.

        Raises RunCommandError when Systems Manager does not reach the machine.
        """
        delivery = min(max(_SHORTEST_DELIVERY, int(timeout_seconds)), _LONGEST_DELIVERY)
        try:
            sent = self.ssm.send_command(
                InstanceIds=[self.instance],
                DocumentName="AWS-RunShellScript",
                Comment=self.comment[:100],
                TimeoutSeconds=delivery,
                Parameters={
                    "commands": [_wrap(script)],
                    "executionTimeout": [str(max(1, int(timeout_seconds)))],
                },
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != "InvalidInstanceId":
                raise
            raise RunCommandError(
                f"Systems Manager does not reach {self.instance}: it does not run, its agent does "
                "not, or its role lacks AmazonSSMManagedInstanceCore",
                status="Unreachable",
            ) from error
        return str(sent["Command"]["CommandId"])

    def is_online(self) -> bool:
        """Return whether the machine's agent answers Systems Manager now."""
        found = self.ssm.describe_instance_information(
            Filters=[{"Key": "InstanceIds", "Values": [self.instance]}]
        )["InstanceInformationList"]
        return any(entry["PingStatus"] == "Online" for entry in found)

    def wait_until_online(self, *, timeout_seconds: float) -> None:
        """Wait until the machine's agent answers; raises RunCommandError when it does not."""
        waited = 0.0
        while not self.is_online():
            if waited >= timeout_seconds:
                raise RunCommandError(
                    f"{self.instance} was not reached by Systems Manager within "
                    f"{timeout_seconds:g} s; is its agent running, and has its subnet a way to "
                    "Systems Manager?",
                    status="Unreachable",
                )
            self.sleep(_POLL_SECONDS)
            waited += _POLL_SECONDS

    def _wait(self, command: str, timeout_seconds: float) -> dict[str, Any]:
        limit = timeout_seconds + _SLACK_SECONDS
        waited = 0.0
        while waited < limit:
            try:
                answer: dict[str, Any] = self.ssm.get_command_invocation(
                    CommandId=command, InstanceId=self.instance
                )
                if answer["Status"] not in _UNDER_WAY:
                    return answer
            except self.ssm.exceptions.InvocationDoesNotExist:
                pass  # It is not there at once.
            self.sleep(_POLL_SECONDS)
            waited += _POLL_SECONDS
        raise RunCommandError(
            f"Systems Manager did not reach {self.instance} within {limit:g} s; is its agent "
            "running?",
            status="Unreachable",
        )

    def _raise(self, answer: dict[str, Any], output: str, said: str) -> None:
        status = str(answer.get("StatusDetails") or answer["Status"])
        code = answer.get("ResponseCode")
        shown = said or output.strip()[-2000:] or "it said nothing"
        ended = f" with exit code {code}" if isinstance(code, int) and code > 0 else ""
        raise RunCommandError(
            f"a script on {self.instance} ended as {status}{ended}: {shown}",
            status=str(answer["Status"]),
            exit_code=code if isinstance(code, int) else None,
            output=output,
            said=said,
        )


def _wrap(script: str) -> str:
    """Return one command that runs the script with bash and prints its output compressed.

    The exit code is the script's, whose output comes back also when it fails.
    """
    inner = f"bash -c {shlex.quote(script)} | gzip -c | base64 -w0; exit ${{PIPESTATUS[0]}}"
    return f"bash -c {shlex.quote(inner)}"


def _decode(raw: str) -> str | None:
    """Return what was printed; None when it was cut off, or is no compressed output."""
    if len(raw) >= _MOST_OUTPUT:
        return None
    try:
        packed = base64.b64decode(raw, validate=True)
        return gzip.decompress(packed).decode(errors="replace") if packed else ""
    except (ValueError, OSError, EOFError, binascii.Error):
        return None


def find_head_node(
    ec2: Any, ssm: Any, cluster: str, *, sleep: Callable[[float], None] = time.sleep
) -> Machine:
    """Return the head node of a cluster that runs; raises ClusterboxError when there is none."""
    pages = ec2.get_paginator("describe_instances").paginate(
        Filters=[
            {"Name": f"tag:{names.TAG_CLUSTER}", "Values": [cluster]},
            {"Name": f"tag:{names.TAG_NODE_TYPE}", "Values": ["HeadNode"]},
            {"Name": "instance-state-name", "Values": ["running"]},
        ]
    )
    found = [
        instance["InstanceId"]
        for page in pages
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
    ]
    if not found:
        raise ClusterboxError(f"no head node of {cluster} runs in this account and region")
    return Machine(found[0], ssm, sleep)
