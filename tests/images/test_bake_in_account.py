"""Images are baked and verified in an embedded account, by the unmodified `pcluster` command."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from clusterbox.deployment.progress import Progress
from clusterbox.deployment.targets import EmbeddedTarget, find_embedded, state_folder
from clusterbox.embedded.account import EmbeddedAccount
from clusterbox.embedded.faults import (
    LUSTRE_KERNEL_LOG,
    BuildFault,
    CheckFault,
    CleanUpFault,
    ExpiredCredentials,
    HeldBuild,
    MissingImages,
    ThrottledCalls,
)
from clusterbox.images.bake import bake
from clusterbox.images.components import render_bundle
from clusterbox.images.context import Clock, Context, Result, StepFailedError
from clusterbox.images.parents import resolve_parent
from clusterbox.images.plan import Action, Options, Plan, PlannedImage, Step
from clusterbox.images.verification import verify
from clusterbox.site.environment import Environment
from clusterbox.site.image_definitions import bake_name, load_image_definition
from clusterbox.site.load import Repository
from tests.conftest import ROOT
from tests.deployment.conftest import copy_repository
from tests.embedded.cluster_stack import needs_pcluster
from tests.rehearsal import never, open_site

pytestmark = [needs_pcluster, pytest.mark.integration]

IMAGES = ("compute", "admin")
RUN = "2026-11-22"
Run = Callable[[Context, Step], Result]


@dataclass(frozen=True)
class Account:
    """A deployed site, in which images are baked."""

    root: Path
    environment: Environment
    target: EmbeddedTarget

    def context(self, run: str, results: dict[str, Result] | None = None) -> Context:
        """Return the context of a run that bakes both images."""
        planned = []
        for image in IMAGES:
            definition = load_image_definition(self.root, image)
            parent = resolve_parent(self.target.client("ec2"), definition).ami
            planned.append(
                PlannedImage(
                    image=image,
                    name=bake_name("ws-dev", image, run),
                    parent=parent,
                    bundle=render_bundle(self.root, definition, self.environment).digest,
                )
            )
        plan = Plan(
            run=run,
            environment="ws-dev",
            created="2026-11-22T08:00:00+00:00",
            options=Options(),
            images=tuple(planned),
            steps=(),
            world={},
        )
        return Context(
            root=self.root,
            environment=self.environment,
            target=self.target,
            progress=Progress(),
            plan=plan,
            clock=Clock(sleep=lambda seconds: time.sleep(min(seconds, 1.0))),
            results=results or {},
        )

    def images(self, name: str) -> list[str]:
        """Return every AMI that builds of this name have made."""
        filters = [{"Name": "tag:parallelcluster:image_id", "Values": [name]}]
        found = self.target.client("ec2").describe_images(Owners=["self"], Filters=filters)
        return [image["ImageId"] for image in found["Images"]]

    def stack(self, name: str) -> str | None:
        try:
            found = self.target.client("cloudformation").describe_stacks(StackName=name)
        except ClientError:
            return None
        return str(found["Stacks"][0]["StackStatus"])

    def machines(self) -> list[str]:
        """Return the machines that verify an image and run."""
        filters = [
            {"Name": "tag-key", "Values": ["clusterbox:verifies"]},
            {"Name": "instance-state-name", "Values": ["pending", "running"]},
        ]
        found = self.target.client("ec2").describe_instances(Filters=filters)["Reservations"]
        return [each["InstanceId"] for entry in found for each in entry["Instances"]]

    def tags(self, ami: str) -> dict[str, str]:
        (image,) = self.target.client("ec2").describe_images(ImageIds=[ami])["Images"]
        return {tag["Key"]: tag["Value"] for tag in image["Tags"]}

    def roles(self) -> dict[str, bool]:
        """Return every role, and whether it has a boundary."""
        iam = self.target.client("iam")
        names = [role["RoleName"] for role in iam.list_roles()["Roles"]]
        return {
            name: "PermissionsBoundary" in iam.get_role(RoleName=name)["Role"] for name in names
        }


def step(action: Action, image: str = "compute") -> Step:
    return Step(id=f"{action}:{image}", action=action, subject={"image": image})


@pytest.fixture(scope="module")
def account(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    copy = copy_repository(root, tmp_path_factory.mktemp("repository"))
    try:
        open_site(copy, "ws-dev").deploy("embedded", never)
        environment = Repository(copy).load_environment("ws-dev")
        target = find_embedded(copy, environment)
        assert target is not None
        yield Account(copy, environment, target)
    finally:
        EmbeddedAccount.stop(state_folder(copy, "ws-dev"))


@pytest.fixture(scope="module")
def first(account: Account) -> dict[str, Result]:
    """Bake both images side by side and verify both; return the results by step."""
    before = account.roles()
    baked = side_by_side(bake, account.context(RUN), "bake")
    verified = side_by_side(verify, account.context(RUN, baked), "verify")
    assert account.roles() == before
    return baked | verified


def side_by_side(act: Run, context: Context, action: Action) -> dict[str, Result]:
    steps = [step(action, image) for image in IMAGES]
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda each: act(context, each), steps))
    return {each.id: result for each, result in zip(steps, results, strict=True)}


def test_both_images_are_baked_from_the_newest_parent(
    account: Account, first: dict[str, Result]
) -> None:
    for image in IMAGES:
        result = first[f"bake:{image}"]
        tags = account.tags(result["ami"])
        assert tags["parallelcluster:parent_image"] == result["parent"]
        assert tags["clusterbox:image"] == image
        assert result["leftovers"] == []
        assert result["seconds"] > 0


def test_both_images_hold_their_checks_and_are_marked(
    account: Account, first: dict[str, Result]
) -> None:
    for image, slurm in (("compute", "25.11.8"), ("admin", None)):
        result = first[f"verify:{image}"]
        assert [check for check in result["checks"] if not check["ok"]] == []
        assert result["slurm_version"] == slurm
        assert account.tags(result["ami"])["clusterbox:verified"] == "passed"
        assert result["packages"]["kernel"] in result["kernel"]
    assert account.machines() == []


def test_a_second_call_takes_the_image_and_builds_nothing(
    account: Account, first: dict[str, Result]
) -> None:
    again = bake(account.context(RUN), step("bake"))
    assert again == {**first["bake:compute"], "seconds": None}


def test_no_role_is_without_boundary(account: Account, first: dict[str, Result]) -> None:
    assert [name for name, bounded in account.roles().items() if not bounded] == []


def test_a_failed_build_is_explained_built_again_on_request_and_fails_its_verification(
    account: Account,
) -> None:
    account.target.account.inject(
        BuildFault(image="compute", stage="build", log=(LUSTRE_KERNEL_LOG,)),
    )
    context = account.context("2026-11-23")
    with pytest.raises(StepFailedError) as caught:
        bake(context, step("bake"))
    said = str(caught.value)
    assert "The Lustre client does not support the kernel of this image." in said
    assert LUSTRE_KERNEL_LOG in said
    name = "ws-dev-compute-2026-11-23"
    assert f"pcluster delete-image --image-id {name} --region us-west-2 --force true" in said
    assert account.stack(name) == "CREATE_FAILED"

    account.target.account.inject(CheckFault(image="compute", checks=("units",)))
    result = bake(context, step("bake"), retry_failed=True)
    assert account.images(name) == [result["ami"]]

    with pytest.raises(StepFailedError, match=r"does not hold 1 of \d+ checks:\n  units: "):
        verify(account.context("2026-11-23", {"bake:compute": result}), step("verify"))
    assert account.tags(result["ami"])["clusterbox:verified"] == "failed"
    assert account.machines() == []


def test_a_clean_up_that_fails_leaves_a_stack_and_a_good_image(account: Account) -> None:
    account.target.account.inject(CleanUpFault(image="admin"))
    result = bake(account.context("2026-11-23"), step("bake", "admin"))
    name = "ws-dev-admin-2026-11-23"
    assert result["leftovers"] == [
        f"stack {name} (DELETE_FAILED); remove it with: aws cloudformation delete-stack "
        f"--stack-name {name} --region us-west-2"
    ]
    assert account.images(name) == [result["ami"]]


def bake_here(root: str, run: str) -> None:
    """Bake `compute` in a process of its own, which may be killed."""
    environment = Repository(Path(root)).load_environment("ws-dev")
    target = find_embedded(Path(root), environment)
    assert target is not None
    bake(Account(Path(root), environment, target).context(run), step("bake"))


def start_process(account: Account, run: str) -> subprocess.Popen[bytes]:
    program = (
        "import sys; from tests.images.test_bake_in_account import bake_here; "
        "bake_here(*sys.argv[1:])"
    )
    words = [sys.executable, "-c", program, str(account.root), run]
    return subprocess.Popen(words, cwd=ROOT)


def children(pid: int) -> str:
    """Return the command lines of a process's children."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if path.read_text().rpartition(")")[2].split()[1] == str(pid):
                found.append(path.with_name("cmdline").read_text().replace("\0", " "))
    return "\n".join(found)


