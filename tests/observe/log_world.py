"""CloudWatch Logs in memory, with pages and refusals, and a cluster's log as ParallelCluster writes it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

GROUP = "/aws/parallelcluster/eco-202611201200"
HEAD = "ip-10-0-0-10.i-0aaaaaaaaaaaaaaa1"
NODE = "ip-10-0-0-21.i-0bbbbbbbbbbbbbbb1"
OTHER = "ip-10-0-0-22.i-0ccccccccccccccc1"
# 2026-11-22T10:00:00Z
TEN = 1_795_341_600.0

LAUNCHED = (
    "2026-11-22 10:00:05,140 - 4711 - [slurm_plugin.instance_manager:_update_slurm_node_addrs] - INFO "
    "- Nodes are now configured with instances (x2) "
    "[\"('eco-dy-n8c32g-1', EC2Instance(id='i-0bbbbbbbbbbbbbbb1', private_ip='10.0.0.21', "
    "hostname='ip-10-0-0-21', slurm_node=None))\", "
    "\"('eco-dy-n8c32g-12', EC2Instance(id='i-0ccccccccccccccc1', private_ip='10.0.0.22', "
    "hostname='ip-10-0-0-22', slurm_node=None))\"]"
)

# (seconds after ten, stream, message)
LINES: list[tuple[float, str, str]] = [
    (
        1,
        f"{HEAD}.slurmctld",
        "[2026-11-22T10:00:01.000] _slurm_rpc_submit_batch_job: JobId=7 InitPrio=1",
    ),
    (
        2,
        f"{HEAD}.slurmctld",
        "[2026-11-22T10:00:02.000] sched: Allocate JobId=7 "
        "NodeList=eco-dy-n8c32g-1 #CPUs=8 Partition=eco",
    ),
    (
        2.5,
        f"{HEAD}.slurmctld",
        "[2026-11-22T10:00:02.500] sched: Allocate JobId=77 "
        "NodeList=eco-dy-n8c32g-12 #CPUs=8 Partition=eco",
    ),
    (5, f"{HEAD}.slurm_resume", LAUNCHED),
    (60, f"{NODE}.cloud-init-output", "Cloud-init v. 22 running"),
    (90, f"{NODE}.slurmd", "[2026-11-22T10:01:30.000] launch task StepId=7.0 request"),
    (91, f"{OTHER}.slurmd", "[2026-11-22T10:01:31.000] launch task StepId=77.0 request"),
    (
        120,
        f"{HEAD}.clustermgtd",
        "2026-11-22 10:02:00,000 - [slurm_plugin.clustermgtd:manage_cluster] "
        "- INFO - Managing cluster...",
    ),
    (300, f"{HEAD}.slurmctld", "[2026-11-22T10:05:00.000] _job_complete: JobId=7 WEXITSTATUS 0"),
    (300.5, f"{HEAD}.slurmctld", "[2026-11-22T10:05:00.500] _job_complete: JobId=7 done"),
    (900, f"{NODE}.slurmd", "[2026-11-22T10:15:00.000] error: of a later job"),
]


def refusal(code: str, operation: str = "FilterLogEvents") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, operation)


@dataclass
class FakeLogs:
    """What the commands call of boto3's client; answers `page` entries at a time."""

    groups: list[str] = field(default_factory=lambda: [GROUP])
    page: int = 2
    # Answers to give before the real ones.
    refusals: list[ClientError] = field(default_factory=list)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    events: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))

    def put(self, stream: str, at: float, message: str) -> None:
        number = sum(len(events) for events in self.events.values())
        event = {"timestamp": round(at * 1000), "message": message, "eventId": f"e{number}"}
        self.events[stream].append({**event, "logStreamName": stream})

    def describe_log_groups(self, logGroupNamePrefix: str, nextToken: str = "") -> dict[str, Any]:  # noqa: N803
        self._called("describe_log_groups", prefix=logGroupNamePrefix)
        found = sorted(name for name in self.groups if name.startswith(logGroupNamePrefix))
        return self._paged("logGroups", [{"logGroupName": name} for name in found], nextToken)

    def describe_log_streams(self, logGroupName: str, nextToken: str = "") -> dict[str, Any]:  # noqa: N803
        self._called("describe_log_streams", group=logGroupName)
        found = [
            {
                "logStreamName": name,
                "firstEventTimestamp": events[0]["timestamp"],
                "lastEventTimestamp": events[-1]["timestamp"],
            }
            for name, events in sorted(self.events.items())
        ]
        return self._paged("logStreams", found, nextToken)

    def filter_log_events(self, nextToken: str = "", **words: Any) -> dict[str, Any]:  # noqa: N803
        self._called("filter_log_events", **words)
        assert len(words["logStreamNames"]) <= 100
        end = words.get("endTime", float("inf"))
        found = sorted(
            (
                event
                for name in words["logStreamNames"]
                for event in self.events[name]
                if words["startTime"] <= event["timestamp"] <= end
            ),
            key=lambda event: event["timestamp"],
        )
        return self._paged("events", found, nextToken)

    def _called(self, operation: str, **words: Any) -> None:
        self.calls.append((operation, words))
        if self.refusals:
            raise self.refusals.pop(0)

    def _paged(self, key: str, entries: list[dict[str, Any]], token: str) -> dict[str, Any]:
        # Every second page is empty, as CloudWatch's may be.
        at = int(token or 0)
        if at % 2:
            return {key: [], "nextToken": str(at + 1)}
        start = at // 2 * self.page
        answer: dict[str, Any] = {key: entries[start : start + self.page]}
        if start + self.page < len(entries):
            answer["nextToken"] = str(at + 1)
        return answer


def a_cluster() -> FakeLogs:
    """Return the logs of a cluster with two nodes and two jobs."""
    logs = FakeLogs()
    for at, stream, message in LINES:
        logs.put(stream, TEN + at, message)
    return logs
