"""Baking on an account in memory: every stage that fails, every refusal, every kill."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from clusterbox.errors import InputError
from clusterbox.images.bake import bake, estimate_bake, upload_bundle
from clusterbox.images.components import build_configuration, render_bundle
from clusterbox.images.context import Context, StepFailedError
from clusterbox.pcluster import PclusterError
from clusterbox.site.image_definitions import load_image_definition
from tests.conftest import ROOT
from tests.images.patch_day_world import (
    BAKE,
    MINUTE,
    PARENT,
    WS_DEV,
    Door,
    FakeBuild,
    Killed,
    World,
    make_builds,
    make_context,
    plan_image,
    refusal,
)

NAME = "ws-dev-compute-2026-11-22"
COMPUTE = load_image_definition(ROOT, "compute")
BUNDLE = render_bundle(ROOT, COMPUTE, WS_DEV)


def run(world: World, context: Context | None = None, **options: Any) -> dict[str, Any]:
    return bake(context or make_context(world), BAKE, builds=make_builds(world), **options)


def fails(world: World, context: Context | None = None, **options: Any) -> str:
    with pytest.raises(StepFailedError) as caught:
        run(world, context, **options)
    return str(caught.value)


def test_a_bake_returns_image_parent_and_seconds() -> None:
    world = World()
    result = run(world)
    assert result == {
        "ami": "ami-00000000000000001",
        "name": NAME,
        "parent": PARENT,
        "seconds": pytest.approx(1800, abs=30),
        "leftovers": [],
    }


def test_the_build_has_the_roles_of_the_site_and_their_boundary() -> None:
    world = World()
    run(world)
    (configuration,) = world.configurations
    assert configuration["Build"]["Iam"] == {
        "InstanceRole": "arn:aws:iam::427491229895:role/ws/ws-dev-image-build",
        "CleanupLambdaRole": "arn:aws:iam::427491229895:role/ws/ws-dev-image-cleanup",
        "PermissionsBoundary": (
            "arn:aws:iam::427491229895:policy/csr-Developer-Permissions-Boundary"
        ),
    }
    assert configuration["Build"]["SubnetId"] == "subnet-08f1118dd59133513"
    assert configuration["Build"]["SecurityGroupIds"] == ["sg-00000001"]


@pytest.mark.parametrize("key", ["CleanupLambdaRole", "PermissionsBoundary", "InstanceRole"])
def test_without_role_or_boundary_nothing_is_asked_of_parallelcluster(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(*words: Any, **more: Any) -> dict[str, Any]:
        configuration = build_configuration(*words, **more)
        del configuration["Build"]["Iam"][key]
        return configuration

    monkeypatch.setattr("clusterbox.images.bake.build_configuration", forgetful)
    world = World()
    with pytest.raises(InputError, match=f"Build.Iam lacks {key}"):
        run(world)
    assert (world.begun, world.builds) == ([], {})


def test_stages_are_told_and_recorded_each_once() -> None:
    world = World()
    run(world)
    stages = [facts["stage"] for event, facts in world.notes if event == "stage"]
    assert stages == ["BUILDING", "TESTING", "DISTRIBUTING", "INTEGRATING"]
    assert any(line.startswith("compute: testing, ") for line in world.shown)


def test_scripts_are_sent_once() -> None:
    world = World()
    bundle = render_bundle(ROOT, COMPUTE, WS_DEV)
    s3 = world.client("s3")
    assert upload_bundle(s3, "bucket", bundle) == len(bundle.keys)
    assert upload_bundle(s3, "bucket", bundle) == 0
    assert {key: each["Body"] for key, each in world.objects.items()} == dict(bundle.objects)


def test_a_script_with_other_content_is_sent_again() -> None:
    world = World()
    bundle = render_bundle(ROOT, COMPUTE, WS_DEV)
    s3 = world.client("s3")
    upload_bundle(s3, "bucket", bundle)
    world.objects[bundle.keys[2]]["Metadata"] = {"sha256": "0" * 64}
    assert upload_bundle(s3, "bucket", bundle) == 1


def test_a_build_under_way_is_followed_and_not_built_again() -> None:
    world = World()
    Door(world).build_image(NAME, make_configuration(world), "us-west-2")
    world.sleep(10 * MINUTE)
    result = run(world)
    assert (world.begun, result["ami"]) == ([NAME], "ami-00000000000000001")
    # From the making of the stack, not from when this call came.
    assert result["seconds"] == pytest.approx(1800, abs=30)


def make_configuration(world: World) -> dict[str, Any]:
    iam = {"InstanceRole": "a", "CleanupLambdaRole": "b", "PermissionsBoundary": "c"}
    tags = [{"Key": "clusterbox:bundle", "Value": plan_image().bundle}]
    return {"Build": {"Iam": iam, "Tags": tags}}


def test_a_finished_image_is_taken_and_its_seconds_are_unknown() -> None:
    world = World()
    first = run(world)
    again = run(world)
    assert world.begun == [NAME]
    assert again == {**first, "seconds": None}


@pytest.mark.parametrize(
    ("tag", "what"),
    [
        pytest.param("clusterbox:bundle", "of another files", id="files"),
        pytest.param("parallelcluster:parent_image", "of another parent", id="parent"),
    ],
)
def test_a_name_that_another_bake_has_is_refused(tag: str, what: str) -> None:
    world = World()
    world.builds[NAME] = FakeBuild(world.now, 1800, "available", "", {tag: "other"}, "ami-1")
    assert what in fails(world)
    assert world.begun == []


def test_changed_files_are_refused_before_anything_is_sent() -> None:
    world = World()
    context = make_context(world, replace(plan_image(), bundle="0" * 64))
    assert "have changed since the plan was made" in fails(world, context)
    assert (world.objects, world.begun) == ({}, [])


def test_a_parent_that_disappeared_is_refused() -> None:
    world = World(images=set())
    said = fails(world)
    assert said.startswith(f"the parent {PARENT} of compute is gone from the account")
    assert "plan again" in said
    assert world.begun == []


def test_a_parent_that_disappears_during_the_build_does_not_matter() -> None:
    world = World()
    Door(world).build_image(NAME, make_configuration(world), "us-west-2")
    world.images.clear()
    assert run(world)["ami"] == "ami-00000000000000001"


@pytest.mark.parametrize(
    ("reason", "log", "known"),
    [
        pytest.param(
            "Document arn:aws:imagebuilder:us-west-2:1:component/x/3.16.1/1 failed!",
            "No candidate version available for lustre-client-modules-5.13.0-1017-aws",
            "The Lustre client does not support the kernel",
            id="build, Lustre and kernel",
        ),
        pytest.param(
            "Document arn:aws:imagebuilder:us-west-2:1:component/x/3.16.1/1 failed!",
            "Error: Unable to find a match: kernel6.12-devel-6.12.58-82.121.amzn2023.x86_64",
            "There is no kernel-devel package",
            id="build, kernel-devel",
        ),
        pytest.param(
            "SSM execution 'a' failed with status = 'TimedOut' in state = 'BUILDING' and failure "
            "message = 'SSM Agent verification failed'",
            "",
            "Systems Manager does not reach the machine",
            id="build, no way to Systems Manager",
        ),
        pytest.param(
            "We currently do not have sufficient m6a.2xlarge capacity in the Availability Zone",
            "",
            "AWS has no instance of this type",
            id="build, no capacity",
        ),
        pytest.param(
            "Workflow Execution ID: 'wf-1' failed with reason: test phase",
            "Stdout: write error: No space left on device",
            "The root volume is full",
            id="test",
        ),
        pytest.param(
            "User: x is not authorized to perform: ec2:ModifyImageAttribute on resource: y because "
            "no permissions boundary allows the ec2:ModifyImageAttribute action",
            "",
            "because of the permissions boundary",
            id="distribute",
        ),
    ],
)
def test_a_build_that_fails_is_told_with_reason_log_and_what_to_do(
    reason: str, log: str, known: str
) -> None:
    world = World(outcome="failed", reason=reason, log=[f"line {n}" for n in range(40)] + [log])
    said = fails(world)
    assert said.startswith(f"compute was not baked: {NAME}: BUILD_FAILED, Image Builder: FAILED")
    assert reason in said
    assert known in said
    assert "the last 30 lines of its log:" in said
    assert "  line 11\n" in said
    assert "  line 10\n" not in said
    assert f"pcluster delete-image --image-id {NAME} --region us-west-2 --force true" in said
    assert said.endswith("bake it again with --retry-failed")


def test_a_log_that_cannot_be_read_hides_nothing_else() -> None:
    world = World(outcome="failed", reason="the reason")
    world.faults["get-image-log-events"] = [PclusterError("no log group")]
    said = fails(world)
    assert "the reason" in said
    assert "(the log could not be read: no log group)" in said


def test_a_build_that_failed_is_not_built_again_unasked() -> None:
    world = World(outcome="failed", reason="x")
    fails(world)
    world.outcome = "available"
    fails(world)
    assert world.begun == [NAME]


def test_a_build_that_failed_is_deleted_and_built_again_on_request() -> None:
    world = World(outcome="failed", reason="x")
    fails(world)
    world.outcome, world.reason = "available", ""
    assert run(world, retry_failed=True)["ami"] == "ami-00000000000000002"
    assert (world.begun, world.calls.count("delete-image")) == ([NAME, NAME], 1)


def test_on_request_a_good_image_is_still_taken() -> None:
    world = World()
    run(world)
    run(world, retry_failed=True)
    assert (world.begun, world.calls.count("delete-image")) == ([NAME], 0)


def test_an_image_that_is_never_marked_is_a_failure_that_says_so() -> None:
    world = World(outcome="unmarked")
    said = fails(world)
    assert "the clean-up function did not mark it as available" in said


def test_a_stack_that_could_not_be_deleted_is_left_over_and_the_image_good() -> None:
    world = World(clean_up="DELETE_FAILED")
    result = run(world)
    assert result["ami"] == "ami-00000000000000001"
    assert result["leftovers"] == [
        f"stack {NAME} (DELETE_FAILED); remove it with: aws cloudformation delete-stack "
        f"--stack-name {NAME} --region us-west-2"
    ]


def test_files_of_a_call_that_was_cut_off_are_left_over() -> None:
    folder = f"parallelcluster/3.16.1/images/{NAME}-abcdefgh12345678/"
    other = f"parallelcluster/3.16.1/images/{NAME}-2-abcdefgh12345678/"
    world = World(folders=[folder, other])
    (left,) = run(world)["leftovers"]
    assert left == (
        "files of a call that was cut off, s3://dev-ws-parallelcluster-testbucket/"
        f"{folder}; remove it with: aws s3 rm --recursive "
        f"s3://dev-ws-parallelcluster-testbucket/{folder} --region us-west-2"
    )


def test_a_deleted_build_is_a_failure() -> None:
    world = World()
    context = make_context(world)
    Door(world).build_image(NAME, make_configuration(world), "us-west-2")
    seen = 0

    def sleep(seconds: float) -> None:
        nonlocal seen
        seen += 1
        world.sleep(seconds)
        if seen == 3:
            world.builds[NAME].deleted = world.now
            world.builds[NAME].outcome = "failed"

    context = replace(context, clock=replace(context.clock, sleep=sleep))
    assert "it is gone" in fails(world, context)
    assert world.begun == [NAME]


def test_a_build_without_end_is_given_up_and_can_be_followed_again() -> None:
    world = World(build_seconds=24 * 60 * MINUTE)
    assert "after 4.0 hours" in fails(world)
    assert world.begun == [NAME]


THROTTLED = PclusterError("`pcluster describe-image`: Rate exceeded")


def test_throttled_calls_are_made_again() -> None:
    world = World()
    world.faults = {
        "describe-image": [THROTTLED] * 4,
        "build-image": [PclusterError("`pcluster build-image`: Rate exceeded")] * 2,
        "s3:put_object": [refusal("SlowDown"), refusal("ServiceUnavailable")],
        "ec2:describe_images": [refusal("RequestLimitExceeded")],
        "ec2:describe_security_groups": [refusal("Throttling", "Rate exceeded")],
    }
    assert run(world)["ami"] == "ami-00000000000000001"
    assert world.begun == [NAME]


def test_throttling_without_end_is_told_and_the_build_followed_later() -> None:
    world = World()
    Door(world).build_image(NAME, make_configuration(world), "us-west-2")
    world.faults = {"describe-image": [THROTTLED] * 30}
    said = fails(world)
    assert "AWS did not answer for 5 minutes" in said
    world.faults.clear()
    assert run(world)["ami"] == "ami-00000000000000001"
    assert world.begun == [NAME]


def test_an_answer_of_build_image_that_was_lost_makes_no_second_build() -> None:
    world = World()
    world.builds[NAME] = FakeBuild(
        world.now, 1800, "available", "", {"clusterbox:bundle": plan_image().bundle}, "ami-1"
    )
    # The first look does not see it yet.
    original, looks = world.builds, 0
    world.builds = {}
    door = Door(world)
    build = door.build_image

    def late(image: str, configuration: Any, region: str) -> Any:
        nonlocal looks
        looks += 1
        world.builds = original
        return build(image, configuration, region)

    door.build_image = late  # type: ignore[method-assign]
    builds = replace(make_builds(world), pcluster=door)
    assert bake(make_context(world), BAKE, builds=builds)["ami"] == "ami-1"
    assert (world.begun, looks) == ([], 1)


def test_expired_credentials_are_told_and_the_build_followed_after_signing_in() -> None:
    world = World()
    Door(world).build_image(NAME, make_configuration(world), "us-west-2")
    expired = "The security token included in the request is expired"
    world.faults = {"describe-image": [PclusterError(f"`pcluster describe-image`: {expired}")]}
    said = fails(world)
    assert "sign in and run the command again" in said
    assert "a build that has begun goes on in AWS" in said
    assert run(world)["ami"] == "ami-00000000000000001"
    assert world.begun == [NAME]


def test_a_refused_configuration_is_told_in_the_words_of_parallelcluster() -> None:
    world = World()
    world.faults = {
        "build-image": [
            PclusterError("`pcluster build-image`: Configuration is invalid\n  ERROR: x")
        ]
    }
    assert fails(world) == (
        "baking compute: `pcluster build-image`: Configuration is invalid\n  ERROR: x"
    )


def test_a_denied_call_is_told_with_what_to_do() -> None:
    world = World()
    world.faults = {"s3:put_object": [refusal("AccessDenied", "Access Denied", "PutObject")]}
    assert "A permission is missing." in fails(world)


def test_a_run_that_may_not_go_on_stops() -> None:
    class Stopped(Exception):  # noqa: N818 - stands for the engine's
        pass

    world = World()

    def check() -> None:
        if world.now > world.now.replace(hour=8, minute=10):
            raise Stopped

    with pytest.raises(Stopped):
        run(world, make_context(world, check=check))
    assert run(world)["ami"] == "ami-00000000000000001"
    assert world.begun == [NAME]


def short(kill: tuple[int, str] | None = None) -> World:
    """Return a world whose builds are short: every call is another, not a look like the one before."""
    return World(kill=kill, build_seconds=10)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_at_any_call_makes_no_second_build(moment: str) -> None:
    world = short()
    run(world)
    assert len(world.calls) > 20
    for index in range(len(world.calls)):
        world = short((index, moment))
        with pytest.raises(Killed):
            run(world)
        world.restart()
        result = run(world)
        assert (world.begun, result["ami"]) == ([NAME], "ami-00000000000000001"), index
        assert len(world.objects) == len(BUNDLE.keys), index


def test_a_kill_at_every_call_one_after_the_other_still_ends_with_one_build() -> None:
    world = World()
    for attempt in range(100):
        world.kill = (len(world.calls) + 5 + attempt, "after")
        try:
            result = run(world)
            break
        except Killed:
            world.restart()
            world.sleep(MINUTE)
    assert (world.begun, result["ami"]) == ([NAME], "ami-00000000000000001")


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_while_a_failed_build_is_replaced_makes_one_new_build(moment: str) -> None:
    def failed() -> World:
        world = short()
        world.outcome, world.reason = "failed", "x"
        Door(world).build_image(NAME, make_configuration(world), "us-west-2")
        world.sleep(MINUTE)
        world.outcome, world.reason = "available", ""
        return world

    world = failed()
    before = len(world.calls)
    run(world, retry_failed=True)
    for index in range(before, len(world.calls)):
        world = failed()
        world.kill = (index, moment)
        with pytest.raises(Killed):
            run(world, retry_failed=True)
        world.restart()
        assert run(world, retry_failed=True)["ami"] == "ami-00000000000000002", index
        assert world.begun == [NAME, NAME], index


def test_an_estimate_counts_machine_and_volume() -> None:
    # m6a.2xlarge costs 0.3456 USD an hour, and 45 GiB of gp3 45 x 0.08 / 730.
    found = estimate_bake(COMPUTE, 3600, region="us-west-2")
    assert found is not None
    assert found.quantize(Decimal("0.0001")) == Decimal("0.3505")


def test_an_unknown_price_is_unknown_and_not_zero() -> None:
    odd = COMPUTE.model_copy(update={"build_instance_type": "m99.large"})
    assert estimate_bake(odd, 3600, region="us-west-2") is None
