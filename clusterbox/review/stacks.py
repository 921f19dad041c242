"""What changes in each stack: which resources, with what impact, and the difference as text."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from clusterbox.errors import ClusterboxError
from clusterbox.review.redaction import redact_difference
from clusterbox.review.snapshot import Snapshot

_SCRIPT = Path(__file__).with_name("cfn_diff.cjs")

# Types whose replacement or removal loses data or what encrypts it, or all that stands on them.
# Clusters are not among them: they are judged by ParallelCluster's own policies.
STATEFUL_TYPES = frozenset(
    {
        "AWS::Backup::BackupVault",
        "AWS::DirectoryService::MicrosoftAD",
        "AWS::DirectoryService::SimpleAD",
        "AWS::DynamoDB::GlobalTable",
        "AWS::DynamoDB::Table",
        "AWS::EC2::VPC",
        "AWS::EC2::Volume",
        "AWS::EFS::FileSystem",
        "AWS::FSx::FileSystem",
        "AWS::FSx::Volume",
        "AWS::KMS::Key",
        "AWS::Logs::LogGroup",
        "AWS::RDS::DBCluster",
        "AWS::RDS::DBInstance",
        "AWS::S3::Bucket",
        "AWS::SecretsManager::Secret",
    }
)
_KEPT = ("Retain", "RetainExceptOnCreate")


class StackChange(StrEnum):
    """What happens to a stack."""

    ADDED = "added"
    REMOVED = "removed"
    REPLACES = "changed, replaces resources"
    CHANGED = "changed"


class Impact(StrEnum):
    """What CloudFormation does to a resource, in the words of `@aws-cdk/cloudformation-diff`."""

    DESTROY = "WILL_DESTROY"
    REPLACE = "WILL_REPLACE"
    MAY_REPLACE = "MAY_REPLACE"
    ORPHAN = "WILL_ORPHAN"
    UPDATE = "WILL_UPDATE"
    IMPORT = "WILL_IMPORT"
    CREATE = "WILL_CREATE"


@dataclass(frozen=True)
class ResourceDiff:
    """One resource that changes: its construct path, type, impact and the properties that do."""

    id: str
    type: str
    path: str
    impact: Impact
    properties: tuple[str, ...]

    @property
    def stateful(self) -> bool:
        """Whether the resource holds data, or is what data depends on."""
        return self.type in STATEFUL_TYPES


@dataclass(frozen=True)
class StackDiff:
    """One stack that changes. `other` counts changes of outputs, parameters and conditions."""

    environment: str
    stack: str
    change: StackChange
    resources: tuple[ResourceDiff, ...]
    other: int
    text: str

    def count(self, *impacts: Impact) -> int:
        """Return how many resources change with one of the impacts."""
        return sum(resource.impact in impacts for resource in self.resources)

    @property
    def losses(self) -> tuple[ResourceDiff, ...]:
        """The stateful resources that the change replaces, may replace, removes or gives up."""
        lost = (Impact.DESTROY, Impact.REPLACE, Impact.MAY_REPLACE, Impact.ORPHAN)
        return tuple(item for item in self.resources if item.stateful and item.impact in lost)


def compare_stacks(
    base: Snapshot | None, head: Snapshot | None, node: Path
) -> tuple[StackDiff, ...]:
    """Return the stacks of an environment that change, in the order of deployment.

    None stands for an environment that is added or removed. Raises ClusterboxError when Node or
    its library fails.
    """
    before = base.templates if base else {}
    after = head.templates if head else {}
    # The order of deployment; what is only removed comes last.
    stacks = [*after, *(stack for stack in before if stack not in after)]
    pairs = [
        {"stack": stack, "base": _path(base, stack), "head": _path(head, stack)}
        for stack in stacks
        if before.get(stack) != after.get(stack)
    ]
    environment = (head or base or Snapshot("")).name
    return tuple(
        _stack_diff(environment, answer, before, after) for answer in _ask_node(node, pairs)
    )


def _stack_diff(
    environment: str,
    answer: Mapping[str, Any],
    before: Mapping[str, Any],
    after: Mapping[str, Any],
) -> StackDiff:
    stack = answer["stack"]
    resources = tuple(
        ResourceDiff(
            item["id"],
            item["type"],
            item["path"],
            _impact(item, before.get(stack)),
            tuple(entry["name"] for entry in item["properties"]),
        )
        for item in answer["resources"]
    )
    if stack not in before:
        change = StackChange.ADDED
    elif stack not in after:
        change = StackChange.REMOVED
    elif any(item.impact in (Impact.REPLACE, Impact.MAY_REPLACE) for item in resources):
        change = StackChange.REPLACES
    else:
        change = StackChange.CHANGED
    text = redact_difference(answer["text"])
    return StackDiff(environment, stack, change, resources, answer["other"], text)


def _impact(item: Mapping[str, Any], before: Mapping[str, Any] | None) -> Impact:
    """Return a resource's impact; one that is kept when its stack goes is given up, not lost."""
    impact = Impact(item["impact"])
    if impact is Impact.DESTROY and before is not None:
        kept = before["Resources"].get(item["id"], {}).get("DeletionPolicy")
        return Impact.ORPHAN if kept in _KEPT else impact
    return impact


def _path(snapshot: Snapshot | None, stack: str) -> str | None:
    if snapshot is None or snapshot.folder is None or stack not in snapshot.templates:
        return None
    return str(snapshot.folder / f"{stack}.template.json")


def _ask_node(node: Path, pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if not pairs:
        return []
    try:
        done = subprocess.run(
            [str(node), str(_SCRIPT)], input=json.dumps(pairs), capture_output=True, text=True
        )
    except FileNotFoundError as error:
        raise ClusterboxError(f"Node is not installed ({node}); run `make setup`") from error
    if done.returncode != 0:
        raise ClusterboxError(f"the templates could not be compared:\n{done.stderr.strip()}")
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers
