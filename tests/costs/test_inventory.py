from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from clusterbox.aws import Account
from clusterbox.costs.inventory import read_busiest_hour, read_items, read_template_uses
from clusterbox.costs.item import Item
from clusterbox.costs.prices import load_prices
from tests.costs.fake_account import (
    NOW,
    REGION,
    Answer,
    fake_account,
    instance,
    refusal,
    reservations,
    tag_list,
    volume,
)

PRICES = load_prices(REGION)


def read(account: Account) -> list[Item]:
    return list(read_items(account, PRICES, NOW))


def items(answers: Mapping[str, Sequence[Answer]]) -> list[Item]:
    account = fake_account(answers)
    found = read(account)
    assert account.gaps == []
    return found


def the_item(operation: str, answer: Mapping[str, Any]) -> Item:
    (found,) = items({operation: [answer]})
    return found


def the_instance(**more: Any) -> Item:
    machine = instance("box", more.pop("kind", "t3a.2xlarge"), **more)
    return the_item("ec2.describe_instances", reservations([machine]))


def test_every_instance_of_every_reservation_and_page_is_read() -> None:
    pages = [
        reservations([instance("a", "t3.small"), instance("b", "t3.small")]),
        reservations([instance("c", "t3.small")], [instance("d", "t3.small")]),
    ]
    found = items({"ec2.describe_instances": pages})
    assert [item.name for item in found] == ["a", "b", "c", "d"]


def test_an_instance_without_tags_has_none_of_the_one_before_it() -> None:
    bare = {**instance("b", "t3.small"), "Tags": []}
    page = reservations([instance("a", "t3.small", tags={"Owner": "butzer"}), bare])
    first, second = items({"ec2.describe_instances": [page]})
    assert (first.owner, second.name, second.owner) == ("butzer", "", "")


def test_facts_and_tags_of_an_instance() -> None:
    tags = {
        "owner": "butzer",
        "Project": "WaterSMART",
        "Environment": "ws-dev",
        "parallelcluster:cluster-name": "ws-eco",
        "Cluster": "other",
    }
    item = the_instance(state="running", ip="10.12.65.189", tags=tags, ImageId="ami-1")
    assert (item.id, item.name, item.ip, item.type) == (
        "i-box",
        "box",
        "10.12.65.189",
        "t3a.2xlarge",
    )
    assert (item.owner, item.project, item.cluster) == ("butzer", "WaterSMART", "ws-eco")
    assert (item.environment, item.purchase, item.links) == ("ws-dev", "on-demand", ("ami-1",))
    assert item.cost.now == item.cost.if_running == Decimal("219.584")


@pytest.mark.parametrize("state", ["stopped", "stopping"])
def test_a_stopped_instance_costs_nothing_itself(state: str) -> None:
    cost = the_instance(state=state).cost
    assert (cost.now, cost.if_running) == (Decimal(0), Decimal("219.584"))


def test_a_terminated_instance_is_not_listed() -> None:
    gone = [instance("a", "t3.small", "terminated"), instance("b", "t3.small", "shutting-down")]
    assert items({"ec2.describe_instances": [reservations(gone)]}) == []


def test_an_unknown_type_is_unknown_with_the_nearest_names() -> None:
    cost = the_instance(kind="t3a.3xlarge").cost
    assert (cost.now, cost.if_running) == (None, None)
    assert cost.unknown is not None
    assert "t3a.2xlarge" in cost.unknown


def test_a_stopped_instance_of_an_unknown_type_costs_nothing_now() -> None:
    cost = the_instance(kind="t3a.3xlarge", state="stopped").cost
    assert (cost.now, cost.if_running) == (Decimal(0), None)
    assert cost.unknown is not None


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"Placement": {"Tenancy": "dedicated"}}, "shared tenancy"),
        ({"PlatformDetails": "Windows with SQL Server Standard"}, "know no Windows with SQL"),
        ({"PlatformDetails": "Windows"}, "no price of ec2/windows"),
        ({"PlatformDetails": "", "Platform": "windows"}, "no price of ec2/windows"),
        ({"InstanceLifecycle": "capacity-block"}, "paid when it was bought"),
        ({"InstanceLifecycle": "spot", "PlatformDetails": "Windows"}, "those of Linux"),
    ],
)
def test_what_the_prices_do_not_hold_is_unknown(more: Any, reason: str) -> None:
    machine = reservations([instance("box", "t3a.2xlarge", **more)])
    answers: dict[str, list[Answer]] = {
        **spot((f"{REGION}a", "0.1")),
        "ec2.describe_instances": [machine],
    }
    (found,) = items(answers)
    cost = found.cost
    assert cost.now is None
    assert reason in str(cost.unknown)


