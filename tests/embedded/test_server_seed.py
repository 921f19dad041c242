from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from clusterbox.embedded.account import EmbeddedAccount, SeedRefusedError
from clusterbox.embedded.seed import SeedDocument
from tests.embedded.stack_driver import ACCOUNT

SUBNET_A, SUBNET_B = "subnet-5eed0001", "subnet-5eed0002"
GROUP, HEAD_GROUP = "sg-05eed000000000001", "sg-05eed000000000002"
VPC = "vpc-05eed000000000001"
IMAGE, FILES, ZONE = "ami-05eed000000000001", "fs-05eed000000000001", "Z05EED0001"


@pytest.fixture
def document() -> dict[str, Any]:
    nfs = {"protocol": "tcp", "from_port": 2049, "to_port": 2049, "source_group": HEAD_GROUP}
    ssh = {"protocol": "tcp", "from_port": 22, "to_port": 22, "cidr": "198.51.100.0/24"}
    return {
        "vpcs": [{"id": VPC, "cidr": "10.90.0.0/16"}],
        "subnets": [
            {
                "id": SUBNET_A,
                "vpc_id": VPC,
                "cidr": "10.90.1.0/24",
                "availability_zone": "us-west-2a",
            },
            {
                "id": SUBNET_B,
                "vpc_id": VPC,
                "cidr": "10.90.2.0/24",
                "availability_zone": "us-west-2b",
            },
        ],
        "security_groups": [
            {
                "id": GROUP,
                "vpc_id": VPC,
                "name": "efs",
                "description": "home",
                "ingress": [nfs],
            },
            {
                "id": HEAD_GROUP,
                "vpc_id": VPC,
                "name": "head",
                "description": "head nodes",
                "ingress": [ssh],
            },
        ],
        "key_pairs": ["site-admin"],
        "policies": [{"name": "agency-boundary", "path": "/agency/"}],
        "roles": [
            {"name": "cfn-exec", "path": "/agency/", "service": "cloudformation.amazonaws.com"}
        ],
        "buckets": ["seeded-site-bucket"],
        "images": [
            {
                "id": IMAGE,
                "name": "hpc-base-1",
                "os": "alinux2023",
                "architecture": "arm64",
                "root_gib": 60,
                "tags": {"version": "1"},
            }
        ],
        "file_systems": [{"id": FILES, "security_group": GROUP, "subnets": [SUBNET_A, SUBNET_B]}],
        "hosted_zones": [{"id": ZONE, "name": "seeded.hpc.example", "vpc_id": VPC}],
        "objects": [{"bucket": "seeded-objects", "key": "a/b.txt", "body": "text"}],
    }


def count_of(document: dict[str, Any]) -> int:
    return sum(len(part) for part in document.values())


def test_seeding_twice_makes_everything_once(
    account: EmbeddedAccount, document: dict[str, Any]
) -> None:
    account.seed(document)
    again = account.seed(SeedDocument.model_validate(document))
    assert again.made == ()
    assert len(again.present) == count_of(document) == 13
    assert f"file_systems {FILES}" in again.present
    targets = account.client("efs").describe_mount_targets(FileSystemId=FILES)["MountTargets"]
    assert len(targets) == 2


def test_a_seeded_network_is_described_under_its_own_ids(
    account: EmbeddedAccount, document: dict[str, Any]
) -> None:
    account.seed(document)
    ec2 = account.client("ec2")
    assert ec2.describe_vpcs(VpcIds=[VPC])["Vpcs"][0]["CidrBlock"] == "10.90.0.0/16"
    subnet = ec2.describe_subnets(SubnetIds=[SUBNET_B])["Subnets"][0]
    assert (subnet["VpcId"], subnet["AvailabilityZone"]) == (VPC, "us-west-2b")
    assert (subnet["CidrBlock"], subnet["AvailableIpAddressCount"]) == ("10.90.2.0/24", 251)
    group = ec2.describe_security_groups(GroupIds=[GROUP])["SecurityGroups"][0]
    (rule,) = group["IpPermissions"]
    assert (rule["FromPort"], rule["UserIdGroupPairs"][0]["GroupId"]) == (2049, HEAD_GROUP)
    assert group["IpPermissionsEgress"][0]["IpRanges"] == [{"CidrIp": "0.0.0.0/0"}]
    filters = [{"Name": "vpc-id", "Values": [VPC]}]
    groups = ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
    assert {g["GroupName"] for g in groups} == {"default", "efs", "head"}
    assert len(ec2.describe_route_tables(Filters=filters)["RouteTables"]) == 1
    assert ec2.describe_key_pairs(KeyNames=["site-admin"])["KeyPairs"]


