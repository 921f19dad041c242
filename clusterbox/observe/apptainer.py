"""Apptainer's containers, by the processes of this machine: there is no engine to ask.

Inside of a container Apptainer sets APPTAINER_CONTAINER, and SINGULARITY_CONTAINER for older
programs. The containers of one image, job and user are told as one: each task of a job may start
its own, and another one for each of its commands.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from clusterbox.observe.containers import (
    Container,
    EngineError,
    job_of_cgroup,
    job_of_environment,
    parse_environment,
)

_MARKS = ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER")
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MOST_ANCESTORS = 64

# Image, job, user.
_Key = tuple[str, str, str]
# Process and when it began: its number is used again.
_Ident = tuple[int, int]


@dataclass(frozen=True)
class _Process:
    """A process; `began` is in ticks since the machine's start, `cpu` with children that ended."""

    pid: int
    parent: int
    began: int
    cpu_seconds: float
    resident_bytes: float

    @property
    def ident(self) -> _Ident:
        """Its number, and when it began."""
        return self.pid, self.began


@dataclass
class _Totals:
    """What the containers of a key used: CPU seconds, bytes read, bytes written.

    A process that ends leaves its figures to the one that waits for it, as long as there is one.
    """

    ended: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    told: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    # Of each process at the last look its parent and its figures.
    running: dict[_Ident, tuple[_Ident | None, list[float]]] = field(default_factory=dict)

    def add(self, running: dict[_Ident, tuple[_Ident | None, list[float]]]) -> list[float]:
        """Return the figures with those that run now; they never go back."""
        for ident, (parent, figures) in self.running.items():
            if ident in running:
                continue
            while parent is not None and parent not in running:
                parent = self.running[parent][0] if parent in self.running else None
            if parent is None:
                self.ended = _added(self.ended, figures)
        self.running = running
        total = self.ended
        for _parent, figures in running.values():
            total = _added(total, figures)
        self.told = [max(pair) for pair in zip(self.told, total, strict=True)]
        return self.told


def _added(one: list[float], other: list[float]) -> list[float]:
    return [a + b for a, b in zip(one, other, strict=True)]


class Apptainer:
    """Reads all containers of Apptainer and Singularity."""

    name = "apptainer"

    def __init__(self, processes: Path = Path("/proc")) -> None:
        """Read what the kernel tells of processes in a folder."""
        self._folder = processes
        self._totals: dict[_Key, _Totals] = {}

    def read(self, most: int) -> tuple[list[Container], int]:
        """Return the oldest containers, `most` of them, and how many run.

        Raises EngineError where the processes cannot be listed. What another user's processes do is
        seen by root only, or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH.
        """
        try:
            pids = [int(one.name) for one in self._folder.iterdir() if one.name.isdigit()]
        except OSError as error:
            raise EngineError(f"{self._folder}: {error.strerror}") from error
        processes = {one.pid: one for one in map(self._process, pids) if one is not None}
        images = {pid: image for pid in processes if (image := self._image(pid))}
        tops: dict[int, list[int]] = {}
        for pid in images:
            tops.setdefault(_top(pid, processes, images), []).append(pid)
        groups: dict[_Key, dict[int, list[int]]] = {}
        for top, members in tops.items():
            key = (images[top], self._job(top, processes), self._user(top))
            groups.setdefault(key, {})[top] = members
        self._totals = {key: self._totals.get(key, _Totals()) for key in groups}
        found = [self._container(key, group, processes) for key, group in groups.items()]
        found.sort(key=lambda one: (one.started, one.labels))
        return found[:most], len(found)

    def _container(
        self, key: _Key, group: Mapping[int, Iterable[int]], processes: Mapping[int, _Process]
    ) -> Container:
        image, job, user = key
        everyone = [pid for members in group.values() for pid in members]
        running: dict[_Ident, tuple[_Ident | None, list[float]]] = {}
        io_known = True
        for pid in everyone:
            process, io = processes[pid], self._io(pid)
            io_known = io_known and io is not None
            parent = processes.get(process.parent)
            running[process.ident] = (
                parent.ident if parent else None,
                [process.cpu_seconds, *(io or (0.0, 0.0))],
            )
        cpu, read, written = self._totals[key].add(running)
        return Container(
            name=PurePosixPath(image).name or image,
            image=image[:200],
            job=job,
            user=user,
            started=float(min(processes[top].began for top in group)),
            cpu_seconds=cpu,
            memory_bytes=sum(self._memory(processes[pid]) for pid in everyone),
            read_bytes=read if io_known else None,
            write_bytes=written if io_known else None,
            processes=len(everyone),
        )

    def _process(self, pid: int) -> _Process | None:
        text = self._text(pid, "stat")
        # The name, in brackets, may hold anything.
        cells = text.rpartition(")")[2].split()
        if len(cells) < 22:
            return None
        # Fields 14 to 17 of proc(5): utime, stime, cutime, cstime; 4, 22, 24: ppid, starttime, rss.
        ticks = sum(int(cell) for cell in cells[11:15])
        return _Process(
            pid, int(cells[1]), int(cells[19]), ticks / _TICKS, int(cells[21]) * _PAGE_BYTES
        )

    def _image(self, pid: int) -> str:
        environment = self._environment(pid)
        return next((environment[mark] for mark in _MARKS if environment.get(mark)), "")

    def _job(self, top: int, processes: Mapping[int, _Process]) -> str:
        """Return the job by the cgroup, else by the variables of the process or who started it.

        With `--cleanenv` the container itself does not have them.
        """
        if job := job_of_cgroup(self._text(top, "cgroup")):
            return job
        pid = top
        for _ in range(_MOST_ANCESTORS):
            if job := job_of_environment(self._environment(pid)):
                return job
            if pid not in processes or pid <= 1:
                break
            pid = processes[pid].parent
        return ""

    def _user(self, pid: int) -> str:
        try:
            uid = (self._folder / str(pid)).stat().st_uid
        except OSError:
            return ""
        try:
            return pwd.getpwuid(uid).pw_name
        except KeyError:
            return str(uid)

    def _memory(self, process: _Process) -> float:
        """Return its part of memory: what it shares with others is divided among them."""
        for line in self._text(process.pid, "smaps_rollup").splitlines():
            if line.startswith("Pss:"):
                return float(line.split()[1]) * 1024
        return process.resident_bytes

    def _io(self, pid: int) -> tuple[float, float] | None:
        cells = dict(
            line.split(": ", 1) for line in self._text(pid, "io").splitlines() if ": " in line
        )
        if "read_bytes" not in cells or "write_bytes" not in cells:
            return None
        return float(cells["read_bytes"]), float(cells["write_bytes"])

    def _environment(self, pid: int) -> dict[str, str]:
        return parse_environment(self._text(pid, "environ").split("\0"))

    def _text(self, pid: int, name: str) -> str:
        """Return a file of a process; empty when it has ended, or is not ours to read."""
        try:
            data = (self._folder / str(pid) / name).read_bytes()
        except OSError:
            return ""
        return data.decode("utf-8", "replace")


def _top(pid: int, processes: Mapping[int, _Process], images: Mapping[int, str]) -> int:
    """Return the first process of a container, from which the given one comes."""
    for _ in range(_MOST_ANCESTORS):
        parent = processes[pid].parent
        if images.get(parent) != images[pid]:
            break
        pid = parent
    return pid
