"""VPCs, their networks, elastic IP addresses and NAT gateways."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any

from ministack.services import ec2

from clusterbox.embedded.server.addresses import take_address
from clusterbox.embedded.server.ministack_api import (
    Attributes,
    Properties,
    Resource,
    ResourceFailedError,
    ResourceType,
    call,
    native_handler,
    new_id,
    query_parameters,
    tag_list,
)


def vpc_attributes(vpc_id: str) -> Attributes:
    """Return what Fn::GetAtt answers for a VPC."""
    vpc = ec2._vpcs[vpc_id]
    own = f"vpc-cidr-assoc-{vpc_id.partition('-')[2]}"
    return {
        "VpcId": vpc_id,
        "CidrBlock": vpc["CidrBlock"],
        "CidrBlockAssociations": [own, *vpc.get("MoreCidrBlocks", {})],
        "DefaultSecurityGroup": vpc["DefaultSecurityGroupId"],
        "DefaultNetworkAcl": vpc["DefaultNetworkAclId"],
        "Ipv6CidrBlocks": [],
    }


def _mend_vpcs() -> None:
    entry = native_handler("AWS::EC2::VPC")
    create, update = entry["create"], entry["update"]

    def create_vpc(logical_id: str, properties: Properties, stack: str) -> Resource:
        vpc_id, _ = create(logical_id, properties, stack)
        return vpc_id, vpc_attributes(vpc_id)

    def update_vpc(
        vpc_id: str, old: Properties, new: Properties, stack: str, logical_id: str | None = None
    ) -> Resource:
        vpc_id, _ = update(vpc_id, old, new, stack, logical_id)
        return vpc_id, vpc_attributes(vpc_id)

    entry |= {"create": create_vpc, "update": update_vpc}


def _mend_subnets() -> None:
    entry = native_handler("AWS::EC2::Subnet")
    create, update = entry["create"], entry["update"]

    def complete(made: Resource) -> Resource:
        subnet_id, attributes = made
        subnet = ec2._subnets[subnet_id]
        size = ipaddress.IPv4Network(subnet["CidrBlock"]).num_addresses
        subnet["AvailableIpAddressCount"] = size - 5  # AWS keeps five for itself.
        return subnet_id, {
            "VpcId": subnet["VpcId"],
            "CidrBlock": subnet["CidrBlock"],
            "AvailabilityZoneId": subnet["AvailabilityZoneId"],
            "Ipv6CidrBlocks": [],
            **attributes,
        }

    def create_subnet(logical_id: str, properties: Properties, stack: str) -> Resource:
        vpc_id = properties.get("VpcId", "")
        check_subnet(vpc_id, properties["CidrBlock"])
        return complete(create(logical_id, properties, stack))

    def update_subnet(
        subnet_id: str, old: Properties, new: Properties, stack: str, logical_id: str | None = None
    ) -> Resource:
        return complete(update(subnet_id, old, new, stack, logical_id))

    entry |= {"create": create_subnet, "update": update_subnet}


def check_subnet(vpc_id: str, cidr: str) -> None:
    """Raise unless a subnet of that network fits into the VPC beside its other subnets."""
    vpc = ec2._vpcs.get(vpc_id)
    if vpc is None:
        raise ResourceFailedError(f"The vpc ID '{vpc_id}' does not exist (InvalidVpcID.NotFound)")
    network = ipaddress.IPv4Network(cidr)
    blocks = [vpc["CidrBlock"], *vpc.get("MoreCidrBlocks", {}).values()]
    if not any(network.subnet_of(ipaddress.IPv4Network(block)) for block in blocks):
        raise ResourceFailedError(f"The CIDR '{cidr}' is invalid. (InvalidSubnet.Range)")
    for subnet in ec2._subnets.values():
        other = ipaddress.IPv4Network(subnet["CidrBlock"])
        if subnet["VpcId"] == vpc_id and network.overlaps(other):
            raise ResourceFailedError(
                f"The CIDR '{cidr}' conflicts with another subnet: {subnet['SubnetId']} has "
                f"{other} (InvalidSubnet.Conflict)"
            )


def create_cidr_block(_logical_id: str, properties: Properties, _stack: str) -> Resource:
    """Add an IPv4 network to a VPC."""
    vpc = ec2._vpcs.get(properties["VpcId"])
    if vpc is None:
        raise ResourceFailedError(
            f"The vpc ID '{properties['VpcId']}' does not exist (InvalidVpcID.NotFound)"
        )
    if "CidrBlock" not in properties:
        raise ResourceFailedError("only CidrBlock is known here: IPv6 and IPAM are not")
    association = new_id("vpc-cidr-assoc")
    vpc.setdefault("MoreCidrBlocks", {})[association] = properties["CidrBlock"]
    return association, {"Id": association}


def delete_cidr_block(association: str, properties: Properties) -> None:
    """Take the network off its VPC; one that is gone already is no error."""
    vpc = ec2._vpcs.get(properties["VpcId"], {})
    vpc.get("MoreCidrBlocks", {}).pop(association, None)


def _with_all_blocks(render: Callable[..., str]) -> Callable[..., str]:
    def vpc_fields(vpc: dict[str, Any], tag: str = "item") -> str:
        items = "".join(
            f"<item><cidrBlock>{block}</cidrBlock><associationId>{association}</associationId>"
            "<cidrBlockState><state>associated</state></cidrBlockState></item>"
            for association, block in vpc.get("MoreCidrBlocks", {}).items()
        )
        end = "</cidrBlockAssociationSet>"
        return render(vpc, tag).replace(end, items + end, 1)

    return vpc_fields


def _elastic_ip(allocation_id: str) -> Resource:
    address = ec2._addresses[allocation_id]["PublicIp"]
    return address, {"AllocationId": allocation_id, "PublicIp": address}


def create_elastic_ip(_logical_id: str, properties: Properties, _stack: str) -> Resource:
    """Allocate a public address; Ref is the address."""
    answer = call(ec2._allocate_address, query_parameters({"Domain": "vpc"}))
    allocation_id = answer.value("allocationId")
    _set_elastic_ip(allocation_id, properties)
    return _elastic_ip(allocation_id)


def _set_elastic_ip(allocation_id: str, properties: Properties) -> None:
    ec2._tags[allocation_id] = tag_list(properties)
    if instance_id := properties.get("InstanceId"):
        call(
            ec2._associate_address,
            query_parameters({"AllocationId": allocation_id, "InstanceId": instance_id}),
        )


def _allocation_of(address: str) -> str | None:
    for allocation_id, record in ec2._addresses.items():
        if record["PublicIp"] == address:
            return str(allocation_id)
    return None


def update_elastic_ip(
    address: str, _old: Properties, properties: Properties, _stack: str
) -> Resource:
    """Change the tags and the instance the address is associated with."""
    allocation_id = _allocation_of(address)
    if allocation_id is None:
        raise ResourceFailedError(f"The address {address} does not exist (InvalidAddress.NotFound)")
    _set_elastic_ip(allocation_id, properties)
    return _elastic_ip(allocation_id)


def delete_elastic_ip(address: str, _properties: Properties) -> None:
    """Release the address; one that is gone already is no error."""
    if allocation_id := _allocation_of(address):
        ec2._addresses.pop(allocation_id)
        ec2._tags.pop(allocation_id, None)


def create_nat_gateway(_logical_id: str, properties: Properties, _stack: str) -> Resource:
    """Create a NAT gateway with a private address of its subnet."""
    allocation_id = properties.get("AllocationId")
    kind = properties.get("ConnectivityType", "public")
    if kind == "public" and allocation_id not in ec2._addresses:
        raise ResourceFailedError(
            f"Elastic IP address {allocation_id} does not exist (InvalidAllocationID.NotFound)"
        )
    address = take_address(properties["SubnetId"], properties.get("PrivateIpAddress"))
    asked = {
        "SubnetId": properties["SubnetId"],
        "AllocationId": allocation_id,
        "ConnectivityType": kind,
    }
    nat_id = call(ec2._create_nat_gateway, query_parameters(asked)).value("natGatewayId")
    ec2._nat_gateways[nat_id]["PrivateIpAddress"] = address
    ec2._tags[nat_id] = tag_list(properties)
    return nat_id, {"NatGatewayId": nat_id}


def update_nat_gateway(
    nat_id: str, _old: Properties, properties: Properties, _stack: str
) -> Resource:
    """Change the tags; everything else replaces the gateway."""
    ec2._tags[nat_id] = tag_list(properties)
    return nat_id, {"NatGatewayId": nat_id}


def delete_nat_gateway(nat_id: str, _properties: Properties) -> None:
    """Delete the gateway; one that is gone already is no error."""
    ec2._nat_gateways.pop(nat_id, None)
    ec2._tags.pop(nat_id, None)


_NAT_ITEM = re.compile(
    r"(?P<before><natGatewayId>(?P<id>[^<]+)</natGatewayId>.*?)<natGatewayAddressSet/>", re.S
)


def _nat_addresses(found: re.Match[str]) -> str:
    record = ec2._nat_gateways.get(found["id"], {})
    allocation = record.get("AllocationId") or ""
    public = ec2._addresses.get(allocation, {}).get("PublicIp")
    fields = (
        f"<privateIp>{record.get('PrivateIpAddress', '')}</privateIp><isPrimary>true</isPrimary>"
    )
    if public:
        fields += f"<allocationId>{allocation}</allocationId><publicIp>{public}</publicIp>"
    return f"{found['before']}<natGatewayAddressSet><item>{fields}</item></natGatewayAddressSet>"


def _with_nat_addresses(describe: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def describe_nat_gateways(parameters: Any) -> Any:
        status, headers, body = describe(parameters)
        return status, headers, _NAT_ITEM.sub(_nat_addresses, body.decode()).encode()

    return describe_nat_gateways


RESOURCE_TYPES: dict[str, ResourceType] = {
    "AWS::EC2::VPCCidrBlock": {
        "create": create_cidr_block,
        "delete": delete_cidr_block,
        "replacing": ("CidrBlock", "VpcId"),
    },
    "AWS::EC2::EIP": {
        "create": create_elastic_ip,
        "update": update_elastic_ip,
        "delete": delete_elastic_ip,
        "replacing": ("Domain", "NetworkBorderGroup"),
        "tags": "Tags",
    },
    "AWS::EC2::NatGateway": {
        "create": create_nat_gateway,
        "update": update_nat_gateway,
        "delete": delete_nat_gateway,
        "replacing": ("AllocationId", "ConnectivityType", "PrivateIpAddress", "SubnetId"),
        "tags": "Tags",
    },
}


def mend() -> None:
    """Answer the attributes of VPCs and subnets, and refuse subnets that do not fit."""
    _mend_vpcs()
    _mend_subnets()
    actions = ec2._ACTION_MAP
    actions["DescribeNatGateways"] = _with_nat_addresses(actions["DescribeNatGateways"])
    ec2._vpc_fields_xml = _with_all_blocks(ec2._vpc_fields_xml)
