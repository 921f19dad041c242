"""One price in exact decimals with its origin and confidence, and what is not known as a type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from enum import StrEnum

# AWS's own convention for a month, 365 days x 24 hours / 12.
HOURS_PER_MONTH = Decimal(730)


class Confidence(StrEnum):
    """How a price came about; docs/costs.md says what each is worth."""

    PUBLISHED = "published"  # read from AWS's price list
    LISTED = "listed"  # in the snapshot's source as it is here, and it fits its family
    PEER = "peer"  # of another region with the same prices, because this one's value was unusable
    COMPUTED = "computed"  # from the other sizes of the family
    VOTED = "voted"  # several independent values of the source agree on it
    CONFIRMED = "confirmed"  # from AWS's pricing page, seen in a second place
    RECALLED = "recalled"  # from AWS's pricing page, not seen in a second place


@dataclass(frozen=True, order=True)
class Key:
    """What has one price in one region: a product such as `ec2/linux`, and a name such as `m5.large`."""

    product: str
    name: str

    def __str__(self) -> str:
        """Return `product name`."""
        return f"{self.product} {self.name}"


@dataclass(frozen=True)
class Price:
    """USD for one unit, such as `hour` or `GB-month`, and where the figure came from."""

    usd: Decimal
    unit: str
    confidence: Confidence
    source: str

    def month(self) -> Decimal:
        """Return USD a month of 730 hours for a price by the hour, else for one unit."""
        return self.usd * HOURS_PER_MONTH if self.unit == "hour" else self.usd


@dataclass(frozen=True)
class Unknown:
    """There is no price; it is not zero. `nearest` are names of the same product that have one."""

    key: Key
    region: str
    reason: str
    nearest: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return one sentence."""
        hint = f"; known: {', '.join(self.nearest)}" if self.nearest else ""
        return f"no price of {self.key} in {self.region}: {self.reason}{hint}"


@dataclass(frozen=True)
class SpotHistory:
    """Spot prices of one instance type in a region over some days, in USD an hour.

    Whoever fetches the history computes the figures; there is no Spot price without one.
    """

    mean: Decimal
    median: Decimal
    percentile_95: Decimal
    days: int


@dataclass(frozen=True)
class PriceTable:
    """The prices of one region from one origin. `published` is when AWS had these prices."""

    region: str
    published: date
    source: str
    prices: Mapping[Key, Price] = field(repr=False)

    @property
    def products(self) -> frozenset[str]:
        """The products that the table has prices of."""
        return frozenset(key.product for key in self.prices)
