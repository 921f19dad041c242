from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from clusterbox.aws import Account
from clusterbox.cli import costs_report
from clusterbox.cli.main import main
from clusterbox.costs.report import Report, make_report
from clusterbox.costs.report_history import read_days, write_day
from clusterbox.costs.report_selection import Selection
from clusterbox.deployment.targets import state_folder
from clusterbox.embedded.account import EmbeddedAccount
from clusterbox.errors import InputError
from tests.conftest import ROOT
from tests.costs.fake_account import (
    ACCOUNT,
    REGION,
    FakeClient,
    fake_account,
    instance,
    refusal,
    reservations,
)

COUNT = 1100  # More than one page of the largest size.


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the repository's environments, without anything else of it."""
    folder = tmp_path_factory.mktemp("site")
    for name in ("environments", "cluster_configs", "ami", "cdk.json"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture(scope="module")
def account(site: Path) -> Iterator[EmbeddedAccount]:
    """The embedded account of ws-dev with 1103 machines, and a few things that cost."""
    state = state_folder(site, "ws-dev")
    account = EmbeddedAccount.start(state, account=ACCOUNT, region=REGION)
    ec2: Any = account.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.64.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.64.0.0/20")["Subnet"]["SubnetId"]

    def start(name: str, kind: str, count: int, tags: dict[str, str]) -> list[str]:
        listed = [{"Key": key, "Value": value} for key, value in {"Name": name, **tags}.items()]
        answer = ec2.run_instances(
            ImageId="ami-067d504ae48dd3252",
            InstanceType=kind,
            MinCount=count,
            MaxCount=count,
            SubnetId=subnet,
            BlockDeviceMappings=[
                {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 60, "VolumeType": "gp3"}}
            ],
            TagSpecifications=[{"ResourceType": "instance", "Tags": listed}],
        )
        return [machine["InstanceId"] for machine in answer["Instances"]]

    start("node", "t3.small", COUNT, {"parallelcluster:cluster-name": "ws-eco"})
    start("ws-costanalyzer", "t3.small", 1, {"Owner": "butzer"})
    ec2.stop_instances(InstanceIds=start("ws-butzer-dev", "t3a.2xlarge", 1, {"Owner": "butzer"}))
    start("ws-odd", "t99.small", 1, {"Environment": "ws-dev"})
    ec2.create_volume(AvailabilityZone=f"{REGION}a", Size=500, VolumeType="gp3")
    ec2.create_launch_template(
        LaunchTemplateName="nodes", LaunchTemplateData={"ImageId": "ami-067d504ae48dd3252"}
    )
    s3: Any = account.client("s3")
    s3.create_bucket(Bucket="ws-out", CreateBucketConfiguration={"LocationConstraint": REGION})
    dimensions = [("BucketName", "ws-out"), ("StorageType", "StandardStorage")]
    account.client("cloudwatch").put_metric_data(
        Namespace="AWS/S3",
        MetricData=[
            {
                "MetricName": "BucketSizeBytes",
                "Dimensions": [{"Name": name, "Value": value} for name, value in dimensions],
                "Value": 1000.0 * 2**30,
            }
        ],
    )
    yield account
    EmbeddedAccount.stop(state)


def report(site: Path, *words: str) -> int:
    return main(["--root", str(site), "costs", "report", *words])


