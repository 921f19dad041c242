from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from clusterbox.costs.price import Confidence, Key, Price, PriceTable, SpotHistory, Unknown
from clusterbox.costs.prices import Prices, load_prices, warn_if_stale
from clusterbox.costs.snapshot import write_snapshot
from clusterbox.errors import InputError


def table(prices: dict[tuple[str, str], str], *, published: date = date(2026, 1, 1)) -> PriceTable:
    found = {
        Key(*key): Price(Decimal(usd), "hour", Confidence.PUBLISHED, "test")
        for key, usd in prices.items()
    }
    return PriceTable("us-west-2", published, "test", found)


def test_a_known_price_is_found_with_its_origin() -> None:
    prices = Prices("us-west-2", [table({("ec2/linux", "m5.large"): "0.096"})])
    assert prices.instance("m5.large") == Price(
        Decimal("0.096"), "hour", Confidence.PUBLISHED, "test"
    )


def test_a_month_of_an_hourly_price_has_730_hours() -> None:
    assert Price(Decimal("0.0416"), "hour", Confidence.LISTED, "").month() == Decimal("30.368")
    assert Price(Decimal("0.08"), "GB-month", Confidence.LISTED, "").month() == Decimal("0.08")


def test_an_unknown_type_is_unknown_with_the_nearest_of_its_family() -> None:
    prices = load_prices("us-west-2")
    unknown = prices.instance("m5.7xlarge")
    assert isinstance(unknown, Unknown)
    assert set(unknown.nearest) == {"m5.xlarge", "m5.2xlarge", "m5.4xlarge", "m5.8xlarge"}
    assert "no price of ec2/linux m5.7xlarge in us-west-2" in str(unknown)


def test_a_region_without_a_snapshot_has_only_unknown_prices() -> None:
    prices = load_prices("eu-north-1")
    assert isinstance(prices.instance("m5.large"), Unknown)
    assert isinstance(prices.find("ebs", "gp3"), Unknown)
    assert list(prices.items()) == []


def test_there_is_no_spot_price_without_a_history() -> None:
    assert isinstance(load_prices("us-west-2").spot("m5.large"), Unknown)


def test_a_given_spot_history_gives_its_mean() -> None:
    history = SpotHistory(Decimal("0.04"), Decimal("0.039"), Decimal("0.05"), days=30)
    price = load_prices("us-west-2", spot={"m5.large": history}).spot("m5.large")
    assert isinstance(price, Price)
    assert (price.usd, price.unit) == (Decimal("0.04"), "hour")


def test_an_older_table_does_not_fill_a_type_that_the_newer_list_lacks() -> None:
    newer = table({("ec2/linux", "m5.large"): "0.1"})
    older = table({("ec2/linux", "m5.large"): "0.2", ("ec2/linux", "m5.xlarge"): "0.4"})
    prices = Prices("us-west-2", [newer, older])
    found = prices.instance("m5.large")
    assert isinstance(found, Price)
    assert found.usd == Decimal("0.1")
    assert isinstance(prices.instance("m5.xlarge"), Unknown)


def test_an_older_table_fills_a_service_price_that_the_newer_list_lacks() -> None:
    newer, older = table({("ebs", "gp3"): "0.09"}), table({("ebs", "sc1"): "0.015"})
    prices = Prices("us-west-2", [newer, older])
    assert isinstance(prices.find("ebs", "sc1"), Price)


def test_what_was_refreshed_in_the_repository_goes_before_what_ships(tmp_path: Path) -> None:
    write_snapshot(table({("ec2/linux", "m5.large"): "0.5"}), tmp_path / "prices" / "us-west-2.csv")
    found = load_prices("us-west-2", root=tmp_path).instance("m5.large")
    assert isinstance(found, Price)
    assert found.usd == Decimal("0.5")


@pytest.mark.parametrize(("today", "warned"), [(date(2026, 4, 1), False), (date(2026, 4, 2), True)])
def test_prices_older_than_90_days_are_warned_of(
    today: date, warned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    warn_if_stale(Prices("us-west-2", [table({("ebs", "gp3"): "0.08"})]), today)
    assert ("2026-01-01, 91 days old" in capsys.readouterr().err) is warned


def test_a_file_of_another_region_or_of_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prices" / "eu-west-1.csv"
    write_snapshot(table({("ec2/linux", "m5.large"): "0.096"}), path)
    with pytest.raises(InputError, match=r"eu-west-1\.csv: .*are of us-west-2"):
        load_prices("eu-west-1", root=tmp_path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is not text in UTF-8"):
        load_prices("eu-west-1", root=tmp_path)


def test_a_price_that_cannot_be_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prices" / "us-west-2.csv"
    write_snapshot(table({("ec2/linux", "m5.large"): "0.096"}), path)
    path.write_text(path.read_text().replace("0.096", "1E999999"))
    with pytest.raises(InputError, match="found: 1E999999"):
        load_prices("us-west-2", root=tmp_path)
