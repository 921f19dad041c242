"""Machine images and their snapshots: private ones of the account that no container stands behind."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ministack.services import ec2, tagging

from clusterbox.embedded.server.ministack_api import ResourceType, account_id

RESOURCE_TYPES: dict[str, ResourceType] = {}


def register_image(
    image_id: str,
    name: str,
    *,
    architecture: str,
    root_gib: int,
    owner: str | None = None,
    created: str | None = None,
    encrypted: bool = True,
    description: str | None = None,
) -> None:
    """Make an available image with one volume, and its snapshot.

    `created` is a time as EC2 writes it, by default the present one; `owner` the calling account.
    """
    owner, created = owner or account_id(), created or ec2._now_ts()
    snapshot_id = "snap-" + image_id.partition("-")[2]
    ec2._snapshots[snapshot_id] = {
        "SnapshotId": snapshot_id,
        "VolumeId": "vol-ffffffff",  # what EC2 writes where the volume is not known any more
        "VolumeSize": root_gib,
        "Description": f"Created by CreateImage for {image_id}",
        "State": "completed",
        "StartTime": created,
        "Progress": "100%",
        "OwnerId": owner,
        "Encrypted": encrypted,
        "StorageTier": "standard",
    }
    ec2._images[image_id] = {
        "ImageId": image_id,
        "Name": name,
        "ImageLocation": "",
        "Description": description or name,
        "Architecture": architecture,
        "RootDeviceType": "ebs",
        "RootDeviceName": "/dev/xvda",
        "BlockDeviceMappings": [
            {
                "DeviceName": "/dev/xvda",
                "Ebs": {
                    "SnapshotId": snapshot_id,
                    "VolumeSize": str(root_gib),
                    "VolumeType": "gp3",
                    "DeleteOnTermination": "true",
                    "Encrypted": str(encrypted).lower(),
                },
            }
        ],
        "VirtualizationType": "hvm",
        "CreationDate": created,
        "OwnerId": owner,
    }


def add_tags(resource_id: str, tags: dict[str, str]) -> None:
    """Give an image or another resource of EC2 further tags; a key that is there changes."""
    held = {tag["Key"]: tag["Value"] for tag in ec2._tags.get(resource_id) or []} | tags
    ec2._tags[resource_id] = [{"Key": key, "Value": value} for key, value in held.items()]


def _no_docker() -> bool:
    return False


def _no_container(_image_id: str) -> None:
    return None


def _with_creation_dates(describe: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def add_date(found: re.Match[str]) -> str:
        created = ec2._images.get(found[1], {}).get("CreationDate", "2026-01-01T00:00:00.000Z")
        return f"{found[0]}<creationDate>{created}</creationDate>"

    def describe_images(parameters: Any) -> Any:
        status, headers, body = describe(parameters)
        dated = re.sub(r"<imageId>([^<]+)</imageId>", add_date, body.decode())
        return status, headers, dated.encode()

    return describe_images


def _with_encryption(render: Callable[[Any], str]) -> Callable[[Any], str]:
    def block_devices(view: Any) -> str:
        devices = iter([mapping.get("Ebs") or {} for mapping in view["BlockDeviceMappings"]])

        def add_encrypted(found: re.Match[str]) -> str:
            ebs: dict[str, str] = next(devices, {})
            return f"{found[0]}<encrypted>{ebs.get('Encrypted', 'false')}</encrypted>"

        return re.sub(r"</volumeType>", add_encrypted, render(view))

    return block_devices


def _keeping_snapshots_in_use(delete: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def delete_snapshot(parameters: Any) -> Any:
        snapshot_id = ec2._p(parameters, "SnapshotId")
        for image in ec2._images.values():
            used = [m.get("Ebs", {}).get("SnapshotId") for m in image["BlockDeviceMappings"]]
            if snapshot_id in used:
                message = f"The snapshot {snapshot_id} is currently in use by {image['ImageId']}"
                return ec2._error("InvalidSnapshot.InUse", message, 400)
        return delete(parameters)

    return delete_snapshot


def _write_image_tags(spec: Any, arn: str, tags: dict[str, str]) -> None:
    """Tag an image for the Resource Groups Tagging API, as ParallelCluster's clean-up does."""
    kind, _, image_id = spec.resource.partition("/")
    if kind != "image" or image_id not in ec2._images:
        raise tagging._ResourceNotFound(arn)
    add_tags(image_id, tags)


def _accept_image_arns() -> None:
    """Let the tagging API take ARNs of images, which carry no account."""
    require = tagging._require_resource_scope

    def require_resource_scope(spec: Any, arn: str) -> None:
        if spec.service == "ec2" and spec.resource.startswith("image/"):
            if spec.region != tagging.get_region():
                raise tagging._WrongRegionArn(arn)
            return
        require(spec, arn)

    tagging._require_resource_scope = require_resource_scope
    tagging._WRITERS["ec2"] = _write_image_tags


def mend() -> None:
    """Keep ministack from starting containers for images, and tell of them what EC2 does."""
    actions = ec2._ACTION_MAP
    actions["DescribeImages"] = _with_creation_dates(actions["DescribeImages"])
    actions["DeleteSnapshot"] = _keeping_snapshots_in_use(actions["DeleteSnapshot"])
    ec2._image_bdm_xml = _with_encryption(ec2._image_bdm_xml)
    ec2._docker_touched = _no_docker
    ec2._registered_image = _no_container
    _accept_image_arns()
