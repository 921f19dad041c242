"""Which of a queue's instance types an estimate counts with, and what to know about a type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from clusterbox.costs.lines import rate
from clusterbox.costs.price import Price, Unknown
from clusterbox.costs.prices import Prices

# Metrics that an instance with detailed monitoring pays for (Amazon CloudWatch pricing, example 1).
DETAILED_METRICS = 7
# Families whose instances pay for CPU above their baseline, which is how AWS starts them.
_UNLIMITED = {"t3": "t3", "t3a": "t3", "t4g": "t4g"}
# Strategies that take the first type which can be had, and the one that takes the cheapest.
_IN_ORDER = ("prioritized", "capacity-optimized-prioritized")
_CHEAPEST = "lowest-price"


@dataclass(frozen=True)
class Choice:
    """The instance prices of a compute resource: of a node that always runs, and of the dearest.

    `unknown` names the types without a price; the others are counted.
    """

    idle: Price | Unknown
    worst: Price | Unknown
    unknown: str | None
    note: str | None


def choose_prices(
    types: Sequence[str], prices: Prices, *, strategy: str, spot: bool, limit: Decimal | None
) -> Choice:
    """Return the prices that an estimate counts for a compute resource of one or more types.

    Any type may be the one that runs, so that the worst case is the dearest known. Nodes that
    always run are the cheapest with `lowest-price` and the first with a prioritized strategy; for
    what AWS chooses by capacity the dearest. Spot counts at the on-demand price, which it never
    exceeds, or at the configured limit where that is lower.
    """
    found = {name: prices.instance(name) for name in types}
    known = {name: price for name, price in found.items() if isinstance(price, Price)}
    missing = [str(price) for price in found.values() if isinstance(price, Unknown)]
    if not known:
        none = found[types[0]]
        return Choice(none, none, "; ".join(missing), None)
    worst = max(known, key=lambda name: known[name].usd)
    if strategy == _CHEAPEST:
        idle = min(known, key=lambda name: known[name].usd)
    elif strategy in _IN_ORDER and types[0] in known:
        idle = types[0]
    else:
        idle = worst
    notes = [f"{worst} at {rate(known[worst])}"]
    if spot:
        notes.append("Spot, at the on-demand price, which Spot does not exceed")
        history = prices.spot(worst)
        if isinstance(history, Price):
            notes.append(f"{rate(history)} {history.source}")
    notes += filter(None, [instance_note(worst, prices)])
    chosen = [_limit(known[name], limit) for name in (idle, worst)]
    return Choice(chosen[0], chosen[1], "; ".join(missing) or None, "; ".join(notes))


def instance_note(instance_type: str, prices: Prices) -> str | None:
    """Return what a price does not hold: surplus credits of a burstable type in unlimited mode."""
    family = _UNLIMITED.get(instance_type.partition(".")[0])
    if family is None:
        return None
    credit = prices.find("ec2/credits", family)
    more = f", {rate(credit)}" if isinstance(credit, Price) else ""
    return f"CPU above the baseline of a burstable type costs more{more}"


def _limit(price: Price, limit: Decimal | None) -> Price:
    if limit is None or price.usd <= limit:
        return price
    return Price(limit, price.unit, price.confidence, "SpotPrice of the configuration")
