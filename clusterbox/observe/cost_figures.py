"""The charges of a cluster as sums by component, queue and purchase option."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time

from clusterbox.costs.meter import Spending
from clusterbox.costs.meter_amount import Amount, add_amounts
from clusterbox.costs.meter_charges import Charge, Part
from clusterbox.costs.meter_rates import Rates
from clusterbox.costs.price import PriceTable
from clusterbox.costs.usage import Usage

# In the place of jobs, boot, idle and shutdown, where nobody knows which jobs ran.
COMPUTE = "compute"
_OF_JOBS = (Part.JOBS, Part.BOOT, Part.IDLE, Part.SHUTDOWN)
COMPONENTS = (*(part.replace(" ", "_") for part in Part), COMPUTE)

# Component, queue (empty where it is no queue's), purchase option (empty for what is no instance).
Place = tuple[str, str, str]


@dataclass(frozen=True)
class CostFigures:
    """USD an hour now, and USD since the month began, each by place; `projected` is USD a month."""

    hour: Mapping[Place, Amount]
    month: Mapping[Place, Amount]
    projected: Amount

    @property
    def spent(self) -> Amount:
        """USD since the month began."""
        return add_amounts(self.month.values())


def sum_spending(spending: Spending, usage: Usage, *, with_jobs: bool) -> CostFigures:
    """Return the sums; `with_jobs` says whether jobs are known, so that the rest is idle time."""
    purchases = {run.instance: run.purchase for run in usage.instances}
    return CostFigures(
        _sum(spending.hour, purchases, with_jobs),
        _sum(spending.month, purchases, with_jobs),
        spending.projected,
    )


def _sum(
    charges: Iterable[Charge], purchases: Mapping[str, str], with_jobs: bool
) -> dict[Place, Amount]:
    found: dict[Place, list[Amount]] = defaultdict(list)
    for charge in charges:
        known = with_jobs or charge.part not in _OF_JOBS
        component = charge.part.replace(" ", "_") if known else COMPUTE
        purchase = "unknown" if charge.part is Part.JOBS else ""
        if charge.part is not Part.ADDRESSES:
            purchase = purchases.get(charge.resource, purchase)
        found[component, charge.queue or "", purchase].append(charge.amount)
    return {place: add_amounts(amounts) for place, amounts in found.items()}


def price_times(rates: Rates) -> dict[str, float]:
    """Return of when the prices are, in seconds since 1970: on-demand, services, spot.

    What there are no prices of is left out. Spot prices are of when EC2 was last asked for them.
    """
    found = {}
    for name, is_instances in (("on-demand", True), ("services", False)):
        table = next((one for one in rates.prices.tables if _has(one, is_instances)), None)
        if table is not None:
            found[name] = _midnight(table.published)
    if rates.spot is not None:
        found["spot"] = float(rates.spot.until)
    return found


def _has(table: PriceTable, is_instances: bool) -> bool:
    return any(product.startswith("ec2/") == is_instances for product in table.products)


def _midnight(day: date) -> float:
    return datetime.combine(day, time(), UTC).timestamp()
