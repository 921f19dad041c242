from __future__ import annotations

import base64
import itertools
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clusterbox.embedded.account import EmbeddedAccount
from tests.embedded.stack_driver import Stack, outputs_of

_SECOND_OCTETS = itertools.count(120)


@pytest.fixture(scope="module")
def ec2(account: EmbeddedAccount) -> Any:
    return account.client("ec2")


@pytest.fixture
def octet() -> int:
    """The second octet of a network that no other test uses."""
    return next(_SECOND_OCTETS)


@pytest.fixture
def resources(octet: int) -> dict[str, Any]:
    """A VPC, a subnet of 11 usable addresses, a group, a profile and a launch template."""
    trust = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}}
    trust["Action"] = "sts:AssumeRole"
    data = {
        "ImageId": "ami-0fedcba9876543211",
        "InstanceType": "t3.large",
        "SecurityGroupIds": [{"Ref": "Group"}],
        "IamInstanceProfile": {"Name": {"Ref": "Profile"}},
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 50, "Encrypted": True}}
        ],
        "TagSpecifications": [
            {"ResourceType": "instance", "Tags": [{"Key": "from", "Value": "template"}]}
        ],
    }
    return {
        "Vpc": {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": f"10.{octet}.0.0/16"}},
        "Subnet": {
            "Type": "AWS::EC2::Subnet",
            "Properties": {
                "VpcId": {"Ref": "Vpc"},
                "CidrBlock": f"10.{octet}.7.16/28",
                "AvailabilityZone": "us-west-2c",
            },
        },
        "Group": {
            "Type": "AWS::EC2::SecurityGroup",
            "Properties": {"GroupDescription": "nodes", "VpcId": {"Ref": "Vpc"}},
        },
        "Role": {
            "Type": "AWS::IAM::Role",
            "Properties": {
                "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]}
            },
        },
        "Profile": {
            "Type": "AWS::IAM::InstanceProfile",
            "Properties": {"Roles": [{"Ref": "Role"}]},
        },
        "Template": {
            "Type": "AWS::EC2::LaunchTemplate",
            "Properties": {"LaunchTemplateData": data},
        },
    }


def box(**properties: Any) -> dict[str, Any]:
    template = {
        "LaunchTemplateId": {"Ref": "Template"},
        "Version": {"Fn::GetAtt": ["Template", "LatestVersionNumber"]},
    }
    base = {"SubnetId": {"Ref": "Subnet"}, "LaunchTemplate": template}
    return {"Box": {"Type": "AWS::EC2::Instance", "Properties": {**base, **properties}}}


def described(ec2: Any, instance_id: str) -> dict[str, Any]:
    found = ec2.describe_instances(InstanceIds=[instance_id])
    return dict(found["Reservations"][0]["Instances"][0])


def test_an_instance_takes_its_settings_from_the_launch_template_and_its_subnet(
    stack: Stack, resources: dict[str, Any], octet: int, ec2: Any
) -> None:
    outputs = outputs_of(Address="Box.PrivateIp", Zone="Box.AvailabilityZone")
    assert stack.create({**resources, **box()}, Outputs=outputs) == "CREATE_COMPLETE"
    assert stack.outputs() == {"Address": f"10.{octet}.7.20", "Zone": "us-west-2c"}

    ids = stack.ids()
    found = described(ec2, ids["Box"])
    assert found["PrivateIpAddress"] == f"10.{octet}.7.20"
    assert (found["SubnetId"], found["VpcId"]) == (ids["Subnet"], ids["Vpc"])
    assert (found["ImageId"], found["InstanceType"]) == ("ami-0fedcba9876543211", "t3.large")
    assert [g["GroupId"] for g in found["SecurityGroups"]] == [ids["Group"]]
    assert found["IamInstanceProfile"]["Arn"].endswith("/" + ids["Profile"])
    options = found["MetadataOptions"]
    assert (options["HttpTokens"], options["HttpPutResponseHopLimit"]) == ("required", 2)
    assert {"Key": "from", "Value": "template"} in found["Tags"]
    assert "PublicIpAddress" not in found or not found["PublicIpAddress"]

    (device,) = found["BlockDeviceMappings"]
    volume = ec2.describe_volumes(VolumeIds=[device["Ebs"]["VolumeId"]])["Volumes"][0]
    assert (volume["Size"], volume["Encrypted"]) == (50, True)
    assert volume["AvailabilityZone"] == "us-west-2c"

    assert stack.delete() == "DELETE_COMPLETE"
    assert described(ec2, ids["Box"])["State"]["Name"] == "terminated"


def test_an_instances_own_properties_win_over_the_launch_template(
    stack: Stack, resources: dict[str, Any], octet: int, ec2: Any
) -> None:
    own = box(
        InstanceType="c7i.xlarge",
        PrivateIpAddress=f"10.{octet}.7.30",
        MetadataOptions={"HttpPutResponseHopLimit": 1},
        BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 80}}],
        Tags=[{"Key": "from", "Value": "instance"}],
    )
    assert stack.create({**resources, **own}) == "CREATE_COMPLETE"
    found = described(ec2, stack.ids()["Box"])
    assert (found["InstanceType"], found["PrivateIpAddress"]) == (
        "c7i.xlarge",
        f"10.{octet}.7.30",
    )
    options = found["MetadataOptions"]
    assert (options["HttpTokens"], options["HttpPutResponseHopLimit"]) == ("required", 1)
    assert {"Key": "from", "Value": "instance"} in found["Tags"]
    volume_id = found["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    assert ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]["Size"] == 80
    stack.delete()


def test_an_instances_type_changes_in_place_and_its_image_replaces_it(
    stack: Stack, resources: dict[str, Any], ec2: Any
) -> None:
    assert stack.create({**resources, **box()}) == "CREATE_COMPLETE"
    first = stack.ids()["Box"]
    larger = box(InstanceType="t3.xlarge", IamInstanceProfile={"Ref": "Profile"})
    assert stack.update({**resources, **larger}) == "UPDATE_COMPLETE"
    assert stack.ids()["Box"] == first
    assert described(ec2, first)["InstanceType"] == "t3.xlarge"

    other = box(ImageId="ami-0fedcba9876543212")
    assert stack.update({**resources, **other}) == "UPDATE_COMPLETE"
    second = stack.ids()["Box"]
    assert second != first
    assert described(ec2, first)["State"]["Name"] == "terminated"
    assert described(ec2, second)["ImageId"] == "ami-0fedcba9876543212"
    stack.delete()


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"SubnetId": "subnet-0123456789abcdef1"}, "InvalidSubnetID.NotFound"),
        ({"SecurityGroupIds": ["sg-0123456789abcdef1"]}, "InvalidGroup.NotFound"),
        ({"KeyName": "lost"}, "InvalidKeyPair.NotFound"),
        ({"IamInstanceProfile": "none"}, "Invalid IAM Instance Profile none"),
        ({"PrivateIpAddress": "192.168.1.1"}, "does not fall within"),
        ({"LaunchTemplate": {"LaunchTemplateName": "no", "Version": "1"}}, "template 'no'"),
    ],
)
def test_an_instance_that_refers_to_what_does_not_exist_is_refused(
    stack: Stack, resources: dict[str, Any], properties: dict[str, Any], reason: str
) -> None:
    assert stack.create({**resources, **box(**properties)}) == "ROLLBACK_COMPLETE"
    assert reason in stack.failures()["Box"]


