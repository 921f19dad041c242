"""What clusters do, as pandas DataFrames: from Slurm's accounting, from Prometheus, or from both.

`jobs`, `nodes`, `users`, `queues`, `costs` and `efficiency` return tidy frames whose columns, types
and units are in frame_columns.py and docs/observability-frames.md. A column that the sources at hand
do not give is NA; `frame.attrs["notes"]` says which source would give it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clusterbox.errors import ClusterboxError, InputError
from clusterbox.observe.frame_columns import COLUMNS, Column
from clusterbox.observe.frames_slurm import JobRow, fetch_rows
from clusterbox.observe.prometheus import (
    DEFAULT_URL,
    Prometheus,
    Series,
    choose_step,
    now,
)
from clusterbox.observe.slurm_reader import Snapshot, read_snapshot
from clusterbox.observe.slurm_states import node_state, split_node_name
from clusterbox.slurm import Slurm

if TYPE_CHECKING:
    import pandas

DAY = 86_400
_HOUR = 3_600
_MIB = 2**20
_UNITS = {"s": 1, "m": 60, "h": _HOUR, "d": DAY, "w": 7 * DAY}
_AWAY = ("powered_down", "powering_down")
Row = dict[str, Any]


@dataclass(frozen=True)
class Sources:
    """Where frames come from: a Slurm, a Prometheus, or both.

    `cluster` is a name of Prometheus' label: with it only that cluster is told of, and Slurm's rows
    have it. Without it Slurm's rows have the name that Slurm itself has.
    """

    slurm: Slurm | None = None
    prometheus: Prometheus | None = None
    cluster: str | None = None

    @classmethod
    def here(cls, cluster: str | None = None) -> Sources:
        """Return the Slurm whose commands are on PATH and a Prometheus on this host, if they answer.

        Raises ClusterboxError where there is neither.
        """
        found = cls(find_slurm(), find_prometheus(), cluster)
        if found.slurm is None and found.prometheus is None:
            raise ClusterboxError(
                f"neither a Slurm answers here nor a Prometheus at {DEFAULT_URL}; run this on a "
                "head node, or forward the port of the monitoring host, or say where they are"
            )
        return found


def find_slurm() -> Slurm | None:
    """Return the Slurm of this host, also where ParallelCluster installs it; None if it is down."""
    path = f"/opt/slurm/bin{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    slurm = Slurm({"PATH": path})
    return slurm if shutil.which("scontrol", path=path) and slurm.is_up() else None


def find_prometheus() -> Prometheus | None:
    """Return the Prometheus of this host; None where none answers."""
    prometheus = Prometheus()
    return prometheus if prometheus.is_up() else None


@dataclass(frozen=True)
class _Case:
    """One question: its sources, and its span in seconds since 1970."""

    slurm: Slurm | None
    prometheus: Prometheus | None
    cluster: str | None
    start: float
    end: float
    name: str

    @property
    def selector(self) -> str:
        """What chooses the series of the cluster."""
        return "" if self.cluster is None else f'cluster="{_quoted(self.cluster)}"'

    @property
    def span(self) -> str:
        """The span for PromQL."""
        return f"{max(round(self.end - self.start), 1)}s"

    def ask(self, promql: str, **also: str) -> list[Series]:
        """Ask Prometheus; `$C` is the cluster's selector, `$S` the span. Nothing without it."""
        if self.prometheus is None:
            return []
        text = promql.replace("$C", self.selector).replace("$S", self.span)
        for name, value in also.items():
            text = text.replace(f"${name}", value)
        return self.prometheus.query(text, self.end)


def jobs(*, since: str | float = "24h", sources: Sources | None = None) -> pandas.DataFrame:
    """Return the jobs that waited, ran or ended in the span: a row for each start of a job.

    `since` is a span such as `90m`, `24h` or `7d`, or a time in seconds since 1970. With Prometheus
    alone a row is all jobs of a queue in a state, and `jobs` says how many.
    """
    case = _open("jobs", since, sources)
    if case.slurm is not None:
        name = case.cluster or ""
        rows = [_job(name, job) for job in fetch_rows(case.slurm, case.start, case.end)]
        return _frame(case, rows)
    ended = case.ask(
        "sum by (cluster, partition, state) (increase(slurm_jobs_ended_total{$C}[$S]))"
    )
    live = case.ask(
        'sum by (cluster, partition, state) (slurm_jobs{$C,state=~"pending|running|suspended|'
        'configuring|completing"})'
    )
    rows = [
        {
            "cluster": each.labels.get("cluster"),
            "jobs": round(each.value),
            "queue": each.labels["partition"],
            "state": each.labels["state"].upper(),
        }
        for each in (*live, *ended)
        if round(each.value) > 0
    ]
    return _frame(case, rows)


