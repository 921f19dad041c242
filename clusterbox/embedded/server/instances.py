"""EC2 instances: RunInstances as EC2 answers it, and the CloudFormation type on top of it."""

from __future__ import annotations

from html import escape
from typing import Any

from ministack.services import ec2, iam

from clusterbox.embedded.server import launch
from clusterbox.embedded.server.addresses import private_dns_name
from clusterbox.embedded.server.ministack_api import (
    Properties,
    Resource,
    ResourceFailedError,
    ResourceType,
    call,
    is_true,
    query_parameters,
    region,
    tag_list,
)
from clusterbox.embedded.server.security_groups import group


def _request(properties: Properties) -> dict[str, list[str]]:
    """Return the RunInstances parameters that a template's properties ask for."""
    asked: dict[str, Any] = {
        name: properties.get(name)
        for name in (
            "DisableApiTermination",
            "EbsOptimized",
            "ImageId",
            "InstanceType",
            "KeyName",
            "LaunchTemplate",
            "MetadataOptions",
            "PrivateIpAddress",
            "SubnetId",
            "UserData",
        )
    }
    asked["SecurityGroupId"] = properties.get("SecurityGroupIds")
    asked["BlockDeviceMapping"] = properties.get("BlockDeviceMappings")
    asked["Placement"] = {
        "AvailabilityZone": properties.get("AvailabilityZone"),
        "GroupName": properties.get("PlacementGroupName"),
        "Tenancy": properties.get("Tenancy"),
    }
    asked["Monitoring"] = {"Enabled": properties.get("Monitoring")}
    if profile := properties.get("IamInstanceProfile"):
        asked["IamInstanceProfile"] = {"Name": profile}
    asked["NetworkInterface"] = [
        {
            "DeviceIndex": interface.get("DeviceIndex"),
            "NetworkInterfaceId": interface.get("NetworkInterfaceId"),
            "SubnetId": interface.get("SubnetId"),
            "PrivateIpAddress": interface.get("PrivateIpAddress"),
            "SecurityGroupId": interface.get("GroupSet"),
            "AssociatePublicIpAddress": interface.get("AssociatePublicIpAddress"),
        }
        for interface in properties.get("NetworkInterfaces") or []
    ]
    if tags := tag_list(properties):
        asked["TagSpecification"] = [{"ResourceType": "instance", "Tag": tags}]
    return query_parameters(asked)


def _attributes(instance: dict[str, Any]) -> dict[str, Any]:
    return {
        "AvailabilityZone": instance["Placement"]["AvailabilityZone"],
        "InstanceId": instance["InstanceId"],
        "PrivateDnsName": instance["PrivateDnsName"],
        "PrivateIp": instance["PrivateIpAddress"],
        "PublicDnsName": instance["PublicDnsName"],
        "PublicIp": instance["PublicIpAddress"],
        "VpcId": instance["VpcId"],
        "State": dict(instance["State"]),
    }


def create_instance(_logical_id: str, properties: Properties, _stack: str) -> Resource:
    """Launch one instance; Ref is its id."""
    instance_id = call(launch.run_instances, _request(properties)).value("instanceId")
    return instance_id, _attributes(ec2._instances[instance_id])


def _profile(name: str | None) -> dict[str, str] | None:
    if not name:
        return None
    profile = iam._lookup_instance_profile(name=name, arn="")
    if profile is None:
        raise ResourceFailedError(f"Invalid IAM Instance Profile name {name}")
    return {"Arn": profile["Arn"], "Id": profile["InstanceProfileId"]}


def update_instance(
    instance_id: str, _old: Properties, properties: Properties, _stack: str
) -> Resource:
    """Change type, groups, profile, metadata options and tags in place."""
    instance = ec2._instances.get(instance_id)
    if instance is None or instance["State"]["Name"] == "terminated":
        raise ResourceFailedError(
            f"The instance ID '{instance_id}' does not exist (InvalidInstanceID.NotFound)"
        )
    instance["InstanceType"] = properties.get("InstanceType", instance["InstanceType"])
    if groups := properties.get("SecurityGroupIds"):
        instance["SecurityGroups"] = [
            {"GroupId": group_id, "GroupName": group(group_id)["GroupName"]} for group_id in groups
        ]
    instance["IamInstanceProfile"] = _profile(properties.get("IamInstanceProfile"))
    instance["MetadataOptions"] |= properties.get("MetadataOptions") or {}
    instance["DisableApiTermination"] = is_true(properties.get("DisableApiTermination", False))
    instance["UserData"] = properties.get("UserData", instance["UserData"])
    ec2._tags[instance_id] = tag_list(properties)
    return instance_id, _attributes(instance)


