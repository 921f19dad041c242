"""Images are baked by the unmodified `pcluster` command, as the shipped definitions say."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.exceptions import ClientError

from clusterbox.embedded.account import EmbeddedAccount
from clusterbox.embedded.existing import existing_resources
from clusterbox.embedded.faults import (
    LUSTRE_KERNEL_LOG,
    BuildFault,
    CleanUpFault,
    HeldBuild,
    MissingImages,
)
from clusterbox.images.components import (
    BuildPlace,
    build_configuration,
    render_bundle,
)
from clusterbox.site import names
from clusterbox.site.image_definitions import load_image_definition, load_image_definitions
from clusterbox.site.load import Repository
from tests.conftest import ROOT
from tests.embedded.cluster_stack import NODE, PCLUSTER_PYTHON, needs_pcluster

pytestmark = [needs_pcluster, pytest.mark.integration]

WS_DEV = Repository(ROOT).load_environment("ws-dev")
BUCKET = WS_DEV.storage.buckets.cluster_config.name
COMPUTE, ADMIN = "ws-dev-compute-2026-11-22", "ws-dev-admin-2026-11-22"
FAILING = {
    "ws-dev-fails-build": "BUILDING",
    "ws-dev-fails-validate": "BUILDING",
    "ws-dev-fails-test": "TESTING",
    "ws-dev-fails-distribute": "DISTRIBUTING",
}
FAULTS = (
    HeldBuild(image="compute", status="BUILDING"),
    CleanUpFault(image=ADMIN),
    BuildFault(image="*-fails-build", stage="build", log=(LUSTRE_KERNEL_LOG,)),
    BuildFault(image="*-fails-validate", stage="validate"),
    BuildFault(image="*-fails-test", stage="test"),
    BuildFault(image="*-fails-distribute", stage="distribute", reason="no capacity"),
)
SETTLE_SECONDS = 180.0


@dataclass
class Bakes:
    """An account in which images are baked, and what was seen while they were."""

    account: EmbeddedAccount
    folder: Path
    stages: list[str] = field(default_factory=list)
    while_building: dict[str, Any] = field(default_factory=dict)
    # What the command said of each image in the end.
    ends: dict[str, dict[str, Any]] = field(default_factory=dict)

    def pcluster(self, *words: str) -> dict[str, Any]:
        """Run the unmodified command and return what it prints."""
        done = subprocess.run(
            [PCLUSTER_PYTHON, "-m", "pcluster.cli.entrypoint", *words, "--region", "us-west-2"],
            env=self.account.process_environment()
            | {"HOME": str(self.folder), "JSII_NODE": NODE or "node"},
            capture_output=True,
            text=True,
            check=False,
        )
        answer: dict[str, Any] = json.loads(done.stdout or "{}")
        assert answer, done.stderr
        return answer

    def parents(self) -> list[dict[str, Any]]:
        filters = [{"Name": "name", "Values": ["csr-al2023-base-*"]}]
        found = self.account.client("ec2").describe_images(Owners=["self"], Filters=filters)
        return sorted(found["Images"], key=lambda image: str(image["CreationDate"]))

    def build(self, image: str, image_id: str) -> dict[str, Any]:
        """Start the build of a shipped definition; return what the command said."""
        definition = load_image_definition(ROOT, image)
        bundle = render_bundle(ROOT, definition, WS_DEV)
        store = self.account.client("s3")
        for key, body in bundle.objects.items():
            store.put_object(Bucket=BUCKET, Key=key, Body=body)
        place = BuildPlace(
            subnet_id=str(WS_DEV.network.subnet("compute.a").id),
            security_group_ids=(str(WS_DEV.network.ssh.bastion_security_group),),
        )
        configuration = build_configuration(
            definition,
            WS_DEV,
            place,
            bundle,
            parent=self.parents()[-1]["ImageId"],
            name=image_id,
        )
        path = self.folder / f"{image_id}.yaml"
        path.write_text(yaml.safe_dump(configuration), encoding="utf-8")
        return self.pcluster(
            "build-image", "--image-id", image_id, "--image-configuration", str(path)
        )

    def build_again(self, like: str, image_id: str) -> None:
        """Create the stack that the command wrote for one image for another, without the command."""
        cloudformation = self.account.client("cloudformation")
        stack = self.stack(like)
        assert stack is not None
        template = cloudformation.get_template(StackName=like)["TemplateBody"]
        cloudformation.create_stack(
            StackName=image_id,
            TemplateBody=str(template).replace(like, image_id),
            Tags=json.loads(json.dumps(stack["Tags"]).replace(like, image_id)),
            Capabilities=["CAPABILITY_NAMED_IAM"],
            DisableRollback=True,
        )

    def stack(self, image_id: str) -> dict[str, Any] | None:
        try:
            found = self.account.client("cloudformation").describe_stacks(StackName=image_id)
        except ClientError:
            return None
        return dict(found["Stacks"][0])

    def follow(self, image_id: str) -> None:
        """Note each stage of a build, until its stack is gone."""
        builder = self.account.client("imagebuilder")
        end = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < end:
            for version in builder.list_images()["imageVersionList"]:
                if image_id.lower() not in version["arn"]:
                    continue
                listed = builder.list_image_build_versions(imageVersionArn=version["arn"])
                for summary in listed["imageSummaryList"]:
                    self._note(builder, summary["arn"])
            if self.stages and self.stack(image_id) is None:
                return
            time.sleep(0.05)
        raise AssertionError(f"the stack of {image_id} is not gone; seen: {self.stages}")

    def _note(self, builder: Any, arn: str) -> None:
        try:
            status = builder.get_image(imageBuildVersionArn=arn)["image"]["state"]["status"]
        except ClientError:
            return  # Its stack has been deleted meanwhile.
        if status not in self.stages:
            self.stages.append(status)

    def wait(self, image_id: str, status: str, asked: Future[dict[str, Any]] | None = None) -> None:
        """Wait until the stack of a build that was asked for has a status."""
        end = time.monotonic() + SETTLE_SECONDS
        stack = None
        while time.monotonic() < end:
            stack = self.stack(image_id)
            if stack is not None and stack["StackStatus"] == status:
                return
            if asked is not None and asked.done():
                assert "image" in asked.result(), asked.result()
            time.sleep(0.05)
        raise AssertionError(f"{image_id}: {stack}")

    def ami(self, image_id: str) -> dict[str, Any]:
        filters = [{"Name": "tag:parallelcluster:image_id", "Values": [image_id]}]
        found = self.account.client("ec2").describe_images(Owners=["self"], Filters=filters)
        assert len(found["Images"]) == 1
        return dict(found["Images"][0])

    def tags(self, image_id: str) -> dict[str, str]:
        return {tag["Key"]: tag["Value"] for tag in self.ami(image_id)["Tags"]}

    def log(self, image_id: str) -> list[str]:
        stream = ("--log-stream-name", "3.16.1/1")
        events = self.pcluster("get-image-log-events", "--image-id", image_id, *stream)
        return [event["message"] for event in events["events"]]


@pytest.fixture(scope="module")
def bakes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bakes]:
    """Bake both shipped images side by side with four that fail, each at another stage."""
    folder = tmp_path_factory.mktemp("bakes")
    account = EmbeddedAccount.start(
        folder / "account",
        account=WS_DEV.account,
        region=WS_DEV.region,
        extra_env={
            "CLUSTERBOX_IMAGE_BUILD_SECONDS": "0.5",
            # Instance types are asked of ParallelCluster's environment.
            "CLUSTERBOX_PCLUSTER_PYTHON": str(PCLUSTER_PYTHON),
            "JSII_NODE": NODE or "",
        },
    )
    try:
        account.seed(_site())
        bakes = Bakes(account, folder)
        _bake_all(bakes)
        yield bakes
    finally:
        EmbeddedAccount.stop(folder / "account")


def _site() -> dict[str, Any]:
    images = Repository(ROOT).load_images(WS_DEV)
    definitions = load_image_definitions(ROOT).values()
    site = existing_resources(WS_DEV, images, definitions=definitions).model_dump()
    services = {"image-build": "ec2", "image-cleanup": "lambda"}
    site["roles"] += tuple(
        {
            "name": names.role_name(WS_DEV, purpose),
            "path": WS_DEV.hosting.iam_path,
            "service": f"{service}.amazonaws.com",
        }
        for purpose, service in services.items()
    )
    return site


def _bake_all(bakes: Bakes) -> None:
    bakes.account.inject(*FAULTS)
    with ThreadPoolExecutor() as pool:
        compute = pool.submit(bakes.build, "compute", COMPUTE)
        admin = pool.submit(bakes.build, "admin", ADMIN)
        followed = pool.submit(bakes.follow, COMPUTE)
        bakes.wait(COMPUTE, "CREATE_IN_PROGRESS", compute)
        bakes.while_building = bakes.pcluster("describe-image", "--image-id", COMPUTE)
        assert "image" in compute.result(), compute.result()
        bakes.account.clear_faults("hold")
        followed.result()
        bakes.wait(ADMIN, "DELETE_FAILED", admin)
        for image_id in FAILING:
            bakes.build_again(ADMIN, image_id)
            bakes.wait(image_id, "CREATE_FAILED")
        told = {
            image_id: pool.submit(bakes.pcluster, "describe-image", "--image-id", image_id)
            for image_id in (COMPUTE, ADMIN, *FAILING)
        }
        bakes.ends = {image_id: answer.result() for image_id, answer in told.items()}


def test_a_build_passes_image_builders_stages(bakes: Bakes) -> None:
    expected = ["CREATING", "BUILDING", "TESTING", "DISTRIBUTING", "INTEGRATING", "AVAILABLE"]
    assert [stage for stage in expected if stage in bakes.stages] == bakes.stages
    assert {"BUILDING", "TESTING", "DISTRIBUTING"} <= set(bakes.stages)


def test_the_command_shows_the_stage_while_the_image_is_built(bakes: Bakes) -> None:
    shown = bakes.while_building
    assert shown["imageBuildStatus"] == "BUILD_IN_PROGRESS"
    assert shown["cloudformationStackStatus"] == "CREATE_IN_PROGRESS"
    assert shown["imagebuilderImageStatus"] in ("BUILDING", "TESTING", "DISTRIBUTING")


def test_the_image_has_parallelclusters_tags_and_the_definitions(bakes: Bakes) -> None:
    tags = bakes.tags(COMPUTE)
    assert tags["parallelcluster:image_id"] == COMPUTE
    assert tags["parallelcluster:version"] == "3.16.1"
    assert tags["parallelcluster:build_status"] == "available"
    assert tags["parallelcluster:parent_image"] == bakes.parents()[-1]["ImageId"]
    assert tags["parallelcluster:s3_bucket"] == BUCKET
    assert tags["parallelcluster:build_config"].startswith(f"s3://{BUCKET}/parallelcluster/3.16.1/")
    assert tags["parallelcluster:build_log"].endswith(f"ParallelClusterImage-{COMPUTE}")
    assert tags["parallelcluster:slurm_version"] == "25.11.8"
    assert (tags["clusterbox:image"], tags["Purpose"]) == ("compute", "cluster-nodes")


def test_the_image_is_the_accounts_own_with_an_encrypted_snapshot(bakes: Bakes) -> None:
    image = bakes.ami(COMPUTE)
    assert image["OwnerId"] == WS_DEV.account
    assert image["Name"].startswith(f"{COMPUTE} 20")
    disk = image["BlockDeviceMappings"][0]["Ebs"]
    assert (disk["Encrypted"], disk["VolumeSize"]) == (True, 45)
    snapshots = bakes.account.client("ec2").describe_snapshots(SnapshotIds=[disk["SnapshotId"]])
    assert snapshots["Snapshots"][0]["Encrypted"] is True
    created = datetime.fromisoformat(image["CreationDate"].replace("Z", "+00:00"))
    assert datetime.now(UTC) - created < timedelta(hours=1)


def test_the_command_lists_what_was_built(bakes: Bakes) -> None:
    listed = bakes.pcluster("list-images", "--image-status", "AVAILABLE")["images"]
    assert {COMPUTE, ADMIN} <= {image["imageId"] for image in listed}
    assert bakes.ends[COMPUTE]["imageBuildStatus"] == "BUILD_COMPLETE"
    assert bakes.ends[COMPUTE]["ec2AmiInfo"]["amiId"] == bakes.ami(COMPUTE)["ImageId"]


def test_the_real_clean_up_function_deletes_everything_but_the_log(bakes: Bakes) -> None:
    assert bakes.stack(COMPUTE) is None
    groups = bakes.account.client("logs").describe_log_groups()["logGroups"]
    stacks = bakes.account.client("cloudformation").list_stacks()["StackSummaries"]
    stack_id = next(s["StackId"] for s in stacks if s["StackName"] == COMPUTE)
    marker = stack_id.rpartition("/")[2]
    assert not [g["logGroupName"] for g in groups if marker in g["logGroupName"]]
    functions = bakes.account.client("lambda").list_functions()["Functions"]
    topics = bakes.account.client("sns").list_topics()["Topics"]
    profiles = bakes.account.client("iam").list_instance_profiles()["InstanceProfiles"]
    assert marker not in json.dumps([functions, topics, profiles], default=str)
    assert f"/aws/imagebuilder/ParallelClusterImage-{COMPUTE}" in {
        group["logGroupName"] for group in groups
    }


def test_a_clean_up_that_fails_leaves_the_image_and_a_stack_that_can_be_deleted(
    bakes: Bakes,
) -> None:
    assert bakes.ends[ADMIN]["imageBuildStatus"] == "BUILD_COMPLETE"
    reason = str((bakes.stack(ADMIN) or {})["StackStatusReason"])
    assert "ParallelClusterImage" in reason
    failed = bakes.pcluster("list-images", "--image-status", "FAILED")["images"]
    assert ADMIN in {image["imageId"] for image in failed}
    events = bakes.pcluster("get-image-stack-events", "--image-id", ADMIN)["events"]
    reasons = [str(event.get("resourceStatusReason")) for event in events]
    assert any("not authorized to perform: imagebuilder:GetImage" in reason for reason in reasons)
    bakes.account.client("cloudformation").delete_stack(StackName=ADMIN)
    end = time.monotonic() + SETTLE_SECONDS
    while bakes.stack(ADMIN) is not None and time.monotonic() < end:
        time.sleep(0.05)
    assert bakes.stack(ADMIN) is None


def test_the_log_names_each_component_and_each_script(bakes: Bakes) -> None:
    streams = bakes.pcluster("list-image-log-streams", "--image-id", COMPUTE)["logStreams"]
    assert [stream["logStreamName"] for stream in streams] == ["3.16.1/1"]
    log = "\n".join(bakes.log(COMPUTE))
    for step in load_image_definition(ROOT, "compute").steps:
        assert f"/{step}\n" in log
    assert "(PCluster)" in log
    assert "Step InstallPClusterPackages" in log


@pytest.mark.parametrize("image_id", FAILING)
def test_a_build_that_fails_says_at_which_stage(bakes: Bakes, image_id: str) -> None:
    shown = bakes.ends[image_id]
    assert shown["imageBuildStatus"] == "BUILD_FAILED"
    assert shown["imagebuilderImageStatus"] == "FAILED"
    assert f"in state = '{FAILING[image_id]}'" in shown["imagebuilderImageStatusReason"]
    assert shown["imagebuilderImageStatusReason"] in shown["cloudformationStackStatusReason"]


def test_a_failed_build_keeps_what_its_component_said_in_the_log(bakes: Bakes) -> None:
    assert f"Stdout: {LUSTRE_KERNEL_LOG}" in bakes.log("ws-dev-fails-build")


def test_a_fault_can_bring_its_own_reason(bakes: Bakes) -> None:
    shown = bakes.ends["ws-dev-fails-distribute"]
    assert shown["imagebuilderImageStatusReason"].endswith("failure message = 'no capacity'")


def test_workflows_tell_which_one_failed(bakes: Bakes) -> None:
    builder = bakes.account.client("imagebuilder")
    arn = _resource(bakes, "ws-dev-fails-test")["PhysicalResourceId"]
    told = builder.list_workflow_executions(imageBuildVersionArn=arn)["workflowExecutions"]
    assert [(each["type"], each["status"]) for each in told] == [
        ("BUILD", "COMPLETED"),
        ("TEST", "FAILED"),
    ]


def _resource(bakes: Bakes, image_id: str) -> Mapping[str, Any]:
    found = bakes.account.client("cloudformation").describe_stack_resource(
        StackName=image_id, LogicalResourceId="ParallelClusterImage"
    )
    return dict(found["StackResourceDetail"])


def test_no_role_is_made_by_any_build(bakes: Bakes) -> None:
    roles = bakes.account.client("iam").list_roles()["Roles"]
    assert {role["RoleName"] for role in roles} == {role["name"] for role in _site()["roles"]}


def test_the_same_image_is_not_built_twice(bakes: Bakes) -> None:
    again = bakes.build("compute", COMPUTE)
    assert again["message"] == f"ParallelCluster image {COMPUTE} already exists."


# What follows deletes.


def test_deleting_a_failed_image_takes_its_stack_and_its_ami(bakes: Bakes) -> None:
    image_id = "ws-dev-fails-test"
    ec2 = bakes.account.client("ec2")
    arn = _resource(bakes, image_id)["PhysicalResourceId"]
    filters = [{"Name": "tag:Ec2ImageBuilderArn", "Values": [arn]}]
    assert len(ec2.describe_images(Filters=filters)["Images"]) == 1
    gone = bakes.pcluster("delete-image", "--image-id", image_id)
    assert gone["image"]["imageBuildStatus"] == "DELETE_IN_PROGRESS"
    assert ec2.describe_images(Filters=filters)["Images"] == []


def test_deleting_an_image_takes_its_snapshot_its_files_and_its_log(bakes: Bakes) -> None:
    image = bakes.ami(COMPUTE)
    folder = bakes.tags(COMPUTE)["parallelcluster:s3_image_dir"]
    snapshot = image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    bakes.pcluster("delete-image", "--image-id", COMPUTE)
    ec2 = bakes.account.client("ec2")
    with pytest.raises(ClientError, match="does not exist"):
        ec2.describe_snapshots(SnapshotIds=[snapshot])
    stored = bakes.account.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=folder)
    assert stored["KeyCount"] == 0
    shown = bakes.pcluster("describe-image", "--image-id", COMPUTE)
    assert "No image or stack" in shown["message"]


def test_a_snapshot_in_use_is_kept(bakes: Bakes) -> None:
    image = bakes.ami(ADMIN)
    snapshot = image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    with pytest.raises(ClientError, match="currently in use by ami-"):
        bakes.account.client("ec2").delete_snapshot(SnapshotId=snapshot)


def test_a_build_is_refused_without_its_parent(bakes: Bakes) -> None:
    newest = bakes.parents()[-1]
    done = bakes.account.inject(MissingImages(name=str(newest["Name"])))
    assert done == [f"deregistered {newest['ImageId']} {newest['Name']}"]
    assert newest["ImageId"] not in {image["ImageId"] for image in bakes.parents()}
