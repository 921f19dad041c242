"""Slurm's commands on a head node in AWS, one Run Command of Systems Manager each."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from clusterbox import run_command
from clusterbox.run_command import Machine, RunCommandError, TooMuchOutputError
from clusterbox.slurm import SlurmError

_SECONDS = 120.0


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
        machine = Machine(self.instance, self.ssm, self.sleep, comment="clusterbox costs limits")
        script = f"PATH=/opt/slurm/bin:$PATH\n{shlex.join(words)}"
        try:
            return machine.run(script, timeout_seconds=_SECONDS)
        except TooMuchOutputError as error:
            raise SlurmError(
                f"`{shlex.join(words)}` on {self.instance} printed more than Systems Manager "
                f"returns; run `clusterbox costs limits script {self.cluster}` there"
            ) from error
        except RunCommandError as error:
            if error.status == "Unreachable":
                raise SlurmError(f"the head node of {self.cluster}: {error}") from error
            said = error.said or error.output.strip() or "it said nothing"
            raise SlurmError(
                f"`{shlex.join(words)}` on {self.instance}: {error.status}: {said}"
            ) from error


def find_head_node(ec2: Any, ssm: Any, cluster: str) -> HeadNode:
    """Return the head node of a cluster that runs; raises ClusterboxError when there is none."""
    return HeadNode(cluster, run_command.find_head_node(ec2, ssm, cluster).instance, ssm)
