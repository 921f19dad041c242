"""What the steps of a patch day work with."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusterbox.errors import ClusterboxError
from clusterbox.images.plan import Options, Plan

if TYPE_CHECKING:
    from clusterbox.deployment.progress import Progress
    from clusterbox.deployment.targets import Target
    from clusterbox.site.environment import Environment

Result = dict[str, Any]


class StepFailedError(ClusterboxError):
    """A step did not succeed: what happened, and what to do. Nothing is half-done behind it."""


@dataclass(frozen=True)
class Clock:
    """Time, which tests let run faster."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    sleep: Callable[[float], None] = time.sleep


def _check_nothing() -> None:
    pass


def _note_nothing(_event: str, **_facts: Any) -> None:
    pass


@dataclass(frozen=True)
class Context:
    """One run: where it works, what was decided, and what the steps before have found.

    Every step is a function `(Context, Step) -> Result`. It may be called again after a kill at
    any moment, and raises StepFailedError where it cannot succeed.
    """

    root: Path
    environment: Environment
    target: Target
    progress: Progress
    plan: Plan
    clock: Clock = field(default_factory=Clock)
    # Step id → what it returned; what a verification found is there for the promotion.
    results: Mapping[str, Result] = field(default_factory=dict)
    # Appends a line to the release record: what happened, with facts.
    note: Callable[..., object] = _note_nothing
    # Raises where the run may not go on: interrupted, or another operator took over.
    check: Callable[[], None] = _check_nothing

    @property
    def options(self) -> Options:
        """What the operator decided."""
        return self.plan.options

    def client(self, service: str) -> Any:
        """Return a boto3 client of the account."""
        return self.target.client(service)

    def wait(self, seconds: float) -> None:
        """Sleep between two looks, and stop where the run may not go on."""
        self.check()
        self.clock.sleep(seconds)
        self.check()
