"""What happens to an instance after its launch: reboots, stops, starts, changes, its end.

Also snapshots of its volumes, which take a moment, and Spot instances, which carry their mark.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from html import escape
from typing import Any

from ministack.services import ec2

from clusterbox.embedded.server import machines, run_command
from clusterbox.embedded.server.ministack_api import ResourceType, call, is_true

RESOURCE_TYPES: dict[str, ResourceType] = {}

# How long a snapshot is pending.
SNAPSHOT_SECONDS = 0.3
_CHANGEABLE_WHEN_STOPPED = ("InstanceType", "EbsOptimized", "UserData")

Answer = Callable[[dict[str, Any]], Any]


def _ids(parameters: dict[str, Any]) -> list[str]:
    return [str(i) for i in ec2._parse_member_list(parameters, "InstanceId")]


def _wrong_state(instance_id: str, state: str) -> Any:
    message = f"The instance '{instance_id}' is not in a state from which it can be {state}."
    return ec2._error("IncorrectInstanceState", message, 400)


def _reboot(native: Answer) -> Answer:
    def reboot_instances(parameters: dict[str, Any]) -> Any:
        ids = _ids(parameters)
        for instance_id in ids:
            instance = ec2._instances.get(instance_id)
            if instance and instance["State"]["Name"] != "running":
                return _wrong_state(instance_id, "rebooted")
        answer = native(parameters)
        if answer[0] < 400:
            for instance_id in ids:
                run_command.boot_again(instance_id)
        return answer

    return reboot_instances


def _start(native: Answer) -> Answer:
    def start_instances(parameters: dict[str, Any]) -> Any:
        ids = _ids(parameters)
        known = [ec2._instances[i] for i in ids if i in ec2._instances]
        for instance in known:
            if instance["State"]["Name"] == "terminated":
                return _wrong_state(instance["InstanceId"], "started")
        stopped = [i for i in known if i["State"]["Name"] == "stopped"]
        answer = native(parameters)
        if answer[0] < 400:
            for instance in stopped:
                instance["LaunchTime"] = ec2._now_ts()
                run_command.launched(instance)
                machines.reboot(instance["InstanceId"])
        return answer

    return start_instances


def _stop(native: Answer) -> Answer:
    def stop_instances(parameters: dict[str, Any]) -> Any:
        for instance_id in _ids(parameters):
            instance = ec2._instances.get(instance_id)
            if instance and instance["State"]["Name"] == "terminated":
                return _wrong_state(instance_id, "stopped")
            if instance and instance.get("InstanceLifecycle") == "spot":
                message = (
                    f"You can't stop the Spot Instance '{instance_id}' because it is associated "
                    "with a one-time Spot Instance request."
                )
                return ec2._error("UnsupportedOperation", message, 400)
        return native(parameters)

    return stop_instances


def _terminate(native: Answer) -> Answer:
    def terminate_instances(parameters: dict[str, Any]) -> Any:
        ids = _ids(parameters)
        for instance_id in ids:
            if ec2._instances.get(instance_id, {}).get("DisableApiTermination"):
                message = (
                    f"The instance '{instance_id}' may not be terminated. Modify its "
                    "'disableApiTermination' instance attribute and try again."
                )
                return ec2._error("OperationNotPermitted", message, 400)
        answer = native(parameters)
        if answer[0] < 400:
            for instance_id in ids:
                end_instance(instance_id)
        return answer

    return terminate_instances


def end_instance(instance_id: str) -> None:
    """Remove what ends with an instance: the volumes that were made for it, and its machine."""
    for volume_id, volume in list(ec2._volumes.items()):
        for attachment in volume["Attachments"]:
            if attachment["InstanceId"] != instance_id:
                continue
            if is_true(attachment.get("DeleteOnTermination", False)):
                ec2._volumes.pop(volume_id, None)
            else:
                volume |= {"Attachments": [], "State": "available"}
    machines.remove(instance_id)


def _modify(native: Answer | None) -> Answer:
    def modify_instance_attribute(parameters: dict[str, Any]) -> Any:
        instance_id = ec2._p(parameters, "InstanceId")
        instance = ec2._instances.get(instance_id)
        if instance is None or instance["State"]["Name"] == "terminated":
            message = f"The instance ID '{instance_id}' does not exist"
            return ec2._error("InvalidInstanceID.NotFound", message, 400)
        changes = {
            name: ec2._p(parameters, f"{name}.Value")
            for name in (*_CHANGEABLE_WHEN_STOPPED, "DisableApiTermination")
            if f"{name}.Value" in parameters
        }
        # The older way to write it.
        if name := ec2._p(parameters, "Attribute"):
            changes[name[:1].upper() + name[1:]] = ec2._p(parameters, "Value")
        if not changes:
            return native(parameters) if native else _done("ModifyInstanceAttribute")
        if set(changes) & set(_CHANGEABLE_WHEN_STOPPED) and instance["State"]["Name"] != "stopped":
            message = f"The instance '{instance_id}' is not in the 'stopped' state."
            return ec2._error("IncorrectInstanceState", message, 400)
        for name, value in changes.items():
            truth = name in ("DisableApiTermination", "EbsOptimized")
            instance[name] = is_true(value) if truth else value
        return _done("ModifyInstanceAttribute")

    return modify_instance_attribute


def _done(action: str) -> Any:
    return ec2._xml(200, f"{action}Response", "<return>true</return>")


def _status(native: Answer) -> Answer:
    def describe_instance_status(parameters: dict[str, Any]) -> Any:
        for instance_id in _ids(parameters):
            if instance_id not in ec2._instances:
                message = f"The instance ID '{instance_id}' does not exist"
                return ec2._error("InvalidInstanceID.NotFound", message, 400)
        status, headers, body = native(parameters)

        def checked(found: re.Match[str]) -> str:
            # Both checks pass once the system has booted, which is when its agent answers.
            name = found[1]
            instance = ec2._instances[name]
            booted = time.monotonic() >= max(
                instance.get("_online_first", 0.0), instance.get("_online_again", 0.0)
            )
            if instance["State"]["Name"] != "running" or machines.is_away(name):
                return found[0].replace("<status>ok<", "<status>not-applicable<")
            return found[0] if booted else found[0].replace("<status>ok<", "<status>initializing<")

        text = re.sub(
            r"<instanceId>([^<]+)</instanceId>.*?</instanceStatus>",
            checked,
            body.decode(),
            flags=re.S,
        )
        return status, headers, text.encode()

    return describe_instance_status


def _create_snapshot(native: Answer) -> Answer:
    def create_snapshot(parameters: dict[str, Any]) -> Any:
        answer = (
            call(native, parameters) if ec2._p(parameters, "VolumeId") in ec2._volumes else None
        )
        if answer is None:
            return native(parameters)
        snapshot = ec2._snapshots[answer.value("snapshotId")]
        snapshot |= {"State": "pending", "Progress": "0%"}
        snapshot["_complete_at"] = time.monotonic() + SNAPSHOT_SECONDS
        return ec2._xml(200, "CreateSnapshotResponse", ec2._snapshot_inner_xml(snapshot))

    return create_snapshot


def _describe_snapshots(native: Answer) -> Answer:
    def describe_snapshots(parameters: dict[str, Any]) -> Any:
        for snapshot in ec2._snapshots.values():
            if snapshot["State"] == "pending" and time.monotonic() >= snapshot.get(
                "_complete_at", 0
            ):
                snapshot |= {"State": "completed", "Progress": "100%"}
        return native(parameters)

    return describe_snapshots


def _mend_lifecycle() -> None:
    render, matches = ec2._instance_xml, ec2._matches_filters

    def instance_fields(instance: dict[str, Any]) -> str:
        text = str(render(instance))
        if lifecycle := instance.get("InstanceLifecycle"):
            before, _, after = text.rpartition("</item>")
            text = (
                f"{before}<instanceLifecycle>{escape(lifecycle)}</instanceLifecycle></item>{after}"
            )
        return text

    def matches_filters(instance: dict[str, Any], filters: dict[str, list[str]]) -> bool:
        wanted = filters.get("instance-lifecycle")
        if wanted and instance.get("InstanceLifecycle", "") not in wanted:
            return False
        return bool(matches(instance, filters))

    ec2._instance_xml = instance_fields
    ec2._matches_filters = matches_filters


_MENDED: dict[str, Callable[[Any], Answer]] = {
    "CreateSnapshot": _create_snapshot,
    "DescribeInstanceStatus": _status,
    "DescribeSnapshots": _describe_snapshots,
    "ModifyInstanceAttribute": _modify,
    "RebootInstances": _reboot,
    "StartInstances": _start,
    "StopInstances": _stop,
    "TerminateInstances": _terminate,
}


def mend() -> None:
    """Put these in front of ministack's actions."""
    for action, front in _MENDED.items():
        ec2._ACTION_MAP[action] = front(ec2._ACTION_MAP.get(action))
    # CloudFormation and scaling groups call it by its name.
    ec2._terminate_instances = ec2._ACTION_MAP["TerminateInstances"]
    _mend_lifecycle()
