"""Machine images: private ones of the account that no container stands behind."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ministack.services import ec2

from clusterbox.embedded.server.ministack_api import ResourceType

RESOURCE_TYPES: dict[str, ResourceType] = {}


def image_record(image_id: str, name: str, owner: str, architecture: str, root_gib: int) -> Any:
    """Return ministack's record of an EBS-backed, available image."""
    return {
        "ImageId": image_id,
        "Name": name,
        "ImageLocation": "",
        "Description": name,
        "Architecture": architecture,
        "RootDeviceType": "ebs",
        "RootDeviceName": "/dev/xvda",
        "BlockDeviceMappings": [
            {
                "DeviceName": "/dev/xvda",
                "Ebs": {
                    "SnapshotId": "snap-" + image_id.partition("-")[2],
                    "VolumeSize": str(root_gib),
                    "VolumeType": "gp3",
                    "DeleteOnTermination": "true",
                },
            }
        ],
        "VirtualizationType": "hvm",
        "CreationDate": ec2._now_ts(),
        "OwnerId": owner,
    }


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


def mend() -> None:
    """Keep ministack from starting containers for images, and say when an image was made."""
    actions = ec2._ACTION_MAP
    actions["DescribeImages"] = _with_creation_dates(actions["DescribeImages"])
    ec2._docker_touched = _no_docker
    ec2._registered_image = _no_container
