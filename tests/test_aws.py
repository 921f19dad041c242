from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.exceptions import NoCredentialsError, ParamValidationError
from botocore.stub import Stubber

from clusterbox.aws import (
    Account,
    Gap,
    Login,
    account_of_role,
    assume_role,
    read_times_quickly,
    sign_in,
    tags_of,
)
from clusterbox.errors import InputError
from tests.costs.fake_account import (
    ACCOUNT,
    REGION,
    Answer,
    FakeClient,
    fake_account,
    refusal,
)

ROLE = "arn:aws:iam::111122223333:role/reader"


def volumes(account: Account) -> list[str]:
    found = account.pages("ec2", "describe_volumes", "Volumes", page_size=5)
    return [volume["VolumeId"] for volume in found]


def test_all_pages_of_a_real_client_are_read_with_the_size_that_was_asked_for() -> None:
    client: Any = boto3.client(
        "ec2", region_name=REGION, aws_access_key_id="test", aws_secret_access_key="test"
    )
    with Stubber(client) as stub:
        first = {"Volumes": [{"VolumeId": "a"}, {"VolumeId": "b"}], "NextToken": "more"}
        stub.add_response("describe_volumes", first, {"MaxResults": 5})
        last = {"Volumes": [{"VolumeId": "c"}]}
        stub.add_response("describe_volumes", last, {"MaxResults": 5, "NextToken": "more"})
        account = Account(ACCOUNT, REGION, lambda _service: client)
        assert volumes(account) == ["a", "b", "c"]
        assert account.gaps == []


def test_pages_are_read_when_they_are_needed() -> None:
    account = fake_account({"ec2.describe_volumes": [{"Volumes": [{}]}, RuntimeError("too early")]})
    assert next(account.pages("ec2", "describe_volumes", "Volumes")) == {}


@pytest.mark.parametrize(
    ("code", "reason", "todo"),
    [
        ("UnauthorizedOperation", "denied", "allow ec2:DescribeVolumes"),
        ("AccessDeniedException", "denied", "allow ec2:DescribeVolumes"),
        ("ExpiredToken", "expired", "sign in again"),
        ("RequestExpired", "expired", "sign in again"),
        ("InternalError", "failed", "try again later"),
        ("RequestLimitExceeded", "failed", "try again later"),
    ],
)
def test_a_refusal_in_the_middle_keeps_what_was_read_and_is_a_gap(
    code: str, reason: str, todo: str
) -> None:
    pages: list[Answer] = [{"Volumes": [{"VolumeId": "a"}]}, refusal(code)]
    account = fake_account({"ec2.describe_volumes": pages})
    assert volumes(account) == ["a"]
    (gap,) = account.gaps
    assert (gap.account, gap.region, gap.call) == (ACCOUNT, REGION, "ec2:DescribeVolumes")
    assert gap.reason == reason
    assert str(gap).endswith(todo)
    assert account.lacks("ec2:DescribeVolumes")
    assert not account.lacks("ec2:DescribeImages")


def test_after_credentials_expired_nothing_more_is_asked() -> None:
    answers = {"ec2.describe_volumes": [refusal("ExpiredToken")]}
    account = fake_account({**answers, "efs.describe_file_systems": [RuntimeError("asked")]})
    assert volumes(account) == []
    assert list(account.pages("efs", "describe_file_systems", "FileSystems")) == []
    assert account.ask("efs", "describe_file_systems") is None
    assert [gap.permission for gap in account.gaps[1:]] == [
        "elasticfilesystem:DescribeFileSystems"
    ] * 2
    assert all(gap.reason == "expired" for gap in account.gaps)
    assert "not asked" in account.gaps[1].message


def test_missing_credentials_are_a_gap_too() -> None:
    account = fake_account({"ec2.describe_volumes": [NoCredentialsError()]})
    assert volumes(account) == []
    assert account.gaps[0].reason == "expired"


def test_the_permission_to_list_buckets_is_called_otherwise() -> None:
    account = fake_account({"s3.list_buckets": [refusal("AccessDenied")]})
    assert list(account.pages("s3", "list_buckets", "Buckets")) == []
    assert account.gaps[0].permission == "s3:ListAllMyBuckets"


