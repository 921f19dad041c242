"""Jobs of Slurm's accounting as the meter needs them: one record for each start of a job."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from clusterbox.costs.usage import parse_time, render_time
from clusterbox.errors import Problem, ProblemsError
from clusterbox.slurm import expand_hostlist

# What `sacct --parsable2 --allocations --duplicates` is asked for; the name is last, because users
# choose it and it may hold the separator.
SACCT_COLUMNS = (
    "JobID",
    "User",
    "Account",
    "Partition",
    "State",
    "Start",
    "End",
    "AllocCPUS",
    "AllocTRES",
    "NodeList",
    "TimelimitRaw",
    "JobName",
)
# A file that was made without it is good too.
_OPTIONAL = ("TimelimitRaw",)
_UNKNOWN = ("", "Unknown", "None", "None assigned")
_GPUS = re.compile(r"(?:^|,)gres/gpu=(\d+)")


@dataclass(frozen=True)
class JobRun:
    """A job from one start to its end; a job that was requeued has several.

    Times are seconds since 1970 in UTC; `end` is None while it runs, or where nobody recorded one.
    `cpus` and `gpus` are those of all its nodes together. `limit_seconds` is its time limit, None
    without one.
    """

    id: str
    name: str
    user: str
    account: str
    queue: str
    state: str
    start: int
    end: int | None
    cpus: int
    nodes: tuple[str, ...]
    gpus: int = 0
    limit_seconds: int | None = None


def parse_sacct(text: str, *, name: str) -> tuple[JobRun, ...]:
    """Return the runs in the output of `sacct --parsable2` with a header, which has to be in UTC.

    Further columns are allowed, in any order but with JobName at the end where a name may hold `|`.
    Steps and runs that never started are left out. Raises ProblemsError with every line that is
    wrong.
    """
    lines = text.splitlines()
    header = lines[0].split("|") if lines else []
    needed = [column for column in SACCT_COLUMNS if column not in _OPTIONAL]
    if missing := [column for column in needed if column not in header]:
        reason = f"lacks the columns {', '.join(missing)}"
        raise ProblemsError([Problem(name, "header", reason, 1)])
    runs, problems = [], []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        cells = line.split("|", len(header) - 1)
        try:
            run = _parse_row(dict(zip(header, cells, strict=True)))
        except ValueError as error:
            problems.append(Problem(name, "job", str(error), number))
            continue
        if run is not None:
            runs.append(run)
    if problems:
        raise ProblemsError(problems)
    return order_runs(runs)


def order_runs(runs: Iterable[JobRun]) -> tuple[JobRun, ...]:
    """Return each run once, in the order of their starts, with ends no later than a requeue.

    Of two records of one run (job and start) the one with an end counts: the database is asked in
    pages, and a run may end between two of them.
    """
    found: dict[tuple[str, int], JobRun] = {}
    for run in runs:
        key = (run.id, run.start)
        found[key] = max(found.get(key, run), run, key=_rank)
    ordered = sorted(found.values(), key=lambda run: (run.start, run.id))
    following: dict[str, int] = {}
    kept = []
    for run in reversed(ordered):
        later = following.get(run.id)
        if later is not None and (run.end is None or run.end > later):
            run = replace(run, end=later)
        following[run.id] = run.start
        kept.append(run)
    return tuple(reversed(kept))


def render_sacct(runs: Iterable[JobRun]) -> str:
    """Return the runs as `sacct` prints them with a header, in UTC."""
    lines = ["|".join(SACCT_COLUMNS)]
    for run in runs:
        tres = f"billing={run.cpus},cpu={run.cpus},node={len(run.nodes)}"
        if run.gpus:
            tres += f",gres/gpu={run.gpus}"
        lines.append(
            "|".join(
                [
                    run.id,
                    run.user,
                    run.account,
                    run.queue,
                    run.state,
                    render_time(run.start).rstrip("Z"),
                    "Unknown" if run.end is None else render_time(run.end).rstrip("Z"),
                    str(run.cpus),
                    tres,
                    ",".join(run.nodes),
                    "UNLIMITED" if run.limit_seconds is None else str(run.limit_seconds // 60),
                    run.name,
                ]
            )
        )
    return "".join(f"{line}\n" for line in lines)


def _parse_row(row: Mapping[str, str]) -> JobRun | None:
    ident = row["JobID"]
    if row["Start"] in _UNKNOWN or row["NodeList"] in _UNKNOWN or "." in ident:
        return None
    try:
        start = parse_time(row["Start"])
        end = None if row["End"] in _UNKNOWN else parse_time(row["End"])
        gpus = _GPUS.search(row["AllocTRES"])
        cpus = int(row["AllocCPUS"] or 0)
        if cpus < 0:
            raise ValueError(f"AllocCPUS must be 0 or more (found: {cpus})")
        return JobRun(
            id=ident,
            name=row["JobName"],
            user=row["User"],
            account=row["Account"],
            queue=row["Partition"],
            # `CANCELLED by 1000` tells who did it.
            state=row["State"].split(" ")[0],
            start=start,
            # Clocks of two hosts can make an end come before its start.
            end=None if end is None else max(start, end),
            cpus=cpus,
            nodes=tuple(expand_hostlist(row["NodeList"])),
            gpus=int(gpus[1]) if gpus else 0,
            limit_seconds=_limit(row.get("TimelimitRaw", "")),
        )
    except ValueError as error:
        raise ValueError(f"{ident}: {error}") from error


def _limit(minutes: str) -> int | None:
    """Return seconds; `UNLIMITED` and `Partition_Limit` are no number."""
    return int(minutes) * 60 if minutes.isdigit() else None


def _rank(run: JobRun) -> tuple[bool, int, str]:
    return run.end is not None, run.end or 0, repr(run)
