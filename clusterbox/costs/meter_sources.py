"""Put together what EC2, Slurm and kept records know about a cluster's use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from clusterbox.clusters.composed import ComposedCluster
from clusterbox.costs.cluster_storage import ROOT_GIB
from clusterbox.costs.meter_ec2 import SeenInstance
from clusterbox.costs.meter_slurm import NodeFacts, NodeTime
from clusterbox.costs.native import mapping, mappings, number
from clusterbox.costs.price import Price
from clusterbox.costs.prices import Prices
from clusterbox.costs.usage import InstanceRun, Storage, Usage, merge_usage
from clusterbox.site.yaml_file import value_at

# ParallelCluster's names of nodes: QUEUE-st-RESOURCE-1 static, QUEUE-dy-RESOURCE-1 dynamic.
_NODE = re.compile(r"(?P<queue>.+)-(?:st|dy)-(?P<resource>.+)-\d+")
# How far a launch by EC2's clock and a resume by Slurm's may be apart and still be one.
_MATCH_SECONDS = 300
# Takes the place of an instance's id where only Slurm knows of it.
_NODE_PREFIX = "node:"


@dataclass(frozen=True)
class Resource:
    """A compute resource of the configuration: the type to assume for a node, and its root disk."""

    instance_type: str
    is_certain: bool
    purchase: str
    disk: str
    disk_gib: int


def read_resources(cluster: ComposedCluster, prices: Prices) -> dict[tuple[str, str], Resource]:
    """Return the compute resources by queue and name.

    Of several types one is assumed: the cheapest that is known with `lowest-price`, which
    ParallelCluster also takes for its default, else the first.
    """
    found = {}
    queues = value_at(cluster.configuration, ("Scheduling", "SlurmQueues"))
    for queue in mappings(queues):
        root = mapping(value_at(queue, ("ComputeSettings", "LocalStorage", "RootVolume")))
        capacity = str(queue.get("CapacityType", "ONDEMAND")).upper()
        cheapest = str(queue.get("AllocationStrategy", "lowest-price")) == "lowest-price"
        for resource in mappings(queue.get("ComputeResources")):
            types = [str(one.get("InstanceType")) for one in mappings(resource.get("Instances"))]
            types = types or [str(resource.get("InstanceType"))]
            found[str(queue.get("Name")), str(resource.get("Name"))] = Resource(
                instance_type=_cheapest(types, prices) if cheapest else types[0],
                is_certain=len(types) == 1,
                purchase={"SPOT": "spot", "CAPACITY_BLOCK": "capacity-block"}.get(
                    capacity, "on-demand"
                ),
                disk=str(root.get("VolumeType", "gp3")),
                disk_gib=number(root.get("Size"), ROOT_GIB),
            )
    return found


def combine(
    cluster: str,
    seen: Sequence[SeenInstance],
    volumes: Sequence[Storage],
    facts: Sequence[NodeFacts],
    times: Sequence[NodeTime],
    resources: Mapping[tuple[str, str], Resource],
    kept: Usage | None = None,
) -> tuple[Usage, tuple[str, ...]]:
    """Return the records of a cluster, and a note for each thing that was assumed.

    An instance is the node that has its address, else the one that was resumed when it was
    launched. Times at which a node was up and neither EC2 nor the records that were `kept` have an
    instance of it become records by the configuration, with `slurm` as their source. Where such a
    time is that of an instance whose end is lost, it ends then.
    """
    by_address = {fact.address: fact for fact in facts if fact.is_up and fact.address}
    by_name = {fact.name: fact for fact in facts}
    head_zone = next((one.run.zone for one in seen if one.run.node_type == "HeadNode"), "unknown")
    free = [time for time in times if _NODE.fullmatch(time.node)]
    runs = []
    # Those that run first: by their address it is certain which node they are.
    for one in sorted(seen, key=lambda one: one.run.end is not None):
        run = one.run
        if run.node_type == "Compute":
            fact = by_address.get(one.address) if run.end is None and one.address else None
            node = fact.name if fact else _node_of(one, free)
            run, free = _take(_with_node(run, node, by_name.get(node or "")), free)
        runs.append(run)
    listed = {(run.instance, run.start) for run in runs}
    for run in kept.instances if kept else ():
        if run.source != "slurm" and (run.instance, run.start) not in listed:
            run, free = _take(run, free)
        runs.append(run)
    storage = [*volumes, *(kept.storage if kept else ())]
    assumed: dict[str, None] = {}
    for time in free:
        fact = by_name.get(time.node)
        record = _from_slurm(cluster, time, fact, resources, head_zone, assumed)
        if record is not None:
            runs.append(record[0])
            storage.append(record[1])
    return merge_usage(Usage(tuple(runs), tuple(storage))), tuple(assumed)


def as_seen(usage: Usage, at: int) -> Usage:
    """Return records to keep: those that run were last seen at `at`.

    Disks of nodes that only Slurm knows and that run are left out, and file systems, whose size
    changes: the next look finds them again.
    """
    return Usage(
        tuple(
            replace(run, seen=at) if run.end is None and run.seen is None else run
            for run in usage.instances
        ),
        tuple(
            item
            for item in usage.storage
            if item.product == "ebs"
            and (item.end is not None or not item.id.startswith(_NODE_PREFIX))
        ),
    )


def follow_storage(kept: Usage, listed: Sequence[Storage], at: int) -> tuple[Usage, list[Storage]]:
    """Return the kept records and the listed ones, so that each is of one size and kind.

    EC2 tells only what a volume is now. One that was kept as something else was that up to `at`,
    and from then on is what is listed; one that is no longer listed has ended.
    """
    open_records = {_what(item): item for item in kept.storage if item.end is None}
    known = {item.id for item in kept.storage}
    current = []
    for item in listed:
        if _what(item) in open_records:
            current.append(open_records[_what(item)])
        elif item.product == "ebs" and item.id in known:
            current.append(replace(item, start=at))
        else:
            current.append(item)
    still = {_what(item) for item in listed}
    closed = tuple(
        item
        if item.end is not None or _what(item) in still
        else replace(item, end=max(item.start, at))
        for item in kept.storage
    )
    return replace(kept, storage=closed), current


def _what(item: Storage) -> tuple[str, str, str, Decimal]:
    return item.id, item.product, item.name, item.amount


def _node_of(one: SeenInstance, times: Sequence[NodeTime]) -> str | None:
    """Return the node of the instance's compute resource that was resumed nearest its launch."""
    near = []
    for time in times:
        found = _NODE.fullmatch(time.node)
        if found is None or found["queue"] != one.run.queue:
            continue
        if one.resource is not None and found["resource"] != one.resource:
            continue
        distance = abs(time.start - one.run.start)
        if distance <= _MATCH_SECONDS:
            near.append((distance, time.node))
    return min(near)[1] if near else None