def spot(*prices: tuple[str, str]) -> dict[str, list[Answer]]:
    machine = instance("box", "t3a.2xlarge", InstanceLifecycle="spot")
    history = [{"AvailabilityZone": zone, "SpotPrice": usd} for zone, usd in prices]
    return {
        "ec2.describe_instances": [reservations([machine])],
        "ec2.describe_spot_price_history": [{"SpotPriceHistory": history}],
    }


def test_spot_costs_the_price_of_now_in_its_zone() -> None:
    (item,) = items(spot(("us-west-2b", "0.2"), ("us-west-2a", "0.1")))
    assert item.purchase == "spot"
    assert item.cost.now == Decimal("73")
    assert "Spot price of now in us-west-2a" in str(item.cost.note)


def test_spot_without_a_price_is_unknown_and_not_the_price_on_demand() -> None:
    (item,) = items(spot(("us-west-2b", "0.2")))
    assert item.cost.now is None
    assert "on demand 0.3008 USD/hour" in str(item.cost.unknown)


def test_a_public_address_that_ec2_lends_is_an_item_and_an_elastic_one_is_not_counted_twice() -> (
    None
):
    interfaces = [
        {
            "PrivateIpAddresses": [
                {"Association": {"PublicIp": "1.2.3.4", "IpOwnerId": "amazon"}},
                {"Association": {"PublicIp": "5.6.7.8", "IpOwnerId": "427491229895"}},
                {},
            ]
        }
    ]
    page = reservations([instance("box", "t3.small", NetworkInterfaces=interfaces)])
    machine, address = items({"ec2.describe_instances": [page]})
    assert (address.kind, address.id, address.links) == ("address", "1.2.3.4", (machine.id,))
    assert address.cost.now == Decimal("3.65")


@pytest.mark.parametrize(
    ("more", "usd"),
    [
        ({}, "8"),
        ({"Iops": 4000, "Throughput": 225}, "17"),
        ({"VolumeType": "gp2"}, "10"),
        ({"VolumeType": "io2", "Iops": 1000}, "77.5"),
        ({"VolumeType": "st1"}, "4.5"),
    ],
)
def test_volumes_cost_their_size_and_what_is_above_the_free_part(more: Any, usd: str) -> None:
    item = the_item("ec2.describe_volumes", {"Volumes": [volume("v", 100, **more)]})
    assert item.cost.now == Decimal(usd)
    assert (item.state, item.quantity) == ("available", "100 GiB")


def test_a_volume_of_an_unknown_kind_is_unknown() -> None:
    item = the_item("ec2.describe_volumes", {"Volumes": [volume("v", 1, VolumeType="gp9")]})
    assert item.cost.now is None
    assert "gp9" in str(item.cost.unknown)


@pytest.mark.parametrize(
    ("more", "usd"),
    [
        ({}, "5"),
        ({"StorageTier": "archive"}, "1.25"),
        ({"FullSnapshotSizeInBytes": 10 * 2**30}, "0.5"),
    ],
)
def test_a_snapshot_costs_at_most_what_it_can_hold(more: Any, usd: str) -> None:
    snapshot = {"SnapshotId": "s", "VolumeSize": 100, "State": "completed", "StartTime": NOW}
    item = the_item("ec2.describe_snapshots", {"Snapshots": [{**snapshot, **more}]})
    assert item.cost.now == Decimal(usd)
    assert str(item.cost.note).startswith("at most")


GB = 2**30


