"""The containers of a Docker engine, by its API on a unix socket."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from clusterbox.observe.containers import (
    Container,
    EngineError,
    job_of_cgroup,
    job_of_environment,
    parse_environment,
    user_of_environment,
)

# Less than the 10 s after which Prometheus gives a scrape up by default.
TIMEOUT_SECONDS = 8.0
# Docker 20.10 lets everyone who asks for figures wait for its own look once a second, so they are
# asked for side by side. Newer ones answer at once.
_WORKERS = 64
_MOST_BYTES = 32 << 20
_NANOSECONDS = 1_000_000_000
# The engine's answers for a container that has ended meanwhile.
_GONE = (404, 409)


@dataclass(frozen=True)
class _Facts:
    """What does not change while a container runs."""

    job: str
    user: str
    memory_limit: float | None


class DockerEngine:
    """Reads all running containers: one list, one answer for each, and one more for each new one."""

    name = "docker"

    def __init__(
        self,
        path: Path,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        processes: Path = Path("/proc"),
    ) -> None:
        """`path` is the engine's socket; `timeout_seconds` are for all of one reading."""
        self._path = path
        self._timeout = timeout_seconds
        self._processes = processes
        self._facts: dict[str, _Facts] = {}

    def read(self, most: int) -> tuple[list[Container], int]:
        """Return the oldest containers, `most` of them, and how many run; raises EngineError."""
        deadline = time.monotonic() + self._timeout
        try:
            with closing(_Door(self._path, deadline)) as door:
                listed = door.get("/containers/json")
            listed = sorted(listed or (), key=lambda item: (item["Created"], item["Id"]))
            chosen = listed[:most]
            with ThreadPoolExecutor(max(1, min(_WORKERS, len(chosen)))) as pool:
                found = list(pool.map(partial(self._read, deadline), chosen))
        except (OSError, ValueError, http.client.HTTPException) as error:
            said = str(error) or type(error).__name__
            raise EngineError(f"Docker at {self._path}: {said}") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise EngineError(
                f"Docker at {self._path} says what is not its API: {error}"
            ) from error
        alive = {item["Id"] for item in chosen}
        self._facts = {ident: facts for ident, facts in self._facts.items() if ident in alive}
        ended = found.count(None)
        return [one for one in found if one is not None], len(listed) - ended

    def _read(self, deadline: float, item: Mapping[str, Any]) -> Container | None:
        with closing(_Door(self._path, deadline)) as door:
            return self._ask(door, item)

    def _ask(self, door: _Door, item: Mapping[str, Any]) -> Container | None:
        ident = str(item["Id"])
        if ident not in self._facts:
            about = door.get(f"/containers/{quote(ident)}/json")
            if about is None:
                return None
            self._facts[ident] = self._read_facts(about)
        stats = door.get(f"/containers/{quote(ident)}/stats?stream=false&one-shot=true")
        # Of one that ends just now there are figures of nothing, of the year 1 or of no time.
        if stats is None or str(stats.get("read", "0001")).startswith("0001"):
            return None
        facts = self._facts[ident]
        names = item.get("Names") or [ident[:12]]
        read, written = _io(stats)
        cpu = (stats.get("cpu_stats") or {}).get("cpu_usage", {}).get("total_usage")
        return Container(
            name=str(names[0]).lstrip("/"),
            image=_short_image(str(item["Image"])),
            job=facts.job,
            user=facts.user,
            started=float(item["Created"]),
            cpu_seconds=None if cpu is None else cpu / _NANOSECONDS,
            memory_bytes=_memory(stats),
            memory_limit_bytes=facts.memory_limit,
            read_bytes=read,
            write_bytes=written,
            processes=(stats.get("pids_stats") or {}).get("current"),
        )

    def _read_facts(self, about: Mapping[str, Any]) -> _Facts:
        environment = parse_environment(about["Config"].get("Env") or ())
        return _Facts(
            self._cgroup_job(about["State"].get("Pid", 0)) or job_of_environment(environment),
            user_of_environment(environment),
            about["HostConfig"].get("Memory") or None,
        )

    def _cgroup_job(self, pid: int) -> str:
        try:
            text = (self._processes / str(pid) / "cgroup").read_text(encoding="utf-8")
        except OSError:
            return ""
        return job_of_cgroup(text)


class _Door:
    """One connection to the engine's socket, and the time that is left for it."""

    def __init__(self, path: Path, deadline: float) -> None:
        self._deadline = deadline
        self._connection = _UnixConnection(path, self._left())

    def get(self, target: str) -> Any:
        """Return an answer; None where the container is gone."""
        connection = self._connection
        if connection.sock is not None:
            connection.sock.settimeout(self._left())
        connection.request("GET", target, headers={"Host": "docker"})
        answer = connection.getresponse()
        # Not `read()` alone: an engine that goes on for ever must not fill the memory.
        body = answer.read(_MOST_BYTES)
        if answer.status in _GONE:
            return None
        if answer.status != http.client.OK:
            raise ValueError(f"{target.partition('?')[0]}: {answer.status} {body[:200]!r}")
        return json.loads(body)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("it took too long")
        return left


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("docker", timeout=timeout)
        self._socket_path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._socket_path))


def _memory(stats: Mapping[str, Any]) -> float | None:
    """Return memory as `docker stats` shows it: without files that the kernel could drop."""
    memory = stats.get("memory_stats") or {}
    usage = memory.get("usage")
    if usage is None:
        return None
    details = memory.get("stats") or {}
    # cgroup v1, v2.
    cached = details.get("total_inactive_file", details.get("inactive_file", 0))
    return float(usage - cached if cached < usage else usage)


def _io(stats: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Return bytes read and written; None where the kernel counts none, which is not 0."""
    entries = (stats.get("blkio_stats") or {}).get("io_service_bytes_recursive")
    if not entries:
        return None, None
    sums = {"read": 0.0, "write": 0.0}
    for entry in entries:
        operation = str(entry["op"]).lower()
        if operation in sums:
            sums[operation] += entry["value"]
    return sums["read"], sums["write"]


def _short_image(image: str) -> str:
    """Return an image without the digest that pins it, which is long and says nothing to people."""
    name, _, digest = image.partition("@sha256:")
    return f"{name}@{digest[:12]}" if digest else name.removeprefix("sha256:")[:200]
