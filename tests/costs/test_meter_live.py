"""The meter of a cluster that runs on this machine: its Slurm is real, its instances are records."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from clusterbox.cli.main import main
from clusterbox.clusters.composed import compose_repository
from clusterbox.costs.usage import read_usage
from clusterbox.deployment.targets import start_embedded, state_folder
from clusterbox.embedded.account import EmbeddedAccount
from clusterbox.embedded.slurm import Options, SlurmCluster
from clusterbox.site.load import Repository
from tests.conftest import ROOT
from tests.slurm_cluster import needs_slurm, wait_for, wait_for_job

pytestmark = needs_slurm

CLUSTER = "ws-eco"
HEAD_TAGS = {
    "parallelcluster:cluster-name": CLUSTER,
    "parallelcluster:node-type": "HeadNode",
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a repository whose cluster runs: a head node in its account, and its Slurm."""
    root = tmp_path_factory.mktemp("repository")
    for name in ("ami", "cluster_configs", "environments"):
        shutil.copytree(ROOT / name, root / name)
    shutil.copy(ROOT / "cdk.json", root)
    for name in (".venv", ".venv-pcluster", "node_modules"):
        (root / name).symlink_to(ROOT / name)
    environment = Repository(root).load_environment("ws-dev")
    target = start_embedded(root, environment)
    try:
        target.client("ec2").run_instances(
            ImageId="ami-0fedcba9876543211",
            InstanceType="t3.medium",
            MinCount=1,
            MaxCount=1,
            TagSpecifications=[
                {
                    "ResourceType": "instance",
                    "Tags": [{"Key": key, "Value": value} for key, value in HEAD_TAGS.items()],
                }
            ],
        )
        cluster = compose_repository(root, [CLUSTER])[CLUSTER]
        folder = root / ".clusterbox" / "slurm" / CLUSTER
        options = Options(boot_seconds=1, idle_seconds=120)
        with SlurmCluster.start(cluster, folder, options) as slurm:
            ended = slurm.door.submit("sleep 2", "-p", "eco", "--exclusive", "-J", "short")
            wait_for_job(slurm, ended)
            slurm.door.submit("sleep 300", "-p", "eco", "-n", "2", "-J", "long")
            wait_for("the long job runs", lambda: slurm.door.fetch_queue("--states", "RUNNING"))
            # So that it has run for some seconds.
            time.sleep(2)
            yield root
    finally:
        EmbeddedAccount.stop(state_folder(root, environment.name))


def call(
    capsys: pytest.CaptureFixture[str], root: Path, *words: str
) -> tuple[list[dict[str, Any]], str]:
    assert main(["--root", str(root), "costs", *words, "--format", "json"]) == 0
    captured = capsys.readouterr()
    return json.loads(captured.out), captured.err


def test_the_meter_runs_with_the_head_node_and_the_nodes_that_are_up(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, notes = call(capsys, repository, "meter", CLUSTER)
    now = {(row["section"], row["name"]): row["usd_hour"] for row in rows}
    assert now["part", "head node"] == "0.0416"
    # One node of t3a.2xlarge: two of its eight CPUs are the job's.
    assert now["queue", "eco"] == "0.3008"
    assert now["part", "jobs"] == "0.0752"
    assert "t3a.2xlarge assumed, one of several types" in notes


def test_jobs_of_the_accounting_have_a_price(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, _notes = call(capsys, repository, "jobs", CLUSTER, "--group-by", "name")
    prices = {row["name"]: Decimal(row["total_usd"]) for row in rows}
    assert set(prices) == {"short", "long"}
    assert all(usd > 0 for usd in prices.values())


def test_what_is_seen_is_kept_and_counted_once(
    repository: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    keep = tmp_path / "seen.jsonl"
    first, _notes = call(capsys, repository, "meter", CLUSTER, "--record", str(keep))
    kept = read_usage(keep)
    assert {one.source for one in kept.instances} == {"ec2", "slurm"}
    second, _notes = call(capsys, repository, "meter", CLUSTER, "--record", str(keep))
    assert second[0]["usd_hour"] == first[0]["usd_hour"]
    again = read_usage(keep)
    assert [(one.instance, one.start) for one in again.instances] == [
        (one.instance, one.start) for one in kept.instances
    ]


def test_a_cluster_that_does_not_run_is_told(
    capsys: pytest.CaptureFixture[str], repository: Path
) -> None:
    assert main(["--root", str(repository), "costs", "meter", "sandbox-eco"]) == 1
    assert "nothing of sandbox-eco runs on this machine" in capsys.readouterr().err
