"""Ports for clusters side by side: each has its own range, also of nodes that are not up yet."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from clusterbox.errors import ClusterboxError

# Below the ports that Linux gives to outgoing connections.
_FIRST, _LAST = 20000, 32000
STATE_FILE = "cluster.json"


def cache_folder() -> Path:
    """Return the user's cache folder for embedded clusters, and make it."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "clusterbox" / "slurm"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def reserve(state_folder: Path, count: int, address: str) -> int:
    """Return the first of `count` consecutive free ports, which stay the cluster's.

    They are given back by `release`, and when the state folder has no cluster any more. Raises
    ClusterboxError when there are not so many.
    """
    with _reservations() as reserved:
        reserved.pop(str(state_folder), None)
        for folder, given in list(reserved.items()):
            # One that starts just now has not written its state yet.
            if not (Path(folder) / STATE_FILE).exists() and not _is_alive(given[2:]):
                del reserved[folder]
        taken = sorted((first, size) for first, size, *_ in reserved.values())
        first = _FIRST
        while first + count <= _LAST:
            after = _end_of_taken(first, count, taken) or _end_of_used(first, count, address)
            if after is None:
                reserved[str(state_folder)] = [first, count, os.getpid()]
                return first
            first = after
    raise ClusterboxError(
        f"there are no {count} consecutive free ports between {_FIRST} and {_LAST}; "
        "end another cluster with `clusterbox embedded slurm down`, or lower MaxCount"
    )


def release(state_folder: Path) -> None:
    """Give the ports of a cluster back."""
    with _reservations() as reserved:
        reserved.pop(str(state_folder), None)


@contextlib.contextmanager
def _reservations() -> Iterator[dict[str, list[int]]]:
    """Hold the reservations by state folder: first port, number, and the process that asked."""
    path = cache_folder() / "ports.json"
    with path.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        try:
            reserved = json.loads(file.read() or "{}")
        except ValueError:
            reserved = {}  # A write that was interrupted; ports in use are seen anyway.
        yield reserved
        file.seek(0)
        file.truncate()
        file.write(json.dumps(reserved))


def _is_alive(pids: list[int]) -> bool:
    """Return whether the process that asked, where it is known, still runs."""
    return any(Path(f"/proc/{pid}").exists() for pid in pids)


def _end_of_taken(first: int, count: int, taken: list[tuple[int, int]]) -> int | None:
    for other, size in taken:
        if first < other + size and other < first + count:
            return other + size
    return None


def _end_of_used(first: int, count: int, address: str) -> int | None:
    for port in range(first, first + count):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                return port + 1
    return None
