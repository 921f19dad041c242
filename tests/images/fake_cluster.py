"""One cluster that is only played: EC2, Systems Manager, CloudFormation, Slurm, in one process.

It does what ParallelCluster does when a queue or a pool gets another image, on a clock of its own.
Every call is a boundary at which a test can kill the run, before or after the call has worked.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from clusterbox.deployment.progress import Progress
from clusterbox.errors import ClusterboxError, InputError
from clusterbox.images.context import Clock, Context
from clusterbox.images.doors import Doors
from clusterbox.images.plan import Options, Plan
from clusterbox.site.environment import Environment
from clusterbox.site.images import ClusterPins, LockedImage, LoginPin, render_lock
from clusterbox.site.load import Repository
from clusterbox.site.pins import find_configured_parts, pin_of
from tests.conftest import ROOT

OLD, NEW = "ami-0000000000000001a", "ami-0000000000000002b"
CLUSTER, RUN = "ws-eco-login", "2026-11-22"
HEAD = "i-0000000000000head"
START = datetime(2026, 11, 22, 20, 0, tzinfo=UTC)


class Killed(BaseException):
    """The process was killed here."""


class FailedError(ClusterboxError):
    """A call that a test lets fail."""


def write_repository(folder: Path, *, promoted: bool = True) -> Path:
    """Copy the site's files; ws-dev's compute image is promoted from OLD to NEW, all pinned to OLD."""
    for name in ("ami", "environments", "cluster_configs"):
        shutil.copytree(ROOT / name, folder / name)
    repository = Repository(folder)
    lock = repository.load_lock()
    entry = lock.environments["ws-dev"]["compute"].without_previous()
    old = LockedImage(**{**entry.model_dump(), "ami": OLD})
    lock = lock.model_copy(update={"pins": {}}).with_image("ws-dev", "compute", old)
    if promoted:
        new = LockedImage(**{**entry.model_dump(), "ami": NEW}, previous=old.without_previous())
        lock = lock.with_image("ws-dev", "compute", new)
        for cluster in repository.load_environment("ws-dev").clusters:
            parts = find_configured_parts(repository.load_cluster(cluster))
            pins = ClusterPins(
                head=OLD,
                queues={part.name: OLD for part in parts if part.kind == "queue"},
                login={part.name: LoginPin(ami=OLD) for part in parts if part.kind == "login"},
            )
            lock = lock.with_pins("ws-dev", cluster.name, pins)
    (folder / "ami" / "images.lock.yaml").write_text(render_lock(lock))
    return folder


@dataclass
class FakeJob:
    """A job of the played Slurm."""

    id: str
    name: str
    partition: str
    state: str = "PENDING"
    node: str = ""
    ends: datetime | None = None
    user: str = "ada"
    output: str = ""
    # Host of its srun or salloc, where it is an interactive one.
    caller: str = ""


@dataclass
class FakeCluster:
    """A standing cluster with a head node, the queue eco and a pool of one login node."""

    root: Path
    now: datetime = START
    cluster: str = CLUSTER
    machines: dict[str, dict[str, Any]] = field(default_factory=dict)
    nodes: dict[str, dict[str, str]] = field(default_factory=dict)
    jobs: dict[str, FakeJob] = field(default_factory=dict)
    queue_amis: dict[str, str] = field(default_factory=lambda: {"eco": OLD})
    pool: dict[str, Any] = field(default_factory=lambda: {"ami": OLD, "count": 1})
    partitions: dict[str, str] = field(default_factory=lambda: {"eco": "UP"})
    reservations: set[str] = field(default_factory=set)
    snapshots: list[dict[str, Any]] = field(default_factory=list)
    parameters: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    stack: dict[str, Any] = field(
        default_factory=lambda: {"StackStatus": "UPDATE_COMPLETE", "LastUpdatedTime": START}
    )
    boot: int = 1
    kernel: str = "6.1.1"
    packages: dict[str, str] = field(default_factory=lambda: {"openssl": "3.0-1"})
    modules: set[str] = field(default_factory=lambda: {"efa", "ena", "loop"})
    units: set[str] = field(default_factory=lambda: {"slurmctld.service", "node-exporter.service"})
    stopped_units: set[str] = field(default_factory=set)
    memory_gib: float = 4.0
    memory_available_gib: float = 2.0
    down_until: datetime | None = None
    # What a test changes: seconds of things, and what fails.
    gate_output: str | None = None
    deploy_errors: list[Exception] = field(default_factory=list)
    unreachable: bool = False
    never_back: bool = False
    lost_after_reboot: set[str] = field(default_factory=set)
    login_never_starts: bool = False
    submitted: list[str] = field(default_factory=list)
    deployments: int = 0
    requeue_refused: bool = False
    updates: int = 0
    removed: list[str] = field(default_factory=list)
    # Which boundary kills, and whether the call has worked before it does.
    calls: int = 0
    kill_at: int | None = None
    kill_after: bool = False
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.add_machine(HEAD, "HeadNode", OLD, kind="t3.medium")
        self.add_machine("i-00000000000login1", "LoginNode", OLD, pool="login")

    # -- what tests set up ---------------------------------------------------------------------

    def add_machine(self, instance: str, node_type: str, ami: str, **extra: str) -> None:
        tags = {
            "parallelcluster:cluster-name": self.cluster,
            "parallelcluster:node-type": node_type,
        }
        if "queue" in extra:
            tags["parallelcluster:queue-name"] = extra["queue"]
        if "pool" in extra:
            tags["parallelcluster:login-nodes-pool-name"] = extra["pool"]
        self.machines[instance] = {
            "InstanceId": instance,
            "ImageId": ami,
            "InstanceType": extra.get("kind", "t3a.2xlarge"),
            "State": {"Name": "running"},
            "PrivateIpAddress": f"10.0.0.{len(self.machines) + 1}",
            "RootDeviceName": "/dev/xvda",
            "BlockDeviceMappings": [
                {"DeviceName": "/dev/xvda", "Ebs": {"VolumeId": "vol-00000000000000001"}}
            ],
            "tags": tags,
        }

    def start_job(
        self, ident: str = "7", *, hours: float | None = None, node: str = "eco-dy-n8c32g-1"
    ) -> FakeJob:
        """Run a job of ada's on a node of its own, on the image that the queue has now."""
        self._start_node(node)
        ends = None if hours is None else self.now + timedelta(hours=hours)
        self.jobs[ident] = FakeJob(ident, "model", "eco", "RUNNING", node, ends)
        return self.jobs[ident]

    def _start_node(self, node: str, queue: str = "eco") -> None:
        instance = f"i-{len(self.machines):017x}"
        self.add_machine(instance, "Compute", self.queue_amis[queue], queue=queue)
        address = self.machines[instance]["PrivateIpAddress"]
        self.nodes[node] = {"state": "ALLOCATED", "address": address, "instance": instance}

    def context(self, **options: Any) -> Context:
        """Return a context of this cluster, as a new process would have it."""
        environment = Repository(self.root).load_environment("ws-dev")
        fake = self

        class Target:
            """Only what steps need of a target."""

            name = "embedded"

            def client(self, service: str) -> Any:
                return getattr(fake, f"_{service}")()

        plan = Plan(
            run=RUN,
            environment="ws-dev",
            created=START.isoformat(),
            options=Options(**options),
            images=(),
            steps=(),
            world={},
        )
        return Context(
            root=self.root,
            environment=environment,
            target=Target(),  # type: ignore[arg-type]
            progress=Progress(),
            plan=plan,
            clock=Clock(lambda: self.now, self.sleep),
            note=lambda event, **_facts: self.log.append(event),
        )

    def doors(self) -> Doors:
        """Return doors to this cluster."""
        return Doors(
            deploy=self.deploy,
            publish=lambda _context, lock: self._publish(lock),
            remove=self.remove,
            open_shell=lambda _context, instance: Shell(self, instance),
        )

    # -- time ----------------------------------------------------------------------------------

    def sleep(self, seconds: float) -> None:
        with self.boundary("sleep"):
            self.now += timedelta(seconds=seconds)
            self.tick()

    def tick(self) -> None:
        for job in self.jobs.values():
            if job.state == "RUNNING" and job.ends is not None and job.ends <= self.now:
                job.state = "COMPLETED"
        self._start_pending()
        busy = {job.node for job in self.jobs.values() if job.state == "RUNNING"}
        for name, node in list(self.nodes.items()):
            if "DRAIN" in node["state"] and name not in busy:
                self.machines.pop(node["instance"], None)
                del self.nodes[name]
        self._level_pool()

    def _start_pending(self) -> None:
        if self.reservations or self.partitions["eco"] not in ("UP", "DRAIN"):
            return
        for job in self.jobs.values():
            if job.state == "PENDING" and job.partition == "eco":
                node = f"eco-dy-n8c32g-{len(self.nodes) + 10}"
                self._start_node(node)
                job.state, job.node = "RUNNING", node
                job.ends = self.now + timedelta(seconds=20)
                if job.name.startswith("clusterbox-gate"):
                    job.output = self.gate_output or "\n".join(
                        [
                            f"ami: {self.queue_amis['eco']}",
                            f"node: {node}",
                            '{"check": "imports", "ok": true, "detail": ""}',
                            "gate: done, 0 failed",
                        ]
                    )

    def _level_pool(self) -> None:
        if HEAD not in self.machines:
            return  # The cluster was removed.
        mine = [
            key
            for key, machine in self.machines.items()
            if machine["tags"]["parallelcluster:node-type"] == "LoginNode"
        ]
        for key in mine[self.pool["count"] :]:
            del self.machines[key]
        if not self.login_never_starts and not mine and self.pool["count"]:
            self.add_machine(
                f"i-0000000000login{self.calls:04x}", "LoginNode", self.pool["ami"], pool="login"
            )

    # -- boundaries ----------------------------------------------------------------------------

    @contextmanager
    def boundary(self, _what: str) -> Iterator[None]:
        self.calls += 1
        mine = self.calls
        if mine == self.kill_at and not self.kill_after:
            raise Killed
        yield
        if mine == self.kill_at and self.kill_after:
            raise Killed

    # -- deployments ---------------------------------------------------------------------------

    def deploy(self, context: Context, environment: Environment, cluster: str) -> None:
        with self.boundary("deploy"):
            self.deployments += 1
            if self.deploy_errors:
                raise self.deploy_errors.pop(0)
            if cluster != self.cluster:
                other = "i-0000000000headnew"
                self.add_machine(other, "HeadNode", NEW)
                self.machines[other]["tags"]["parallelcluster:cluster-name"] = cluster
                return
            repository = Repository(context.root)
            pins = repository.load_pins(environment, cluster)
            locked = repository.load_images(environment)
            [entry] = [entry for entry in environment.clusters if entry.name == cluster]
            for part in find_configured_parts(repository.load_cluster(entry)):
                assert part.image is not None
                ami = pin_of(pins, part) or locked[part.image].ami
                if part.kind == "head":
                    assert ami == OLD, "the image of a head node can never change"
                elif part.kind == "queue":
                    self._move_queue(part.name, ami)
                else:
                    pin = pins.login.get(part.name)
                    self._move_pool(ami, 0 if pin is not None and pin.closed else 1)
            self.stack["LastUpdatedTime"] = self.now

    def _move_queue(self, queue: str, ami: str) -> None:
        if self.queue_amis.get(queue) == ami:
            return
        self.queue_amis[queue] = ami
        for name, node in self.nodes.items():
            if name.startswith(f"{queue}-") and self.machines[node["instance"]]["ImageId"] != ami:
                node["state"] = "ALLOCATED+DRAIN"

    def _move_pool(self, ami: str, count: int) -> None:
        standing = any("login" in key for key in self.machines)
        if ami != self.pool["ami"] and standing:
            raise FailedError("login nodes of the pool must be stopped")
        self.pool.update(ami=ami, count=count)

    def _publish(self, lock: Any) -> None:
        with self.boundary("publish"):
            pins = lock.pins.get("ws-dev", {}).get(self.cluster)
            self.parameters["pins"] = pins.model_dump_json() if pins else ""

    def remove(self, _context: Context, _environment: Environment, cluster: str) -> None:
        with self.boundary("remove"):
            mine = [
                key
                for key, machine in self.machines.items()
                if machine["tags"]["parallelcluster:cluster-name"] == cluster
            ]
            if cluster in self.removed:
                raise InputError(f"the site has no cluster {cluster}")
            self.removed.append(cluster)
            for key in mine:
                del self.machines[key]

    # -- clients -------------------------------------------------------------------------------

    def _ec2(self) -> Any:
        return FakeEc2(self)

    def _cloudformation(self) -> Any:
        fake = self

        class CloudFormation:
            def describe_stacks(self, **_words: Any) -> dict[str, Any]:
                with fake.boundary("describe_stacks"):
                    return {"Stacks": [dict(fake.stack)]}

        return CloudFormation()

    def _ssm(self) -> Any:
        fake = self

        class Ssm:
            def put_parameter(self, **words: Any) -> None:
                with fake.boundary("put_parameter"):
                    fake.parameters[words["Name"]] = words["Value"]

        return Ssm()


