from __future__ import annotations

import itertools
from typing import Any

import pytest

from clusterbox.embedded.account import EmbeddedAccount
from tests.embedded.stack_driver import Stack, outputs_of

_SECOND_OCTETS = itertools.count(60)


def vpc_with_subnet(octet: int) -> dict[str, Any]:
    return {
        "Vpc": {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": f"10.{octet}.0.0/16"}},
        "Subnet": {
            "Type": "AWS::EC2::Subnet",
            "Properties": {
                "VpcId": {"Ref": "Vpc"},
                "CidrBlock": f"10.{octet}.1.0/24",
                "AvailabilityZone": "us-west-2b",
            },
        },
    }


@pytest.fixture
def octet() -> int:
    """The second octet of a network that no other test uses."""
    return next(_SECOND_OCTETS)


@pytest.fixture(scope="module")
def ec2(account: EmbeddedAccount) -> Any:
    return account.client("ec2")


def test_a_vpc_answers_its_network_associations_and_default_group(
    stack: Stack, octet: int, ec2: Any
) -> None:
    outputs = outputs_of(
        Cidr="Vpc.CidrBlock", Group="Vpc.DefaultSecurityGroup", Zone="Subnet.AvailabilityZone"
    )
    outputs["Block"] = {
        "Value": {"Fn::Select": [0, {"Fn::GetAtt": ["Vpc", "CidrBlockAssociations"]}]}
    }
    assert stack.create(vpc_with_subnet(octet), Outputs=outputs) == "CREATE_COMPLETE"
    found = stack.outputs()
    assert (found["Cidr"], found["Zone"]) == (f"10.{octet}.0.0/16", "us-west-2b")
    assert found["Block"].startswith("vpc-cidr-assoc-")
    groups = ec2.describe_security_groups(GroupIds=[found["Group"]])["SecurityGroups"]
    assert (groups[0]["GroupName"], groups[0]["VpcId"]) == ("default", stack.ids()["Vpc"])
    assert stack.delete() == "DELETE_COMPLETE"


def test_a_second_network_of_a_vpc_is_described_until_it_is_deleted(
    stack: Stack, octet: int, ec2: Any
) -> None:
    resources = vpc_with_subnet(octet)
    more = {
        "Type": "AWS::EC2::VPCCidrBlock",
        "Properties": {"VpcId": {"Ref": "Vpc"}, "CidrBlock": f"100.64.{octet}.0/24"},
    }
    assert stack.create({**resources, "More": more}) == "CREATE_COMPLETE"

    def blocks() -> list[str]:
        vpc = ec2.describe_vpcs(VpcIds=[stack.ids()["Vpc"]])["Vpcs"][0]
        return [block["CidrBlock"] for block in vpc["CidrBlockAssociationSet"]]

    assert blocks() == [f"10.{octet}.0.0/16", f"100.64.{octet}.0/24"]
    assert stack.update(resources) == "UPDATE_COMPLETE"
    assert blocks() == [f"10.{octet}.0.0/16"]
    stack.delete()


@pytest.mark.parametrize(
    ("cidr", "code"),
    [("192.168.0.0/24", "InvalidSubnet.Range"), ("{}.1.128/25", "InvalidSubnet.Conflict")],
)
def test_a_subnet_that_does_not_fit_is_refused(
    stack: Stack, octet: int, cidr: str, code: str
) -> None:
    resources = vpc_with_subnet(octet)
    properties = {"VpcId": {"Ref": "Vpc"}, "CidrBlock": cidr.format(f"10.{octet}")}
    resources["Other"] = {
        "Type": "AWS::EC2::Subnet",
        "DependsOn": "Subnet",
        "Properties": properties,
    }
    assert stack.create(resources) == "ROLLBACK_COMPLETE"
    assert code in stack.failures()["Other"]


def test_a_nat_gateway_uses_an_elastic_ip_and_an_address_of_its_subnet(
    stack: Stack, octet: int, ec2: Any
) -> None:
    resources = vpc_with_subnet(octet)
    resources["Ip"] = {"Type": "AWS::EC2::EIP", "Properties": {"Domain": "vpc"}}
    nat = {
        "SubnetId": {"Ref": "Subnet"},
        "AllocationId": {"Fn::GetAtt": ["Ip", "AllocationId"]},
        "Tags": [{"Key": "Name", "Value": "one"}],
    }
    resources["Nat"] = {"Type": "AWS::EC2::NatGateway", "Properties": nat}
    outputs = outputs_of(Public="Ip", Allocation="Ip.AllocationId", Nat="Nat.NatGatewayId")
    assert stack.create(resources, Outputs=outputs) == "CREATE_COMPLETE"
    found = stack.outputs()
    address = ec2.describe_addresses(AllocationIds=[found["Allocation"]])["Addresses"][0]
    assert address["PublicIp"] == found["Public"]

    nat["Tags"] = [{"Key": "Name", "Value": "two"}]
    assert stack.update(resources, Outputs=outputs) == "UPDATE_COMPLETE"
    assert stack.ids()["Nat"] == found["Nat"]
    gateway = ec2.describe_nat_gateways(NatGatewayIds=[found["Nat"]])["NatGateways"][0]
    assert (gateway["State"], gateway["SubnetId"]) == ("available", stack.ids()["Subnet"])
    assert {"Key": "Name", "Value": "two"} in gateway["Tags"]
    (held,) = gateway["NatGatewayAddresses"]
    assert (held["PublicIp"], held["PrivateIp"]) == (found["Public"], f"10.{octet}.1.4")

    assert stack.delete() == "DELETE_COMPLETE"
    assert ec2.describe_nat_gateways(NatGatewayIds=[found["Nat"]])["NatGateways"] == []
    assert ec2.describe_addresses(AllocationIds=[found["Allocation"]])["Addresses"] == []


def test_a_nat_gateway_without_an_existing_elastic_ip_is_refused(stack: Stack, octet: int) -> None:
    nat = {"SubnetId": {"Ref": "Subnet"}, "AllocationId": "eipalloc-0123"}
    resources = vpc_with_subnet(octet)
    resources["Nat"] = {"Type": "AWS::EC2::NatGateway", "Properties": nat}
    assert stack.create(resources) == "ROLLBACK_COMPLETE"
    assert "InvalidAllocationID.NotFound" in stack.failures()["Nat"]


def test_a_flow_log_keeps_its_role_and_log_group(stack: Stack, octet: int, ec2: Any) -> None:
    log = {
        "ResourceType": "VPC",
        "ResourceId": {"Ref": "Vpc"},
        "TrafficType": "ALL",
        "LogGroupName": "flow",
        "DeliverLogsPermissionArn": "arn:aws:iam::427491229895:role/flow",
        "MaxAggregationInterval": 60,
    }
    resources = vpc_with_subnet(octet)
    resources["Log"] = {"Type": "AWS::EC2::FlowLog", "Properties": log}
    assert stack.create(resources) == "CREATE_COMPLETE"
    first = stack.ids()["Log"]

    def described() -> dict[str, Any]:
        filters = [{"Name": "resource-id", "Values": [stack.ids()["Vpc"]]}]
        (found,) = ec2.describe_flow_logs(Filters=filters)["FlowLogs"]
        return dict(found)

    found = described()
    assert (found["LogGroupName"], found["MaxAggregationInterval"]) == ("flow", 60)
    assert found["DeliverLogsPermissionArn"].endswith("role/flow")

    log["TrafficType"] = "REJECT"
    assert stack.update(resources) == "UPDATE_COMPLETE"
    assert stack.ids()["Log"] != first
    assert described()["TrafficType"] == "REJECT"
    assert stack.delete() == "DELETE_COMPLETE"


def test_single_rules_are_added_changed_and_taken_off_a_group(
    stack: Stack, octet: int, ec2: Any
) -> None:
    resources = vpc_with_subnet(octet)
    for name in ("Files", "Nodes"):
        resources[name] = {
            "Type": "AWS::EC2::SecurityGroup",
            "Properties": {"GroupDescription": name, "VpcId": {"Ref": "Vpc"}},
        }
    ingress = {
        "GroupId": {"Ref": "Files"},
        "IpProtocol": "tcp",
        "FromPort": 2049,
        "ToPort": 2049,
        "SourceSecurityGroupId": {"Ref": "Nodes"},
    }
    egress = {"GroupId": {"Ref": "Files"}, "IpProtocol": "udp", "FromPort": 53, "ToPort": 53}
    egress["CidrIp"] = "10.0.0.0/8"
    rules = {
        "In": {"Type": "AWS::EC2::SecurityGroupIngress", "Properties": ingress},
        "Out": {"Type": "AWS::EC2::SecurityGroupEgress", "Properties": egress},
    }
    assert stack.create({**resources, **rules}) == "CREATE_COMPLETE"

    def ports() -> tuple[list[int], list[int]]:
        group = ec2.describe_security_groups(GroupIds=[stack.ids()["Files"]])["SecurityGroups"][0]
        return (
            [rule["FromPort"] for rule in group["IpPermissions"]],
            [rule["FromPort"] for rule in group["IpPermissionsEgress"] if "FromPort" in rule],
        )

    assert ports() == ([2049], [53])
    ingress |= {"FromPort": 988, "ToPort": 988}
    assert stack.update({**resources, **rules}) == "UPDATE_COMPLETE"
    assert ports() == ([988], [53])
    assert stack.update(resources) == "UPDATE_COMPLETE"
    assert ports() == ([], [])
    assert stack.delete() == "DELETE_COMPLETE"


def test_a_rule_for_a_group_that_does_not_exist_is_refused(stack: Stack) -> None:
    rule = {"GroupId": "sg-0123456789abcdef1", "IpProtocol": "-1", "CidrIp": "10.0.0.0/8"}
    resources = {"In": {"Type": "AWS::EC2::SecurityGroupIngress", "Properties": rule}}
    assert stack.create(resources) == "ROLLBACK_COMPLETE"
    assert "InvalidGroup.NotFound" in stack.failures()["In"]


def test_a_network_interface_has_an_address_of_its_subnet(
    stack: Stack, octet: int, ec2: Any
) -> None:
    interface = {"SubnetId": {"Ref": "Subnet"}, "Description": "head node"}
    resources = vpc_with_subnet(octet)
    resources["Eni"] = {"Type": "AWS::EC2::NetworkInterface", "Properties": interface}
    outputs = outputs_of(Address="Eni.PrimaryPrivateIpAddress")
    assert stack.create(resources, Outputs=outputs) == "CREATE_COMPLETE"
    assert stack.outputs() == {"Address": f"10.{octet}.1.4"}
    interface["Description"] = "login node"
    assert stack.update(resources, Outputs=outputs) == "UPDATE_COMPLETE"
    ids = [stack.ids()["Eni"]]
    found = ec2.describe_network_interfaces(NetworkInterfaceIds=ids)["NetworkInterfaces"][0]
    assert (found["Description"], found["PrivateIpAddress"]) == ("login node", f"10.{octet}.1.4")
    assert stack.delete() == "DELETE_COMPLETE"
    assert not ec2.describe_network_interfaces(NetworkInterfaceIds=ids)["NetworkInterfaces"]


def test_a_private_zone_keeps_its_vpc_and_refuses_deletion_while_it_has_records(
    stack: Stack, octet: int, account: EmbeddedAccount
) -> None:
    route53 = account.client("route53")
    resources = vpc_with_subnet(octet)
    vpcs = [{"VPCId": {"Ref": "Vpc"}, "VPCRegion": "us-west-2"}]
    resources["Zone"] = {
        "Type": "AWS::Route53::HostedZone",
        "Properties": {"Name": f"n{octet}.hpc.example", "VPCs": vpcs},
    }
    record = {
        "HostedZoneId": {"Ref": "Zone"},
        "Name": f"head.n{octet}.hpc.example",
        "Type": "A",
        "TTL": "60",
        "ResourceRecords": [f"10.{octet}.1.4"],
    }
    resources["Record"] = {"Type": "AWS::Route53::RecordSet", "Properties": record}
    assert stack.create(resources) == "CREATE_COMPLETE"
    zone_id = stack.ids()["Zone"]
    zone = route53.get_hosted_zone(Id=zone_id)
    assert zone["HostedZone"]["Config"]["PrivateZone"] is True
    assert [vpc["VPCId"] for vpc in zone["VPCs"]] == [stack.ids()["Vpc"]]

    record["ResourceRecords"] = [f"10.{octet}.1.5"]
    assert stack.update(resources) == "UPDATE_COMPLETE"
    sets = route53.list_resource_record_sets(HostedZoneId=zone_id)["ResourceRecordSets"]
    values = [r["ResourceRecords"] for r in sets if r["Type"] == "A"]
    assert values == [[{"Value": f"10.{octet}.1.5"}]]

    change = {
        "Action": "UPSERT",
        "ResourceRecordSet": {
            "Name": f"c1.n{octet}.hpc.example",
            "Type": "A",
            "TTL": 60,
            "ResourceRecords": [{"Value": f"10.{octet}.1.6"}],
        },
    }
    batch = {"Changes": [change]}
    route53.change_resource_record_sets(HostedZoneId=zone_id, ChangeBatch=batch)
    assert stack.delete() == "DELETE_FAILED"
    assert "HostedZoneNotEmpty" in stack.failures()["Zone"]
    change["Action"] = "DELETE"
    route53.change_resource_record_sets(HostedZoneId=zone_id, ChangeBatch=batch)
    assert stack.delete() == "DELETE_COMPLETE"
