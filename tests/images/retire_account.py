"""An account in memory whose images can be deleted: what retire reads and does, and faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

Record = dict[str, Any]


def refusal(code: str, operation: str = "Operation") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": f"{code}, says AWS"}}, operation)


def tags(**values: str) -> list[Record]:
    return [{"Key": key.replace("__", ":"), "Value": value} for key, value in values.items()]


@dataclass
class RetireAccount:
    """Images with snapshots, and what uses them. `before` is called before each call that writes."""

    images: list[Record] = field(default_factory=list)
    snapshots: dict[str, dict[str, str]] = field(default_factory=dict)
    instances: list[Record] = field(default_factory=list)
    # Launch template → version → image; "$Default" and "$Latest" are versions too.
    templates: dict[str, dict[str, str]] = field(default_factory=dict)
    groups: list[Record] = field(default_factory=list)
    parameters: dict[str, str] = field(default_factory=dict)
    # AMI → accounts.
    shared: dict[str, list[str]] = field(default_factory=dict)
    # Operation → errors of its next calls.
    refuse: dict[str, list[ClientError]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    before: Callable[[str], None] = lambda _call: None
    deleted_by_pcluster: list[str] = field(default_factory=list)

    def add(
        self,
        ami: str,
        created: str,
        *,
        image: str = "compute",
        environment: str = "dev",
        verified: str = "passed",
        size: int = 45,
        image_id: str | None = None,
    ) -> None:
        """Add an image of the site with one snapshot, named after it."""
        snapshot = ami.replace("ami", "snap")
        own = {"clusterbox__image": image, "Environment": environment}
        own |= {"clusterbox__verified": verified} if verified else {}
        own |= {"parallelcluster__image_id": image_id} if image_id else {}
        self.snapshots[snapshot] = {}
        self.images.append(
            {
                "ImageId": ami,
                "Name": f"{image}-{created}",
                "CreationDate": f"{created}T00:00:00.000Z",
                "State": "available",
                "Tags": tags(**own),
                "BlockDeviceMappings": [
                    {"Ebs": {"SnapshotId": snapshot, "VolumeSize": size}},
                    {"VirtualName": "ephemeral0"},
                ],
            }
        )

    def client(self, service: str) -> _Client:
        return _Client(self, service)

    def process_environment(self) -> dict[str, str]:
        return {}

    def pcluster_delete(self, image_id: str) -> None:
        """What `pcluster delete-image` does."""
        self.deleted_by_pcluster.append(image_id)
        for image in list(self.images):
            if {"Key": "parallelcluster:image_id", "Value": image_id} in image["Tags"]:
                self.images.remove(image)
                for disk in image["BlockDeviceMappings"]:
                    self.snapshots.pop(disk.get("Ebs", {}).get("SnapshotId", ""), None)

    def amis(self) -> list[str]:
        return sorted(image["ImageId"] for image in self.images)


@dataclass
class _Client:
    account: RetireAccount
    service: str

    def get_paginator(self, operation: str) -> _Paginator:
        return _Paginator(getattr(self, operation))

    def __getattribute__(self, name: str) -> Any:
        found = object.__getattribute__(self, name)
        if name.startswith("_") or name in ("account", "service", "get_paginator"):
            return found
        account = self.account

        def call(**words: Any) -> Any:
            account.calls.append(name)
            if account.refuse.get(name):
                raise account.refuse[name].pop(0)
            if not name.startswith(("describe", "get")):
                account.before(name)
            return found(**words)

        return call

    def describe_images(self, **words: Any) -> Record:
        found = self.account.images
        if (ids := words.get("ImageIds")) is not None:
            found = [each for each in found if each["ImageId"] in ids]
            if not found:
                raise refusal("InvalidAMIID.NotFound")
            return {"Images": found}
        assert words["Owners"] == ["self"]
        for item in words["Filters"]:
            found = [each for each in found if _matches(each, item)]
        return {"Images": found}

    def describe_instances(self, **_words: Any) -> Record:
        return {"Reservations": [{"Instances": [each]} for each in self.account.instances]}

    def describe_launch_template_versions(self, **words: Any) -> Record:
        if "LaunchTemplateId" in words:
            versions = self.account.templates.get(words["LaunchTemplateId"], {})
            chosen = [versions[name] for name in words["Versions"] if name in versions]
        else:
            assert words["Versions"] == ["$Latest", "$Default"]
            chosen = [
                versions[name]
                for versions in self.account.templates.values()
                for name in words["Versions"]
                if name in versions
            ]
        return {
            "LaunchTemplateVersions": [{"LaunchTemplateData": {"ImageId": ami}} for ami in chosen]
        }

    def describe_auto_scaling_groups(self, **_words: Any) -> Record:
        return {"AutoScalingGroups": self.account.groups}

    def get_parameters_by_path(self, **words: Any) -> Record:
        assert words == {"Path": "/clusterbox/dev/images", "Recursive": True}
        return {
            "Parameters": [
                {"Name": name, "Value": value}
                for name, value in self.account.parameters.items()
                if name.startswith(words["Path"])
            ]
        }

    def get_parameter(self, **words: Any) -> Record:
        return {"Parameter": {"Value": self.account.parameters[words["Name"]]}}

    def describe_image_attribute(self, **words: Any) -> Record:
        users = self.account.shared.get(words["ImageId"], [])
        return {"LaunchPermissions": [{"UserId": user} for user in users]}

    def describe_snapshots(self, **words: Any) -> Record:
        assert words["OwnerIds"] == ["self"]
        return {
            "Snapshots": [
                {"SnapshotId": name, "Tags": own_tags, "StartTime": name}
                for name, own in self.account.snapshots.items()
                for own_tags in [tags(**own)]
                if all(_matches({"Tags": own_tags}, item) for item in words["Filters"])
            ]
        }

    def create_tags(self, **words: Any) -> Record:
        for name in words["Resources"]:
            for tag in words["Tags"]:
                self.account.snapshots[name][tag["Key"].replace(":", "__")] = tag["Value"]
        return {}

    def deregister_image(self, **words: Any) -> Record:
        image = next(each for each in self.account.images if each["ImageId"] == words["ImageId"])
        self.account.images.remove(image)
        return {}

    def delete_snapshot(self, **words: Any) -> Record:
        name = words["SnapshotId"]
        if name not in self.account.snapshots:
            raise refusal("InvalidSnapshot.NotFound")
        if any(name in str(image["BlockDeviceMappings"]) for image in self.account.images):
            raise refusal("InvalidSnapshot.InUse")
        del self.account.snapshots[name]
        return {}


def _matches(image: Record, item: Record) -> bool:
    own = {tag["Key"]: tag["Value"] for tag in image["Tags"]}
    if item["Name"] == "tag-key":
        return bool(set(item["Values"]) & set(own))
    return own.get(item["Name"].removeprefix("tag:")) in item["Values"]


@dataclass
class _Paginator:
    call: Any

    def paginate(self, **words: Any) -> Iterator[Record]:
        words.pop("PaginationConfig", None)
        words.pop("IncludeDisabled", None)
        yield self.call(**words)
