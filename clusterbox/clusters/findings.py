"""What a judgement of a cluster's configuration finds: findings, and what could not be judged."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How serious a finding is, in ParallelCluster's own terms. An ERROR stops a deployment."""

    ERROR = "ERROR"
    WARNING = "WARNING"
    INFO = "INFO"


@dataclass(frozen=True)
class Finding:
    """One finding: what was found by which rule, where it stands, and what to do.

    `rule` is the name of ParallelCluster's validator, `Schema`, or that of one of the site's own
    rules. `path` is dotted as in messages (`Scheduling.SlurmQueues[0].Name`), `file` and `line`
    are those of the source YAML.
    """

    cluster: str
    level: Level
    rule: str
    path: str
    file: str
    line: int | None
    message: str
    advice: str


@dataclass(frozen=True)
class Accepted:
    """A finding that the environment accepts for its cluster, and why."""

    finding: Finding
    reason: str


@dataclass(frozen=True)
class NotChecked:
    """A rule that could not be answered offline, and why; it has neither passed nor failed."""

    cluster: str
    rule: str
    reason: str


@dataclass(frozen=True)
class Validation:
    """The judgement of one cluster's configuration."""

    cluster: str
    findings: tuple[Finding, ...]
    not_checked: tuple[NotChecked, ...]
    accepted: tuple[Accepted, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether a deployment of the configuration would be refused."""
        return any(finding.level is Level.ERROR for finding in self.findings)
