"""Say how old the locked images are: the Lambda function behind the alarms on their age."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import boto3

SECONDS_A_DAY = 86_400


class MissingImagesError(Exception):
    """An image of the lock is not in the account, so nobody can say how old it is."""


def handle(_event: object, _context: object) -> dict[str, float]:
    """Publish the age in days of each image and return it.

    Raises MissingImagesError, after what is known is published, and boto3's errors: both make
    Lambda try again. An image without a sample raises the alarm as an old one does.
    """
    ages, missing = measure(
        json.loads(os.environ["CLUSTERBOX_IMAGES"]), boto3.client("ec2"), datetime.now(UTC)
    )
    publish(
        ages,
        os.environ["CLUSTERBOX_ENVIRONMENT"],
        os.environ["CLUSTERBOX_METRICS"],
        boto3.client("cloudwatch"),
    )
    if missing:
        raise MissingImagesError(
            f"not in the account, or not to be seen by it: {', '.join(missing)}; the lock names "
            "images that cannot be used"
        )
    return ages


def measure(
    images: Mapping[str, str], ec2: Any, now: datetime
) -> tuple[dict[str, float], list[str]]:
    """Return the age in days by image, and as text those that the account does not have.

    `images` has the id of each locked image by its name.
    """
    # Through a filter, because a list of ids is refused as a whole where one of them is gone.
    found = ec2.describe_images(
        Filters=[{"Name": "image-id", "Values": sorted(set(images.values()))}],
        IncludeDeprecated=True,
    )["Images"]
    created = {image["ImageId"]: image["CreationDate"] for image in found}
    ages = {
        name: (now - datetime.fromisoformat(created[ami])).total_seconds() / SECONDS_A_DAY
        for name, ami in images.items()
        if ami in created
    }
    return ages, [f"{name} ({ami})" for name, ami in images.items() if ami not in created]


def publish(ages: Mapping[str, float], environment: str, namespace: str, cloudwatch: Any) -> None:
    """Publish each age as a sample of the metric `AgeDays`."""
    if not ages:
        return
    cloudwatch.put_metric_data(
        Namespace=namespace,
        MetricData=[
            {
                "MetricName": "AgeDays",
                "Dimensions": [
                    {"Name": "Environment", "Value": environment},
                    {"Name": "Image", "Value": name},
                ],
                "Value": days,
            }
            for name, days in ages.items()
        ],
    )
