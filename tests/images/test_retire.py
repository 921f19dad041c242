from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from clusterbox.deployment.progress import Progress
from clusterbox.images.context import Clock, Context, StepFailedError
from clusterbox.images.plan import Options, Plan, Step
from clusterbox.images.retire import Retirable, delete_retirable, find_retirable, retire
from clusterbox.pcluster import PclusterError
from clusterbox.site.environment import Environment
from tests.images import small_site
from tests.images.retire_account import RetireAccount, refusal, tags

# The locked image of the small site is ami-00000001, baked on the first of October.
LOCK = """\
environments:
  dev:
    compute:
      ami: ami-00000001
      os: alinux2023
      root_gib: 45
      baked: "2026-10-01T00:00:00Z"
      origin: bake
      previous: {ami: ami-000000ee, os: alinux2023, root_gib: 45, origin: bake}
    admin: {ami: ami-00000002, os: alinux2023, root_gib: 30, origin: bake}
  other:
    compute: {ami: ami-00000003, os: alinux2023, root_gib: 45, origin: bake}
"""
STEP = Step(id="retire", action="retire")
# Unused images of the site, the newest first, and one older.
NEW, MIDDLE, OLD, OLDEST = "ami-000000d4", "ami-000000d3", "ami-000000d2", "ami-000000d1"


@pytest.fixture
def site(tmp_path: Path) -> Environment:
    return small_site.write(tmp_path, lock=LOCK)


@pytest.fixture
def account() -> RetireAccount:
    """Return an account with the locked image, the one before, and four that nothing uses."""
    account = RetireAccount()
    account.add("ami-00000001", "2026-10-01")
    account.add("ami-000000ee", "2026-09-01")
    for ami, month in ((NEW, 8), (MIDDLE, 7), (OLD, 6), (OLDEST, 5)):
        account.add(ami, f"2026-{month:02}-01")
    return account


def find(
    root: Path, account: RetireAccount, environment: Environment, keep: int = 0
) -> dict[str, str | None]:
    found = find_retirable(root, cast("Any", account), environment, keep)
    return {image.ami: image.kept for image in found}


def run(
    root: Path, account: RetireAccount, environment: Environment, keep: int = 2, **words: Any
) -> dict[str, Any]:
    plan = Plan(
        run="2026-11-22",
        environment="dev",
        created="",
        options=Options(keep=keep),
        images=(),
        steps=(STEP,),
        world={},
    )
    context = Context(
        root=root,
        environment=environment,
        target=cast("Any", account),
        progress=Progress(),
        plan=plan,
        clock=Clock(now=lambda: datetime(2026, 11, 22, tzinfo=UTC)),
        **words,
    )
    return retire(context, STEP, pcluster_delete=account.pcluster_delete)


def test_the_locked_the_previous_and_the_last_verified_are_kept(
    tmp_path: Path, account: RetireAccount, site: Environment
) -> None:
    assert find(tmp_path, account, site, keep=2) == {
        "ami-00000001": "locked as compute of dev",
        "ami-000000ee": "the previous compute of dev",
        NEW: "one of the last 2 that were verified",
        MIDDLE: "one of the last 2 that were verified",
        OLD: None,
        OLDEST: None,
    }


def test_what_failed_its_verification_is_not_among_the_last(
    tmp_path: Path, account: RetireAccount, site: Environment
) -> None:
    account.add("ami-000000aa", "2026-09-15", verified="failed")
    account.add("ami-000000ab", "2026-09-16", verified="")
    found = find(tmp_path, account, site, keep=1)
    assert [ami for ami, kept in found.items() if kept is None] == [
        "ami-000000ab",
        "ami-000000aa",
        MIDDLE,
        OLD,
        OLDEST,
    ]


def test_the_last_of_each_image_are_kept(
    tmp_path: Path, account: RetireAccount, site: Environment
) -> None:
    account.add("ami-000000b1", "2026-05-01", image="admin")
    assert find(tmp_path, account, site, keep=1)["ami-000000b1"] is not None


def test_a_size_and_a_saving_are_told(
    tmp_path: Path, account: RetireAccount, site: Environment
) -> None:
    found = find_retirable(tmp_path, cast("Any", account), site, 0)[-1]
    assert (found.ami, found.gib, found.usd_month) == (OLDEST, 45, Decimal("2.25"))
    assert found.snapshots == ("snap-000000d1",)
    assert found.created == "2026-05-01T00:00:00.000Z"


