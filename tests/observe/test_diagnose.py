from __future__ import annotations

from typing import Any

import pytest

from clusterbox.observe.diagnosis import (
    STATES,
    Line,
    diagnose,
    explain,
    kinds_to_read,
    load_failures,
)
from clusterbox.observe.log_doors import LogDoors
from clusterbox.observe.log_events import LogReader
from clusterbox.observe.log_streams import KINDS
from clusterbox.observe.log_view import Asked, make_view
from clusterbox.slurm import SlurmError
from tests.observe.failure_lines import LINES, QUIET
from tests.observe.log_world import GROUP, HEAD, NODE, TEN, FakeLogs, a_cluster, refusal


class FakeEc2:
    def __init__(self, *instances: dict[str, Any]) -> None:
        self.instances = instances

    def get_paginator(self, _operation: str) -> FakeEc2:
        return self

    def paginate(self, **_words: Any) -> list[dict[str, Any]]:
        return [{"Reservations": [{"Instances": list(self.instances)}]}]


class FakeSlurm:
    def __init__(self, nodes: str | None, partitions: str = "") -> None:
        self.nodes = nodes
        self.partitions = partitions

    def run(self, *words: str) -> str:
        if self.nodes is None:
            raise SlurmError("`scontrol show nodes` failed (1): slurmctld does not answer")
        return self.nodes if words[-1] == "nodes" else self.partitions


def found(
    logs: FakeLogs, slurm: FakeSlurm | None = None, ec2: FakeEc2 | None = None, **asked: Any
) -> Any:
    reader = LogReader(logs, lambda _: None, lambda: TEN + 1000)
    view = make_view(
        reader,
        GROUP,
        reader.fetch_streams(GROUP),
        Asked(**asked),
        default_since=TEN,
        slurm=lambda: slurm,
    )
    doors = LogDoors(lambda _service: ec2 or FakeEc2(), lambda: slurm)
    return diagnose(reader, GROUP, view, doors, "eco")


@pytest.mark.parametrize(("ident", "kind", "line", "meaning"), LINES)
def test_a_line_of_a_failure_is_explained_in_words(
    ident: str, kind: str, line: str, meaning: str
) -> None:
    (finding,) = explain([Line(kind, line, TEN)], "eco")
    assert (finding.id, finding.meaning) == (ident, meaning)
    assert "{" not in finding.next_step
    assert finding.source.startswith("https://")


@pytest.mark.parametrize(("kind", "line"), QUIET)
def test_what_a_healthy_cluster_writes_is_no_failure(kind: str, line: str) -> None:
    assert explain([Line(kind, line, TEN)], "eco") == ()


def test_every_failure_has_a_line_in_these_tests_and_a_kind_that_exists() -> None:
    failures = load_failures()
    assert {failure.id for failure in failures} == {ident for ident, *_ in LINES}
    assert len({failure.id for failure in failures}) == len(failures)
    assert {kind for failure in failures for kind in failure.streams} <= {*KINDS, *STATES}
    assert set(kinds_to_read()) <= set(KINDS)


def test_alike_lines_are_one_finding_with_first_last_count_and_nodes() -> None:
    line = "[x] error: Nodes eco-dy-n8c32g-[1-2] not responding, setting DOWN"
    again = "[x] error: Nodes eco-dy-n8c32g-10,spot-st-s-1 not responding, setting DOWN"
    (finding,) = explain([Line("slurmctld", line, TEN), Line("slurmctld", again, TEN + 60)], "eco")
    assert (finding.count, finding.first, finding.last) == (2, TEN, TEN + 60)
    assert finding.nodes == (
        "eco-dy-n8c32g-1", "eco-dy-n8c32g-2", "eco-dy-n8c32g-10", "spot-st-s-1",
    )  # fmt: skip


def test_a_failed_launch_has_the_nodes_that_slurmctld_names_and_is_counted_once() -> None:
    launch = next(line for ident, _, line, _ in LINES if ident == "capacity")
    reason = (
        "[x] update_node: node eco-dy-n8c32g-1 reason set to: "
        "(Code:InsufficientInstanceCapacity)Failure when resuming nodes"
    )
    lines = [
        Line("slurmctld", reason, TEN - 1),
        Line("slurm_resume", launch, TEN),
        Line("slurmctld", reason.replace("g-1", "g-2"), TEN + 1),
        Line(
            "reason",
            "(Code:InsufficientInstanceCapacity)Failure when resuming nodes",
            node="eco-dy-n8c32g-3",
        ),
    ]
    (finding,) = explain(lines, "eco")
    assert (finding.count, finding.first, finding.last) == (1, TEN - 1, TEN + 1)
    assert finding.nodes == ("eco-dy-n8c32g-1", "eco-dy-n8c32g-2", "eco-dy-n8c32g-3")


