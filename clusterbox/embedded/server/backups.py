"""AWS Backup selections: which resources a backup plan covers."""

from __future__ import annotations

import json

from ministack.services import backup

from clusterbox.embedded.server.ministack_api import (
    Properties,
    Resource,
    ResourceFailedError,
    ResourceType,
    call,
    native_handler,
)


def create_selection(_logical_id: str, properties: Properties, _stack: str) -> Resource:
    """Create a selection in an existing plan; Ref is its id and its plan's, as on AWS."""
    plan_id = properties["BackupPlanId"]
    body = {"BackupSelection": properties["BackupSelection"]}
    selection_id = json.loads(call(backup._create_selection, plan_id, body).text)["SelectionId"]
    return f"{selection_id}_{plan_id}", {
        "Id": f"{selection_id}_{plan_id}",
        "SelectionId": selection_id,
        "BackupPlanId": plan_id,
    }


def delete_selection(physical_id: str, _properties: Properties) -> None:
    """Delete the selection; one that is gone already is no error."""
    backup._selections.pop(physical_id.partition("_")[0], None)


def delete_plan(plan_id: str, _properties: Properties) -> None:
    """Delete a plan, which AWS refuses as long as it has selections."""
    if any(record["BackupPlanId"] == plan_id for record in backup._selections.values()):
        raise ResourceFailedError(
            "Related backup plan selections must be deleted prior to backup plan deletion "
            "(InvalidRequestException)"
        )
    backup._plans.pop(plan_id, None)


RESOURCE_TYPES: dict[str, ResourceType] = {
    "AWS::Backup::BackupSelection": {
        "create": create_selection,
        "delete": delete_selection,
        "replacing": ("BackupPlanId", "BackupSelection"),
    },
}


def mend() -> None:
    """Refuse to delete a plan that still selects resources."""
    native_handler("AWS::Backup::BackupPlan")["delete"] = delete_plan
