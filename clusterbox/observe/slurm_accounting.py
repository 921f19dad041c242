"""What is asked more seldom than a scrape: ended jobs, partitions' states, licences."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from clusterbox.observe.slurm_reader import SEPARATOR
from clusterbox.observe.slurm_states import JOB_STATES
from clusterbox.slurm import Slurm, SlurmError, parse_key_values

_COLUMNS = ("JobID", "User", "Partition", "State", "End", "ElapsedRaw", "AllocCPUS", "TotalCPU")
_DURATION = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)(?:\.(\d+))?")
_ENDED = "BF,CA,CD,DL,F,NF,OOM,PR,TO"
# Who is not told by name.
OTHER = "other"
# slurmdbd writes ends in batches; a job that it learned of late is looked for this long.
_LATE_SECONDS = 600


@dataclass(frozen=True)
class Licence:
    """Licences of one name."""

    total: int
    used: int
    free: int


@dataclass(frozen=True)
class Ended:
    """Counters of ended jobs: by partition and state, and CPU seconds by partition and user."""

    by_state: Mapping[tuple[str, str], int]
    used_seconds: Mapping[tuple[str, str], float]
    allocated_seconds: Mapping[tuple[str, str], float]
    unknown_states: int


class EndedJobs:
    """Counts jobs that ended since it was made; each counts once.

    The first `most_users` users are told by name, and those who come later as `other`: a counter
    must not change its name.
    """

    def __init__(self, most_users: int) -> None:
        """Count from now on: what ended before is in the accounting database."""
        self._begun = self._since = int(time.time())
        self._most_users = most_users
        self._users: set[str] = set()
        self._seen: dict[tuple[str, int], None] = {}
        self._by_state: Counter[tuple[str, str]] = Counter()
        self._used: dict[tuple[str, str], float] = {}
        self._allocated: dict[tuple[str, str], float] = {}
        self._unknown = 0

    def read(self, slurm: Slurm, timeout_seconds: float) -> Ended:
        """Add the jobs that ended since the last time, and return the sums.

        Raises SlurmError without accounting, and ValueError for what sacct would not print.
        """
        now = int(time.time())
        # After a clock that was ahead has been set back, its time does not count.
        self._begun, self._since = min(self._begun, now), min(self._since, now)
        start = max(self._since - _LATE_SECONDS, 0)
        # Steps are asked for because their CPU time is what a job's is made of.
        text = slurm.run(
            *("sacct", "--allusers", "--duplicates", "--noheader", "--parsable2"),
            f"--delimiter={SEPARATOR}",
            f"--format={','.join(_COLUMNS)}",
            f"--state={_ENDED}",
            f"--starttime={_time(start)}",
            f"--endtime={_time(now + 1)}",
            timeout_seconds=timeout_seconds,
        )
        for line in text.split("\n"):
            if not line:
                continue
            cells = line.split(SEPARATOR)
            if len(cells) != len(_COLUMNS):
                raise SlurmError(f"sacct printed a line of {len(cells)} columns: {line[:120]!r}")
            self._add(cells)
        # What ended before cannot be listed any more.
        self._seen = {key: None for key in self._seen if key[1] >= start}
        self._since = now
        return Ended(dict(self._by_state), dict(self._used), dict(self._allocated), self._unknown)

    def _add(self, cells: list[str]) -> None:
        ident, user, partition, words, end, elapsed, cpus, used = cells
        # Of a short job the end is in the database some seconds before its partition.
        if "." in ident or not partition or not end.isdigit():
            return
        key = (ident, int(end))
        if key in self._seen or int(end) < self._begun:
            return
        self._seen[key] = None
        state = words.split(" ")[0]
        if state not in JOB_STATES:
            self._unknown += 1
            state = "OTHER"
        self._by_state[partition, state] += 1
        who = (partition, self._name(user))
        had = int(elapsed or 0) * int(cpus or 0)
        self._allocated[who] = self._allocated.get(who, 0.0) + had
        self._used[who] = self._used.get(who, 0.0) + parse_duration(used)

    def _name(self, user: str) -> str:
        if user not in self._users and len(self._users) >= self._most_users:
            return OTHER
        self._users.add(user)
        return user


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
    if not records:
        raise SlurmError(f"scontrol listed no partitions: {text[:120]!r}")
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
