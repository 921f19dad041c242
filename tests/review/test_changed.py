from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from clusterbox.cli.main import COMMANDS, main
from clusterbox.errors import InputError
from clusterbox.review.changed import NO_COMMIT, changed_environments, read_sites

IMAGES = {
    "environments": {
        "dev": {"compute": {"ami": "ami-1"}},
        "test": {"compute": {"ami": "ami-1"}},
        "prod": {"compute": {"ami": "ami-1"}},
    }
}
FILES = {
    "cdk.json": "{}",
    "app.py": "",
    "README.md": "about",
    "stacks/network.py": "",
    "cluster_configs/eco.yaml": "HeadNode: {}",
    "cluster_configs/big.yaml": "HeadNode: {}",
    "ami/images.lock.yaml": yaml.safe_dump(IMAGES),
    "environments/dev.yaml": """
account: "111111111111"
region: us-west-2
hosting: {ci: {github: {repository: o/r, environment: development}}}
clusters: [{name: a, config: eco.yaml}]
""",
    "environments/test.yaml": """
account: "222222222222"
region: us-east-1
hosting: {ci: {gitlab: {host: gitlab.example.gov, project: o/r}}}
clusters: [{name: b, config: eco.yaml}, {name: c, config: big.yaml}]
""",
    "environments/prod.yaml": 'account: "333333333333"\nregion: us-west-2\n',
}


