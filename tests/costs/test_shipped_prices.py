"""The shipped snapshots: the seed's prices, and their error against AWS's own later list."""

from __future__ import annotations

from decimal import Decimal
from importlib import resources
from pathlib import Path

import pytest

from clusterbox.costs.cleaning import size_factor
from clusterbox.costs.price import Confidence, Price, Unknown
from clusterbox.costs.prices import load_prices

PUBLISHED = Path(__file__).parent / "published_prices.csv"
REGIONS = ("us-west-2", "us-east-1")
# Families that AWS calls previous generation, and that came before them.
PREVIOUS = "a1 c1 c3 c4 cr1 d2 f1 g2 g3 g3s h1 i2 m1 m2 m3 m4 p2 p3 r3 r4 t2 x1"


def read_published() -> dict[str, Decimal]:
    """Return the rows of the published list: types, and families with the price of an xlarge."""
    lines = PUBLISHED.read_text(encoding="utf-8").splitlines()
    pairs = [line.split(",") for line in lines if not line.startswith("#")]
    return {name: Decimal(usd) for name, usd in pairs}


def published_price(kind: str, rows: dict[str, Decimal]) -> Decimal | None:
    """Return what AWS published for a type, None where the list does not say."""
    family, _, size = kind.partition(".")
    factor = size_factor(size)
    if kind in rows:
        return rows[kind]
    if family not in rows or factor is None or size.startswith("metal"):
        return None
    return rows[family] * factor / 8


def instances(region: str) -> dict[str, Price]:
    items = load_prices(region).items()
    return {key.name: price for key, price in items if key.product == "ec2/linux"}


@pytest.mark.parametrize(
    ("kind", "usd"),
    [
        ("t3.small", "0.0208"),
        ("t3.medium", "0.0416"),
        ("t3a.medium", "0.0376"),
        ("t3a.large", "0.0752"),
        ("t3a.xlarge", "0.1504"),
        ("t3a.2xlarge", "0.3008"),
        ("r5a.xlarge", "0.226"),
        ("m6i.2xlarge", "0.384"),
        ("r6a.2xlarge", "0.4536"),
        ("m5.8xlarge", "1.536"),
    ],
)
def test_the_ten_prices_of_the_prototype_are_there(kind: str, usd: str) -> None:
    price = load_prices("us-west-2").instance(kind)
    assert isinstance(price, Price)
    assert price.usd == Decimal(usd)


@pytest.mark.parametrize("region", REGIONS)
def test_99_of_100_current_types_have_the_price_that_aws_published_later(region: str) -> None:
    rows = read_published()
    wrong, compared = [], 0
    for kind, price in instances(region).items():
        expected = published_price(kind, rows)
        if expected is None or kind.partition(".")[0] in PREVIOUS.split():
            continue
        compared += 1
        if abs(price.usd - expected) > expected * Decimal("0.005"):
            wrong.append((kind, price.usd, expected))
    assert compared > 600
    assert len(wrong) <= compared / 100, wrong


@pytest.mark.parametrize("region", REGIONS)
def test_the_shipped_list_covers_what_the_source_lists(region: str) -> None:
    found = instances(region)
    assert len(found) > 840
    for family in (
        "c6i",
        "c7i",
        "m5",
        "m6a",
        "m6i",
        "m7i",
        "r6i",
        "t3",
        "t3a",
        "c7g",
        "g5",
        "g4dn",
    ):
        assert any(kind.startswith(f"{family}.") for kind in found), family


@pytest.mark.parametrize("kind", ["p4d.24xlarge", "p5.48xlarge", "g4dn.8xlarge"])
def test_prices_known_to_be_superseded_are_unknown(kind: str) -> None:
    assert isinstance(load_prices("us-west-2").instance(kind), Unknown)


@pytest.mark.parametrize("region", REGIONS)
def test_service_prices_are_there_with_source_and_confidence(region: str) -> None:
    prices = load_prices(region)
    for product, name, usd in [
        ("ebs", "gp3", "0.08"),
        ("efs", "standard", "0.30"),
        ("s3", "standard", "0.023"),
        ("vpc", "nat.hour", "0.045"),
        ("vpc", "endpoint.hour", "0.01"),
        ("vpc", "public_ipv4", "0.005"),
        ("kms", "key", "1.00"),
    ]:
        price = prices.find(product, name)
        assert isinstance(price, Price)
        assert price.usd == Decimal(usd)
        assert price.confidence is Confidence.CONFIRMED
        assert price.source


def test_every_shipped_file_is_inside_the_package() -> None:
    names = {entry.name for entry in (resources.files("clusterbox.costs") / "data").iterdir()}
    assert {"us-west-2.csv", "us-east-1.csv", "services.yaml"} <= names