@dataclass
class FakeEc2:
    """boto3's client of EC2, as far as steps use it."""

    fake: FakeCluster

    class exceptions:  # noqa: N801 -- boto3's name
        """The errors of boto3's client."""

        ClientError = ClientError

    def get_paginator(self, _operation: str) -> FakeEc2:
        return self

    def paginate(self, **words: Any) -> list[dict[str, Any]]:
        return [self.describe_instances(**words)]

    def describe_instances(self, **words: Any) -> dict[str, Any]:
        with self.fake.boundary("describe_instances"):
            wanted = {item["Name"]: item["Values"] for item in words.get("Filters", [])}
            cluster = wanted.get("tag:parallelcluster:cluster-name")
            found = [
                {**machine, "Tags": _tags(machine["tags"])}
                for key, machine in self.fake.machines.items()
                if cluster is None or machine["tags"]["parallelcluster:cluster-name"] in cluster
                if key in words.get("InstanceIds", [key])
            ]
            return {"Reservations": [{"Instances": found}]}

    def describe_snapshots(self, **words: Any) -> dict[str, Any]:
        with self.fake.boundary("describe_snapshots"):
            if "SnapshotIds" in words:
                return {"Snapshots": [s for s in self.fake.snapshots
                                      if s["SnapshotId"] in words["SnapshotIds"]]}  # fmt: skip
            wanted = {
                item["Name"].removeprefix("tag:"): item["Values"] for item in words["Filters"]
            }
            return {
                "Snapshots": [
                    snapshot
                    for snapshot in self.fake.snapshots
                    if all(snapshot["tags"].get(key) in values for key, values in wanted.items())
                ]
            }

    def create_snapshot(self, **words: Any) -> dict[str, Any]:
        with self.fake.boundary("create_snapshot"):
            tags = {tag["Key"]: tag["Value"] for tag in words["TagSpecifications"][0]["Tags"]}
            snapshot = {
                "SnapshotId": f"snap-{len(self.fake.snapshots)}",
                "State": "completed",
                "tags": tags,
            }
            self.fake.snapshots.append(snapshot)
        return snapshot

    def create_tags(self, **words: Any) -> None:
        with self.fake.boundary("create_tags"):
            for instance in words["Resources"]:
                tags = {tag["Key"]: tag["Value"] for tag in words["Tags"]}
                self.fake.machines[instance]["tags"].update(tags)

    def delete_tags(self, **words: Any) -> None:
        with self.fake.boundary("delete_tags"):
            for instance in words["Resources"]:
                for tag in words["Tags"]:
                    self.fake.machines[instance]["tags"].pop(tag["Key"], None)

    def reboot_instances(self, **_words: Any) -> None:
        with self.fake.boundary("reboot_instances"):
            self._boot()

    def _boot(self) -> None:
        self.fake.boot += 1
        self.fake.modules -= self.fake.lost_after_reboot
        self.fake.units -= self.fake.lost_after_reboot
        self.fake.partitions = dict.fromkeys(self.fake.partitions, "UP")
        self.fake.down_until = self.fake.now + timedelta(seconds=90)
        if self.fake.never_back:
            self.fake.unreachable = True

    def stop_instances(self, **words: Any) -> None:
        with self.fake.boundary("stop_instances"):
            for instance in words["InstanceIds"]:
                self.fake.machines[instance]["State"] = {"Name": "stopped"}

    def modify_instance_attribute(self, **words: Any) -> None:
        with self.fake.boundary("modify_instance_attribute"):
            machine = self.fake.machines[words["InstanceId"]]
            assert machine["State"]["Name"] == "stopped"
            machine["InstanceType"] = words["InstanceType"]["Value"]

    def start_instances(self, **words: Any) -> None:
        with self.fake.boundary("start_instances"):
            for instance in words["InstanceIds"]:
                self.fake.machines[instance]["State"] = {"Name": "running"}
            self._boot()


