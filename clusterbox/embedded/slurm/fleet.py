"""The daemon that joins a Slurm here to the account in which its cluster stands.

It stands in for ParallelCluster's daemons on a head node: a node that Slurm powers up becomes an
instance of its queue's launch template, in whose machine its slurmd runs; one that is powered
down is terminated. After an update of the cluster it does what the update's recipe and clustermgtd
do (aws/aws-parallelcluster-cookbook, `update_head_node`): with the strategy DRAIN the nodes of the
queues that changed end when their jobs have, with TERMINATE at once, and their jobs are requeued.
Queues and nodes that an update adds or removes are not followed: start the Slurm again for those.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.exceptions
import yaml

from clusterbox.embedded.account import AccountError, EmbeddedAccount
from clusterbox.embedded.slurm import marked, power
from clusterbox.embedded.slurm.launches import LaunchPlan
from clusterbox.embedded.slurm.requests import FLEET_FOLDER, take_requests
from clusterbox.embedded.slurm.state import State, read_state
from clusterbox.errors import ClusterboxError
from clusterbox.files import write_whole
from clusterbox.slurm import Node, Slurm, SlurmError

READY_FILE = "ready"
INSTANCES_FILE = "instances.json"
_POLL_SECONDS = 0.1
_WATCH_SECONDS = 0.7
_UPDATE_REASON = "updating node state during cluster update"
_GONE_REASON = "Backing instance is terminated"
# What the update's recipe asks of Slurm for the nodes of a queue that changed.
_STATES = {"DRAIN": "power_down_asap", "TERMINATE": "power_down_force"}


@dataclass(frozen=True)
class Cluster:
    """What the account knows of a cluster: its stack and the configuration in its bucket."""

    name: str
    config_version: str
    status: str
    bucket: str
    prefix: str

    @classmethod
    def fetch(cls, account: EmbeddedAccount, name: str) -> Cluster:
        """Read the cluster's stack; raises ClusterboxError where there is none."""
        client = account.client("cloudformation")
        try:
            [stack] = client.describe_stacks(StackName=name)["Stacks"]
        except (botocore.exceptions.ClientError, ValueError) as error:
            raise ClusterboxError(f"no stack of the cluster {name} in the account") from error
        given = {p["ParameterKey"]: p["ParameterValue"] for p in stack.get("Parameters", [])}
        return cls(
            name=name,
            config_version=given.get("ConfigVersion", ""),
            status=stack["StackStatus"],
            bucket=given["ResourcesS3Bucket"],
            prefix=f"{given['ArtifactS3RootDirectory']}/configs",
        )

    def read(self, account: EmbeddedAccount, name: str) -> Any:
        """Return a file beside its configuration, parsed."""
        found = account.client("s3").get_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}")
        return yaml.safe_load(found["Body"].read())

    def configuration(self, account: EmbeddedAccount) -> dict[str, Any]:
        """Return the configuration that it was last deployed with."""
        found: dict[str, Any] = self.read(account, "cluster-config.yaml")
        return found


def find_head(account: EmbeddedAccount, cluster: str) -> str:
    """Return the id of the running head node; raises ClusterboxError where there is none."""
    for instance in _instances(account, cluster, "HeadNode"):
        if instance["State"]["Name"] == "running":
            return str(instance["InstanceId"])
    raise ClusterboxError(
        f"no head node of {cluster} runs in the embedded account: deploy the site first"
    )


def mounts(configuration: Mapping[str, Any]) -> dict[str, str]:
    """Return what nodes mount: folder → name of what stands in for the file system."""
    found = {}
    for storage in configuration.get("SharedStorage") or []:
        settings = storage.get(f"{storage['StorageType']}Settings") or {}
        ids = (settings.get("FileSystemId"), settings.get("VolumeId"), storage["Name"])
        found[str(storage["MountDir"])] = str(next(i for i in ids if i))
    return found


def join(account: EmbeddedAccount, cluster: str, environment: Mapping[str, str]) -> str:
    """Make the head node's instance the host of a Slurm here; return its id."""
    head = find_head(account, cluster)
    configuration = Cluster.fetch(account, cluster).configuration(account)
    account.machine(head, environment=dict(environment), storage=mounts(configuration))
    return head


def leave(account_dir: str, cluster: str) -> None:
    """Undo what joined a Slurm that ends, where the account still runs.

    Its compute nodes are terminated, and its head node knows no Slurm any more.
    """
    account = EmbeddedAccount.attach(Path(account_dir))
    if account is None:
        return
    for head in _instances(account, cluster, "HeadNode"):
        if head["State"]["Name"] == "running":
            account.machine(head["InstanceId"], environment={})
    ids = [i["InstanceId"] for i in _instances(account, cluster, "Compute") if _is_alive(i)]
    if ids:
        account.client("ec2").terminate_instances(InstanceIds=ids)


