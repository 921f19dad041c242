from __future__ import annotations

import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterbox.aws import Account, Gap
from clusterbox.costs.item import Item
from clusterbox.costs.prices import load_prices
from clusterbox.costs.report import GROUPS, Report, make_report, sum_items, to_frame
from clusterbox.costs.report_prices import Cost
from clusterbox.costs.report_selection import Selection
from clusterbox.costs.report_tables import Section, make_document, make_sections
from clusterbox.errors import InputError
from clusterbox.site.load import Repository
from tests.conftest import ROOT
from tests.costs.fake_account import (
    ACCOUNT,
    NOW,
    REGION,
    Answer,
    fake_account,
    instance,
    refusal,
    reservations,
    tag_list,
    volume,
)

PRICES = load_prices(REGION)
ENVIRONMENTS = [Repository(ROOT).load_environment(name) for name in ("ws-dev", "sandbox")]

# What the prototype's `daily-ws-costs` printed for two accounts.
SEED = """
running     ws-costanalyzer  10.12.65.189     t3.small        15.184
stopped       ws-butzer-dev  10.12.65.180  t3a.2xlarge       219.584
stopped     ws-gparrish-dev  10.12.65.226  m6i.2xlarge       280.320
stopped      ws-pc-adminbox   10.12.65.33   t3a.medium        27.448
stopped     ws-ami-examiner  10.12.67.113   t3a.medium        27.448
stopped            ws-ami-2  10.12.67.199   t3a.medium        27.448
stopped      ws-ldap-tester  10.12.64.214   t3a.medium        27.448
stopped        ws-data-xfer  10.12.64.158   t3a.xlarge       109.792
stopped  ws-machinelearning  10.12.66.139  t3a.2xlarge       219.584
stopped      ws-ssebop-prod   10.12.66.40   m5.8xlarge      1121.280
stopped        ws-veget-dev  10.12.67.239  m6i.2xlarge       280.320
stopped          ws-kul-dev  10.12.64.123  r6a.2xlarge       331.128
stopped            HeadNode  10.12.64.196    t3.medium        30.368
"""
SEED_2 = """
stopped      mhasan-dev   10.12.71.39    t3a.large        54.896
running      butzer-dev    10.12.71.5  t3a.2xlarge       219.584
stopped  kruslander-dev  10.12.71.114    t3a.large        54.896
stopped      mlubke-dev  10.12.70.140    t3a.large        54.896
stopped      ashish-dev   10.12.70.88   r5a.xlarge       164.980
stopped    asampath-dev  10.12.70.199  t3a.2xlarge       219.584
"""


def report_of(*accounts: Account, selection: Selection | None = None, **more: Any) -> Report:
    return make_report(
        accounts,
        prices=lambda _region: PRICES,
        environments=more.pop("environments", ENVIRONMENTS),
        used=frozenset(more.pop("used", ())),
        selection=selection or Selection(),
        made=NOW,
        **more,
    )


def report_on(answers: Mapping[str, Sequence[Answer]], **more: Any) -> Report:
    return report_of(fake_account(answers), **more)


def machines(*given: Mapping[str, Any], **more: Any) -> Report:
    return report_on({"ec2.describe_instances": [reservations(given)]}, **more)


def section(report: Report, title: str) -> Section:
    (found,) = [section for section in make_sections(report) if section.title == title]
    return found


def seed_machines(text: str) -> list[dict[str, Any]]:
    rows = [line.split() for line in text.strip().splitlines()]
    return [instance(name, kind, state, ip) for state, name, ip, kind, _cost in rows]


@pytest.mark.parametrize(
    ("text", "total", "running"), [(SEED, "2717.352", "15.184"), (SEED_2, "768.836", "219.584")]
)
def test_the_tables_of_the_prototype_are_reproduced_to_the_cent(
    text: str, total: str, running: str
) -> None:
    report = machines(*seed_machines(text))
    expected = sorted(line.split() for line in text.strip().splitlines())
    table = section(report, "Machines")
    assert table.columns[:5] == ("state", "name", "ip", "type", "monthly_cost")
    assert sorted(list(row[:5]) for row in table.rows[:-1]) == expected
    assert table.rows[-1][0] == "total"
    assert table.rows[-1][4] == total
    alone = section(report, "Running machines")
    assert sorted(list(row[:5]) for row in alone.rows[:-1]) == [
        row for row in expected if row[0] == "running"
    ]
    assert alone.rows[-1][4] == running
    # What the prototype had wrong: only machines that run cost now.
    assert report.total.now == Decimal(running)
    assert report.total.if_running == Decimal(total)


