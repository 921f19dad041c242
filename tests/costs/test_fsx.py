"""Prices of FSx: in AWS's price list, and of file systems as FSx describes them.

The usage types and attributes of Lustre with SSD, of ONTAP and of OpenZFS SINGLE_AZ_2 are AWS's, as
public price comparisons quote them; those of HDD, OpenZFS SINGLE_AZ_1 and MULTI_AZ_1 are made.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from clusterbox.costs.price import Confidence, Key, Price, PriceTable
from clusterbox.costs.price_list import SERVICES, classify
from clusterbox.costs.prices import Prices, load_prices
from clusterbox.costs.report_prices import Cost, fsx_cost
from tests.costs.price_rows import service


def key_of(usage: str, kind: str, **attributes: str) -> str:
    operation = attributes.pop("operation", f"CreateFileSystem:{kind}")
    details = {"fileSystemType": kind, "operation": operation, **attributes}
    return str(classify(service("AmazonFSx", usage, "GB-Mo", "0.1", **details)["product"]))


def test_fsx_is_asked() -> None:
    assert SERVICES["AmazonFSx"] == (None,)


@pytest.mark.parametrize(
    ("usage", "kind", "key"),
    [
        ("USW2-Storage", "Lustre", "fsx/lustre SCRATCH.SSD"),
        ("USW2-Storage.SSD.50", "Lustre", "fsx/lustre PERSISTENT_1.SSD.50"),
        ("USW2-Storage.SSD.200", "Lustre", "fsx/lustre PERSISTENT_1.SSD.200"),
        ("Storage.SSD.125", "Lustre", "fsx/lustre PERSISTENT_2.SSD.125"),
        ("USW2-Storage.SSD.1000", "Lustre", "fsx/lustre PERSISTENT_2.SSD.1000"),
        ("USW2-Storage.HDD.12", "Lustre", "fsx/lustre PERSISTENT_1.HDD.12"),
        ("USW2-BackupUsage", "Lustre", "fsx/lustre backup"),
        ("APN1-Storage.SAZ_2N:SSD", "ONTAP", "fsx/ontap SINGLE_AZ_1.SSD"),
        ("APN1-Storage.MAZ2:SSD", "ONTAP", "fsx/ontap MULTI_AZ_2.SSD"),
        ("APN1-ThroughputCapacity.SAZ_2N2", "ONTAP", "fsx/ontap SINGLE_AZ_2.throughput"),
        ("APN1-ProvisionedSSDIOPS.MAZ", "ONTAP", "fsx/ontap MULTI_AZ_1.iops"),
        ("EUC1-Storage.SAZ2:SSD", "OpenZFS", "fsx/openzfs SINGLE_AZ_2.SSD"),
        ("EUC1-ThroughputCapacity.SAZ2", "OpenZFS", "fsx/openzfs SINGLE_AZ_2.throughput"),
        ("EUC1-Storage.MAZ:SSD", "OpenZFS", "fsx/openzfs MULTI_AZ_1.SSD"),
    ],
)
def test_a_product_has_the_name_that_the_estimate_and_the_report_look_for(
    usage: str, kind: str, key: str
) -> None:
    assert key_of(usage, kind) == key


@pytest.mark.parametrize(
    ("usage", "kind"),
    [
        ("EUC1-Storage.MAZ:INT_Monitoring", "OpenZFS"),
        ("APN1-Storage.SAZ_2N:CPoolStd", "ONTAP"),
        ("USW2-Storage.SSD.75", "Lustre"),
        ("USW2-MetadataIOPS", "Lustre"),
        ("USW2-Storage.MAZ:SSD", "Windows"),
        ("USW2-BackupUsage", "Windows"),
        ("USW2-Storage", ""),
    ],
)
def test_what_nothing_looks_for_is_left_out(usage: str, kind: str) -> None:
    assert key_of(usage, kind) == "None"


def test_a_file_cache_is_not_a_file_system() -> None:
    assert key_of("USW2-Storage", "Lustre", operation="CreateFileCache:Lustre") == "None"


def test_every_shipped_lustre_price_has_a_name_that_a_refresh_replaces() -> None:
    shipped = {str(key) for key, _ in load_prices("us-west-2").items() if "fsx" in key.product}
    usages = ["Storage", "BackupUsage"]
    usages += [f"Storage.SSD.{tier}" for tier in (50, 100, 200, 125, 250, 500, 1000)]
    usages += [f"Storage.HDD.{tier}" for tier in (12, 40)]
    assert {key_of(usage, "Lustre") for usage in usages} == shipped


def prices(**usd: str) -> Prices:
    rows = {
        Key("fsx/ontap", f"SINGLE_AZ_1.{name}"): Price(
            Decimal(value), "GB-month", Confidence.PUBLISHED, "test"
        )
        for name, value in usd.items()
    }
    return Prices("us-west-2", [PriceTable("us-west-2", date(2026, 11, 1), "test", rows)])


def ontap(**settings: Any) -> dict[str, Any]:
    return {
        "FileSystemType": "ONTAP",
        "StorageType": "SSD",
        "StorageCapacity": 1024,
        "OntapConfiguration": {
            "DeploymentType": "SINGLE_AZ_1",
            "ThroughputCapacity": 128,
            "DiskIopsConfiguration": {"Mode": "AUTOMATIC", "Iops": 3072},
            **settings,
        },
    }


def test_ontap_costs_its_capacity_and_throughput() -> None:
    cost = fsx_cost(ontap(), prices(SSD="0.15", throughput="0.906"))
    assert cost.now == Decimal("269.568")
    assert cost.note == "without backups, its capacity pool"


def test_iops_above_those_of_the_capacity_are_paid() -> None:
    known = prices(SSD="0.15", throughput="0.906", iops="0.02")
    more = {"DiskIopsConfiguration": {"Mode": "USER_PROVISIONED", "Iops": 4072}}
    assert fsx_cost(ontap(**more), known).now == Decimal("289.568")


def test_a_part_without_a_price_is_told() -> None:
    cost = fsx_cost(ontap(), prices(SSD="0.15"))
    assert "SINGLE_AZ_1.throughput" in str(cost.unknown)


@pytest.mark.parametrize(
    "system",
    [
        {"FileSystemType": "ONTAP", "StorageCapacity": 1024},
        {"FileSystemType": "WINDOWS", "StorageCapacity": 32, "WindowsConfiguration": {}},
        {"FileSystemType": "WINDOWS"},
        {"FileSystemType": "OPENZFS", "StorageType": "INTELLIGENT_TIERING"},
        {
            "FileSystemType": "LUSTRE",
            "StorageType": "INTELLIGENT_TIERING",
            "LustreConfiguration": {"DeploymentType": "PERSISTENT_2", "ThroughputCapacity": 4000},
        },
    ],
)
def test_what_has_no_price_is_unknown_and_not_free(system: dict[str, Any]) -> None:
    cost = fsx_cost(system, load_prices("us-west-2"))
    assert cost == Cost(None, None, cost.unknown, cost.note)
    assert cost.unknown


def test_a_cache_of_lustre_is_told() -> None:
    system = {
        "FileSystemType": "LUSTRE",
        "StorageType": "HDD",
        "StorageCapacity": 6000,
        "LustreConfiguration": {
            "DeploymentType": "PERSISTENT_1",
            "PerUnitStorageThroughput": 12,
            "DriveCacheType": "READ",
        },
    }
    cost = fsx_cost(system, load_prices("us-west-2"))
    assert cost.now == Decimal(150)
    assert "SSD cache" in str(cost.note)
