"""Systems Manager's Run Command: shell scripts run for real, in the machine of each instance.

An instance is reachable (Online) a moment after its launch, where it has an instance profile, as
the agent needs one. AWS-RunShellScript and the shell scripts of the account's own documents run as
processes of this server; other documents are taken and do nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from ministack import app
from ministack.core.concurrency import spawn_background
from ministack.core.responses import error_response_json, json_response
from ministack.services import ec2, ssm

from clusterbox.embedded.server import documents, machines
from clusterbox.embedded.server.ministack_api import (
    ResourceType,
    account_id,
    call,
    query_parameters,
)

RESOURCE_TYPES: dict[str, ResourceType] = {}

# After how many seconds a launched instance is reachable; on AWS it takes one to three minutes.
ONLINE_SECONDS = float(os.environ.get("CLUSTERBOX_ONLINE_SECONDS", "0.5"))
_OVER = ("Success", "Failed", "Cancelled", "TimedOut")
_STDOUT_CHARACTERS, _STDERR_CHARACTERS = 24_000, 8_000
_DEFAULT_EXECUTION_SECONDS = 3600
_DEFAULT_DELIVERY_SECONDS = 3600
_POLL_SECONDS = 0.05
# By this exit code a script asks for a reboot, and to be run again after it.
_REBOOT = 194
_MOST_REBOOTS = 5

_cancelled: set[str] = set()


def is_registered(instance_id: str) -> bool:
    """Return whether Systems Manager takes commands for an instance."""
    instance = ec2._instances.get(instance_id)
    if instance is None or instance["State"]["Name"] != "running":
        return False
    first = instance.get("_online_first")
    if first is None:
        # Launched before this was watched: it is long up.
        first = instance["_online_first"] = 0.0
    return bool(instance.get("IamInstanceProfile")) and time.monotonic() >= first


def is_online(instance_id: str) -> bool:
    """Return whether the agent answers now; while an instance boots again it does not."""
    instance = ec2._instances.get(instance_id, {})
    return (
        is_registered(instance_id)
        and time.monotonic() >= instance.get("_online_again", 0.0)
        and not machines.is_away(instance_id)
    )


def launched(instance: dict[str, Any]) -> None:
    """Note when an instance that was just launched, or started, will be reachable."""
    instance["_online_first"] = time.monotonic() + ONLINE_SECONDS


def boot_again(instance_id: str) -> None:
    """Reboot an instance: what it runs ends, and it is not reachable for a moment."""
    machines.reboot(instance_id)
    ec2._instances[instance_id]["_online_again"] = time.monotonic() + ONLINE_SECONDS


def send_command(request: dict[str, Any]) -> Any:
    """Answer SendCommand: check, answer Pending, and run in the background."""
    wanted = _targets(request)
    bad = [i for i in wanted if not is_registered(i)]
    if bad:
        return error_response_json(
            "InvalidInstanceId",
            f"Instances [[{', '.join(bad)}]] not in a valid state for account {account_id()}",
            400,
        )
    scripts = _scripts(request)
    # ministack makes the record, and must not look for containers.
    own = {**request, "InstanceIds": wanted, "Targets": request.get("Targets") or []}
    status, headers, body = _send_without_running(own)
    if status >= 400 or scripts is None:
        return status, headers, body
    record = ssm._commands[json.loads(body)["Command"]["CommandId"]]
    for invocation in record["Invocations"].values():
        invocation |= {"Status": "Pending", "StatusDetails": "Pending", "ResponseCode": -1}
        invocation |= {"ExecutionStartDateTime": "", "ExecutionEndDateTime": ""}
    _roll_up(record)
    record |= {"Status": "Pending", "StatusDetails": "Pending"}
    # Before anything runs: the answer says Pending.
    answer = json_response({"Command": ssm._public_command(record)})
    for instance_id in wanted:
        name = f"run-command-{record['CommandId'][:8]}"
        spawn_background(_run, record, instance_id, scripts, thread_name=name)
    return answer


_native_send = ssm._send_command
_RECORD_ONLY = "clusterbox-record-only"


def _send_without_running(request: dict[str, Any]) -> Any:
    """Let ministack make the record of a command that it knows no script for."""
    status, headers, body = _native_send({**request, "DocumentName": _RECORD_ONLY})
    if status < 400:
        answer = json.loads(body)
        record = ssm._commands[answer["Command"]["CommandId"]]
        for entry in (answer["Command"], record, *record["Invocations"].values()):
            entry["DocumentName"] = request.get("DocumentName") or ""
        body = json.dumps(answer).encode()
    return status, headers, body


def _targets(request: dict[str, Any]) -> list[str]:
    """Return the instances that a request addresses, by id or by tag."""
    found = list(request.get("InstanceIds") or [])
    for target in request.get("Targets") or []:
        key, values = str(target.get("Key", "")), target.get("Values") or []
        if key.lower() == "instanceids":
            found += values
        elif key.startswith("tag:"):
            found += [
                instance_id
                for instance_id in ec2._instances
                if is_registered(instance_id)
                and any(
                    tag["Key"] == key[4:] and tag["Value"] in values
                    for tag in ec2._tags.get(instance_id, [])
                )
            ]
    return list(dict.fromkeys(found))


def _scripts(request: dict[str, Any]) -> list[tuple[str, float]] | None:
    """Return the shell scripts of a request with their time limits; None for another document."""
    name = str(request.get("DocumentName", ""))
    given = request.get("Parameters") or {}
    if name == "AWS-RunShellScript":
        limit = _number(given.get("executionTimeout"), _DEFAULT_EXECUTION_SECONDS)
        return [(_script(given.get("commands")), limit)]
    content = documents.content_of(name)
    if content is None:
        return None
    document = json.loads(content)
    parameters = {
        key: _first(given.get(key, settings.get("default", "")))
        for key, settings in (document.get("parameters") or {}).items()
    }
    found = []
    for step in document.get("mainSteps") or []:
        if step.get("action") == "aws:runShellScript":
            inputs = step.get("inputs") or {}
            limit = _number(inputs.get("timeoutSeconds"), _DEFAULT_EXECUTION_SECONDS)
            found.append((_fill(_script(inputs.get("runCommand")), parameters), limit))
    return found or None


def _script(lines: Any) -> str:
    return lines if isinstance(lines, str) else "\n".join(str(line) for line in lines or [])


def _first(value: Any) -> str:
    return str(value[0]) if isinstance(value, list) and value else str(value)


def _number(value: Any, default: float) -> float:
    text = _first(value) if value else ""
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else default


def _fill(script: str, parameters: Mapping[str, str]) -> str:
    return re.sub(r"\{\{\s*([\w-]+)\s*\}\}", lambda m: parameters.get(m[1], m[0]), script)


def _run(record: dict[str, Any], instance_id: str, scripts: list[tuple[str, float]]) -> None:
    """Run the scripts of a command on one instance, and write how it ended."""
    invocation = record["Invocations"][instance_id]
    reboots = 0
    if not _deliver(record, invocation, instance_id):
        return
    began = time.monotonic()
    invocation |= {"Status": "InProgress", "StatusDetails": "InProgress"}
    invocation["ExecutionStartDateTime"] = ssm._now_iso()
    _roll_up(record)
    code, status = 0, "Success"
    for script, limit in scripts:
        while True:
            with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
                code, status = _execute(record["CommandId"], instance_id, script, limit, out, err)
                invocation["StandardOutputContent"] = _text(out)[:_STDOUT_CHARACTERS]
                invocation["StandardErrorContent"] = _text(err)[:_STDERR_CHARACTERS]
            if _asked_for(instance_id, "reboot") or (code == _REBOOT and reboots < _MOST_REBOOTS):
                reboots += 1
                boot_again(instance_id)
            if code != _REBOOT or reboots >= _MOST_REBOOTS:
                break
            if not _deliver(record, invocation, instance_id):
                return
        if status != "Success":
            break
    seconds = time.monotonic() - began
    invocation |= {
        "ResponseCode": code,
        "ExecutionEndDateTime": ssm._now_iso(),
        "ExecutionElapsedTime": f"PT{seconds:.3f}S",
    }
    if _asked_for(instance_id, "poweroff"):
        _power_off(instance_id)
    _finish(record, invocation, status, "ExecutionTimedOut" if status == "TimedOut" else status)


def _deliver(record: dict[str, Any], invocation: dict[str, Any], instance_id: str) -> bool:
    """Wait until the agent takes the command; one that is never taken has timed out."""
    limit = time.monotonic() + float(record.get("TimeoutSeconds") or _DEFAULT_DELIVERY_SECONDS)
    while not is_online(instance_id):
        instance = ec2._instances.get(instance_id)
        gone = instance is None or instance["State"]["Name"] in ("terminated", "stopped")
        if record["CommandId"] in _cancelled:
            _finish(record, invocation, "Cancelled", "Cancelled")
            return False
        if gone:
            _finish(record, invocation, "Failed", "Undeliverable")
            return False
        if time.monotonic() > limit:
            _finish(record, invocation, "TimedOut", "DeliveryTimedOut")
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _finish(record: dict[str, Any], invocation: dict[str, Any], status: str, details: str) -> None:
    # Last of all: who sees a status that is final sees the output, too.
    invocation["StatusDetails"] = details
    invocation["Status"] = status
    _roll_up(record)


def _execute(
    command_id: str,
    instance_id: str,
    script: str,
    limit_seconds: float,
    out: IO[bytes],
    err: IO[bytes],
) -> tuple[int, str]:
    """Run one script in the instance's machine; return its exit code and the command's status."""
    machine = machines.machine_of(instance_id)
    file = machine.folder / f"command-{command_id}.sh"
    file.write_text(f"{script}\n", encoding="utf-8")
    # In the group of this server, with which it ends.
    process = subprocess.Popen(
        machine.command(["/bin/bash", str(file)]),
        env=machine.variables(),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
    )
    limit = time.monotonic() + limit_seconds
    boot = machines.boot_id(instance_id)
    try:
        while process.poll() is None:
            instance = ec2._instances.get(instance_id) or {"State": {"Name": "terminated"}}
            if command_id in _cancelled:
                _end_tree(process)
                return -1, "Cancelled"
            if time.monotonic() > limit:
                _end_tree(process)
                return -1, "TimedOut"
            if instance["State"]["Name"] != "running" or machines.boot_id(instance_id) != boot:
                _end_tree(process)
                return -1, "Failed"
            time.sleep(_POLL_SECONDS)
    finally:
        with contextlib.suppress(FileNotFoundError):
            file.unlink()
    return process.returncode, "Success" if process.returncode == 0 else "Failed"


def _asked_for(instance_id: str, what: str) -> bool:
    """Return whether a program of the machine asked for a reboot or a power-off."""
    instance = ec2._instances.get(instance_id)
    if instance is None or instance["State"]["Name"] != "running":
        return False
    return (machines.machine_of(instance_id).folder / f"{what}-asked").exists()


def _power_off(instance_id: str) -> None:
    """Stop or terminate an instance, as its launch said of a shutdown from within."""
    instance = ec2._instances[instance_id]
    ends = instance.get("InstanceInitiatedShutdownBehavior") == "terminate"
    action = ec2._ACTION_MAP["TerminateInstances" if ends else "StopInstances"]
    (machines.machine_of(instance_id).folder / "poweroff-asked").unlink()
    call(action, query_parameters({"InstanceId": [instance_id]}))


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _end_tree(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started and that has not left it."""
    for pid in [process.pid, *_descendants(process.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _descendants(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                stat = (entry / "stat").read_text(errors="replace").rpartition(")")[2]
                parents.setdefault(int(stat.split()[1]), []).append(int(entry.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def _roll_up(record: dict[str, Any]) -> None:
    """Derive the status of a command from those of its invocations."""
    states = [invocation["Status"] for invocation in record["Invocations"].values()]
    record["CompletedCount"] = sum(state in _OVER for state in states)
    record["ErrorCount"] = sum(state in ("Failed", "TimedOut") for state in states)
    if all(state in _OVER for state in states):
        worst = ("Cancelled", "TimedOut", "Failed")
        status = next((state for state in worst if state in states), "Success")
    else:
        status = "InProgress"
    record |= {"Status": status, "StatusDetails": status}


def list_command_invocations(request: dict[str, Any]) -> Any:
    """Answer ListCommandInvocations, the newest first, in one page."""
    wanted = {f["key"]: f["value"] for f in request.get("Filters") or []}
    found = []
    records = sorted(ssm._commands.values(), key=lambda r: r["RequestedDateTime"], reverse=True)
    for record in records:
        if request.get("CommandId") not in (None, "", record["CommandId"]):
            continue
        for instance_id, invocation in record["Invocations"].items():
            if request.get("InstanceId") not in (None, "", instance_id):
                continue
            if wanted.get("Status") not in (None, invocation["Status"]):
                continue
            found.append(_listed(record, invocation, details=bool(request.get("Details"))))
    return json_response({"CommandInvocations": found})


def _listed(record: dict[str, Any], invocation: dict[str, Any], *, details: bool) -> dict[str, Any]:
    names = ("CommandId", "InstanceId", "Comment", "DocumentName", "Status", "StatusDetails")
    entry: dict[str, Any] = {name: invocation[name] for name in names}
    entry["RequestedDateTime"] = record["RequestedDateTime"]
    entry["CommandPlugins"] = []
    if details:
        plugin = {
            "Name": invocation["PluginName"],
            "Status": invocation["Status"],
            "StatusDetails": invocation["StatusDetails"],
            "ResponseCode": invocation["ResponseCode"],
            "Output": invocation["StandardOutputContent"][:2500],
        }
        entry["CommandPlugins"] = [plugin]
    return entry


def cancel_command(request: dict[str, Any]) -> Any:
    """Answer CancelCommand: what runs is ended, what has ended stays as it is."""
    command_id = str(request.get("CommandId", ""))
    if command_id not in ssm._commands:
        return error_response_json("InvalidCommandId", f"Invalid command id {command_id}", 400)
    _cancelled.add(command_id)
    return json_response({})


def describe_instance_information(request: dict[str, Any]) -> Any:
    """Answer DescribeInstanceInformation: instances that were reachable once, in one page."""
    wanted = _information_filters(request)
    now = ssm._now_epoch()
    found = []
    for instance_id, instance in sorted(ec2._instances.items()):
        state = instance["State"]["Name"]
        stopped = state in ("stopping", "stopped") and bool(instance.get("IamInstanceProfile"))
        if not (is_registered(instance_id) or stopped):
            continue
        if "InstanceIds" in wanted and instance_id not in wanted["InstanceIds"]:
            continue
        ping = "Online" if is_online(instance_id) else "ConnectionLost"
        if "PingStatus" in wanted and ping not in wanted["PingStatus"]:
            continue
        found.append(
            {
                "InstanceId": instance_id,
                "PingStatus": ping,
                "LastPingDateTime": now,
                "AgentVersion": "3.3.3598.0",
                "IsLatestVersion": True,
                "PlatformType": "Linux",
                "PlatformName": "Amazon Linux",
                "PlatformVersion": "2023",
                "ResourceType": "EC2Instance",
                "IPAddress": instance["PrivateIpAddress"],
                "ComputerName": instance["PrivateDnsName"],
            }
        )
    return json_response({"InstanceInformationList": found})


def _information_filters(request: dict[str, Any]) -> dict[str, Iterable[str]]:
    found = {f["Key"]: f["Values"] for f in request.get("Filters") or []}
    old = request.get("InstanceInformationFilterList") or []
    return found | {f["key"]: f["valueSet"] for f in old}


_ADDED = {
    "CancelCommand": cancel_command,
    "ListCommandInvocations": list_command_invocations,
}


def mend() -> None:
    """Put these answers in the place of ministack's, which looks for Docker containers."""
    native_handle = ssm.handle_request

    async def handle_request(
        method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, list[str]]
    ) -> Any:
        action = headers.get("x-amz-target", "").rpartition(".")[2]
        if action in _ADDED:
            return _ADDED[action](json.loads(body or b"{}"))
        return await native_handle(method, path, headers, body, query)

    ssm._send_command = documents.refuse_unknown(send_command)
    ssm._describe_instance_information = describe_instance_information
    ssm._managed_instance_ids = lambda: {i for i in ec2._instances if is_registered(i)}
    app.SERVICE_HANDLERS["ssm"] = handle_request
