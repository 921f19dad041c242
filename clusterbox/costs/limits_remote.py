"""Slurm's commands on a head node in AWS, one Run Command of Systems Manager each."""

from __future__ import annotations

import base64
import binascii
import gzip
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from clusterbox.errors import ClusterboxError
from clusterbox.site import names
from clusterbox.slurm import SlurmError

_UNDER_WAY = ("Pending", "InProgress", "Delayed", "Cancelling")
_SECONDS = 120.0
_POLL_SECONDS = 1.0
# Systems Manager returns the first 24,000 characters of what a command prints.
_MOST_OUTPUT = 24_000


@dataclass(frozen=True)
class HeadNode:
    """The head node of a cluster; `ssm` is boto3's client."""

    cluster: str
    instance: str
    ssm: Any = field(repr=False)
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    def run(self, *words: str) -> str:
        """Run a command of Slurm as root and return what it printed.

        Raises SlurmError when it fails, when Systems Manager does not reach the node within two
        minutes, or when the answer is longer than Systems Manager returns.
        """
        # Compressed, as the accounts of a large cluster would not fit.
        script = f"set -euo pipefail\nPATH=/opt/slurm/bin:$PATH\n{shlex.join(words)} | gzip -c | base64 -w0"
        command = self.ssm.send_command(
            InstanceIds=[self.instance],
            DocumentName="AWS-RunShellScript",
            Comment="clusterbox costs limits",
            Parameters={"commands": [f"bash -c {shlex.quote(script)}"]},
        )["Command"]["CommandId"]
        answer = self._wait(command)
        output = str(answer.get("StandardOutputContent", ""))
        if answer["Status"] != "Success":
            said = str(answer.get("StandardErrorContent", "")).strip() or "it said nothing"
            raise SlurmError(
                f"`{shlex.join(words)}` on {self.instance}: {answer['Status']}: {said}"
            )
        try:
            if len(output) >= _MOST_OUTPUT:
                raise ValueError("cut off")
            return gzip.decompress(base64.b64decode(output, validate=True)).decode()
        except (ValueError, OSError, EOFError, binascii.Error) as error:
            raise SlurmError(
                f"`{shlex.join(words)}` on {self.instance} printed more than Systems Manager "
                f"returns; run `clusterbox costs limits script {self.cluster}` there"
            ) from error

    def _wait(self, command: str) -> dict[str, Any]:
        waited = 0.0
        while waited < _SECONDS:
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
        raise SlurmError(
            f"Systems Manager did not reach the head node {self.instance} within {_SECONDS:g} s; "
            f"is its agent running?"
        )


def find_head_node(ec2: Any, ssm: Any, cluster: str) -> HeadNode:
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
    return HeadNode(cluster, found[0], ssm)
