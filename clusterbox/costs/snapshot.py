"""Price snapshots as files: compact, dated, one row a price; those that ship and those refreshed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path

from clusterbox.costs.price import Confidence, Key, Price, PriceTable
from clusterbox.errors import InputError
from clusterbox.files import write_whole

FORMAT = "clusterbox-prices 1"
COLUMNS = ("product", "name", "unit", "usd", "confidence", "source")
# No unit of anything costs so much: what does is damaged.
MOST_USD = 10**9
_HEADER = ("region", "published", "source")


@dataclass(frozen=True)
class Row:
    """One price on its way into a table."""

    key: Key
    price: Price


def make_table(region: str, published: date, source: str, rows: Iterable[Row]) -> PriceTable:
    """Return the rows as a table; raises InputError naming both rows where one key has two prices.

    The same price twice is one price: AWS lists some products under more than one SKU.
    """
    prices: dict[Key, Price] = {}
    for row in rows:
        first = prices.setdefault(row.key, row.price)
        if (first.usd, first.unit) != (row.price.usd, row.price.unit):
            raise InputError(
                f"{row.key} in {region} has two prices: {_describe(first)} and "
                f"{_describe(row.price)}; one of the rows is of another product"
            )
    return PriceTable(region, published, source, prices)


def parse_table(text: str, *, name: str) -> PriceTable:
    """Return the table of a snapshot file's text; raises InputError with the line that is wrong."""
    lines = text.splitlines()
    header = {}
    body = 0
    for line in lines:
        if not line.startswith("#"):
            break
        body += 1
        key, found, value = line[1:].partition(":")
        if found:
            header[key.strip()] = value.strip()
    if header.get("format") != FORMAT:
        raise InputError(f"{name}: must start with `# format: {FORMAT}`; fetch it again")
    if missing := [key for key in _HEADER if not header.get(key)]:
        raise InputError(f"{name}: the header lacks {', '.join(missing)}")
    if body >= len(lines) or tuple(lines[body].split(",")) != COLUMNS:
        raise InputError(f"{name}:{body + 1}: must be the columns {','.join(COLUMNS)}")
    if header.get("rows") != str(len(lines) - body - 1):
        raise InputError(
            f"{name}: holds {len(lines) - body - 1} rows and its header says "
            f"{header.get('rows', 'nothing')}: the file was cut or changed by hand"
        )
    try:
        published = date.fromisoformat(header["published"])
    except ValueError as error:
        raise InputError(f"{name}: published must be a date such as 2025-03-02") from error
    rows = [
        _parse_row(cells, f"{name}:{body + 2 + index}")
        for index, cells in enumerate(csv.reader(lines[body + 1 :]))
    ]
    return make_table(header["region"], published, header["source"], rows)


def render_snapshot(table: PriceTable, *, notes: Iterable[str] = ()) -> str:
    """Return the text of a snapshot file; `notes` are lines of its header for people."""
    buffer = io.StringIO()
    header = {
        "format": FORMAT,
        "region": table.region,
        "published": table.published.isoformat(),
        "source": table.source,
        "rows": str(len(table.prices)),
    }
    buffer.writelines(f"# {name}: {value}\n" for name, value in header.items())
    buffer.writelines(f"# {note}\n" for note in notes)
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for key in sorted(table.prices):
        price = table.prices[key]
        usd = render_decimal(price.usd)
        writer.writerow(
            [key.product, key.name, price.unit, usd, str(price.confidence), price.source]
        )
    return buffer.getvalue()


def write_snapshot(table: PriceTable, path: Path, *, notes: Iterable[str] = ()) -> None:
    """Write a snapshot file; the one that was there stays until the new one is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, render_snapshot(table, notes=notes))


def read_text(path: Path) -> str:
    """Return the text of a file; raises InputError where it is missing or not text in UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not text in UTF-8: {error}") from error


def parse_services(text: str, region: str) -> PriceTable | None:
    """Return the hand-kept table of service prices for a region, None where it has none of it."""
    import yaml

    data = yaml.safe_load(text)
    if region not in data["regions"]:
        return None
    rows = []
    for product, entry in data["products"].items():
        for name, (usd, unit, confidence) in entry["prices"].items():
            price = Price(Decimal(usd), unit, Confidence(confidence), entry["source"])
            rows.append(Row(Key(product, name), price))
    published = data["published"]
    return make_table(region, published, "AWS's public pricing pages", rows)


def render_decimal(value: Decimal) -> str:
    """Return a decimal without exponent and without zeros at its end."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _parse_row(cells: list[str], where: str) -> Row:
    try:
        product, name, unit, usd, confidence, source = cells
        amount = Decimal(usd)
        level = Confidence(confidence)
    except (ValueError, InvalidOperation) as error:
        raise InputError(f"{where}: must be {','.join(COLUMNS)} (found: {cells})") from error
    if not amount.is_finite() or not 0 < amount < MOST_USD:
        raise InputError(f"{where}: a price must be more than 0, and USD (found: {usd})")
    return Row(Key(product, name), Price(amount, unit, level, source))


def _describe(price: Price) -> str:
    return f"{render_decimal(price.usd)} USD/{price.unit} ({price.source})"
