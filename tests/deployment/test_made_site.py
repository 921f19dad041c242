"""A site that makes its own VPC and its own boundary is deployed for real, and removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterbox.deployment.inventory import Item
from clusterbox.deployment.progress import Progress
from clusterbox.deployment.site import Site
from clusterbox.deployment.targets import find_embedded
from clusterbox.site.load import Repository

pytestmark = pytest.mark.integration


def open_site(repository: Path) -> Site:
    return Site(repository, Repository(repository).load_environment("sandbox"), Progress())


def agree(_question: str) -> bool:
    return True


def of_kind(items: list[Item], kind: str) -> list[Item]:
    return [item for item in items if item.kind == kind]


@pytest.fixture(scope="module")
def items(repository: Path) -> list[Item]:
    return open_site(repository).deploy("embedded", agree).items


def test_the_vpc_has_the_ranges_and_subnets_of_the_address_plan(items: list[Item]) -> None:
    (vpc,) = of_kind(items, "vpc")
    assert vpc.detail == "10.12.64.0/21, 10.12.72.0/26"
    assert {item.name: item.detail for item in of_kind(items, "subnet")} == {
        "sandbox-compute.a": "10.12.64.0/22 in us-west-2a",
        "sandbox-compute.b": "10.12.68.0/23 in us-west-2b",
        "sandbox-compute.c": "10.12.70.0/23 in us-west-2c",
        "sandbox-public.a": "10.12.72.0/28 in us-west-2a",
        "sandbox-public.b": "10.12.72.16/28 in us-west-2b",
    }


def test_every_role_carries_the_boundary_that_the_site_made_the_bootstrap_s_included(
    items: list[Item],
) -> None:
    roles = {item.name: item.detail for item in of_kind(items, "role")}
    assert set(roles.values()) == {"boundary clusterbox-sandbox-boundary"}
    assert any("CustomVpcRestrictDefaultSG" in name for name in roles)
    assert "cdk-hnb659fds-cfn-exec-role-123456789012-us-west-2" in roles


def test_the_default_security_group_of_the_vpc_lets_nothing_in_or_out(
    repository: Path, items: list[Item]
) -> None:
    target = find_embedded(repository, open_site(repository).environment)
    assert target is not None
    (vpc,) = of_kind(items, "vpc")
    (group,) = target.client("ec2").describe_security_groups(
        Filters=[
            {"Name": "vpc-id", "Values": [vpc.id]},
            {"Name": "group-name", "Values": ["default"]},
        ]
    )["SecurityGroups"]
    assert (group["IpPermissions"], group["IpPermissionsEgress"]) == ([], [])


def test_the_private_zone_names_the_admin_box_by_its_address(
    repository: Path, items: list[Item]
) -> None:
    target = find_embedded(repository, open_site(repository).environment)
    assert target is not None
    route53 = target.client("route53")
    zones = {zone["Name"]: zone["Id"] for zone in route53.list_hosted_zones()["HostedZones"]}
    records = route53.list_resource_record_sets(HostedZoneId=zones["sandbox.internal."])
    found = {
        record["Name"]: record["ResourceRecords"][0]["Value"]
        for record in records["ResourceRecordSets"]
        if record["Type"] == "A"
    }
    (box,) = of_kind(items, "admin box")
    assert found == {"sandbox-adminbox.sandbox.internal.": box.detail.split(",")[0]}


def test_both_clusters_stand_in_the_first_zone(items: list[Item]) -> None:
    clusters = {item.name: item.detail for item in of_kind(items, "cluster")}
    assert set(clusters) == {"sandbox-eco", "sandbox-economy-hpc"}
    assert all(detail.startswith("10.12.6") for detail in clusters.values())


def test_destroy_keeps_data_and_the_network_that_its_mount_targets_stand_in(
    repository: Path, items: list[Item]
) -> None:
    removal = open_site(repository).destroy("embedded", agree)
    assert removal.kept == {
        "sandbox-boundary": "protected: holds data, keys or what these need",
        "sandbox-encryption": "protected: holds data, keys or what these need",
        "sandbox-network": "protected: holds data, keys or what these need",
        "sandbox-storage": "protected: holds data, keys or what these need",
    }
    assert of_kind(removal.items, "cluster") == []
    assert len(of_kind(removal.items, "bucket")) == 3
