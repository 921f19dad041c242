"""What each second of use costs: instances by type, purchase and time, and storage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC
from fractions import Fraction

from clusterbox.costs.meter_time import Period, month_of
from clusterbox.costs.price import Price, Unknown
from clusterbox.costs.prices import Prices
from clusterbox.costs.spot import SpotPrices
from clusterbox.costs.usage import InstanceRun, Storage

SECONDS_PER_HOUR = 3600
# Linux instances are billed by the second, and at least so many after each start
# (Amazon EC2 on-demand pricing, "Per Second Billing").
LEAST_SECONDS = 60
# A Spot instance that AWS interrupts in its first hour costs nothing (Amazon EC2 user guide,
# "Billing for interrupted Spot Instances": Windows and Linux, excluding SUSE).
FREE_SECONDS = 3600

# From, to, and USD a second; None where there is no price.
Piece = tuple[int, int, Fraction | None]


@dataclass(frozen=True)
class Rates:
    """The prices of a region: on demand and services, and Spot where a history is known."""

    prices: Prices
    spot: SpotPrices | None = None

    def instance(self, run: InstanceRun, period: Period) -> Iterator[Piece]:
        """Yield the pieces of constant price of an instance within a period."""
        if is_free(run):
            yield period.start, period.end, Fraction(0)
        elif run.purchase == "spot":
            yield from self._spot(run, period)
        else:
            price = self.prices.instance(run.instance_type)
            rate = None
            if run.purchase == "on-demand" and isinstance(price, Price):
                rate = Fraction(price.usd) / SECONDS_PER_HOUR
            yield period.start, period.end, rate

    def storage(self, item: Storage, period: Period) -> Iterator[Piece]:
        """Yield the pieces of constant price of storage, of which each month has its own.

        A price by the month is spread over the seconds of the calendar month in UTC, as AWS does
        (Amazon EBS pricing: 12 hours of a month of 30 days are 43,200 of 86,400 x 30 seconds).
        """
        price = self.prices.find(item.product, item.name)
        start = period.start
        while start < period.end:
            month = month_of(start, UTC)
            end = min(month.end, period.end)
            yield start, end, _storage_rate(price, item, month)
            start = end

    def address(self, period: Period) -> Iterator[Piece]:
        """Yield the price of one public IPv4 address in use."""
        price = self.prices.find("vpc", "public_ipv4")
        rate = None if isinstance(price, Unknown) else Fraction(price.usd) / SECONDS_PER_HOUR
        yield period.start, period.end, rate

    def explain(self, run: InstanceRun) -> str:
        """Return why an instance has no price."""
        if run.purchase == "capacity-block":
            return f"{run.instance_type}: capacity blocks are paid when they are bought"
        if run.purchase == "spot":
            known = self.spot is not None and (run.instance_type, run.zone) in self.spot.changes
            what = "not from the beginning" if known else "none"
            return (
                f"Spot {run.instance_type} in {run.zone}: price history {what}; "
                f"`clusterbox costs prices refresh --spot` fetches it"
            )
        return str(self.prices.instance(run.instance_type))

    def _spot(self, run: InstanceRun, period: Period) -> Iterator[Piece]:
        if self.spot is None:
            yield period.start, period.end, None
            return
        for start, end, usd in self.spot.pieces(
            run.instance_type, run.zone, period.start, period.end
        ):
            yield start, end, None if usd is None else Fraction(usd) / SECONDS_PER_HOUR


def billed_period(run: InstanceRun, horizon: int) -> Period:
    """Return the time that AWS bills: to the end, at least 60 s; to `horizon` while it runs."""
    if run.end is None:
        return Period(run.start, max(run.start, horizon))
    return Period(run.start, max(run.end, run.start + LEAST_SECONDS))


def is_free(run: InstanceRun) -> bool:
    """Return whether AWS took a Spot instance back within its first hour."""
    return (
        run.purchase == "spot"
        and run.interrupted
        and run.end is not None
        and run.end - run.start < FREE_SECONDS
    )


def _storage_rate(price: Price | Unknown, item: Storage, month: Period) -> Fraction | None:
    if isinstance(price, Unknown):
        return None
    seconds = SECONDS_PER_HOUR if price.unit.endswith("hour") else month.seconds
    return Fraction(price.usd) * Fraction(item.amount) / seconds
