from __future__ import annotations

from pathlib import Path

import pytest

from tests.site.cluster_texts import HEAD, budgets, cluster, environment_of, problems_of, queue


def demands(root: Path, text: str) -> list[tuple[str, int]]:
    """Return what the cluster puts into the one subnet, and how many addresses each needs."""
    found = budgets(environment_of(root, "10.0.0.0/16"), text)["compute.a"].only_here
    return [(demand.what, demand.addresses) for demand in found if "eco" in demand.what]


@pytest.mark.parametrize(
    ("resource", "demand"),
    [
        pytest.param("MaxCount: 3", ("MaxCount of q/n of eco", 3), id="a number"),
        pytest.param("MinCount: 0", ("MaxCount of q/n of eco", 10), id="none, which means ten"),
        pytest.param("MaxCount: '12'", ("MaxCount of q/n of eco", 12), id="a text"),
        pytest.param("MaxCount: 0", ("MaxCount of q/n of eco", 0), id="nothing"),
        pytest.param(
            "MaxCount: 2, InstanceType: p4d.24xlarge",
            ("MaxCount of q/n of eco x 4 network cards", 8),
            id="nodes with four network cards",
        ),
        pytest.param(
            "MaxCount: 2, Instances: [{InstanceType: c5.large}, {InstanceType: p5.48xlarge}]",
            ("MaxCount of q/n of eco x 32 network cards", 64),
            id="the type with the most network cards",
        ),
        pytest.param(
            "MaxCount: 2, Instances: 1.5", ("MaxCount of q/n of eco", 2), id="types that are none"
        ),
        pytest.param(
            "MaxCount: 2, InstanceType: p5.48xlarge, Efa: {Enabled: true}",
            ("MaxCount of q/n of eco", 2),
            id="one address a node with EFA",
        ),
        pytest.param(
            "MaxCount: 2, InstanceType: p5.48xlarge, Efa: {Enabled: 'true'}",
            ("MaxCount of q/n of eco", 2),
            id="one address a node with EFA as a text",
        ),
        pytest.param(
            "MaxCount: 2, InstanceType: p5.48xlarge, Efa: {Enabled: false}",
            ("MaxCount of q/n of eco x 32 network cards", 64),
            id="all network cards where EFA is off",
        ),
    ],
)
def test_a_compute_resource_needs(tmp_path: Path, resource: str, demand: tuple[str, int]) -> None:
    text = cluster(queue("q", ["compute.a"], resource))
    assert demands(tmp_path, text) == [("head node of eco", 1), demand]


def test_efa_interfaces_of_the_old_kind_have_addresses(tmp_path: Path) -> None:
    resource = "MaxCount: 1, InstanceType: p4d.24xlarge, Efa: {Enabled: true}"
    text = cluster(
        queue("q", ["compute.a"], resource), more="DevSettings: {EfaInterfaceType: efa}\n"
    )
    assert demands(tmp_path, text)[1] == ("MaxCount of q/n of eco x 4 network cards", 4)


def test_a_head_node_needs_an_address_for_each_network_card(tmp_path: Path) -> None:
    head = HEAD.replace("t3.medium", "c6in.32xlarge")
    assert demands(tmp_path, head) == [("head node of eco x 2 network cards", 2)]


def test_a_login_pool_needs_its_nodes_and_a_load_balancer(tmp_path: Path) -> None:
    pool = (
        "LoginNodes:\n  Pools:\n"
        "    - {Name: users, Count: 3, Networking: {SubnetIds: ['${network.compute.a}']}}\n"
    )
    assert demands(tmp_path, HEAD + pool) == [
        ("head node of eco", 1),
        ("login pool users of eco", 3),
        ("load balancer of login pool users of eco", 1),
    ]


ALLOWED = (
    "must name subnets of the environment as ${network.GROUP.ZONE}, where GROUP.ZONE is one of "
    "compute.a"
)


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        pytest.param(
            cluster(queue("q", ["compute.z"], "MaxCount: 1")),
            [
                f"eco.yaml:5: Scheduling.SlurmQueues[0].Networking: {ALLOWED} "
                "(found: '${network.compute.z}')"
            ],
            id="a subnet that the environment does not have",
        ),
        pytest.param(
            "HeadNode: {Networking: {SubnetId: subnet-0badc0de}}",
            [f"eco.yaml:1: HeadNode.Networking: {ALLOWED} (found: 'subnet-0badc0de')"],
            id="an id that the environment does not have",
        ),
        pytest.param(
            "Region: us-west-2",
            [f"eco.yaml:1: HeadNode.Networking: {ALLOWED}"],
            id="no head node",
        ),
        pytest.param(
            "HeadNode: [1]\n",
            [f"eco.yaml:1: HeadNode.Networking: {ALLOWED}"],
            id="a list where a head node belongs",
        ),
        pytest.param(
            cluster(queue("q", ["compute.a"], "MaxCount: many")),
            [
                "eco.yaml:6: Scheduling.SlurmQueues[0].ComputeResources[0].MaxCount: "
                "must be a whole number, 0 or more (found: 'many')"
            ],
            id="a count in words",
        ),
        pytest.param(
            cluster(queue("q", ["compute.a"], "MaxCount: -5")),
            [
                "eco.yaml:6: Scheduling.SlurmQueues[0].ComputeResources[0].MaxCount: "
                "must be a whole number, 0 or more (found: -5)"
            ],
            id="a count below zero",
        ),
        pytest.param(
            cluster(queue("q", ["compute.a"], "MaxCount: 1.5")),
            [
                "eco.yaml:6: Scheduling.SlurmQueues[0].ComputeResources[0].MaxCount: "
                "must be a whole number, 0 or more (found: 1.5)"
            ],
            id="a fraction of a count",
        ),
        pytest.param(
            cluster(queue("q", ["compute.a"], "MaxCount: true")),
            [
                "eco.yaml:6: Scheduling.SlurmQueues[0].ComputeResources[0].MaxCount: "
                "must be a whole number, 0 or more (found: true)"
            ],
            id="a truth value as a count",
        ),
        pytest.param(
            f"{HEAD}Scheduling: {{SlurmQueues: 7}}\nLoginNodes: {{Pools: {{Name: x}}}}",
            [
                "eco.yaml:2: Scheduling.SlurmQueues: must be a list (found: 7)",
                "eco.yaml:3: LoginNodes.Pools: must be a list (found: {'Name': 'x'})",
            ],
            id="queues and pools that are no lists",
        ),
        pytest.param(
            f"{HEAD}Scheduling: {{SlurmQueues: [eco]}}",
            [f"eco.yaml:2: Scheduling.SlurmQueues[0].Networking: {ALLOWED}"],
            id="queues that are names",
        ),
    ],
)
def test_what_cannot_be_counted_is_reported(tmp_path: Path, text: str, problems: list[str]) -> None:
    assert problems_of(environment_of(tmp_path, "10.0.0.0/16"), text) == problems


def test_sections_without_content_need_nothing(tmp_path: Path) -> None:
    text = f"{HEAD}Scheduling: null\nLoginNodes: {{Pools: []}}"
    assert demands(tmp_path, text) == [("head node of eco", 1)]
