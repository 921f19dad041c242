"""What AWS would bill for the simulated month, as lines of a Cost and Usage Report by the hour.

A plain implementation of its own: nothing of the meter is used, so that both cannot be wrong alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from clusterbox.costs.replay.world import CLUSTER, END, HOUR, START, Disk, Instance, Run, World

ACCOUNT = "111122223333"
OTHER_ACCOUNT = "444455556666"
COLUMNS = (
    "lineItem/UsageAccountId",
    "lineItem/UsageStartDate",
    "lineItem/UsageEndDate",
    "lineItem/UsageType",
    "lineItem/ResourceId",
    "lineItem/UsageAmount",
    "lineItem/UnblendedCost",
    "resourceTags/user:parallelcluster:cluster-name",
)
# USD an hour on demand, us-west-2 (the price list that ships with clusterbox has the same).
ON_DEMAND = {"t3.medium": 0.0416, "t3.large": 0.0832, "t3a.2xlarge": 0.3008, "g4dn.xlarge": 0.526}
GP3_GIB_MONTH = 0.08
GP3_IOPS_MONTH = 0.005
FREE_IOPS = 3000
PUBLIC_IPV4_HOUR = 0.005
CREDIT_HOUR = 0.05
ZONE_GB = 0.01
# AWS rounds amounts and costs of a line to so many digits.
DIGITS = 10


@dataclass(frozen=True)
class BillingLine:
    """One line of the bill."""

    account: str
    hour: int
    usage_type: str
    resource: str
    amount: float
    usd: float
    cluster: str

    def cells(self) -> list[str]:
        """Return the columns of COLUMNS."""
        return [
            self.account,
            _render(self.hour),
            _render(self.hour + int(HOUR)),
            self.usage_type,
            self.resource,
            f"{self.amount:.{DIGITS}f}",
            f"{self.usd:.{DIGITS}f}",
            self.cluster,
        ]


def bill(world: World) -> list[BillingLine]:
    """Return the lines of the month: those of the cluster, and others that must not be counted."""
    lines: list[BillingLine] = []
    for one in world.instances:
        lines += _instance_lines(world, one)
    for disk in world.disks:
        lines += _disk_lines(disk)
    lines += _unmetered_lines()
    lines += _foreign_lines()
    return [line for line in lines if START <= line.hour < END]


def job_costs(world: World) -> dict[str, dict[str, float]]:
    """Return what the jobs of each account, user and queue really cost in the month, in USD."""
    found: dict[str, dict[str, float]] = {
        "account": defaultdict(float),
        "user": defaultdict(float),
        "queue": defaultdict(float),
    }
    for run in world.runs:
        usd = _run_cost(world, run)
        found["account"][run.account] += usd
        found["user"][run.user] += usd
        found["queue"][run.queue] += usd
    return {kind: dict(sorted(costs.items())) for kind, costs in found.items()}


def _run_cost(world: World, run: Run) -> float:
    total = 0.0
    for one in run.instances:
        if one.pool is None or _is_free(one):
            continue
        share = max(
            run.cpus_a_node / one.pool.cpus,
            run.gpus_a_node / one.pool.gpus if one.pool.gpus else 0.0,
        )
        for start, end, rate in _rates(world, one):
            seconds = min(end, run.end, END) - max(start, run.start, START)
            if seconds > 0:
                total += share * seconds / HOUR * rate
    return total


def _instance_lines(world: World, one: Instance) -> Iterator[BillingLine]:
    kind = "SpotUsage" if one.pool is not None and one.pool.spot else "BoxUsage"
    if _is_free(one):
        return
    for hour in _hours(one.running, _billed_end(one)):
        seconds = usd = 0.0
        for start, end, rate in _rates(world, one):
            part = min(end, hour + HOUR) - max(start, hour)
            if part > 0:
                seconds += part
                usd += part / HOUR * rate
        yield _line(hour, f"USW2-{kind}:{one.instance_type}", one.id, seconds / HOUR, usd)
        if one.node_type == "LoginNode":
            cost = seconds / HOUR * PUBLIC_IPV4_HOUR
            yield _line(hour, "USW2-PublicIPv4:InUseAddress", one.id, seconds / HOUR, cost)


def _rates(world: World, one: Instance) -> Iterator[tuple[float, float, float]]:
    """Yield from, to and USD an hour; a Spot price holds for an instance-hour from its beginning."""
    end = _billed_end(one)
    if one.pool is None or not one.pool.spot:
        yield one.running, end, ON_DEMAND[one.instance_type]
        return
    at = one.running
    while at < end:
        changes = world.spot[one.instance_type, one.zone]
        usd = [price for since, price in changes if since <= at][-1]
        yield at, min(at + HOUR, end), usd
        at += HOUR


def _billed_end(one: Instance) -> float:
    if one.ended is None:
        return END + HOUR
    return max(one.ended, one.running + 60)


def _is_free(one: Instance) -> bool:
    return one.interrupted and one.ended is not None and one.ended - one.running < HOUR


def _disk_lines(disk: Disk) -> Iterator[BillingLine]:
    month = END - START
    end = END if disk.end is None else disk.end
    for hour in _hours(disk.start, end):
        seconds = min(end, hour + HOUR) - max(disk.start, hour)
        amount = disk.gib * seconds / month
        yield _line(hour, "USW2-EBS:VolumeUsage.gp3", disk.id, amount, amount * GP3_GIB_MONTH)
        if disk.iops > FREE_IOPS:
            amount = (disk.iops - FREE_IOPS) * seconds / month
            cost = amount * GP3_IOPS_MONTH
            yield _line(hour, "USW2-EBS:VolumeP-IOPS.gp3", disk.id, amount, cost)


def _unmetered_lines() -> Iterator[BillingLine]:
    """Yield what the meter does not know of: CPU credits of the head node, traffic between zones."""
    for day in range(31):
        hour = START + day * 24 * int(HOUR) + 15 * int(HOUR)
        yield _line(hour, "USW2-CPUCredits:t3", "i-0head", 0.6, 0.6 * CREDIT_HOUR)
        yield _line(hour, "USW2-DataTransfer-Regional-Bytes", "i-0head", 9.0, 9.0 * ZONE_GB)


def _foreign_lines() -> Iterator[BillingLine]:
    """Yield lines of another cluster and another account in the same bill."""
    for hour in range(START, END, 24 * int(HOUR)):
        usd = ON_DEMAND["t3a.2xlarge"]
        yield BillingLine(ACCOUNT, hour, "USW2-BoxUsage:t3a.2xlarge", "i-0b", 1.0, usd, "ws-other")
        yield BillingLine(OTHER_ACCOUNT, hour, "USW2-BoxUsage:t3.large", "i-0c", 1.0, 0.0832, "")


def _line(hour: int, usage_type: str, resource: str, amount: float, usd: float) -> BillingLine:
    return BillingLine(
        ACCOUNT, hour, usage_type, resource, round(amount, DIGITS), round(usd, DIGITS), CLUSTER
    )


def _hours(start: float, end: float) -> Iterator[int]:
    hour = int(max(start, START) // HOUR * HOUR)
    while hour < min(end, END):
        yield hour
        hour += int(HOUR)


def _render(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
