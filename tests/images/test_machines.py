"""The machine that verifies an image: started once, found again, always ended."""

from __future__ import annotations

from typing import Any

import pytest

from clusterbox.images.context import StepFailedError
from clusterbox.images.machines import find_place, running_machine
from clusterbox.site.image_definitions import load_image_definition
from clusterbox.site.names import TAG_VERIFIES
from tests.conftest import ROOT
from tests.images.patch_day_world import (
    RUN,
    VERIFY,
    Killed,
    World,
    make_context,
    refusal,
    user_data,
)

AMI = "ami-00000000000000001"
COMPUTE = load_image_definition(ROOT, "compute")


def make_world(**values: Any) -> World:
    world = World(**values)
    world.images.add(AMI)
    return world


def use(world: World) -> str:
    with running_machine(make_context(world), VERIFY, COMPUTE, AMI) as machine:
        assert world.alive == [machine.instance]
        return machine.instance


def fails(world: World) -> str:
    with pytest.raises(StepFailedError) as caught:
        use(world)
    return str(caught.value)


def test_a_machine_is_started_and_ended() -> None:
    world = make_world()
    assert use(world) == "i-00000001"
    assert world.alive == []


def test_the_machine_has_no_key_ends_itself_and_is_encrypted() -> None:
    world = make_world()
    request = world.machines[use(world)]["Request"]
    assert "KeyName" not in request
    assert request["MetadataOptions"]["HttpTokens"] == "required"
    assert request["BlockDeviceMappings"] == [
        {
            "DeviceName": "/dev/xvda",
            "Ebs": {"Encrypted": True, "DeleteOnTermination": True, "VolumeType": "gp3"},
        }
    ]
    assert request["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert "shutdown --poweroff +120" in user_data(request)
    assert request["IamInstanceProfile"] == {"Name": "ws-dev-image-verify"}
    assert (request["MinCount"], request["MaxCount"]) == (1, 1)
    assert request["InstanceType"] == "m6a.2xlarge"


def test_instance_and_volume_are_tagged_with_site_run_and_step() -> None:
    world = make_world()
    request = world.machines[use(world)]["Request"]
    for specification in request["TagSpecifications"]:
        tags = {tag["Key"]: tag["Value"] for tag in specification["Tags"]}
        assert tags["Environment"] == "ws-dev"
        assert tags["Project"] == "WaterSMART"
        assert tags[TAG_VERIFIES] == f"{RUN}/verify:compute"
    kinds = [each["ResourceType"] for each in request["TagSpecifications"]]
    assert kinds == ["instance", "volume"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, StepFailedError])
def test_the_machine_ends_however_its_use_ends(error: type[BaseException]) -> None:
    world = make_world()
    with (
        pytest.raises(error),
        running_machine(make_context(world), VERIFY, COMPUTE, AMI),
    ):
        raise error("x")
    assert world.alive == []


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_at_any_call_leaves_one_machine_at_most_and_the_next_call_none(moment: str) -> None:
    world = make_world()
    use(world)
    for index in range(len(world.calls)):
        world = make_world(kill=(index, moment))
        with pytest.raises(Killed):
            use(world)
        assert len(world.alive) <= 1, index
        world.restart()
        # A machine that was ended is not given again by its token.
        use(world)
        assert world.alive == [], index
        assert len(world.machines) <= 2, index


def test_a_machine_of_a_killed_call_is_taken_over() -> None:
    world = make_world()
    machine = running_machine(make_context(world), VERIFY, COMPUTE, AMI)
    world.kill = (3, "after")
    with pytest.raises(Killed):
        machine.__enter__()
    assert world.calls[-1] == "ec2:run_instances"
    world.restart()
    with running_machine(make_context(world), VERIFY, COMPUTE, AMI) as found:
        assert (found.instance, found.taken_over) == ("i-00000001", True)
    assert len(world.machines) == 1


def add_machine(world: World, name: str, purpose: str, ami: str = AMI) -> None:
    world.machines[name] = {
        "InstanceId": name,
        "ImageId": ami,
        "State": {"Name": "running"},
        "Tags": [{"Key": TAG_VERIFIES, "Value": purpose}],
    }


