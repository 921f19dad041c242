"""Starting a daemon in the foreground with its output in a log, and waiting until it is ready."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from clusterbox.errors import ClusterboxError

_TAIL_LINES = 15
_POLL_SECONDS = 0.02


class EmbeddedSlurmError(ClusterboxError):
    """A Slurm on this machine cannot be started, found or ended."""


def launch(
    words: Sequence[str], log: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a daemon in a session of its own; what it prints goes to the log."""
    with log.open("ab") as output:
        return subprocess.Popen(
            words,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_until(
    name: str,
    process: subprocess.Popen[bytes],
    is_ready: Callable[[], bool],
    log: Path,
    timeout_seconds: float = 60.0,
) -> None:
    """Wait until a daemon is ready.

    Raises EmbeddedSlurmError with the end of its log when it ends before, or takes too long.
    """
    limit = time.monotonic() + timeout_seconds
    while not is_ready():
        code = process.poll()
        if code is not None:
            raise EmbeddedSlurmError(
                f"{name} ended while it started (exit code {code}); the end of {log}:\n{tail(log)}"
            )
        if time.monotonic() > limit:
            raise EmbeddedSlurmError(
                f"{name} was not ready within {timeout_seconds:g} s; the end of {log}:\n{tail(log)}"
            )
        time.sleep(_POLL_SECONDS)


def tail(log: Path) -> str:
    """Return the last lines of a log; of those that tell of errors where there are any."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return "(there is no log)"
    told = [line for line in lines if "error:" in line or "fatal:" in line or "[ERROR]" in line]
    return "\n".join((told or lines)[-_TAIL_LINES:])
