"""Ask a source seldom, however many ask us: one refresh at a time, its answer for all who wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


@dataclass
class Refreshed(Generic[Answer]):
    """An answer that is asked for again when it is older than `seconds`.

    Who asks while it is asked for waits for that one. A failure is an answer too, until its time
    is over: a source that is down is not asked by every scraper.
    """

    ask: Callable[[], Answer]
    seconds: float
    clock: Callable[[], float] = time.monotonic
    # How often the source was asked.
    count: int = 0
    _answer: Answer | None = None
    _failure: Exception | None = None
    _at: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def get(self) -> Answer:
        """Return the answer; raises what asking for it raised."""
        with self._lock:
            now = self.clock()
            # A clock that went back makes the answer's age unknown.
            if self._at is None or not 0 <= now - self._at < self.seconds:
                self._renew(now)
            if self._failure is not None:
                raise self._failure
            assert self._answer is not None  # noqa: S101 - one of both is set
            return self._answer

    def _renew(self, now: float) -> None:
        self.count += 1
        self._answer, self._failure = None, None
        try:
            self._answer = self.ask()
        except Exception as error:
            # Without its frames: they would hold what was read.
            self._failure = error.with_traceback(None)
        # From its start: a slow source is not asked more seldom than it must.
        self._at = now
