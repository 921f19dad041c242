"""Builds of images as resources of a stack: held, cancelled, rolled back, and without a script."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clusterbox.embedded.account import EmbeddedAccount
from clusterbox.embedded.faults import BuildFault, CheckFault, HeldBuild, MissingImages
from tests.embedded.stack_driver import ACCOUNT, REGION, Stack

PARENT = "ami-0ba5e000000000001"
SETTLE_SECONDS = 30.0


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedAccount]:
    """An account in which a build takes a moment."""
    state_dir = tmp_path_factory.mktemp("builds")
    environment = {"CLUSTERBOX_IMAGE_BUILD_SECONDS": "0.2"}
    yield EmbeddedAccount.start(state_dir, account=ACCOUNT, region=REGION, extra_env=environment)
    EmbeddedAccount.stop(state_dir)


@pytest.fixture
def builder(account: EmbeddedAccount) -> Iterator[Any]:
    """Image Builder's client of the account, in which there is a parent."""
    account.seed(
        {
            "images": [
                {
                    "id": PARENT,
                    "name": "builds-parent-2026.11.01",
                    "os": "alinux2023",
                    "architecture": "x86_64",
                    "root_gib": 8,
                }
            ]
        }
    )
    yield account.client("imagebuilder")
    account.clear_faults()


def resources(name: str, script: str | None = None) -> dict[str, Any]:
    """Return an image with what it needs, as ParallelCluster's template has it in large."""
    commands = [f"set -v\necho {script}\n"] if script else ["true"]
    step = {"name": "ScriptUrl" if script else "Work", "inputs": {"commands": commands}}
    document = {"name": "Own", "phases": [{"name": "build", "steps": [step]}]}
    definitions: dict[str, dict[str, Any]] = {
        "Component": {"Version": "1.0.0", "Platform": "Linux", "Data": json.dumps(document)},
        "ImageRecipe": {
            "Version": "1.0.0",
            "ParentImage": PARENT,
            "Components": [{"ComponentArn": {"Ref": "Component"}}],
        },
        "InfrastructureConfiguration": {"InstanceProfileName": "any"},
        "DistributionConfiguration": {
            "Distributions": [
                {
                    "Region": "us-west-2",
                    "AmiDistributionConfiguration": {
                        "Name": f"{name} {{{{ imagebuilder:buildDate }}}}",
                        "AmiTags": {"made-by": name},
                        "LaunchPermissionConfiguration": {"UserIds": ["123456789012"]},
                    },
                }
            ]
        },
    }
    made: dict[str, Any] = {
        kind: {"Type": f"AWS::ImageBuilder::{kind}", "Properties": {"Name": name, **properties}}
        for kind, properties in definitions.items()
    }
    made["Image"] = {
        "Type": "AWS::ImageBuilder::Image",
        "Properties": {
            "Tags": {"clusterbox:image": name},
            **{f"{kind}Arn": {"Ref": kind} for kind in definitions if kind != "Component"},
        },
    }
    return made


def start(account: EmbeddedAccount, stack: Stack, made: dict[str, Any]) -> str:
    """Create the stack without waiting; return the ARN of the image that is built."""
    cloudformation = account.client("cloudformation")
    cloudformation.create_stack(
        StackName=stack.name, TemplateBody=json.dumps({"Resources": made}), DisableRollback=True
    )

    def arn() -> str | None:
        try:
            told = cloudformation.describe_stack_resource(
                StackName=stack.name, LogicalResourceId="Image"
            )
        except ClientError:
            return None
        return str(told["StackResourceDetail"]["PhysicalResourceId"])

    return str(wait_for(arn))


def wait_for(look: Callable[[], Any]) -> Any:
    """Return what `look` finds, once it finds something."""
    end = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.02)
    raise AssertionError("nothing was found")


def state(builder: Any, arn: str) -> dict[str, str]:
    return dict(builder.get_image(imageBuildVersionArn=arn)["image"]["state"])


def amis(account: EmbeddedAccount, name: str) -> list[dict[str, Any]]:
    filters = [{"Name": "name", "Values": [f"{name} *"]}]
    return list(account.client("ec2").describe_images(Filters=filters)["Images"])