def test_both_accounts_in_one_report_have_their_sum() -> None:
    first = {"ec2.describe_instances": [reservations(seed_machines(SEED))]}
    second = {"ec2.describe_instances": [reservations(seed_machines(SEED_2))]}
    report = report_of(fake_account(first), fake_account(second, "111122223333"))
    assert report.total.if_running == Decimal("3486.188")
    assert [total.name for total in report.totals("account")] == ["111122223333", ACCOUNT]
    assert section(report, "Machines").columns[-2:] == ("account", "region")


def test_a_stopped_machine_costs_its_disks_and_both_figures_are_shown() -> None:
    box = instance(
        "box",
        "t3a.medium",
        "stopped",
        tags={"Owner": "butzer", "Project": "WaterSMART"},
        BlockDeviceMappings=[{"Ebs": {"VolumeId": "v1"}}, {"Ebs": {"VolumeId": "v2"}}],
    )
    volumes = [volume("v1", 60, "i-box"), volume("v2", 40, "i-box")]
    report = report_on(
        {
            "ec2.describe_instances": [reservations([box])],
            "ec2.describe_volumes": [{"Volumes": volumes}],
        }
    )
    assert section(report, "Machines").rows[0] == (
        *("stopped", "box", "", "t3a.medium"),
        *("27.448", "8.000", "8.000", "35.448"),
    )
    assert report.total.now == Decimal(8)
    # Its disks are what the state, the owner and the project cost.
    for group, name in (("state", "stopped"), ("owner", "butzer"), ("project", "WaterSMART")):
        (total,) = report.totals(group)
        assert (total.name, total.now, total.items) == (name, Decimal(8), 3)


def test_disks_that_could_not_be_read_are_not_nothing() -> None:
    box = instance("box", "t3a.medium", BlockDeviceMappings=[{"Ebs": {"VolumeId": "v1"}}])
    report = report_on(
        {
            "ec2.describe_instances": [reservations([box])],
            "ec2.describe_volumes": [refusal("UnauthorizedOperation")],
        }
    )
    row = section(report, "Machines").rows[0]
    assert row[4:] == ("27.448", "not priced", "not priced", "not priced")


def test_what_could_not_be_read_makes_the_report_partial_and_says_what_to_allow() -> None:
    report = report_on({"efs.describe_file_systems": [refusal("AccessDeniedException")]})
    assert report.is_partial
    (row,) = section(report, "Partial: what could not be read").rows
    assert row[:5] == (
        *(ACCOUNT, REGION, "efs:DescribeFileSystems", "denied"),
        "elasticfilesystem:DescribeFileSystems",
    )
    assert make_document(report)["partial"] is True


def test_credentials_that_expire_in_the_middle_keep_what_was_read() -> None:
    pages: list[Answer] = [reservations([instance("a", "t3.small")]), refusal("ExpiredToken")]
    report = report_on({"ec2.describe_instances": pages})
    assert [item.name for item in report.items] == ["a"]
    assert report.gaps[0].reason == "expired"


def test_an_account_that_nobody_let_us_into_is_told() -> None:
    gap = Gap("111122223333", REGION, "sts:AssumeRole", "denied", "no", "sts:AssumeRole")
    assert report_of(fake_account({}), gaps=[gap]).gaps == (gap,)


def test_a_total_of_unknown_and_free_things_is_not_zero() -> None:
    report = machines(instance("a", "t9.small"), instance("b", "t3.small", "stopped"))
    assert report.total.now is None
    assert report.total.unpriced == 1
    assert report.total.if_running == Decimal("15.184")
    assert section(report, "Not priced, which is not nothing").rows[0][:2] == ("instance", "1")


# Selections.


