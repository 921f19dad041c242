from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from clusterbox.costs.price import Confidence, Key, Price
from clusterbox.costs.snapshot import (
    Row,
    make_table,
    parse_table,
    render_decimal,
    render_snapshot,
    write_snapshot,
)
from clusterbox.errors import InputError

TEXT = """\
# format: clusterbox-prices 1
# region: us-west-2
# published: 2025-03-02
# source: somewhere
# rows: 1
# a note for people
product,name,unit,usd,confidence,source
ec2/linux,m5.large,hour,0.096,listed,libcloud
"""


def row(usd: str, source: str = "SKU1", unit: str = "hour") -> Row:
    price = Price(Decimal(usd), unit, Confidence.PUBLISHED, source)
    return Row(Key("ec2/linux", "m5.large"), price)


def test_a_snapshot_is_read_as_it_was_written() -> None:
    table = parse_table(TEXT, name="file")
    assert table.published == date(2025, 3, 2)
    assert table.prices[Key("ec2/linux", "m5.large")].usd == Decimal("0.096")
    assert parse_table(render_snapshot(table), name="file") == table


def test_two_prices_of_one_key_are_an_error_that_names_both_rows() -> None:
    with pytest.raises(InputError) as caught:
        make_table("us-west-2", date(2026, 1, 1), "test", [row("0.096"), row("0.102", "SKU2")])
    assert "0.096 USD/hour (SKU1) and 0.102 USD/hour (SKU2)" in str(caught.value)


def test_the_same_price_under_two_skus_is_one_price() -> None:
    table = make_table("us-west-2", date(2026, 1, 1), "test", [row("0.096"), row("0.0960", "SKU2")])
    assert len(table.prices) == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("clusterbox-prices 1", "clusterbox-prices 2", "must start with"),
        ("# region: us-west-2\n", "", "the header lacks region"),
        ("2025-03-02", "March", "published must be a date"),
        ("product,name", "name,product", "must be the columns"),
        ("0.096", "0", "must be more than 0"),
        ("0.096", "-1", "must be more than 0"),
        ("0.096", "NaN", "must be more than 0"),
        ("0.096", "cheap", "file:8: must be product,name"),
        (",listed", ",guessed", "file:8: must be product,name"),
        ("ec2/linux,m5.large,hour,0.096,listed,libcloud\n", "", "was cut or changed"),
        (TEXT[TEXT.index("product,name") :], "", "must be the columns"),
    ],
)
def test_a_damaged_snapshot_is_refused(old: str, new: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_table(TEXT.replace(old, new), name="file")


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "us-west-2.csv"
    write_snapshot(parse_table(TEXT, name="file"), path)
    before = path.read_text(encoding="utf-8")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="No space"):
        write_snapshot(make_table("us-west-2", date(2026, 1, 1), "new", [row("9")]), path)
    monkeypatch.undo()
    assert path.read_text(encoding="utf-8") == before


@pytest.mark.parametrize(
    ("value", "text"), [("0.0960000000", "0.096"), ("1E+1", "10"), ("100", "100"), ("3.00", "3")]
)
def test_a_decimal_is_written_without_exponent_and_zeros(value: str, text: str) -> None:
    assert render_decimal(Decimal(value)) == text
