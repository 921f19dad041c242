"""The workflows of a build, one for each of three stages, as Image Builder lists them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from clusterbox.embedded.server.ministack_api import new_uuid

# Stage → type and number of steps of Image Builder's own workflow for it.
WORKFLOWS = {
    "BUILDING": ("BUILD", "build/build-image", 7),
    "TESTING": ("TEST", "test/test-image", 5),
    "DISTRIBUTING": ("DISTRIBUTION", "distribution/distribute-image", 2),
}


def start_workflow(arn: str, kind: str, steps: int) -> dict[str, Any]:
    """Return a workflow that runs, as ListWorkflowExecutions answers it."""
    return {
        "workflowBuildVersionArn": arn,
        "workflowExecutionId": f"wf-{new_uuid()}",
        "type": kind,
        "status": "RUNNING",
        "totalStepCount": steps,
        "totalStepsSucceeded": 0,
        "totalStepsFailed": 0,
        "totalStepsSkipped": 0,
        "startTime": now(),
    }


def end_workflow(workflow: dict[str, Any], status: str, message: str) -> None:
    """End a workflow as COMPLETED, FAILED or CANCELLED, with Image Builder's message."""
    failed = int(status == "FAILED")
    done = workflow["totalStepCount"] if status == "COMPLETED" else 0
    workflow |= {
        "status": status,
        "message": message[:500],
        "totalStepsSucceeded": done,
        "totalStepsFailed": failed,
        "endTime": now(),
    }


def now() -> str:
    """Return the present time in UTC, as Image Builder writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