def test_names_are_selected_by_prefix_with_their_disks() -> None:
    page = reservations([instance("ws-a", "t3.small"), instance("nlcd-b", "t3.small")])
    volumes = [volume("v1", 10, "i-ws-a"), volume("v2", 10, "i-nlcd-b"), volume("v3", 10)]
    answers: dict[str, list[Answer]] = {
        "ec2.describe_instances": [page],
        "ec2.describe_volumes": [{"Volumes": volumes}],
    }
    report = report_on(answers, selection=Selection(prefixes=("ws-", "x")))
    assert {item.id for item in report.items} == {"i-ws-a", "v1"}
    # The disk that is attached to nothing is of nobody, and not of this report.
    assert report.orphans == ()
    assert str(report.selection) == "names with ws-*, names with x*"


def test_all_tags_of_a_selection_have_to_be_there() -> None:
    both = {"Owner": "butzer", "Project": "x"}
    given = [
        instance("a", "t3.small", tags=both),
        instance("b", "t3.small", tags={"Owner": "butzer"}),
    ]
    selection = Selection(tags=(("Owner", "butzer"), ("Project", "x")))
    assert [item.name for item in machines(*given, selection=selection).items] == ["a"]


def test_an_environment_has_its_tagged_things_its_clusters_and_what_its_file_names() -> None:
    given = [
        instance("tagged", "t3.small", tags={"Environment": "ws-dev"}),
        instance("node", "t3.small", tags={"parallelcluster:cluster-name": "ws-eco"}),
        instance("other", "t3.small"),
    ]
    system = {"FileSystemId": "fs", "LifeCycleState": "available", "SizeInBytes": {"Value": 0}}
    answers: dict[str, list[Answer]] = {
        "ec2.describe_instances": [reservations(given)],
        "s3.list_buckets": [{"Buckets": [{"Name": "ws-out"}, {"Name": "foreign"}]}],
        "efs.describe_file_systems": [{"FileSystems": [system]}],
    }
    report = report_on(answers, selection=Selection(environments=("ws-dev",)))
    assert {item.id for item in report.items} == {"i-tagged", "i-node", "ws-out"}


# Orphans.


def orphans(answers: Mapping[str, Sequence[Answer]], **more: Any) -> dict[str, Decimal | None]:
    return {orphan.id: orphan.saves for orphan in report_on(answers, **more).orphans}


def test_a_volume_without_an_instance_is_an_orphan() -> None:
    volumes = [volume("free", 500), volume("used", 10, "i-box")]
    assert orphans({"ec2.describe_volumes": [{"Volumes": volumes}]}) == {"free": Decimal(40)}


def test_an_address_that_is_associated_with_nothing_is_an_orphan() -> None:
    addresses = [
        {"AllocationId": "free", "PublicIp": "1.1.1.1"},
        {"AllocationId": "used", "PublicIp": "1.1.1.2", "AssociationId": "a"},
    ]
    answers = {"ec2.describe_addresses": [{"Addresses": addresses}]}
    assert orphans(answers) == {"free": Decimal("3.65")}


def image(identity: str, *snapshots: str, days: int = 100) -> dict[str, Any]:
    return {
        "ImageId": identity,
        "Name": identity,
        "State": "available",
        "CreationDate": (NOW - timedelta(days=days)).isoformat().replace("+00:00", "Z"),
        "BlockDeviceMappings": [{"Ebs": {"SnapshotId": key}} for key in snapshots],
    }


def snapshot(identity: str, **more: Any) -> dict[str, Any]:
    entry = {"SnapshotId": identity, "VolumeSize": 40, "State": "completed", "StartTime": NOW}
    return {**entry, "VolumeId": "vol-ffffffff", **more}


IMAGES: dict[str, list[Answer]] = {
    "ec2.describe_images": [
        {
            "Images": [
                image("old", "s1", "shared"),
                image("locked", "s2", "shared"),
                image("started", "s3"),
                image("in-template", "s4"),
                image("young", "s5", days=10),
            ]
        }
    ],
    "ec2.describe_snapshots": [
        {"Snapshots": [snapshot(key) for key in ("s1", "s2", "s3", "s4", "s5", "shared", "alone")]}
    ],
    "ec2.describe_instances": [reservations([instance("box", "t3.small", ImageId="started")])],
    "ec2.describe_launch_template_versions": [
        {"LaunchTemplateVersions": [{"LaunchTemplateData": {"ImageId": "in-template"}}]}
    ],
}


