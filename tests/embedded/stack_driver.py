from __future__ import annotations

import functools
import json
import time
from dataclasses import dataclass
from typing import Any

from clusterbox.embedded.account import EmbeddedAccount

ACCOUNT = "427491229895"
REGION = "us-west-2"
_SETTLE_SECONDS = 20.0


@dataclass
class Stack:
    """One CloudFormation stack, driven through boto3 as a user of the account would."""

    account: EmbeddedAccount
    name: str

    def create(self, resources: dict[str, Any], **template: Any) -> str:
        """Create the stack; return the status it settles in."""
        self._client().create_stack(
            StackName=self.name,
            TemplateBody=json.dumps({"Resources": resources, **template}),
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        return self.settled()

    def update(self, resources: dict[str, Any], **template: Any) -> str:
        """Update the stack; return the status it settles in."""
        self._client().update_stack(
            StackName=self.name,
            TemplateBody=json.dumps({"Resources": resources, **template}),
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        return self.settled()

    def delete(self) -> str:
        """Delete the stack; return DELETE_COMPLETE or the status it settles in."""
        stack_id = self.describe()["StackId"]
        self._client().delete_stack(StackName=self.name)
        return self.settled(stack_id)

    def settled(self, name: str | None = None) -> str:
        """Wait until nothing is in progress; return the status."""
        end = time.monotonic() + _SETTLE_SECONDS
        while time.monotonic() < end:
            status = str(self.describe(name)["StackStatus"])
            if not status.endswith("_IN_PROGRESS"):
                return status
            time.sleep(0.01)
        raise AssertionError(f"{self.name} is still {status}")

    def describe(self, name: str | None = None) -> dict[str, Any]:
        stacks = self._client().describe_stacks(StackName=name or self.name)["Stacks"]
        return dict(stacks[0])

    def outputs(self) -> dict[str, str]:
        return {o["OutputKey"]: o["OutputValue"] for o in self.describe().get("Outputs", [])}

    def ids(self) -> dict[str, str]:
        """Return the physical id of each logical id."""
        found = self._client().describe_stack_resources(StackName=self.name)["StackResources"]
        return {r["LogicalResourceId"]: r["PhysicalResourceId"] for r in found}

    def failures(self) -> dict[str, str]:
        """Return the reason of each resource that failed."""
        events = self._client().describe_stack_events(StackName=self.name)["StackEvents"]
        return {
            event["LogicalResourceId"]: event.get("ResourceStatusReason", "")
            for event in events
            if event["ResourceStatus"].endswith("_FAILED")
        }

    def _client(self) -> Any:
        return _cloudformation(self.account)


@functools.cache
def _cloudformation(account: EmbeddedAccount) -> Any:
    return account.client("cloudformation")


def outputs_of(**attributes: str) -> dict[str, Any]:
    """Return an Outputs section: ``Name="LogicalId.Attribute"``, or a Ref without a dot."""
    return {
        name: {"Value": {"Fn::GetAtt": where.split(".", 1)} if "." in where else {"Ref": where}}
        for name, where in attributes.items()
    }