def git(folder: Path, *words: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *words], check=True, capture_output=True, text=True
    ).stdout.strip()


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def commit(folder: Path) -> str:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "change")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture(autouse=True)
def nobodys_git(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of whoever runs the tests out."""
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, "/dev/null")
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Somebody")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "somebody@example.org")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch", "main")
    write(folder, FILES)
    commit(folder)
    return folder


def edit(name: str, text: str = "changed: true") -> Callable[[Path], None]:
    return lambda folder: write(folder, {name: text})


def move(old: str, new: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / old).rename(folder / new)

    return apply


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def images(change: Callable[[dict[str, dict[str, object]]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        data = yaml.safe_load(FILES["ami/images.lock.yaml"])
        change(data["environments"])
        write(folder, {"ami/images.lock.yaml": "# reformatted\n" + json.dumps(data)})

    return apply


def pin(environment: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        data = yaml.safe_load(FILES["ami/images.lock.yaml"])
        data["pins"] = {environment: {"eco": {"head": "ami-1"}}}
        write(folder, {"ami/images.lock.yaml": yaml.safe_dump(data)})

    return apply


ALL = ["dev", "prod", "test"]
CHANGES: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "nothing": (lambda folder: None, []),
    "an environment": (edit("environments/prod.yaml"), ["prod"]),
    "a new environment": (edit("environments/new.yaml"), ["new"]),
    "an environment that is gone": (remove("environments/prod.yaml"), []),
    "an environment with another name": (
        move("environments/prod.yaml", "environments/production.yaml"),
        ["production"],
    ),
    "a configuration of two environments": (edit("cluster_configs/eco.yaml"), ["dev", "test"]),
    "a configuration of one environment": (edit("cluster_configs/big.yaml"), ["test"]),
    "a configuration that nobody uses": (edit("cluster_configs/new.yaml"), []),
    "a configuration that is gone and still named": (remove("cluster_configs/big.yaml"), ["test"]),
    "a configuration that moved and is still named": (
        move("cluster_configs/big.yaml", "cluster_configs/bigger.yaml"),
        ["test"],
    ),
    "an image of one environment": (
        images(lambda all_images: all_images["prod"].update(compute={"ami": "ami-2"})),
        ["prod"],
    ),
    "an image more": (images(lambda found: found["dev"].update(admin={"ami": "ami-1"})), ["dev"]),
    "the images of an environment that are gone": (
        images(lambda found: found.pop("test")),
        ["test"],
    ),
    "images of an environment that is not there": (images(lambda found: found.update(x={})), []),
    "a pin of an environment": (pin("prod"), ["prod"]),
    "the layout of the lock alone": (images(lambda found: None), []),
    "a lock that is gone": (remove("ami/images.lock.yaml"), ALL),
    "a stack": (edit("stacks/network.py"), ALL),
    "a file of a stack that is gone": (remove("stacks/network.py"), ALL),
    "the model": (edit("clusterbox/site/fields.py"), ALL),
    "the app": (edit("app.py"), ALL),
    "feature flags": (edit("cdk.json"), ALL),
    "libraries": (edit("requirements.txt"), ALL),
    "node libraries": (edit("package-lock.json"), ALL),
    "documentation": (edit("README.md"), []),
    "tests": (edit("tests/stacks/test_network.py"), []),
    "a folder called alike": (edit("stacks_old/network.py"), []),
    "a name with strange characters": (edit('docs/ü "x"\n.md'), []),
    "another folder of environments": (edit("docs/environments/dev.yaml"), []),
    "a hidden file": (edit("environments/.dev.yaml"), []),
}


@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES)
def test_a_change_touches(
    change: Callable[[Path], None], expected: list[str], repository: Path
) -> None:
    change(repository)
    commit(repository)
    assert changed_environments(repository, "HEAD~1") == expected


def test_what_is_not_committed_does_not_count(repository: Path) -> None:
    commit(repository)
    edit("app.py")(repository)
    edit("environments/prod.yaml")(repository)
    assert changed_environments(repository, "HEAD~1") == []


def test_several_commits_are_one_change(repository: Path) -> None:
    base = git(repository, "rev-parse", "HEAD")
    for name in ("dev", "prod"):
        edit(f"environments/{name}.yaml")(repository)
        commit(repository)
    assert changed_environments(repository, base) == ["dev", "prod"]
    assert changed_environments(repository, base, "HEAD~1") == ["dev"]


def test_a_change_that_was_taken_back_is_none(repository: Path) -> None:
    base = git(repository, "rev-parse", "HEAD")
    edit("app.py")(repository)
    commit(repository)
    edit("app.py", FILES["app.py"])(repository)
    commit(repository)
    assert changed_environments(repository, base) == []


def test_the_first_commit_of_a_branch_changes_every_environment(repository: Path) -> None:
    assert changed_environments(repository, NO_COMMIT) == ALL


def test_the_repository_may_be_a_folder_of_another(tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init", "--quiet")
    write(outer, {f"site/{name}": text for name, text in FILES.items()})
    commit(outer)
    write(outer, {"stacks/other.py": "not ours", "site/environments/dev.yaml": "changed: true"})
    commit(outer)
    assert changed_environments(outer / "site", "HEAD~1") == ["dev"]


@pytest.mark.parametrize("ref", ["nowhere", "--output=x", "", "HEAD:app.py", "f" * 40])
def test_a_commit_that_is_not_there_is_bad_input(repository: Path, ref: str) -> None:
    with pytest.raises(InputError, match="there is no commit"):
        changed_environments(repository, ref)


def test_a_shallow_clone_says_how_to_get_the_rest(repository: Path, tmp_path: Path) -> None:
    base = git(repository, "rev-parse", "HEAD")
    edit("environments/prod.yaml")(repository)
    commit(repository)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{repository}", str(clone))
    with pytest.raises(InputError, match=r"shallow clone.*fetch-depth: 0.*GIT_DEPTH: 0"):
        changed_environments(clone, base)
    git(clone, "fetch", "--quiet", "--unshallow")
    assert changed_environments(clone, base) == ["prod"]


def test_a_folder_without_git_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not in a git repository"):
        changed_environments(tmp_path, "HEAD")


def test_a_machine_without_git_is_bad_input(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="git is not installed"):
        changed_environments(repository, "HEAD")


def test_a_file_that_is_not_yaml_is_bad_input(repository: Path) -> None:
    edit("environments/prod.yaml", "{")(repository)
    commit(repository)
    with pytest.raises(InputError, match=r"environments/prod\.yaml at \w+ is not YAML"):
        changed_environments(repository, "HEAD~1")


@pytest.mark.parametrize("text", ["", "[]", "clusters: 3", "clusters: [1, {config: 2}]"])
def test_a_mistaken_environment_is_left_to_the_check(repository: Path, text: str) -> None:
    edit("environments/prod.yaml", text)(repository)
    commit(repository)
    assert changed_environments(repository, "HEAD~1") == ["prod"]


def test_the_shipped_environments_are_read(root: Path) -> None:
    if not (root / ".git").exists():
        pytest.skip("not a clone")
    sites = {site.name: site for site in read_sites(root)}
    assert sites["sandbox"].github_environment == "sandbox"
    assert sites["ws-dev"].on_gitlab
    assert "eco.yaml" in sites["ws-dev"].configs


def called(
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *words: str,
) -> str:
    monkeypatch.setitem(COMMANDS, "environments", ("changed", "list environments"))
    assert main(["--root", str(repository), "environments", *words]) == 0
    return capsys.readouterr().out


def test_the_command_lists_all_environments(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(repository, monkeypatch, capsys) == "dev\nprod\ntest\n"


def test_the_command_lists_what_changed(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edit("cluster_configs/eco.yaml")(repository)
    commit(repository)
    since = ("--changed-since", "HEAD~1")
    assert called(repository, monkeypatch, capsys, *since) == "dev\ntest\n"
    assert json.loads(called(repository, monkeypatch, capsys, *since, "--format", "json")) == [
        "dev",
        "test",
    ]


def test_github_gets_the_environments_that_it_deploys(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = called(repository, monkeypatch, capsys, "--format", "github")
    name, _, value = text.partition("=")
    assert name == "environments"
    assert text.count("\n") == 1
    assert json.loads(value) == [
        {
            "name": "dev",
            "account": "111111111111",
            "region": "us-west-2",
            "environment": "development",
        }
    ]


def test_gitlab_gets_a_job_for_each_environment_that_it_deploys(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert yaml.safe_load(called(repository, monkeypatch, capsys, "--format", "gitlab")) == {
        "include": [{"local": ".gitlab/deploy.yml"}],
        "deploy-test": {
            "extends": ".deploy",
            "variables": {"AWS_REGION": "us-east-1"},
            "environment": {"name": "test"},
            "resource_group": "deploy-test",
        },
    }


def test_gitlab_gets_a_pipeline_even_when_nothing_is_to_be_deployed(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--changed-since", "HEAD", "--format", "gitlab")
    assert yaml.safe_load(called(repository, monkeypatch, capsys, *words)) == {
        "include": [{"local": ".gitlab/deploy.yml"}],
        "nothing-to-deploy": {"extends": ".nothing-to-deploy"},
    }
