"""The history of Spot prices: fetched from EC2, kept in a file, and looked up by the second."""

from __future__ import annotations

import csv
import io
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from clusterbox.costs.price import SpotHistory
from clusterbox.costs.snapshot import MOST_USD, read_text, render_decimal
from clusterbox.costs.usage import parse_time, render_time
from clusterbox.errors import ClusterboxError, InputError
from clusterbox.files import write_whole

FORMAT = "clusterbox-spot 1"
COLUMNS = ("type", "zone", "from", "usd")
# EC2 keeps no more (DescribeSpotPriceHistory, Amazon EC2 API reference).
MOST_DAYS = 90
# Without a VPC in the name since EC2-Classic ended; the one for Linux.
_PRODUCT = "Linux/UNIX"
_SECONDS_PER_DAY = 86400
_MALFORMED = (ValueError, TypeError, KeyError, AttributeError, InvalidOperation)

# Instance type and zone.
Market = tuple[str, str]
# From when on (seconds since 1970 in UTC) and USD an hour.
Change = tuple[int, Decimal]


@dataclass(frozen=True)
class SpotPrices:
    """Spot prices in USD an hour, constant from each change to the next one of its market.

    `since` and `until` are the time over which EC2 was asked. Before the first change nothing is
    known; the last price is taken to last on after `until`.
    """

    region: str
    since: int
    until: int
    changes: Mapping[Market, tuple[Change, ...]] = field(repr=False)

    def pieces(
        self, instance_type: str, zone: str, start: int, end: int
    ) -> Iterator[tuple[int, int, Decimal | None]]:
        """Yield from, to and price of each part of a time; None where the price is not known."""
        changes = self.changes.get((instance_type, zone), ())
        at = bisect_right(changes, start, key=lambda change: change[0]) - 1
        while start < end:
            stop = changes[at + 1][0] if at + 1 < len(changes) else end
            yield start, min(stop, end), changes[at][1] if at >= 0 else None
            start, at = stop, at + 1

    def histories(self) -> dict[str, SpotHistory]:
        """Return mean, median and 95th percentile of each type over time, all zones alike."""
        by_type: dict[str, list[tuple[Decimal, int]]] = {}
        for (kind, zone), changes in self.changes.items():
            first = max(self.since, changes[0][0])
            for start, end, usd in self.pieces(kind, zone, first, max(self.until, first + 1)):
                if usd is not None:
                    by_type.setdefault(kind, []).append((usd, end - start))
        days = max(1, round((self.until - self.since) / _SECONDS_PER_DAY))
        return {kind: _summarize(parts, days) for kind, parts in by_type.items()}


def make_spot_prices(
    region: str, since: int, until: int, rows: Iterable[tuple[str, str, int, Decimal]]
) -> SpotPrices:
    """Return rows of type, zone, time and price as a history, in any order, with repetitions.

    Only changes are kept. Raises InputError where a market has two prices at one time.
    """
    found: dict[Market, dict[int, Decimal]] = {}
    for kind, zone, start, usd in rows:
        first = found.setdefault((kind, zone), {}).setdefault(start, usd)
        if first != usd:
            raise InputError(
                f"the Spot price of {kind} in {zone} at {render_time(start)} is {first} and {usd}"
            )
    changes = {}
    for market in sorted(found):
        kept: list[Change] = []
        for start, usd in sorted(found[market].items()):
            if not kept or kept[-1][1] != usd:
                kept.append((start, usd))
        changes[market] = tuple(kept)
    return SpotPrices(region, since, until, changes)


def merge_spot_prices(old: SpotPrices | None, new: SpotPrices) -> SpotPrices:
    """Return both as one history: EC2 forgets after 90 days, the file does not."""
    if old is None:
        return new
    if old.region != new.region:
        raise InputError(f"Spot prices of {old.region} and {new.region} cannot be one history")
    rows = [*_rows(old), *_rows(new)]
    since, until = min(old.since, new.since), max(old.until, new.until)
    return make_spot_prices(new.region, since, until, rows)


def fetch_spot_prices(
    client: Any,
    region: str,
    instance_types: Sequence[str],
    since: int,
    until: int,
    report: Callable[[str], None] = lambda _text: None,
) -> SpotPrices:
    """Return the history of some types in all zones; `client` is boto3's for `ec2`.

    Everything is fetched before anything is returned. Raises ClusterboxError when an answer cannot
    be read or holds no price, and botocore's errors when AWS cannot be asked.
    """
    pages = client.get_paginator("describe_spot_price_history").paginate(
        InstanceTypes=list(instance_types),
        ProductDescriptions=[_PRODUCT],
        StartTime=datetime.fromtimestamp(since, UTC),
        EndTime=datetime.fromtimestamp(until, UTC),
    )
    rows = []
    for page in pages:
        for entry in page.get("SpotPriceHistory", []):
            try:
                rows.append(_read_entry(entry))
            except _MALFORMED as error:
                raise ClusterboxError(
                    f"EC2 answered with a Spot price that cannot be read: "
                    f"{type(error).__name__}: {error}"
                ) from error
        report(f"{len(rows)} Spot prices")
    if not rows:
        raise ClusterboxError(
            f"EC2 has no Spot prices of {', '.join(instance_types)} in {region}; "
            f"are the names right, and can they be had as Spot there?"
        )
    return make_spot_prices(region, since, until, rows)