def test_an_image_is_built_named_tagged_and_shared(
    account: EmbeddedAccount, stack: Stack, builder: Any
) -> None:
    assert stack.create(resources("whole")) == "CREATE_COMPLETE"
    arn = stack.ids()["Image"]
    image = builder.get_image(imageBuildVersionArn=arn)["image"]
    assert (image["state"]["status"], image["version"]) == ("AVAILABLE", "1.0.0/1")
    (ami,) = amis(account, "whole")
    assert [each["image"] for each in image["outputResources"]["amis"]] == [ami["ImageId"]]
    assert {"Key": "made-by", "Value": "whole"} in ami["Tags"]
    shared = account.client("ec2").describe_image_attribute(
        ImageId=ami["ImageId"], Attribute="launchPermission"
    )
    assert shared["LaunchPermissions"] == [{"UserId": "123456789012"}]
    assert stack.delete() == "DELETE_COMPLETE"
    assert amis(account, "whole") == [ami]


def test_a_build_that_is_held_goes_on_when_it_is_let_go(
    account: EmbeddedAccount, stack: Stack, builder: Any
) -> None:
    account.inject(HeldBuild(image="held", status="TESTING"))
    arn = start(account, stack, resources("held"))
    wait_for(lambda: state(builder, arn)["status"] == "TESTING")
    assert stack.describe()["StackStatus"] == "CREATE_IN_PROGRESS"
    with pytest.raises(ClientError, match="is being built"):
        builder.delete_image(imageBuildVersionArn=arn)
    account.clear_faults("hold")
    assert stack.settled() == "CREATE_COMPLETE"


def test_a_build_can_be_cancelled(account: EmbeddedAccount, stack: Stack, builder: Any) -> None:
    account.inject(HeldBuild(image="cancelled"))
    arn = start(account, stack, resources("cancelled"))
    builder.cancel_image_creation(imageBuildVersionArn=arn, clientToken="once")
    assert stack.settled() == "CREATE_FAILED"
    assert state(builder, arn)["status"] == "CANCELLED"
    assert amis(account, "cancelled") == []


def test_deleting_the_stack_stops_the_build(
    account: EmbeddedAccount, stack: Stack, builder: Any
) -> None:
    account.inject(HeldBuild(image="stopped"))
    arn = start(account, stack, resources("stopped"))
    stack_id = stack.describe()["StackId"]
    account.client("cloudformation").delete_stack(StackName=stack.name)
    wait_for(lambda: stack.describe(stack_id)["StackStatus"] == "DELETE_COMPLETE")
    with pytest.raises(ClientError, match="does not exist"):
        state(builder, arn)


def test_a_stack_that_rolls_back_leaves_no_definition(
    account: EmbeddedAccount, stack: Stack, builder: Any
) -> None:
    account.inject(BuildFault(image="rolled-back", stage="build"))
    assert stack.create(resources("rolled-back")) == "ROLLBACK_COMPLETE"
    listed = builder.list_image_recipes()["imageRecipeSummaryList"]
    assert "rolled-back" not in {recipe["name"] for recipe in listed}


def test_a_build_fails_without_its_script(
    account: EmbeddedAccount, stack: Stack, builder: Any
) -> None:
    script = "s3://no-such-bucket/images/10-step.sh"
    arn = start(account, stack, resources("scriptless", script))
    assert stack.settled() == "CREATE_FAILED"
    assert ":component/scriptless/1.0.0/1 failed!" in state(builder, arn)["reason"]
    events = account.client("logs").get_log_events(
        logGroupName="/aws/imagebuilder/scriptless", logStreamName="1.0.0/1"
    )["events"]
    assert any(f"Key {script} does not exist" in event["message"] for event in events)


def test_a_build_fails_without_its_parent(
    account: EmbeddedAccount, stack: Stack, builder: Any
) -> None:
    account.inject(MissingImages(name="builds-parent-*"))
    arn = start(account, stack, resources("orphan"))
    assert stack.settled() == "CREATE_FAILED"
    assert f"The image id '[{PARENT}]' does not exist" in state(builder, arn)["reason"]


def test_a_check_fault_is_used_up_by_the_image_that_it_breaks(
    account: EmbeddedAccount, stack: Stack, builder: Any
) -> None:
    account.inject(CheckFault(image="broken", checks=("kernel",)))
    assert stack.create(resources("broken")) == "CREATE_COMPLETE"
    assert account.waiting_faults() == []
