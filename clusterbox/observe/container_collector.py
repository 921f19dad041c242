"""The containers of a machine as Prometheus metrics."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from clusterbox.observe.containers import Container, EngineError
from clusterbox.observe.metrics import CONTAINERS, METRICS
from clusterbox.observe.refresh import Refreshed

REFRESH_SECONDS = 10.0
MOST_CONTAINERS = 200
_FIGURES = {
    "cpu_seconds_total": "cpu_seconds",
    "memory_bytes": "memory_bytes",
    "memory_limit_bytes": "memory_limit_bytes",
    "io_read_bytes_total": "read_bytes",
    "io_write_bytes_total": "write_bytes",
    "processes": "processes",
}

# The containers that have series, how many run, and the seconds that reading took.
_Answer = tuple[list[Container], int, float]


class Engine(Protocol):
    """What runs containers."""

    name: str

    def read(self, most: int) -> tuple[list[Container], int]:
        """Return the oldest containers, `most` of them, and how many run; raises EngineError."""


class ContainerCollector(Collector):
    """All engines; scrapes at the same time share one reading of each."""

    def __init__(
        self,
        engines: Sequence[Engine],
        *,
        refresh_seconds: float = REFRESH_SECONDS,
        most_containers: int = MOST_CONTAINERS,
    ) -> None:
        """`most_containers` of an engine have series; the rest is counted only."""
        self._most = most_containers
        self._answers = {
            engine.name: Refreshed(partial(self._ask, engine), refresh_seconds)
            for engine in engines
        }

    def describe(self) -> Iterable[Family]:
        """Return nothing: registering must not ask the engines."""
        return []

    def collect(self) -> Iterator[Family]:
        """Yield all metrics; of an engine that does not answer, only that."""
        found = {metric.name: _family(metric.name) for metric in CONTAINERS}
        for name, answer in sorted(self._answers.items()):
            try:
                containers, count, seconds = answer.get()
            except EngineError:
                found["clusterbox_container_engine_up"].add_metric([name], 0)
                continue
            found["clusterbox_container_engine_up"].add_metric([name], 1)
            found["clusterbox_containers"].add_metric([name], count)
            found["clusterbox_containers_left_out"].add_metric([name], count - len(containers))
            found["clusterbox_container_refresh_seconds"].add_metric([name], seconds)
            for container in containers:
                for figure, attribute in _FIGURES.items():
                    value = getattr(container, attribute)
                    if value is not None:
                        family = found[f"clusterbox_container_{figure}"]
                        family.add_metric([name, *container.labels], value)
        yield from found.values()

    def _ask(self, engine: Engine) -> _Answer:
        began = time.monotonic()
        containers, count = engine.read(self._most)
        return containers, count, time.monotonic() - began


def _family(name: str) -> GaugeMetricFamily:
    metric = METRICS[name]
    make: type = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family: GaugeMetricFamily = make(name, metric.help, labels=list(metric.labels))
    return family
