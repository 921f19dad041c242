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
    # How often the source was asked, and how often that has ended.
    count: int = 0
    _ended: int = 0
    _answer: Answer | None = None
    _failure: Exception | None = None
    _at: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def get(self) -> Answer:
        """Return the answer; raises what asking for it raised."""
        ended = self._ended
        with self._lock:
            # One that has ended while we waited is ours too, however long it took.
            if ended == self._ended and self._is_old():
                self._renew()
            if self._failure is not None:
                # Each raise would add its frames to those of the last one.
                raise self._failure.with_traceback(None)
            assert self._answer is not None  # noqa: S101 - one of both is set
            return self._answer

    def _is_old(self) -> bool:
        # A clock that went back makes the answer's age unknown.
        return self._at is None or not 0 <= self.clock() - self._at < self.seconds

    def _renew(self) -> None:
        self.count += 1
        # From its start: a slow source is not asked more seldom than it must.
        self._at = self.clock()
        self._answer, self._failure = None, None
        try:
            self._answer = self.ask()
        except Exception as error:
            # Without what led to it: its frames would hold what was read.
            error.__cause__ = error.__context__ = None
            self._failure = error
        finally:
            self._ended += 1
