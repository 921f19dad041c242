"""Starting, finding, seeding and ending an embedded AWS account.

The account is a process of its own on the loopback address. It outlives the command that
started it; a file in its state directory tells later commands where it listens. What it holds
is in that process's memory only: an account that was stopped starts empty.
"""

from __future__ import annotations

import functools
import http.client
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clusterbox.aws import read_times_quickly
from clusterbox.embedded import processes, server_process
from clusterbox.embedded.faults import FAULTS, Fault
from clusterbox.embedded.seed import SeedDocument, SeedResult
from clusterbox.errors import ClusterboxError
from clusterbox.files import write_whole

START_TIMEOUT_SECONDS = 30.0
STATE_FILE = "account.json"
_STATUS_PATH = "/_clusterbox/status"
_SEED_PATH = "/_clusterbox/seed"
_FAULTS_PATH = "/_clusterbox/faults"
_MACHINES_PATH = "/_clusterbox/machines"
_ANSWER_SECONDS = 20.0
# Two starts at the same moment can pick the same free port; the later one tries another.
_PORT_ATTEMPTS = 3


class AccountError(ClusterboxError):
    """The embedded account cannot be started, found or reached."""


class SeedRefusedError(ClusterboxError):
    """The account refused a seed document; nothing of it was made."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"the embedded account refused its seed:\n{lines}")


@dataclass(frozen=True)
class EmbeddedAccount:
    """A running embedded account."""

    account: str
    region: str
    port: int
    pid: int
    state_dir: Path

    @classmethod
    def start(
        cls,
        state_dir: Path,
        *,
        account: str,
        region: str,
        python: str = sys.executable,
        port: int = 0,
        extra_env: Mapping[str, str] | None = None,
    ) -> EmbeddedAccount:
        """Start an empty account and return it once it answers.

        `port` 0 takes a free one; `python` is an interpreter that has ministack; `extra_env` is
        added to the server's environment, and so to that of every Lambda function.

        Raises AccountError when one runs in `state_dir` already, when `extra_env` asks for
        another address than loopback, or when the server does not answer in 30 seconds.
        """
        extra_env = dict(extra_env or {})
        if not server_process.asks_for_loopback(extra_env):
            host = extra_env["BIND_HOST"]
            raise AccountError(f"BIND_HOST {host!r}: the embedded account binds to loopback only")
        if running := cls.attach(state_dir):
            raise AccountError(
                f"an embedded account already runs in {state_dir} (port {running.port}, "
                f"pid {running.pid}): stop it first, or attach to it"
            )
        state_dir.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            chosen = port or server_process.free_port()
            process = server_process.launch(state_dir, account, region, python, chosen, extra_env)
            started = cls(account, region, chosen, process.pid, state_dir)
            # Written at once: whoever comes after a kill finds the process, and can end it.
            started._write_state()
            try:
                if started._wait_until_healthy(process):
                    return started
            except BaseException:
                processes.end_group(process.pid)
                raise
            ended = process.poll() is not None
            processes.end_group(process.pid)
            tail = server_process.log_tail(state_dir)
            if port or attempt == _PORT_ATTEMPTS or "in use" not in tail:
                break
        waited = f"did not answer within {START_TIMEOUT_SECONDS:.0f} s"
        raise AccountError(
            f"the embedded account on port {chosen} {'ended at once' if ended else waited}; "
            f"the end of {state_dir / server_process.LOG_FILE}:\n{tail}"
        )

    @classmethod
    def attach(cls, state_dir: Path) -> EmbeddedAccount | None:
        """Return the account running in `state_dir`; None when there is none.

        A state file whose process is gone, or whose port another server took over, is none.
        """
        found = cls._read_state(state_dir)
        return found if found and found._answers() else None

    @classmethod
    def stop(cls, state_dir: Path) -> bool:
        """End the account of `state_dir` and its Lambda functions; return whether one ran.

        Ends no process that is not that server, however old the state file is.
        """
        found = cls._read_state(state_dir)
        if found is None:
            return False  # Not the folder of an account: nothing in it is ours.
        running = found._is_our_process() or found._answers()
        if running:
            processes.end_group(found.pid)
        (state_dir / STATE_FILE).unlink(missing_ok=True)
        shutil.rmtree(server_process.scratch_dir(state_dir), ignore_errors=True)
        return running

    @property
    def endpoint_url(self) -> str:
        """Return where it listens; by address, so that S3's clients put buckets into the path."""
        return f"http://{server_process.LOOPBACK}:{self.port}"

    def environment(self) -> dict[str, str]:
        """Return the variables that send boto3, the AWS CLI and the CDK CLI to this account.

        The files of the user's profiles are shut out. A variable `AWS_PROFILE` in the
        surrounding environment would still be obeyed: see `process_environment`.
        """
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            # The CDK CLI remembers which account a key belongs to, so each account has its own.
            "AWS_ACCESS_KEY_ID": self.account,
            "AWS_SECRET_ACCESS_KEY": "embedded",
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_CONFIG_FILE": os.devnull,
            **server_process.no_proxy(os.environ),
        }

    def process_environment(self) -> dict[str, str]:
        """Return this process's environment with every AWS setting replaced by the account's."""
        return server_process.outside_settings(os.environ) | self.environment()

    def client(self, service: str) -> Any:
        """Return a boto3 client of this account; no file or variable of the user is read."""
        from botocore.config import Config

        # The stubs know only literal names of services.
        make: Any = _boto3_session(self.account, self.region).client
        return make(service, endpoint_url=self.endpoint_url, config=Config(proxies={}))

    def seed(self, document: SeedDocument | Mapping[str, object]) -> SeedResult:
        """Make what the document lists and is not there yet; return what was made.

        Raises SeedRefusedError with every problem, and AccountError when nothing answers.
        """
        given = document.model_dump() if isinstance(document, SeedDocument) else dict(document)
        status, answer = self._request("POST", _SEED_PATH, json.dumps(given))
        if status == http.client.BAD_REQUEST:
            raise SeedRefusedError(list(answer["problems"]))
        if status != http.client.OK:
            raise AccountError(f"seeding port {self.port} answered {status}: {answer}")
        return SeedResult.model_validate(answer)

    def inject(self, *faults: Fault) -> list[str]:
        """Let things go wrong (clusterbox.embedded.faults); return what was done, a line each.

        Faults of images wait for the next bake of the image, faults of calls for the next calls;
        each is used up by what it hits. Raises AccountError when nothing answers.
        """
        body = FAULTS.dump_json(faults).decode()
        status, answer = self._request("POST", _FAULTS_PATH, body)
        if status != http.client.OK:
            raise AccountError(f"port {self.port} refused faults with {status}: {answer}")
        return list(answer["done"])

    def waiting_faults(self) -> list[dict[str, Any]]:
        """Return the faults that nothing has been hit by yet, with the times that are left."""
        return list(self._request("GET", _FAULTS_PATH)[1]["waiting"])

    def clear_faults(self, kind: str | None = None) -> None:
        """Forget the faults that wait, or those of one kind; what was done at once stays done."""
        self._request("DELETE", _FAULTS_PATH, kind)

    def machine(
        self,
        instance_id: str,
        *,
        environment: Mapping[str, str] | None = None,
        storage: Mapping[str, str] | None = None,
        at_reboot: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return the machine behind an instance, made where nothing asked for it yet.

        The answer has `folder`, `command` (the words before a command that runs in its view),
        `environment` (the variables of its commands) and `state` (kernels, packages, units).
        `environment` makes it a host, whose commands get these variables; `storage` is mount
        folder → name of a file system that machines share. `at_reboot` says what goes wrong at
        the next reboot: `modules` and `units` that are gone, or `stays_away`. Raises AccountError
        where no such instance runs.
        """
        asked = {"instance": instance_id, "environment": environment, "storage": storage}
        body = json.dumps({**asked, "at_reboot": at_reboot})
        status, answer = self._request("POST", _MACHINES_PATH, body)
        if status != http.client.OK:
            raise AccountError(f"{instance_id}: {'; '.join(answer['problems'])}")
        return dict(answer)

    def status(self) -> dict[str, Any]:
        """Return the account's id, region, number of stack resources and versions."""
        status, answer = self._request("GET", _STATUS_PATH)
        if status != http.client.OK:
            raise AccountError(f"port {self.port} answered {status}, not an embedded account")
        return dict(answer)

    def _request(
        self,
        method: str,
        path: str,
        body: str | None = None,
        timeout_seconds: float = _ANSWER_SECONDS,
    ) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(
            server_process.LOOPBACK, self.port, timeout=timeout_seconds
        )
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise AccountError(
                f"no embedded account answers on {server_process.LOOPBACK}:{self.port}: {error}"
            ) from error
        finally:
            connection.close()

    def _answers(self, timeout_seconds: float = 5.0) -> bool:
        if not processes.is_alive(self.pid):
            return False
        try:
            code, status = self._request("GET", _STATUS_PATH, timeout_seconds=timeout_seconds)
        except AccountError:
            return False
        who = (status.get("account"), status.get("pid")) if isinstance(status, dict) else None
        return code == http.client.OK and who == (self.account, self.pid)

    def _is_our_process(self) -> bool:
        """Return whether the pid is still this account's server, even one that hangs."""
        words = processes.command_of(self.pid)
        ours = ("clusterbox.embedded.server", str(self.port), self.account)
        return all(word in words for word in ours)

    def _wait_until_healthy(self, process: subprocess.Popen[bytes]) -> bool:
        end = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < end and process.poll() is None:
            if self._answers(timeout_seconds=1.0):
                return True
            time.sleep(0.05)
        return False

    def _write_state(self) -> None:
        """Write the state beside its file and rename it: a reader never sees half of it."""
        state = {**asdict(self), "state_dir": str(self.state_dir)}
        write_whole(self.state_dir / STATE_FILE, json.dumps(state, indent=2) + "\n")

    @classmethod
    def _read_state(cls, state_dir: Path) -> EmbeddedAccount | None:
        try:
            state = json.loads((state_dir / STATE_FILE).read_text(encoding="utf-8"))
            return cls(
                account=str(state["account"]),
                region=str(state["region"]),
                port=int(state["port"]),
                pid=int(state["pid"]),
                state_dir=state_dir,
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None  # No file, or not one of ours: no account.


@functools.cache
def _boto3_session(account: str, region: str) -> Any:
    """Return a session that reads neither profiles nor variables; making one takes 0.1 s."""
    import boto3
    import botocore.session
    from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES

    # No variable of the caller counts: each setting keeps its default, and the files are empty.
    ignored = {
        name: (None, None, default, convert)
        for name, (_, _, default, convert) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items()
    }
    ignored["config_file"] = ignored["credentials_file"] = (None, None, os.devnull, None)
    session = botocore.session.Session(session_vars=ignored)
    read_times_quickly(session)
    return boto3.session.Session(
        botocore_session=session,
        aws_access_key_id=account,
        aws_secret_access_key="embedded",  # noqa: S106 -- no secret: any value is accepted
        region_name=region,
    )
