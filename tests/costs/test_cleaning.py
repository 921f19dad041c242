from __future__ import annotations

import random
from decimal import Decimal

import pytest

from clusterbox.costs.cleaning import clean_prices, family_unit, is_dedicated, size_factor, vote
from clusterbox.costs.price import Confidence

D = Decimal


@pytest.mark.parametrize(
    ("size", "factor"),
    [
        ("nano", "0.25"),
        ("large", "4"),
        ("xlarge", "8"),
        ("24xlarge", "192"),
        ("metal-24xl", "192"),
        ("metal", None),
        ("", None),
    ],
)
def test_sizes_have_the_normalization_factors_of_aws(size: str, factor: str | None) -> None:
    assert size_factor(size) == (None if factor is None else D(factor))


def test_a_value_that_fits_its_family_is_listed() -> None:
    home = {"m5.large": D("0.096"), "m5.xlarge": D("0.192"), "m5.2xlarge": D("0.384")}
    cleaned = clean_prices({"home": home, "peer": {}}, "home", ["peer"])
    assert {kind: price.usd for kind, price in cleaned.items()} == home
    assert {price.confidence for price in cleaned.values()} == {Confidence.LISTED}


@pytest.mark.parametrize("bad", ["0", "0.407", "0.4224"])
def test_a_missing_or_dedicated_price_is_taken_from_the_peer(bad: str) -> None:
    home = {"m5.large": D("0.096"), "m5.xlarge": D("0.192"), "m5.2xlarge": D(bad)}
    cleaned = clean_prices({"home": home, "peer": {"m5.2xlarge": D("0.384")}}, "home", ["peer"])
    assert cleaned["m5.2xlarge"].usd == D("0.384")
    assert cleaned["m5.2xlarge"].confidence is Confidence.PEER


def test_a_price_that_no_region_has_is_computed_from_the_family() -> None:
    home = {"m5.large": D("0.096"), "m5.xlarge": D("0.192"), "m5.2xlarge": D(0)}
    cleaned = clean_prices({"home": home, "peer": {"m5.2xlarge": D("0.407")}}, "home", ["peer"])
    assert cleaned["m5.2xlarge"].usd == D("0.384")
    assert cleaned["m5.2xlarge"].confidence is Confidence.COMPUTED


def test_metal_costs_what_the_largest_size_costs() -> None:
    home = {"m5.12xlarge": D("2.304"), "m5.24xlarge": D("4.608"), "m5.metal": D("4.885")}
    cleaned = clean_prices({"home": home}, "home", [])
    assert cleaned["m5.metal"].usd == D("4.608")


def test_a_strange_value_in_a_proportional_family_is_left_out() -> None:
    home = {
        "h1.2xlarge": D("0.468"),
        "h1.4xlarge": D("0.936"),
        "h1.16xlarge": D("3.744"),
        "h1.8xlarge": D("2.342"),
    }
    assert "h1.8xlarge" not in clean_prices({"home": home}, "home", [])


def test_a_single_value_of_an_unproportional_family_is_left_out() -> None:
    home = {"g5.xlarge": D("1.006"), "g5.2xlarge": D("1.212"), "g5.4xlarge": D("1.624")}
    assert clean_prices({"home": home}, "home", []) == {}


def test_hosts_and_macs_are_left_out() -> None:
    home = {"m5": D("4.9"), "mac1.metal": D("1.083"), "mac1.large": D("1"), "mac1.xlarge": D("2")}
    assert clean_prices({"home": home}, "home", []) == {}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1.212", "1.3332"], "1.212"),  # the higher one proves the lower one
        (["17.9168", "17.9168", "16.288"], "16.288"),
        (["1.212", "1.212", "1.212", "1.212"], "1.212"),
        (["1.212", "1.212", "1.212"], None),  # might all be the dedicated price
        (["1.212", "1.5"], None),  # contradicting
        (["0", "0"], None),
        (["0", "1.212"], None),
    ],
)
def test_a_vote_needs_proof(values: list[str], expected: str | None) -> None:
    found = vote([D(value) for value in values])
    assert (found and found.usd) == (None if expected is None else D(expected))


@pytest.mark.parametrize(
    ("usd", "dedicated"),
    [("0.102", True), ("0.1056", True), ("0.096", False), ("0.12", False), ("0.09", False)],
)
def test_dedicated_tenancy_costs_6_or_10_percent_more(usd: str, dedicated: bool) -> None:
    assert is_dedicated(D(usd), D("0.096")) is dedicated


def test_a_family_is_not_proportional_when_most_values_do_not_fit() -> None:
    values = [(D(8), D("1.006")), (D(16), D("1.212")), (D(32), D("1.624")), (D(64), D("2.448"))]
    assert family_unit(values) is None


@pytest.mark.parametrize("seed", range(20))
def test_a_family_survives_dirt_as_dense_as_in_the_source(seed: int) -> None:
    """A fifth of the values missing and a fifth of another tenancy, in two regions."""
    dice = random.Random(seed)  # noqa: S311 - made data, not a secret
    sizes = ["large", "xlarge", *(f"{n}xlarge" for n in (2, 4, 8, 12, 16, 24))]
    truth = {f"m9.{size}": D("0.024") * (size_factor(size) or 0) for size in sizes}

    def dirty(usd: Decimal) -> Decimal:
        return usd * dice.choices([D(1), D(0), D("1.06"), D("1.10")], [60, 20, 10, 10])[0]

    listing = {
        region: {kind: dirty(usd) for kind, usd in truth.items()} for region in ("home", "peer")
    }
    cleaned = clean_prices(listing, "home", ["peer"])
    assert {kind: price.usd for kind, price in cleaned.items()} == truth
