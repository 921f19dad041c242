"""Retire and notify against the embedded account, with the real `pcluster delete-image`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from clusterbox.deployment.progress import Progress
from clusterbox.embedded.account import EmbeddedAccount
from clusterbox.images.context import Context
from clusterbox.images.notify import notify
from clusterbox.images.plan import Options, Step
from clusterbox.images.retire import find_retirable, retire
from clusterbox.site.environment import Environment
from tests.conftest import ROOT
from tests.images import small_site
from tests.images.patch_day_record import plan

pytestmark = pytest.mark.integration
ACCOUNT, REGION = "123456789012", "us-west-2"
LOCK = """\
environments:
  dev:
    compute:
      ami: {locked}
      os: alinux2023
      root_gib: 45
      baked: "2099-10-01T00:00:00Z"
      origin: bake
    admin: {{ami: ami-00000002, os: alinux2023, root_gib: 30, origin: bake}}
"""


@dataclass
class Target:
    """The embedded account, as a target of a site."""

    account: EmbeddedAccount
    name: str = "embedded"

    def client(self, service: str) -> Any:
        return self.account.client(service)

    def process_environment(self) -> dict[str, str]:
        return dict(self.account.process_environment())


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("account")
    yield Target(EmbeddedAccount.start(folder, account=ACCOUNT, region=REGION))
    EmbeddedAccount.stop(folder)


def make_image(target: Target, name: str, **tags: str) -> str:
    """Register an image of the site with a snapshot, and return its id."""
    ec2 = target.client("ec2")
    zone = f"{REGION}a"
    volume = ec2.create_volume(AvailabilityZone=zone, Size=10)["VolumeId"]
    snapshot = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    ami: str = ec2.register_image(
        Name=name,
        RootDeviceName="/dev/xvda",
        BlockDeviceMappings=[
            {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot, "VolumeSize": 10}}
        ],
    )["ImageId"]
    every = {
        "clusterbox:image": "compute",
        "Environment": "dev",
        "clusterbox:verified": "passed",
        **{key.replace("__", ":"): value for key, value in tags.items()},
    }
    ec2.create_tags(
        Resources=[ami], Tags=[{"Key": key, "Value": value} for key, value in every.items()]
    )
    return ami


def context_of(root: Path, environment: Environment, target: Target) -> Context:
    return Context(
        root=root,
        environment=environment,
        target=cast("Any", target),
        progress=Progress(),
        plan=plan(options=Options(keep=0)),
    )


def test_what_nothing_uses_goes_from_the_account(tmp_path: Path, target: Target) -> None:
    ec2 = target.client("ec2")
    locked = make_image(target, "locked")
    of_pcluster = make_image(
        target,
        "dev-compute-2026-08-01",
        parallelcluster__image_id="dev-compute-2026-08-01",
        parallelcluster__build_status="available",
        parallelcluster__version="3.16.1",
        parallelcluster__s3_bucket="dev-artefacts",
        parallelcluster__s3_image_dir="parallelcluster/3.16.1/images/dev-compute-2026-08-01-x",
        parallelcluster__build_log="arn:aws:logs:us-west-2:123456789012:log-group:/aws/imagebuilder/x",
    )
    plain = make_image(target, "plain")
    running = make_image(target, "running")
    launched = make_image(target, "launched")
    strange = make_image(target, "strange", Environment="other")
    shared = make_image(target, "shared")
    ec2.run_instances(ImageId=running, InstanceType="t3.micro", MinCount=1, MaxCount=1)
    ec2.create_launch_template(LaunchTemplateName="nodes", LaunchTemplateData={"ImageId": launched})
    ec2.modify_image_attribute(
        ImageId=shared, LaunchPermission={"Add": [{"UserId": "210987654321"}]}
    )
    environment = small_site.write(tmp_path, lock=LOCK.format(locked=locked))
    (tmp_path / ".venv-pcluster").symlink_to(ROOT / ".venv-pcluster")
    kept = {
        image.ami: image.kept
        for image in find_retirable(tmp_path, cast("Any", target), environment, 0)
    }
    assert kept[locked] == "locked as compute of dev"
    assert str(kept[running]).endswith("is running")
    assert kept[launched] == "a launch template's newest or default version"
    assert str(kept[shared]).startswith("shared with 210987654321")
    assert strange not in kept
    assert (kept[plain], kept[of_pcluster]) == (None, None)
    result = retire(context_of(tmp_path, environment, target), Step(id="retire", action="retire"))
    assert sorted(result["retired"]) == sorted([plain, of_pcluster])
    left = {image["ImageId"] for image in ec2.describe_images(Owners=["self"])["Images"]}
    assert left >= {locked, running, launched, strange, shared}
    assert left.isdisjoint({plain, of_pcluster})
    marked = [{"Name": "tag-key", "Values": ["clusterbox:retired"]}]
    assert ec2.describe_snapshots(OwnerIds=["self"], Filters=marked)["Snapshots"] == []


def test_users_are_told_by_the_topic(tmp_path: Path, target: Target) -> None:
    environment = small_site.write(tmp_path)
    step = Step(id="notify:before", action="notify", subject={"when": "before"})
    context = context_of(tmp_path, environment, target)
    assert "skipped" in notify(context, step)
    sns, sqs = target.client("sns"), target.client("sqs")
    topic = sns.create_topic(Name="dev-patch-day")["TopicArn"]
    queue = sqs.create_queue(QueueName="mails")["QueueUrl"]
    names = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=names["QueueArn"])
    assert notify(context, step)["topic"] == topic
    notify(context, step)
    messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    assert len(messages) == 1
    assert "The images of dev are made anew: compute." in messages[0]["Body"]
