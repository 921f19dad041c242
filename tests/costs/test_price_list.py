from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from clusterbox.costs.price import Key
from clusterbox.costs.price_list import classify, read_terms
from tests.costs.price_rows import instance, service


def read(entry: dict[str, Any]) -> dict[str, tuple[Decimal, str]]:
    key = classify(entry["product"])
    assert key is not None
    rows = read_terms(key, entry["terms"]["OnDemand"], "test")
    return {str(row.key): (row.price.usd, row.price.unit) for row in rows}


def test_a_linux_instance_has_its_price_by_the_hour() -> None:
    found = read(instance("m5.large", "0.0960000000"))
    assert found == {"ec2/linux m5.large": (Decimal("0.096"), "hour")}


@pytest.mark.parametrize(
    ("system", "product"),
    [("Windows", "ec2/windows"), ("RHEL", "ec2/rhel"), ("SUSE", "ec2/suse")],
)
def test_other_operating_systems_are_products_of_their_own(system: str, product: str) -> None:
    entry = instance("m5.large", "0.2", operatingSystem=system)
    assert classify(entry["product"]) == Key(product, "m5.large")


@pytest.mark.parametrize(
    "attributes",
    [
        {"tenancy": "Dedicated"},
        {"tenancy": "Host"},
        {"capacitystatus": "UnusedCapacityReservation"},
        {"preInstalledSw": "SQL Std"},
        {"licenseModel": "Bring your own license"},
        {"operatingSystem": "Red Hat Enterprise Linux with HA"},
        {"locationType": "AWS Local Zone"},
        {"marketoption": "CapacityBlock"},
    ],
)
def test_what_is_not_plain_on_demand_is_left_out(attributes: dict[str, str]) -> None:
    assert classify(instance("m5.large", "0.1", **attributes)["product"]) is None


@pytest.mark.parametrize(
    ("code", "usage", "unit", "usd", "expected"),
    [
        ("AmazonEC2", "USW2-EBS:VolumeUsage.gp3", "GB-Mo", "0.08", ("ebs gp3", "0.08")),
        ("AmazonEC2", "EBS:VolumeUsage", "GB-Mo", "0.05", ("ebs standard", "0.05")),
        ("AmazonEC2", "USW2-EBS:VolumeP-IOPS.gp3", "IOPS-Mo", "0.005", ("ebs gp3.iops", "0.005")),
        (
            "AmazonEC2",
            "USW2-EBS:VolumeP-Throughput.gp3",
            "GiBps-mo",
            "40.96",
            ("ebs gp3.throughput", "0.04"),
        ),
        ("AmazonEC2", "EU-NatGateway-Hours", "Hrs", "0.048", ("vpc nat.hour", "0.048")),
        ("AmazonVPC", "USW2-VpcEndpoint-Hours", "Hrs", "0.01", ("vpc endpoint.hour", "0.01")),
        ("AmazonVPC", "PublicIPv4:InUseAddress", "Hrs", "0.005", ("vpc public_ipv4", "0.005")),
        ("AmazonEFS", "USW2-TimedStorage-ByteHrs", "GB-Mo", "0.3", ("efs standard", "0.3")),
        (
            "AmazonEFS",
            "USW2-IATimedStorage-ET-ByteHrs",
            "GB-Mo",
            "0.016",
            ("efs infrequent_access", "0.016"),
        ),
    ],
)
def test_services_are_known_by_their_usage_type(
    code: str, usage: str, unit: str, usd: str, expected: tuple[str, str]
) -> None:
    (found,) = read(service(code, usage, unit, usd)).items()
    assert (found[0], found[1][0]) == (expected[0], Decimal(expected[1]))


def test_elastic_throughput_is_told_apart_by_direction() -> None:
    entry = service("AmazonEFS", "USW2-ETDataAccess-Bytes", "GB", "0.03", accessType="Read")
    assert list(read(entry)) == ["efs elastic.read"]


def test_a_regional_nat_gateway_is_another_product() -> None:
    entry = service("AmazonEC2", "USW2-RegionalNatGateway-Hours", "Hrs", "0.045")
    assert classify(entry["product"]) is None


def test_tiers_are_prices_of_their_own_in_the_order_of_the_amount() -> None:
    entry = service("AmazonS3", "USW2-TimedStorage-ByteHrs", "GB-Mo", "0.023", "0.022", "0.021")
    assert {name: str(usd) for name, (usd, _) in read(entry).items()} == {
        "s3 standard": "0.023",
        "s3 standard.tier2": "0.022",
        "s3 standard.tier3": "0.021",
    }


def test_the_free_tier_of_data_transfer_is_no_price() -> None:
    entry = service(
        "AWSDataTransfer",
        "USW2-DataTransfer-Out-Bytes",
        "GB",
        "0.0000000000",
        "0.09",
        toLocation="External",
    )
    assert read(entry) == {"data_transfer out": (Decimal("0.09"), "GB")}
