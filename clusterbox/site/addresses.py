"""The address budget: whether every subnet has an IP address for all that may stand in it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from clusterbox.errors import Problem, ProblemsError
from clusterbox.site.environment import Environment
from clusterbox.site.network import ADDRESSES_KEPT_BY_AWS
from clusterbox.site.yaml_file import Location, YamlFile

# ParallelCluster gives a node one network interface, and so one address, for each network card
# of its type. Source: "Network cards" in the Amazon EC2 instance types guide.
NETWORK_CARDS = {
    "c6in.32xlarge": 2,
    "c6in.metal": 2,
    "dl1.24xlarge": 4,
    "hpc6id.32xlarge": 2,
    "hpc7a.12xlarge": 2,
    "hpc7a.24xlarge": 2,
    "hpc7a.48xlarge": 2,
    "hpc7a.96xlarge": 2,
    "m6idn.32xlarge": 2,
    "m6in.32xlarge": 2,
    "p4d.24xlarge": 4,
    "p4de.24xlarge": 4,
    "p5.48xlarge": 32,
    "p5e.48xlarge": 32,
    "p5en.48xlarge": 16,
    "r6idn.32xlarge": 2,
    "r6in.32xlarge": 2,
    "trn1.32xlarge": 8,
    "trn1n.32xlarge": 16,
}
# What ParallelCluster takes where a compute resource does not say MaxCount.
DEFAULT_MAX_COUNT = 10

_SUBNET_REFERENCE = re.compile(r"\$\{network\.([a-z][a-z0-9_]*\.[a-z])\}")


@dataclass(frozen=True)
class Demand:
    """Addresses that one thing needs, in any of some subnets."""

    what: str
    addresses: int
    subnets: tuple[str, ...]


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
    then holds the arithmetic.
    """
    network = environment.network
    canonical = _canonical_names(environment)
    problems: list[Problem] = []
    demands = [*_site_demands(environment)]
    for cluster, config in configs.items():
        demands += _cluster_demands(cluster, config, canonical, problems)
    if problems:
        raise ProblemsError(problems)
    demands = [
        Demand(d.what, d.addresses, tuple(dict.fromkeys(canonical[name] for name in d.subnets)))
        for d in demands
    ]
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


def _site_demands(environment: Environment) -> Iterator[Demand]:
    network = environment.network
    if environment.admin_box is not None:
        yield Demand("admin box", 1, (environment.admin_box.subnet,))
    for name, file_system in environment.storage.file_systems.items():
        for subnet in file_system.subnets:
            yield Demand(f"mount target of {name}", 1, (subnet,))
    if network.interface_endpoints is not None:
        count = len(network.interface_endpoints.services)
        for subnet in network.interface_endpoints.subnets:
            yield Demand("interface endpoints", count, (subnet,))


def _cluster_demands(
    cluster: str, config: YamlFile, canonical: Mapping[str, str], problems: list[Problem]
) -> Iterator[Demand]:
    data = config.data

    def subnets(*location: str | int) -> tuple[str, ...]:
        """Return the subnets that Networking at a location names, as names of the environment."""
        networking = _at(data, (*location, "Networking"))
        listed = _at(networking, ("SubnetIds",)) or [_at(networking, ("SubnetId",))]
        names = []
        for text in listed if isinstance(listed, list) else [listed]:
            match = _SUBNET_REFERENCE.fullmatch(str(text))
            name = match[1] if match else str(text)
            if name in canonical:
                names.append(canonical[name])
            elif match is None or not name:
                known = ", ".join(n for n in canonical if not n.startswith("subnet-"))
                problems.append(
                    config.problem(
                        (*location, "Networking"),
                        f"must name subnets of the environment, as ${{network.GROUP.ZONE}}: {known}",
                        text,
                    )
                )
        return tuple(names)

    def count(location: Location, default: int) -> int:
        value = _at(data, location)
        try:
            return default if value is None else int(str(value))
        except ValueError:
            problems.append(config.problem(location, "must be a whole number", value))
            return 0

    if head := subnets("HeadNode"):
        yield Demand(f"head node of {cluster}", 1, head)
    for index, pool in enumerate(_at(data, ("LoginNodes", "Pools")) or []):
        where: tuple[str | int, ...] = ("LoginNodes", "Pools", index)
        if placed := subnets(*where):
            name = _at(pool, ("Name",))
            yield Demand(f"login pool {name} of {cluster}", count((*where, "Count"), 0), placed)
            # ParallelCluster puts a network load balancer before each pool: one address a subnet.
            yield Demand(f"load balancer of login pool {name} of {cluster}", 1, placed)
    for index, queue in enumerate(_at(data, ("Scheduling", "SlurmQueues")) or []):
        where = ("Scheduling", "SlurmQueues", index)
        placed = subnets(*where)
        for number, resource in enumerate(_at(queue, ("ComputeResources",)) or []):
            if placed:
                nodes = count((*where, "ComputeResources", number, "MaxCount"), DEFAULT_MAX_COUNT)
                label = f"{_at(queue, ('Name',))}/{_at(resource, ('Name',))} of {cluster}"
                cards = max(
                    (NETWORK_CARDS.get(kind, 1) for kind in _instance_types(resource)), default=1
                )
                yield Demand(
                    f"MaxCount of {label}" + (f" x {cards} network cards" if cards > 1 else ""),
                    nodes * cards,
                    placed,
                )


def _find_overflows(
    budgets: Mapping[str, SubnetBudget], demands: Iterable[Demand]
) -> Iterator[str]:
    """Yield the arithmetic of each smallest set of subnets that cannot hold what must be in it.

    By Hall's theorem a distribution exists if and only if no set of subnets has fewer usable
    addresses than the demands need that can stand nowhere outside the set. Only unions of the
    demands' own subnet sets have to be looked at.
    """
    by_subnets: defaultdict[frozenset[str], list[Demand]] = defaultdict(list)
    for demand in demands:
        if demand.addresses:
            by_subnets[frozenset(demand.subnets)].append(demand)
    kinds = list(by_subnets)
    unions = (
        {
            frozenset().union(*chosen)
            for size in range(1, len(kinds) + 1)
            for chosen in combinations(kinds, size)
        }
        if len(kinds) <= 12
        else {frozenset(budgets), *kinds}
    )
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


def _instance_types(resource: Any) -> list[str]:
    single = _at(resource, ("InstanceType",))
    several = [_at(item, ("InstanceType",)) for item in _at(resource, ("Instances",)) or []]
    return [str(kind) for kind in [single, *several] if kind is not None]


def _at(data: Any, location: Location) -> Any:
    """Return the value at a location of YAML data, or None where there is none."""
    for part in location:
        if isinstance(data, dict):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            return None
    return data