@pytest.mark.parametrize(
    ("more", "usd"),
    [
        ({"ThroughputMode": "elastic"}, "31.68"),
        ({"ThroughputMode": "bursting"}, "32.58"),
        ({"ThroughputMode": "provisioned", "ProvisionedThroughputInMibps": 2.0}, "44.58"),
    ],
)
def test_efs_costs_its_storage_classes(more: Any, usd: str) -> None:
    size = {"Value": 210 * GB, "ValueInIA": 100 * GB, "ValueInArchive": 10 * GB}
    system = {"FileSystemId": "fs", "LifeCycleState": "available", "SizeInBytes": size, **more}
    item = the_item("efs.describe_file_systems", {"FileSystems": [system]})
    # 100 GB at .30, 100 at .016 or .025, 10 at .008, 2 MiB/s at 6.
    assert item.cost.now == Decimal(usd)
    assert item.quantity == "210.0 GB"


def test_an_empty_efs_costs_nothing_and_one_of_unknown_size_is_unknown() -> None:
    system = {"FileSystemId": "fs", "LifeCycleState": "available", "SizeInBytes": {"Value": 0}}
    empty = the_item("efs.describe_file_systems", {"FileSystems": [system]})
    assert (empty.cost.now, empty.cost.unknown) == (Decimal(0), None)
    del system["SizeInBytes"]
    unknown = the_item("efs.describe_file_systems", {"FileSystems": [system]})
    assert unknown.cost.now is None


def test_one_zone_efs_has_its_own_price_and_its_cold_part_has_none() -> None:
    size = {"Value": 200 * GB, "ValueInIA": 100 * GB, "ValueInStandard": 100 * GB}
    system = {"FileSystemId": "fs", "LifeCycleState": "available", "SizeInBytes": size}
    system["AvailabilityZoneName"] = "us-west-2a"
    cost = the_item("efs.describe_file_systems", {"FileSystems": [system]}).cost
    assert cost.now == Decimal(16)
    assert "one_zone.bursting.infrequent_access" in str(cost.unknown)


def buckets(sizes: Mapping[tuple[str, str], float], *names: str) -> dict[str, list[Answer]]:
    metrics = [
        {
            "Dimensions": [
                {"Name": "BucketName", "Value": bucket},
                {"Name": "StorageType", "Value": kind},
            ]
        }
        for bucket, kind in sizes
    ]
    # The newest value comes first.
    results = [
        {"Id": f"m{index}", "Values": [gb * GB, 1.0]} for index, gb in enumerate(sizes.values())
    ]
    return {
        "s3.list_buckets": [
            {"Buckets": [{"Name": name, "BucketRegion": REGION} for name in names]}
        ],
        "cloudwatch.list_metrics": [{"Metrics": metrics}],
        "cloudwatch.get_metric_data": [{"MetricDataResults": results}],
    }


def test_a_bucket_costs_its_storage_classes() -> None:
    sizes = {("b", "StandardStorage"): 1000.0, ("b", "GlacierStorage"): 1000.0}
    (item,) = items(buckets(sizes, "b"))
    assert item.cost.now == Decimal("26.6")
    assert (item.kind, item.name, item.quantity) == ("S3", "b", "2000.0 GB")


def test_a_bucket_without_a_metric_is_unknown_and_not_free() -> None:
    (item,) = items(buckets({}, "b"))
    assert item.cost.now is None
    assert "CloudWatch has no size" in str(item.cost.unknown)


def test_a_storage_class_without_a_price_is_unknown() -> None:
    (item,) = items(buckets({("b", "ExpressOneZone"): 5.0}, "b"))
    assert item.cost.now is None
    assert "ExpressOneZone" in str(item.cost.unknown)


def test_the_lower_prices_of_large_amounts_hold_for_all_buckets_together() -> None:
    sizes = {("a", "StandardStorage"): 200_000.0, ("b", "StandardStorage"): 95_945.0}
    first, second = items(buckets(sizes, "a", "b"))
    # 51,200 GB at .023 and the rest at .022.
    assert first.cost.now is not None
    assert second.cost.now is not None
    assert round(first.cost.now + second.cost.now, 2) == Decimal("6561.99")
    assert first.cost.now > second.cost.now


def test_buckets_of_other_regions_are_left_to_these() -> None:
    elsewhere = {"Name": "far", "BucketRegion": "us-east-1"}
    assert items({"s3.list_buckets": [{"Buckets": [elsewhere]}]}) == []


