"""EBS volumes and placement groups."""

from __future__ import annotations

from typing import Any

from ministack.services import ec2

from clusterbox.embedded.server.ministack_api import (
    Properties,
    Resource,
    ResourceFailedError,
    ResourceType,
    call,
    is_true,
    new_id,
    physical_name,
    query_parameters,
    tag_list,
)

_BASELINE_GP3_IOPS = 3000
_BASELINE_GP3_MIB_PER_SECOND = 125


def volume_record(
    volume_id: str, zone: str, ebs: dict[str, Any], instance_id: str, device: str
) -> dict[str, Any]:
    """Return ministack's record of a volume attached to an instance from its launch on."""
    kind = ebs.get("VolumeType", "gp3")
    now = ec2._now_ts()
    return {
        "VolumeId": volume_id,
        "Size": int(ebs.get("VolumeSize", 8)),
        "AvailabilityZone": zone,
        "State": "in-use",
        "VolumeType": kind,
        "SnapshotId": ebs.get("SnapshotId", ""),
        "Iops": int(ebs.get("Iops", _BASELINE_GP3_IOPS)),
        "Encrypted": is_true(ebs.get("Encrypted", False)),
        "KmsKeyId": ebs.get("KmsKeyId", ""),
        "CreateTime": now,
        "Attachments": [
            {
                "VolumeId": volume_id,
                "InstanceId": instance_id,
                "Device": device,
                "State": "attached",
                "AttachTime": now,
                "DeleteOnTermination": is_true(ebs.get("DeleteOnTermination", True)),
            }
        ],
        "MultiAttachEnabled": False,
        "Throughput": int(ebs.get("Throughput", _BASELINE_GP3_MIB_PER_SECOND)),
    }


def create_volume(_logical_id: str, properties: Properties, _stack: str) -> Resource:
    """Create an unattached volume; Ref is its id."""
    names = ("AvailabilityZone", "Encrypted", "Iops", "Size", "SnapshotId", "VolumeType")
    asked = {name: properties.get(name) for name in names}
    volume_id = call(ec2._create_volume, query_parameters(asked)).value("volumeId")
    _set_volume(volume_id, properties)
    return volume_id, {"VolumeId": volume_id}


def _set_volume(volume_id: str, properties: Properties) -> None:
    volume = ec2._volumes.get(volume_id)
    if volume is None:
        raise ResourceFailedError(
            f"The volume '{volume_id}' does not exist. (InvalidVolume.NotFound)"
        )
    wanted = int(properties.get("Size", volume["Size"]))
    if wanted < volume["Size"]:
        raise ResourceFailedError(
            f"New size cannot be smaller than existing size: {wanted} < {volume['Size']} GiB "
            "(InvalidParameterValue)"
        )
    volume["Size"] = wanted
    volume["KmsKeyId"] = properties.get("KmsKeyId", "")
    for name in ("Iops", "Throughput"):
        if name in properties:
            volume[name] = int(properties[name])
    volume["VolumeType"] = properties.get("VolumeType", volume["VolumeType"])
    ec2._tags[volume_id] = tag_list(properties)


def update_volume(volume_id: str, _old: Properties, new: Properties, _stack: str) -> Resource:
    """Grow the volume, or change its type, throughput or tags, in place."""
    _set_volume(volume_id, new)
    return volume_id, {"VolumeId": volume_id}


def delete_volume(volume_id: str, _properties: Properties) -> None:
    """Delete the volume, which EC2 refuses while it is attached."""
    if volume_id in ec2._volumes:
        call(ec2._delete_volume, query_parameters({"VolumeId": volume_id}))
        ec2._tags.pop(volume_id, None)


def create_placement_group(logical_id: str, properties: Properties, stack: str) -> Resource:
    """Create a placement group; Ref is its name."""
    name = properties.get("GroupName") or physical_name(stack, logical_id, 255)
    asked = {
        "GroupName": name,
        "Strategy": properties.get("Strategy"),
        "PartitionCount": properties.get("PartitionCount"),
    }
    call(ec2._create_placement_group, query_parameters(asked))
    group_id = ec2._placement_groups[name]["GroupId"]
    ec2._tags[group_id] = tag_list(properties)
    return name, {"GroupName": name, "GroupId": group_id}


def update_placement_group(name: str, _old: Properties, new: Properties, _stack: str) -> Resource:
    """Change the tags; everything else replaces the group."""
    group_id = ec2._placement_groups[name]["GroupId"]
    ec2._tags[group_id] = tag_list(new)
    return name, {"GroupName": name, "GroupId": group_id}


def delete_placement_group(name: str, _properties: Properties) -> None:
    """Delete the group; one that is gone already is no error."""
    if name in ec2._placement_groups:
        call(ec2._delete_placement_group, query_parameters({"GroupName": name}))


def attach_new_volume(instance: dict[str, Any], device: str, ebs: dict[str, Any]) -> None:
    """Make a volume for one block device of an instance and attach it."""
    volume_id = new_id("vol")
    zone = instance["Placement"]["AvailabilityZone"]
    record = volume_record(volume_id, zone, ebs, instance["InstanceId"], device)
    ec2._volumes[volume_id] = record
    instance["BlockDeviceMappings"].append(
        {
            "DeviceName": device,
            "Ebs": {
                "VolumeId": volume_id,
                "Status": "attached",
                "AttachTime": record["CreateTime"],
                "DeleteOnTermination": record["Attachments"][0]["DeleteOnTermination"],
            },
        }
    )


RESOURCE_TYPES: dict[str, ResourceType] = {
    "AWS::EC2::Volume": {
        "create": create_volume,
        "update": update_volume,
        "delete": delete_volume,
        "replacing": ("AvailabilityZone", "Encrypted", "KmsKeyId", "SnapshotId"),
        "tags": "Tags",
    },
    "AWS::EC2::PlacementGroup": {
        "create": create_placement_group,
        "update": update_placement_group,
        "delete": delete_placement_group,
        "replacing": ("GroupName", "PartitionCount", "SpreadLevel", "Strategy"),
        "tags": "Tags",
    },
}


def mend() -> None:
    """Keep the throughput and key that a volume is made with, and answer them.

    ministack forgets both when a volume is made by a call, and keeps those of a stack to itself.
    """
    render = ec2._volume_inner_xml
    create = ec2._ACTION_MAP["CreateVolume"]

    def volume_fields(volume: dict[str, Any]) -> str:
        key = volume.get("KmsKeyId")
        more = f"<kmsKeyId>{key}</kmsKeyId>" if key else ""
        if volume.get("Throughput"):
            more += f"<throughput>{volume['Throughput']}</throughput>"
        return str(render(volume)) + more

    def create_with_throughput(parameters: dict[str, Any]) -> Any:
        before = set(ec2._volumes)
        answer = create(parameters)
        for made in set(ec2._volumes) - before:
            volume = ec2._volumes[made]
            throughput = ec2._p(parameters, "Throughput")
            if throughput:
                volume["Throughput"] = int(throughput)
            volume["KmsKeyId"] = ec2._p(parameters, "KmsKeyId") or ""
        return answer

    ec2._volume_inner_xml = volume_fields
    ec2._ACTION_MAP["CreateVolume"] = create_with_throughput