def nodes(*, since: str | float = "24h", sources: Sources | None = None) -> pandas.DataFrame:
    """Return the nodes now; how busy they were is the mean of the span.

    With Prometheus alone they are those that have a machine.
    """
    case = _open("nodes", since, sources)
    rows: dict[tuple[str | None, str], Row] = {}
    if case.slurm is not None:
        for node in case.slurm.fetch_nodes():
            state = node_state(node.details.get("State", ""))
            split = split_node_name(node.name)
            rows[case.cluster, node.name] = {
                "queue": ",".join(node.partitions),
                "compute_resource": split[1] if split else None,
                "state": state[0],
                "power": state[1],
                "cpus": node.cpus,
                "cpus_allocated": node.allocated_cpus,
                "memory_bytes": node.memory_mib * _MIB,
                "memory_allocated_bytes": int(node.details.get("AllocMem", 0)) * _MIB,
                "reason": node.reason,
            }
    else:
        for column, metric, factor in (
            ("cpus", "slurm_node_cpu_total", 1),
            ("cpus_allocated", "slurm_node_cpu_alloc", 1),
            ("memory_bytes", "slurm_node_mem_total", _MIB),
            ("memory_allocated_bytes", "slurm_node_mem_alloc", _MIB),
        ):
            for each in case.ask(f"{metric}{{$C}}"):
                key = (each.labels.get("cluster"), each.labels["node"])
                row = rows.setdefault(key, {"state": each.labels.get("status")})
                row[column] = round(each.value) * factor
    for column, promql in _NODE_EXPORTER.items():
        for each in case.ask(promql):
            key = (each.labels.get("cluster"), each.labels.get("node", ""))
            # Slurm says which nodes there are; head and login nodes are none of its.
            if key in rows:
                rows[key][column] = each.value
    return _frame(case, _keyed(rows, "cluster", "node"))


_NODE_EXPORTER = {
    "cpu_busy": (
        '1 - avg by (cluster, node) (rate(node_cpu_seconds_total{$C,mode="idle",node!=""}[$S]))'
    ),
    "memory_busy": (
        "1 - avg by (cluster, node) (avg_over_time(node_memory_MemAvailable_bytes{$C}[$S]))"
        " / avg by (cluster, node) (avg_over_time(node_memory_MemTotal_bytes{$C}[$S]))"
    ),
    "disk_full": (
        "max by (cluster, node) (1 - "
        'node_filesystem_avail_bytes{$C,fstype!~"tmpfs|overlay|squashfs|ramfs"}'
        " / node_filesystem_size_bytes)"
    ),
}


def users(*, since: str | float = "24h", sources: Sources | None = None) -> pandas.DataFrame:
    """Return who has jobs now, or had some that ended in the span."""
    case = _open("users", since, sources)
    rows: dict[tuple[str | None, str], Row] = {}
    figures = {"jobs_running": "running", "jobs_pending": "waiting", "cpus_running": "cpus"}
    if case.slurm is not None:
        for (user, kind), count in _snapshot(case.slurm).jobs.by_user.items():
            if kind in figures:
                rows.setdefault((case.cluster, user), {})[figures[kind]] = count
        ended = _ended(fetch_rows(case.slurm, case.start, case.end), case)
        for names, found in _grouped(ended, "user").items():
            row = rows.setdefault((case.cluster, names[0]), {})
            row |= {"ended": len(found), **_cpu(found)}
        for row in rows.values():
            for column in (*figures.values(), "ended"):
                row.setdefault(column, 0)
    else:
        for kind, column in figures.items():
            for each in case.ask(f"slurm_user_{kind}{{$C}}"):
                key = (each.labels.get("cluster"), each.labels["user"])
                rows.setdefault(key, {})[column] = round(each.value)
        _add_cpu(case, rows, "user")
    return _frame(case, _keyed(rows, "cluster", "user"))


