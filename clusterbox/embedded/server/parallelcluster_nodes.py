"""What the daemons of a head node would say, in a cluster whose nodes do not boot.

ParallelCluster's stack waits for its head node's signal, and its commands read and write the
compute fleet's status in the cluster's DynamoDB table, which a daemon of the head node serves.
Nothing boots here, so both are answered at once. A failing bootstrap cannot be rehearsed.
"""

from __future__ import annotations

import contextvars
import threading
from datetime import UTC, datetime
from typing import Any

from ministack.services import cloudformation, dynamodb
from ministack.services.cloudformation import wait_conditions

from clusterbox.embedded.server.ministack_api import (
    Properties,
    Resource,
    call,
    native_handler,
)

# ParallelCluster marks its stacks with this tag, and its wait conditions with this name.
CLUSTER_TAG = "parallelcluster:cluster-name"
HEAD_NODE_CONDITION = "HeadNodeWaitCondition"
# Long enough for CloudFormation to wait first, so that the signal shows in the stack's events.
SIGNAL_DELAY_SECONDS = 0.2

FLEET_TABLE_PREFIX = "parallelcluster-"
FLEET_KEY = {"Id": {"S": "COMPUTE_FLEET"}}
# What clustermgtd makes of a request, once it has stopped or started Slurm's partitions.
REACHED = {"STOP_REQUESTED": "STOPPED", "START_REQUESTED": "RUNNING"}


def is_cluster_stack(stack_name: str) -> bool:
    """Return whether ParallelCluster made the stack."""
    stack = cloudformation._stacks.get(stack_name) or {}
    return any(tag["Key"] == CLUSTER_TAG for tag in stack.get("Tags") or [])


def signal_as_head_node(properties: Properties) -> None:
    """Send the signal that a head node sends when it has configured itself."""
    token = wait_conditions.token_from_url(properties.get("Handle"))
    if token is None:
        return  # The wait condition itself refuses the handle, with the better message.
    payload = {
        "Status": "SUCCESS",
        "UniqueId": "clusterbox-stand-in",
        "Reason": "stand-in: no head node boots in the embedded account",
    }
    # ministack keeps the account and the region that a thread works for in its context.
    context = contextvars.copy_context()
    signal = (wait_conditions.deliver_signal, token, payload)
    timer = threading.Timer(SIGNAL_DELAY_SECONDS, context.run, signal)
    timer.daemon = True
    timer.start()


def set_fleet_status(table: str, status: str) -> None:
    """Write a cluster's compute fleet status as clustermgtd does."""
    now = datetime.now(UTC).isoformat(sep=" ")
    data = {"status": {"S": status}, "lastStatusUpdatedTime": {"S": now}}
    call(dynamodb._put_item, {"TableName": table, "Item": {**FLEET_KEY, "Data": {"M": data}}})


def fleet_status(table: str) -> str | None:
    """Return a cluster's compute fleet status, None before its head node first wrote one."""
    item = dynamodb._get_item_by_key(dynamodb._tables[table], FLEET_KEY)
    return str(item["Data"]["M"]["status"]["S"]) if item else None


def _mend_wait_condition() -> None:
    entry = native_handler("AWS::CloudFormation::WaitCondition")
    create = entry["create"]

    def create_wait_condition(logical_id: str, properties: Properties, stack: str) -> Resource:
        if logical_id.startswith(HEAD_NODE_CONDITION) and is_cluster_stack(stack):
            signal_as_head_node(properties)
        physical_id, attributes = create(logical_id, properties, stack)
        return physical_id, attributes

    entry["create"] = create_wait_condition


def _mend_fleet_status() -> None:
    entry = native_handler("AWS::DynamoDB::Table")
    create = entry["create"]
    native_update = dynamodb._update_item

    def create_table(logical_id: str, properties: Properties, stack: str) -> Resource:
        name, attributes = create(logical_id, properties, stack)
        if name == FLEET_TABLE_PREFIX + stack and is_cluster_stack(stack):
            set_fleet_status(name, "RUNNING")
        return name, attributes

    def update_item(request: dict[str, Any]) -> Any:
        answer = native_update(request)
        table = str(request.get("TableName", ""))
        is_fleet = table.startswith(FLEET_TABLE_PREFIX) and request.get("Key") == FLEET_KEY
        if is_fleet and answer[0] == 200 and (status := REACHED.get(fleet_status(table) or "")):
            set_fleet_status(table, status)
        return answer

    entry["create"] = create_table
    dynamodb._update_item = update_item


def mend() -> None:
    """Answer for every head node: its signal, and the requests to its compute fleet."""
    _mend_wait_condition()
    _mend_fleet_status()
