"""Whether a process lives, what it runs, and ending it together with its children."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

_TERM_SECONDS = 3.0


def is_alive(pid: int) -> bool:
    """Return whether a process of that id exists and has not ended."""
    _reap(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def command_of(pid: int) -> list[str]:
    """Return the words of a process's command line; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").rstrip("\0").split("\0")
    except ProcessLookupError:
        return []
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return []
    # A system without /proc.
    shown = subprocess.run(
        ["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return shown.stdout.split()


def end_group(pid: int) -> None:
    """End a process that leads its own group, and the group: politely, after 3 s by force."""
    try:
        os.killpg(pid, signal.SIGTERM)
        end = time.monotonic() + _TERM_SECONDS
        while is_alive(pid) and time.monotonic() < end:
            time.sleep(0.02)
        # A leader that hangs, and children that ignored the polite way or had no time for it.
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # No one of the group is left.
    while is_alive(pid):
        time.sleep(0.02)


def _reap(pid: int) -> None:
    """Collect an ended child of this process, which would else look alive for ever."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