def test_seeded_identities_exist_under_their_paths(
    account: EmbeddedAccount, document: dict[str, Any]
) -> None:
    account.seed(document)
    iam = account.client("iam")
    arn = f"arn:aws:iam::{ACCOUNT}:policy/agency/agency-boundary"
    assert iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"] == "v1"
    role = iam.get_role(RoleName="cfn-exec")["Role"]
    assert role["Arn"] == f"arn:aws:iam::{ACCOUNT}:role/agency/cfn-exec"
    (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "cloudformation.amazonaws.com"}


def test_seeded_storage_is_encrypted_and_placed(
    account: EmbeddedAccount, document: dict[str, Any]
) -> None:
    account.seed(document)
    s3, efs = account.client("s3"), account.client("efs")
    encryption = s3.get_bucket_encryption(Bucket="seeded-site-bucket")
    (rule,) = encryption["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    assert s3.get_bucket_versioning(Bucket="seeded-site-bucket")["Status"] == "Enabled"
    assert s3.get_object(Bucket="seeded-objects", Key="a/b.txt")["Body"].read() == b"text"

    system = efs.describe_file_systems(FileSystemId=FILES)["FileSystems"][0]
    assert (system["Encrypted"], system["NumberOfMountTargets"]) == (True, 2)
    assert system["FileSystemArn"].endswith(f"file-system/{FILES}")
    targets = efs.describe_mount_targets(FileSystemId=FILES)["MountTargets"]
    places = {target["SubnetId"]: target["IpAddress"] for target in targets}
    assert places == {SUBNET_A: "10.90.1.4", SUBNET_B: "10.90.2.4"}


def test_a_seeded_image_is_private_available_and_sizes_its_instances_root(
    account: EmbeddedAccount, document: dict[str, Any]
) -> None:
    account.seed(document)
    ec2 = account.client("ec2")
    (image,) = ec2.describe_images(ImageIds=[IMAGE], Owners=["self"])["Images"]
    assert (image["Public"], image["State"], image["OwnerId"]) == (False, "available", ACCOUNT)
    assert (image["Architecture"], image["RootDeviceName"]) == ("arm64", "/dev/xvda")
    assert image["CreationDate"].startswith("20")
    assert {"Key": "os", "Value": "alinux2023"} in image["Tags"]
    assert {"Key": "version", "Value": "1"} in image["Tags"]
    made = ec2.run_instances(ImageId=IMAGE, SubnetId=SUBNET_A, MinCount=1, MaxCount=1)
    instance = made["Instances"][0]
    volume_id = instance["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    assert ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]["Size"] == 60
    assert instance["Architecture"] == "arm64"
    ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])


def test_a_seeded_zone_is_private_and_takes_records(
    account: EmbeddedAccount, document: dict[str, Any]
) -> None:
    account.seed(document)
    route53 = account.client("route53")
    zone = route53.get_hosted_zone(Id=ZONE)
    assert (zone["HostedZone"]["Name"], zone["VPCs"][0]["VPCId"]) == ("seeded.hpc.example.", VPC)
    assert zone["HostedZone"]["Config"]["PrivateZone"] is True


def test_an_object_with_another_text_is_written_again(
    account: EmbeddedAccount, document: dict[str, Any]
) -> None:
    account.seed(document)
    changed = {"bucket": "seeded-objects", "key": "a/b.txt", "body": "other"}
    made = account.seed({"objects": [changed]}).made
    assert made == ("objects s3://seeded-objects/a/b.txt",)
    account.seed({"objects": document["objects"]})


