"""Network interfaces with an address of their subnet."""

from __future__ import annotations

from typing import Any

from ministack.services import ec2

from clusterbox.embedded.server.addresses import private_dns_name, take_address
from clusterbox.embedded.server.ministack_api import (
    Answer,
    Properties,
    Resource,
    ResourceFailedError,
    ResourceType,
    call,
    query_parameters,
    region,
    tag_list,
)
from clusterbox.embedded.server.security_groups import group

_native_create = ec2._create_network_interface


def create_network_interface(parameters: dict[str, Any]) -> Any:
    """Answer CreateNetworkInterface; ministack's takes addresses out of 10.0.0.0/16."""
    try:
        address = take_address(
            ec2._p(parameters, "SubnetId") or ec2._DEFAULT_SUBNET_ID,
            ec2._p(parameters, "PrivateIpAddress") or None,
        )
    except ResourceFailedError as error:
        return ec2._error("InvalidParameterValue", str(error), 400)
    _, _, body = _native_create(parameters)
    interface_id = Answer(body).value("networkInterfaceId")
    record = ec2._network_interfaces[interface_id]
    record["PrivateIpAddress"] = address
    record["InterfaceType"] = ec2._p(parameters, "InterfaceType") or "interface"
    ec2._parse_tag_specs(parameters, "network-interface", interface_id)
    inner = ec2._eni_fields_xml(record, tag="networkInterface")
    return ec2._xml(200, "CreateNetworkInterfaceResponse", inner)


def _attributes(interface_id: str) -> dict[str, Any]:
    record = ec2._network_interfaces[interface_id]
    return {
        "Id": interface_id,
        "PrimaryPrivateIpAddress": record["PrivateIpAddress"],
        "PrimaryPrivateDnsName": private_dns_name(record["PrivateIpAddress"], region()),
        "SecondaryPrivateIpAddresses": [],
        "VpcId": record["VpcId"],
    }


def create_interface(_logical_id: str, properties: Properties, _stack: str) -> Resource:
    """Create an interface in a subnet; Ref is its id."""
    groups = properties.get("GroupSet") or []
    for group_id in groups:
        group(group_id)
    asked = {
        "SubnetId": properties["SubnetId"],
        "Description": properties.get("Description"),
        "InterfaceType": properties.get("InterfaceType"),
        "PrivateIpAddress": properties.get("PrivateIpAddress"),
        "SecurityGroupId": groups,
    }
    answer = call(create_network_interface, query_parameters(asked))
    interface_id = answer.value("networkInterfaceId")
    ec2._tags[interface_id] = tag_list(properties)
    return interface_id, _attributes(interface_id)


def update_interface(
    interface_id: str, _old: Properties, properties: Properties, _stack: str
) -> Resource:
    """Change groups, description and tags in place."""
    record = ec2._network_interfaces[interface_id]
    record["Description"] = properties.get("Description", "")
    record["Groups"] = [
        {"GroupId": group_id, "GroupName": group(group_id)["GroupName"]}
        for group_id in properties.get("GroupSet") or [ec2._DEFAULT_SG_ID]
    ]
    ec2._tags[interface_id] = tag_list(properties)
    return interface_id, _attributes(interface_id)


def delete_interface(interface_id: str, _properties: Properties) -> None:
    """Delete the interface; one that is gone already is no error."""
    ec2._network_interfaces.pop(interface_id, None)
    ec2._tags.pop(interface_id, None)


RESOURCE_TYPES: dict[str, ResourceType] = {
    "AWS::EC2::NetworkInterface": {
        "create": create_interface,
        "update": update_interface,
        "delete": delete_interface,
        "replacing": ("InterfaceType", "PrivateIpAddress", "SubnetId"),
        "tags": "Tags",
    },
}


def mend() -> None:
    """Give interfaces made through the API an address of their subnet too."""
    ec2._ACTION_MAP["CreateNetworkInterface"] = create_network_interface
