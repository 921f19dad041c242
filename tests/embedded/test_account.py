from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clusterbox.embedded import server_process
from clusterbox.embedded.account import AccountError, EmbeddedAccount
from clusterbox.embedded.processes import is_alive
from clusterbox.embedded.stand_ins import stand_ins
from tests.embedded.stack_driver import ACCOUNT, REGION


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "embedded"
    yield path
    EmbeddedAccount.stop(path)


def start(state_dir: Path, **options: Any) -> EmbeddedAccount:
    return EmbeddedAccount.start(state_dir, account=ACCOUNT, region=REGION, **options)


def test_a_started_account_answers_who_it_is_and_is_found_again(state_dir: Path) -> None:
    started = start(state_dir)
    status = started.status()
    assert (status["account"], status["region"]) == (ACCOUNT, REGION)
    assert (status["ministack"], status["resources"]) == ("1.5.33", 0)
    assert EmbeddedAccount.attach(state_dir) == started
    assert started.client("sts").get_caller_identity()["Account"] == ACCOUNT
    state = json.loads((state_dir / "account.json").read_text())
    assert state["port"] == started.port


def test_stopping_ends_the_process_once_and_leaves_nothing_but_the_log(state_dir: Path) -> None:
    started = start(state_dir)
    assert EmbeddedAccount.stop(state_dir) is True
    assert not is_alive(started.pid)
    assert EmbeddedAccount.attach(state_dir) is None
    assert EmbeddedAccount.stop(state_dir) is False
    assert [path.name for path in state_dir.iterdir()] == ["account.log"]


def test_an_account_outlives_the_process_that_started_it(state_dir: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from clusterbox.embedded.account import *;"
        f"EmbeddedAccount.start(Path(sys.argv[1]), account='{ACCOUNT}', region='{REGION}')"
    )
    subprocess.run([sys.executable, "-c", code, str(state_dir)], check=True, timeout=60)
    found = EmbeddedAccount.attach(state_dir)
    assert found is not None
    assert os.getsid(found.pid) == found.pid
    assert EmbeddedAccount.stop(state_dir) is True


def test_a_second_start_in_the_same_directory_is_refused(state_dir: Path) -> None:
    started = start(state_dir)
    with pytest.raises(AccountError, match=rf"already runs in .* \(port {started.port},"):
        start(state_dir)


def test_two_accounts_run_side_by_side_and_share_nothing(
    state_dir: Path, account: EmbeddedAccount
) -> None:
    other = EmbeddedAccount.start(state_dir, account="111122223333", region="us-gov-west-1")
    assert other.port != account.port
    other.client("ssm").put_parameter(Name="/only/here", Value="1", Type="String")
    names = account.client("ssm").describe_parameters()["Parameters"]
    assert "/only/here" not in {parameter["Name"] for parameter in names}
    assert other.client("sts").get_caller_identity()["Account"] == "111122223333"
    assert account.status()["account"] == ACCOUNT


def test_the_server_listens_on_loopback_only(account: EmbeddedAccount) -> None:
    listening = Path(f"/proc/{account.pid}/net/tcp")
    if not listening.exists():
        pytest.skip("this system has no /proc")
    port = f"{account.port:04X}"
    rows = [line.split()[1:4] for line in listening.read_text().splitlines()[1:]]
    local = [address for address, _, state in rows if state == "0A" and address.endswith(port)]
    assert local == [f"0100007F:{port}"]


def test_another_address_than_loopback_is_refused(state_dir: Path) -> None:
    with pytest.raises(AccountError, match="binds to loopback only"):
        start(state_dir, extra_env={"BIND_HOST": "0.0.0.0"})  # noqa: S104
    assert not state_dir.exists()


