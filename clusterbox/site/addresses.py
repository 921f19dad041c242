"""The address budget: whether every subnet has an IP address for all that may stand in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from clusterbox.errors import Problem, ProblemsError
from clusterbox.site.demands import ClusterReader, Demand, cluster_demands, site_demands
from clusterbox.site.environment import Environment
from clusterbox.site.network import ADDRESSES_KEPT_BY_AWS
from clusterbox.site.yaml_file import YamlFile


@dataclass(frozen=True)
class SubnetBudget:
    """One subnet: what it has, and what can only stand here or may also stand elsewhere."""

    name: str
    cidr: str
    total: int
    usable: int
    only_here: tuple[Demand, ...]
    may_be_here: tuple[Demand, ...]

    @property
    def needed(self) -> int:
        """Addresses needed by what can stand nowhere else."""
        return sum(demand.addresses for demand in self.only_here)

    @property
    def free(self) -> int:
        """Usable addresses left by what can stand nowhere else."""
        return self.usable - self.needed


def plan_addresses(
    environment: Environment, configs: Mapping[str, YamlFile]
) -> tuple[SubnetBudget, ...]:
    """Return the address budget of each private subnet; `configs` are the clusters by name.

    Raises ProblemsError where a cluster names a subnet the environment does not have, a count is
    not a number, or the demands cannot fit in any distribution over their subnets; the message
    then holds the arithmetic. A distribution may part a node's network cards between subnets,
    which AWS does not, so that a budget that only just fits may still be too small for such nodes.
    """
    network = environment.network
    canonical = _canonical_names(environment)
    problems: list[Problem] = []
    demands = [
        replace(demand, subnets=tuple(canonical[name] for name in demand.subnets))
        for demand in site_demands(environment)
    ]
    for cluster, config in configs.items():
        demands += cluster_demands(cluster, ClusterReader(config, canonical, problems))
    if problems:
        raise ProblemsError(sorted(problems, key=lambda problem: (problem.file, problem.line or 0)))
    names = list(dict.fromkeys(canonical[name] for name in network.subnet_names))
    budgets = tuple(
        SubnetBudget(
            name=name,
            cidr=str(network.subnet(name).cidr),
            total=network.subnet(name).cidr.num_addresses,
            usable=network.subnet(name).usable_addresses,
            only_here=tuple(d for d in demands if d.subnets == (name,)),
            may_be_here=tuple(d for d in demands if name in d.subnets and len(d.subnets) > 1),
        )
        for name in names
    )
    overflows = list(_find_overflows({budget.name: budget for budget in budgets}, demands))
    if overflows:
        file = f"environments/{environment.name}.yaml"
        raise ProblemsError([Problem(file, "network.subnets", message) for message in overflows])
    return budgets


def _canonical_names(environment: Environment) -> dict[str, str]:
    """Return for each subnet name, and each id, the first name of that subnet."""
    network = environment.network
    names: dict[str, str] = {}
    for name in network.subnet_names:
        identity = network.subnet(name).id
        names[name] = names.get(identity, name) if identity else name
        if identity:
            names.setdefault(identity, name)
    return names


def _find_overflows(
    budgets: Mapping[str, SubnetBudget], demands: Iterable[Demand]
) -> Iterator[str]:
    """Yield the arithmetic of each smallest set of subnets that cannot hold what must be in it.

    By Hall's theorem a distribution exists if and only if no set of subnets has fewer usable
    addresses than the demands need that can stand nowhere outside the set. Only unions of the
    demands' own subnet sets have to be looked at, and of these only the connected ones: the parts
    of any other would fail by themselves.
    """
    by_subnets: defaultdict[frozenset[str], list[Demand]] = defaultdict(list)
    for demand in demands:
        if demand.addresses:
            by_subnets[frozenset(demand.subnets)].append(demand)
    unions = set(by_subnets)
    frontier = list(by_subnets)
    while frontier:
        union = frontier.pop()
        larger = {union | kind for kind in by_subnets if union & kind} - unions
        unions |= larger
        frontier += larger
    reported: list[frozenset[str]] = []
    for subnets in sorted(unions, key=lambda s: (len(s), sorted(s))):
        inside = [d for kind, found in by_subnets.items() if kind <= subnets for d in found]
        needed = sum(d.addresses for d in inside)
        usable = sum(budgets[name].usable for name in subnets)
        if needed > usable and not any(found <= subnets for found in reported):
            reported.append(subnets)
            yield _render_overflow(
                [budgets[name] for name in sorted(subnets)], inside, needed, usable
            )


def _render_overflow(
    subnets: list[SubnetBudget], inside: list[Demand], needed: int, usable: int
) -> str:
    has = " + ".join(f"({b.total} - {ADDRESSES_KEPT_BY_AWS})" for b in subnets)
    names = " and ".join(f"{b.name} ({b.cidr})" for b in subnets)
    verb = "together have" if len(subnets) > 1 else "has"
    parts = " + ".join(f"{d.addresses} ({d.what})" for d in inside)
    return (
        f"{names} {verb} {has} = {usable} usable addresses, but {needed} may be needed, "
        f"{needed - usable} too many: {parts} = {needed}"
    )
