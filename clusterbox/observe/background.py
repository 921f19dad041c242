"""Read a source at its own pace in a thread, so that a scrape only says what is known already."""

from __future__ import annotations

import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from clusterbox.errors import ClusterboxError

Answer = TypeVar("Answer")

# An answer is told for so many intervals: one refusal or two are no reason for a gap in every graph.
KEPT_INTERVALS = 3
OK = "ok"
RESULTS = (OK, "throttled", "denied", "expired", "failed")
_THROTTLED = ("RequestLimitExceeded", "SlowDown", "TooManyRequestsException")


@dataclass(frozen=True)
class State(Generic[Answer]):
    """What is known now: the answer, None where there is none or it is too old, and its age."""

    answer: Answer | None
    age_seconds: float | None
    results: Counter[str]
    was_asked: bool


class Background(Generic[Answer]):
    """Asks every `seconds`, counted by a clock that nobody sets, whether anyone looks or not."""

    def __init__(
        self,
        ask: Callable[[], Answer],
        seconds: float,
        *,
        report: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`report` gets a sentence for each failure that is not the one before it."""
        self._ask = ask
        self._seconds = seconds
        self._report = report
        self._clock = clock
        self._answer: Answer | None = None
        self._at = self._took = 0.0
        self._said = ""
        self._results: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def start(self) -> None:
        """Begin to ask; the thread ends with the process."""
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        """Ask no more."""
        self._stopped.set()

    def refresh(self) -> None:
        """Ask once."""
        began = self._clock()
        try:
            answer = self._ask()
        except Exception as error:
            # The thread must outlive whatever it meets: without it the figures would never return.
            result = result_of(error)
            if not _is_expected(error):
                traceback.print_exc()
            with self._lock:
                self._results[result] += 1
            said = f"{result}: {error}"
            if said != self._said:
                self._report(said)
            self._said = said
            return
        self._said = ""
        with self._lock:
            self._answer, self._at, self._took = answer, began, self._clock() - began
            self._results[OK] += 1

    def state(self) -> State[Answer]:
        """Return what is known; waits for nobody who is being asked."""
        with self._lock:
            results = Counter(self._results)
            age = None if self._answer is None else max(self._clock() - self._at, 0.0)
            kept = KEPT_INTERVALS * self._seconds + self._took
            answer = self._answer if age is not None and age <= kept else None
        return State(answer, age, results, bool(results))

    def _run(self) -> None:
        while True:
            began = self._clock()
            self.refresh()
            # A slow source is not asked without a pause.
            pause = max(self._seconds - (self._clock() - began), self._seconds / 10)
            if self._stopped.wait(pause):
                return


def result_of(error: BaseException) -> str:
    """Return which of RESULTS an error is, also where one of boto3's is behind it."""
    from clusterbox.aws import refusal

    cause: BaseException | None = error
    while cause is not None:
        code = str((getattr(cause, "response", None) or {}).get("Error", {}).get("Code", ""))
        if "Throttl" in code or code in _THROTTLED:
            return "throttled"
        if isinstance(cause, Exception) and (reason := refusal(cause)) != "failed":
            return reason
        cause = cause.__cause__
    return "failed"


def _is_expected(error: Exception) -> bool:
    from botocore.exceptions import BotoCoreError, ClientError

    return isinstance(error, (ClusterboxError, OSError, BotoCoreError, ClientError))
