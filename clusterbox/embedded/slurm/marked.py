"""Finding and ending the processes of a cluster by the mark that they carry.

Every daemon is started with the mark in its environment; jobs carry the path of the cluster's
slurm.conf. A job's slurmstepd writes its title over its environment, but holds the log of its node
open. So nothing has to be written down to find all of them again, and nothing else is ever ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from clusterbox.errors import ClusterboxError

_VARIABLE = "CLUSTERBOX_SLURM"
_END_SECONDS = 10.0


def environment(mark: str, node: str = "") -> dict[str, str]:
    """Return the variable that marks a daemon of a cluster, or of one of its nodes."""
    return {_VARIABLE: f"{mark}:{node}"}


def find(mark: str, slurm_conf: Path, node: str | None = None) -> list[int]:
    """Return the processes of a cluster, or those of one of its nodes: daemons first, then jobs."""
    kinds = {pid: _kind(pid, mark, slurm_conf, node) for pid in _pids()}
    found = [(kind, pid) for pid, kind in kinds.items() if kind is not None]
    return [pid for _, pid in sorted(found)]


def end(mark: str, slurm_conf: Path, node: str | None = None) -> int:
    """End the processes of a cluster, or of one of its nodes, at once; return how many there were.

    Daemons go first: none is left to tell slurmctld that a job has failed. Raises ClusterboxError
    when some are left after 10 s.
    """
    ended: set[int] = set()
    limit = time.monotonic() + _END_SECONDS
    while pids := find(mark, slurm_conf, node):
        ended.update(pid for pid in pids if _kill(pid, mark, slurm_conf, node))
        if time.monotonic() > limit:
            raise ClusterboxError(f"processes {pids} cannot be ended; who started them must")
        time.sleep(0.01)
    for pid in ended:
        # A child of this process would else stay as one that has ended.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
    return len(ended)


def _kill(pid: int, mark: str, slurm_conf: Path, node: str | None) -> bool:
    # The descriptor stays that of the process that is looked at, even when its id is reused.
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if _kind(pid, mark, slurm_conf, node) is None:
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(descriptor)
    return True


def _kind(pid: int, mark: str, slurm_conf: Path, node: str | None) -> int | None:
    """Return 0 for a daemon of the cluster (or node), 1 for a process of a job, None for others."""
    if pid == os.getpid():
        return None
    found = _environment(pid)
    daemon = f"{mark}:" if node is None else f"{mark}:{node}\0"
    if daemon.encode() in found:
        return 0
    if (of_step := _node_of_step(pid, slurm_conf.parent.parent / "log")) is not None:
        return 0 if node in (None, of_step) else None
    variables = found.split(b"\0")
    if f"SLURM_CONF={slurm_conf}".encode() not in variables:
        return None
    where = [text for text in variables if text.startswith(b"SLURMD_NODENAME=")]
    return 1 if where and node in (None, where[0].decode().partition("=")[2]) else None


def _node_of_step(pid: int, logs: Path) -> str | None:
    """Return the node whose job's step a process is, told by its log; None for other processes."""
    process = Path(f"/proc/{pid}")
    try:
        if not (process / "cmdline").read_bytes().startswith(b"slurmstepd"):
            return None
        opened = [entry.readlink() for entry in (process / "fd").iterdir()]
    except OSError:
        return None
    names = [path.name for path in opened if path.parent == logs]
    found = [name for name in names if name.startswith("slurmd-") and name.endswith(".log")]
    return found[0].removeprefix("slurmd-").removesuffix(".log") if found else None


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit())


def _environment(pid: int) -> bytes:
    """Return a process's environment; empty when it has ended, or belongs to somebody else."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""
