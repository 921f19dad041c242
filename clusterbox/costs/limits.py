"""From a cluster's budget in USD to Slurm's limits: what a node-hour bills, and how much may be billed.

One unit of Slurm's `billing` is one millionth of a USD per hour, so that a billing-minute is money.
Slurm cuts the billing of a job to a whole number: at most one unit, which is less than 0.1 % for
every job that costs 0.001 USD an hour or more. The cheapest CPU of EC2 (t4g.nano) costs 0.0021.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from pathlib import Path
from typing import Any

from clusterbox.clusters.composed import ComposedCluster
from clusterbox.costs.cluster_lines import cluster_lines
from clusterbox.costs.cluster_storage import add_root_volume
from clusterbox.costs.limits_apply import AccountLimit, Wanted, qos_name
from clusterbox.costs.lines import Line, Sheet
from clusterbox.costs.machines import choose_prices
from clusterbox.costs.native import decimal, mapping, mappings
from clusterbox.costs.price import HOURS_PER_MONTH, Price, Unknown
from clusterbox.costs.prices import Prices
from clusterbox.embedded.slurm.queues import NodeGroup, plan_queues
from clusterbox.errors import InputError, Problem, ProblemsError
from clusterbox.instance_types import InstanceSize, read_sizes
from clusterbox.site.budgets import ClusterBudget
from clusterbox.site.yaml_file import value_at

# Billing of one USD an hour, and billing-minutes of one USD.
BILLING_PER_USD_HOUR = 1_000_000
MINUTES_PER_USD = BILLING_PER_USD_HOUR * 60
# Weights are written with this precision; jobs are never billed less than they cost.
_WEIGHT = Decimal("0.001")
_MIB_PER_GIB = 1024
# Slurm's own MaxJobCount. When it is reached sbatch waits and tries again, rather than to fail.
_MAX_JOB_COUNT = 10_000


@dataclass(frozen=True)
class PartitionPlan:
    """What a partition bills: Slurm's weights, and the USD an hour of a node that they come from.

    `dearest_usd` counts for every node, whichever type it is; `cheapest_usd` is what the cheapest
    type costs. Both hold the node's own disk.
    """

    name: str
    weights: Mapping[str, Decimal]
    dearest_usd: Decimal
    cheapest_usd: Decimal

    @property
    def setting(self) -> str:
        """The value of `TRESBillingWeights`."""
        return ",".join(
            f"{name}={weight}{'G' if name == 'Mem' else ''}"
            for name, weight in self.weights.items()
        )


@dataclass(frozen=True)
class LimitPlan:
    """What Slurm has to have for a budget.

    `fixed_usd` is what the cluster costs a month without any node, `jobs_usd` what is left of the
    budget for jobs; `unpriced` are items of the former whose cost depends on use. `settings` belong
    in slurm.conf and `wanted` in the accounting database.
    """

    cluster: str
    monthly_usd: Decimal
    fixed_usd: Decimal
    unpriced: tuple[str, ...]
    partitions: tuple[PartitionPlan, ...]
    settings: Mapping[str, str]
    wanted: Wanted
    prices_title: str

    @property
    def jobs_usd(self) -> Decimal:
        """USD a month for jobs."""
        return self.monthly_usd - self.fixed_usd


def billing_minutes(usd: Decimal) -> int:
    """Return how many billing-minutes an amount is, rounded down."""
    return int((usd * MINUTES_PER_USD).to_integral_value(ROUND_FLOOR))


def plan_limits(
    cluster: ComposedCluster,
    budget: ClusterBudget,
    prices: Prices,
    sizes: Mapping[str, InstanceSize],
) -> LimitPlan:
    """Return the limits of a cluster; `sizes` are those of instance types.

    Raises ProblemsError with every queue whose price is not known: without one its jobs would be
    billed next to nothing. Raises InputError when the budget does not pay for the cluster itself,
    or an account has a name that Slurm needs.
    """
    if "root" in budget.accounts:
        raise InputError(
            f"budgets.clusters.{cluster.name}.accounts.root: root is Slurm's account of the whole "
            f"cluster; its limit is monthly_usd of the cluster"
        )
    fixed, unpriced = _fixed_usd(cluster, prices)
    if fixed >= budget.monthly_usd:
        raise InputError(
            f"budgets.clusters.{cluster.name}.monthly_usd: {budget.monthly_usd} USD are spent by "
            f"the cluster itself ({fixed:.2f} USD a month without any node), so no job could run; "
            f"raise it"
        )
    partitions = _plan_partitions(cluster, prices, sizes)
    settings = _settings(budget, partitions)
    minutes = billing_minutes(budget.monthly_usd - fixed)
    wanted = Wanted(
        qos=qos_name(cluster.name),
        minutes=minutes,
        max_wall_minutes=budget.max_wall_hours * 60,
        max_submit_jobs=budget.max_submit_jobs,
        accounts={
            # At submit Slurm compares a job with its account's limit only, where that has one.
            name: AccountLimit(
                min(billing_minutes(account.monthly_usd), minutes), account.max_submit_jobs
            )
            for name, account in budget.accounts.items()
        },
        settings=settings,
        partitions={partition.name: partition.setting for partition in partitions},
    )
    return LimitPlan(
        cluster=cluster.name,
        monthly_usd=budget.monthly_usd,
        fixed_usd=fixed,
        unpriced=unpriced,
        partitions=partitions,
        settings=settings,
        wanted=wanted,
        prices_title=prices.title,
    )


def _fixed_usd(cluster: ComposedCluster, prices: Prices) -> tuple[Decimal, tuple[str, ...]]:
    """Return what the cluster costs a month without its nodes, and which items are not in it."""
    lines = [line for line in cluster_lines(cluster, prices) if not _is_of_queue(line)]
    known = [line.idle for line in lines if line.idle is not None]
    return sum(known, Decimal(0)), tuple(line.item for line in lines if line.unknown is not None)


def _is_of_queue(line: Line) -> bool:
    return line.item.startswith("queue ")


def _settings(budget: ClusterBudget, partitions: Sequence[PartitionPlan]) -> dict[str, str]:
    """Return the parameters of slurm.conf without which the limits would not hold."""
    weighed = {name for partition in partitions for name in partition.weights}
    most = max(budget.max_submit_jobs, budget.max_array_size)
    settings = {
        # Limits count only for users that Slurm knows; `safe`: no job starts that could not end.
        "AccountingStorageEnforce": "associations,limits,qos,safe",
        # Only this plugin keeps the usage that GrpTRESMins is compared with.
        "PriorityType": "priority/multifactor",
        # Without decay, and from 0 on the first of each month.
        "PriorityDecayHalfLife": "0",
        "PriorityUsageResetPeriod": "MONTHLY",
        "MaxArraySize": str(budget.max_array_size),
        "MaxJobCount": str(max(_MAX_JOB_COUNT, 2 * most)),
    }
    if len(weighed) > 1:
        # A job pays for what it takes most of: a share of the CPUs, the memory or the GPUs.
        settings["PriorityFlags"] = "MAX_TRES"
    if "GRES/gpu" in weighed:
        settings["AccountingStorageTRES"] = "gres/gpu"
    return settings


def _plan_partitions(
    cluster: ComposedCluster, prices: Prices, sizes: Mapping[str, InstanceSize]
) -> tuple[PartitionPlan, ...]:
    groups = {
        group.prefix: group
        for queue in plan_queues(cluster.configuration, sizes)
        for group in queue.groups
    }
    by_memory = bool(
        value_at(
            cluster.configuration, ("Scheduling", "SlurmSettings", "EnableMemoryBasedScheduling")
        )
    )
    plans: list[PartitionPlan] = []
    problems: list[Problem] = []
    for index, queue in enumerate(_queues(cluster)):
        nodes: list[tuple[NodeGroup, Decimal, Decimal]] = []
        for number, resource in enumerate(mappings(queue.get("ComputeResources"))):
            members = [
                groups[prefix]
                for kind in ("st", "dy")
                if (prefix := f"{queue.get('Name')}-{kind}-{resource.get('Name')}") in groups
            ]
            cost = _node_usd(cluster, queue, resource, prices)
            if isinstance(cost, str):
                location = (*_QUEUES, index, "ComputeResources", number)
                problems.append(cluster.file.problem(location, cost))
            elif members:
                nodes.append((members[0], *cost))
        if nodes:
            plans.append(_plan_partition(str(queue["Name"]), nodes, by_memory=by_memory))
    if problems:
        raise ProblemsError(problems)
    return tuple(plans)


_QUEUES = ("Scheduling", "SlurmQueues")


def _queues(cluster: ComposedCluster) -> Iterator[Mapping[str, Any]]:
    return mappings(value_at(cluster.configuration, _QUEUES))


def _plan_partition(
    name: str, nodes: Sequence[tuple[NodeGroup, Decimal, Decimal]], *, by_memory: bool
) -> PartitionPlan:
    """Return the weights of a partition; of several compute resources the dearest unit counts."""
    weights = {"CPU": _weight(usd / group.cpus for group, usd, _ in nodes)}
    # Where memory is no resource, Slurm counts none of it for a job that runs, but all of the
    # node's for one that is submitted: such a weight would refuse jobs that fit.
    if by_memory:
        shares = (usd * _MIB_PER_GIB / group.memory_mib for group, usd, _ in nodes)
        weights["Mem"] = _weight(shares)
    if any(group.gpus for group, _, _ in nodes):
        weights["GRES/gpu"] = _weight(usd / group.gpus for group, usd, _ in nodes if group.gpus)
    return PartitionPlan(
        name,
        weights,
        dearest_usd=max(usd for _, usd, _ in nodes),
        cheapest_usd=min(usd for _, _, usd in nodes),
    )


def _weight(usd_hours: Iterator[Decimal]) -> Decimal:
    return (max(usd_hours) * BILLING_PER_USD_HOUR).quantize(_WEIGHT, ROUND_CEILING)


def _node_usd(
    cluster: ComposedCluster,
    queue: Mapping[str, Any],
    resource: Mapping[str, Any],
    prices: Prices,
) -> tuple[Decimal, Decimal] | str:
    """Return USD an hour of a node of the dearest and of the cheapest type, or why neither is known."""
    types = [
        str(entry["InstanceType"])
        for entry in [*mappings(resource.get("Instances")), resource]
        if entry.get("InstanceType")
    ]
    capacity = str(queue.get("CapacityType", "ONDEMAND")).upper()
    if not types or capacity == "CAPACITY_BLOCK":
        return "a capacity that was paid beforehand has no price by the hour to limit jobs by"
    spot = capacity == "SPOT"
    limit = decimal(resource.get("SpotPrice")) if spot else None
    strategy = str(queue.get("AllocationStrategy", "lowest-price"))
    choice = choose_prices(types, prices, strategy=strategy, spot=spot, limit=limit)
    if choice.unknown or isinstance(choice.worst, Unknown):
        return (
            f"{choice.unknown or choice.worst}; its jobs cannot be limited in USD: "
            f"`clusterbox costs prices refresh` fetches prices, or take the type out"
        )
    cheapest = min(price.usd for name in types if isinstance(price := prices.instance(name), Price))
    disk = _disk_usd(cluster, mapping(queue.get("ComputeSettings")), prices)
    if isinstance(disk, str):
        return f"its root volume: {disk}"
    return choice.worst.usd + disk, min(cheapest, choice.worst.usd) + disk


def _disk_usd(
    cluster: ComposedCluster, settings: Mapping[str, Any], prices: Prices
) -> Decimal | str:
    """Return USD an hour of a node's root volume, or why it is not known."""
    sheet = Sheet(cluster.name, prices)
    add_root_volume(sheet, "root volume", cluster, settings)
    total = Decimal(0)
    for line in sheet.lines:
        if line.worst is None or line.unknown is not None:
            return line.unknown or "no price"
        total += line.worst / HOURS_PER_MONTH
    return total


def load_plan(root: Path, cluster: ComposedCluster, prices: Prices) -> LimitPlan | None:
    """Return the limits of a cluster of a repository, None when its file gives it no budget.

    Raises what `plan_limits` does, and InputError for a cluster that belongs to no environment.
    """
    if cluster.environment is None:
        raise InputError(f"{cluster.name} belongs to no environment, whose file holds budgets")
    budgets = cluster.environment.budgets
    budget = budgets.clusters.get(cluster.name) if budgets else None
    if budget is None:
        return None
    return plan_limits(cluster, budget, prices, read_sizes(root / ".venv-pcluster"))