def queues(*, since: str | float = "24h", sources: Sources | None = None) -> pandas.DataFrame:
    """Return the queues: their jobs and nodes now, what ended and how long it waited in the span."""
    case = _open("queues", since, sources)
    rows: dict[tuple[str | None, str], Row] = {}
    if case.slurm is not None:
        _slurm_queues(case, rows)
    else:
        for column, promql in _QUEUES.items():
            for each in case.ask(promql):
                # A quantile of no jobs is no number.
                if each.value == each.value:
                    key = (each.labels.get("cluster"), each.labels["partition"])
                    is_seconds = column.endswith("_seconds")
                    rows.setdefault(key, {})[column] = (
                        each.value if is_seconds else round(each.value)
                    )
        for row in rows.values():
            row.setdefault("running", 0)
            row.setdefault("ended", 0)
        _add_cpu(case, rows, "partition")
    return _frame(case, _keyed(rows, "cluster", "queue"))


_BY_QUEUE = "sum by (cluster, partition)"
_QUEUES = {
    "running": f'{_BY_QUEUE} (slurm_jobs{{$C,state="running"}})',
    "waiting": f"{_BY_QUEUE} (slurm_partition_jobs_pending{{$C}})",
    "ended": f"{_BY_QUEUE} (increase(slurm_jobs_ended_total{{$C}}[$S]))",
    "nodes_up": f'{_BY_QUEUE} (slurm_partition_nodes{{$C,state!~"powered_down|powering_down"}})',
    "nodes_most": f"{_BY_QUEUE} (slurm_partition_nodes{{$C}})",
    "cpus": f"{_BY_QUEUE} (slurm_partition_cpus_total{{$C}})",
    "cpus_allocated": f"{_BY_QUEUE} (slurm_partition_cpus_allocated{{$C}})",
    **{
        f"wait_{name}_seconds": (
            f"histogram_quantile({share}, sum by (le, cluster, partition)"
            " (increase(slurm_job_wait_seconds_bucket{$C}[$S])))"
        )
        for name, share in (("median", 0.5), ("p95", 0.95))
    },
}


def _slurm_queues(case: _Case, rows: dict[tuple[str | None, str], Row]) -> None:
    assert case.slurm is not None  # noqa: S101 - its caller has asked
    import pandas

    snapshot = _snapshot(case.slurm)
    for queue, cpus in snapshot.nodes.partition_cpus.items():
        states = {
            state: count
            for (partition, state), count in snapshot.nodes.by_partition.items()
            if partition == queue
        }
        rows[case.cluster, queue] = {
            "running": snapshot.jobs.by_state[queue, "RUNNING"],
            "waiting": sum(
                count
                for (partition, _), count in snapshot.jobs.by_reason.items()
                if partition == queue
            ),
            "ended": 0,
            "nodes_up": sum(count for state, count in states.items() if state not in _AWAY),
            "nodes_most": sum(states.values()),
            "cpus": cpus.total,
            "cpus_allocated": cpus.alloc,
        }
    records = fetch_rows(case.slurm, case.start, case.end)
    for key, found in _grouped(_ended(records, case), "queue").items():
        rows.setdefault((case.cluster, key[0]), {}).update(ended=len(found), **_cpu(found))
    started = [each for each in records if each.started and each.started >= case.start]
    for key, found in _grouped(started, "queue").items():
        waits = pandas.Series([wait for each in found if (wait := _wait(each)) is not None])
        if len(waits):
            row = rows.setdefault((case.cluster, key[0]), {})
            row["wait_median_seconds"] = float(waits.quantile(0.5))
            row["wait_p95_seconds"] = float(waits.quantile(0.95))


def costs(*, since: str | float = "24h", sources: Sources | None = None) -> pandas.DataFrame:
    """Return what clusters cost by component, queue and purchase option; Slurm adds its hours.

    Prices are Prometheus': with Slurm alone a row is a queue, and its amounts in USD are NA.
    """
    case = _open("costs", since, sources)
    labels = ("cluster", "component", "queue", "purchase_option")
    rows: dict[tuple[str | None, ...], Row] = {}
    step = choose_step(case.end - case.start)
    by = f"sum by ({', '.join(labels)})"
    for column, promql, factor in (
        ("usd_per_hour", f"{by} (clusterbox_cost_usd_per_hour{{$C}})", 1.0),
        ("usd_month", f"{by} (clusterbox_cost_month_usd{{$C}})", 1.0),
        ("unknown", f"{by} (clusterbox_cost_unknown{{$C}})", 1.0),
        # What each step cost; a step of which nobody told adds nothing.
        (
            "usd",
            f"{by} (sum_over_time(clusterbox_cost_usd_per_hour{{$C}}[$S:{step:.0f}s]))",
            step / _HOUR,
        ),
    ):
        for each in case.ask(promql):
            key = tuple(each.labels.get(label) for label in labels)
            rows.setdefault(key, {})[column] = each.value * factor
    if case.slurm is not None:
        for key, found in _grouped(fetch_rows(case.slurm, case.start, case.end), "queue").items():
            seconds = [(each, each.seconds_within(case.start, case.end)) for each in found]
            rows[case.cluster, None if case.prometheus is None else "(jobs)", key[0], None] = {
                "cpu_hours": sum(each.cpus * time for each, time in seconds) / _HOUR,
                "node_hours": sum(each.nodes * time for each, time in seconds) / _HOUR,
            }
    return _frame(case, _keyed(rows, *labels))


