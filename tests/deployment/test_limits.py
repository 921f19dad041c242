"""The scripts with limits that a deployment leaves for head nodes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clusterbox.deployment.limits import (
    LimitScript,
    bucket_exists,
    render_scripts,
    upload_scripts,
)
from clusterbox.errors import InputError
from clusterbox.site.load import Repository
from tests.deployment.conftest import copy_repository


class Bucket:
    """S3 with one bucket in memory, or with an answer that is an error."""

    def __init__(self, error: str | None = None) -> None:
        self.error = error
        self.objects: dict[str, bytes] = {}

    def __call__(self, service: str) -> Bucket:
        assert service == "s3"
        return self

    def _answer(self, operation: str) -> None:
        if self.error is not None:
            raise ClientError({"Error": {"Code": self.error, "Message": "no"}}, operation)

    def get_object(self, **asked: str) -> dict[str, Any]:
        self._answer("GetObject")
        if asked["Key"] not in self.objects:
            raise ClientError({"Error": {"Code": "NoSuchKey", "Message": "no"}}, "GetObject")
        return {"Body": io.BytesIO(self.objects[asked["Key"]])}

    def put_object(self, **asked: Any) -> None:
        self.objects[asked["Key"]] = asked["Body"]

    def head_bucket(self, **_asked: str) -> None:
        self._answer("HeadBucket")


def script(text: str) -> LimitScript:
    return LimitScript("eco", "bucket", "parallelcluster/limits/eco.sh", text)


def test_only_a_script_that_differs_is_put_there() -> None:
    bucket = Bucket()
    assert upload_scripts(bucket, [script("one")]) == ["eco"]
    assert upload_scripts(bucket, [script("one")]) == []
    assert upload_scripts(bucket, [script("two")]) == ["eco"]
    assert bucket.objects == {"parallelcluster/limits/eco.sh": b"two"}


def test_a_bucket_that_answers_otherwise_is_an_error() -> None:
    with pytest.raises(ClientError, match="SlowDown"):
        upload_scripts(Bucket("SlowDown"), [script("one")])


def test_a_bucket_that_is_not_there_yet_is_told_from_one_that_is_refused(root: Path) -> None:
    environment = Repository(root).load_environment("sandbox")
    assert bucket_exists(Bucket(), environment)
    assert not bucket_exists(Bucket("404"), environment)
    with pytest.raises(ClientError, match="403"):
        bucket_exists(Bucket("403"), environment)


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    return copy_repository(root, tmp_path / "copy")


def scripts_of(copy: Path) -> list[LimitScript]:
    return render_scripts(copy, Repository(copy).load_environment("sandbox"))


def replace(copy: Path, old: str, new: str) -> None:
    path = copy / "environments" / "sandbox.yaml"
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


BUDGET = "    sandbox-economy-hpc: {monthly_usd: 1500, when_spent: drain}\n"


def test_a_cluster_has_a_script_where_its_configuration_names_it(copy: Path) -> None:
    (found,) = scripts_of(copy)
    assert (found.cluster, found.bucket, found.key) == (
        "sandbox-economy-hpc",
        "sandbox-123456789012-parallelcluster",
        "parallelcluster/limits/sandbox-economy-hpc.sh",
    )
    assert "1430.46 USD a month for jobs" in found.text
    assert found.warning is None


def test_who_deploys_is_told_of_weights_that_are_not_those_of_the_prices(copy: Path) -> None:
    path = copy / "cluster_configs" / "economy-hpc.yaml"
    text = path.read_text(encoding="utf-8")
    assert "CPU=48821.918" in text
    path.write_text(text.replace("CPU=48821.918", "CPU=40000"), encoding="utf-8")
    (found,) = scripts_of(copy)
    assert "sandbox-economy-hpc will not hold" in str(found.warning)
    assert "SlurmQueues[0].CustomSlurmSettings.TRESBillingWeights differ" in str(found.warning)


def test_a_cluster_whose_budget_went_gets_a_script_that_takes_its_limits_away(copy: Path) -> None:
    replace(copy, BUDGET, "")
    (found,) = scripts_of(copy)
    assert "none, as it has no budget" in found.text
    assert "json.loads('''null''')" in found.text


def test_a_site_without_budgets_takes_the_limits_of_its_clusters_away(copy: Path) -> None:
    path = copy / "environments" / "sandbox.yaml"
    text = path.read_text(encoding="utf-8")
    start = text.index("\nbudgets:\n")
    path.write_text(text[:start] + text[text.index("\n\n", start + 1) :], encoding="utf-8")
    (found,) = scripts_of(copy)
    assert "none, as it has no budget" in found.text


def test_a_budget_that_does_not_pay_for_the_cluster_stops_the_deployment(copy: Path) -> None:
    replace(copy, BUDGET, BUDGET.replace("1500", "50"))
    with pytest.raises(InputError, match="no job could run; raise it"):
        scripts_of(copy)
