"""What EC2 and Slurm would have recorded of the simulated month, with the faults of real records."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from clusterbox.costs.replay.world import CLUSTER, DAY, END, SEED, START, Disk, Instance, World

SACCT_HEADER = "JobID|User|Account|Partition|State|Start|End|AllocCPUS|AllocTRES|NodeList|JobName"
# One record in so many lacks its end, and half of those were not seen after their launch either.
LOST_END_EVERY = 25
LOST_JOB_END_EVERY = 60
TWICE_EVERY = 40


def usage_lines(world: World) -> list[str]:
    """Return JSON lines of instances and disks, in no order and some of them twice."""
    chance = random.Random(SEED + 1)  # noqa: S311 - a simulation, no secret
    lines = [json.dumps(_instance(one, number)) for number, one in enumerate(world.instances)]
    lines += [json.dumps(record) for disk in world.disks for record in _disk(disk)]
    lines += lines[::TWICE_EVERY]
    return [line for _order, line in sorted((chance.random(), line) for line in lines)]


def accounting_lines(world: World) -> list[str]:
    """Return what `sacct --duplicates --parsable2` printed, by a clock that is wrong."""
    lines = [SACCT_HEADER]
    for number, run in enumerate(world.runs):
        lost = number % LOST_JOB_END_EVERY == 0 and run.end < END
        running = run.end >= END
        state = "RUNNING" if running or lost else run.state
        nodes = len(run.instances)
        tres = f"billing={run.cpus_a_node * nodes},cpu={run.cpus_a_node * nodes},node={nodes}"
        if run.gpus_a_node:
            tres += f",gres/gpu={run.gpus_a_node * nodes}"
        end = "Unknown" if running or lost else _time(run.end + _skew(run.end))
        lines.append(
            "|".join(
                [
                    str(run.job),
                    run.user,
                    run.account,
                    run.queue,
                    state,
                    _time(run.start + _skew(run.start)),
                    end,
                    str(run.cpus_a_node * nodes),
                    tres,
                    ",".join(str(one.node) for one in run.instances),
                    run.name,
                ]
            )
        )
    return [line for line in lines if line == SACCT_HEADER or line.split("|")[5] < _time(END)]


def spot_lines(world: World) -> list[str]:
    """Return the file of Spot prices."""
    rows = [
        f"{kind},{zone},{_time(at)}Z,{usd:.4f}".rstrip("0")
        for (kind, zone), changes in sorted(world.spot.items())
        for at, usd in changes
    ]
    return [
        "# format: clusterbox-spot 1",
        "# region: us-west-2",
        f"# since: {_time(START - 3 * DAY)}Z",
        f"# until: {_time(END)}Z",
        f"# rows: {len(rows)}",
        "type,zone,from,usd",
        *rows,
    ]


def _instance(one: Instance, number: int) -> dict[str, Any]:
    record: dict[str, Any] = {
        "record": "instance",
        "instance": one.id,
        "instance_type": one.instance_type,
        "purchase": "spot" if one.pool is not None and one.pool.spot else "on-demand",
        "zone": one.zone,
        "cluster": CLUSTER,
        "node_type": one.node_type,
        # EC2 tells when it was launched; billing begins some seconds later.
        "start": f"{_time(one.launched)}Z",
    }
    if one.pool is not None:
        record |= {"queue": one.pool.queue, "node": one.node, "cpus": one.pool.cpus}
        if one.pool.gpus:
            record["gpus"] = one.pool.gpus
    if one.node_type == "LoginNode":
        record["public_ipv4"] = 1
    if one.interrupted:
        record["interrupted"] = True
    if one.ended is None or one.ended > END:
        return record
    lost = one.pool is not None and number % LOST_END_EVERY == 0 and not one.interrupted
    if not lost:
        record["end"] = f"{_time(one.ended)}Z"
    elif number % (2 * LOST_END_EVERY):
        # Last seen by somebody who looks every quarter of an hour.
        seen = max(one.launched, one.ended - one.ended % 900)
        record["seen"] = f"{_time(seen)}Z"
    else:
        record["seen"] = record["start"]
    return record


def _disk(disk: Disk) -> Iterator[dict[str, Any]]:
    record: dict[str, Any] = {
        "record": "storage",
        "id": disk.id,
        "product": "ebs",
        "name": "gp3",
        "amount": disk.gib,
        "cluster": CLUSTER,
        "start": f"{_time(disk.start)}Z",
    }
    if disk.end is not None and disk.end <= END:
        record["end"] = f"{_time(disk.end)}Z"
    yield record
    if disk.iops > 3000:
        yield {**record, "name": "gp3.iops", "amount": disk.iops - 3000}


def _skew(at: float) -> float:
    """Return how far Slurm's clock is ahead of EC2's: from 4 s behind to 14 s ahead."""
    return -4 + 18 * (at - START) / (END - START)


def _time(at: float) -> str:
    return datetime.fromtimestamp(int(at // 1), UTC).strftime("%Y-%m-%dT%H:%M:%S")