def _pinned(root: Path, account: RetireAccount) -> None:
    lock = root / "ami" / "images.lock.yaml"
    lock.write_text(lock.read_text() + f"pins: {{dev: {{dev-eco: {{queues: {{eco: {OLD}}}}}}}}}\n")


def _locked_elsewhere(root: Path, account: RetireAccount) -> None:
    lock = root / "ami" / "images.lock.yaml"
    lock.write_text(lock.read_text().replace("ami-00000003", OLD))


def _named(root: Path, account: RetireAccount) -> None:
    (root / "cluster_configs" / "by-hand.yaml").write_text(f"Image: {{CustomAmi: {OLD}}}\n")


def _instance(state: str) -> Any:
    def use(root: Path, account: RetireAccount) -> None:
        instance = {"InstanceId": "i-1", "ImageId": OLD, "State": {"Name": state}}
        account.instances.append(instance)

    return use


def _template(version: str) -> Any:
    def use(root: Path, account: RetireAccount) -> None:
        account.templates["lt-1"] = {version: OLD}

    return use


def _parameter_in_template(root: Path, account: RetireAccount) -> None:
    account.templates["lt-1"] = {"$Latest": "resolve:ssm:/site/ami:3"}
    account.parameters["/site/ami"] = OLD


def _group(root: Path, account: RetireAccount) -> None:
    account.templates["lt-1"] = {"3": OLD, "$Latest": "ami-00000001"}
    template = {"LaunchTemplateId": "lt-1", "Version": "3"}
    account.groups.append({"AutoScalingGroupName": "login", "LaunchTemplate": template})


def _mixed_group(root: Path, account: RetireAccount) -> None:
    account.templates["lt-1"] = {"3": OLD, "$Latest": "ami-00000001"}
    template = {"LaunchTemplateSpecification": {"LaunchTemplateId": "lt-1", "Version": "3"}}
    policy = {"LaunchTemplate": template}
    account.groups.append({"AutoScalingGroupName": "login", "MixedInstancesPolicy": policy})


def _published(root: Path, account: RetireAccount) -> None:
    account.parameters["/clusterbox/dev/images/compute"] = OLD


def _shared(root: Path, account: RetireAccount) -> None:
    account.shared[OLD] = ["210987654321"]


def _pending(root: Path, account: RetireAccount) -> None:
    next(each for each in account.images if each["ImageId"] == OLD)["State"] = "pending"


@pytest.mark.parametrize(
    ("use", "reason"),
    [
        (_pinned, "pinned in cluster dev-eco of dev"),
        (_locked_elsewhere, "locked as compute of other"),
        (_named, "named in cluster_configs/by-hand.yaml"),
        (_instance("running"), "instance i-1 is running"),
        (_instance("stopped"), "instance i-1 is stopped"),
        (_instance("pending"), "instance i-1 is pending"),
        (_instance("terminated"), None),
        (_template("$Latest"), "a launch template's newest or default version"),
        (_template("$Default"), "a launch template's newest or default version"),
        (_template("1"), None),
        (_parameter_in_template, "a launch template's newest or default version"),
        (_group, "group login starts it"),
        (_mixed_group, "group login starts it"),
        (_published, "published as /clusterbox/dev/images/compute"),
        (_shared, "shared with 210987654321; take back the launch permission first"),
        (_pending, "it is being made"),
    ],
)
def test_what_is_used_is_kept_with_the_reason(
    use: Any, reason: str | None, tmp_path: Path, account: RetireAccount, site: Environment
) -> None:
    use(tmp_path, account)
    found = find(tmp_path, account, site)
    assert found[OLD] == reason
    assert found[OLDEST] is None


def test_what_is_newer_than_the_locked_one_may_be_promoted_still(
    tmp_path: Path, account: RetireAccount, site: Environment
) -> None:
    account.add("ami-000000aa", "2026-10-02", verified="")
    assert find(tmp_path, account, site)["ami-000000aa"] == "newer than the locked one"


