"""Records of a small cluster, and prices with round figures, for the tests of the meter."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

from clusterbox.costs.jobs import JobRun
from clusterbox.costs.meter_rates import Rates
from clusterbox.costs.price import Confidence, Key, Price, PriceTable
from clusterbox.costs.prices import Prices
from clusterbox.costs.spot import make_spot_prices
from clusterbox.costs.usage import InstanceRun, Storage, parse_time

# A Monday in November 2025, a month of 30 days.
DAY = parse_time("2025-11-03T00:00:00Z")
HOUR = 3600


def at(text: str) -> int:
    """Return a time of that day, such as `08:30:00`."""
    return parse_time(f"2025-11-03T{text}Z")


def run(start: int, end: int | None, **fields: Any) -> InstanceRun:
    """Return a compute node of 8 CPUs at 3.60 USD an hour, a tenth of a cent a second."""
    given: dict[str, Any] = {
        "instance": "i-1",
        "instance_type": "big.8",
        "purchase": "on-demand",
        "zone": "us-west-2a",
        "cluster": "ws",
        "node_type": "Compute",
        "queue": "eco",
        "node": "eco-dy-n-1",
        "cpus": 8,
    }
    return InstanceRun(start=start, end=end, **{**given, **fields})


def head(start: int, end: int | None = None, **fields: Any) -> InstanceRun:
    """Return a head node at 0.36 USD an hour."""
    given = {"instance": "i-head", "instance_type": "small.1", "node_type": "HeadNode"}
    return run(start, end, **{**given, "queue": None, "node": None, "cpus": None, **fields})


def job(start: int, end: int | None, **fields: Any) -> JobRun:
    """Return a job of 2 CPUs on the first node."""
    given: dict[str, Any] = {
        "id": "1",
        "name": "veget",
        "user": "ana",
        "account": "water",
        "queue": "eco",
        "state": "COMPLETED" if end else "RUNNING",
        "cpus": 2,
        "nodes": ("eco-dy-n-1",),
    }
    return JobRun(start=start, end=end, **{**given, **fields})


def disk(start: int, end: int | None = None, **fields: Any) -> Storage:
    """Return 720 GiB at 0.10 USD a month: 0.10 USD an hour in a month of 30 days."""
    given: dict[str, Any] = {
        "id": "vol-1",
        "product": "ebs",
        "name": "gp3",
        "amount": Decimal(720),
        "cluster": "ws",
    }
    return Storage(start=start, end=end, **{**given, **fields})


def rates(*changes: tuple[str, str, int, str]) -> Rates:
    """Return the prices, with Spot prices of the given type, zone, time and USD an hour."""
    usd = {
        Key("ec2/linux", "big.8"): ("3.6", "hour"),
        Key("ec2/linux", "small.1"): ("0.36", "hour"),
        Key("ebs", "gp3"): ("0.1", "GB-month"),
        Key("vpc", "public_ipv4"): ("0.005", "hour"),
    }
    table = PriceTable(
        "us-west-2",
        date(2025, 11, 1),
        "test",
        {
            key: Price(Decimal(amount), unit, Confidence.PUBLISHED, "test")
            for key, (amount, unit) in usd.items()
        },
    )
    rows = [(kind, zone, start, Decimal(price)) for kind, zone, start, price in changes]
    spot = make_spot_prices("us-west-2", DAY, DAY + 24 * HOUR, rows) if rows else None
    return Rates(Prices("us-west-2", [table]), spot)
