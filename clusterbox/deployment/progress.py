"""How long-running work tells what it does; the command line shows it, tests record it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from clusterbox import tracing


@dataclass
class Progress:
    """Steps that were taken and how long each took; a base that shows nothing."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Take one step: announce it, time it, and say how it ended."""
        self.started(name)
        start = time.monotonic()
        try:
            with tracing.span(name):
                yield
        except BaseException:
            self.seconds[name] = time.monotonic() - start
            self.ended(name, "failed")
            raise
        self.seconds[name] = time.monotonic() - start
        self.ended(name, "done")

    def started(self, name: str) -> None:
        """Tell that a step starts."""

    def ended(self, name: str, state: str) -> None:
        """Tell that a step is `done` or `failed`; its time is in `seconds`."""

    def note(self, text: str) -> None:
        """Tell something that happens inside a step."""