def test_a_port_that_is_taken_is_told_with_the_end_of_the_log(state_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(AccountError, match="Address already in use") as told:
            start(state_dir, port=taken.getsockname()[1])
    assert "account.log" in str(told.value)
    assert EmbeddedAccount.attach(state_dir) is None


def test_an_interpreter_without_ministack_is_told_with_the_end_of_the_log(state_dir: Path) -> None:
    with pytest.raises(AccountError, match="No module named"):
        start(state_dir, extra_env={"PYTHONNOUSERSITE": "1"}, python=_python_without_packages())


def _python_without_packages() -> str:
    return str(Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"account": "1"}'])
def test_a_broken_state_file_is_no_account(state_dir: Path, text: str) -> None:
    state_dir.mkdir()
    (state_dir / "account.json").write_text(text)
    assert EmbeddedAccount.attach(state_dir) is None
    assert EmbeddedAccount.stop(state_dir) is False


def test_a_stale_state_file_never_ends_another_process(state_dir: Path) -> None:
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        state_dir.mkdir()
        state = {"account": ACCOUNT, "region": REGION, "port": 1, "pid": stranger.pid}
        (state_dir / "account.json").write_text(json.dumps(state))
        assert EmbeddedAccount.attach(state_dir) is None
        assert EmbeddedAccount.stop(state_dir) is False
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_state_file_whose_port_another_account_took_is_stale(
    state_dir: Path, account: EmbeddedAccount
) -> None:
    state_dir.mkdir()
    state = {"account": ACCOUNT, "region": REGION, "port": account.port, "pid": os.getpid()}
    (state_dir / "account.json").write_text(json.dumps(state))
    assert EmbeddedAccount.attach(state_dir) is None
    assert EmbeddedAccount.stop(state_dir) is False
    assert account.status()["account"] == ACCOUNT


def test_stop_ends_a_server_that_no_longer_answers(state_dir: Path) -> None:
    started = start(state_dir)
    os.kill(started.pid, signal.SIGSTOP)
    begin = time.monotonic()
    try:
        assert EmbeddedAccount.stop(state_dir) is True
    finally:
        if is_alive(started.pid):
            os.kill(started.pid, signal.SIGCONT)
    assert not is_alive(started.pid)
    assert time.monotonic() - begin < 15


def test_the_environment_shuts_out_the_users_profiles(
    account: EmbeddedAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://s3.example.com")
    environment = account.process_environment()
    assert environment["AWS_ENDPOINT_URL"] == f"http://127.0.0.1:{account.port}"
    assert environment["AWS_CONFIG_FILE"] == environment["AWS_SHARED_CREDENTIALS_FILE"]
    assert "AWS_PROFILE" not in environment
    assert "AWS_ENDPOINT_URL_S3" not in environment
    assert account.environment().items() <= environment.items()
    assert account.client("sts").get_caller_identity()["Account"] == ACCOUNT


def test_every_stand_in_is_told_in_one_sentence() -> None:
    assert len(stand_ins()) > 10
    assert all(sentence.endswith(".") for sentence in stand_ins())


def test_a_proxy_of_the_caller_is_never_asked_for_the_account(
    account: EmbeddedAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "intranet.example")
    assert account.client("sts").get_caller_identity()["Account"] == account.account
    assert account.environment()["NO_PROXY"] == "intranet.example,127.0.0.1,localhost"


def test_settings_of_the_caller_do_not_reach_the_account(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "AWS_SESSION_TOKEN",
        "AWS_CA_BUNDLE",
        "BIND_HOST",
        "PERSISTENCE",
        "MINISTACK_HOST",
    ):
        monkeypatch.setenv(name, "caller's")
    kept = server_process.outside_settings(os.environ)
    assert not [name for name, value in kept.items() if value == "caller's"]
    assert "PATH" in kept


def test_a_folder_that_is_not_an_account_s_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "account.json").write_text('{"something": "else"}')
    assert EmbeddedAccount.stop(tmp_path) is False
    assert (tmp_path / "tmp").is_dir()
    assert (tmp_path / "account.json").exists()
