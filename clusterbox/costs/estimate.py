"""What a site will cost by its files, before it exists: idle floor, worst case, and differences.

Only what the site makes is counted: a VPC, file system or bucket that is given costs its owner.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from clusterbox.clusters.composed import ComposedCluster
from clusterbox.costs.cluster_lines import cluster_lines
from clusterbox.costs.lines import Line
from clusterbox.costs.prices import Prices
from clusterbox.costs.site_lines import site_lines
from clusterbox.site.environment import Environment

ZERO = Decimal(0)


@dataclass(frozen=True)
class Total:
    """A sum of lines in USD a month, None where none of them has a price.

    `unpriced` is how many lines are not, or not wholly, in it.
    """

    idle: Decimal | None
    worst: Decimal | None
    unpriced: int


@dataclass(frozen=True)
class Estimate:
    """The lines of an environment or of a cluster, and which prices they are from."""

    lines: tuple[Line, ...]
    prices_title: str = ""

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts in the order of their lines: network, storage, admin box, site, clusters."""
        return tuple(dict.fromkeys(line.part for line in self.lines))

    @property
    def unpriced(self) -> tuple[Line, ...]:
        """The lines of which something has no price."""
        return tuple(line for line in self.lines if line.unknown is not None)

    def total(self, part: str | None = None) -> Total:
        """Return the sum of what is priced, of one part or of everything."""
        return _sum(line for line in self.lines if part in (None, line.part))


@dataclass(frozen=True)
class Change:
    """One item before and after; None where it is not there."""

    part: str
    item: str
    base: Line | None
    head: Line | None

    @property
    def idle_usd(self) -> Decimal | None:
        """More (or, negative, less) USD a month when idle; None where a side has no price."""
        return _delta(self.base, self.head, "idle")

    @property
    def worst_usd(self) -> Decimal | None:
        """More (or, negative, less) USD a month at most; None where a side has no price."""
        return _delta(self.base, self.head, "worst")


@dataclass(frozen=True)
class PartDifference:
    """The priced totals of one part before and after; None where the part is not there."""

    part: str
    base: Total | None
    head: Total | None

    @property
    def idle_before(self) -> Decimal | None:
        """Idle floor before, USD a month."""
        return None if self.base is None else self.base.idle

    @property
    def idle_after(self) -> Decimal | None:
        """Idle floor after, USD a month."""
        return None if self.head is None else self.head.idle

    @property
    def idle_difference(self) -> Decimal:
        """More (or, negative, less) USD a month when idle."""
        return (self.idle_after or ZERO) - (self.idle_before or ZERO)

    @property
    def worst_before(self) -> Decimal | None:
        """Worst case before, USD a month."""
        return None if self.base is None else self.base.worst

    @property
    def worst_after(self) -> Decimal | None:
        """Worst case after, USD a month."""
        return None if self.head is None else self.head.worst

    @property
    def worst_difference(self) -> Decimal:
        """More (or, negative, less) USD a month at most."""
        return (self.worst_after or ZERO) - (self.worst_before or ZERO)


@dataclass(frozen=True)
class Difference:
    """What a change of the files does to the costs.

    `changes` are the changed items only; `parts` are all parts of both sides, and `total` is their
    sum. `unpriced` are the lines that no total holds, or not wholly: those of head, and those that
    only base has. `prices_title` says which prices were used.
    """

    changes: tuple[Change, ...]
    parts: tuple[PartDifference, ...]
    total: PartDifference
    unpriced: tuple[Line, ...]
    prices_title: str


def estimate_environment(
    environment: Environment, clusters: Sequence[ComposedCluster], prices: Prices
) -> Estimate:
    """Return the lines of an environment: network, storage, admin box, site, then each cluster."""
    lines = site_lines(environment, prices)
    for cluster in clusters:
        lines += cluster_lines(cluster, prices)
    return Estimate(tuple(lines), prices.title)


def estimate_cluster(cluster: ComposedCluster, prices: Prices) -> Estimate:
    """Return the lines of one cluster, without the environment that it stands in."""
    return Estimate(tuple(cluster_lines(cluster, prices)), prices.title)


def difference(base: Estimate | None, head: Estimate | None) -> Difference:
    """Return what changes from base to head; None is an environment that is not there."""
    before = {(line.part, line.item): line for line in (base.lines if base else ())}
    after = {(line.part, line.item): line for line in (head.lines if head else ())}
    changes = [
        Change(part, item, before.get((part, item)), after.get((part, item)))
        for part, item in dict.fromkeys([*before, *after])
        if before.get((part, item)) != after.get((part, item))
    ]
    parts = dict.fromkeys([*(head.parts if head else ()), *(base.parts if base else ())])
    unpriced = [line for line in after.values() if line.unknown is not None]
    unpriced += [line for key, line in before.items() if line.unknown and key not in after]
    newest = head or base
    return Difference(
        tuple(changes),
        tuple(_compare_part(part, base, head) for part in parts),
        PartDifference("total", base.total() if base else None, head.total() if head else None),
        tuple(unpriced),
        newest.prices_title if newest else "",
    )


def _compare_part(part: str, base: Estimate | None, head: Estimate | None) -> PartDifference:
    return PartDifference(
        part,
        base.total(part) if base and part in base.parts else None,
        head.total(part) if head and part in head.parts else None,
    )


def _sum(lines: Iterable[Line]) -> Total:
    known = list(lines)
    return Total(
        add_amounts(line.idle for line in known),
        add_amounts(line.worst for line in known),
        sum(line.unknown is not None for line in known),
    )


def add_amounts(amounts: Iterable[Decimal | None]) -> Decimal | None:
    """Return the sum of the amounts that are known, None where none is."""
    known = [amount for amount in amounts if amount is not None]
    return sum(known, ZERO) if known else None


def _delta(base: Line | None, head: Line | None, figure: str) -> Decimal | None:
    before = getattr(base, figure) if base else ZERO
    after = getattr(head, figure) if head else ZERO
    return None if before is None or after is None else after - before
