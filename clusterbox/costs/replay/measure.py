"""The meter's error: what it makes of the recorded month, beside what was billed."""

from __future__ import annotations

import csv
import gzip
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from clusterbox.costs.jobs import parse_sacct
from clusterbox.costs.meter_charges import Part, compute_charges
from clusterbox.costs.meter_jobs import price_jobs
from clusterbox.costs.meter_rates import Rates
from clusterbox.costs.meter_time import Period
from clusterbox.costs.prices import load_prices
from clusterbox.costs.replay.world import CLUSTER, END, START
from clusterbox.costs.spot import parse_spot_prices
from clusterbox.costs.usage import read_usage

FOLDER = Path(__file__).parent / "2025-10"
MONTH = Period(START, END)
GROUPS = ("account", "user", "queue")


@dataclass(frozen=True)
class Comparison:
    """USD that were billed for something, and what the meter says of it."""

    kind: str
    name: str
    billed: Decimal
    metered: Decimal

    @property
    def percent(self) -> Decimal:
        """The meter's error in percent of what was billed; more than 0 is too much."""
        return (self.metered - self.billed) / self.billed * 100


def measure(folder: Path = FOLDER) -> list[Comparison]:
    """Return the total, its kinds of lines, and the jobs by account, user and queue.

    All of the bill that carries the cluster's tag is in the total, also what the meter leaves out.
    """
    usage = read_usage(folder / "usage.jsonl")
    jobs = parse_sacct(
        (folder / "accounting.txt").read_text(encoding="utf-8"), name="accounting.txt"
    )
    spot = parse_spot_prices((folder / "spot.csv").read_text(encoding="utf-8"), name="spot.csv")
    rates = Rates(load_prices("us-west-2"), spot)
    charges = compute_charges(usage.of_cluster(CLUSTER), jobs, rates, MONTH)
    metered: dict[str, Decimal] = defaultdict(Decimal)
    for charge in charges.items:
        usd = Decimal(charge.amount.usd.numerator) / Decimal(charge.amount.usd.denominator)
        metered["total"] += usd
        metered[_kind(charge.part)] += usd
    billed = read_bill(folder / "billing.csv.gz")
    found = [
        Comparison("bill", name, billed[name], metered[name])
        for name in ("total", "instances", "disks", "addresses")
    ]
    truth = json.loads((folder / "jobs.json").read_text(encoding="utf-8"), parse_float=Decimal)
    for group in GROUPS:
        costs = price_jobs(usage, jobs, rates, MONTH, cluster=CLUSTER, group_by=group)
        own = {item.name: item.own.usd for item in costs.groups}
        for name, usd in truth[group].items():
            value = Decimal(own[name].numerator) / Decimal(own[name].denominator)
            found.append(Comparison(f"jobs by {group}", name, usd, value))
    return found


def read_bill(path: Path) -> dict[str, Decimal]:
    """Return the USD of the cluster's lines: `total`, and by kind."""
    found: dict[str, Decimal] = defaultdict(Decimal)
    for kind, usd in _bill_lines(path):
        found["total"] += usd
        found[kind] += usd
    return found


def _bill_lines(path: Path) -> Iterator[tuple[str, Decimal]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if row["resourceTags/user:parallelcluster:cluster-name"] != CLUSTER:
                continue
            usage = row["lineItem/UsageType"]
            kind = "other"
            if "BoxUsage:" in usage or "SpotUsage:" in usage:
                kind = "instances"
            elif "EBS:" in usage:
                kind = "disks"
            elif "PublicIPv4" in usage:
                kind = "addresses"
            yield kind, Decimal(row["lineItem/UnblendedCost"])


def _kind(part: Part) -> str:
    if part is Part.DISKS:
        return "disks"
    return "addresses" if part is Part.ADDRESSES else "instances"