def parse_spot_prices(text: str, *, name: str) -> SpotPrices:
    """Return the history in a file's text; raises InputError with the line that is wrong."""
    lines = text.splitlines()
    header: dict[str, str] = {}
    for line in lines:
        if not line.startswith("#"):
            break
        key, _, value = line[1:].partition(":")
        header[key.strip()] = value.strip()
    body = len(header)
    if header.get("format") != FORMAT or lines[body : body + 1] != [",".join(COLUMNS)]:
        raise InputError(f"{name}: is not a file of Spot prices (`# format: {FORMAT}`)")
    if header.get("rows") != str(len(lines) - body - 1):
        raise InputError(
            f"{name}: holds {len(lines) - body - 1} rows and its header says "
            f"{header.get('rows', 'nothing')}: the file was cut or changed by hand"
        )
    rows = []
    for number, cells in enumerate(csv.reader(lines[body + 1 :]), start=body + 2):
        try:
            kind, zone, start, usd = cells
            rows.append((kind, zone, parse_time(start), _positive(usd)))
        except (ValueError, InvalidOperation) as error:
            raise InputError(
                f"{name}:{number}: must be {','.join(COLUMNS)} (found: {','.join(cells)})"
            ) from error
    try:
        since, until = parse_time(header["since"]), parse_time(header["until"])
        return make_spot_prices(header["region"], since, until, rows)
    except (KeyError, ValueError) as error:
        raise InputError(f"{name}: the header needs region, since and until") from error


def render_spot_prices(history: SpotPrices) -> str:
    """Return the text of a file of Spot prices: one row for each change."""
    rows = list(_rows(history))
    buffer = io.StringIO()
    header = {
        "format": FORMAT,
        "region": history.region,
        "since": render_time(history.since),
        "until": render_time(history.until),
        "rows": str(len(rows)),
    }
    buffer.writelines(f"# {name}: {value}\n" for name, value in header.items())
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for kind, zone, start, usd in rows:
        writer.writerow([kind, zone, render_time(start), render_decimal(usd)])
    return buffer.getvalue()


def spot_file(root: Path, region: str) -> Path:
    """Return where a repository keeps the Spot prices of a region."""
    return root / "prices" / f"spot-{region}.csv"


def load_spot_prices(root: Path, region: str) -> SpotPrices | None:
    """Return the Spot prices that a repository has of a region, None where it has none."""
    path = spot_file(root, region)
    if not path.is_file():
        return None
    history = parse_spot_prices(read_text(path), name=str(path))
    if history.region != region:
        raise InputError(f"{path}: its header says that the prices are of {history.region}")
    return history


def write_spot_prices(history: SpotPrices, path: Path) -> None:
    """Write the history; the file that was there stays until the new one is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, render_spot_prices(history))


def _read_entry(entry: Mapping[str, Any]) -> tuple[str, str, int, Decimal]:
    return (
        entry["InstanceType"],
        entry["AvailabilityZone"],
        int(entry["Timestamp"].timestamp()),
        _positive(entry["SpotPrice"]),
    )


def _positive(text: str) -> Decimal:
    usd = Decimal(text)
    if not usd.is_finite() or not 0 < usd < MOST_USD:
        raise ValueError(f"a price must be more than 0 (found: {text})")
    return usd


def _rows(history: SpotPrices) -> Iterator[tuple[str, str, int, Decimal]]:
    for (kind, zone), changes in history.changes.items():
        for start, usd in changes:
            yield kind, zone, start, usd


def _summarize(parts: Sequence[tuple[Decimal, int]], days: int) -> SpotHistory:
    total = sum(seconds for _usd, seconds in parts)
    mean = sum((usd * seconds for usd, seconds in parts), Decimal(0)) / total
    ordered = sorted(parts)
    return SpotHistory(
        mean=mean.quantize(Decimal("0.000001")),
        median=_percentile(ordered, total, 50),
        percentile_95=_percentile(ordered, total, 95),
        days=days,
    )


def _percentile(ordered: Sequence[tuple[Decimal, int]], total: int, percent: int) -> Decimal:
    """Return the lowest price that was not exceeded for so many percent of the time."""
    passed = 0
    for usd, seconds in ordered:
        passed += seconds
        if passed * 100 >= total * percent:
            return usd
    return ordered[-1][0]
