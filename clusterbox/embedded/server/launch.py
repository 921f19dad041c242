"""RunInstances: the launch template, the subnet's addresses, volumes and metadata options.

ministack reads neither the launch template nor the block devices of a request, and takes
addresses out of 10.0.0.0/16 whatever the subnet.
"""

from __future__ import annotations

import re
from typing import Any

from ministack.services import ec2, iam

from clusterbox.embedded.server.addresses import private_dns_name, take_address
from clusterbox.embedded.server.launch_templates import (
    listed,
    nested,
    template_data,
    with_template,
)
from clusterbox.embedded.server.ministack_api import (
    ResourceFailedError,
    is_true,
    new_id,
    query_parameters,
    region,
)
from clusterbox.embedded.server.run_command import launched
from clusterbox.embedded.server.security_groups import group
from clusterbox.embedded.server.volumes import attach_new_volume

_native_launch = ec2._launch_instances_internal

# What EC2 sets when neither the request nor the launch template says.
_METADATA_DEFAULTS = {
    "HttpTokens": "optional",
    "HttpPutResponseHopLimit": 1,
    "HttpEndpoint": "enabled",
    "HttpProtocolIpv6": "disabled",
    "InstanceMetadataTags": "disabled",
}


def _with_first_interface(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the request with the first interface's subnet, address and groups on top."""
    interfaces = listed(parameters, "NetworkInterface")
    if not interfaces:
        return parameters
    first = interfaces[0]
    completed = dict(parameters)
    if interface_id := first.get("NetworkInterfaceId"):
        made_before = _interface(interface_id)
        groups = [g["GroupId"] for g in made_before["Groups"]]
        completed["SubnetId"] = [made_before["SubnetId"]]
        completed |= query_parameters({"SecurityGroupId": groups})
        return completed
    for name in ("SubnetId", "PrivateIpAddress"):
        if first.get(name):
            completed[name] = [first[name]]
    for name, value in first.items():
        if name.startswith("SecurityGroupId."):
            completed[name] = [value]
    return completed


def _interface(interface_id: str) -> dict[str, Any]:
    record: dict[str, Any] | None = ec2._network_interfaces.get(interface_id)
    if record is None:
        raise ResourceFailedError(
            f"The networkInterface ID '{interface_id}' does not exist "
            "(InvalidNetworkInterfaceID.NotFound)"
        )
    if record["Attachment"]:
        raise ResourceFailedError(
            f"Interface: [{interface_id}] in use. (InvalidNetworkInterface.InUse)"
        )
    return record


def _attach_first_interface(instance: dict[str, Any], parameters: dict[str, Any]) -> None:
    """Give the instance the interface, and so the address, that was made before it."""
    interfaces = listed(parameters, "NetworkInterface")
    if not interfaces or "NetworkInterfaceId" not in interfaces[0]:
        return
    interface_id = interfaces[0]["NetworkInterfaceId"]
    record = ec2._network_interfaces[interface_id]
    asked = {
        "NetworkInterfaceId": interface_id,
        "InstanceId": instance["InstanceId"],
        "DeviceIndex": 0,
    }
    ec2._attach_network_interface(query_parameters(asked))
    instance["PrivateIpAddress"] = record["PrivateIpAddress"]
    instance["PrivateDnsName"] = private_dns_name(record["PrivateIpAddress"], region())


def _check(parameters: dict[str, Any]) -> None:
    """Raise as EC2 does for a subnet, group, key pair or profile that does not exist."""
    subnet_id = ec2._p(parameters, "SubnetId") or ec2._DEFAULT_SUBNET_ID
    take_address(subnet_id, ec2._p(parameters, "PrivateIpAddress") or None)
    vpc_id = ec2._subnets[subnet_id]["VpcId"]
    for group_id in ec2._parse_member_list(parameters, "SecurityGroupId"):
        if group(group_id)["VpcId"] != vpc_id:
            raise ResourceFailedError(
                f"Security group {group_id} and subnet {subnet_id} belong to different networks. "
                "(InvalidParameter)"
            )
    key = ec2._p(parameters, "KeyName")
    if key and key not in ec2._key_pairs:
        raise ResourceFailedError(f"The key pair '{key}' does not exist (InvalidKeyPair.NotFound)")
    name = ec2._p(parameters, "IamInstanceProfile.Name")
    arn = ec2._p(parameters, "IamInstanceProfile.Arn")
    if (name or arn) and iam._lookup_instance_profile(name=name, arn=arn) is None:
        raise ResourceFailedError(
            f"Invalid IAM Instance Profile {name or arn} (InvalidParameterValue)"
        )


def _block_devices(parameters: dict[str, Any], image_id: str) -> dict[str, dict[str, Any]]:
    """Return the EBS settings of each device: the image's, overridden by the request's."""
    image = ec2._images.get(image_id)
    mappings: list[dict[str, Any]] = [{"DeviceName": "/dev/xvda"}]
    if image:
        mappings = image["BlockDeviceMappings"]
    devices = {m["DeviceName"]: dict(m.get("Ebs") or {}) for m in mappings}
    for entry in listed(parameters, "BlockDeviceMapping"):
        ebs = {n.partition(".")[2]: v for n, v in entry.items() if n.startswith("Ebs.")}
        if "NoDevice" in entry:
            devices.pop(entry["DeviceName"], None)
        elif "VirtualName" not in entry:
            devices.setdefault(entry["DeviceName"], {}).update(ebs)
    return devices


def _complete(instance: dict[str, Any], parameters: dict[str, Any]) -> None:
    """Set what ministack's launch leaves out."""
    image = ec2._images.get(instance["ImageId"])
    if image:
        instance["Architecture"] = image["Architecture"]
        instance["RootDeviceName"] = image["RootDeviceName"]
    for mapping in instance["BlockDeviceMappings"]:
        ec2._volumes.pop(mapping["Ebs"]["VolumeId"], None)
    instance["BlockDeviceMappings"] = []
    for device, ebs in _block_devices(parameters, instance["ImageId"]).items():
        attach_new_volume(instance, device, ebs)
    options = {**_METADATA_DEFAULTS, **nested(parameters, "MetadataOptions")}
    instance["MetadataOptions"] = options
    for name in ("EbsOptimized", "DisableApiTermination"):
        instance[name] = is_true(ec2._p(parameters, name))
    monitored = is_true(ec2._p(parameters, "Monitoring.Enabled"))
    instance["Monitoring"] = {"State": "enabled" if monitored else "disabled"}
    if behaviour := ec2._p(parameters, "InstanceInitiatedShutdownBehavior"):
        instance["InstanceInitiatedShutdownBehavior"] = behaviour
    if ec2._p(parameters, "InstanceMarketOptions.MarketType") == "spot":
        instance["InstanceLifecycle"] = "spot"
    if tenancy := ec2._p(parameters, "Placement.Tenancy"):
        instance["Placement"]["Tenancy"] = tenancy


def run_instances(parameters: dict[str, Any]) -> Any:
    """Answer RunInstances."""
    try:
        completed = with_template(parameters, template_data(parameters))
        completed = _with_first_interface(completed)
        _check(completed)
    except ResourceFailedError as error:
        # The code stands in brackets at the end of the message.
        message, code = re.sub(r" \(([\w.]+)\)$", "", str(error)), "InvalidParameterValue"
        if found := re.search(r"\(([\w.]+)\)$", str(error)):
            code = found.group(1)
        return ec2._error(code, message, 400)
    status, headers, body = _native_run(completed)
    if status >= 400:
        return status, headers, body
    made = [ec2._instances[i] for i in re.findall(r"<instanceId>([^<]+)<", body.decode())]
    for instance in made:
        _complete(instance, completed)
        _attach_first_interface(instance, completed)
    items = "".join(ec2._instance_xml(instance) for instance in made)
    inner = f"<instancesSet>{items}</instancesSet><reservationId>{new_id('r')}</reservationId>"
    return ec2._xml(200, "RunInstancesResponse", inner)


_native_run = ec2._run_instances


def launch_in_subnet(*arguments: Any, **options: Any) -> Any:
    """Launch as ministack does, but at an address and in the zone of the instance's subnet."""
    made = _native_launch(*arguments, **options)
    for instance in made:
        launched(instance)
        subnet = ec2._subnets.get(instance["SubnetId"])
        if subnet is None:
            continue
        if not options.get("requested_private_ip"):
            instance["PrivateIpAddress"] = ""  # So that its own first address is not taken.
            instance["PrivateIpAddress"] = take_address(instance["SubnetId"])
        address = instance["PrivateIpAddress"]
        instance["PrivateDnsName"] = private_dns_name(address, region())
        instance["VpcId"] = subnet["VpcId"]
        instance["Placement"]["AvailabilityZone"] = subnet["AvailabilityZone"]
        if not subnet["MapPublicIpOnLaunch"]:
            instance["PublicIpAddress"] = instance["PublicDnsName"] = ""
        instance.setdefault("MetadataOptions", dict(_METADATA_DEFAULTS))
        for mapping in instance["BlockDeviceMappings"]:
            volume = ec2._volumes[mapping["Ebs"]["VolumeId"]]
            volume["AvailabilityZone"] = subnet["AvailabilityZone"]
    return made


def mend() -> None:
    """Put this launch in the place of ministack's, for fleets and scaling groups too."""
    ec2._launch_instances_internal = launch_in_subnet
    ec2._ACTION_MAP["RunInstances"] = run_instances
