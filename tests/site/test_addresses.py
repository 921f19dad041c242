from __future__ import annotations

from pathlib import Path

from clusterbox.site.addresses import plan_addresses
from clusterbox.site.yaml_file import parse_yaml
from tests.site.cluster_texts import HEAD, budgets, cluster, environment_of, problems_of, queue
from tests.site.site_files import MADE, edit, load

# The three addresses that are taken in compute.a before any queue: admin box, mount target, head.


def test_a_queue_that_just_fits_into_its_only_subnet_is_accepted(tmp_path: Path) -> None:
    environment = environment_of(tmp_path, "10.0.0.0/28")
    budget = budgets(environment, cluster(queue("q", ["compute.a"], "MaxCount: 8")))["compute.a"]
    assert (budget.total, budget.usable, budget.needed, budget.free) == (16, 11, 11, 0)


def test_one_node_too_many_is_refused_with_the_arithmetic(tmp_path: Path) -> None:
    environment = environment_of(tmp_path, "10.0.0.0/28")
    assert problems_of(environment, cluster(queue("q", ["compute.a"], "MaxCount: 9"))) == [
        "environments/dev.yaml: network.subnets: compute.a (10.0.0.0/28) has (16 - 5) = 11 usable "
        "addresses, but 12 may be needed, 1 too many: 1 (admin box) + 1 (mount target of home) + "
        "1 (head node of eco) + 9 (MaxCount of q/n of eco) = 12"
    ]


def test_nodes_that_overflow_one_subnet_go_to_another(tmp_path: Path) -> None:
    environment = environment_of(tmp_path, "10.0.0.0/28", "10.0.1.0/28")
    both = queue("q", ["compute.a", "compute.b"], "MaxCount: 18")  # 11 - 3 and 11 - 1
    found = budgets(environment, cluster(both))
    assert [demand.what for demand in found["compute.b"].may_be_here] == ["MaxCount of q/n of eco"]
    assert found["compute.b"].free == 10


def test_nodes_that_overflow_two_subnets_together_are_refused(tmp_path: Path) -> None:
    environment = environment_of(tmp_path, "10.0.0.0/28", "10.0.1.0/28")
    both = queue("q", ["compute.a", "compute.b"], "MaxCount: 19")
    assert problems_of(environment, cluster(both)) == [
        "environments/dev.yaml: network.subnets: compute.a (10.0.0.0/28) and compute.b "
        "(10.0.1.0/28) together have (16 - 5) + (16 - 5) = 22 usable addresses, but 23 may be "
        "needed, 1 too many: 1 (admin box) + 1 (mount target of home) + 1 (head node of eco) + "
        "1 (mount target of home) + 19 (MaxCount of q/n of eco) = 23"
    ]


def test_a_full_subnet_leaves_a_queue_the_other_of_its_two(tmp_path: Path) -> None:
    environment = environment_of(tmp_path, "10.0.0.0/28", "10.0.1.0/28")
    alone = queue("alone", ["compute.a"], "MaxCount: 8")
    both = queue("both", ["compute.a", "compute.b"], "MaxCount: 10")
    assert budgets(environment, cluster(alone, both))["compute.a"].free == 0


def test_an_overflow_of_one_subnet_is_not_told_again_for_its_pairs(tmp_path: Path) -> None:
    environment = environment_of(tmp_path, "10.0.0.0/28", "10.0.1.0/28")
    alone = queue("alone", ["compute.a"], "MaxCount: 40")
    both = queue("both", ["compute.a", "compute.b"], "MaxCount: 1")
    assert [line.split(" has ")[0] for line in problems_of(environment, cluster(alone, both))] == [
        "environments/dev.yaml: network.subnets: compute.a (10.0.0.0/28)"
    ]


def test_queues_that_share_subnets_in_a_chain_are_added_up(tmp_path: Path) -> None:
    ranges = [f"10.0.{n}.0/28" for n in range(4)]
    environment = environment_of(tmp_path, *ranges)
    chain = cluster(
        queue("ab", ["compute.a", "compute.b"], "MaxCount: 14"),
        queue("cd", ["compute.c", "compute.d"], "MaxCount: 14"),
        queue("bc", ["compute.b", "compute.c"], "MaxCount: 13"),  # 4 + 14 + 14 + 13 > 44
    )
    assert problems_of(environment, chain) == [
        "environments/dev.yaml: network.subnets: compute.a (10.0.0.0/28) and compute.b "
        "(10.0.1.0/28) and compute.c (10.0.2.0/28) and compute.d (10.0.3.0/28) together have "
        "(16 - 5) + (16 - 5) + (16 - 5) + (16 - 5) = 44 usable addresses, but 45 may be needed, "
        "1 too many: 1 (admin box) + 1 (mount target of home) + 1 (head node of eco) + "
        "1 (mount target of home) + 14 (MaxCount of ab/n of eco) + 14 (MaxCount of cd/n of eco) + "
        "13 (MaxCount of bc/n of eco) = 45"
    ]


def test_the_clusters_of_an_environment_are_added_up(tmp_path: Path) -> None:
    environment = environment_of(tmp_path, "10.0.0.0/28")
    file = parse_yaml(cluster(queue("q", ["compute.a"], "MaxCount: 3")), name="eco.yaml")
    (budget,) = plan_addresses(environment, {"eco": file, "hpc": file})
    assert [(demand.what, demand.addresses) for demand in budget.only_here] == [
        ("admin box", 1),
        ("mount target of home", 1),
        ("head node of eco", 1),
        ("MaxCount of q/n of eco", 3),
        ("head node of hpc", 1),
        ("MaxCount of q/n of hpc", 3),
    ]


def test_an_alias_of_a_subnet_has_no_addresses_of_its_own(tmp_path: Path) -> None:
    alias = "    login:\n      a: {id: subnet-0000000a, cidr: 10.0.0.0/28}\n"
    environment = environment_of(tmp_path, "10.0.0.0/28", aliases=alias)
    queues = [queue(name, [f"{name}.a"], "MaxCount: 4") for name in ("compute", "login")]
    found = budgets(environment, cluster(*queues))
    assert {name: budget.free for name, budget in found.items()} == {"compute.a": 0}


def test_a_queue_in_a_subnet_and_its_alias_is_in_one_subnet(tmp_path: Path) -> None:
    alias = "    login:\n      a: {id: subnet-0000000a, cidr: 10.0.0.0/28}\n"
    environment = environment_of(tmp_path, "10.0.0.0/28", aliases=alias)
    found = budgets(environment, cluster(queue("q", ["compute.a", "login.a"], "MaxCount: 8")))
    assert found["compute.a"].free == 0


def test_a_subnet_may_be_named_by_its_id(tmp_path: Path) -> None:
    environment = environment_of(tmp_path, "10.0.0.0/28")
    text = cluster(head="HeadNode: {Networking: {SubnetId: subnet-0000000a}}\n")
    assert budgets(environment, text)["compute.a"].needed == 3


def test_interface_endpoints_take_one_address_a_service_and_subnet(tmp_path: Path) -> None:
    environment = load(tmp_path, edit(MADE, "services: [ec2, sts]", "services: [ec2, sts, ssm]"))
    found = budgets(environment, HEAD)
    assert [(demand.what, demand.addresses) for demand in found["compute.b"].only_here] == [
        ("mount target of home", 1),
        ("interface endpoints", 3),
    ]


def test_a_site_without_clusters_has_a_budget(tmp_path: Path) -> None:
    environment = environment_of(tmp_path, "10.0.0.0/28")
    (budget,) = plan_addresses(environment, {})
    assert budget.needed == 2
