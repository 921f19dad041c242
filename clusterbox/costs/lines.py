"""The lines of an estimate, and the sheet on which the lines of one part are written."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from clusterbox.costs.price import Price, Unknown
from clusterbox.costs.prices import Prices
from clusterbox.costs.snapshot import render_decimal

HOURS_PER_DAY = Decimal(24)
# Part of every gp3 volume (Amazon EBS user guide, "General Purpose SSD volumes").
GP3_FREE_IOPS = 3000
GP3_FREE_MIBPS = 125
# io1 and io2 are made with 100 IOPS where none are given (ParallelCluster's default).
PROVISIONED_IOPS = 100
# Above each, an IOPS of io2 costs less.
IO2_TIERS = (32000, 64000)


@dataclass(frozen=True)
class Line:
    """One item of an estimate in USD a month; an amount is None where it has no price.

    `idle` is what it costs when no job runs, `worst` when all nodes run all month (730 hours).
    `unknown` says what has no price, and then the amounts are None or lack that part.
    """

    part: str
    item: str
    quantity: str
    idle: Decimal | None
    worst: Decimal | None
    unknown: str | None = None
    note: str | None = None

    def typical(self, hours_a_day: Decimal, utilisation: Decimal) -> Decimal | None:
        """Return USD a month when the difference between idle and worst runs part of the time.

        `hours_a_day` are hours in which jobs run, 0 to 24; `utilisation` is the share of all nodes
        that then run, 0 to 1.
        """
        if self.idle is None or self.worst is None:
            return None
        return self.idle + (self.worst - self.idle) * hours_a_day / HOURS_PER_DAY * utilisation


class Sheet:
    """Collects the lines of one part."""

    def __init__(self, part: str, prices: Prices) -> None:
        self.part = part
        self.prices = prices
        self.lines: list[Line] = []

    def add(
        self,
        item: str,
        quantity: str,
        price: Price | Unknown,
        *,
        idle: Decimal | int,
        worst: Decimal | int | None = None,
        note: str | None = None,
    ) -> None:
        """Write `idle` and `worst` (the same where left out) units of a monthly or hourly price."""
        worst = idle if worst is None else worst
        if isinstance(price, Unknown):
            self.add_unknown(item, quantity, str(price), note=note)
            return
        month = price.month()
        self.lines.append(Line(self.part, item, quantity, month * idle, month * worst, note=note))

    def add_unknown(
        self, item: str, quantity: str, reason: str, *, note: str | None = None
    ) -> None:
        """Write an item that has no price."""
        self.lines.append(Line(self.part, item, quantity, None, None, reason, note))

    def add_usage(self, item: str, product: str, name: str, *, what: str, many: int = 100) -> None:
        """Write an item whose amount no file says: it has no price, only that of `many` units."""
        price = self.prices.find(product, name)
        if isinstance(price, Unknown):
            self.add_unknown(item, what, f"depends on {what}; {price}")
            return
        unit = price.unit.partition("-")[0]
        month = " a month" if price.unit.endswith("-month") else ""
        self.add_unknown(
            item, what, f"depends on {what}: {price.usd * many:.2f} USD{month} per {many} {unit}"
        )

    def add_volume(
        self,
        item: str,
        *,
        kind: str,
        gib: int | Decimal,
        iops: int | None,
        mibps: int | None,
        idle: int = 1,
        worst: int | None = None,
        note: str | None = None,
    ) -> None:
        """Write EBS volumes: their size, and the IOPS and throughput that are paid beside it."""
        worst = idle if worst is None else worst
        count = times(idle, worst)
        self.add(
            item,
            f"{count}{gib} GiB {kind}",
            self.prices.find("ebs", kind),
            idle=idle * gib,
            worst=worst * gib,
            note=note,
        )
        for name, amount in _provisioned(kind, iops, mibps):
            unit = "MiB/s" if name.endswith("throughput") else "IOPS"
            self.add(
                f"{item}, {name}",
                f"{count}{amount} {unit}",
                self.prices.find("ebs", name),
                idle=idle * amount,
                worst=worst * amount,
            )


def times(idle: int, worst: int) -> str:
    """Return how many of something there are: ``, `3 x ` or `0 to 3 x `."""
    if idle == worst:
        return "" if idle == 1 else f"{idle} x "
    return f"{idle} to {worst} x "


def usd(value: Decimal | None) -> str:
    """Return an amount in cents, `not priced` for None."""
    return "not priced" if value is None else f"{value:.2f}"


def rate(price: Price) -> str:
    """Return a price by its unit: `0.3008 USD/hour`."""
    return f"{render_decimal(price.usd)} USD/{price.unit}"


def _provisioned(kind: str, iops: int | None, mibps: int | None) -> list[tuple[str, int]]:
    """Return the paid IOPS and throughput of a volume by the name of their price."""
    found: list[tuple[str, int]] = []
    if kind == "gp3":
        found = [
            ("gp3.iops", (iops or 0) - GP3_FREE_IOPS),
            ("gp3.throughput", (mibps or 0) - GP3_FREE_MIBPS),
        ]
    elif kind == "io1":
        found = [("io1.iops", iops or PROVISIONED_IOPS)]
    elif kind == "io2":
        amount = iops or PROVISIONED_IOPS
        first, second = IO2_TIERS
        found = [
            ("io2.iops", min(amount, first)),
            ("io2.iops.tier2", min(amount, second) - first),
            ("io2.iops.tier3", amount - second),
        ]
    return [(name, amount) for name, amount in found if amount > 0]