def efficiency(*, since: str | float = "24h", sources: Sources | None = None) -> pandas.DataFrame:
    """Return how well jobs that ended in the span used what they had, by queue and user."""
    case = _open("efficiency", since, sources)
    rows: dict[tuple[str | None, ...], Row] = {}
    if case.slurm is not None:
        ended = _ended(fetch_rows(case.slurm, case.start, case.end), case)
        for (queue, user), found in _grouped(ended, "queue", "user").items():
            row: Row = {"ended": len(found), **_cpu(found)}
            pairs = [
                (each.memory_used_bytes, each.memory_bytes)
                for each in found
                if each.memory_used_bytes is not None and each.memory_bytes
            ]
            if pairs:
                row["memory_efficiency"] = sum(p[0] for p in pairs) / sum(p[1] for p in pairs)
            limits = [
                each.elapsed_seconds / each.limit_seconds for each in found if each.limit_seconds
            ]
            if limits:
                row["limit_used"] = sum(limits) / len(limits)
            rows[case.cluster, queue, user] = row
    else:
        _add_cpu(case, rows, "partition", "user")
    for row in rows.values():
        if "cpu_seconds" in row:
            row["cpu_unused_hours"] = (row["cpu_seconds"] - row["cpu_used_seconds"]) / _HOUR
    return _frame(case, _keyed(rows, "cluster", "queue", "user"))


def query(
    promql: str,
    *,
    since: str | float | None = None,
    step_seconds: float | None = None,
    sources: Sources | None = None,
) -> pandas.DataFrame:
    """Return what an expression is now, or was since a time, in steps.

    A row is a value: `time` (datetime64[us, UTC]), `value` (Float64) and a string column for each
    label. Raises InputError without a Prometheus, or for what it cannot read.
    """
    import pandas

    given = sources or Sources.here()
    if given.prometheus is None:
        raise InputError("PromQL needs a Prometheus; say where it is, such as --prometheus URL")
    end = now()
    if since is None:
        found = given.prometheus.query(promql, end)
    else:
        start = parse_since(since, end)
        step = step_seconds or choose_step(end - start)
        found = given.prometheus.query_range(promql, start, end, step)
    names = sorted({name for series in found for name in series.labels})
    rows = [
        {"time": moment, "value": value, **series.labels}
        for series in found
        for moment, value in series.points
    ]
    frame = pandas.DataFrame(rows, columns=["time", *names, "value"])
    frame["time"] = _to_time(frame["time"])
    types: dict[str, Any] = {"value": "Float64", **dict.fromkeys(names, "string")}
    return frame.astype(types)


def parse_since(since: str | float, end: float) -> float:
    """Return the time that `24h` before `end` is; a number is a time already.

    Raises InputError for another text, and for a time that is not before `end`.
    """
    start = since if isinstance(since, (int, float)) else None
    if isinstance(since, str):
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", since.strip())
        if found is None:
            raise InputError(
                f"a span is a number and one of s, m, h, d, w, such as 24h, not {since!r}"
            )
        start = end - float(found[1]) * _UNITS[found[2]]
    if start is None or not 0 <= start < end:
        raise InputError(f"{since} is not a time before now")
    return start


def _open(name: str, since: str | float, sources: Sources | None) -> _Case:
    given = sources or Sources.here()
    if given.slurm is None and given.prometheus is None:
        raise InputError("a Slurm or a Prometheus is needed, or both")
    end = now()
    cluster = given.cluster
    if cluster is None and given.slurm is not None:
        cluster = given.slurm.fetch_configuration().get("ClusterName")
    return _Case(given.slurm, given.prometheus, cluster, parse_since(since, end), end, name)


def _snapshot(slurm: Slurm) -> Snapshot:
    return read_snapshot(slurm, slurm.timeout_seconds)