def test_an_old_image_in_no_lock_template_or_instance_is_an_orphan_with_its_own_snapshots() -> None:
    assert orphans(IMAGES, used=["locked"]) == {"old": Decimal(2), "alone": Decimal(2)}


@pytest.mark.parametrize(
    "operation", ["ec2.describe_instances", "ec2.describe_launch_template_versions"]
)
def test_no_image_is_an_orphan_where_its_uses_could_not_be_read(operation: str) -> None:
    answers: dict[str, Sequence[Answer]] = {**IMAGES, operation: [refusal("UnauthorizedOperation")]}
    assert orphans(answers) == {}


@pytest.mark.parametrize("operation", ["ec2.describe_images", "ec2.describe_volumes"])
def test_no_snapshot_is_an_orphan_where_what_needs_it_could_not_be_read(operation: str) -> None:
    answers: dict[str, Sequence[Answer]] = {**IMAGES, operation: [refusal("UnauthorizedOperation")]}
    assert "alone" not in orphans(answers)


def test_snapshots_of_a_volume_and_of_aws_backup_are_no_orphans() -> None:
    text = "This snapshot is created by the AWS Backup service."
    given = [snapshot("of-volume", VolumeId="v"), snapshot("of-backup", Description=text)]
    answers: dict[str, list[Answer]] = {
        "ec2.describe_snapshots": [{"Snapshots": given}],
        "ec2.describe_volumes": [{"Volumes": [volume("v", 1, "i-box")]}],
    }
    assert orphans(answers) == {}


def test_what_backups_plans_made_is_no_orphan() -> None:
    backup = {**image("backup", "s1"), "Tags": tag_list({"aws:backup:source-resource": "i-1"})}
    plan = snapshot("plan", Tags=tag_list({"aws:dlm:lifecycle-policy-id": "policy-1"}))
    answers: dict[str, list[Answer]] = {
        "ec2.describe_images": [{"Images": [backup]}],
        "ec2.describe_snapshots": [{"Snapshots": [snapshot("s1"), plan]}],
    }
    assert orphans(answers) == {}


def test_an_image_that_another_account_uses_is_no_orphan() -> None:
    owner = {"ec2.describe_images": [{"Images": [image("shared"), image("old")]}]}
    user = {"ec2.describe_instances": [reservations([instance("a", "t3.small", ImageId="shared")])]}
    report = report_of(fake_account(owner), fake_account(user, "111122223333"))
    assert [orphan.id for orphan in report.orphans] == ["old"]
    denied: dict[str, Sequence[Answer]] = {
        "ec2.describe_instances": [refusal("UnauthorizedOperation")]
    }
    assert not report_of(fake_account(owner), fake_account(denied, "111122223333")).orphans
    shut = Gap("1" * 12, REGION, "sts:AssumeRole", "denied", "", "sts:AssumeRole")
    assert not report_of(fake_account(owner), gaps=[shut]).orphans


def templates(**data: Any) -> dict[str, list[Answer]]:
    return {
        "ec2.describe_launch_template_versions": [
            {"LaunchTemplateVersions": [{"LaunchTemplateData": data}]}
        ],
        "ec2.describe_images": [{"Images": [image("old")]}],
        "ec2.describe_snapshots": [{"Snapshots": [snapshot("data")]}],
    }


def test_a_snapshot_that_a_launch_template_starts_from_is_no_orphan() -> None:
    assert set(orphans(templates())) == {"old", "data"}
    disks = [{"DeviceName": "/dev/sdf", "Ebs": {"SnapshotId": "data"}}, {"VirtualName": "x"}]
    assert set(orphans(templates(BlockDeviceMappings=disks))) == {"old"}


def test_an_image_that_a_parameter_may_name_is_no_orphan() -> None:
    assert orphans(templates(ImageId="resolve:ssm:/site/image")) == {}
    assert "old" in orphans(templates(ImageId="resolve:ssm:/aws/service/ami-amazon-linux-latest/a"))


