"""Read an offer file of the AWS price list in a stream: it can be over 5 GB, memory stays small."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import IO, Any

from clusterbox.costs.price import Key, PriceTable
from clusterbox.costs.price_list import MALFORMED, classify, read_terms
from clusterbox.costs.snapshot import Row, make_table
from clusterbox.errors import InputError

CHUNK_CHARACTERS = 1 << 20
# No product or term comes near this; more is not an offer file, and must not fill the memory.
MOST_CHARACTERS = 32 * CHUNK_CHARACTERS


def read_bulk_file(path: Path, region: str) -> PriceTable:
    """Return the prices of a region from an offer file (`index.json` of a service, also gzipped).

    Raises InputError when the file is not one, was cut off, or has no price of the region.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as stream:
            return _read_offers(JsonStream(stream, str(path)), region, path)
    except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is cut off or damaged: {error}; download it again") from error
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file") from error
    except MALFORMED as error:
        raise InputError(
            f"{path}: is not an offer file of AWS: {type(error).__name__}: {error}"
        ) from error


def _read_offers(stream: JsonStream, region: str, path: Path) -> PriceTable:
    keys: dict[str, Key] = {}
    rows: list[Row] = []
    published: date | None = None
    for name in stream.members():
        if name == "publicationDate":
            published = date.fromisoformat(str(stream.value())[:10])
        elif name == "products":
            for sku in stream.members():
                product = stream.value()
                attributes = product.get("attributes", {})
                # Data transfer is listed under where it starts.
                if region in (attributes.get("regionCode"), attributes.get("fromRegionCode")):
                    key = classify(product)
                    if key is not None:
                        keys[sku] = key
        elif name == "terms":
            for kind in stream.members():
                for sku in stream.members():
                    terms = stream.value()
                    if kind == "OnDemand" and sku in keys:
                        rows += read_terms(keys[sku], terms, f"AWS price list, SKU {sku}")
        else:
            stream.value()
    if published is None:
        raise InputError(f"{path}: has no publicationDate; it is not an offer file of AWS")
    if not rows:
        raise InputError(f"{path}: has no on-demand price of {region}")
    return make_table(region, published, "AWS price list, bulk file", rows)


class JsonStream:
    """A JSON document whose objects are walked by the caller, one small value in memory at a time.

    After `members()` has yielded a name, the caller reads its value, with `value()` or with
    `members()` again, before the next name.
    """

    def __init__(self, stream: IO[str], name: str) -> None:
        self._stream = stream
        self._name = name
        self._decoder = json.JSONDecoder()
        self._text = ""
        self._at = 0
        self._ended = False

    def members(self) -> Iterator[str]:
        """Yield the names of the members of the object that begins here."""
        self._expect("{")
        if self._peek() == "}":
            self._at += 1
            return
        while True:
            name = self.value()
            if not isinstance(name, str):
                raise self._broken("a name")
            self._expect(":")
            yield name
            if self._peek() == "}":
                self._at += 1
                return
            self._expect(",")

    def value(self) -> Any:
        """Return the value that begins here."""
        self._peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if not self._read():
                    raise self._broken("a value") from error
                continue
            # A number at the end of what was read may go on, as 1 does in 1.5 and 1e+9.
            if end + 3 > len(self._text) and self._read():
                continue
            self._at = end
            return value

    def _expect(self, character: str) -> None:
        if self._peek() != character:
            raise self._broken(repr(character))
        self._at += 1

    def _peek(self) -> str:
        """Return the next character that is not white space, "" at the end."""
        while True:
            while self._at < len(self._text):
                if not self._text[self._at].isspace():
                    return self._text[self._at]
                self._at += 1
            if not self._read():
                return ""

    def _read(self) -> bool:
        """Read on; return whether there was more."""
        if len(self._text) - self._at > MOST_CHARACTERS:
            raise self._broken("a small value")
        more = self._stream.read(CHUNK_CHARACTERS)
        if not more:
            self._ended = True
            return False
        self._text = self._text[self._at :] + more
        self._at = 0
        return True

    def _broken(self, wanted: str) -> InputError:
        found = self._text[self._at : self._at + 20]
        if not found and self._ended:
            return InputError(f"{self._name}: ends too early: it was cut off; download it again")
        return InputError(
            f"{self._name}: is not an offer file of AWS, or was cut off: {wanted} was expected "
            f"(found: {found!r}); download it again"
        )