def _job(cluster: str, job: JobRow) -> Row:
    return {
        "cluster": cluster,
        "job": job.id,
        "jobs": job.count,
        "name": job.name,
        "user": job.user,
        "account": job.account,
        "queue": job.queue,
        "state": job.state,
        "exit_code": job.exit_code,
        "submitted": job.submitted,
        "started": job.started,
        "ended": job.ended,
        "wait_seconds": _wait(job),
        "elapsed_seconds": job.elapsed_seconds,
        "limit_seconds": job.limit_seconds,
        "nodes": job.nodes,
        "cpus": job.cpus,
        "memory_bytes": job.memory_bytes,
        "memory_used_bytes": job.memory_used_bytes,
        "cpu_seconds": job.cpu_seconds,
        "cpu_used_seconds": job.cpu_used_seconds,
        "cpu_efficiency": _share(job.cpu_used_seconds, job.cpu_seconds),
    }


def _wait(job: JobRow) -> int | None:
    if job.started is None or job.submitted is None:
        return None
    return max(job.started - job.submitted, 0)


def _ended(found: Iterable[JobRow], case: _Case) -> list[JobRow]:
    return [each for each in found if each.ended_within(case.start, case.end)]


def _grouped(found: Iterable[JobRow], *names: str) -> dict[tuple[str, ...], list[JobRow]]:
    groups: dict[tuple[str, ...], list[JobRow]] = {}
    for each in found:
        groups.setdefault(tuple(getattr(each, name) for name in names), []).append(each)
    return groups


def _cpu(found: Sequence[JobRow]) -> Row:
    had = sum(each.cpu_seconds for each in found)
    used = sum(each.cpu_used_seconds or 0.0 for each in found)
    return {"cpu_seconds": had, "cpu_used_seconds": used, "cpu_efficiency": _share(used, had)}


def _add_cpu(case: _Case, rows: dict[Any, Row], *labels: str) -> None:
    by = ", ".join(("cluster", *labels))
    for column, name in (("cpu_seconds", "allocated"), ("cpu_used_seconds", "used")):
        metric = f"slurm_ended_jobs_cpu_{name}_seconds_total"
        for each in case.ask(f"sum by ({by}) (increase({metric}{{$C}}[$S]))"):
            key = (each.labels.get("cluster"), *(each.labels[label] for label in labels))
            rows.setdefault(key, {})[column] = each.value
    for row in rows.values():
        if row.keys() >= {"cpu_seconds", "cpu_used_seconds"}:
            row["cpu_efficiency"] = _share(row["cpu_used_seconds"], row["cpu_seconds"])


def _share(part: float | None, whole: float) -> float | None:
    return None if part is None or whole <= 0 else part / whole


def _keyed(rows: Mapping[Any, Row], *names: str) -> list[Row]:
    ordered = sorted(rows.items(), key=lambda item: tuple(text or "" for text in item[0]))
    return [dict(zip(names, key, strict=True)) | row for key, row in ordered]


def _frame(case: _Case, rows: Sequence[Row]) -> pandas.DataFrame:
    """Return the rows with all columns of the frame, in its order and with its types."""
    try:
        import pandas
    except ImportError as error:
        raise InputError(
            "pandas is not installed; it is the extra `pandas`: pip install 'clusterbox[pandas]'"
        ) from error
    columns = COLUMNS[case.name]
    frame = pandas.DataFrame(list(rows), columns=[column.name for column in columns], dtype=object)
    for column in columns:
        values = frame[column.name]
        if column.type.startswith("datetime64"):
            frame[column.name] = _to_time(values)
        else:
            types: Any = column.type
            frame[column.name] = values.where(values.notna(), None).astype(types)
    frame.attrs["units"] = {column.name: column.unit for column in columns}
    frame.attrs["notes"] = _notes(case, columns)
    return frame


def _to_time(values: pandas.Series) -> pandas.Series:
    import pandas

    seconds = pandas.to_numeric(values, errors="coerce")
    micros = (seconds * 1e6).round()
    return pandas.to_datetime(micros, unit="us", utc=True).astype("datetime64[us, UTC]")


def _notes(case: _Case, columns: Iterable[Column]) -> list[str]:
    """Return which columns are NA for want of a source."""
    notes = []
    for source, has, name in (
        ("slurm", case.slurm, "Slurm's accounting"),
        ("prometheus", case.prometheus, "Prometheus"),
    ):
        missing = [column.name for column in columns if column.source == source]
        if has is None and missing:
            notes.append(f"without {name} these are NA: {', '.join(missing)}")
    return notes


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


__all__ = [
    "Prometheus",
    "Slurm",
    "Sources",
    "costs",
    "efficiency",
    "find_prometheus",
    "find_slurm",
    "jobs",
    "nodes",
    "parse_since",
    "query",
    "queues",
    "users",
]
