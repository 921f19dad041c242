from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from clusterbox.embedded.account import EmbeddedAccount

ZONE = "us-west-2a"


@pytest.fixture(scope="module")
def ec2(account: EmbeddedAccount) -> Any:
    return account.client("ec2")


def tagged(kind: str, name: str) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": [{"Key": "lists", "Value": name}]}]


def filters(name: str) -> list[dict[str, Any]]:
    return [{"Name": "tag:lists", "Values": [name]}]


def test_volumes_and_snapshots_are_listed_in_pages(ec2: Any) -> None:
    made = []
    for _ in range(7):
        tags = tagged("volume", "pages")
        volume = ec2.create_volume(AvailabilityZone=ZONE, Size=1, TagSpecifications=tags)
        made.append(volume["VolumeId"])
        tags = tagged("snapshot", "pages")
        ec2.create_snapshot(VolumeId=volume["VolumeId"], TagSpecifications=tags)
    for operation, key in (("volumes", "Volumes"), ("snapshots", "Snapshots")):
        pages = list(
            ec2.get_paginator(f"describe_{operation}").paginate(
                Filters=filters("pages"), PaginationConfig={"PageSize": 5}
            )
        )
        assert [len(page[key]) for page in pages] == [5, 2]
        assert [entry["VolumeId"] for page in pages for entry in page[key]] == made


def test_a_list_that_fills_its_last_page_ends_there(ec2: Any) -> None:
    for _ in range(5):
        tags = tagged("volume", "full")
        ec2.create_volume(AvailabilityZone=ZONE, Size=1, TagSpecifications=tags)
    page = ec2.describe_volumes(Filters=filters("full"), MaxResults=5)
    assert len(page["Volumes"]) == 5
    assert "NextToken" not in page


def test_instances_are_listed_in_pages_and_wholly_without_a_size(ec2: Any) -> None:
    ec2.run_instances(
        ImageId="ami-067d504ae48dd3252",
        InstanceType="t3.small",
        MinCount=6,
        MaxCount=6,
        TagSpecifications=tagged("instance", "machines"),
    )
    pages = list(
        ec2.get_paginator("describe_instances").paginate(
            Filters=filters("machines"), PaginationConfig={"PageSize": 5}
        )
    )
    paged = [item for page in pages for item in page["Reservations"]]
    assert len(pages) == 2
    assert paged == ec2.describe_instances(Filters=filters("machines"))["Reservations"]


def test_a_wrong_size_or_token_of_a_page_is_refused(ec2: Any) -> None:
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        ec2.describe_volumes(MaxResults=2)
    with pytest.raises(ClientError, match="InvalidNextToken"):
        ec2.describe_volumes(NextToken="further")


def test_versions_of_all_launch_templates_are_listed_where_none_is_named(ec2: Any) -> None:
    for name in ("lists-a", "lists-b"):
        ec2.create_launch_template(
            LaunchTemplateName=name, LaunchTemplateData={"ImageId": "ami-0fedcba9876543211"}
        )
    found = ec2.describe_launch_template_versions(Versions=["$Latest"])["LaunchTemplateVersions"]
    names = [version["LaunchTemplateName"] for version in found]
    assert {"lists-a", "lists-b"} <= set(names)
    one = ec2.describe_launch_template_versions(LaunchTemplateName="lists-a")
    assert len(one["LaunchTemplateVersions"]) == 1


def test_fsx_has_no_file_systems_and_makes_none(account: EmbeddedAccount) -> None:
    fsx = account.client("fsx")
    assert fsx.describe_file_systems()["FileSystems"] == []
    with pytest.raises(ClientError, match="UnsupportedOperation"):
        fsx.create_file_system(
            FileSystemType="LUSTRE", StorageCapacity=1200, SubnetIds=["subnet-08f1118dd59133513"]
        )
