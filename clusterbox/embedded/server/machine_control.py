"""The project's own door to the machines of instances: `POST /_clusterbox/machines`."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from ministack.services import ec2

from clusterbox.embedded.server import machines


def answer(body: bytes) -> tuple[HTTPStatus, Any]:
    """Make or change the machine of an instance, and return how commands are run in it.

    `body` has `instance`, and of these what is wanted: `environment` and `storage` make it a host,
    `at_reboot` is what goes wrong at its next reboot.
    """
    try:
        asked: dict[str, Any] = json.loads(body)
        instance_id = str(asked["instance"])
        plan = machines.AtReboot(**asked["at_reboot"]) if asked.get("at_reboot") else None
    except (ValueError, TypeError, KeyError) as error:
        return HTTPStatus.BAD_REQUEST, {"problems": [f"not a request for a machine: {error}"]}
    if ec2._instances.get(instance_id, {"State": {"Name": "terminated"}})["State"]["Name"] in (
        "shutting-down",
        "terminated",
    ):
        return HTTPStatus.NOT_FOUND, {"problems": [f"no instance {instance_id} runs"]}
    if plan is not None:
        machines.plan_reboot(instance_id, plan)
    if asked.get("environment") is not None:
        storage = asked.get("storage") or {}
        machines.make_host(instance_id, asked["environment"], storage)
    machine = machines.machine_of(instance_id)
    return HTTPStatus.OK, {
        "folder": str(machine.folder),
        "command": machine.command([], writable=True),
        "environment": machine.variables(),
        "state": machine.state(),
    }
