"""What a cluster used: instances from start to end, and storage; kept as JSON lines.

All times are whole seconds since 1970 in UTC; a file has them as `2026-11-03T08:00:00Z`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, TypeVar

from clusterbox.costs.snapshot import read_text
from clusterbox.errors import Problem, ProblemsError
from clusterbox.files import write_whole

PURCHASES = ("on-demand", "spot", "capacity-block")
# GiB, IOPS or MiB/s: more than AWS has of anything, so that a damaged number is told.
MOST_AMOUNT = 10**12
NODE_TYPES = ("HeadNode", "Compute", "LoginNode")


@dataclass(frozen=True)
class InstanceRun:
    """An instance from one start to the stop or termination after it.

    An instance that is stopped and started again, perhaps as another type, has one record for each
    start. `end` is None while it runs, or where nobody saw the end; then `seen` is when it was last
    seen running, None for a record that is of now. `node` is its name in Slurm, `cpus` and `gpus`
    are what Slurm can give to jobs there. `ready` is when jobs could start on it, `released` when
    Slurm began to power it down. `interrupted`: AWS took a Spot instance back. `public_ipv4` is
    its number of public addresses. `source` says who told of it: `ec2`, or `slurm` for node events.
    """

    instance: str
    instance_type: str
    purchase: str
    zone: str
    cluster: str
    node_type: str
    start: int
    end: int | None = None
    queue: str | None = None
    node: str | None = None
    cpus: int | None = None
    gpus: int = 0
    ready: int | None = None
    released: int | None = None
    seen: int | None = None
    interrupted: bool = False
    public_ipv4: int = 0
    source: str = "ec2"


@dataclass(frozen=True)
class Storage:
    """Storage of one size over a time: `amount` units of a price, such as 60 GiB of `ebs gp3`.

    A volume that is enlarged has a record for each size; IOPS and throughput that are paid beside
    the size are records of their own with the volume's id. `end` is None while it exists.
    """

    id: str
    product: str
    name: str
    amount: Decimal
    cluster: str
    start: int
    end: int | None = None


@dataclass(frozen=True)
class Usage:
    """The records of a cluster, each instance run and each storage once."""

    instances: tuple[InstanceRun, ...] = ()
    storage: tuple[Storage, ...] = ()

    def of_cluster(self, cluster: str) -> Usage:
        """Return the records of one cluster."""
        return Usage(
            tuple(run for run in self.instances if run.cluster == cluster),
            tuple(item for item in self.storage if item.cluster == cluster),
        )


def merge_usage(*parts: Usage) -> Usage:
    """Return all records in an order of their own; of several about one thing the best known.

    Pages may come in any order and more than once. A record with an end is newer than one without;
    an earlier `seen` gives way to a later one. What only one of them knows (node, queue, ready) is
    kept.
    """
    runs: dict[tuple[str, int], InstanceRun] = {}
    items: dict[tuple[str, str, str, int], Storage] = {}
    for part in parts:
        for run in part.instances:
            key = (run.instance, run.start)
            runs[key] = _merge_runs(runs[key], run) if key in runs else run
        for item in part.storage:
            place = (item.id, item.product, item.name, item.start)
            items[place] = max(items.get(place, item), item, key=_storage_rank)
    return Usage(
        tuple(sorted(runs.values(), key=lambda run: (run.start, run.instance))),
        tuple(sorted(items.values(), key=lambda item: (item.start, item.id, item.name))),
    )


def parse_usage(text: str, *, name: str) -> Usage:
    """Return the records of JSON lines; raises ProblemsError with every line that is wrong."""
    runs, items = [], []
    problems = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            record = _parse_record(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            problems.append(Problem(name, "record", reason, number))
            continue
        if isinstance(record, InstanceRun):
            runs.append(record)
        else:
            items.append(record)
    if problems:
        raise ProblemsError(problems)
    return merge_usage(Usage(tuple(runs), tuple(items)))


def render_usage(usage: Usage) -> str:
    """Return the records as JSON lines, instances first; what is None or False is left out."""
    lines = [
        _render_record("instance", run, ("start", "end", "ready", "released", "seen"))
        for run in usage.instances
    ]
    lines += [_render_record("storage", item, ("start", "end")) for item in usage.storage]
    return "".join(f"{line}\n" for line in lines)


def read_usage(path: Path) -> Usage:
    """Return the records of a file; raises InputError when it is missing or damaged."""
    return parse_usage(read_text(path), name=str(path))


def write_usage(usage: Usage, path: Path) -> None:
    """Write the records to a file; the one that was there stays until the new one is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, render_usage(usage))


def parse_time(text: str) -> int:
    """Return seconds since 1970; a time without an offset is UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() // 1)


def render_time(seconds: int) -> str:
    """Return a time as `2026-11-03T08:00:00Z`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Found = TypeVar("Found")


