"""A site for tests: deployed to an embedded account, with a real Slurm joined to one cluster.

    with rehearse(repository) as site:          # a copy of the repository: 25 s to deploy
        job = site.slurm.door.submit("sleep 60", "--partition=eco")
        print(site.on_head("squeue"))           # through Run Command, as a patch day does
        site.deploy()                           # after the files of site.root were changed

Needs Slurm's packages: mark such tests with `needs_slurm` of tests/slurm_cluster.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterbox.clusters.composed import compose_repository
from clusterbox.deployment.progress import Progress
from clusterbox.deployment.site import Site
from clusterbox.deployment.targets import EmbeddedTarget, find_embedded, state_folder
from clusterbox.embedded.account import EmbeddedAccount
from clusterbox.embedded.slurm import Options, SlurmCluster
from clusterbox.run_command import Machine, find_head_node
from clusterbox.site.environment import Environment
from clusterbox.site.load import Repository


@dataclass(frozen=True)
class Rehearsal:
    """A deployed site, and the Slurm of one of its clusters."""

    root: Path
    environment: Environment
    target: EmbeddedTarget
    cluster: str
    slurm: SlurmCluster

    @property
    def account(self) -> EmbeddedAccount:
        """The account."""
        return self.target.account

    def client(self, service: str) -> Any:
        """Return a boto3 client of the account."""
        return self.target.client(service)

    def deploy(self) -> None:
        """Bring the account to what the files now say."""
        open_site(self.root, self.environment.name).deploy("embedded", never)

    def head(self) -> Machine:
        """Return the head node, reached through Run Command."""
        return find_head_node(
            self.client("ec2"), self.client("ssm"), self.cluster, sleep=_quick_sleep
        )

    def on_head(self, script: str, *, timeout_seconds: float = 60) -> str:
        """Run a shell script as root on the head node; Slurm's commands are in its PATH."""
        prepared = f"PATH=/opt/slurm/bin:$PATH\n{script}"
        return self.head().run(prepared, timeout_seconds=timeout_seconds)

    def instances(
        self, node_type: str = "Compute", cluster: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the running instances of a cluster: HeadNode, Compute or LoginNode."""
        filters = [
            {"Name": "tag:parallelcluster:cluster-name", "Values": [cluster or self.cluster]},
            {"Name": "tag:parallelcluster:node-type", "Values": [node_type]},
            {"Name": "instance-state-name", "Values": ["running"]},
        ]
        pages = self.client("ec2").get_paginator("describe_instances").paginate(Filters=filters)
        return [i for page in pages for r in page["Reservations"] for i in r["Instances"]]

    def image_of(self, node: str) -> str:
        """Return the AMI of a node's instance."""
        instance = self.slurm.instances()[node]
        found = self.client("ec2").describe_instances(InstanceIds=[instance])
        return str(found["Reservations"][0]["Instances"][0]["ImageId"])


def _quick_sleep(seconds: float) -> None:
    time.sleep(min(seconds, 0.1))


def never(_question: str) -> bool:
    raise AssertionError("the embedded account is not asked about")


def open_site(root: Path, environment: str) -> Site:
    return Site(root, Repository(root).load_environment(environment), Progress())


@contextmanager
def rehearse(
    root: Path, *, cluster: str = "ws-eco", environment: str = "ws-dev", **options: Any
) -> Iterator[Rehearsal]:
    """Deploy the site of a copy of the repository and join a Slurm to a cluster; end both.

    `options` are those of `clusterbox.embedded.slurm.Options`, such as `boot_seconds`.
    """
    try:
        open_site(root, environment).deploy("embedded", never)
        loaded = Repository(root).load_environment(environment)
        target = find_embedded(root, loaded)
        assert target is not None
        with join_slurm(root, target.account, cluster, **options) as slurm:
            yield Rehearsal(root, loaded, target, cluster, slurm)
    finally:
        EmbeddedAccount.stop(state_folder(root, environment))


@contextmanager
def join_slurm(
    root: Path, account: EmbeddedAccount, cluster: str, **options: Any
) -> Iterator[SlurmCluster]:
    """Start a Slurm joined to a deployed cluster; ends it. Without accounting by default."""
    chosen = Options(**{"accounting": False, "boot_seconds": 0.2, "idle_seconds": 300, **options})
    composed = compose_repository(root, [cluster])[cluster]
    folder = root / ".clusterbox" / "slurm" / cluster
    with SlurmCluster.start(composed, folder, chosen, account=account) as slurm:
        yield slurm