def test_machines_of_earlier_runs_and_second_ones_are_ended_and_those_of_other_steps_left() -> None:
    world = make_world()
    add_machine(world, "i-1", "2026-10-25/verify:compute")
    add_machine(world, "i-2", f"{RUN}/verify:compute", ami="ami-0")
    add_machine(world, "i-3", f"{RUN}/verify:compute")
    add_machine(world, "i-4", f"{RUN}/verify:compute")
    add_machine(world, "i-5", f"{RUN}/verify:admin")
    with running_machine(make_context(world), VERIFY, COMPUTE, AMI) as machine:
        assert machine.instance == "i-3"
        assert world.alive == ["i-3", "i-5"]
    assert world.alive == ["i-5"]
    assert ("ended", ["i-4", "i-1", "i-2"]) in [
        (event, facts.get("machines")) for event, facts in world.notes
    ]


def test_a_machine_that_systems_manager_never_reaches_is_explained_and_ended() -> None:
    world = make_world(online=False)
    said = fails(world)
    assert "Systems Manager did not reach it in 15 minutes" in said
    assert "The subnet needs a way to ssm" in said
    assert world.alive == []


def test_a_machine_that_ends_at_once_is_told_with_ec2s_reason() -> None:
    world = make_world(
        online=False,
        machine_state="terminated",
        machine_reason="Client.InternalError: Client error on launch",
    )
    said = fails(world)
    assert "i-00000001 ended before it was reached (terminated)" in said
    assert "its volume cannot be decrypted" in said


def test_an_image_that_is_gone_is_told() -> None:
    assert "is gone from the account; bake it again" in fails(World())


def test_a_missing_instance_profile_says_which_stack_brings_it() -> None:
    message = (
        "Value (ws-dev-image-verify) for parameter iamInstanceProfile.name is invalid. "
        "Invalid IAM Instance Profile name"
    )
    world = make_world(faults={"ec2:run_instances": [refusal("InvalidParameterValue", message)]})
    assert "comes with the stack ws-dev-images: deploy the environment first" in fails(world)


def test_no_capacity_is_explained() -> None:
    message = "We currently do not have sufficient m6a.2xlarge capacity in the Availability Zone"
    world = make_world(
        faults={"ec2:run_instances": [refusal("InsufficientInstanceCapacity", message)]}
    )
    assert "AWS has no instance of this type in the zone now." in fails(world)


def test_throttling_is_waited_for() -> None:
    throttled = refusal("RequestLimitExceeded")
    world = make_world(
        faults={
            "ec2:run_instances": [throttled, throttled],
            "ec2:describe_instances": [throttled],
            "ssm:describe_instance_information": [refusal("ThrottlingException")],
        }
    )
    use(world)
    assert (world.alive, len(world.machines)) == ([], 1)


def test_a_machine_that_cannot_be_ended_is_told_and_found_by_the_next_call() -> None:
    expired = refusal("RequestExpired", "Request has expired.")
    world = make_world(faults={"ec2:terminate_instances": [expired]})
    with running_machine(make_context(world), VERIFY, COMPUTE, AMI):
        pass
    assert world.alive == ["i-00000001"]
    assert any("could not end i-00000001" in line for line in world.shown)
    use(world)
    assert (world.alive, len(world.machines)) == ([], 1)


def test_credentials_that_expire_during_the_wait_are_told() -> None:
    world = make_world(
        online=False,
        faults={"ssm:describe_instance_information": [refusal("ExpiredToken")]},
    )
    assert "sign in and run the command again" in fails(world)


def test_machines_stand_in_the_group_of_images_and_in_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []

    def describe(_self: World, **words: Any) -> Any:
        asked.append(words["Filters"])
        return {"SecurityGroups": [{"GroupId": "sg-images"}]}

    monkeypatch.setattr(World, "ec2_describe_security_groups", describe)
    assert find_place(make_context(make_world()), COMPUTE).security_group_ids == ("sg-images",)
    assert asked == [
        [
            {"Name": "tag:Environment", "Values": ["ws-dev"]},
            {"Name": "tag:Name", "Values": ["ws-dev-images"]},
        ]
    ]


def test_a_site_that_was_not_deployed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world()
    monkeypatch.setattr(
        World, "ec2_describe_security_groups", lambda _self, **_words: {"SecurityGroups": []}
    )
    with pytest.raises(StepFailedError, match=r"there is none; deploy the environment first"):
        find_place(make_context(world), COMPUTE)