def _with_node(run: InstanceRun, node: str | None, fact: NodeFacts | None) -> InstanceRun:
    if fact is None:
        return replace(run, node=node)
    ready = fact.ready if run.end is None and fact.ready and fact.ready >= run.start else None
    return replace(run, node=node, cpus=fact.cpus or None, gpus=fact.gpus, ready=ready)


def _take(run: InstanceRun, times: Sequence[NodeTime]) -> tuple[InstanceRun, list[NodeTime]]:
    """Return a run with the end that its node's time has, if it lost its own; and other times."""
    own = [time for time in times if _is_same(run, time)]
    ends = [time.end for time in own if time.end is not None and time.end > run.start]
    if run.end is None and run.seen is not None and ends:
        run = replace(run, end=max(ends[0], run.seen), seen=None)
    return run, [time for time in times if time not in own]


def _is_same(run: InstanceRun, time: NodeTime) -> bool:
    """Return whether the time that a node was up is that of an instance."""
    if run.node != time.node:
        return False
    if abs(time.start - run.start) <= _MATCH_SECONDS:
        return True
    if run.end is None:
        return run.seen is None and time.end is None
    return time.start < run.end and (time.end is None or time.end > run.start)


def _from_slurm(
    cluster: str,
    time: NodeTime,
    fact: NodeFacts | None,
    resources: Mapping[tuple[str, str], Resource],
    zone: str,
    assumed: dict[str, None],
) -> tuple[InstanceRun, Storage] | None:
    found = _NODE.fullmatch(time.node)
    key = (found["queue"], found["resource"]) if found else ("", "")
    resource = resources.get(key)
    if resource is None:
        assumed[f"node {time.node}: no such compute resource in the configuration"] = None
        return None
    if not resource.is_certain:
        assumed[
            f"queue {key[0]}/{key[1]}: {resource.instance_type} assumed, one of several types, "
            f"for times that only Slurm knows"
        ] = None
    ident = f"{_NODE_PREFIX}{time.node}"
    ready = fact.ready if fact and time.end is None and fact.ready else None
    run = InstanceRun(
        instance=ident,
        instance_type=resource.instance_type,
        purchase=resource.purchase,
        zone=zone,
        cluster=cluster,
        node_type="Compute",
        start=time.start,
        end=time.end,
        queue=key[0],
        node=time.node,
        cpus=fact.cpus if fact else None,
        gpus=fact.gpus if fact else 0,
        ready=ready if ready and ready >= time.start else None,
        source="slurm",
    )
    disk = Storage(
        ident, "ebs", resource.disk, Decimal(resource.disk_gib), cluster, time.start, time.end
    )
    return run, disk


def _cheapest(types: Sequence[str], prices: Prices) -> str:
    known: dict[str, Decimal] = {}
    for name in types:
        price: Any = prices.instance(name)
        if isinstance(price, Price):
            known[name] = price.usd
    return min(known, key=lambda name: known[name]) if known else types[0]