def test_images_of_others_are_not_even_listed(
    tmp_path: Path, account: RetireAccount, site: Environment
) -> None:
    account.add("ami-000000aa", "2026-01-02", environment="other")
    account.images[-1]["Name"] = "compute"
    account.add("ami-000000ab", "2026-01-02")
    account.images[-1]["Tags"] = tags(Environment="dev")
    assert {"ami-000000aa", "ami-000000ab"}.isdisjoint(find(tmp_path, account, site))


@pytest.mark.parametrize(
    "call",
    [
        "describe_instances",
        "describe_launch_template_versions",
        "describe_auto_scaling_groups",
        "get_parameters_by_path",
        "describe_image_attribute",
    ],
)
@pytest.mark.parametrize("code", ["UnauthorizedOperation", "RequestLimitExceeded", "ExpiredToken"])
def test_nothing_goes_where_a_use_could_not_be_read(
    call: str, code: str, tmp_path: Path, account: RetireAccount, site: Environment
) -> None:
    before = account.amis()
    account.refuse[call] = [refusal(code)]
    with pytest.raises(StepFailedError, match=f"nothing is retired(.|\n)*{code}, says AWS"):
        run(tmp_path, account, site)
    account.refuse[call] = [refusal(code)]
    assert None not in find(tmp_path, account, site).values()
    assert account.amis() == before


def test_images_go_with_their_snapshots(
    tmp_path: Path, account: RetireAccount, site: Environment
) -> None:
    result = run(tmp_path, account, site)
    assert result["retired"] == [OLD, OLDEST]
    assert (result["freed_gib"], result["usd_month"]) == (90, "4.50")
    assert account.amis() == ["ami-00000001", MIDDLE, NEW, "ami-000000ee"]
    assert "snap-000000d1" not in account.snapshots
    assert len(account.snapshots) == 4
    assert run(tmp_path, account, site)["retired"] == []


def test_an_image_of_parallelcluster_goes_through_its_command(
    tmp_path: Path, account: RetireAccount, site: Environment
) -> None:
    account.add("ami-000000c1", "2026-01-01", image_id="dev-compute-2026-01-01")
    assert "ami-000000c1" in run(tmp_path, account, site)["retired"]
    assert account.deleted_by_pcluster == ["dev-compute-2026-01-01"]


def test_a_copy_with_the_same_name_of_parallelcluster_does_not_take_the_other_away(
    tmp_path: Path, account: RetireAccount, site: Environment
) -> None:
    account.add("ami-000000c1", "2026-01-01", image_id="same")
    account.add("ami-000000c2", "2026-01-02", image_id="same")
    account.instances.append(
        {"InstanceId": "i-1", "ImageId": "ami-000000c2", "State": {"Name": "running"}}
    )
    run(tmp_path, account, site)
    assert account.deleted_by_pcluster == []
    assert "ami-000000c2" in account.amis()
    assert "ami-000000c1" not in account.amis()


def test_what_comes_into_use_after_the_list_was_made_stays(
    tmp_path: Path, account: RetireAccount, site: Environment
) -> None:
    def use_the_oldest(_call: str) -> None:
        _instance("pending")(tmp_path, account)
        account.instances[-1]["ImageId"] = OLDEST

    account.before = use_the_oldest  # when the first image is deleted
    result = run(tmp_path, account, site)
    assert result["retired"] == [OLD]
    assert result["kept"][OLDEST] == "instance i-1 is pending"
    assert OLDEST in account.amis()


def test_a_failure_is_told_and_the_others_go(
    tmp_path: Path, account: RetireAccount, site: Environment
) -> None:
    account.refuse["deregister_image"] = [refusal("UnauthorizedOperation")]
    with pytest.raises(StepFailedError, match=rf"1 images are retired(.|\n)*{OLD} \(compute"):
        run(tmp_path, account, site)
    assert OLDEST not in account.amis()
    assert run(tmp_path, account, site)["retired"] == [OLD]


