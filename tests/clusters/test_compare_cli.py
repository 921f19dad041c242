from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from clusterbox.cli.main import main
from tests.clusters.comparison_base import BASE, Config, edited, put

MAX_COUNT = ("Scheduling", "SlurmQueues", 0, "ComputeResources", 0, "MaxCount")


def write(path: Path, config: Config) -> str:
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return str(path)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    """Return two native files: a queue gets smaller."""
    smaller = edited(put(*MAX_COUNT, value=2))
    return write(tmp_path / "old.yaml", BASE), write(tmp_path / "new.yaml", smaller)


def git(folder: Path, *words: str) -> None:
    author = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    subprocess.run(["git", *author, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(root: Path, tmp_path: Path) -> Path:
    """Return a copy of the site with one commit, `base`, and a larger queue in the work tree."""
    copy = tmp_path / "site"
    for name in ("environments", "cluster_configs", "ami"):
        shutil.copytree(root / name, copy / name)
    shutil.copy(root / "cdk.json", copy)
    (copy / ".venv-pcluster").symlink_to(root / ".venv-pcluster")
    git(copy, "init", "-q")
    git(copy, "add", "environments", "cluster_configs", "ami", "cdk.json")
    git(copy, "commit", "-q", "-m", "base")
    git(copy, "tag", "base")
    eco = copy / "cluster_configs" / "eco.yaml"
    eco.write_text(eco.read_text("utf-8").replace("MaxCount: 3", "MaxCount: 4", 1), "utf-8")
    return copy


@pytest.mark.integration
def test_a_change_that_needs_something_first_is_a_failed_job(
    pair: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["clusters", "compare", *pair]) == 1
    said = capsys.readouterr()
    assert said.err == ""
    assert (
        "terminates nodes  Scheduling.SlurmQueues[eco].ComputeResources[small].MaxCount" in said.out
    )
    assert "new: terminates nodes\njobs: Running jobs on the nodes that go" in said.out
    assert "to do:\n1. Set Scheduling.SlurmSettings.QueueUpdateStrategy: TERMINATE" in said.out


@pytest.mark.integration
def test_a_stopped_fleet_takes_it_at_once_and_json_has_it_all(
    pair: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["clusters", "compare", *pair, "--fleet", "stopped", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["cluster"], found["verdict"], found["allowed"]) == (
        "new",
        "terminates nodes",
        True,
    )
    assert found["jobs"] == "No job runs while the compute fleet is stopped."
    (change,) = found["changes"]
    assert (change["old"], change["new"], change["first"]) == (3, 2, [])


@pytest.mark.integration
def test_a_cluster_is_compared_with_an_earlier_commit(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path for path in repository.rglob("*") if ".git" not in path.parts)
    words = ["--root", str(repository), "clusters", "compare", "ws-eco", "--base-ref", "base"]
    assert main([*words, "--format", "csv"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header == "effect,parameter,old,new,policy,now,first,note"
    assert row.startswith("live,Scheduling.SlurmQueues[eco].ComputeResources[n8c32g].MaxCount,3,4,")
    assert sorted(path for path in repository.rglob("*") if ".git" not in path.parts) == before


def test_added_and_removed_clusters_are_told(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = repository / "environments" / "ws-dev.yaml"
    text = environment.read_text("utf-8")
    environment.write_text(text.replace("ws-eco-login", "ws-new"), "utf-8")
    words = ["--root", str(repository), "clusters", "compare", "--base-ref", "base"]
    assert main([*words, "ws-new"]) == 0
    assert capsys.readouterr().out == "ws-new: added\njobs: A new cluster: no job runs on it yet.\n"
    assert main([*words, "ws-eco-login"]) == 0
    assert "clusterbox destroy ws-dev --cluster ws-eco-login" in capsys.readouterr().out
    assert main([*words, "nobody"]) == 2
    assert "there is no cluster nobody, neither here nor at base" in capsys.readouterr().err


def test_a_name_of_two_environments_is_told_apart(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = repository / "environments" / "sandbox.yaml"
    text = environment.read_text("utf-8").replace("sandbox-eco", "ws-eco")
    environment.write_text(text, "utf-8")
    config = repository / "cluster_configs" / "eco.yaml"
    config.write_text(config.read_text("utf-8").replace("MaxCount: 3", "MaxCount: 2"), "utf-8")
    words = ["--root", str(repository), "clusters", "compare", "--base-ref", "base"]
    assert main([*words, "ws-eco"]) == 2
    assert "name one: sandbox/ws-eco, ws-dev/ws-eco" in capsys.readouterr().err
    assert main([*words, "ws-dev/ws-eco"]) == 1
    said = capsys.readouterr().out
    assert "ws-eco: terminates nodes" in said
    assert "ws-dev/ws-eco" not in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ws-eco"], "compare takes BASE and HEAD"),
        (["ws-eco", "ws-eco", "--base-ref", "base"], "takes one cluster's name with --base-ref"),
        (["ws-eco", "--base-ref", "nowhere"], "there is no commit 'nowhere'"),
        (["ws-eco", "--base-ref=--output=x"], "is not the name of a commit"),
        (["ws-eco", "nobody"], "there is no cluster nobody"),
        (["ws-eco", "missing.yaml"], "missing.yaml: there is no such file"),
        (["ws-eco", "cluster_configs/eco.yaml"], "give the name of the cluster instead"),
    ],
)
def test_bad_input_says_what_to_do(
    words: list[str],
    said: str,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(repository)
    assert main(["clusters", "compare", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_broken_base_says_at_which_commit(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    eco = repository / "cluster_configs" / "eco.yaml"
    whole = eco.read_text("utf-8")
    eco.write_text(f"{whole}Region: twice\n", "utf-8")
    git(repository, "commit", "-q", "-a", "-m", "broken")
    git(repository, "tag", "broken")
    eco.write_text(whole, "utf-8")
    words = ["--root", str(repository), "clusters", "compare", "ws-eco", "--base-ref", "broken"]
    assert main(words) == 2
    assert "at broken: " in capsys.readouterr().err


@pytest.mark.integration
def test_what_the_schema_refuses_is_bad_input(
    tmp_path: Path, pair: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    broken = write(tmp_path / "broken.yaml", edited(put("HeadNode", "Colour", value="red")))
    assert main(["clusters", "compare", pair[0], broken]) == 2
    assert (
        "broken, the new configuration: HeadNode.Colour: Unknown field" in capsys.readouterr().err
    )
