"""Amounts of money that add up: exact fractions of USD, with what could not be priced beside."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

ZERO = Fraction(0)


@dataclass(frozen=True)
class Amount:
    """USD that are known, and the seconds of use that have no price: they are not 0 USD."""

    usd: Fraction = ZERO
    unknown_seconds: Fraction = ZERO

    def __add__(self, other: Amount) -> Amount:
        """Return both together."""
        unknown = self.unknown_seconds
        # Fractions are slow, and nearly always nothing is unknown.
        if other.unknown_seconds:
            unknown += other.unknown_seconds
        return Amount(self.usd + other.usd, unknown)

    def __mul__(self, factor: Fraction | int) -> Amount:
        """Return a multiple or a share."""
        unknown = self.unknown_seconds * factor if self.unknown_seconds else ZERO
        return Amount(self.usd * factor, unknown)

    @property
    def is_known(self) -> bool:
        """Whether everything in it has a price."""
        return self.unknown_seconds == 0

    @property
    def is_nothing(self) -> bool:
        """Whether nothing was used at all."""
        return self.usd == 0 and self.unknown_seconds == 0


def add_amounts(amounts: Iterable[Amount]) -> Amount:
    """Return the sum; the order of the amounts does not matter, because fractions are exact."""
    usd = unknown = ZERO
    for amount in amounts:
        usd += amount.usd
        if amount.unknown_seconds:
            unknown += amount.unknown_seconds
    return Amount(usd, unknown)


def to_decimal(value: Fraction, digits: int) -> Decimal:
    """Return a fraction rounded to digits after the point, halves to the even one."""
    scaled = round(value * 10**digits)
    return (
        Decimal(scaled)
        .scaleb(-digits)
        .quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_EVEN)
    )


def round_parts(parts: Sequence[Fraction], digits: int) -> list[Decimal]:
    """Return the parts rounded so that their sum is the rounded sum (largest remainder method)."""
    unit = 10**digits
    floors = [part * unit // 1 for part in parts]
    remainders = [part * unit - floor for part, floor in zip(parts, floors, strict=True)]
    missing = round(sum(parts, ZERO) * unit) - sum(floors)
    largest = sorted(range(len(parts)), key=lambda at: (-remainders[at], at))
    for at in largest[:missing]:
        floors[at] += 1
    return [to_decimal(Fraction(floor, unit), digits) for floor in floors]


def render_amount(amount: Amount, rounded: Decimal) -> str:
    """Return an amount for a table: `1.25`, `unknown`, or `1.25 + unknown`."""
    if amount.is_known:
        return str(rounded)
    return "unknown" if amount.usd == 0 else f"{rounded} + unknown"