def test_a_refusal_of_pcluster_is_told(
    tmp_path: Path, account: RetireAccount, site: Environment
) -> None:
    account.add("ami-000000c1", "2026-01-01", image_id="busy")

    def refuse(_image_id: str) -> None:
        raise PclusterError("`pcluster delete-image`: has a running workflow")

    doomed = [
        image
        for image in find_retirable(tmp_path, cast("Any", account), site, 2)
        if image.kept is None
    ]
    failures = delete_retirable(
        tmp_path, cast("Any", account), site, doomed, 2, pcluster_delete=refuse
    )
    assert failures == [
        "ami-000000c1 (compute-2026-01-01): `pcluster delete-image`: has a running workflow"
    ]


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("at", range(6))
def test_after_a_kill_at_any_write_a_second_call_leaves_nothing_behind(
    at: int, tmp_path: Path, account: RetireAccount, site: Environment
) -> None:
    left = at

    def kill(_call: str) -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1

    account.before = kill
    with pytest.raises(Killed):
        run(tmp_path, account, site)
    account.before = lambda _call: None
    run(tmp_path, account, site)
    assert account.amis() == ["ami-00000001", MIDDLE, NEW, "ami-000000ee"]
    assert sorted(account.snapshots) == [
        "snap-00000001",
        "snap-000000d3",
        "snap-000000d4",
        "snap-000000ee",
    ]


def test_a_snapshot_that_another_image_needs_stays(
    tmp_path: Path, account: RetireAccount, site: Environment
) -> None:
    account.images.append(
        {
            "ImageId": "ami-0000beef",
            "Tags": [],
            "BlockDeviceMappings": [{"Ebs": {"SnapshotId": "snap-000000d1"}}],
        }
    )
    assert run(tmp_path, account, site)["retired"] == [OLD, OLDEST]
    assert "snap-000000d1" in account.snapshots


def test_an_image_that_is_gone_when_its_turn_comes_is_no_failure(
    tmp_path: Path, account: RetireAccount, site: Environment
) -> None:
    doomed = [
        Retirable(image="compute", ami="ami-0gone", name="", created="", gib=1, usd_month=None)
    ]
    assert delete_retirable(tmp_path, cast("Any", account), site, doomed, 2) == []


def test_the_record_names_what_went(
    tmp_path: Path, account: RetireAccount, site: Environment
) -> None:
    notes: list[SimpleNamespace] = []
    run(tmp_path, account, site, note=lambda event, **facts: notes.append(SimpleNamespace(**facts)))
    assert [(note.retired, note.gib) for note in notes] == [(OLD, 45), (OLDEST, 45)]


def test_snapshots_of_patched_head_nodes_go_but_for_the_last(
    tmp_path: Path, account: RetireAccount, site: Environment
) -> None:
    for environment, cluster in (("dev", "one"), ("dev", "two"), ("other", "one")):
        for day in range(1, 5):
            account.snapshots[f"snap-{environment}-{cluster}-{day}"] = {
                "clusterbox__run": f"2026-0{day}-01",
                "parallelcluster__cluster-name": cluster,
                "Environment": environment,
            }
    run(tmp_path, account, site, keep=1)
    left = sorted(name for name, own in account.snapshots.items() if "clusterbox__run" in own)
    assert left == [
        *(f"snap-dev-{cluster}-{day}" for cluster in ("one", "two") for day in (3, 4)),
        *(f"snap-other-one-{day}" for day in range(1, 5)),
    ]


def test_an_image_that_is_protected_against_deregistration_is_kept(
    tmp_path: Path, account: RetireAccount, site: Environment
) -> None:
    protected = next(image for image in account.images if image["ImageId"] == OLDEST)
    protected["DeregistrationProtection"] = "enabled-without-cooldown"
    kept = run(tmp_path, account, site)["kept"]
    assert kept[OLDEST] == "protected against deregistration (enabled-without-cooldown)"
    assert OLDEST in account.amis()


def test_an_image_that_was_never_locked_may_be_promoted_still(
    tmp_path: Path, account: RetireAccount, site: Environment
) -> None:
    account.add("ami-000000f1", "2026-11-22", image="admin", verified="")
    lock = tmp_path / "ami" / "images.lock.yaml"
    lock.write_text(re.sub(r"(?m)^    admin: .*00000002.*\n", "", lock.read_text()))
    why = find(tmp_path, account, site)["ami-000000f1"]
    assert why == "the lock has none of it yet: this one may be promoted still"


def test_a_template_with_an_image_of_aws_by_name_is_no_gap(
    tmp_path: Path, account: RetireAccount, site: Environment
) -> None:
    name = "resolve:ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
    account.templates["lt-1"] = {"$Latest": name}
    account.refuse["get_parameter"] = [refusal("AccessDeniedException")]
    assert run(tmp_path, account, site)["retired"] == [OLD, OLDEST]
    assert "get_parameter" not in account.calls