def test_two_instance_types_without_capacity_are_two_findings() -> None:
    launch = next(line for ident, _, line, _ in LINES if ident == "capacity")
    lines = [Line("slurm_resume", text, TEN) for text in (launch, launch.replace("p4d", "p5"))]
    assert {finding.meaning.split()[-2] for finding in explain(lines, "eco")} == {
        "p4d.24xlarge", "p5.24xlarge",
    }  # fmt: skip


def test_the_worst_comes_first_and_of_alike_ones_the_latest() -> None:
    lines = [Line(kind, text, TEN + at) for at, (_, kind, text, _) in enumerate(LINES)]
    findings = explain(lines, "eco")
    severities = [finding.severity for finding in findings]
    assert severities == sorted(severities, key=["critical", "error", "warning"].index)
    for severity in ("critical", "error", "warning"):
        times = [one.last or 0 for one in findings if one.severity == severity]
        assert times == sorted(times, reverse=True)


def test_the_cluster_is_named_in_the_next_step() -> None:
    line = next(line for ident, _, line, _ in LINES if ident == "protected-mode")
    (finding,) = explain([Line("clustermgtd", line, TEN)], "eco")
    assert (
        "pcluster update-compute-fleet --cluster-name eco --status START_REQUESTED"
        in finding.next_step
    )


def test_logs_slurm_and_ec2_are_looked_at_together() -> None:
    logs = a_cluster()
    logs.put(
        f"{HEAD}.clustermgtd", TEN + 400, "- Setting cluster into protected mode due to failures"
    )
    logs.put(f"{NODE}.bootstrap_error_msg", TEN + 350, "mount.nfs4: Connection timed out")
    slurm = FakeSlurm(
        "NodeName=eco-dy-n8c32g-12 State=IDLE+DRAIN Reason=Low RealMemory [slurm@2026-11-22T10:00:00]\n"
        "NodeName=eco-dy-n8c32g-2 State=IDLE+CLOUD Reason=of old [root@2026-11-22T10:00:00]",
        "PartitionName=eco AllowGroups=ALL State=INACTIVE\nPartitionName=spot State=UP",
    )
    ec2 = FakeEc2(
        {
            "InstanceId": "i-0ccccccccccccccc1",
            "StateReason": {"Code": "Server.SpotInstanceTermination"},
        },
        {"InstanceId": "i-0d", "StateReason": {"Code": "Client.UserInitiatedShutdown"}},
    )
    diagnosis = found(logs, slurm, ec2)
    assert [(one.id, one.nodes) for one in diagnosis.findings] == [
        ("partition-inactive", ()),
        ("protected-mode", ()),
        ("low-memory", ("eco-dy-n8c32g-12",)),
        ("mount", ("eco-dy-n8c32g-1",)),
        ("spot-interruption", ("eco-dy-n8c32g-12",)),
    ]
    assert diagnosis.notes == ()


def test_a_slurmctld_that_does_not_answer_is_a_finding() -> None:
    diagnosis = found(a_cluster(), FakeSlurm(None))
    assert [one.id for one in diagnosis.findings] == ["slurmctld-down"]


def test_without_a_head_node_the_logs_alone_are_told() -> None:
    assert found(a_cluster()).notes == (
        "Slurm was not asked: no head node of the cluster answers; logs alone are told",
    )


def test_ec2_that_refuses_is_noted_and_the_rest_is_told() -> None:
    class Refusing(FakeEc2):
        def paginate(self, **_words: Any) -> list[dict[str, Any]]:
            raise refusal("UnauthorizedOperation", "DescribeInstances")

    diagnosis = found(a_cluster(), FakeSlurm("", ""), Refusing())
    assert diagnosis.findings == ()
    assert "UnauthorizedOperation" in diagnosis.notes[0]


def test_of_a_node_only_what_is_about_it_is_told() -> None:
    logs = a_cluster()
    logs.put(
        f"{HEAD}.slurmctld", TEN + 400, "[x] error: Node eco-dy-n8c32g-1 unexpectedly rebooted"
    )
    logs.put(
        f"{HEAD}.slurmctld", TEN + 401, "[x] error: Node eco-dy-n8c32g-12 unexpectedly rebooted"
    )
    logs.put(f"{HEAD}.slurmctld", TEN + 402, "[x] fatal: of somebody else")
    slurm = FakeSlurm("NodeName=eco-dy-n8c32g-12 State=DOWN Reason=Kill task failed [root@x]")
    diagnosis = found(logs, slurm, node="eco-dy-n8c32g-1")
    assert [(one.id, one.nodes) for one in diagnosis.findings] == [
        ("rebooted", ("eco-dy-n8c32g-1",))
    ]
