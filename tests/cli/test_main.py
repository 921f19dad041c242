from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from clusterbox.cli.main import COMMANDS, find_root, main
from clusterbox.errors import InputError
from tests.deployment.conftest import copy_repository


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "clusterbox.cli.main", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
    )


def test_help_loads_nothing_that_is_slow(root: Path) -> None:
    code = (
        "import sys\n"
        "from clusterbox.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "slow = {'aws_cdk', 'boto3', 'botocore', 'jsii', 'ministack', 'pandas', 'pydantic', 'rich', 'yaml'}\n"
        "print('loaded:', sorted(slow & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "loaded: []"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert "example:" in capsys.readouterr().out


def test_an_unknown_environment_is_bad_input_that_names_the_known_ones(root: Path) -> None:
    done = run("deploy", "nowhere", cwd=root)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "clusterbox: there is no environment 'nowhere'; environments/ has: sandbox, ws-dev\n"
    )


def test_an_unknown_command_is_bad_input(root: Path) -> None:
    assert run("deplo", cwd=root).returncode == 2


def test_problems_of_several_environments_are_reported_at_once(root: Path, tmp_path: Path) -> None:
    copy = copy_repository(root, tmp_path / "copy")
    for name in ("sandbox", "ws-dev"):
        path = copy / "environments" / f"{name}.yaml"
        path.write_text(path.read_text().replace("region: us-west-2", "region: oregon"))
    done = run("check", cwd=copy)
    assert done.returncode == 2
    assert "environments/sandbox.yaml" in done.stderr
    assert "environments/ws-dev.yaml" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_repository_is_found_from_a_folder_inside_it(root: Path) -> None:
    assert find_root(None if Path.cwd() == root else root) == root
    done = run("check", "ws-dev", "--format", "csv", cwd=root / "stacks")
    assert done.stdout.splitlines()[0] == "environment,subnet,cidr,usable,needed,free,may_also_come"


def test_a_folder_outside_of_a_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not in a clusterbox repository"):
        find_root(tmp_path)


def test_destroying_what_does_not_run_says_so(root: Path, tmp_path: Path) -> None:
    copy = copy_repository(root, tmp_path / "copy")
    done = run("destroy", "ws-dev", cwd=copy)
    assert done.returncode == 1
    assert done.stderr == (
        "clusterbox: no embedded account of ws-dev runs: there is nothing to remove\n"
    )


def test_showing_what_does_not_run_shows_nothing(root: Path, tmp_path: Path) -> None:
    copy = copy_repository(root, tmp_path / "copy")
    done = run("show", "ws-dev", "--format", "json", cwd=copy)
    assert (done.returncode, done.stdout) == (0, "[]\n")


def test_aws_without_credentials_is_bad_input_and_changes_nothing(
    root: Path, tmp_path: Path
) -> None:
    copy = copy_repository(root, tmp_path / "copy")
    done = subprocess.run(
        [sys.executable, "-m", "clusterbox.cli.main", "deploy", "ws-dev", "--target", "aws"],
        cwd=copy,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "AWS does not know who you are" in done.stderr
    assert not (copy / ".clusterbox" / "sites" / "ws-dev" / "cdk.out").exists()


@pytest.mark.parametrize("name", ["..", ".", "../../victim", "/", "a/b"])
def test_only_the_name_of_an_environment_can_be_ended(
    root: Path, tmp_path: Path, name: str
) -> None:
    copy = copy_repository(root, tmp_path / "copy")
    victim = tmp_path / "victim"
    (victim / "tmp").mkdir(parents=True)
    (victim / "account.json").write_text("{}")
    for words in (("down", name), ("down", str(victim)), ("env", name)):
        done = run("embedded", *words, cwd=copy)
        assert done.returncode == 2, done
        assert "is not the name of an environment" in done.stderr
    assert (victim / "account.json").exists()
    assert (victim / "tmp").is_dir()


def test_a_file_where_a_folder_must_be_is_told_in_one_line(root: Path, tmp_path: Path) -> None:
    copy = copy_repository(root, tmp_path / "copy")
    (copy / ".clusterbox").write_text("in the way")
    done = run("deploy", "ws-dev", cwd=copy)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert ".clusterbox" in done.stderr


@pytest.mark.parametrize(("yes", "agreed"), [("", False), ("no", False), ("0", False), ("1", True)])
def test_only_yes_agrees(root: Path, yes: str, agreed: bool) -> None:
    done = subprocess.run(
        ["make", "--dry-run", "deploy", f"YES={yes}"], cwd=root, capture_output=True, text=True
    )
    assert ("--yes" in done.stdout) is agreed


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "InstanceType: t3.medium",
            "InstanceType: 2024-01-01",
            "HeadNode.InstanceType: must be text, a number, true or false; put it in quotes",
        ),
        (
            "Region: ${site.region}",
            "Region: ${site.region}\n${buckets.logs}: x",
            "${buckets.logs}: must not be a reference: they stand in values",
        ),
        ("Region: ${site.region}", "Region: ${site.region}\n7: x", "must have text as keys"),
    ],
)
def test_what_a_configuration_cannot_hold_is_found_by_check(
    root: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    copy = copy_repository(root, tmp_path / "copy")
    path = copy / "cluster_configs" / "eco.yaml"
    path.write_text(path.read_text().replace(old, new, 1))
    done = run("check", "ws-dev", cwd=copy)
    assert done.returncode == 2
    assert message in done.stderr
    assert "cluster_configs/eco.yaml:" in done.stderr
