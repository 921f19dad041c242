"""The exporter of costs of a cluster on this machine: its Slurm and its account are processes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusterbox.cli.main import main
from clusterbox.clusters.composed import compose_repository
from clusterbox.deployment.targets import start_embedded, state_folder
from clusterbox.embedded.account import EmbeddedAccount
from clusterbox.embedded.slurm import Options, SlurmCluster
from clusterbox.site.load import Repository
from tests.conftest import ROOT
from tests.observe.scrapes import names, samples
from tests.slurm_cluster import needs_slurm, wait_for

pytestmark = needs_slurm

CLUSTER = "ws-eco"
PLACE = ("component", "queue", "purchase_option")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a repository whose cluster runs: a head node in its account, a job in its Slurm."""
    root = tmp_path_factory.mktemp("repository")
    for name in ("ami", "cluster_configs", "environments"):
        shutil.copytree(ROOT / name, root / name)
    shutil.copy(ROOT / "cdk.json", root)
    for name in (".venv", ".venv-pcluster", "node_modules"):
        (root / name).symlink_to(ROOT / name)
    environment = Repository(root).load_environment("ws-dev")
    target = start_embedded(root, environment)
    tags = {
        "parallelcluster:cluster-name": CLUSTER,
        "parallelcluster:node-type": "HeadNode",
    }
    listed = [{"Key": key, "Value": value} for key, value in tags.items()]
    try:
        target.client("ec2").run_instances(
            ImageId="ami-0fedcba9876543211",
            InstanceType="t3.medium",
            MinCount=1,
            MaxCount=1,
            TagSpecifications=[{"ResourceType": "instance", "Tags": listed}],
        )
        cluster = compose_repository(root, [CLUSTER])[CLUSTER]
        folder = root / ".clusterbox" / "slurm" / CLUSTER
        with SlurmCluster.start(cluster, folder, Options(boot_seconds=1)) as slurm:
            slurm.door.submit("sleep 300", "-p", "eco", "-n", "2", "-J", "long")
            wait_for("the job runs", lambda: slurm.door.fetch_queue("--states", "RUNNING"))
            yield root
    finally:
        EmbeddedAccount.stop(state_folder(root, environment.name))


def run(
    capsys: pytest.CaptureFixture[str], root: Path, *words: str, code: int = 0
) -> tuple[str, str]:
    assert main(["--root", str(root), *words]) == code
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_the_exporter_says_what_the_meter_says(
    repository: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ("observe", "exporter", "cost", "--cluster", CLUSTER, "--once")
    text, _notes = run(capsys, repository, *words, "--record", str(tmp_path))
    printed, _notes = run(capsys, repository, "costs", "meter", CLUSTER, "--format", "json")
    meter = {
        row["name"].replace(" ", "_"): float(row["usd_hour"])
        for row in json.loads(printed)
        if row["section"] == "part"
    }
    hour = samples(text, "clusterbox_cost_usd_per_hour", *PLACE)
    assert hour["head_node", "", "on-demand"] == meter["head_node"] == 0.0416
    # Two of eight CPUs of a t3a.2xlarge.
    assert hour["jobs", "eco", "on-demand"] == pytest.approx(0.0752)
    assert sum(hour.values()) == pytest.approx(sum(meter.values()), abs=0.001)
    assert samples(text, "clusterbox_cost_accounting", "cluster") == {(CLUSTER,): 1.0}
    assert samples(text, "clusterbox_budget_usd", "cluster") == {(CLUSTER,): 700.0}
    assert (tmp_path / f"{CLUSTER}.jsonl").is_file()


def test_with_ec2_alone_nodes_are_not_told_as_idle(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("observe", "exporter", "cost", "--cluster", CLUSTER, "--once", "--slurm", "none")
    text, _notes = run(capsys, repository, *words)
    assert samples(text, "clusterbox_cost_accounting", "cluster") == {(CLUSTER,): 0.0}
    assert set(samples(text, "clusterbox_cost_usd_per_hour", "component")) == {("head_node",)}


def test_all_clusters_of_an_environment_are_told_and_those_that_do_not_run_are_down(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("observe", "exporter", "cost", "--environment", "ws-dev", "--once")
    text, _notes = run(capsys, repository, *words)
    assert samples(text, "clusterbox_cost_up", "cluster")[CLUSTER,] == 1.0


def test_a_cluster_that_does_not_run_is_down_and_ends_with_1(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("observe", "exporter", "cost", "--cluster", "sandbox-eco", "--once")
    text, said = run(capsys, repository, *words, code=1)
    assert samples(text, "clusterbox_cost_up", "cluster") == {("sandbox-eco",): 0.0}
    assert names(text) == {"clusterbox_cost_up", "clusterbox_cost_refreshes_total"}
    assert "failed: nothing of sandbox-eco runs on this machine" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--environment", "ws-dev", "--refresh-seconds", "1"), "5 at least"),
        (("--cluster", "none"), "none"),
        (("--cluster", CLUSTER, "--timezone", "Mars/Olympus"), "not a time zone"),
        (
            ("--cluster", CLUSTER, "--cluster", "sandbox-eco", "--target", "aws"),
            "that of one cluster",
        ),
    ],
)
def test_wrong_arguments_are_told(
    repository: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    _text, error = run(capsys, repository, "observe", "exporter", "cost", *words, code=2)
    assert said in error
