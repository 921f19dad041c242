"""What is asked more seldom than a scrape: ended jobs, partitions' states, licences."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass, field

from clusterbox.observe.slurm_states import JOB_STATES
from clusterbox.slurm import Slurm, SlurmError, parse_key_values

_COLUMNS = "JobID,User,Partition,State,End,ElapsedRaw,AllocCPUS,TotalCPU"
_DURATION = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)(?:\.(\d+))?")
_ENDED = "BF,CA,CD,DL,F,NF,OOM,PR,TO"
# slurmdbd writes ends in batches; a job that it learned of late is looked for this long.
_LATE_SECONDS = 600


@dataclass(frozen=True)
class Licence:
    """Licences of one name."""

    total: int
    used: int
    free: int


@dataclass
class EndedJobs:
    """Counters of ended jobs since the exporter started; each job counts once."""

    by_state: Counter[tuple[str, str]] = field(default_factory=Counter)
    used_seconds: dict[tuple[str, str], float] = field(default_factory=dict)
    allocated_seconds: dict[tuple[str, str], float] = field(default_factory=dict)
    unknown: int = 0
    _since: int = field(default_factory=lambda: int(time.time()))
    _seen: dict[str, int] = field(default_factory=dict)

    def read(self, slurm: Slurm, timeout_seconds: float) -> None:
        """Add the jobs that ended since the last time; raises SlurmError without accounting."""
        now = int(time.time())
        start = max(self._since - _LATE_SECONDS, 0)
        words = ("sacct", "--allusers", "--allocations", "--duplicates", "--noheader")
        text = slurm.run(
            *words,
            "--parsable2",
            f"--format={_COLUMNS}",
            f"--state={_ENDED}",
            f"--starttime={_time(start)}",
            f"--endtime={_time(now + 1)}",
            timeout_seconds=timeout_seconds,
        )
        for line in text.splitlines():
            cells = line.split("|")
            if len(cells) != 8:
                raise SlurmError(f"sacct printed a line of {len(cells)} columns: {line[:120]!r}")
            self._add(cells)
        # What ended before cannot be listed any more.
        self._seen = {key: end for key, end in self._seen.items() if end >= start}
        self._since = now

    def _add(self, cells: list[str]) -> None:
        ident, user, partition, words, end, elapsed, cpus, used = cells
        key = f"{ident} {end}"
        if not end.isdigit() or key in self._seen:
            return
        self._seen[key] = int(end)
        if int(end) < self._begun:
            return
        state = words.split(" ")[0]
        if state not in JOB_STATES:
            self.unknown += 1
            state = "OTHER"
        self.by_state[partition, state] += 1
        who = (partition, user)
        had = int(elapsed or 0) * int(cpus or 0)
        self.allocated_seconds[who] = self.allocated_seconds.get(who, 0.0) + had
        self.used_seconds[who] = self.used_seconds.get(who, 0.0) + parse_duration(used)

    def __post_init__(self) -> None:
        """Count from now on: what ended before is in the accounting database."""
        self._begun = self._since


@dataclass(frozen=True)
class Slow:
    """What changes seldom: partitions that are inactive, and licences by name."""

    inactive: dict[str, bool]
    licences: dict[str, Licence]


def read_slow(slurm: Slurm, timeout_seconds: float) -> Slow:
    """Return states of partitions, and licences; raises SlurmError."""
    text = slurm.run(
        "scontrol", "show", "partitions", "--all", "--oneliner", timeout_seconds=timeout_seconds
    )
    records = [parse_key_values(line) for line in text.splitlines() if "PartitionName=" in line]
    inactive = {r["PartitionName"]: r.get("State", "") == "INACTIVE" for r in records}
    listed = slurm.run(
        "scontrol", "show", "licenses", "--oneliner", timeout_seconds=timeout_seconds
    )
    return Slow(inactive, parse_licences(listed))


def parse_licences(text: str) -> dict[str, Licence]:
    """Return the licences of `scontrol show licenses`."""
    found = {}
    for line in text.splitlines():
        record = parse_key_values(line)
        if "LicenseName" in record:
            total, used, free = (int(record.get(key, 0)) for key in ("Total", "Used", "Free"))
            found[record["LicenseName"]] = Licence(total, used, free)
    return found


def parse_duration(text: str) -> float:
    """Return seconds of a time such as `1-02:03:04`, `02:03:04` or `03:04.567`; 0 for none."""
    found = _DURATION.fullmatch(text)
    if found is None:
        return 0.0
    days, hours, minutes, seconds, fraction = found.groups()
    whole = ((int(days or 0) * 24 + int(hours or 0)) * 60 + int(minutes)) * 60 + int(seconds)
    return whole + (float(f"0.{fraction}") if fraction else 0.0)


def _time(seconds: int) -> str:
    # The commands run with TZ=UTC.
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