def _instances(account: EmbeddedAccount, cluster: str, kind: str) -> list[dict[str, Any]]:
    filters = [
        {"Name": "tag:parallelcluster:cluster-name", "Values": [cluster]},
        {"Name": "tag:parallelcluster:node-type", "Values": [kind]},
    ]
    pages = account.client("ec2").get_paginator("describe_instances").paginate(Filters=filters)
    return [i for page in pages for r in page["Reservations"] for i in r["Instances"]]


def _is_alive(instance: Mapping[str, Any]) -> bool:
    return instance["State"]["Name"] in ("pending", "running")


class Fleet:
    """The daemon's state; one step at a time."""

    def __init__(self, folder: Path, state: State, account: EmbeddedAccount) -> None:
        self.folder = folder
        self.state = state
        self.account = account
        self.layout = state.layout(folder)
        self.door = Slurm({"SLURM_CONF": str(self.layout.slurm_conf), "PATH": os.environ["PATH"]})
        self.applied = Cluster.fetch(account, state.stack).config_version
        self.instances: dict[str, str] = {}
        self.failed: dict[str, float] = {}
        self.replacing: set[str] = set()

    def serve_requests(self) -> None:
        """Launch and terminate what Slurm has asked for."""
        for request in take_requests(self.folder):
            if request.action == "resume":
                self._launch(request.nodes)
            else:
                self._terminate(request.nodes)

    def _launch(self, nodes: Iterable[str]) -> None:
        configuration = Cluster.fetch(self.account, self.state.stack).configuration(self.account)
        plan = LaunchPlan.read(self.folder)
        for node in nodes:
            self._terminate([node])
            try:
                instance = self._run_instance(node, configuration)
            except (botocore.exceptions.ClientError, ClusterboxError) as error:
                self._fail(node, str(error))
                continue
            self.instances[node] = instance
            self._write_instances()
            machine = self.account.machine(
                instance, environment=self._environment(), storage=mounts(configuration)
            )
            environment = {**os.environ, **marked.environment(self.state.mark, node)}
            power.boot(self.folder, node, plan.boot_seconds(node), environment, machine["command"])
            _note(f"{node} is {instance}")

    def _environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.layout.slurm_conf), "PATH": os.environ["PATH"]}

    def _run_instance(self, node: str, configuration: Mapping[str, Any]) -> str:
        queue, resource = _resource_of(node, configuration)
        name = f"{self.state.stack}-{queue['Name']}-{resource['Name']}"
        asked: dict[str, Any] = {
            "LaunchTemplate": {"LaunchTemplateName": name, "Version": "$Latest"},
            "SubnetId": queue["Networking"]["SubnetIds"][0],
            "MinCount": 1,
            "MaxCount": 1,
        }
        if resource.get("Instances"):
            # ParallelCluster asks for a fleet of all of them; the first one is offered here.
            asked["InstanceType"] = resource["Instances"][0]["InstanceType"]
        if queue.get("CapacityType") == "SPOT":
            asked["InstanceMarketOptions"] = {"MarketType": "spot"}
        [made] = self.account.client("ec2").run_instances(**asked)["Instances"]
        item = {"Id": {"S": node}, "InstanceId": {"S": made["InstanceId"]}}
        table = f"parallelcluster-slurm-{self.state.stack}"
        self.account.client("dynamodb").put_item(TableName=table, Item=item)
        return str(made["InstanceId"])

    def _fail(self, node: str, why: str) -> None:
        _note(f"{node} cannot be launched: {why}")
        self.door.update_nodes(
            [node], state="down", reason="(Code:LaunchFailed)Failure when resuming nodes"
        )
        self.failed[node] = time.monotonic() + LaunchPlan.read(self.folder).failed_seconds

    def _terminate(self, nodes: Iterable[str]) -> None:
        ids = [self.instances.pop(node) for node in nodes if node in self.instances]
        if ids:
            self._write_instances()
            try:
                self.account.client("ec2").terminate_instances(InstanceIds=ids)
            except botocore.exceptions.ClientError as error:
                _note(f"{ids} cannot be terminated: {error}")

    def _write_instances(self) -> None:
        path = self.folder / FLEET_FOLDER / INSTANCES_FILE
        write_whole(path, json.dumps(self.instances, indent=1) + "\n")

    def watch(self) -> None:
        """Follow updates of the cluster, instances that are gone, and nodes that are drained."""
        cluster = Cluster.fetch(self.account, self.state.stack)
        if cluster.config_version != self.applied and cluster.status == "UPDATE_COMPLETE":
            self._follow_update(cluster)
            self.applied = cluster.config_version
        self._replace_gone()
        self._replace_drained_static()
        for node in [n for n, at in self.failed.items() if time.monotonic() >= at]:
            del self.failed[node]
            self.door.update_nodes([node], state="power_down")

    def _follow_update(self, cluster: Cluster) -> None:
        """Do what the update's recipe does with the queues that its change set names."""
        configuration = cluster.configuration(self.account)
        settings = configuration["Scheduling"].get("SlurmSettings") or {}
        strategy = settings.get("QueueUpdateStrategy") or ""
        queues = changed_queues(cluster.read(self.account, "change-set.json"))
        _note(f"update {cluster.config_version}: {strategy or 'no strategy'}, {queues}")
        if strategy not in _STATES:
            return
        for name, node in ((n.name, n) for n in self.door.fetch_nodes()):
            queue = _queue_of(name, configuration)
            if queue not in queues:
                continue
            # Static nodes are drained, and are this daemon's to replace. Nodes that are powered
            # down already are left: their next instance is of the new launch template.
            is_static = _is_static(name, queue)
            if node.states & {"POWERED_DOWN", "POWERING_DOWN"} and not is_static:
                continue
            state = "drain" if is_static and strategy == "DRAIN" else _STATES[strategy]
            self.door.update_nodes([name], state=state, reason=_UPDATE_REASON)

    def _replace_gone(self) -> None:
        """Power nodes down whose instance somebody else has ended."""
        alive = {
            i["InstanceId"]
            for i in _instances(self.account, self.state.stack, "Compute")
            if _is_alive(i)
        }
        gone = [node for node, instance in self.instances.items() if instance not in alive]
        for node in gone:
            _note(f"{node}: {self.instances.pop(node)} is gone")
            marked.end(self.state.mark, self.layout.slurm_conf, node)
            self.door.update_nodes([node], state="down", reason=_GONE_REASON)
            self.door.update_nodes([node], state="power_down")
        if gone:
            self._write_instances()

    def _replace_drained_static(self) -> None:
        static = LaunchPlan.read(self.folder).static_nodes
        if not static:
            return
        for node in self.door.fetch_nodes():
            if node.name in static:
                self._replace_static(node)

    def _replace_static(self, node: Node) -> None:
        ours = _UPDATE_REASON in (node.reason or "")
        if node.states >= {"IDLE", "DRAIN"} and ours and "POWERED_DOWN" not in node.states:
            self.replacing.add(node.name)
            self.door.update_nodes([node.name], state="power_down_force", reason=_UPDATE_REASON)
        elif "POWERED_DOWN" in node.states:
            # Static nodes are always up, whoever powered them down.
            self.replacing.discard(node.name)
            if "DRAIN" in node.states:
                self.door.update_nodes([node.name], state="resume")
            self.door.update_nodes([node.name], state="power_up")

    def run(self) -> None:
        """Serve until the account or slurmctld is gone for good; the marks end it before."""
        next_watch = 0.0
        (self.folder / FLEET_FOLDER / READY_FILE).touch()
        while True:
            try:
                self.serve_requests()
                if time.monotonic() >= next_watch:
                    self.watch()
                    next_watch = time.monotonic() + _WATCH_SECONDS
            except (SlurmError, ClusterboxError, botocore.exceptions.BotoCoreError) as error:
                _note(f"again in a moment: {error}")
                if EmbeddedAccount.attach(self.account.state_dir) is None:
                    _note("the account is gone: the nodes keep running without it")
                    return
                time.sleep(_WATCH_SECONDS)
            except botocore.exceptions.ClientError as error:
                _note(f"again in a moment: {error}")
                time.sleep(_WATCH_SECONDS)
            time.sleep(_POLL_SECONDS)


