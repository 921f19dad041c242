"""What takes IP addresses in a site: its own machines and endpoints, and those of its clusters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from clusterbox.errors import Problem
from clusterbox.site.environment import Environment
from clusterbox.site.yaml_file import Location, YamlFile, value_at

# ParallelCluster gives a machine one network interface for each network card of its type. Each
# has an address, unless EFA is enabled: the interfaces past the first are then EFA-only and have
# none. Sources: "Network cards" in the Amazon EC2 user guide; `add_network_interfaces` of
# ParallelCluster 3.16.
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
_COUNT = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class Demand:
    """Addresses that one thing needs, in any of some subnets."""

    what: str
    addresses: int
    subnets: tuple[str, ...]


@dataclass(frozen=True)
class ClusterReader:
    """One cluster's configuration, the subnets it may name, and what in it cannot be read."""

    config: YamlFile
    canonical: Mapping[str, str]
    problems: list[Problem]

    def at(self, *location: str | int) -> Any:
        """Return the value at a location, or None where there is none."""
        return value_at(self.config.data, location)

    def items(self, *location: str | int) -> list[Any]:
        """Return the list at a location, empty where there is none."""
        found = self.at(*location)
        if found is not None and not isinstance(found, list):
            self.note(location, "must be a list", found)
        return found if isinstance(found, list) else []

    def count(self, *location: str | int, default: int) -> int:
        """Return the number at a location; CloudFormation makes texts of numbers."""
        found = self.at(*location)
        if found is None:
            return default
        if isinstance(found, bool) or not _COUNT.fullmatch(str(found)):
            self.note(location, "must be a whole number, 0 or more", found)
            return 0
        return int(str(found))

    def subnets(self, *location: str | int) -> tuple[str, ...]:
        """Return the environment's names of the subnets of the section at a location."""
        networking = (*location, "Networking")
        listed = self.at(*networking, "SubnetIds") or self.at(*networking, "SubnetId")
        names = []
        for text in listed if isinstance(listed, list) else [listed]:
            match = _SUBNET_REFERENCE.fullmatch(str(text))
            name = match[1] if match else str(text)
            if name in self.canonical:
                names.append(self.canonical[name])
            else:
                known = ", ".join(n for n in self.canonical if not n.startswith("subnet-"))
                self.note(
                    networking,
                    "must name subnets of the environment as ${network.GROUP.ZONE}, "
                    f"where GROUP.ZONE is one of {known}",
                    text,
                )
        return tuple(dict.fromkeys(names))

    def note(self, location: Location, message: str, value: object) -> None:
        """Keep a problem for the end, when all of them are reported."""
        self.problems.append(self.config.problem(location, message, value))


def site_demands(environment: Environment) -> Iterator[Demand]:
    """Yield what the environment itself puts into its private subnets."""
    network = environment.network
    if environment.admin_box is not None:
        yield Demand("admin box", 1, (environment.admin_box.subnet,))
    if environment.monitoring is not None:
        yield Demand("monitoring", 1, (environment.monitoring.subnet,))
    for name, file_system in environment.storage.file_systems.items():
        for subnet in file_system.subnets:
            yield Demand(f"mount target of {name}", 1, (subnet,))
    database = environment.accounting_database
    if database is not None and database.is_made_here:
        # One interface, and a free address wherever a replacement may have to be started.
        for subnet in database.subnets:
            yield Demand("accounting database", 1, (subnet,))
    if network.interface_endpoints is not None:
        count = len(network.interface_endpoints.services)
        for subnet in network.interface_endpoints.subnets:
            yield Demand("interface endpoints", count, (subnet,))


def cluster_demands(cluster: str, reader: ClusterReader) -> Iterator[Demand]:
    """Yield the most that a cluster may put into the subnets it names."""
    if head := reader.subnets("HeadNode"):
        cards = _network_cards(reader.at("HeadNode"))
        yield Demand(f"head node of {cluster}{_times(cards)}", cards, head)
    for index, pool in enumerate(reader.items("LoginNodes", "Pools")):
        where = ("LoginNodes", "Pools", index)
        label = f"login pool {value_at(pool, ('Name',))} of {cluster}"
        placed = reader.subnets(*where)
        yield Demand(label, reader.count(*where, "Count", default=0), placed)
        # ParallelCluster puts a network load balancer before each pool: one address a subnet.
        for subnet in placed:
            yield Demand(f"load balancer of {label}", 1, (subnet,))
    efa_has_addresses = reader.at("DevSettings", "EfaInterfaceType") == "efa"
    for index, queue in enumerate(reader.items("Scheduling", "SlurmQueues")):
        where = ("Scheduling", "SlurmQueues", index)
        placed = reader.subnets(*where)
        for number, resource in enumerate(reader.items(*where, "ComputeResources")):
            nodes = reader.count(
                *where, "ComputeResources", number, "MaxCount", default=DEFAULT_MAX_COUNT
            )
            has_efa = str(value_at(resource, ("Efa", "Enabled"))).lower() == "true"
            cards = 1 if has_efa and not efa_has_addresses else _network_cards(resource)
            label = f"{value_at(queue, ('Name',))}/{value_at(resource, ('Name',))} of {cluster}"
            yield Demand(f"MaxCount of {label}{_times(cards)}", nodes * cards, placed)


def _network_cards(machine: Any) -> int:
    """Return the most network cards of the instance types that a machine may have."""
    several = value_at(machine, ("Instances",))
    kinds = [
        value_at(machine, ("InstanceType",)),
        *(
            value_at(item, ("InstanceType",))
            for item in (several if isinstance(several, list) else ())
        ),
    ]
    return max(NETWORK_CARDS.get(str(kind), 1) for kind in kinds)


def _times(cards: int) -> str:
    return f" x {cards} network cards" if cards > 1 else ""