def test_an_instance_protected_from_termination_hinders_its_stacks_deletion(
    stack: Stack, resources: dict[str, Any]
) -> None:
    protected = box(DisableApiTermination=True)
    assert stack.create({**resources, **protected}) == "CREATE_COMPLETE"
    assert stack.delete() == "DELETE_FAILED"
    assert "disableApiTermination" in stack.failures()["Box"]
    assert stack.delete() == "DELETE_FAILED"


def test_an_instance_takes_over_a_network_interface_made_before_it(
    stack: Stack, resources: dict[str, Any], octet: int, ec2: Any
) -> None:
    eni = {"SubnetId": {"Ref": "Subnet"}, "GroupSet": [{"Ref": "Group"}]}
    resources["Eni"] = {"Type": "AWS::EC2::NetworkInterface", "Properties": eni}
    first = [{"NetworkInterfaceId": {"Ref": "Eni"}, "DeviceIndex": "0"}]
    own = box(NetworkInterfaces=first)
    del own["Box"]["Properties"]["SubnetId"]
    assert stack.create({**resources, **own}) == "CREATE_COMPLETE"
    found = described(ec2, stack.ids()["Box"])
    assert found["PrivateIpAddress"] == f"10.{octet}.7.20"
    assert found["SubnetId"] == stack.ids()["Subnet"]
    assert stack.delete() == "DELETE_COMPLETE"