def test_what_files_of_the_repository_name_is_no_orphan() -> None:
    answers: dict[str, list[Answer]] = {
        **templates(),
        "ec2.describe_volumes": [{"Volumes": [volume("disk", 5)]}],
        "ec2.describe_addresses": [
            {"Addresses": [{"AllocationId": "door", "PublicIp": "1.1.1.1"}]}
        ],
    }
    assert set(orphans(answers)) == {"old", "data", "disk", "door"}
    assert orphans(answers, used=["old", "data", "disk", "door"]) == {}


def test_a_snapshot_says_that_its_data_may_be_nowhere_else() -> None:
    given = [snapshot("copy"), snapshot("rest", VolumeId="gone")]
    report = report_on({"ec2.describe_snapshots": [{"Snapshots": given}]})
    copy, rest = report.orphans
    assert copy.why.startswith("a copy")
    assert rest.why.startswith("its volume is gone")
    assert all("look first" in str(orphan.note) for orphan in report.orphans)


@pytest.mark.parametrize(
    ("busiest", "hours", "expected"),
    [
        (2.0, 30, {"i-ws-pc-adminbox": Decimal("27.448")}),
        (35.0, 30, {}),
        (2.0, 5, {}),
        (None, 30, {}),
    ],
)
def test_an_admin_box_that_runs_without_work_is_an_orphan(
    busiest: float | None, hours: int, expected: Mapping[str, Decimal]
) -> None:
    started = NOW - timedelta(hours=hours)
    box = instance("ws-pc-adminbox", "t3a.medium", LaunchTime=started)
    other = instance("other", "t3a.medium", LaunchTime=started)
    points = [] if busiest is None else [{"Average": busiest}]
    answers: dict[str, list[Answer]] = {
        "ec2.describe_instances": [reservations([box, other])],
        "cloudwatch.get_metric_statistics": [{"Datapoints": points}],
    }
    assert orphans(answers) == expected


# Untagged.


def tagged(name: str, kind: str = "t3.small", **tags: str) -> dict[str, Any]:
    return {**instance(name, kind), "Tags": tag_list({"Name": name, **tags})}


def test_what_lacks_a_tag_is_reported_by_name_with_what_it_lacks_the_dearest_first() -> None:
    report = machines(
        tagged("whole", Owner="ada", Project="p", Environment="ws-dev"),
        tagged("node", Owner="ada", Project="p", **{"parallelcluster:cluster-name": "ws-eco"}),
        tagged("cheap", Owner="ada"),
        tagged("dear", "m5.8xlarge"),
        tagged("odd", "t9.small", Owner="ada"),
    )
    assert section(report, "Untagged").rows == (
        ("instance", "dear", "i-dear", "Owner, Project, Environment", "1121.28"),
        ("instance", "cheap", "i-cheap", "Project, Environment", "15.18"),
        ("instance", "odd", "i-odd", "Project, Environment", "not priced"),
        ("total", "3 items", "", "without 1 that are not priced", "1136.46"),
    )


def test_a_report_whose_things_all_have_tags_has_no_such_table() -> None:
    report = machines(tagged("whole", Owner="ada", Project="p", Environment="ws-dev"))
    assert "Untagged" not in [table.title for table in make_sections(report)]


def test_an_account_without_tags_is_not_listed_twice() -> None:
    rows = section(machines(*(tagged(f"n{number}") for number in range(60))), "Untagged").rows
    assert len(rows) == 52
    assert rows[50][1:] == ("10 more, all of them in CSV and JSON", "", "", "151.84")
    assert rows[51][1] == "60 items"


# A DataFrame.


def test_a_report_is_a_data_frame_in_one_call() -> None:
    frame = to_frame(machines(*seed_machines(SEED), instance("odd", "t9.small")))
    assert len(frame) == 14
    assert round(float(frame["monthly_if_running"].sum()), 3) == 2717.352
    odd = frame[frame.name == "odd"].iloc[0]
    assert odd.isna()["monthly_now"]
    assert "t9.small" in odd["unknown"]
    assert str(frame["created"].dtype).endswith("UTC]")
    assert list(to_frame(machines()).columns) == list(frame.columns)


