"""The prices of a region: looked up, and loaded from the snapshots that ship or were refreshed."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from importlib import resources
from pathlib import Path

from clusterbox.costs.price import Confidence, Key, Price, PriceTable, SpotHistory, Unknown
from clusterbox.costs.snapshot import parse_services, parse_table, read_text
from clusterbox.errors import InputError

# Older prices than this are still used, with a warning.
STALE_DAYS = 90
# The folder of a repository that `prices refresh` writes to; what is there goes before what ships.
FOLDER = "prices"


class Prices:
    """The prices of one region, from one or more tables; what an earlier one has counts.

    Instance types are looked up in the first table that has any of them, and in no other: a fresh
    list that lacks a type says that it is not sold, and an old list must not fill the gap.
    """

    def __init__(
        self,
        region: str,
        tables: Sequence[PriceTable],
        spot: Mapping[str, SpotHistory] | None = None,
    ) -> None:
        self.region = region
        self.tables = tuple(tables)
        self._spot = dict(spot or {})
        self._prices: dict[Key, Price] = {}
        self._published: dict[str, date] = {}
        for table in self.tables:
            if table.region != region:
                raise ValueError(f"the table of {table.region} cannot price {region}")
            closed = {product for product in self._published if product.startswith("ec2/")}
            for key, price in table.prices.items():
                if key.product not in closed:
                    self._prices.setdefault(key, price)
            for product in table.products:
                self._published.setdefault(product, table.published)

    @property
    def title(self) -> str:
        """Which prices these are: region, date and origin of the instance prices."""
        if not self.tables:
            return f"{self.region}, of which no prices are known"
        first = self.tables[0]
        return f"{self.region} of {first.published} ({first.source})"

    def find(self, product: str, name: str) -> Price | Unknown:
        """Return the price of one unit, or what is not known."""
        key = Key(product, name)
        price = self._prices.get(key)
        if price is not None:
            return price
        if product not in self._published:
            return Unknown(key, self.region, "there is no price of this product for the region")
        names = sorted(known.name for known in self._prices if known.product == product)
        reason = f"not among the prices of {self._published[product]}"
        return Unknown(key, self.region, reason, nearest_names(name, names))

    def instance(self, instance_type: str, operating_system: str = "linux") -> Price | Unknown:
        """Return the on-demand price of an instance-hour with shared tenancy."""
        return self.find(f"ec2/{operating_system}", instance_type)

    def spot(self, instance_type: str) -> Price | Unknown:
        """Return the mean Spot price of an instance-hour where a history was given."""
        history = self._spot.get(instance_type)
        if history is None:
            return Unknown(
                Key("ec2/spot", instance_type), self.region, "no Spot price history was given"
            )
        source = f"mean of {history.days} days of Spot price history"
        return Price(history.mean, "hour", Confidence.PUBLISHED, source)

    def items(self) -> Iterable[tuple[Key, Price]]:
        """Return every price that can be found, sorted by key."""
        return sorted(self._prices.items(), key=lambda item: item[0])


def load_prices(
    region: str, *, root: Path | None = None, spot: Mapping[str, SpotHistory] | None = None
) -> Prices:
    """Return the prices of a region: those refreshed in the repository first, then those shipped.

    A region without any file has no prices, and everything in it is Unknown. Raises InputError for
    a file that is damaged or of another region.
    """
    tables = []
    if root is not None:
        path = root / FOLDER / f"{region}.csv"
        if path.is_file():
            table = parse_table(read_text(path), name=str(path))
            if table.region != region:
                raise InputError(
                    f"{path}: its header says that the prices are of {table.region}; fetch those of "
                    f"{region} with `clusterbox costs prices refresh --region {region}`"
                )
            tables.append(table)
    folder = resources.files("clusterbox.costs") / "data"
    for name in (f"{region}.csv", "services.yaml"):
        file = folder / name
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            is_services = name == "services.yaml"
            shipped = parse_services(text, region) if is_services else parse_table(text, name=name)
            if shipped is not None:
                tables.append(shipped)
    return Prices(region, tables, spot)


def stale_tables(prices: Prices, today: date) -> list[PriceTable]:
    """Return the tables whose prices are more than 90 days old."""
    return [table for table in prices.tables if (today - table.published).days > STALE_DAYS]


def warn_if_stale(prices: Prices, today: date) -> None:
    """Say on standard error which prices are old, and how to fetch new ones."""
    stale = stale_tables(prices, today)
    if not stale:
        return
    oldest = min(stale, key=lambda table: table.published)
    sources = " and ".join(table.source for table in stale)
    sys.stderr.write(
        f"clusterbox: prices of {prices.region} are of {oldest.published}, "
        f"{(today - oldest.published).days} days old (from {sources}); "
        f"`clusterbox costs prices refresh --region {prices.region}` fetches AWS's own\n"
    )


def nearest_names(name: str, known: Sequence[str], most: int = 4) -> tuple[str, ...]:
    """Return the known names most like `name`: those of its family first."""
    family = name.partition(".")[0]
    same = [other for other in known if other.partition(".")[0] == family]
    near = difflib.get_close_matches(name, same or list(known), n=most, cutoff=0.0 if same else 0.6)
    return tuple(near)
