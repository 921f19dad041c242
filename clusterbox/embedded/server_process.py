"""Starting the server process of an embedded account, and reading its log."""

from __future__ import annotations

import ipaddress
import os
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

LOOPBACK = "127.0.0.1"
LOG_FILE = "account.log"
_LOG_TAIL_LINES = 20
_STEERING_PREFIXES = ("AWS_", "CDK_", "LOCALSTACK_", "MINISTACK_")
_STEERING = frozenset(
    {"AUTH", "BIND_HOST", "EDGE_PORT", "GATEWAY_PORT", "PERSISTENCE", "PERSIST_STATE"}
)


def asks_for_loopback(environment: Mapping[str, str]) -> bool:
    """Return whether the environment leaves the server on the loopback address."""
    host = environment.get("BIND_HOST", LOOPBACK)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def outside_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what could steer calls elsewhere, or the server itself.

    Credentials and endpoints of the caller stay out of the account, and of the functions that run
    in it; a proxy is never asked for the loopback address.
    """
    kept = {
        key: value
        for key, value in environment.items()
        if not key.startswith(_STEERING_PREFIXES) and key not in _STEERING
    }
    return kept | no_proxy(environment)


def no_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that keep a proxy, where the caller has one, off the loopback address."""
    given = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
    hosts = [host for host in given.split(",") if host]
    hosts += [host for host in (LOOPBACK, "localhost") if host not in hosts]
    return {"NO_PROXY": ",".join(hosts), "no_proxy": ",".join(hosts)}


def free_port() -> int:
    """Return a TCP port of the loopback address that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def scratch_dir(state_dir: Path) -> Path:
    """Return where the server keeps temporary files, such as the code of functions."""
    return state_dir / "tmp"


def launch(
    state_dir: Path,
    account: str,
    region: str,
    python: str,
    port: int,
    extra_env: Mapping[str, str],
) -> subprocess.Popen[bytes]:
    """Start the server in a session of its own, its output going to the log."""
    scratch = scratch_dir(state_dir).resolve()
    scratch.mkdir(exist_ok=True)
    command = [python, "-m", "clusterbox.embedded.server"]
    command += ["--port", str(port), "--account", account, "--region", region]
    with (state_dir / LOG_FILE).open("wb") as log:
        return subprocess.Popen(
            command,
            # Where this package is found, whichever interpreter runs it.
            cwd=Path(__file__).resolve().parents[2],
            # The code of Lambda functions is unpacked there; `stop` removes it.
            env={**outside_settings(os.environ), "TMPDIR": str(scratch), **extra_env},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def log_tail(state_dir: Path) -> str:
    """Return the last lines of the server's log."""
    try:
        lines = (state_dir / LOG_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return "(there is no log)"
    return "\n".join(lines[-_LOG_TAIL_LINES:])
