"""Measure the cost report of an embedded account with many machines, as a whole command."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from benchmarks.common import measure, tell
from clusterbox.deployment.targets import state_folder
from clusterbox.embedded.account import EmbeddedAccount
from clusterbox.site.load import Repository
from tests.deployment.conftest import copy_repository

MACHINES = 10_000
COST_COLUMNS = ("cost report of the embedded account", "seconds", "CPU seconds", "peak MiB", "aim")
_AT_ONCE = 1000
_TYPES = ("t3.small", "t3a.2xlarge", "m6i.2xlarge", "c6i.32xlarge")


def measure_costs(root: Path, runs: int) -> list[list[object]]:
    """Return a row for the report of 10,000 machines with a disk each, as table and as page."""
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy = copy_repository(root, folder / "site")
        environment = Repository(copy).load_environment("ws-dev")
        state = state_folder(copy, environment.name)
        account = EmbeddedAccount.start(
            state, account=environment.account, region=environment.region
        )
        try:
            fill(account, MACHINES)
            for form in ("table", "html"):
                words = ["costs", "report", "--format", form, "--output", str(folder / "report")]
                command = [sys.executable, "-m", "clusterbox.cli.main", *words]
                found = measure(command, dict(os.environ), copy, runs)
                figures = (
                    f"{found.seconds:.1f}",
                    f"{found.cpu_seconds:.1f}",
                    f"{found.peak_mib:.0f}",
                )
                rows.append([f"{MACHINES:,} machines, {form}", *figures, "< 10"])
                tell(f"{rows[-1][0]}: {found.seconds:.1f} s")
        finally:
            EmbeddedAccount.stop(state)
    return rows


def fill(account: EmbeddedAccount, machines: int) -> None:
    """Start as many machines, in a network of their own that has addresses for them."""
    ec2 = account.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.64.0.0/16")["Vpc"]["VpcId"]
    for index, start in enumerate(range(0, machines, _AT_ONCE)):
        count = min(_AT_ONCE, machines - start)
        # A subnet each: taking the next free address of a full one takes long.
        block = f"10.64.{index * 8}.0/21"
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock=block)["Subnet"]["SubnetId"]
        tags = [{"Key": "Name", "Value": f"node-{index}"}, {"Key": "Owner", "Value": f"o{index}"}]
        ec2.run_instances(
            ImageId="ami-067d504ae48dd3252",
            InstanceType=_TYPES[index % len(_TYPES)],
            MinCount=count,
            MaxCount=count,
            SubnetId=subnet,
            TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
        )