def test_tags_of_a_bucket_are_read() -> None:
    answers = buckets({}, "b") | {
        "s3.get_bucket_tagging": [{"TagSet": tag_list({"Owner": "butzer"})}]
    }
    assert items(answers)[0].owner == "butzer"


@pytest.mark.parametrize(
    ("operation", "answer", "kind", "usd"),
    [
        (
            "ec2.describe_nat_gateways",
            {"NatGateways": [{"NatGatewayId": "n", "State": "available"}]},
            "NAT gateway",
            "32.85",
        ),
        (
            "ec2.describe_vpc_endpoints",
            {
                "VpcEndpoints": [
                    {
                        "VpcEndpointId": "e",
                        "State": "available",
                        "VpcEndpointType": "Interface",
                        "SubnetIds": ["a", "b"],
                        "ServiceName": "com.amazonaws.us-west-2.ec2",
                    }
                ]
            },
            "endpoint",
            "14.6",
        ),
        (
            "ec2.describe_addresses",
            {"Addresses": [{"AllocationId": "a", "PublicIp": "1.2.3.4"}]},
            "address",
            "3.65",
        ),
        (
            "elbv2.describe_load_balancers",
            {
                "LoadBalancers": [
                    {
                        "LoadBalancerArn": "arn:aws:elb:x:1:loadbalancer/net/login/1",
                        "LoadBalancerName": "login",
                        "Type": "network",
                    }
                ]
            },
            "load balancer",
            "16.425",
        ),
        (
            "fsx.describe_file_systems",
            {
                "FileSystems": [
                    {
                        "FileSystemId": "fs",
                        "FileSystemType": "LUSTRE",
                        "StorageType": "SSD",
                        "StorageCapacity": 1200,
                        "LustreConfiguration": {
                            "DeploymentType": "PERSISTENT_2",
                            "PerUnitStorageThroughput": 125,
                        },
                    }
                ]
            },
            "FSx",
            "174",
        ),
    ],
)
def test_what_else_costs(operation: str, answer: Any, kind: str, usd: str) -> None:
    item = the_item(operation, answer)
    assert (item.kind, item.cost.now) == (kind, Decimal(usd))


def test_what_costs_nothing_is_not_listed() -> None:
    answers: dict[str, list[Answer]] = {
        "ec2.describe_nat_gateways": [{"NatGateways": [{"NatGatewayId": "n", "State": "deleted"}]}],
        "ec2.describe_vpc_endpoints": [
            {
                "VpcEndpoints": [
                    {"VpcEndpointId": "e", "State": "available", "VpcEndpointType": "Gateway"}
                ]
            }
        ],
    }
    assert items(answers) == []


def test_what_is_denied_leaves_the_rest() -> None:
    answers: dict[str, list[Answer]] = {
        "ec2.describe_instances": [reservations([instance("a", "t3.small")])],
        "ec2.describe_volumes": [refusal("UnauthorizedOperation")],
        "s3.list_buckets": [refusal("AccessDenied")],
    }
    account = fake_account(answers)
    assert [item.name for item in read(account)] == ["a"]
    assert {gap.permission for gap in account.gaps} == {
        "ec2:DescribeVolumes",
        "s3:ListAllMyBuckets",
    }


def test_images_of_launch_templates() -> None:
    versions = [{"LaunchTemplateData": {"ImageId": "ami-1"}}, {"LaunchTemplateData": {}}, {}]
    pages: list[Answer] = [{"LaunchTemplateVersions": versions}]
    account = fake_account({"ec2.describe_launch_template_versions": pages})
    assert list(read_template_uses(account)) == ["ami-1"]


def test_the_busiest_hour() -> None:
    points = [{"Average": 1.5, "Timestamp": NOW - timedelta(hours=h)} for h in range(3)]
    points.append({"Average": 7.25, "Timestamp": NOW})
    account = fake_account({"cloudwatch.get_metric_statistics": [{"Datapoints": points}]})
    assert read_busiest_hour(account, "i-1", NOW) == Decimal("7.25")
    assert read_busiest_hour(fake_account({}), "i-1", NOW) is None
