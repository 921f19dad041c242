"""Environments and cluster configurations of which only the addresses matter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from clusterbox.errors import ProblemsError
from clusterbox.site.addresses import SubnetBudget, plan_addresses
from clusterbox.site.environment import Environment
from clusterbox.site.yaml_file import parse_yaml
from tests.site.site_files import EXISTING, edit, load

# An admin box in compute.a and a mount target in compute.a and in compute.b stand in each of these.
HEAD = "HeadNode: {InstanceType: t3.medium, Networking: {SubnetId: '${network.compute.a}'}}\n"


def environment_of(root: Path, *cidrs: str, aliases: str = "") -> Environment:
    """Return the environment with compute.a, compute.b and so on of these ranges."""
    zones = "".join(
        f"      {letter}: {{id: subnet-0000000{letter}, cidr: {cidr}}}\n"
        for letter, cidr in zip("abcdef", cidrs, strict=False)
    )
    old = EXISTING[EXISTING.index("      a: {id") : EXISTING.index("  ssh: {key_pair")]
    text = edit(EXISTING, old, zones + aliases)
    if len(cidrs) == 1:
        text = edit(text, "[compute.a, compute.b]", "[compute.a]")
    return load(root, text)


def queue(name: str, subnets: Sequence[str], resource: str) -> str:
    """Return a queue with one compute resource, whose keys are `resource`."""
    listed = ", ".join(f"'${{network.{subnet}}}'" for subnet in subnets)
    return (
        f"    - Name: {name}\n"
        f"      Networking: {{SubnetIds: [{listed}]}}\n"
        f"      ComputeResources: [{{Name: n, {resource}}}]\n"
    )


def cluster(*queues: str, head: str = HEAD, more: str = "") -> str:
    """Return a cluster configuration with these queues."""
    return f"{head}{more}Scheduling:\n  SlurmQueues:\n{''.join(queues)}" if queues else head + more


def budgets(environment: Environment, text: str) -> dict[str, SubnetBudget]:
    """Return the budget of each subnet where that one cluster, eco, stands."""
    file = parse_yaml(text, name="eco.yaml")
    return {budget.name: budget for budget in plan_addresses(environment, {"eco": file})}


def problems_of(environment: Environment, text: str) -> list[str]:
    """Return the lines of the error that the budget raises."""
    with pytest.raises(ProblemsError) as caught:
        budgets(environment, text)
    return [str(problem) for problem in caught.value.problems]
