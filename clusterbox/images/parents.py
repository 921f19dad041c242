"""The image that a bake starts from: the one that the definition names, found in the account."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from clusterbox.errors import InputError
from clusterbox.site.image_definitions import ImageDefinition

# What EC2 calls the id of an image that is not there, or that is no id at all.
_NOT_THERE = frozenset({"InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"})


@dataclass(frozen=True)
class ParentFound:
    """A parent image as the account has it."""

    ami: str
    name: str
    created: datetime


def resolve_parent(client: Any, definition: ImageDefinition) -> ParentFound:
    """Return the parent of a definition: the image of its id, or the newest that its filter finds.

    `client` is boto3's of EC2, whose errors are let through. Raises InputError where no image can
    be started from, with the id, or with the owner and the filter that found none.
    """
    parent = definition.parent
    if parent.id is not None:
        return _resolve_id(client, definition, parent.id)
    filters = [
        {"Name": "name", "Values": [str(parent.name_filter)]},
        {"Name": "architecture", "Values": [definition.architecture]},
        {"Name": "state", "Values": ["available"]},
    ]
    found = list(_pages(client, Owners=[parent.owner], Filters=filters))
    if not found:
        raise InputError(
            f"the image {definition.name} has no parent: no available {definition.architecture} "
            f"image of {parent.owner} is called {parent.name_filter}; mend parent in "
            f"ami/images/{definition.name}.yaml, or have the owner share the image with this account"
        )
    # Two of the same second: the id decides, so that every call finds the same.
    newest = max(found, key=lambda image: (image["CreationDate"], image["ImageId"]))
    return _parent(newest)


def parse_created(image: Any) -> datetime:
    """Return when an image of DescribeImages was made."""
    found = datetime.fromisoformat(str(image["CreationDate"]))
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _resolve_id(client: Any, definition: ImageDefinition, ami: str) -> ParentFound:
    from botocore.exceptions import ClientError

    try:
        found = list(_pages(client, ImageIds=[ami]))
    except ClientError as error:
        if error.response["Error"]["Code"] not in _NOT_THERE:
            raise
        found = []
    state = found[0].get("State", "available") if found else "gone, or not shared with this account"
    if state != "available":
        raise InputError(
            f"the image {definition.name} has no parent: {ami} is {state}; "
            f"mend parent.id in ami/images/{definition.name}.yaml"
        )
    return _parent(found[0])


def _pages(client: Any, **words: Any) -> Iterator[dict[str, Any]]:
    for page in client.get_paginator("describe_images").paginate(**words):
        yield from page["Images"]


def _parent(image: dict[str, Any]) -> ParentFound:
    return ParentFound(image["ImageId"], str(image.get("Name", "")), parse_created(image))
