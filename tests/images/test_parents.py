from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clusterbox.errors import InputError
from clusterbox.images.parents import ParentFound, resolve_parent
from clusterbox.site.image_definitions import ImageDefinition, ParentImage, load_image_definition
from tests.images.fake_ec2 import FakeEc2, image

OWNER = "111122223333"


def definition(root: Path, **parent: Any) -> ImageDefinition:
    shipped = load_image_definition(root, "compute")
    return shipped.model_copy(update={"parent": ParentImage(**parent)})


def filtered(root: Path) -> ImageDefinition:
    return definition(root, owner=OWNER, name_filter="base-al2023-*")


def test_the_newest_image_of_the_owner_with_the_name_is_taken(root: Path) -> None:
    ec2 = FakeEc2(
        images=[
            image("ami-1", "base-al2023-1", "2026-09-01T00:00:00.000Z", OwnerId=OWNER),
            image("ami-2", "base-al2023-2", "2026-11-01T00:00:00.000Z", OwnerId=OWNER),
            image("ami-3", "base-al2023-3", "2026-10-01T00:00:00.000Z", OwnerId=OWNER),
            image("ami-4", "other-al2023", "2026-12-01T00:00:00.000Z", OwnerId=OWNER),
            image("ami-5", "base-al2023-5", "2026-12-01T00:00:00.000Z", OwnerId="999999999999"),
            image("ami-6", "base-al2023-6", "2026-12-01T00:00:00.000Z", OwnerId=OWNER)
            | {"State": "pending"},
            image("ami-7", "base-al2023-7", "2026-12-01T00:00:00.000Z", OwnerId=OWNER)
            | {"Architecture": "arm64"},
        ]
    )
    assert resolve_parent(ec2, filtered(root)) == ParentFound(
        "ami-2", "base-al2023-2", datetime(2026, 11, 1, tzinfo=UTC)
    )


def test_of_two_of_the_same_moment_always_the_same_is_taken(root: Path) -> None:
    images = [image(f"ami-{n}", "base-al2023-x", OwnerId=OWNER) for n in (1, 3, 2)]
    assert resolve_parent(FakeEc2(images=images), filtered(root)).ami == "ami-3"
    assert resolve_parent(FakeEc2(images=images[::-1]), filtered(root)).ami == "ami-3"


def test_a_filter_that_finds_nothing_is_named(root: Path) -> None:
    with pytest.raises(InputError) as caught:
        resolve_parent(FakeEc2(), filtered(root))
    assert str(caught.value).startswith(
        "the image compute has no parent: no available x86_64 image of 111122223333 is called "
        "base-al2023-*; mend parent in ami/images/compute.yaml"
    )


def test_an_id_is_taken_whatever_is_newer(root: Path) -> None:
    ec2 = FakeEc2(images=[image("ami-00000001"), image("ami-00000002")])
    assert resolve_parent(ec2, definition(root, id="ami-00000001")).ami == "ami-00000001"


def test_an_id_that_is_gone_is_named(root: Path) -> None:
    with pytest.raises(InputError, match=r"ami-00000001 is gone, or not shared .* mend parent\.id"):
        resolve_parent(FakeEc2(), definition(root, id="ami-00000001"))


def test_an_image_that_is_not_available_is_no_parent(root: Path) -> None:
    ec2 = FakeEc2(images=[image("ami-00000001") | {"State": "failed"}])
    with pytest.raises(InputError, match="ami-00000001 is failed"):
        resolve_parent(ec2, definition(root, id="ami-00000001"))


def test_a_refusal_is_not_taken_for_an_image_that_is_gone(root: Path) -> None:
    class Refusing(FakeEc2):
        def _describe_images(self, **_words: Any) -> Any:
            raise ClientError({"Error": {"Code": "UnauthorizedOperation", "Message": ""}}, "Any")

    with pytest.raises(ClientError, match="UnauthorizedOperation"):
        resolve_parent(Refusing(), definition(root, id="ami-00000001"))