@dataclass
class Shell:
    """The head node's shell: it knows the commands and scripts that steps run, and no other."""

    fake: FakeCluster
    instance: str

    def run(self, script: str, *, timeout_seconds: float = 60.0) -> str:
        del timeout_seconds
        fake = self.fake
        with fake.boundary("run"):
            machine = fake.machines.get(self.instance, {"State": {"Name": "terminated"}})
            is_down = fake.down_until is not None and fake.now < fake.down_until
            if fake.unreachable or is_down or machine["State"]["Name"] != "running":
                raise FailedError(f"Systems Manager does not reach {self.instance}")
            return self._answer(script)

    def _answer(self, script: str) -> str:
        embedded = re.search(r'bash <\(base64 --decode <<<"([^"]+)"\) ?(.*)', script)
        if embedded:
            text = base64.b64decode(embedded[1]).decode()
            return self._patch_script(text, embedded[2])
        if "sbatch" in script:
            return self._submit(script)
        lines = [line for line in script.splitlines() if line.strip()]
        last = lines[-1]
        if gate := re.search(r"clusterbox-gate-[\w-]+", script):
            if last.startswith("tail "):
                jobs = [job for job in self.fake.jobs.values() if job.name == gate[0]]
                return jobs[-1].output if jobs else ""
            assert last == 'rm -rf "$folder"'
            self.fake.files.pop(gate[0], None)
            return ""
        if last.startswith("rm -f") and "status" in last:
            self.fake.files.pop("status", None)
            return ""
        if "tar -xzf" in script or last == "sync":
            return ""
        return self._slurm(shlex.split(last))

    def _submit(self, script: str) -> str:
        fake = self.fake
        name = re.search(r"--job-name=(\S+)", script)
        assert name is not None
        if name[1] not in fake.files:
            ident = str(100 + len(fake.jobs))
            partition = re.search(r"--partition=(\S+)", script)
            assert partition is not None
            fake.jobs[ident] = FakeJob(ident, name[1], partition[1], user="root")
            fake.submitted.append(name[1])
            fake.files[name[1]] = ident
        return fake.files[name[1]] + "\n"

    def _patch_script(self, text: str, words: str) -> str:
        fake = self.fake
        if "Starts the update" in text:
            if "status" not in fake.files:
                fake.updates += 1
                fake.packages["openssl"] = "3.0-2"
                fake.files["status"] = f"done boot-{fake.boot}"
                return "running\n"
            return fake.files["status"] + "\n"
        assert "Facts of a head node" in text
        names = re.findall(r"(\w+\.json)", words)
        if words.startswith("--changes"):
            old, new = (json.loads(fake.files[name])["packages"] for name in names)
            upgraded = {key: [old[key], new[key]] for key in old if old[key] != new[key]}
            return json.dumps({"added": {}, "removed": {}, "upgraded": upgraded})
        facts = {
            "boot_id": f"boot-{fake.boot}",
            "kernel": fake.kernel,
            "modules": sorted(fake.modules),
            "enabled": sorted(fake.units),
            "active": sorted(fake.units - fake.stopped_units),
            "memory_total_kib": int(fake.memory_gib * 1024 * 1024),
            "memory_available_kib": int(fake.memory_available_gib * 1024 * 1024),
        }
        for name in names:
            kept = json.dumps({**facts, "packages": fake.packages})
            facts = json.loads(fake.files.setdefault(name, kept))
            del facts["packages"]
        return json.dumps(facts)

    def _slurm(self, words: list[str]) -> str:
        commands: dict[str, Callable[[list[str]], str]] = {
            "squeue": self._squeue,
            "sinfo": lambda _words: "".join(f"{name}\n" for name in self.fake.partitions),
            "scancel": self._scancel,
            "scontrol": self._scontrol,
        }
        return commands[words[0]](words[1:])

    def _squeue(self, words: list[str]) -> str:
        lines = []
        if words[-1] == "%i|%B":
            return "".join(
                f"{job.id}|{job.caller or job.node}\n" for job in self.fake.jobs.values()
            )
        for job in self.fake.jobs.values():
            if job.state in ("PENDING", "RUNNING"):
                fields = (
                    job.id, job.user, job.partition, job.state, "1:00:00", job.node, job.name
                )  # fmt: skip
                lines.append("|".join(fields) + "\n")
        return "".join(lines)

    def _scancel(self, words: list[str]) -> str:
        self.fake.jobs[words[0]].state = "CANCELLED"
        return ""

    def _scontrol(self, words: list[str]) -> str:
        fake = self.fake
        match words:
            case ["ping"]:
                return "Slurmctld(primary) at head is UP\n"
            case ["show", "nodes", "--oneliner"]:
                return "".join(
                    f"NodeName={name} CPUTot=8 CPUAlloc=8 RealMemory=32000 "
                    f"NodeAddr={node['address']} State={node['state']} Partitions=eco Weight=1\n"
                    for name, node in fake.nodes.items()
                )
            case ["show", "reservations", "--oneliner"]:
                return "".join(
                    f"ReservationName={name} StartTime=x\n" for name in fake.reservations
                )
            case ["create", "reservation", name, *_]:
                fake.reservations.add(name.removeprefix("ReservationName="))
            case ["delete", name]:
                fake.reservations.discard(name.removeprefix("ReservationName="))
            case ["requeue", *words, job]:
                ended = fake.jobs[job].state not in ("PENDING", "RUNNING")
                if ended and words == ["Incomplete"]:
                    return ""
                if fake.requeue_refused:
                    raise FailedError("Requested operation is presently disabled")
                fake.jobs[job].state, fake.jobs[job].node = "PENDING", ""
            case ["show", "job", "--oneliner", job]:
                found = fake.jobs.get(job)
                if found is None:
                    raise FailedError("slurm_load_jobs error: Invalid job id specified")
                return (
                    f"JobId={job} JobState={found.state} Reason=None "
                    f"NodeList={found.node or '(null)'}\n"
                )
            case ["update", name, setting, *_] if name.startswith("PartitionName="):
                fake.partitions[name.split("=")[1]] = setting.split("=")[1]
            case ["update", name, "State=POWER_DOWN_ASAP", *_]:
                for node in name.removeprefix("NodeName=").split(","):
                    fake.nodes[node]["state"] += "+DRAIN"
            case _:
                raise AssertionError(f"no such command: scontrol {words}")
        return ""


def run_killed(
    make: Callable[[], FakeCluster],
    act: Callable[[FakeCluster], Any],
    check: Callable[[FakeCluster, Any], None],
) -> int:
    """Kill a run at each of its calls, before and after it, run it again, and check what came out.

    Returns how many kills were tried.
    """
    whole = make()
    check(whole, act(whole))
    total = whole.calls
    tried = 0
    for kill_at in range(1, total + 1):
        for kill_after in (False, True):
            fake = make()
            fake.kill_at, fake.kill_after = kill_at, kill_after
            try:
                act(fake)
            except Killed:
                fake.kill_at = None
                check(fake, act(fake))
                tried += 1
    assert tried >= total
    return tried


def with_options(context: Context, **options: Any) -> Context:
    """Return a context with other options."""
    return replace(
        context, plan=replace(context.plan, options=replace(context.plan.options, **options))
    )


def _tags(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
