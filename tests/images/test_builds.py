"""The door to ParallelCluster's image commands, and what is read of a build."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from clusterbox.errors import InputError
from clusterbox.images.builds import Build, Builds
from clusterbox.pcluster import Pcluster, PclusterError, refuse_roles_of_its_own
from tests.images.patch_day_world import WS_DEV, World, make_builds, refusal

IAM = {"InstanceRole": "arn:a", "CleanupLambdaRole": "arn:b", "PermissionsBoundary": "arn:c"}
CONFIGURATION = {"Build": {"Iam": IAM}}
Commands = Callable[[], list[list[str]]]

# An interpreter that keeps its words and the configuration it was given, and prints an answer.
PYTHON = """\
#!/bin/bash
folder="$(dirname "$0")"
printf '%s\\t' "${@:2}" >>"$folder/words"
printf '\\n' >>"$folder/words"
for ((i = 1; i <= $#; i++)); do
  if [[ ${!i} == --image-configuration ]]; then
    j=$((i + 1))
    stat -c %a "${!j}" >"$folder/mode"
    cp "${!j}" "$folder/configuration"
  fi
done
number=$(wc -l <"$folder/words")
cat "$folder/answer-$number" 2>/dev/null || cat "$folder/answer"
exit "$(cat "$folder/status")"
"""


@pytest.fixture
def pcluster(tmp_path: Path) -> Pcluster:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "python").write_text(PYTHON)
    (folder / "python").chmod(0o755)
    (folder / "status").write_text("0")
    (folder / "answer").write_text("{}")
    return Pcluster(tmp_path, os.environ)


def said(pcluster: Pcluster, *answers: Any, status: int = 0) -> None:
    folder = pcluster.folder / "bin"
    (folder / "status").write_text(str(status))
    for number, answer in enumerate(answers, 1):
        (folder / f"answer-{number}").write_text(json.dumps(answer))


def asked(pcluster: Pcluster) -> list[list[str]]:
    text = (pcluster.folder / "bin" / "words").read_text()
    return [line.rstrip("\t").split("\t") for line in text.splitlines()]


def test_a_build_is_asked_for_with_a_file_that_only_this_user_can_read(pcluster: Pcluster) -> None:
    pcluster.build_image("image-1", CONFIGURATION, "us-west-2")
    (words,) = asked(pcluster)
    folder = pcluster.folder / "bin"
    assert words[:4] == ["build-image", "--image-id", "image-1", "--image-configuration"]
    assert words[5:] == ["--region", "us-west-2"]
    assert int((folder / "mode").read_text(), 8) == stat.S_IRUSR | stat.S_IWUSR
    assert json.loads((folder / "configuration").read_text()) == CONFIGURATION
    assert not Path(words[4]).exists()


@pytest.mark.parametrize(
    ("configuration", "missing"),
    [
        pytest.param({}, "CleanupLambdaRole and PermissionsBoundary and InstanceRole", id="empty"),
        pytest.param({"Build": None}, "CleanupLambdaRole", id="no build"),
        pytest.param(
            {"Build": {"Iam": {**IAM, "CleanupLambdaRole": ""}}}, "Cleanup", id="clean-up"
        ),
        pytest.param(
            {"Build": {"Iam": {**IAM, "PermissionsBoundary": None}}}, "Boundary", id="boundary"
        ),
    ],
)
def test_a_configuration_without_our_roles_starts_no_process(
    configuration: dict[str, Any], missing: str, pcluster: Pcluster
) -> None:
    with pytest.raises(InputError, match=missing):
        pcluster.build_image("image-1", configuration, "us-west-2")
    assert not (pcluster.folder / "bin" / "words").exists()


def test_an_instance_profile_stands_for_the_role_of_the_build() -> None:
    iam = {**IAM, "InstanceProfile": "arn:p"}
    del iam["InstanceRole"]
    refuse_roles_of_its_own({"Build": {"Iam": iam}})


def test_what_validators_found_is_in_the_message(pcluster: Pcluster) -> None:
    said(
        pcluster,
        {
            "message": "Configuration is invalid",
            "configurationValidationErrors": [
                {"level": "ERROR", "message": "Root volume size 14 GB is less", "type": "X"}
            ],
        },
        status=1,
    )
    with pytest.raises(PclusterError) as caught:
        pcluster.build_image("image-1", CONFIGURATION, "us-west-2")
    assert str(caught.value) == (
        "`pcluster build-image`: Configuration is invalid\n  ERROR: Root volume size 14 GB is less"
    )


def test_an_image_that_is_not_there_is_none(pcluster: Pcluster) -> None:
    message = "No image or stack associated with ParallelCluster image id: image-1."
    said(pcluster, {"message": message}, status=1)
    assert pcluster.fetch_image("image-1", "us-west-2") is None


def test_a_refusal_to_describe_is_no_absence(pcluster: Pcluster) -> None:
    said(pcluster, {"message": "Rate exceeded"}, status=1)
    with pytest.raises(PclusterError, match="Rate exceeded"):
        pcluster.fetch_image("image-1", "us-west-2")


def test_images_are_listed_page_by_page(pcluster: Pcluster) -> None:
    said(pcluster, {"images": [{"imageId": "a"}], "nextToken": "t"}, {"images": [{"imageId": "b"}]})
    assert pcluster.fetch_images("PENDING", "us-west-2") == [{"imageId": "a"}, {"imageId": "b"}]
    assert asked(pcluster)[1][-2:] == ["--next-token", "t"]


def test_an_image_is_deleted_by_force_only_when_asked(pcluster: Pcluster) -> None:
    pcluster.delete_image("image-1", "us-west-2")
    pcluster.delete_image("image-1", "us-west-2", force=True)
    assert [words[-2:] for words in asked(pcluster)] == [["--force", "false"], ["--force", "true"]]


def test_the_log_is_that_of_the_newest_stream(pcluster: Pcluster) -> None:
    streams = [
        {"logStreamName": "3.16.1/1", "lastEventTimestamp": "2026-11-22T08:00:00Z"},
        {"logStreamName": "3.16.1/2", "lastEventTimestamp": "2026-11-22T09:00:00Z"},
    ]
    said(pcluster, {"logStreams": streams}, {"events": [{"message": "one"}, {"message": "two"}]})
    assert pcluster.fetch_image_log("image-1", "us-west-2", lines=30) == ["one", "two"]
    words = asked(pcluster)[1]
    assert words[0] == "get-image-log-events"
    assert words[-4:] == ["--log-stream-name", "3.16.1/2", "--limit", "30"]


def test_a_build_without_a_log_has_no_lines(pcluster: Pcluster) -> None:
    said(pcluster, {"logStreams": []})
    assert pcluster.fetch_image_log("image-1", "us-west-2", lines=30) == []


class Answer:
    """ParallelCluster with one answer."""

    def __init__(self, answer: Any, events: list[dict[str, Any]] | None = None) -> None:
        self.answer, self.events = answer, events or []

    def build_image(self, image: str, configuration: Any, region: str) -> None:
        pass

    def fetch_image(self, image: str, region: str) -> Any:
        return self.answer

    def delete_image(self, image: str, region: str, *, force: bool = False) -> None:
        pass

    def fetch_image_log(self, image: str, region: str, *, lines: int) -> list[str]:
        return []

    def fetch_image_stack_events(self, image: str, region: str) -> list[dict[str, Any]]:
        return self.events


def builds_with(answer: Any, world: World | None = None, **more: Any) -> Builds:
    return Builds(WS_DEV, Answer(answer, **more), (world or World()).client)


def test_a_build_under_way_is_read_with_stage_and_start() -> None:
    answer = {
        "imageBuildStatus": "BUILD_IN_PROGRESS",
        "imagebuilderImageStatus": "TESTING",
        "cloudformationStackStatus": "CREATE_IN_PROGRESS",
        "cloudformationStackCreationTime": "2026-11-22T08:00:00.000Z",
        "cloudformationStackTags": [{"key": "clusterbox:bundle", "value": "abc"}],
    }
    assert builds_with(answer).fetch("image-1") == Build(
        status="BUILD_IN_PROGRESS",
        stage="TESTING",
        tags={"clusterbox:bundle": "abc"},
        started=datetime(2026, 11, 22, 8, tzinfo=UTC),
        stack_status="CREATE_IN_PROGRESS",
    )


def test_a_stage_that_parallelcluster_does_not_say_is_image_builders() -> None:
    found = builds_with({"imageBuildStatus": "BUILD_IN_PROGRESS"}).fetch("image-1")
    assert found is not None
    assert found.stage == "PENDING"


def test_a_stage_that_nobody_says_is_unknown() -> None:
    world = World(faults={"imagebuilder:list_image_build_versions": [refusal("AccessDenied")]})
    found = builds_with({"imageBuildStatus": "BUILD_IN_PROGRESS"}, world).fetch("image-1")
    assert found is not None
    assert found.stage is None


def test_an_image_that_is_still_pending_is_not_finished() -> None:
    answer = {
        "imageBuildStatus": "BUILD_COMPLETE",
        "ec2AmiInfo": {"amiId": "a", "state": "PENDING"},
    }
    found = builds_with(answer).fetch("image-1")
    assert found is not None
    assert found.ami is None


def test_reasons_are_those_of_failed_resources_the_first_one_first() -> None:
    events = [
        {"logicalResourceId": "image-1", "resourceStatus": "CREATE_FAILED"},
        {
            "logicalResourceId": "Topic",
            "resourceStatus": "CREATE_FAILED",
            "resourceStatusReason": "Resource creation cancelled",
        },
        {
            "logicalResourceId": "ParallelClusterImage",
            "resourceStatus": "CREATE_FAILED",
            "resourceStatusReason": "Document failed",
        },
        {
            "logicalResourceId": "image-1",
            "resourceStatus": "CREATE_IN_PROGRESS",
            "resourceStatusReason": "User Initiated",
        },
    ]
    assert builds_with(None, events=events).fetch_reasons("image-1") == [
        "ParallelClusterImage: CREATE_FAILED: Document failed",
        "Topic: CREATE_FAILED: Resource creation cancelled",
    ]


@pytest.mark.parametrize("name", ["1image", "an_image", "image.1", "a" * 129, ""])
def test_a_name_that_parallelcluster_does_not_take_is_refused(name: str) -> None:
    world = World()
    with pytest.raises(InputError, match="cannot be the id of an image"):
        make_builds(world).start(name, CONFIGURATION)
    assert world.calls == []


def test_a_refused_look_at_the_stack_is_no_absence() -> None:
    world = World(faults={"cloudformation:describe_stacks": [refusal("AccessDenied")]})
    with pytest.raises(Exception, match="AccessDenied"):
        make_builds(world).fetch_stack("image-1")
    assert make_builds(World()).fetch_stack("image-1") is None


def test_folders_of_a_name_that_was_cut_short_are_left_alone() -> None:
    world = World(folders=["parallelcluster/3.16.1/images/x-abcdefgh12345678/"])
    assert builds_with(None, world).find_leftovers("x" * 47, None) == []
    assert "s3:list_objects_v2" not in world.calls