def test_without_pandas_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="extra `pandas`"):
        to_frame(machines())


# Properties.

costs = st.one_of(
    st.builds(
        lambda now, more: Cost(now, now + more),
        st.decimals(0, 10_000, places=6),
        st.decimals(0, 10_000, places=6),
    ),
    st.just(Cost(None, None, "unknown")),
    st.just(Cost(Decimal(0), None, "unknown")),
)
kinds = st.sampled_from(["instance", "volume", "S3", "EFS"])
words = st.sampled_from(["", "a", "b"])
made_items = st.lists(
    st.builds(
        lambda kind, cost, owner, state: Item(
            ACCOUNT, REGION, kind, "", owner=owner, cluster=owner, state=state, cost=cost
        ),
        kinds,
        costs,
        words,
        words,
    ),
    max_size=30,
).map(lambda items: [replace(item, id=f"id-{index}") for index, item in enumerate(items)])


def made_report(items: Sequence[Item]) -> Report:
    return Report(NOW, Selection(), ((ACCOUNT, REGION),), (), tuple(items), (), ())


@given(made_items)
def test_totals_are_sums_of_their_parts(items: list[Item]) -> None:
    report = made_report(items)
    for group in GROUPS:
        totals = report.totals(group)
        assert sum(total.items for total in totals) == len(items)
        assert sum(total.unpriced for total in totals) == report.total.unpriced
        for figure in ("now", "if_running"):
            parts = [getattr(total, figure) or Decimal(0) for total in totals]
            assert sum(parts, Decimal(0)) == (getattr(report.total, figure) or Decimal(0))


@given(made_items)
def test_unknown_never_becomes_zero_and_nothing_is_negative(items: list[Item]) -> None:
    for total in made_report(items).totals("owner"):
        assert total.now is None or total.now >= 0
        members = [item for item in items if (item.owner or "(none)") == total.name]
        if any(item.cost.now is None for item in members):
            assert total.now is None or total.now > 0
            assert total.unpriced > 0


@given(made_items, st.randoms(use_true_random=False))
def test_the_order_of_items_makes_no_difference(items: list[Item], dice: random.Random) -> None:
    shuffled = list(items)
    dice.shuffle(shuffled)
    assert sum_items("all", shuffled) == sum_items("all", items)


machine_lists = st.lists(
    st.tuples(
        st.sampled_from(["t3.small", "m5.8xlarge", "t9.small"]),
        st.sampled_from(["running", "stopped", "pending"]),
        st.integers(0, 2),
    ),
    max_size=12,
)


@given(machine_lists, st.integers(1, 5), st.randoms(use_true_random=False))
def test_how_aws_orders_and_pages_makes_no_difference(
    chosen: list[tuple[str, str, int]], size: int, dice: random.Random
) -> None:
    given: list[dict[str, Any]] = []
    volumes: list[dict[str, Any]] = []
    for index, (kind, state, disks) in enumerate(chosen):
        keys = [f"v{index}-{number}" for number in range(disks)]
        mappings = [{"Ebs": {"VolumeId": key}} for key in keys]
        tags = tag_list({"Name": f"box{index % 3}"})
        box = instance(f"box{index}", kind, state, BlockDeviceMappings=mappings)
        given.append({**box, "Tags": tags})
        volumes += [volume(key, 10, f"i-box{index}") for key in keys]
    whole: dict[str, list[Answer]] = {
        "ec2.describe_instances": [reservations(given)],
        "ec2.describe_volumes": [{"Volumes": volumes}],
    }
    dice.shuffle(given)
    dice.shuffle(volumes)
    paged: dict[str, list[Answer]] = {
        "ec2.describe_instances": [
            reservations(given[at : at + size]) for at in range(0, len(given) + 1, size)
        ],
        "ec2.describe_volumes": [
            {"Volumes": volumes[at : at + size]} for at in range(0, len(volumes) + 1, size)
        ],
    }
    assert make_document(report_on(whole)) == make_document(report_on(paged))
