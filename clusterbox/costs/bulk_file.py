"""Read an offer file of the AWS price list in a stream: it can be over 5 GB, memory stays small."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import IO

from clusterbox.costs.price import Key, PriceTable
from clusterbox.costs.price_list import MALFORMED, classify, read_terms
from clusterbox.costs.snapshot import Row, make_table
from clusterbox.errors import InputError

# Each part of the file is read by a pass of its own: the parser that skips the rest is in C.
Opener = Callable[[], IO[bytes]]


def read_bulk_files(paths: Sequence[Path], region: str) -> PriceTable:
    """Return the prices of a region from offer files of one service each, as one table.

    It is as old as the file with the instance types, which AWS publishes every few days; that of a
    service whose prices did not change can be months old and the newest. Raises
    InputError as `read_bulk_file` does, and where two files have another price for the same thing.
    """
    tables = [read_bulk_file(path, region) for path in paths]
    rows = [Row(key, price) for table in tables for key, price in table.prices.items()]
    instances = [table for table in tables if "ec2/linux" in table.products]
    published = min(table.published for table in instances or tables)
    return make_table(region, published, tables[0].source, rows)


def read_bulk_file(path: Path, region: str) -> PriceTable:
    """Return the prices of a region from an offer file (`index.json` of a service, also gzipped).

    Raises InputError when the file is not one, was cut off, or has no price of the region.
    """
    import ijson

    def open_file() -> IO[bytes]:
        return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]

    try:
        return _read_offers(open_file, region, path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: is cut off or damaged: {error}; download it again") from error
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file") from error
    except ijson.IncompleteJSONError as error:
        raise InputError(
            f"{path}: ends too early, or is not an offer file of AWS: {_first_line(error)}; "
            "download it again"
        ) from error
    except (ijson.JSONError, *MALFORMED) as error:
        raise InputError(
            f"{path}: is not an offer file of AWS: {type(error).__name__}: {_first_line(error)}"
        ) from error


def _read_offers(open_file: Opener, region: str, path: Path) -> PriceTable:
    published = _read_date(open_file)
    if published is None:
        raise InputError(f"{path}: has no publicationDate; it is not an offer file of AWS")
    rows = _read_rows(open_file, _read_keys(open_file, region))
    if not rows:
        raise InputError(f"{path}: has no on-demand price of {region}")
    return make_table(region, published, "AWS price list, bulk file", rows)


def _read_date(open_file: Opener) -> date | None:
    import ijson

    with open_file() as stream:
        text = next(ijson.items(stream, "publicationDate"), None)
    return None if text is None else date.fromisoformat(str(text)[:10])


def _read_keys(open_file: Opener, region: str) -> dict[str, Key]:
    """Return what is priced in the region, by SKU."""
    import ijson

    keys = {}
    with open_file() as stream:
        for sku, product in ijson.kvitems(stream, "products"):
            attributes = product.get("attributes", {})
            # Data transfer is listed under where it starts.
            if region in (attributes.get("regionCode"), attributes.get("fromRegionCode")):
                key = classify(product)
                if key is not None:
                    keys[sku] = key
    return keys


def _read_rows(open_file: Opener, keys: dict[str, Key]) -> list[Row]:
    import ijson

    rows: list[Row] = []
    with open_file() as stream:
        for sku, terms in ijson.kvitems(stream, "terms.OnDemand"):
            if sku in keys:
                rows += read_terms(keys[sku], terms, f"AWS price list, SKU {sku}")
    return rows


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].strip()