def _parse_record(data: Any) -> InstanceRun | Storage:
    if not isinstance(data, dict):
        raise ValueError("must be an object")
    kind = data.pop("record", None)
    if kind == "instance":
        return _parse_run(data)
    if kind == "storage":
        return _parse_storage(data)
    raise ValueError(f"`record` must be instance or storage (found: {kind})")


def _parse_run(data: dict[str, Any]) -> InstanceRun:
    times = {name: _time(data, name) for name in ("end", "ready", "released", "seen")}
    run = InstanceRun(
        instance=_text(data, "instance"),
        instance_type=_text(data, "instance_type"),
        purchase=_one_of(data, "purchase", PURCHASES),
        zone=_text(data, "zone"),
        cluster=_text(data, "cluster"),
        node_type=_one_of(data, "node_type", NODE_TYPES),
        start=parse_time(_text(data, "start")),
        end=times["end"],
        ready=times["ready"],
        released=times["released"],
        seen=times["seen"],
        queue=_text_or_none(data, "queue"),
        node=_text_or_none(data, "node"),
        cpus=_count(data, "cpus"),
        gpus=_count(data, "gpus") or 0,
        interrupted=data.pop("interrupted", False) is True,
        public_ipv4=_count(data, "public_ipv4") or 0,
        source=str(data.pop("source", "ec2")),
    )
    _refuse_rest(data)
    _check_span(run.start, run.end)
    return run


def _parse_storage(data: dict[str, Any]) -> Storage:
    found = data.pop("amount")
    try:
        amount = Decimal(str(found))
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or not 0 <= amount <= MOST_AMOUNT:
        raise ValueError(f"`amount` must be a number, 0 or more (found: {found})")
    item = Storage(
        id=_text(data, "id"),
        product=_text(data, "product"),
        name=_text(data, "name"),
        amount=amount,
        cluster=_text(data, "cluster"),
        start=parse_time(_text(data, "start")),
        end=_time(data, "end"),
    )
    _refuse_rest(data)
    _check_span(item.start, item.end)
    return item


def _check_span(start: int, end: int | None) -> None:
    if end is not None and end < start:
        raise ValueError(f"ends before it starts ({render_time(start)} to {render_time(end)})")


def _refuse_rest(data: Mapping[str, Any]) -> None:
    if data:
        raise ValueError(f"unknown keys: {', '.join(sorted(data))}")


def _text(data: dict[str, Any], name: str) -> str:
    value = data.pop(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"`{name}` must be text (found: {value})")
    return value


def _text_or_none(data: dict[str, Any], name: str) -> str | None:
    return _text(data, name) if data.get(name) is not None else data.pop(name, None)


def _one_of(data: dict[str, Any], name: str, allowed: Sequence[str]) -> str:
    value = _text(data, name)
    if value not in allowed:
        raise ValueError(f"`{name}` must be one of {', '.join(allowed)} (found: {value})")
    return value


def _time(data: dict[str, Any], name: str) -> int | None:
    value = data.pop(name, None)
    return None if value is None else parse_time(str(value))


def _count(data: dict[str, Any], name: str) -> int | None:
    value = data.pop(name, None)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise ValueError(f"`{name}` must be a whole number, 0 or more (found: {value})")
    return value


def _render_record(kind: str, record: InstanceRun | Storage, times: Iterable[str]) -> str:
    data: dict[str, Any] = {"record": kind}
    for name, value in vars(record).items():
        if value is None or value is False or (name in ("gpus", "public_ipv4") and not value):
            continue
        data[name] = render_time(value) if name in times else value
    return json.dumps(data, default=str, ensure_ascii=False)


def _merge_runs(one: InstanceRun, other: InstanceRun) -> InstanceRun:
    older, newer = sorted((one, other), key=_run_rank)
    return replace(
        newer,
        queue=_first(newer.queue, older.queue),
        node=_first(newer.node, older.node),
        cpus=_first(newer.cpus, older.cpus),
        ready=_first(newer.ready, older.ready),
        released=_first(newer.released, older.released),
        gpus=max(one.gpus, other.gpus),
        interrupted=one.interrupted or other.interrupted,
        public_ipv4=max(one.public_ipv4, other.public_ipv4),
    )


def _run_rank(run: InstanceRun) -> tuple[bool, int, bool, int, str]:
    """Order records of one run by what they know; the text makes the order complete."""
    return (
        run.end is not None,
        run.end or 0,
        # A record without `seen` is of now.
        run.seen is None,
        run.seen or 0,
        repr(run),
    )


def _storage_rank(item: Storage) -> tuple[bool, int, Decimal]:
    return item.end is not None, item.end or 0, item.amount


def _first(one: Found | None, other: Found | None) -> Found | None:
    return other if one is None else one
