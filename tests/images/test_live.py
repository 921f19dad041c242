from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, cast

from clusterbox.images.live import LivePart, fetch_images, fetch_live
from tests.images.fake_ec2 import FakeEc2, image, instance, template
from tests.images.small_site import ADMIN, LOCKED, OLD, write

STANDING = FakeEc2(
    instances=[
        instance("i-1", OLD, cluster="dev-eco", node="HeadNode"),
        instance("i-2", OLD, cluster="dev-eco", node="Compute", queue="eco"),
        instance("i-3", LOCKED, cluster="dev-eco", node="Compute", queue="eco"),
        instance("i-4", OLD, "shutting-down", cluster="dev-eco", node="Compute", queue="eco"),
        instance("i-5", OLD, "terminated", cluster="dev-eco", node="LoginNode", pool="login"),
        instance("i-6", OLD, cluster="other", node="HeadNode"),
        instance("i-7", ADMIN, "stopped", Name="dev-box", Environment="dev"),
        instance("i-8", ADMIN, Name="dev-box", Environment="prod"),
    ],
    templates=[
        template(LOCKED, cluster="dev-eco", node="Compute", queue="eco"),
        template(LOCKED, cluster="dev-eco", node="Compute", queue="eco"),
        template(OLD, cluster="dev-eco", node="LoginNode", pool="login"),
        template(OLD, cluster="other", node="Compute", queue="eco"),
        template(OLD, Name="of nobody"),
        {"LaunchTemplateData": {}},
    ],
)


def live(root: Path, ec2: FakeEc2) -> list[LivePart]:
    return fetch_live(cast(Any, ec2), write(root))


def test_what_runs_and_what_new_nodes_get_is_told_by_part(tmp_path: Path) -> None:
    assert live(tmp_path, STANDING) == [
        LivePart("dev", "dev-eco", "head", "", (), {"i-1": OLD}),
        LivePart("dev", "dev-eco", "login", "login", (OLD,), {}),
        LivePart("dev", "dev-eco", "queue", "eco", (LOCKED,), {"i-2": OLD, "i-3": LOCKED}),
        LivePart("dev", "", "admin-box", "dev-box", (), {"i-7": ADMIN}),
    ]


def test_a_site_that_does_not_stand_has_no_parts(tmp_path: Path) -> None:
    assert live(tmp_path, FakeEc2()) == []


def test_every_ami_of_a_part_is_told_once() -> None:
    part = LivePart("dev", "dev-eco", "queue", "eco", (LOCKED,), {"i-1": OLD, "i-2": OLD})
    assert part.amis == (LOCKED, OLD)
    assert part.count() == Counter({OLD: 2})


def test_images_that_are_gone_are_left_out() -> None:
    ec2 = FakeEc2(images=[image(LOCKED), image(ADMIN), image("ami-0000000a")])
    assert sorted(fetch_images(ec2, [LOCKED, OLD, ADMIN, LOCKED, "ami-0000000a"])) == [
        LOCKED,
        ADMIN,
        "ami-0000000a",
    ]
    assert fetch_images(ec2, []) == {}


def test_an_image_that_its_owner_calls_deprecated_is_not_gone() -> None:
    old = image(LOCKED, OwnerId="123456789012", DeprecationTime="2026-11-01T00:00:00.000Z")
    assert list(fetch_images(FakeEc2(images=[old]), [LOCKED])) == [LOCKED]
