"""Jobs of Slurm's accounting as rows of a frame."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from clusterbox.observe.slurm_accounting import parse_duration
from clusterbox.observe.slurm_reader import SEPARATOR
from clusterbox.observe.slurm_states import WAITING, count_tasks
from clusterbox.slurm import Slurm, SlurmError

_COLUMNS = (
    *("JobID", "User", "Account", "Partition", "State", "ExitCode", "Submit", "Start", "End"),
    *("ElapsedRaw", "TimelimitRaw", "AllocNodes", "AllocCPUS", "AllocTRES", "TotalCPU", "MaxRSS"),
    "JobName",
)
# What waits is asked of slurmctld: the database does not tell of jobs that may not start yet.
_WAITING_COLUMNS = ("%i", "%u", "%a", "%P", "%T", "%V", "%l", "%j")
_MEMORY = re.compile(r"(?:^|,)mem=([\d.]+[KMGTP]?)")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50}
# Slurm writes the memory of a resource in MiB where it writes no unit.
_TRES_UNIT = "M"


@dataclass(frozen=True)
class JobRow:
    """A job from one submission or requeue to its end; times in seconds since 1970."""

    id: str
    count: int
    name: str
    user: str
    account: str
    queue: str
    state: str
    exit_code: str | None
    submitted: int | None
    started: int | None
    ended: int | None
    elapsed_seconds: int
    limit_seconds: int | None
    nodes: int
    cpus: int
    memory_bytes: int | None
    memory_used_bytes: int | None
    cpu_used_seconds: float | None

    @property
    def cpu_seconds(self) -> float:
        """CPUs times elapsed time."""
        return float(self.elapsed_seconds * self.cpus)

    def ended_within(self, start: float, end: float) -> bool:
        """Return whether it ran and ended in a span."""
        return self.started is not None and self.ended is not None and start <= self.ended <= end

    def seconds_within(self, start: float, end: float) -> float:
        """Return how long it ran in a span."""
        if self.started is None:
            return 0.0
        last = end if self.ended is None else min(self.ended, end)
        return max(last - max(self.started, start), 0.0)


def fetch_rows(slurm: Slurm, start: float, end: float) -> list[JobRow]:
    """Return the jobs that waited, ran or ended from `start` to `end`, seconds since 1970.

    Raises SlurmError without accounting.
    """
    door = replace(
        slurm,
        environment={**slurm.environment, "SLURM_TIME_FORMAT": "%s", "SLURM_BITSTR_LEN": "0"},
    )
    text = door.run(
        *("sacct", "--allusers", "--duplicates", "--noheader", "--parsable2"),
        f"--delimiter={SEPARATOR}",
        f"--format={','.join(_COLUMNS)}",
        f"--starttime={_time(start)}",
        # A job that started in this second is in it.
        f"--endtime={_time(end + 1)}",
    )
    ran = [row for row in parse_rows(text) if row.state not in WAITING or row.ended is not None]
    waiting = door.run(
        *("squeue", "--all", "--noheader", f"--states={','.join(sorted(WAITING))}"),
        *("-o", SEPARATOR.join(_WAITING_COLUMNS)),
    )
    return [*ran, *parse_waiting(waiting)]


def parse_waiting(text: str) -> Iterator[JobRow]:
    """Yield the jobs of squeue's output; raises SlurmError for another text."""
    for line in text.split("\n"):
        if not line:
            continue
        cells = line.split(SEPARATOR)
        if len(cells) != len(_WAITING_COLUMNS):
            raise SlurmError(f"squeue printed a line of {len(cells)} columns: {line[:120]!r}")
        ident, user, account, queue, state, submitted, limit, name = cells
        row = _row(
            dict.fromkeys(_COLUMNS, "")
            | {"JobID": ident, "JobName": name, "User": user, "Account": account}
            # A job that may run in several queues waits in each; it is told of the first.
            | {"Partition": queue.split(",", 1)[0], "State": state, "Submit": submitted}
        )
        yield replace(row, limit_seconds=round(parse_duration(limit)) or None)


def parse_rows(text: str) -> Iterator[JobRow]:
    """Yield the jobs of sacct's output with steps; raises SlurmError for another text."""
    current: JobRow | None = None
    for line in text.split("\n"):
        if not line:
            continue
        cells = line.split(SEPARATOR)
        if len(cells) != len(_COLUMNS):
            raise SlurmError(f"sacct printed a line of {len(cells)} columns: {line[:120]!r}")
        row = dict(zip(_COLUMNS, cells, strict=True))
        if "." in row["JobID"]:
            used = _bytes(row["MaxRSS"], "")
            if current is not None and used is not None:
                most = max(used, current.memory_used_bytes or 0)
                current = replace(current, memory_used_bytes=most)
            continue
        if current is not None:
            yield current
        try:
            current = _row(row)
        except ValueError as error:
            raise SlurmError(f"sacct printed a job that cannot be read: {error}") from error
    if current is not None:
        yield current


def _row(row: dict[str, str]) -> JobRow:
    has_started = row["Start"].isdigit() and int(row["AllocNodes"] or 0) > 0
    has_ended = row["End"].isdigit()
    memory = _MEMORY.search(row["AllocTRES"])
    limit = row["TimelimitRaw"]
    return JobRow(
        id=row["JobID"],
        count=count_tasks(row["JobID"]),
        name=row["JobName"],
        user=row["User"],
        account=row["Account"],
        queue=row["Partition"],
        # `CANCELLED by 1000` tells who did it.
        state=row["State"].split(" ")[0],
        exit_code=row["ExitCode"] or None,
        submitted=int(row["Submit"]) if row["Submit"].isdigit() else None,
        started=int(row["Start"]) if has_started else None,
        ended=int(row["End"]) if has_ended else None,
        elapsed_seconds=int(row["ElapsedRaw"] or 0),
        limit_seconds=int(limit) * 60 if limit.isdigit() else None,
        nodes=int(row["AllocNodes"] or 0) if has_started else 0,
        cpus=int(row["AllocCPUS"] or 0) if has_started else 0,
        memory_bytes=_bytes(memory[1], _TRES_UNIT) if memory else None,
        memory_used_bytes=None,
        cpu_used_seconds=parse_duration(row["TotalCPU"]) if has_started and has_ended else None,
    )


def _bytes(text: str, unit: str) -> int | None:
    """Return bytes of a number with or without one of Slurm's units; None for none."""
    found = re.fullmatch(r"([\d.]+)([KMGTP]?)", text)
    if found is None:
        return None
    return round(float(found[1]) * _UNITS[found[2] or unit])


def _time(seconds: float) -> str:
    # The commands run with TZ=UTC.
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(max(seconds, 0)))