def _note(text: str) -> None:
    """Write a line to the daemon's log."""
    sys.stdout.write(f"{time.strftime('%FT%TZ', time.gmtime())} {text}\n")
    sys.stdout.flush()


def changed_queues(change_set: Mapping[str, Any]) -> list[str]:
    """Return the queues of a change set that follow the queue update strategy."""
    found = []
    for change in change_set.get("changeSet") or []:
        parameter = str(change["parameter"])
        if change["updatePolicy"] != "QUEUE_UPDATE_STRATEGY" or "SlurmQueues[" not in parameter:
            continue
        found.append(parameter.partition("SlurmQueues[")[2].partition("]")[0])
    return sorted(set(found))


def _resource_of(node: str, configuration: Mapping[str, Any]) -> tuple[Any, Any]:
    for queue in configuration["Scheduling"].get("SlurmQueues") or []:
        for resource in queue.get("ComputeResources") or []:
            for kind in ("st", "dy"):
                prefix, _, number = node.rpartition("-")
                if prefix == f"{queue['Name']}-{kind}-{resource['Name']}" and number.isdigit():
                    return queue, resource
    raise ClusterboxError(f"{node}: the cluster's configuration has no such compute resource")


def _queue_of(node: str, configuration: Mapping[str, Any]) -> str:
    try:
        return str(_resource_of(node, configuration)[0]["Name"])
    except ClusterboxError:
        return ""


def _is_static(node: str, queue: str) -> bool:
    return node.startswith(f"{queue}-st-")


def main() -> None:
    """Run as `fleet.py FOLDER`, started with the cluster."""
    folder = Path(sys.argv[1])
    state = read_state(folder)
    account = EmbeddedAccount.attach(Path(state.account_dir)) if state else None
    if state is None or account is None:
        raise AccountError(f"no embedded account runs for the Slurm in {folder}")
    Fleet(folder, state, account).run()


if __name__ == "__main__":
    main()
