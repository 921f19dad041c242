"""The log of an image's build, as Image Builder and its component runner write it."""

from __future__ import annotations

import time
from collections.abc import Iterable

from ministack.services import cloudwatch_logs

from clusterbox.embedded.server.image_contents import Component


class BuildLog:
    """The log stream of one build; what is written can be read at once."""

    def __init__(self, recipe: str, version: str, number: int) -> None:
        self.group = f"/aws/imagebuilder/{recipe}"
        self.stream = f"{version}/{number}"
        # Both may be there already: then they are used.
        cloudwatch_logs._create_log_group({"logGroupName": self.group})
        names = {"logGroupName": self.group, "logStreamName": self.stream}
        cloudwatch_logs._create_log_stream(names)

    def write(self, *lines: str) -> None:
        """Append lines with the present time; a log group that was deleted is left alone."""
        now = int(time.time() * 1000)
        cloudwatch_logs._put_log_events(
            {
                "logGroupName": self.group,
                "logStreamName": self.stream,
                "logEvents": [{"timestamp": now, "message": line} for line in lines],
            }
        )


def phase_lines(component: Component, phase: str) -> Iterable[str]:
    """Yield the lines of a component that runs through a phase without failing."""
    if phase not in component.steps:
        return
    yield f"Document {component.arn} ({component.name})"
    yield f"Phase {phase}"
    for step in component.steps[phase]:
        yield f"Step {step}"
        yield "ExecuteBash: STARTED EXECUTION"
        if step == "ScriptUrl" and component.script is not None:
            yield f"Stdout: {component.script}"
        if step == "Execute" and component.script is not None:
            yield "Stdout: Script executed successfully"
        yield "ExecuteBash: FINISHED EXECUTION"


def failure_lines(component: Component, phase: str, said: Iterable[str]) -> Iterable[str]:
    """Yield the lines of a component whose last step of a phase fails, with what it said."""
    yield f"Document {component.arn} ({component.name})"
    yield f"Phase {phase}"
    yield f"Step {(component.steps.get(phase) or ('Execute',))[-1]}"
    yield "ExecuteBash: STARTED EXECUTION"
    for line in said:
        yield f"Stdout: {line}"
    yield "CmdExecution: ExitCode 1"
    yield "ExecuteBash: FINISHED EXECUTION WITH ERROR"
    yield f"Document {component.arn} failed!"