def test_an_answer_that_says_nothing_is_there_is_no_gap() -> None:
    account = fake_account({"s3.get_bucket_tagging": [refusal("NoSuchTagSet")]})
    words: dict[str, Any] = {"Bucket": "b"}
    assert account.ask("s3", "get_bucket_tagging", absent=("NoSuchTagSet",), **words) == {}
    assert account.gaps == []
    assert account.ask("s3", "get_bucket_tagging", **words) is None
    assert len(account.gaps) == 1


def test_a_call_that_is_wrong_in_itself_is_not_taken_for_a_gap() -> None:
    account = fake_account({"ec2.describe_volumes": [ParamValidationError(report="wrong")]})
    with pytest.raises(ParamValidationError):
        volumes(account)


def test_an_unknown_call_is_an_error() -> None:
    with pytest.raises(KeyError):
        list(fake_account({}).pages("ec2", "describe_hosts", "Hosts"))


def test_a_client_is_made_once() -> None:
    made: list[str] = []

    def make(service: str) -> Any:
        made.append(service)
        return FakeClient(service, {})

    account = Account(ACCOUNT, REGION, make)
    assert account.client("ec2") is account.client("ec2")
    assert made == ["ec2"]


class FakeSession:
    def __init__(self, *answers: Any, operation: str) -> None:
        self.made: list[tuple[str, str]] = []
        self._answers = {f"sts.{operation}": list(answers)}

    def client(self, service: str, *, region_name: str, config: Any) -> Any:
        assert config.retries == {"mode": "standard", "total_max_attempts": 5}
        self.made.append((service, region_name))
        return FakeClient(service, self._answers)


def test_a_role_of_another_account_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"AccessKeyId": "a", "SecretAccessKey": "s", "SessionToken": "t"}
    session = FakeSession({"Credentials": keys}, operation="assume_role")
    login = assume_role(Login(ACCOUNT, session), ROLE, REGION)
    assert isinstance(login, Login)
    assert login.account == "111122223333"
    assert login.session.get_credentials().token == "t"
    assert login.open(REGION).region == REGION
    assert session.made == [("sts", REGION)]


def test_a_role_that_is_refused_is_a_gap_of_its_account() -> None:
    session = FakeSession(refusal("AccessDenied"), operation="assume_role")
    gap = assume_role(Login(ACCOUNT, session), ROLE, REGION)
    assert isinstance(gap, Gap)
    assert (gap.account, gap.permission) == ("111122223333", "sts:AssumeRole")


@pytest.mark.parametrize(
    "arn", ["reader", "arn:aws:iam::1:role/x", "arn:aws:iam::111122223333:user/x"]
)
def test_what_is_not_a_role_is_refused(arn: str) -> None:
    with pytest.raises(InputError, match="is not the ARN of a role"):
        account_of_role(arn)


def without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ROLE_ARN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")


def test_without_credentials_nobody_is_signed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    without_credentials(monkeypatch)
    with pytest.raises(InputError, match="Sign in first"):
        sign_in(REGION)


def test_an_unknown_profile_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    without_credentials(monkeypatch)
    with pytest.raises(InputError, match="nobody"):
        sign_in(REGION, "nobody")


@pytest.mark.parametrize(
    "value", ["2026-11-22T19:41:59.000Z", "2026-11-22T19:41:59+00:00", 1795376519, "1795376519"]
)
def test_times_are_read_in_every_form_of_aws(value: Any) -> None:
    import botocore.session

    session = botocore.session.Session()
    read_times_quickly(session)
    parser = session.get_component("response_parser_factory").create_parser("ec2")
    assert parser._timestamp_parser(value) == datetime(2026, 11, 22, 19, 41, 59, tzinfo=UTC)


def test_tags_are_read_from_either_list() -> None:
    tags = [{"Key": "a", "Value": "1"}]
    assert tags_of({"Tags": tags}) == tags_of({"TagSet": tags}) == {"a": "1"}
    assert tags_of({}) == tags_of({"Tags": None}) == {}


def test_the_door_does_not_load_boto3_by_itself() -> None:
    import subprocess

    program = (
        "import sys, clusterbox.aws; print('boto3' in sys.modules or 'botocore' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert answer.stdout.strip() == b"False"
