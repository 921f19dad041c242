"""File systems and buckets of an account, and how much they hold."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import islice

from clusterbox.aws import Account
from clusterbox.costs import report_prices as cost_of
from clusterbox.costs.item import Item, make_item
from clusterbox.costs.prices import Prices
from clusterbox.costs.report_prices import BYTES_PER_GB

# The most that EFS and FSx, and that S3 gives at once.
FILE_SYSTEMS_PAGE = 100
BUCKETS_PAGE = 1000
# Queries in one call of GetMetricData (CloudWatch API reference).
METRICS_A_CALL = 500
# S3 reports a bucket's size once a day, and up to two days late.
S3_METRIC_DAYS = 4


def read_file_systems(account: Account, prices: Prices) -> Iterator[Item]:
    """Yield the EFS file systems with what they hold by storage class."""
    for system in account.pages(
        "efs", "describe_file_systems", "FileSystems", page_size=FILE_SYSTEMS_PAGE
    ):
        size = (system.get("SizeInBytes") or {}).get("Value")
        yield make_item(
            account,
            "EFS",
            system["FileSystemId"],
            system,
            cost_of.file_system_cost(system, prices),
            state=system["LifeCycleState"],
            type=system.get("ThroughputMode", ""),
            quantity="" if size is None else _gb(Decimal(size) / BYTES_PER_GB),
            created=system.get("CreationTime"),
        )


def read_fsx(account: Account, prices: Prices) -> Iterator[Item]:
    """Yield the FSx file systems with their capacity."""
    for system in account.pages(
        "fsx", "describe_file_systems", "FileSystems", page_size=FILE_SYSTEMS_PAGE
    ):
        yield make_item(
            account,
            "FSx",
            system["FileSystemId"],
            system,
            cost_of.fsx_cost(system, prices),
            state=str(system.get("Lifecycle", "")).lower(),
            type=str(system.get("FileSystemType", "")).lower(),
            quantity=f"{system.get('StorageCapacity', 0)} GiB",
            created=system.get("CreationTime"),
        )


def read_buckets(account: Account, prices: Prices, today: datetime) -> Iterator[Item]:
    """Yield the buckets of the region; CloudWatch knows their sizes once a day, or not at all."""
    buckets = {
        bucket["Name"]: bucket
        for bucket in account.pages(
            "s3", "list_buckets", "Buckets", page_size=BUCKETS_PAGE, BucketRegion=account.region
        )
        # A region of the answer counts: not every S3 heeds the one that was asked for.
        if bucket.get("BucketRegion", account.region) == account.region
    }
    sizes = dict(_bucket_sizes(account, today)) if buckets else {}
    costs = cost_of.bucket_costs(
        {name: held for name, held in sizes.items() if name in buckets}, prices
    )
    for name, bucket in buckets.items():
        tagging = account.ask("s3", "get_bucket_tagging", absent=("NoSuchTagSet",), Bucket=name)
        held = sizes.get(name)
        unknown = cost_of.unknown_cost("CloudWatch has no size of it: new, empty, or not allowed")
        yield make_item(
            account,
            "S3",
            name,
            {"Tags": [*((tagging or {}).get("TagSet") or ()), {"Key": "Name", "Value": name}]},
            costs.get(name, unknown),
            quantity="" if held is None else _gb(sum(held.values(), Decimal(0))),
            created=bucket.get("CreationDate"),
        )


def _bucket_sizes(account: Account, today: datetime) -> Iterator[tuple[str, dict[str, Decimal]]]:
    """Yield the newest size of each bucket in GB by StorageType."""
    metrics = account.pages(
        "cloudwatch",
        "list_metrics",
        "Metrics",
        Namespace="AWS/S3",
        MetricName="BucketSizeBytes",
    )
    found: dict[str, dict[str, Decimal]] = {}
    while batch := tuple(islice(metrics, METRICS_A_CALL)):
        queries = [
            {
                "Id": f"m{index}",
                "MetricStat": {"Metric": dict(metric), "Period": 86_400, "Stat": "Average"},
            }
            for index, metric in enumerate(batch)
        ]
        for result in account.pages(
            "cloudwatch",
            "get_metric_data",
            "MetricDataResults",
            MetricDataQueries=queries,
            StartTime=today - timedelta(days=S3_METRIC_DAYS),
            EndTime=today,
            ScanBy="TimestampDescending",
        ):
            if result["Values"]:
                metric = batch[int(result["Id"][1:])]
                names = {entry["Name"]: entry["Value"] for entry in metric["Dimensions"]}
                held = found.setdefault(names["BucketName"], {})
                # A later page goes on with older values of the same metric.
                size = Decimal(str(result["Values"][0])) / BYTES_PER_GB
                held.setdefault(names["StorageType"], size)
    yield from found.items()


def _gb(amount: Decimal) -> str:
    return f"{amount:.1f} GB"
