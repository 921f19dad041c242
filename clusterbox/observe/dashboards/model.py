"""A dashboard as what it shows; render.py makes Grafana's JSON of it, page.py a page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["timeseries", "stat", "bargauge", "table"]
# Grafana's names of units (packages/grafana-data: valueFormats/categories.ts).
Unit = Literal[
    "short", "none", "percentunit", "s", "µs", "bytes", "Bps", "currencyUSD", "watt", "celsius"
]
Color = Literal["green", "yellow", "orange", "red", "blue", "text"]
# From this value on it has this colour; the first one is from below everything on.
Step = tuple[float | None, Color]

_VARIABLE = re.compile(r"\$\{?(\w+)(?::\w+)?\}?")


def plain() -> tuple[Step, ...]:
    """Return the thresholds of what is neither good nor bad."""
    return ((None, "blue"),)


def rising(warn: float, bad: float) -> tuple[Step, ...]:
    """Return thresholds of what is bad when it is much."""
    return ((None, "green"), (warn, "orange"), (bad, "red"))


def falling(bad: float, warn: float) -> tuple[Step, ...]:
    """Return thresholds of what is bad when it is little; it is well from `warn` on."""
    return ((None, "red"), (bad, "orange"), (warn, "green"))


# 1 is well, 0 is not.
ALIVE: tuple[Step, ...] = ((None, "red"), (1, "green"))


@dataclass(frozen=True)
class Query:
    """An expression; `legend` names its series, or its column in a table."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Link:
    """From a series or row to a dashboard; `given` maps its variables to labels of the series."""

    to: str
    given: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Panel:
    """One picture. `width` is of 24, `height` in rows of 30 pixels; `description` says how to read it."""

    title: str
    kind: Kind
    queries: tuple[Query, ...]
    unit: Unit
    thresholds: tuple[Step, ...]
    description: str
    width: int = 12
    height: int = 8
    is_stacked: bool = False
    links: tuple[Link, ...] = ()
    # What values mean in words, such as 0 for "down".
    words: tuple[tuple[int, str, Color], ...] = ()
    # Columns of a table that are not in `unit`.
    units: tuple[tuple[str, Unit], ...] = ()
    greatest: float | None = None


@dataclass(frozen=True)
class Variable:
    """A choice at the top: the values of a label of a metric."""

    name: str
    label: str
    query: str
    is_multiple: bool = True


@dataclass(frozen=True)
class Row:
    """Panels under a title."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Dashboard:
    """A page of rows; `uid` is what links name it by, and its file."""

    uid: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]

    @property
    def panels(self) -> Iterator[Panel]:
        """All panels, in their order."""
        for row in self.rows:
            yield from row.panels


CLUSTER_CHOICE = Variable("cluster", "Cluster", "label_values(slurm_up, cluster)")
QUEUE_CHOICE = Variable(
    "queue", "Queue", 'label_values(slurm_partition_cpus_total{cluster=~"$cluster"}, partition)'
)
NODE_CHOICE = Variable(
    "node",
    "Node",
    'label_values(node_boot_time_seconds{cluster=~"$cluster", queue=~"$queue"}, node)',
)
USER_CHOICE = Variable(
    "user", "User", 'label_values(slurm_user_cpus_running{cluster=~"$cluster"}, user)'
)


def fill(expr: str, values: Mapping[str, str], range_seconds: int, rate_seconds: int) -> str:
    """Return an expression as Grafana sends it: variables and its own intervals filled in.

    A variable that is not in `values` is all of them. Raises ValueError for a variable in a place
    of Grafana's own that it does not have.
    """
    own = {
        "__rate_interval": f"{rate_seconds}s",
        "__interval": f"{max(rate_seconds // 4, 1)}s",
        "__range": f"{range_seconds}s",
    }

    def one(found: re.Match[str]) -> str:
        name = found[1]
        if name.startswith("__") and name not in own:
            raise ValueError(f"Grafana has no ${name} in expressions: {expr}")
        return own.get(name) or values.get(name, ".*")

    return _VARIABLE.sub(one, expr)


def variables_in(text: str) -> set[str]:
    """Return the variables that a text names, without Grafana's own."""
    return {name for name in _VARIABLE.findall(text) if not name.startswith("__")}
