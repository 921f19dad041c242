"""What clusters cost as Prometheus metrics, from memory: a scrape asks nobody."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from clusterbox.costs.meter_amount import Amount
from clusterbox.observe.background import RESULTS, Background
from clusterbox.observe.cost_reader import ClusterCost
from clusterbox.observe.metrics import COST, METRICS

_SECONDS_PER_HOUR = 3600


class CostCollector(Collector):
    """The costs of clusters by name; those whose figures are too old only say so."""

    def __init__(
        self,
        clusters: Mapping[str, Background[ClusterCost]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` is the time of day, for the age of prices."""
        self._clusters = dict(clusters)
        self._clock = clock

    def describe(self) -> Iterable[Family]:
        """Return nothing: there is nothing to say before the first refresh."""
        return []

    def collect(self) -> Iterator[Family]:
        """Yield what is in memory."""
        found = {metric.name: _family(metric.name) for metric in COST}
        ages: dict[tuple[str, str], float] = {}
        for name, background in sorted(self._clusters.items()):
            state = background.state()
            if not state.was_asked:
                continue
            found["clusterbox_cost_up"].add_metric([name], state.answer is not None)
            for result in RESULTS:
                found["clusterbox_cost_refreshes_total"].add_metric(
                    [name, result], state.results[result]
                )
            if state.age_seconds is not None:
                found["clusterbox_cost_age_seconds"].add_metric([name], state.age_seconds)
            if state.answer is not None:
                _add_cost(found, name, state.answer)
                for kind, since in state.answer.price_times.items():
                    ages[state.answer.region, kind] = max(self._clock() - since, 0.0)
        for labels, age in sorted(ages.items()):
            found["clusterbox_price_age_seconds"].add_metric(list(labels), age)
        yield from found.values()


def _add_cost(found: Mapping[str, GaugeMetricFamily], name: str, cost: ClusterCost) -> None:
    figures = cost.figures
    found["clusterbox_cost_accounting"].add_metric([name], cost.with_jobs)
    for place in sorted({*figures.hour, *figures.month}):
        labels = [name, *place]
        hour = figures.hour.get(place, Amount())
        month = figures.month.get(place, Amount())
        _add_known(found["clusterbox_cost_usd_per_hour"], labels, hour)
        _add_known(found["clusterbox_cost_month_usd"], labels, month)
        unknown = float(hour.unknown_seconds / _SECONDS_PER_HOUR)
        found["clusterbox_cost_unknown"].add_metric(labels, unknown)
        found["clusterbox_cost_unknown_seconds"].add_metric(labels, float(month.unknown_seconds))
    spent = figures.spent
    _add_known(found["clusterbox_budget_spent_usd"], [name], spent)
    _add_known(found["clusterbox_budget_forecast_usd"], [name], figures.projected)
    if cost.budget_usd is not None:
        budget = float(cost.budget_usd)
        found["clusterbox_budget_usd"].add_metric([name], budget)
        if _is_told(spent):
            found["clusterbox_budget_remaining_usd"].add_metric([name], budget - float(spent.usd))


def _add_known(family: GaugeMetricFamily, labels: list[str], amount: Amount) -> None:
    """Add what is known of an amount; nothing where all of it is unknown, which is not 0."""
    if _is_told(amount):
        family.add_metric(labels, float(amount.usd))


def _is_told(amount: Amount) -> bool:
    return amount.is_known or amount.usd != 0


def _family(name: str) -> GaugeMetricFamily:
    metric = METRICS[name]
    make: type = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family: GaugeMetricFamily = make(name, metric.help, labels=list(metric.labels))
    return family
