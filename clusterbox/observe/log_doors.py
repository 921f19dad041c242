"""Ways to the logs of a cluster: its account's clients, and Slurm's commands where they answer."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusterbox.errors import ClusterboxError
from clusterbox.observe.log_nodes import SlurmDoor
from clusterbox.slurm import SlurmError

if TYPE_CHECKING:
    from clusterbox.clusters.composed import ComposedCluster
    from clusterbox.run_command import Machine


@dataclass(frozen=True)
class LogDoors:
    """boto3's clients of an account, and Slurm's commands; `slurm` is asked for only when needed."""

    client: Callable[[str], Any] = field(repr=False)
    slurm: Callable[[], SlurmDoor | None] = field(repr=False)


@dataclass(frozen=True)
class HeadNodeSlurm:
    """Slurm's commands on a head node in AWS, through Run Command of Systems Manager."""

    machine: Machine

    def run(self, *words: str) -> str:
        """Run a command and return what it printed, with times in UTC; raises SlurmError."""
        from botocore.exceptions import BotoCoreError, ClientError

        script = (
            "PATH=/opt/slurm/bin:$PATH TZ=UTC SLURM_TIME_FORMAT=standard\n"
            f"export PATH TZ SLURM_TIME_FORMAT\n{shlex.join(words)}"
        )
        try:
            return self.machine.run(script)
        except (ClusterboxError, BotoCoreError, ClientError) as error:
            raise SlurmError(f"`{words[0]}` on the head node: {error}") from error


def open_log_doors(root: Path, cluster: ComposedCluster, name: str, target: str) -> LogDoors:
    """Return the ways to a cluster's logs in AWS, or in the embedded account of this machine.

    Raises ClusterboxError where that account does not run, InputError for credentials of another
    account.
    """
    from clusterbox.deployment.targets import AwsTarget, find_embedded

    environment = cluster.environment
    if environment is None:
        raise ClusterboxError(f"{name} belongs to no environment, so nobody knows where it runs")
    if target == "aws":
        aws = AwsTarget(root, environment)
        aws.check_account()
        return LogDoors(aws.client, lambda: _head_node(aws.client, cluster.name))
    embedded = find_embedded(root, environment)
    if embedded is None:
        raise ClusterboxError(
            f"no embedded account of {environment.name} runs here: start it with `clusterbox "
            f"embedded up {environment.name}`, or read AWS with --target aws"
        )
    return LogDoors(embedded.client, lambda: _embedded_slurm(root, name))


def _head_node(client: Callable[[str], Any], cluster: str) -> SlurmDoor | None:
    from botocore.exceptions import BotoCoreError, ClientError

    from clusterbox.run_command import Machine, find_head_node

    try:
        machine = find_head_node(client("ec2"), client("ssm"), cluster)
    except (ClusterboxError, BotoCoreError, ClientError):
        return None  # Logs are there without a head node too, and say the same.
    return HeadNodeSlurm(Machine(machine.instance, machine.ssm, comment="clusterbox logs"))


def _embedded_slurm(root: Path, name: str) -> SlurmDoor | None:
    from clusterbox.embedded.slurm import SlurmCluster
    from clusterbox.embedded.slurm.state import cluster_folder

    slurm = SlurmCluster.attach(cluster_folder(root, name))
    return slurm.door if slurm else None