def test_run_instances_fills_the_subnet_and_then_refuses(
    stack: Stack, resources: dict[str, Any], octet: int, ec2: Any
) -> None:
    assert stack.create(resources) == "CREATE_COMPLETE"
    ids = stack.ids()
    asked = {
        "LaunchTemplate": {"LaunchTemplateId": ids["Template"], "Version": "$Latest"},
        "SubnetId": ids["Subnet"],
        "UserData": "#!/bin/bash\n",
    }
    made = ec2.run_instances(MinCount=11, MaxCount=11, **asked)["Instances"]
    addresses = {instance["PrivateIpAddress"] for instance in made}
    assert addresses == {f"10.{octet}.7.{number}" for number in range(20, 31)}
    assert made[0]["MetadataOptions"]["HttpTokens"] == "required"
    with pytest.raises(ClientError, match="InsufficientFreeAddressesInSubnet"):
        ec2.run_instances(MinCount=1, MaxCount=1, **asked)

    first = made[0]["InstanceId"]
    attribute = ec2.describe_instance_attribute(InstanceId=first, Attribute="userData")
    assert base64.b64decode(attribute["UserData"]["Value"]) == b"#!/bin/bash\n"
    filters = [{"Name": "subnet-id", "Values": [ids["Subnet"]]}]
    assert len(ec2.describe_instances(Filters=filters)["Reservations"]) == 11

    ec2.terminate_instances(InstanceIds=[instance["InstanceId"] for instance in made])
    again = ec2.run_instances(MinCount=1, MaxCount=1, **asked)["Instances"][0]
    assert again["PrivateIpAddress"] == f"10.{octet}.7.20"
    ec2.terminate_instances(InstanceIds=[again["InstanceId"]])
    assert stack.delete() == "DELETE_COMPLETE"


def test_a_security_group_in_use_is_not_deleted(
    stack: Stack, resources: dict[str, Any], ec2: Any
) -> None:
    assert stack.create(resources) == "CREATE_COMPLETE"
    ids = stack.ids()
    made = ec2.run_instances(
        MinCount=1,
        MaxCount=1,
        LaunchTemplate={"LaunchTemplateId": ids["Template"]},
        SubnetId=ids["Subnet"],
    )["Instances"][0]["InstanceId"]
    assert stack.delete() == "DELETE_FAILED"
    assert made in stack.failures()["Group"]
    ec2.terminate_instances(InstanceIds=[made])
    assert stack.delete() == "DELETE_COMPLETE"


def test_a_volume_grows_in_place_and_does_not_shrink(stack: Stack, ec2: Any) -> None:
    volume = {
        "AvailabilityZone": "us-west-2a",
        "Size": 100,
        "Encrypted": True,
        "KmsKeyId": "alias/volumes",
    }
    resources = {"Disk": {"Type": "AWS::EC2::Volume", "Properties": volume}}
    assert stack.create(resources) == "CREATE_COMPLETE"
    volume_id = stack.ids()["Disk"]
    found = ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]
    assert (found["Size"], found["Encrypted"], found["KmsKeyId"]) == (100, True, "alias/volumes")
    volume["Size"] = 200
    assert stack.update(resources) == "UPDATE_COMPLETE"
    assert stack.ids()["Disk"] == volume_id
    assert ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]["Size"] == 200
    volume["Size"] = 50
    assert stack.update(resources) == "UPDATE_ROLLBACK_COMPLETE"
    assert "cannot be smaller" in stack.failures()["Disk"]
    assert stack.delete() == "DELETE_COMPLETE"


def test_a_placement_group_is_made_tagged_and_deleted(stack: Stack, ec2: Any) -> None:
    group: dict[str, Any] = {"Strategy": "cluster"}
    resources = {"Close": {"Type": "AWS::EC2::PlacementGroup", "Properties": group}}
    assert stack.create(resources) == "CREATE_COMPLETE"
    name = stack.ids()["Close"]
    found = ec2.describe_placement_groups(GroupNames=[name])["PlacementGroups"][0]
    assert (found["Strategy"], found["State"]) == ("cluster", "available")
    group["Tags"] = [{"Key": "queue", "Value": "mpi"}]
    assert stack.update(resources) == "UPDATE_COMPLETE"
    found = ec2.describe_placement_groups(GroupNames=[name])["PlacementGroups"][0]
    assert {"Key": "queue", "Value": "mpi"} in found["Tags"]
    assert stack.delete() == "DELETE_COMPLETE"
    with pytest.raises(ClientError, match="Unknown"):
        ec2.describe_placement_groups(GroupNames=[name])
