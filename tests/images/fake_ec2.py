"""EC2 in memory, as far as images, instances and launch templates are read; in pages of two."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from botocore.exceptions import ClientError

Record = dict[str, Any]
PAGE = 2


def image(
    ami: str, name: str = "", created: str = "2026-10-01T00:00:00.000Z", **more: Any
) -> Record:
    """Return an image as DescribeImages does."""
    return {
        "ImageId": ami,
        "Name": name or f"name of {ami}",
        "CreationDate": created,
        "State": "available",
        "Architecture": "x86_64",
        "OwnerId": "self",
        **more,
    }


def instance(ident: str, ami: str, state: str = "running", **tags: str) -> Record:
    """Return an instance with tags; the keys are short names of ParallelCluster's."""
    return {
        "InstanceId": ident,
        "ImageId": ami,
        "State": {"Name": state},
        "InstanceType": "t3.medium",
        "Tags": _tags(tags),
    }


def template(ami: str, **tags: str) -> Record:
    """Return the newest version of a launch template whose instances get tags."""
    specification = {"ResourceType": "instance", "Tags": _tags(tags)}
    other = {"ResourceType": "volume", "Tags": _tags({"cluster": "of-the-volume"})}
    return {"LaunchTemplateData": {"ImageId": ami, "TagSpecifications": [other, specification]}}


_KEYS = {
    "cluster": "parallelcluster:cluster-name",
    "node": "parallelcluster:node-type",
    "queue": "parallelcluster:queue-name",
    "pool": "parallelcluster:login-nodes-pool-name",
}


def _tags(tags: dict[str, str]) -> list[Record]:
    return [{"Key": _KEYS.get(key, key), "Value": value} for key, value in tags.items()]


@dataclass
class FakeEc2:
    """The records, and the paginators that list them."""

    images: list[Record] = field(default_factory=list)
    instances: list[Record] = field(default_factory=list)
    templates: list[Record] = field(default_factory=list)

    def client(self, service: str) -> FakeEc2:
        """Return itself, as a target's client."""
        assert service == "ec2"
        return self

    def get_paginator(self, operation: str) -> _Paginator:
        return _Paginator(getattr(self, f"_{operation}"))

    def _describe_images(self, **words: Any) -> tuple[str, list[Record]]:
        ids = words.pop("ImageIds", None)
        found = self.images
        if ids is not None:
            found = [each for each in found if each["ImageId"] in ids]
            if len(found) < len(ids):
                code = "InvalidAMIID.NotFound"
                raise ClientError({"Error": {"Code": code, "Message": f"{ids}"}}, "DescribeImages")
        owners = words.pop("Owners", None)
        found = [each for each in found if owners is None or each["OwnerId"] in owners]
        keys = {
            "name": "Name",
            "architecture": "Architecture",
            "state": "State",
            "image-id": "ImageId",
        }
        for item in words.pop("Filters", ()):
            key = keys[item["Name"]]
            found = [
                each
                for each in found
                if any(fnmatchcase(each[key], wanted) for wanted in item["Values"])
            ]
        if not words.pop("IncludeDeprecated", False):
            found = [
                each for each in found if "DeprecationTime" not in each or each["OwnerId"] == "self"
            ]
        assert not words
        return "Images", found

    def _describe_instances(self, **words: Any) -> tuple[str, list[Record]]:
        found = self.instances
        for item in words["Filters"]:
            found = [each for each in found if _value(each, item["Name"]) in item["Values"]]
        return "Reservations", [{"Instances": [each]} for each in found]

    def _describe_launch_template_versions(self, **words: Any) -> tuple[str, list[Record]]:
        assert words["Versions"] == ["$Latest"]
        return "LaunchTemplateVersions", self.templates


def _value(record: Record, name: str) -> str | None:
    if name == "instance-state-name":
        return str(record["State"]["Name"])
    tags = {tag["Key"]: tag["Value"] for tag in record["Tags"]}
    return tags.get(name.removeprefix("tag:"))


@dataclass
class _Paginator:
    call: Any

    def paginate(self, **words: Any) -> Iterator[Record]:
        key, found = self.call(**words)
        for start in range(0, max(len(found), 1), PAGE):
            yield {key: found[start : start + PAGE]}
