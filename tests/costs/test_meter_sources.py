"""What EC2 and Slurm answer, put together to records."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from clusterbox.clusters.composed import compose_repository
from clusterbox.costs.meter_ec2 import (
    SeenInstance,
    read_file_system,
    read_instance,
    read_volume,
)
from clusterbox.costs.meter_slurm import NodeFacts, NodeTime, read_node_facts, read_node_times
from clusterbox.costs.meter_sources import (
    Resource,
    as_seen,
    combine,
    follow_storage,
    read_resources,
)
from clusterbox.costs.prices import load_prices
from clusterbox.costs.usage import InstanceRun, Usage, merge_usage
from clusterbox.slurm import parse_nodes
from tests.conftest import ROOT
from tests.costs.meter_records import at, disk, head, run

NODE = "eco-dy-n8c32g-1"
RESOURCES = {("eco", "n8c32g"): Resource("t3a.2xlarge", True, "on-demand", "gp3", 60)}


def instance(state: str = "running", **fields: Any) -> dict[str, Any]:
    return {
        "InstanceId": "i-1",
        "InstanceType": "t3a.2xlarge",
        "LaunchTime": datetime.fromtimestamp(at("08:00:00"), UTC),
        "State": {"Name": state},
        "Placement": {"AvailabilityZone": "us-west-2a"},
        "PrivateIpAddress": "10.0.0.5",
        "Tags": [
            {"Key": "parallelcluster:node-type", "Value": "Compute"},
            {"Key": "parallelcluster:queue-name", "Value": "eco"},
            {"Key": "parallelcluster:compute-resource-name", "Value": "n8c32g"},
        ],
        **fields,
    }


def test_a_running_instance_is_a_record_without_an_end() -> None:
    seen = read_instance(instance(), "ws")
    assert seen == SeenInstance(
        run(at("08:00:00"), None, instance_type="t3a.2xlarge", node=None, cpus=None),
        "10.0.0.5",
        "n8c32g",
    )


@pytest.mark.parametrize("state", ["shutting-down", "terminated", "stopping", "stopped"])
def test_the_end_is_in_the_reason_of_the_state(state: str) -> None:
    reason = "User initiated (2025-11-03 09:10:11 GMT)"
    found = read_instance(instance(state, StateTransitionReason=reason), "ws").run
    assert (found.end, found.seen) == (at("09:10:11"), None)


def test_a_spot_interruption_is_recognized_and_has_no_time() -> None:
    found = read_instance(
        instance(
            "terminated",
            InstanceLifecycle="spot",
            StateReason={"Code": "Server.SpotInstanceTermination"},
            StateTransitionReason="Server.SpotInstanceTermination",
        ),
        "ws",
    ).run
    assert (found.purchase, found.interrupted) == ("spot", True)
    assert (found.end, found.seen) == (None, at("08:00:00"))


def test_public_addresses_are_counted() -> None:
    addresses = [{"Association": {"PublicIp": "203.0.113.9"}}, {}]
    network = [{"PrivateIpAddresses": addresses}]
    assert read_instance(instance(NetworkInterfaces=network), "ws").run.public_ipv4 == 1


@pytest.mark.parametrize(
    ("volume", "amounts"),
    [
        ({"VolumeType": "gp3", "Iops": 3000, "Throughput": 125}, {"gp3": 100}),
        (
            {"VolumeType": "gp3", "Iops": 4000, "Throughput": 200},
            {"gp3": 100, "gp3.iops": 1000, "gp3.throughput": 75},
        ),
        ({"VolumeType": "gp2", "Iops": 300}, {"gp2": 100}),
        ({"VolumeType": "io1", "Iops": 500}, {"io1": 100, "io1.iops": 500}),
        (
            {"VolumeType": "io2", "Iops": 70000},
            {"io2": 100, "io2.iops": 32000, "io2.iops.tier2": 32000, "io2.iops.tier3": 6000},
        ),
    ],
)
def test_a_volume_costs_its_size_and_what_is_paid_beside(
    volume: dict[str, Any], amounts: dict[str, int]
) -> None:
    created = datetime.fromtimestamp(at("08:00:00"), UTC)
    entry = {"VolumeId": "vol-1", "Size": 100, "CreateTime": created, **volume}
    assert {item.name: item.amount for item in read_volume(entry, "ws")} == amounts


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"ThroughputMode": "elastic"}, ["standard", "infrequent_access"]),
        ({"ThroughputMode": "bursting"}, ["standard", "bursting.infrequent_access"]),
        (
            {"AvailabilityZoneName": "us-west-2a"},
            ["one_zone", "one_zone.infrequent_access"],
        ),
    ],
)
def test_a_file_system_costs_what_it_holds_in_each_class(
    settings: dict[str, str], names: list[str]
) -> None:
    entry = {
        "FileSystemId": "fs-1",
        "CreationTime": datetime.fromtimestamp(at("08:00:00"), UTC),
        "SizeInBytes": {"Value": 5 << 30, "ValueInStandard": 3 << 30, "ValueInIA": 2 << 30},
        **settings,
    }
    found = [(item.name, int(item.amount)) for item in read_file_system(entry, "ws")]
    assert found == list(zip(names, [3, 2], strict=True))


def test_efs_without_classes_is_standard_and_provisioned_throughput_counts() -> None:
    entry = {
        "FileSystemId": "fs-1",
        "CreationTime": datetime.fromtimestamp(at("08:00:00"), UTC),
        "SizeInBytes": {"Value": 5 << 30},
        "ThroughputMode": "provisioned",
        "ProvisionedThroughputInMibps": 1.5,
    }
    found = {item.name: item.amount for item in read_file_system(entry, "ws")}
    assert found == {"standard": 5, "provisioned.throughput": Decimal("1.5")}


def event(
    start: str, end: str, state: str = "IDLE~", reason: str = "Powered down"
) -> dict[str, str]:
    day = "2025-11-03T"
    return {
        "NodeName": NODE,
        "TimeStart": day + start,
        "TimeEnd": end if end == "Unknown" else day + end,
        "State": state,
        "Reason": reason,
    }


AFTER = "Powered down after SuspendTimeout"


def test_a_node_was_up_between_two_power_downs() -> None:
    rows = [
        event("10:02:00", "11:00:00", reason=AFTER),
        event("07:00:00", "08:00:00"),
        event("09:00:00", "09:30:00", "DOWN", "Not responding"),
        event("12:00:00", "Unknown", "DOWN~", "terminated"),
        {**event("07:00:00", "Unknown", ""), "NodeName": "", "Reason": "Cluster Registered"},
    ]
    assert read_node_times(rows, 120) == [
        # Slurm waited 120 s after it had told the cloud to end the instance.
        NodeTime(NODE, at("08:00:00"), at("10:00:00")),
        NodeTime(NODE, at("11:00:00"), at("12:00:00")),
    ]


def test_a_node_that_was_resumed_last_is_up() -> None:
    assert read_node_times([event("07:00:00", "08:00:00")], 120) == [
        NodeTime(NODE, at("08:00:00"), None)
    ]


def test_facts_of_a_node() -> None:
    line = (
        f"NodeName={NODE} CPUTot=8 CPUAlloc=0 RealMemory=100 NodeAddr=10.0.0.5 "
        "Gres=gpu:a10g:2(S:0),lustre:1 State=IDLE+CLOUD SlurmdStartTime=2025-11-03T08:03:00"
    )
    facts = read_node_facts(parse_nodes(line)[0])
    assert facts == NodeFacts(NODE, 8, 2, "10.0.0.5", at("08:03:00"), True)
    off = parse_nodes(line.replace("IDLE+CLOUD", "IDLE+CLOUD+POWERED_DOWN"))[0]
    assert not read_node_facts(off).is_up


FACTS = NodeFacts(NODE, 8, 0, "10.0.0.5", at("08:03:00"), True)
OPEN = NodeTime(NODE, at("07:59:55"), None)


def together(
    *seen: SeenInstance,
    facts: tuple[NodeFacts, ...] = (FACTS,),
    times: tuple[NodeTime, ...] = (),
    kept: Usage | None = None,
) -> tuple[list[InstanceRun], Usage, tuple[str, ...]]:
    usage, notes = combine("ws", seen, (), facts, times, RESOURCES, kept)
    return list(usage.instances), usage, notes


def test_an_instance_is_the_node_with_its_address() -> None:
    (found,), usage, _notes = together(read_instance(instance(), "ws"), times=(OPEN,))
    assert (found.node, found.cpus, found.ready) == (NODE, 8, at("08:03:00"))
    assert usage.storage == ()


def test_one_that_has_ended_is_the_node_that_was_resumed_when_it_was_launched() -> None:
    reason = "User initiated (2025-11-03 09:00:00 GMT)"
    gone = read_instance(instance("terminated", StateTransitionReason=reason), "ws")
    times = (
        NodeTime("eco-dy-n8c32g-2", at("07:58:00"), at("08:58:00")),
        NodeTime(NODE, at("07:59:55"), at("09:00:05")),
        NodeTime("spot-dy-n8c32g-1", at("08:00:00"), at("09:00:00")),
    )
    found, _usage, notes = together(gone, times=times)
    assert [(one.node, one.source) for one in found] == [
        ("eco-dy-n8c32g-2", "slurm"),
        (NODE, "ec2"),
    ]
    assert notes == ("node spot-dy-n8c32g-1: no such compute resource in the configuration",)


def test_times_that_only_slurm_knows_become_records_by_the_configuration() -> None:
    time = NodeTime(NODE, at("08:00:00"), at("09:00:00"))
    (_head, found), usage, _notes = together(head_of("us-west-2b"), times=(time,))
    assert found.instance == f"node:{NODE}"
    assert (found.start, found.end, found.zone) == (at("08:00:00"), at("09:00:00"), "us-west-2b")
    assert (found.instance_type, found.purchase, found.source) == (
        "t3a.2xlarge",
        "on-demand",
        "slurm",
    )
    (root,) = usage.storage
    assert (root.name, root.amount, root.end) == ("gp3", Decimal(60), at("09:00:00"))


def head_of(zone: str) -> SeenInstance:
    return SeenInstance(head(at("07:00:00"), zone=zone), None, None)


def test_kept_records_are_not_counted_twice_and_get_their_lost_end() -> None:
    kept = Usage((run(at("08:00:00"), None, node=NODE, seen=at("08:30:00")),))
    time = NodeTime(NODE, at("07:59:55"), at("08:50:00"))
    (found,), _usage, _notes = together(times=(time,), kept=kept)
    assert (found.source, found.end) == ("ec2", at("08:50:00"))


def test_a_kept_record_and_a_later_instance_of_the_node_are_two() -> None:
    kept = Usage((run(at("08:00:00"), None, node=NODE, seen=at("08:30:00")),))
    times = (
        NodeTime(NODE, at("07:59:55"), at("08:50:00")),
        NodeTime(NODE, at("10:00:00"), None),
    )
    found, _usage, _notes = together(times=times, kept=kept)
    assert [(one.source, one.start, one.end) for one in found] == [
        ("ec2", at("08:00:00"), at("08:50:00")),
        ("slurm", at("10:00:00"), None),
    ]


def test_what_is_kept_says_when_it_was_seen() -> None:
    usage = Usage(
        (run(at("08:00:00"), None), run(at("06:00:00"), at("07:00:00"), instance="i-0")),
        (
            disk(at("08:00:00")),
            disk(at("08:00:00"), id=f"node:{NODE}"),
            disk(at("08:00:00"), id="fs-1", product="efs", name="standard"),
        ),
    )
    kept = as_seen(usage, at("09:00:00"))
    assert [one.seen for one in kept.instances] == [at("09:00:00"), None]
    assert [item.id for item in kept.storage] == ["vol-1"]


def test_a_volume_that_is_no_longer_listed_ended() -> None:
    kept = Usage((), (disk(at("08:00:00")), disk(at("08:00:00"), id="vol-2")))
    closed, current = follow_storage(kept, [disk(at("08:00:00"))], at("09:00:00"))
    assert [item.end for item in closed.storage] == [None, at("09:00:00")]
    assert current == [disk(at("08:00:00"))]


def test_a_volume_that_changed_is_counted_once_at_each_time() -> None:
    before = disk(at("08:00:00"), name="gp2")
    listed = disk(at("08:00:00"), name="gp3")
    looks = [Usage((), (before,))]
    for moment in ("09:00:00", "10:00:00"):
        kept, current = follow_storage(looks[-1], [listed], at(moment))
        looks.append(merge_usage(kept, Usage((), tuple(current))))
    for look in looks[1:]:
        assert [(item.name, item.start, item.end) for item in look.storage] == [
            ("gp2", at("08:00:00"), at("09:00:00")),
            ("gp3", at("09:00:00"), None),
        ]


def test_compute_resources_come_from_the_configuration() -> None:
    cluster = compose_repository(ROOT, ["ws-eco"])["ws-eco"]
    found = read_resources(cluster, load_prices("us-west-2"))
    # Of the six types t3a.2xlarge is the cheapest, and the first.
    assert found == {
        ("eco", "n8c32g"): Resource("t3a.2xlarge", False, "on-demand", "gp3", 60),
        ("spot", "s8c32g"): Resource("t3a.2xlarge", False, "spot", "gp3", 60),
    }
