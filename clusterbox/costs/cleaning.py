"""Rules that clean on-demand price lists in which some values are missing or of another tenancy.

Within a family of one generation the price is proportional to the size in its name: an xlarge costs
twice a large, and 24xlarge costs 24 xlarge. What does not fit is recognised as the price with
dedicated tenancy, which AWS lists 6 % or 10 % above the shared one, or as missing (0).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from clusterbox.costs.price import Confidence

# Region → instance type → USD an hour.
Listing = Mapping[str, Mapping[str, Decimal]]

# Dedicated tenancy costs 6 % more in families up to the fifth generation and some Graviton ones,
# 10 % more in most later ones (measured: nothing else occurs in proportional families).
DEDICATED = (Decimal("1.06"), Decimal("1.10"))
# AWS rounds to three to five digits after the point: i4i.large is 0.172 for 0.1716.
TOLERANCE = Decimal("0.006")
# Rounding counts twice in a surcharge: i3en.large is 0.226 shared and 0.241 dedicated.
SURCHARGE_TOLERANCE = Decimal("0.01")
# Share of a family's values that its unit price must explain.
EXPLAINED = Decimal("0.75")
_SMALL = {
    "nano": Decimal("0.25"),
    "micro": Decimal("0.5"),
    "small": Decimal(1),
    "medium": Decimal(2),
    "large": Decimal(4),
    "xlarge": Decimal(8),
}
_LARGE = re.compile(r"(?:metal-)?(\d+)xl(?:arge)?")


@dataclass(frozen=True)
class Cleaned:
    """A price that passed the rules, and by which one."""

    usd: Decimal
    confidence: Confidence


def size_factor(size: str) -> Decimal | None:
    """Return a size relative to `small`, AWS's normalization factor; None for `metal` and others.

    Source: "Instance size flexibility" in the Amazon EC2 user guide.
    """
    if size in _SMALL:
        return _SMALL[size]
    match = _LARGE.fullmatch(size)
    return _SMALL["xlarge"] * int(match[1]) if match else None


def clean_prices(
    listing: Listing,
    region: str,
    peers: Sequence[str],
    witnesses: Mapping[str, Sequence[Decimal]] | None = None,
) -> dict[str, Cleaned]:
    """Return the usable prices of a region by instance type.

    `peers` are regions whose prices are the same where both are right; `witnesses` are further
    values of a type, which only vote. A type that the region does not list is left out, and so is
    one for which no rule finds a price.
    """
    witnesses = witnesses or {}
    regions = (region, *peers)
    cleaned = {}
    for family, types in _families(listing[region]).items():
        observed = {
            kind: [listing[place].get(kind, Decimal(0)) for place in regions] for kind in types
        }
        factors = _factors(family, types)
        unit = family_unit(
            [
                (factors[kind], value)
                for kind, values in observed.items()
                for value in values
                if kind in factors
            ]
        )
        for kind, values in observed.items():
            factor = factors.get(kind)
            votes = [*values, *witnesses.get(kind, ())]
            expected = unit * factor if unit is not None and factor is not None else None
            found = vote(votes) if expected is None else _fit(values, expected, votes)
            if found is not None:
                cleaned[kind] = found
    return cleaned


def family_unit(values: Iterable[tuple[Decimal, Decimal]]) -> Decimal | None:
    """Return the price of one size unit in a proportional family, None where it is not one.

    `values` are pairs of size factor and price. The unit is the lowest that two sizes agree on, and
    it must explain three quarters of the values as the shared or the dedicated price.
    """
    known = [(factor, usd) for factor, usd in values if usd > 0]
    for unit in sorted(usd / factor for factor, usd in known):
        sizes = {factor for factor, usd in known if _is_near(usd, unit * factor)}
        explained = [
            1
            for factor, usd in known
            if _is_near(usd, unit * factor) or is_dedicated(usd, unit * factor)
        ]
        if len(sizes) >= 2 and len(explained) >= EXPLAINED * len(known):
            # The largest size has the most digits, so its price gives the most exact unit.
            largest = max(sizes)
            return next(
                usd / factor
                for factor, usd in known
                if factor == largest and _is_near(usd, unit * factor)
            )
    return None


def vote(values: Sequence[Decimal]) -> Cleaned | None:
    """Return the price that values of several regions and columns prove, or None.

    The lowest value counts when another one is the dedicated price to it, or when at least four
    values agree: about one value in five is the dedicated price, and three of one type sometimes
    all are. A value that is neither contradicts, and nothing is proved. Zeros do not count.
    """
    known = [usd for usd in values if usd > 0]
    if not known:
        return None
    lowest = min(known)
    same = [usd for usd in known if _is_near(usd, lowest)]
    above = [usd for usd in known if not _is_near(usd, lowest)]
    if not all(is_dedicated(usd, lowest) for usd in above):
        return None
    if above or len(same) >= 4:
        return Cleaned(lowest, Confidence.VOTED)
    return None


def is_dedicated(usd: Decimal, shared: Decimal) -> bool:
    """Return whether a price is the one with dedicated tenancy to a shared price."""
    return any(
        abs(usd - shared * surcharge) <= shared * SURCHARGE_TOLERANCE for surcharge in DEDICATED
    )


def _fit(values: Sequence[Decimal], expected: Decimal, votes: Sequence[Decimal]) -> Cleaned | None:
    """Return the price of a type in a proportional family; `values[0]` is the region's own."""
    own, *others = values
    if _is_near(own, expected):
        return Cleaned(own, Confidence.LISTED)
    if own > 0 and not is_dedicated(own, expected):
        return vote(votes)
    for other in others:
        if _is_near(other, expected):
            return Cleaned(other, Confidence.PEER)
    return Cleaned(expected.quantize(Decimal("0.00001")).normalize(), Confidence.COMPUTED)


def _families(types: Iterable[str]) -> dict[str, list[str]]:
    families = defaultdict(list)
    for kind in types:
        family, _, size = kind.partition(".")
        # A name without a size is a dedicated host; Macs are sold on dedicated hosts only.
        if size and not family.startswith("mac"):
            families[family].append(kind)
    return families


def _factors(family: str, types: Sequence[str]) -> dict[str, Decimal]:
    """Return the size factors of a family's types; `metal` is the whole machine, its largest size."""
    factors = {
        kind: factor
        for kind in types
        if (factor := size_factor(kind.partition(".")[2])) is not None
    }
    if factors and f"{family}.metal" in types:
        factors[f"{family}.metal"] = max(factors.values())
    return factors


def _is_near(usd: Decimal, expected: Decimal) -> bool:
    return abs(usd - expected) <= expected * TOLERANCE
