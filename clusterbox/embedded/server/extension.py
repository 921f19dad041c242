"""Everything that is added to ministack, put in place by one call before it serves."""

from __future__ import annotations

from ministack.services import cloudformation

from clusterbox.embedded.server import (
    alarms,
    backups,
    cost,
    custom_resources,
    dns,
    documents,
    file_storage,
    flow_logs,
    fsx,
    identity,
    image_builder,
    images,
    instance_states,
    instances,
    interfaces,
    network,
    object_storage,
    paging,
    parallelcluster_types,
    run_command,
    security_groups,
    volumes,
)
from clusterbox.embedded.server.ministack_api import register

# Raised when what the embedded account answers changes.
VERSION = "1"

_SERVICES = (
    alarms,
    backups,
    cost,
    custom_resources,
    dns,
    documents,
    file_storage,
    flow_logs,
    fsx,
    identity,
    image_builder,
    images,
    instances,
    # In front of what the module above mends.
    instance_states,
    interfaces,
    network,
    object_storage,
    paging,
    parallelcluster_types,
    run_command,
    security_groups,
    volumes,
)


def install() -> None:
    """Register the added CloudFormation types and mend ministack where it differs from AWS."""
    for service in _SERVICES:
        register(service.RESOURCE_TYPES)
        service.mend()


def count_stack_resources() -> int:
    """Return how many resources the account's existing stacks hold."""
    return sum(
        len(stack.get("_resources", {}))
        for stack in cloudformation._stacks.values()
        if stack.get("StackStatus") != "DELETE_COMPLETE"
    )