def wait_for(happens: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not happens():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("run", "moment"),
    [("2026-11-24", "while build-image runs"), ("2026-11-25", "while the image is built")],
)
def test_a_killed_bake_is_taken_up_and_builds_one_image(
    account: Account, run: str, moment: str
) -> None:
    name = f"ws-dev-compute-{run}"
    account.target.account.inject(HeldBuild(image=name))
    process = start_process(account, run)
    if moment == "while build-image runs":
        # Its own process ends with it, but what it asked AWS for may still happen.
        wait_for(lambda: "build-image" in children(process.pid))
    else:
        wait_for(lambda: account.stack(name) == "CREATE_IN_PROGRESS")
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    account.target.account.clear_faults("hold")
    result = bake(account.context(run), step("bake"))
    assert account.images(name) == [result["ami"]]
    assert account.stack(name) is None


def test_refused_calls_are_waited_for_or_told_and_no_second_image_is_built(
    account: Account,
) -> None:
    run, name = "2026-11-26", "ws-dev-admin-2026-11-26"
    account.target.account.inject(
        ThrottledCalls(service="cloudformation", operation="CreateStack", times=6),
    )
    result = bake(account.context(run), step("bake", "admin"))
    assert account.images(name) == [result["ami"]]

    context = account.context(run)
    account.target.account.inject(ExpiredCredentials(times=1))
    with pytest.raises(StepFailedError, match="sign in and run the command again"):
        bake(context, step("bake", "admin"))
    account.target.account.clear_faults()
    assert bake(account.context(run), step("bake", "admin"))["ami"] == result["ami"]


def test_a_parent_that_disappears_after_the_plan_is_refused(account: Account) -> None:
    context = account.context("2026-11-27")
    account.target.account.inject(MissingImages(name="csr-al2023-base-*"))
    with pytest.raises(StepFailedError, match="is gone from the account since the plan was made"):
        bake(context, step("bake"))
    assert account.stack("ws-dev-compute-2026-11-27") is None