@pytest.mark.integration
def test_an_embedded_account_is_reported_page_by_page_without_a_gap(
    site: Path, account: EmbeddedAccount, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(site, "--format", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["partial"], found["gaps"]) == (False, [])
    kinds = {total["name"]: total for total in found["totals"]["kind"]}
    assert kinds["instance"]["items"] == COUNT + 3
    assert kinds["volume"]["items"] == COUNT + 4
    # 1101 x .0208 x 730; 1103 x 60 x .08 and 500 x .08; 1000 x .023.
    assert kinds["instance"]["now"] == "16717.584"
    assert kinds["volume"]["now"] == "5334.4"
    assert kinds["S3"]["now"] == "23"
    assert found["total"]["unpriced"] == 1
    clusters = {total["name"]: total["items"] for total in found["totals"]["cluster"]}
    assert clusters["ws-eco"] == 2 * COUNT
    (orphan,) = found["orphans"]
    assert (orphan["kind"], orphan["saves"]) == ("volume", "40")


@pytest.mark.integration
def test_the_table_has_the_columns_of_old_then_the_running_machines(
    site: Path, account: EmbeddedAccount, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(site, "--prefix", "ws-c", "--prefix", "ws-b") == 0
    machines, running = capsys.readouterr().out.split("Machines")[1].split("Running machines")
    rows = [line.split() for line in machines.strip().splitlines()]
    assert rows[0][:5] == ["state", "name", "ip", "type", "monthly_cost"]
    assert rows[2][:2] + rows[2][3:] == [
        *("stopped", "ws-butzer-dev", "t3a.2xlarge"),
        *("219.584", "4.800", "4.800", "224.384"),
    ]
    assert "ws-costanalyzer" in running
    assert "ws-butzer-dev" not in running.split("Totals")[0]


@pytest.mark.integration
def test_an_environment_is_reported_with_its_clusters_and_buckets(
    site: Path, account: EmbeddedAccount, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(site, "--environment", "ws-dev", "--format", "csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {row["environment"] for row in rows} == {"ws-dev"}
    assert {row["name"] for row in rows} == {"node", "ws-odd", "ws-out", ""}
    (odd,) = [row for row in rows if row["name"] == "ws-odd"]
    assert odd["monthly_now"] == ""
    assert "t99.small" in odd["unknown"]


@pytest.mark.integration
def test_files_are_written_whole_and_the_history_is_kept(
    site: Path, account: EmbeddedAccount, tmp_path: Path
) -> None:
    words = ["--tag", "Owner=butzer", "--history", str(tmp_path / "days")]
    page = tmp_path / "costs.html"
    assert report(site, *words, "--format", "html", "--output", str(page)) == 0
    assert report(site, *words, "--format", "markdown", "--output", str(tmp_path / "c.md")) == 0
    assert page.read_text(encoding="utf-8").endswith("</html>\n")
    assert "| stopped | ws-butzer-dev |" in (tmp_path / "c.md").read_text(encoding="utf-8")
    (day,) = read_days(tmp_path / "days")
    assert str(day.now) == "24.784"
    assert {path.name for path in tmp_path.iterdir()} == {"costs.html", "c.md", "days"}


@pytest.mark.integration
def test_a_second_region_is_read_too(
    site: Path, account: EmbeddedAccount, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(site, "--region", REGION, "--region", "us-east-1", "--format", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [place["region"] for place in found["places"]] == ["us-east-1", REGION]
    assert {item["region"] for item in found["items"]} == {REGION}


@pytest.mark.integration
def test_an_account_without_a_way_in_is_named(
    site: Path, account: EmbeddedAccount, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(site, "--account", "111122223333") == 2
    assert "there is no way into it" in capsys.readouterr().err
    assert report(site, "--environment", "sandbox") == 1
    assert "clusterbox embedded up sandbox" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--environment", "nowhere"], "there is no environment nowhere"),
        (["--profile", "x"], "are of --target aws"),
        (["--target", "aws", "--role-arn", "reader"], "is not the ARN of a role"),
    ],
)
def test_bad_input_is_told_at_once(
    words: list[str], message: str, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(site, *words) == 2
    assert message in capsys.readouterr().err


def test_a_tag_needs_a_value(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        report(site, "--tag", "Owner")
    assert "'Owner' is not KEY=VALUE" in capsys.readouterr().err


def test_without_an_embedded_account_it_says_how_to_start_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("environments", "cluster_configs", "ami", "cdk.json"):
        (tmp_path / name).symlink_to(ROOT / name)
    assert report(tmp_path) == 1
    assert "no embedded account runs; start one" in capsys.readouterr().err


def test_without_credentials_nothing_is_printed(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ROLE_ARN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    assert report(site, "--target", "aws") == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Sign in first" in shown.err


# AWS, with the answers of a fake session.


class FakeLogin:
    def __init__(self, account: str) -> None:
        self.account = account

    def open(self, region: str) -> Account:
        return fake_account(
            {"ec2.describe_volumes": [refusal("UnauthorizedOperation")]}, self.account
        )


def sign_in_as(account: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clusterbox.aws.sign_in", lambda _region, _profile: FakeLogin(account))


def test_a_partial_report_is_printed_and_ends_with_1(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_in_as(ACCOUNT, monkeypatch)
    assert report(site, "--target", "aws", "--environment", "ws-dev") == 1
    shown = capsys.readouterr()
    assert shown.out.startswith("PARTIAL: ")
    assert "Partial: what could not be read" in shown.out
    assert "allow ec2:DescribeVolumes" in shown.err


def test_credentials_of_another_account_are_refused(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_in_as("111122223333", monkeypatch)
    assert report(site, "--target", "aws", "--environment", "ws-dev") == 2
    assert f"ws-dev is in account {ACCOUNT}" in capsys.readouterr().err


def test_a_role_that_is_refused_leaves_the_other_account(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_in_as("111122223333", monkeypatch)

    class Session:
        def client(self, service: str, **_words: Any) -> Any:
            return FakeClient(service, {"sts.assume_role": [refusal("AccessDenied")]})

    monkeypatch.setattr(FakeLogin, "session", Session(), raising=False)
    words = ["--target", "aws", "--role-arn", f"arn:aws:iam::{ACCOUNT}:role/reader"]
    assert report(site, *words, "--format", "json") == 1
    found = json.loads(capsys.readouterr().out)
    assert [place["account"] for place in found["places"]] == ["111122223333"]
    assert {gap["permission"] for gap in found["gaps"]} == {"sts:AssumeRole", "ec2:DescribeVolumes"}


def test_the_formats_of_a_report_are_those_of_tables_and_a_page() -> None:
    assert costs_report.REPORT_FORMATS == ("table", "csv", "json", "markdown", "html")


# History.


def small_report(made: datetime, *prefixes: str) -> Report:
    from clusterbox.costs.prices import load_prices

    page = reservations([instance("ws-a", "t3.small")])
    return make_report(
        [fake_account({"ec2.describe_instances": [page]})],
        prices=load_prices,
        environments=[],
        used=frozenset(),
        selection=Selection(prefixes),
        made=made,
    )


FIRST = datetime(2026, 11, 21, 6, tzinfo=UTC)
SECOND = datetime(2026, 11, 22, 6, tzinfo=UTC)


def test_days_are_kept_and_a_second_report_of_a_day_replaces_the_first(tmp_path: Path) -> None:
    for made in (FIRST, SECOND, SECOND.replace(hour=9)):
        write_day(tmp_path, small_report(made))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "2026-11-21.json",
        "2026-11-22.json",
    ]
    assert [(str(day.day), str(day.now)) for day in read_days(tmp_path)] == [
        ("2026-11-21", "15.184"),
        ("2026-11-22", "15.184"),
    ]


def test_a_folder_of_another_selection_is_refused_and_kept(tmp_path: Path) -> None:
    write_day(tmp_path, small_report(FIRST))
    with pytest.raises(InputError, match="give each a folder of its own"):
        write_day(tmp_path, small_report(SECOND, "ws-"))
    assert len(read_days(tmp_path)) == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "clusterbox-cost-day 1"}'])
def test_a_damaged_day_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "2026-11-21.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"2026-11-21\.json: is not a day of cost reports"):
        read_days(tmp_path)
