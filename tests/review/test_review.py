"""Reviews of real changes, in clones of the repository, through the command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clusterbox.cli.main import main
from tests.deployment.conftest import copy_repository
from tests.review.test_revisions import git

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Judged:
    """What the command answered: its exit code, its output, and what it wrote to stderr."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.out)
        return document

    def environment(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(e for e in self.document["environments"] if e["name"] == name)
        return found

    @property
    def severities(self) -> list[str]:
        return [item["severity"] for item in self.document["consequences"]]


@pytest.fixture(scope="module")
def original(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a git repository with this site as its only commit."""
    copy = copy_repository(root, tmp_path_factory.mktemp("original") / "site")
    (copy / ".gitignore").write_text(".venv\n.venv-pcluster\nnode_modules\n__pycache__\n")
    git(copy, "init", "-q")
    git(copy, "add", ".")
    git(copy, "commit", "-qm", "base")
    return copy


@pytest.fixture
def site(original: Path, tmp_path: Path) -> Path:
    """Return a copy of it that a test may change."""
    return Path(shutil.copytree(original, tmp_path / "site", symlinks=True))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def review(site: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Judged]:
    """Return the command, run on the changed copy."""

    def run(*words: str, form: str = "json") -> Judged:
        base = [] if "--base" in words else ["--base", "HEAD"]
        code = main(
            ["--root", str(site), "review", *base, "--cache", str(cache), "--format", form, *words]
        )
        said = capsys.readouterr()
        return Judged(code, said.out, said.err)

    return run


def edit(site: Path, name: str, *changes: tuple[str, str]) -> None:
    path = site / name
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


Review = Callable[..., Judged]


def test_without_a_change_nothing_is_said_to_change(review: Review) -> None:
    judged = review(form="markdown")
    assert judged.code == 0
    assert judged.out.startswith("## ✅ Nothing changes in AWS.")
    assert "Unchanged: `sandbox`, `ws-dev`." in judged.out


def test_a_change_of_documentation_synthesizes_nothing(
    site: Path, review: Review, tmp_path: Path
) -> None:
    edit(site, "README.md", ("# clusterbox", "# clusterbox!"))
    own = tmp_path / "cache"
    judged = review("--cache", str(own))
    assert judged.severities == ["none"]
    assert not (own / "assemblies").exists()


def test_more_nodes_are_live_and_cost_more(site: Path, review: Review) -> None:
    edit(site, "cluster_configs/eco-login.yaml", ("MaxCount: 3", "MaxCount: 5"))
    judged = review()
    (cluster,) = judged.environment("ws-dev")["clusters"]
    assert cluster["name"] == "ws-eco-login"
    assert cluster["comparison"]["verdict"] == "live"
    (change,) = cluster["comparison"]["changes"]
    assert (change["old"], change["new"]) == (3, 5)
    cost = judged.environment("ws-dev")["cost"]["total"]
    assert float(cost["head"]["worst"]) > float(cost["base"]["worst"])
    assert cost["head"]["idle"] == cost["base"]["idle"]
    (subnet,) = judged.environment("ws-dev")["addresses"]
    assert subnet["needed_after"] == subnet["needed_before"] + 2
    assert judged.document["unchanged"] == ["sandbox"]
    assert judged.severities == ["update", "live"]


def test_a_shared_configuration_changes_the_clusters_of_both_environments(
    site: Path, review: Review
) -> None:
    edit(site, "cluster_configs/eco.yaml", ("InstanceType: t3.medium", "InstanceType: t3.large"))
    judged = review()
    for name, cluster in (("ws-dev", "ws-eco"), ("sandbox", "sandbox-eco")):
        (found,) = judged.environment(name)["clusters"]
        assert found["name"] == cluster
        assert found["comparison"]["verdict"] == "replaces the cluster"
    assert judged.severities[0] == "replace_cluster"
    assert review("--fail-on", "replaces").code == 1
    assert review("--fail-on", "widening").code == 0


def test_an_image_of_the_lock_counts_as_a_change_of_its_clusters(
    site: Path, review: Review
) -> None:
    edit(
        site,
        "ami/images.lock.yaml",
        ("ami: ami-067d504ae48dd3252", "ami: ami-067d504ae48dd3253"),
    )
    judged = review()
    found = judged.environment("ws-dev")
    assert {item["name"] for item in found["clusters"]} == {"ws-eco", "ws-eco-login"}
    (image,) = found["images"]
    assert (image["base"]["ami"], image["head"]["ami"]) == (
        "ami-067d504ae48dd3252",
        "ami-067d504ae48dd3253",
    )
    assert image["used_by"] == ["ws-eco", "ws-eco-login"]


def test_findings_that_a_change_adds_are_told_with_their_line(site: Path, review: Review) -> None:
    edit(site, "cluster_configs/eco-login.yaml", ("ScaledownIdletime: 10", "ScaledownIdletime: -5"))
    judged = review()
    (cluster,) = judged.environment("ws-dev")["clusters"]
    lines = (site / "cluster_configs" / "eco-login.yaml").read_text().splitlines()
    expected = next(i for i, line in enumerate(lines, 1) if "ScaledownIdletime" in line)
    found = [item for item in cluster["new_findings"] if item["line"] == expected]
    assert found[0]["file"] == "cluster_configs/eco-login.yaml"
    assert judged.severities[0] == "refused"
    assert review("--fail-on", "refused").code == 1


def test_a_lost_boundary_is_a_widening(site: Path, review: Review) -> None:
    edit(
        site,
        "cluster_configs/eco-login.yaml",
        ("  PermissionsBoundary: ${hosting.permissions_boundary}\n", ""),
    )
    judged = review("--fail-on", "widening")
    assert judged.code == 1
    assert "widening" in judged.severities
    assert "--fail-on names: widening" in judged.err


def test_termination_protection_is_lost_in_no_template(site: Path, review: Review) -> None:
    edit(site, "stacks/storage.py", ("protected=True", "protected=False"))
    judged = review("--environment", "ws-dev", "--fail-on", "widening")
    assert judged.code == 1
    assert judged.document["consequences"][0]["sentence"] == (
        "ws-dev: stack ws-dev-storage has lost its termination protection."
    )


def test_another_region_is_another_place(site: Path, review: Review) -> None:
    edit(site, "environments/sandbox.yaml", ("region: us-west-2", "region: us-east-1"))
    judged = review("--environment", "sandbox", "--fail-on", "data")
    assert judged.code == 1
    environment = judged.environment("sandbox")
    assert (environment["change"], environment["moved_from"]) == (
        "moved",
        "123456789012 in us-west-2",
    )
    assert {stack["change"] for stack in environment["stacks"]} == {"added"}
    assert judged.severities[0] == "data"
    assert "goes on running and costing" in judged.document["consequences"][0]["sentence"]


@pytest.mark.parametrize("form", ["markdown", "json", "html"])
def test_secrets_are_shown_in_no_format(site: Path, review: Review, form: str) -> None:
    edit(
        site,
        "cluster_configs/eco-login.yaml",
        (
            "Tags: ${site.tags}",
            "Tags:\n  - {Key: ApiToken, Value: hunter1pw}\n  - {Key: Owner, Value: x}",
        ),
        (
            "HeadNode:\n",
            "HeadNode:\n  CustomActions:\n    OnNodeConfigured:\n      Script: s3://ws-out/x.sh\n"
            "      Args: [--password, hunter2pw, --token=hunter3pw]\n",
        ),
    )
    judged = review("--environment", "ws-dev", form=form)
    assert "OnNodeConfigured" in judged.out
    assert "hunter" not in judged.out + judged.err


def test_a_removed_cluster_is_said_to_go_on_running(site: Path, review: Review) -> None:
    edit(
        site,
        "environments/ws-dev.yaml",
        ("  - {name: ws-eco-login, config: eco-login.yaml}\n", ""),
        ("    ws-eco-login: {monthly_usd: 300, when_spent: stop}\n", ""),
    )
    judged = review()
    (cluster,) = judged.environment("ws-dev")["clusters"]
    assert cluster["comparison"]["verdict"] == "removed"
    assert "clusterbox destroy ws-dev --cluster ws-eco-login" in cluster["comparison"]["steps"][0]
    stacks = {item["stack"]: item["change"] for item in judged.environment("ws-dev")["stacks"]}
    assert stacks.pop("ws-dev-cluster-ws-eco-login") == "removed"
    # The others only lose the exports that it used.
    assert set(stacks.values()) <= {"changed"}


def test_an_added_cluster_is_validated_and_priced(site: Path, review: Review) -> None:
    edit(
        site,
        "environments/ws-dev.yaml",
        ("\nclusters:\n", "\nclusters:\n  - {name: ws-new, config: eco-login.yaml}\n"),
    )
    judged = review()
    (cluster,) = judged.environment("ws-dev")["clusters"]
    assert (cluster["name"], cluster["comparison"]["verdict"]) == ("ws-new", "added")
    assert cluster["validation"]["findings"] == []
    assert "ws-new" in [part["part"] for part in judged.environment("ws-dev")["cost"]["parts"]]


def test_a_renamed_configuration_file_changes_nothing(site: Path, review: Review) -> None:
    git(site, "mv", "cluster_configs/eco-login.yaml", "cluster_configs/login.yaml")
    edit(site, "environments/ws-dev.yaml", ("eco-login.yaml", "login.yaml"))
    assert review().severities == ["none"]


def test_an_added_and_a_removed_environment(site: Path, review: Review) -> None:
    text = (site / "environments" / "sandbox.yaml").read_text()
    (site / "environments" / "sandbox.yaml").unlink()
    (site / "environments" / "trial.yaml").write_text(text.replace("sandbox", "trial"))
    edit(site, "ami/images.lock.yaml", ("  sandbox:\n", "  trial:\n"))
    judged = review("--environment", "trial", "--environment", "sandbox")
    assert judged.environment("trial")["change"] == "added"
    assert judged.environment("sandbox")["change"] == "removed"
    assert {item["change"] for item in judged.environment("trial")["stacks"]} == {"added"}
    sentences = [item["sentence"] for item in judged.document["consequences"]]
    assert any("sandbox is removed from the repository" in sentence for sentence in sentences)
    assert any("trial is new" in sentence for sentence in sentences)


def test_a_head_that_is_malformed_is_the_verdict(site: Path, review: Review) -> None:
    edit(site, "cluster_configs/eco-login.yaml", ("MaxCount: 3", "MaxCount: [3"))
    judged = review(form="markdown")
    assert judged.code == 2
    assert judged.out.startswith("## 🔴 ws-dev cannot be deployed")
    assert "cluster_configs/eco-login.yaml:" in judged.out
    assert "cannot be deployed" in judged.err


def test_a_base_that_was_malformed_is_said_so(site: Path, review: Review) -> None:
    good = (site / "environments" / "ws-dev.yaml").read_text()
    (site / "environments" / "ws-dev.yaml").write_text(good.replace("region:", "regio:"))
    git(site, "commit", "-qam", "broken")
    (site / "environments" / "ws-dev.yaml").write_text(good)
    judged = review()
    assert judged.code == 0
    assert "regio" in judged.environment("ws-dev")["base_problem"]
    assert {item["change"] for item in judged.environment("ws-dev")["stacks"]} == {"added"}


def test_a_head_that_is_a_commit_leaves_the_working_tree_out(site: Path, review: Review) -> None:
    edit(site, "cluster_configs/eco-login.yaml", ("MaxCount: 3", "MaxCount: 4"))
    git(site, "commit", "-qam", "four")
    edit(site, "cluster_configs/eco-login.yaml", ("MaxCount: 4", "MaxCount: [broken"))
    judged = review("--base", "HEAD~1", "--head", "HEAD")
    (cluster,) = judged.environment("ws-dev")["clusters"]
    assert cluster["comparison"]["changes"][0]["new"] == 4


def test_another_version_of_parallelcluster_replaces_every_cluster(
    site: Path, review: Review
) -> None:
    edit(site, "clusterbox/site/names.py", ('VERSION = "3.16.1"', 'VERSION = "3.17.0"'))
    judged = review("--environment", "ws-dev")
    found = judged.environment("ws-dev")["clusters"]
    assert [item["versions"] for item in found] == [["3.16.1", "3.17.0"]] * 2
    assert judged.severities[0] == "replace_cluster"


def test_the_page_is_whole_and_the_output_file_is_written(
    site: Path, review: Review, tmp_path: Path
) -> None:
    edit(site, "cluster_configs/eco-login.yaml", ("MaxCount: 3", "MaxCount: 5"))
    output = tmp_path / "page.html"
    judged = review("--output", str(output), form="html")
    page = output.read_text()
    assert (judged.code, judged.out) == (0, "")
    assert "<td><code>ws-eco-login</code></td>" in page
    assert "src=" not in page
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_review_writes_nothing_into_the_repository(site: Path, review: Review) -> None:
    edit(site, "cluster_configs/eco-login.yaml", ("MaxCount: 3", "MaxCount: 5"))

    def state() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in site.rglob("*") if path.is_file()}

    before = state()
    review()
    assert state() == before


@pytest.mark.parametrize("limit", ["0", "-5", "499"])
def test_a_limit_that_holds_no_verdict_is_bad_input(review: Review, limit: str) -> None:
    judged = review("--limit", limit)
    assert judged.code == 2
    assert "at least 500" in judged.err


def test_a_pipe_is_written_to_and_not_replaced(review: Review, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        assert review("--output", str(pipe), form="markdown").code == 0
        assert read.result().startswith("## ✅ Nothing changes")
    assert pipe.is_fifo()


def test_an_unknown_environment_or_ref_is_bad_input(review: Review) -> None:
    assert review("--environment", "nowhere").code == 2
    judged = review("--base", "origin/gone")
    assert judged.code == 2
    assert "git fetch origin gone" in judged.err


def test_a_folder_without_git_is_bad_input(site: Path, review: Review) -> None:
    shutil.rmtree(site / ".git")
    judged = review()
    assert judged.code == 2
    assert "not in a git repository" in judged.err


def test_an_interrupted_review_can_be_repeated(
    site: Path, root: Path, review: Review, tmp_path: Path
) -> None:
    edit(site, "cluster_configs/eco-login.yaml", ("MaxCount: 3", "MaxCount: 6"))
    own = tmp_path / "cache"
    words = [str(root / ".venv" / "bin" / "python"), "-m", "clusterbox.cli.main", "review"]
    with subprocess.Popen([*words, "--base", "HEAD", "--cache", str(own)], cwd=site) as process:
        while not (own / "assemblies").exists():
            assert process.poll() is None
        process.kill()
    judged = review("--cache", str(own))
    (cluster,) = judged.environment("ws-dev")["clusters"]
    assert cluster["comparison"]["changes"][0]["new"] == 6
