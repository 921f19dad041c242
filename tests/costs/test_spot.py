"""Spot prices: from EC2, in a file, and by the second."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from hypothesis import given
from hypothesis import strategies as st

from clusterbox.cli.costs_spot import types_of_clusters
from clusterbox.cli.main import main
from clusterbox.costs.price import Price
from clusterbox.costs.prices import load_prices
from clusterbox.costs.spot import (
    SpotPrices,
    fetch_spot_prices,
    load_spot_prices,
    make_spot_prices,
    merge_spot_prices,
    parse_spot_prices,
    render_spot_prices,
    spot_file,
    write_spot_prices,
)
from clusterbox.costs.usage import parse_time
from clusterbox.errors import ClusterboxError, InputError
from tests.conftest import ROOT

BEGIN = parse_time("2025-11-01T00:00:00Z")
HOUR = 3600
ROWS = [
    ("m5.large", "us-west-2a", BEGIN - HOUR, Decimal("0.04")),
    ("m5.large", "us-west-2a", BEGIN + 10 * HOUR, Decimal("0.05")),
    ("m5.large", "us-west-2a", BEGIN + 15 * HOUR, Decimal("0.05")),
    ("m5.large", "us-west-2b", BEGIN, Decimal("0.06")),
]
HISTORY = make_spot_prices("us-west-2", BEGIN, BEGIN + 20 * HOUR, ROWS)


def pieces(start: int, end: int, zone: str = "us-west-2a") -> list[tuple[int, int, Decimal | None]]:
    found = HISTORY.pieces("m5.large", zone, BEGIN + start * HOUR, BEGIN + end * HOUR)
    return [((a - BEGIN) // HOUR, (b - BEGIN) // HOUR, usd) for a, b, usd in found]


def test_a_price_holds_until_the_next_change() -> None:
    assert pieces(8, 12) == [(8, 10, Decimal("0.04")), (10, 12, Decimal("0.05"))]
    assert pieces(10, 11) == [(10, 11, Decimal("0.05"))]
    assert pieces(15, 99) == [(15, 99, Decimal("0.05"))]


def test_before_the_first_change_and_in_other_zones_nothing_is_known() -> None:
    assert pieces(-2, 1) == [(-2, -1, None), (-1, 1, Decimal("0.04"))]
    assert pieces(1, 2, "us-west-2c") == [(1, 2, None)]


@given(st.integers(-5, 25), st.integers(0, 30))
def test_pieces_follow_each_other_without_a_gap(start: int, hours: int) -> None:
    found = pieces(start, start + hours)
    assert sum(end - begin for begin, end, _usd in found) == hours
    assert all(one[1] == two[0] for one, two in itertools.pairwise(found))


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_pages_may_come_in_any_order_and_twice(order: tuple[int, ...]) -> None:
    rows = [ROWS[number] for number in order] + ROWS[:2]
    assert make_spot_prices("us-west-2", BEGIN, BEGIN + 20 * HOUR, rows) == HISTORY


def test_only_changes_are_kept() -> None:
    assert len(HISTORY.changes["m5.large", "us-west-2a"]) == 2


def test_two_prices_at_one_time_are_an_error_that_names_both() -> None:
    with pytest.raises(InputError, match=r"m5\.large in us-west-2b .* is 0\.06 and 0\.07"):
        make_spot_prices("us-west-2", 0, 1, [*ROWS, (*ROWS[3][:3], Decimal("0.07"))])


def test_a_history_is_the_same_after_writing_and_reading(tmp_path: Path) -> None:
    path = spot_file(tmp_path, "us-west-2")
    write_spot_prices(HISTORY, path)
    assert load_spot_prices(tmp_path, "us-west-2") == HISTORY
    assert load_spot_prices(tmp_path, "us-east-1") is None
    assert [file.name for file in path.parent.iterdir()] == ["spot-us-west-2.csv"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("clusterbox-spot 1", "other 1", "is not a file of Spot prices"),
        (
            "m5.large,us-west-2b,2025-11-01T00:00:00Z,0.06\n",
            "",
            "holds 2 rows and its header says 3",
        ),
        ("0.06", "0", "must be type,zone,from,usd"),
        ("0.06", "NaN", "must be type,zone,from,usd"),
        (",0.06", "", "must be type,zone,from,usd"),
        ("# region: us-west-2\n", "", "the header needs region"),
        ("# since: 2025", "# since: next", "the header needs region"),
    ],
)
def test_a_damaged_file_is_told(old: str, new: str, message: str) -> None:
    text = render_spot_prices(HISTORY)
    assert old in text
    with pytest.raises(InputError, match=message):
        parse_spot_prices(text.replace(old, new), name="spot.csv")


def test_what_ec2_forgets_stays_in_the_file() -> None:
    later = make_spot_prices(
        "us-west-2",
        BEGIN + 15 * HOUR,
        BEGIN + 40 * HOUR,
        [ROWS[1], ("m5.large", "us-west-2a", BEGIN + 30 * HOUR, Decimal("0.03"))],
    )
    merged = merge_spot_prices(HISTORY, later)
    assert [usd for _start, usd in merged.changes["m5.large", "us-west-2a"]] == [
        Decimal("0.04"),
        Decimal("0.05"),
        Decimal("0.03"),
    ]
    assert (merged.since, merged.until) == (BEGIN, BEGIN + 40 * HOUR)


def test_the_figures_of_an_estimate_are_weighted_by_time() -> None:
    # Zone a: 10 h at 0.04 and 10 h at 0.05; zone b: 20 h at 0.06.
    summary = HISTORY.histories()["m5.large"]
    assert (summary.mean, summary.median, summary.percentile_95, summary.days) == (
        Decimal("0.052500"),
        Decimal("0.05"),
        Decimal("0.06"),
        1,
    )
    price = load_prices("us-west-2", spot=HISTORY.histories()).spot("m5.large")
    assert isinstance(price, Price)
    assert price.usd == Decimal("0.0525")


def entry(zone: str, hour: int, usd: str) -> dict[str, Any]:
    return {
        "InstanceType": "m5.large",
        "AvailabilityZone": zone,
        "Timestamp": datetime.fromtimestamp(BEGIN + hour * HOUR, UTC),
        "SpotPrice": usd,
        "ProductDescription": "Linux/UNIX",
    }


def fetch(*pages: list[dict[str, Any]]) -> SpotPrices:
    client = boto3.client(
        "ec2", region_name="us-west-2", aws_access_key_id="x", aws_secret_access_key="x"
    )
    asked = {
        "InstanceTypes": ["m5.large"],
        "ProductDescriptions": ["Linux/UNIX"],
        "StartTime": datetime.fromtimestamp(BEGIN, UTC),
        "EndTime": datetime.fromtimestamp(BEGIN + 20 * HOUR, UTC),
    }
    with Stubber(client) as stub:
        for number, page in enumerate(pages):
            token = {"NextToken": str(number)} if number else {}
            more = {"NextToken": str(number + 1)} if number + 1 < len(pages) else {}
            stub.add_response(
                "describe_spot_price_history",
                {"SpotPriceHistory": page, **more},
                {**asked, **token},
            )
        found = fetch_spot_prices(client, "us-west-2", ["m5.large"], BEGIN, BEGIN + 20 * HOUR)
        stub.assert_no_pending_responses()
        return found


def test_every_page_of_the_history_is_fetched() -> None:
    found = fetch(
        [entry("us-west-2a", 10, "0.05"), entry("us-west-2a", -1, "0.040000")],
        [entry("us-west-2b", 0, "0.06")],
    )
    assert found == HISTORY


@pytest.mark.parametrize("usd", ["0", "-1", "many"])
def test_a_price_that_cannot_be_one_is_an_error(usd: str) -> None:
    with pytest.raises(ClusterboxError, match="cannot be read"):
        fetch([entry("us-west-2a", 1, usd)])


def test_no_price_at_all_is_an_error() -> None:
    with pytest.raises(ClusterboxError, match=r"no Spot prices of m5\.large in us-west-2"):
        fetch([])


def test_a_refusal_leaves_the_file_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "environments").mkdir()
    (tmp_path / "cdk.json").write_text("{}", encoding="utf-8")
    write_spot_prices(HISTORY, spot_file(tmp_path, "us-west-2"))
    before = spot_file(tmp_path, "us-west-2").read_bytes()
    # Nobody listens on port 9 of the loopback address.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    words = ["prices", "refresh", "--spot", "--region", "us-west-2", "--type", "m5.large"]
    assert main(["--root", str(tmp_path), "costs", *words]) == 1
    assert main(["--root", str(tmp_path), "costs", *words, "--days", "91"]) == 2
    assert main(["--root", str(tmp_path), "costs", *words[:-2]]) == 2
    assert spot_file(tmp_path, "us-west-2").read_bytes() == before
    said = capsys.readouterr().err
    assert "AWS cannot be asked" in said
    assert "name some with --type" in said


def test_the_types_of_the_clusters_are_asked_for() -> None:
    assert "t3a.2xlarge" in types_of_clusters(ROOT, "us-west-2")
    assert types_of_clusters(ROOT, "eu-north-1") == []


def test_a_file_of_another_region_or_of_no_text_is_refused(tmp_path: Path) -> None:
    path = spot_file(tmp_path, "eu-west-1")
    write_spot_prices(make_spot_prices("us-west-2", 0, 1, []), path)
    with pytest.raises(InputError, match="are of us-west-2"):
        load_spot_prices(tmp_path, "eu-west-1")
    path.write_bytes(b"\xff")
    with pytest.raises(InputError, match="is not text in UTF-8"):
        load_spot_prices(tmp_path, "eu-west-1")
