"""From a budget in USD to what Slurm bills and allows."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterbox.costs.limits import BILLING_PER_USD_HOUR, LimitPlan, billing_minutes
from clusterbox.errors import InputError, ProblemsError
from clusterbox.site.budgets import AccountBudget
from tests.costs.limit_plans import DISK, cluster_of, plan_of, queue


def usd_hour(plan: LimitPlan, name: str, key: str = "CPU") -> Decimal:
    weights = {partition.name: partition.weights for partition in plan.partitions}
    return weights[name][key] / BILLING_PER_USD_HOUR


def test_a_cpu_bills_its_share_of_the_node_and_its_disk(tmp_path: Path) -> None:
    plan = plan_of(cluster_of(tmp_path))
    assert abs(usd_hour(plan, "eco") - (Decimal("0.384") + DISK) / 8) < Decimal("1e-8")


def test_the_dearest_type_counts(tmp_path: Path) -> None:
    plan = plan_of(cluster_of(tmp_path, queue("eco", "t3a.2xlarge", "m6i.2xlarge")))
    [partition] = plan.partitions
    assert partition.dearest_usd == Decimal("0.384") + DISK
    assert partition.cheapest_usd == Decimal("0.3008") + DISK
    assert abs(usd_hour(plan, "eco") - partition.dearest_usd / 8) < Decimal("1e-8")


def test_spot_bills_at_most_its_limit(tmp_path: Path) -> None:
    spot = queue("spot", "m6i.2xlarge", CapacityType="SPOT", resource={"SpotPrice": 0.2})
    plan = plan_of(cluster_of(tmp_path, spot))
    assert plan.partitions[0].dearest_usd == Decimal("0.2") + DISK


def test_cores_are_the_cpus_without_multithreading(tmp_path: Path) -> None:
    alone = queue("eco", "m6i.2xlarge", resource={"DisableSimultaneousMultithreading": True})
    plan = plan_of(cluster_of(tmp_path, alone))
    assert abs(usd_hour(plan, "eco") - (Decimal("0.384") + DISK) / 4) < Decimal("1e-8")


def test_memory_bills_only_where_it_is_a_resource(tmp_path: Path) -> None:
    plain = plan_of(cluster_of(tmp_path))
    assert set(plain.partitions[0].weights) == {"CPU"}
    assert "PriorityFlags" not in plain.settings
    by_memory = plan_of(cluster_of(tmp_path, EnableMemoryBasedScheduling=True))
    # 95 % of 32 GiB are the whole node.
    whole = usd_hour(by_memory, "eco", "Mem") * Decimal(31129) / 1024
    assert abs(whole - Decimal("0.384") - DISK) < Decimal("1e-6")
    assert by_memory.settings["PriorityFlags"] == "MAX_TRES"
    assert by_memory.partitions[0].setting.endswith("G")


def test_a_gpu_bills_its_share_of_the_node(tmp_path: Path) -> None:
    plan = plan_of(cluster_of(tmp_path, queue("gpu", "g4dn.xlarge")))
    assert usd_hour(plan, "gpu", "GRES/gpu") > Decimal("0.5")
    assert plan.settings["AccountingStorageTRES"] == "gres/gpu"


def test_the_cluster_without_nodes_is_paid_first(tmp_path: Path) -> None:
    plan = plan_of(cluster_of(tmp_path), monthly_usd=Decimal(100))
    # Head node 0.0416 USD/h, its disk, 6 alarms.
    assert Decimal(34) < plan.fixed_usd < Decimal(36)
    assert plan.wanted.minutes == billing_minutes(Decimal(100) - plan.fixed_usd)
    assert plan.unpriced == ("logs",)


def test_an_account_may_spend_no_more_than_the_cluster(tmp_path: Path) -> None:
    rich = AccountBudget(monthly_usd=Decimal(90), max_submit_jobs=7)
    poor = AccountBudget(monthly_usd=Decimal("0.5"))
    accounts = {"rich": rich, "poor": poor}
    wanted = plan_of(cluster_of(tmp_path), monthly_usd=Decimal(100), accounts=accounts).wanted
    assert wanted.accounts["rich"].minutes == wanted.minutes
    assert wanted.accounts["rich"].max_submit_jobs == 7
    assert wanted.accounts["poor"].minutes == 30_000_000


def test_static_nodes_are_not_paid_twice(tmp_path: Path) -> None:
    static = queue("eco", "m6i.2xlarge", resource={"MinCount": 2})
    without = plan_of(cluster_of(tmp_path))
    assert plan_of(cluster_of(tmp_path, static)).fixed_usd == without.fixed_usd


def test_a_budget_that_the_cluster_itself_spends_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"budgets\.clusters\.tiny\.monthly_usd: 30 USD"):
        plan_of(cluster_of(tmp_path), monthly_usd=Decimal(30))


def test_queues_without_a_known_price_are_all_refused(tmp_path: Path) -> None:
    queues = [
        queue("eco", "m6i.2xlarge", "z9.huge"),
        queue("blocks", "m6i.2xlarge", CapacityType="CAPACITY_BLOCK"),
        queue("good", "m6i.2xlarge"),
    ]
    with pytest.raises(ProblemsError) as caught:
        plan_of(cluster_of(tmp_path, *queues))
    first, second = map(str, caught.value.problems)
    assert "SlurmQueues[0].ComputeResources[0]" in first
    assert "no price of ec2/linux z9.huge" in first
    assert "SlurmQueues[1].ComputeResources[0]" in second
    assert "paid beforehand" in second


def test_the_account_of_slurm_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"accounts\.root"):
        plan_of(cluster_of(tmp_path), accounts={"root": AccountBudget(monthly_usd=Decimal(1))})


def test_slurm_has_room_for_more_jobs_than_a_user_may_have(tmp_path: Path) -> None:
    # At MaxJobCount sbatch waits and tries again, instead of refusing.
    assert plan_of(cluster_of(tmp_path)).settings["MaxJobCount"] == "20000"
    few = plan_of(cluster_of(tmp_path), max_submit_jobs=100)
    assert few.settings["MaxJobCount"] == "10000"


@given(
    cpus=st.integers(1, 10_000),
    usd=st.decimals("0.0021", "15", places=5, allow_nan=False, allow_infinity=False),
)
def test_cutting_a_jobs_billing_costs_less_than_a_thousandth(cpus: int, usd: Decimal) -> None:
    exact = usd * cpus * BILLING_PER_USD_HOUR
    assert 0 <= exact - int(exact) < exact / 1000


def test_an_amount_in_billing_minutes() -> None:
    assert billing_minutes(Decimal("1")) == 60_000_000
    assert billing_minutes(Decimal("0.01")) == 600_000