def test_a_bad_document_is_refused_with_every_problem_and_makes_nothing(
    account: EmbeddedAccount,
) -> None:
    bad = {
        "vpcs": [{"id": "vpc-0badbad0", "cidr": "10.91.0.0/16"}, {"id": "vpc 1", "cidr": "no"}],
        "subnets": [{"id": "subnet-0badbad0", "vpc_id": "vpc-0badbad0", "cidr": "10.91.0.0/24"}],
        "images": [
            {
                "id": "ami-0badbad0",
                "name": "abc",
                "os": "x",
                "architecture": "mips",
                "root_gib": "60",
            }
        ],
        "lustre": [],
    }
    with pytest.raises(SeedRefusedError) as refused:
        account.seed(bad)
    places = [problem.partition(":")[0] for problem in refused.value.problems]
    assert places == [
        "vpcs[1].id",
        "vpcs[1].cidr",
        "subnets[0].availability_zone",
        "images[0].architecture",
        "images[0].root_gib",
        "lustre",
    ]
    with pytest.raises(ClientError, match="NotFound"):
        account.client("ec2").describe_vpcs(VpcIds=["vpc-0badbad0"])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"subnets": [("vpc_id", "vpc-0badbad0")]},
            "subnets[0].vpc_id: vpc-0badbad0 is neither here nor in the account",
        ),
        (
            {"subnets": [("cidr", "10.89.1.0/24")]},
            "subnets[0].cidr: 10.89.1.0/24 is not inside the VPC's 10.95.0.0/16",
        ),
        (
            {"subnets": [("availability_zone", "us-west-2a"), ("cidr", "10.95.2.0/25")]},
            "subnets[1].cidr: 10.95.2.0/24 overlaps subnet-05eed001's 10.95.2.0/25",
        ),
        (
            {"security_groups": [("vpc_id", "vpc-0badbad0")]},
            "security_groups[0].vpc_id: vpc-0badbad0 is neither here nor in the account",
        ),
    ],
)
def test_a_document_that_does_not_fit_together_is_refused(
    account: EmbeddedAccount, change: dict[str, Any], problem: str
) -> None:
    document: dict[str, Any] = {
        "vpcs": [{"id": "vpc-05eed095", "cidr": "10.95.0.0/16"}],
        "subnets": [
            {
                "id": f"subnet-05eed00{number}",
                "vpc_id": "vpc-05eed095",
                "cidr": f"10.95.{number}.0/24",
                "availability_zone": f"us-west-2{'abc'[number]}",
            }
            for number in (1, 2)
        ],
        "security_groups": [
            {"id": "sg-05eed095", "vpc_id": "vpc-05eed095", "name": "a", "description": "b"}
        ],
    }
    for part, changes in change.items():
        document[part][0] |= dict(changes)
    with pytest.raises(SeedRefusedError) as refused:
        account.seed(document)
    assert problem in refused.value.problems
    with pytest.raises(ClientError, match="NotFound"):
        account.client("ec2").describe_vpcs(VpcIds=["vpc-05eed095"])


@pytest.mark.parametrize(
    "rule",
    [
        {"protocol": "tcp", "from_port": 22, "to_port": 22},
        {"protocol": "tcp", "cidr": "10.0.0.0/8"},
        {"protocol": "-1", "from_port": 1, "to_port": 2, "cidr": "10.0.0.0/8"},
        {"protocol": "-1", "source_group": "sg-0badbad0"},
    ],
)
def test_a_rule_without_a_source_or_with_wrong_ports_is_refused(
    account: EmbeddedAccount, document: dict[str, Any], rule: dict[str, Any]
) -> None:
    account.seed(document)
    group = {
        "id": "sg-05eed096",
        "vpc_id": VPC,
        "name": "wrong",
        "description": "wrong",
        "ingress": [rule],
    }
    with pytest.raises(SeedRefusedError, match=r"security_groups\[0\]\.ingress\[0\]"):
        account.seed({"security_groups": [group]})


def test_what_is_there_with_another_network_is_a_conflict(
    account: EmbeddedAccount, document: dict[str, Any]
) -> None:
    account.seed(document)
    with pytest.raises(SeedRefusedError, match=f"{VPC} is there with 10.90.0.0/16"):
        account.seed({"vpcs": [{"id": VPC, "cidr": "10.99.0.0/16"}]})