def delete_instance(instance_id: str, _properties: Properties) -> None:
    """Terminate the instance; one that is gone already is no error."""
    instance = ec2._instances.get(instance_id)
    if instance is None or instance["State"]["Name"] == "terminated":
        return
    if instance.get("DisableApiTermination"):
        raise ResourceFailedError(
            f"The instance '{instance_id}' may not be terminated. Modify its "
            "'disableApiTermination' instance attribute and try again. (OperationNotPermitted)"
        )
    call(ec2._terminate_instances, query_parameters({"InstanceId": [instance_id]}))
    for interface in ec2._network_interfaces.values():
        if (interface["Attachment"] or {}).get("InstanceId") == instance_id:
            interface |= {"Attachment": None, "Status": "available"}


def _details_xml(instance: dict[str, Any]) -> str:
    options = "".join(
        f"<{name[:1].lower() + name[1:]}>{escape(str(value))}</{name[:1].lower() + name[1:]}>"
        for name, value in instance.get("MetadataOptions", {}).items()
    )
    groups = "".join(
        f"<item><groupId>{g['GroupId']}</groupId><groupName>{escape(g['GroupName'])}</groupName>"
        "</item>"
        for g in instance["SecurityGroups"]
    )
    address = instance["PrivateIpAddress"]
    return (
        f"<metadataOptions><state>applied</state>{options}</metadataOptions>"
        f"<ebsOptimized>{str(bool(instance.get('EbsOptimized'))).lower()}</ebsOptimized>"
        "<networkInterfaceSet><item>"
        f"<networkInterfaceId>eni-{instance['InstanceId'][2:]}</networkInterfaceId>"
        f"<subnetId>{instance['SubnetId']}</subnetId><vpcId>{instance['VpcId']}</vpcId>"
        f"<privateIpAddress>{address}</privateIpAddress><status>in-use</status>"
        f"<privateDnsName>{private_dns_name(address, region())}</privateDnsName>"
        f"<attachment><deviceIndex>0</deviceIndex><status>attached</status></attachment>"
        f"<groupSet>{groups}</groupSet></item></networkInterfaceSet>"
    )


def _mend_descriptions() -> None:
    render, matches = ec2._instance_xml, ec2._matches_filters
    describe_attribute = ec2._describe_instance_attribute

    def instance_fields(instance: dict[str, Any]) -> str:
        before, _, after = str(render(instance)).rpartition("</item>")
        return f"{before}{_details_xml(instance)}</item>{after}"

    def matches_filters(instance: dict[str, Any], filters: dict[str, list[str]]) -> bool:
        held = {
            "availability-zone": [instance["Placement"]["AvailabilityZone"]],
            "instance-id": [instance["InstanceId"]],
            "instance.group-id": [g["GroupId"] for g in instance["SecurityGroups"]],
            "key-name": [instance.get("KeyName", "")],
            "private-ip-address": [instance["PrivateIpAddress"]],
            "subnet-id": [instance["SubnetId"]],
            "vpc-id": [instance["VpcId"]],
        }
        if any(n in filters and not set(held[n]) & set(filters[n]) for n in held):
            return False
        return bool(matches(instance, filters))

    def describe_instance_attribute(parameters: dict[str, Any]) -> Any:
        instance = ec2._instances.get(ec2._p(parameters, "InstanceId"))
        attribute = ec2._p(parameters, "Attribute")
        if instance is None or attribute not in ("userData", "disableApiTermination"):
            return describe_attribute(parameters)
        value = instance.get("UserData", "")
        if attribute == "disableApiTermination":
            value = str(bool(instance.get("DisableApiTermination"))).lower()
        inner = (
            f"<instanceId>{instance['InstanceId']}</instanceId>"
            f"<{attribute}><value>{escape(value)}</value></{attribute}>"
        )
        return ec2._xml(200, "DescribeInstanceAttributeResponse", inner)

    ec2._instance_xml = instance_fields
    ec2._matches_filters = matches_filters
    ec2._ACTION_MAP["DescribeInstanceAttribute"] = describe_instance_attribute


RESOURCE_TYPES: dict[str, ResourceType] = {
    "AWS::EC2::Instance": {
        "create": create_instance,
        "update": update_instance,
        "delete": delete_instance,
        "replacing": (
            "AvailabilityZone",
            "BlockDeviceMappings",
            "ImageId",
            "KeyName",
            "LaunchTemplate",
            "NetworkInterfaces",
            "PlacementGroupName",
            "PrivateIpAddress",
            "SubnetId",
        ),
        "tags": "Tags",
    },
}


def mend() -> None:
    """Launch instances as EC2 does, and describe all of them that is known."""
    launch.mend()
    _mend_descriptions()
