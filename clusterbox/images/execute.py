"""Run the steps of a plan: in order, what is independent side by side, and again after a kill."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace

from clusterbox.errors import ClusterboxError
from clusterbox.images.context import Context, Result, StepFailedError
from clusterbox.images.plan import Action, Plan, Step
from clusterbox.images.record import Record

Run = Callable[[Context, Step], Result]
# Bakes wait for AWS most of the time; a site has few images.
_MOST_AT_ONCE = 8
# Key of a result that says that a step was left out on purpose, and why.
SKIPPED = "skipped"


class StoppedError(ClusterboxError):
    """The run was told to stop, by the operator or because another step failed."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: what each step did, and the failures with their reasons."""

    done: tuple[str, ...]
    failed: Mapping[str, str]
    # Steps that were not begun.
    left: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every step of the plan is done."""
        return not self.failed and not self.left


@dataclass
class Execution:
    """One run of a plan's steps; `actions` says which function takes which step."""

    context: Context
    record: Record
    actions: Mapping[Action, Run]
    # Called after each step, also one that failed: what it wrote is kept.
    after: Callable[[], None] = lambda: None
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)

    def run(self, only: Collection[Action] | None = None) -> Outcome:
        """Run every step that is not done yet, or only those of some actions.

        A failed step lets those that run come to their end, and begins no other. Raises
        KeyboardInterrupt after the steps that run have stopped.
        """
        plan = self.context.plan
        wanted = [step for step in plan.steps if only is None or step.action in only]
        failed: dict[str, str] = {}
        running: dict[Future[Result], Step] = {}
        pool = ThreadPoolExecutor(max_workers=_MOST_AT_ONCE, thread_name_prefix="patch-day")
        try:
            while True:
                if not failed:
                    for step in self._ready(wanted, running.values()):
                        running[pool.submit(self._take, step)] = step
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    step = running.pop(future)
                    if (reason := self._reason(future)) is not None:
                        failed[step.id] = reason
        except BaseException:
            self._stop.set()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        results = self.record.results
        return Outcome(
            done=tuple(step.id for step in plan.steps if step.id in results),
            failed=failed,
            left=tuple(
                step.id for step in wanted if step.id not in results and step.id not in failed
            ),
        )

    def _ready(self, wanted: list[Step], running: Collection[Step]) -> list[Step]:
        done = self.record.results
        busy = {step.id for step in running}
        return [
            step
            for step in wanted
            if step.id not in done
            and step.id not in busy
            and all(before in done for before in step.after)
        ]

    def _take(self, step: Step) -> Result:
        record, progress = self.record, self.context.progress
        record.append("started", step=step.id, expected_seconds=step.expected_seconds)
        start = time.monotonic()
        context = replace(
            self.context,
            results=record.results,
            note=lambda event, **facts: record.append(event, **{"step": step.id, **facts}),
            check=self._check,
        )
        try:
            with progress.step(step.id):
                self._check()
                result = self.actions[step.action](context, step)
        except BaseException as error:
            seconds = round(time.monotonic() - start, 3)
            stopped = isinstance(error, StoppedError | KeyboardInterrupt)
            self.after()
            record.append(
                "stopped" if stopped else "failed",
                step=step.id,
                seconds=seconds,
                reason=_explain(error),
            )
            raise
        seconds = round(time.monotonic() - start, 3)
        # Before the step counts as done: a run that goes on elsewhere needs what it wrote.
        self.after()
        event = "skipped" if result.get(SKIPPED) else "done"
        record.append(event, step=step.id, seconds=seconds, result=result)
        return result

    def _check(self) -> None:
        if self._stop.is_set():
            raise StoppedError("the run was interrupted; run the command again to go on")
        self.context.check()

    @staticmethod
    def _reason(future: Future[Result]) -> str | None:
        error = future.exception()
        if error is None:
            return None
        if isinstance(error, ClusterboxError) or type(error).__module__.startswith("botocore"):
            return _explain(error)
        raise error


def _explain(error: BaseException) -> str:
    """Return what happened, in the error's own words where it is one for people."""
    if isinstance(error, ClusterboxError):
        return str(error)
    if type(error).__module__.startswith("botocore"):
        return f"AWS refused or did not answer: {error}"
    return f"{type(error).__name__}: {error}"


def check_world(plan: Plan, world: Mapping[str, str]) -> None:
    """Raise StepFailedError, naming every difference, where the world is not the plan's any more."""
    differences = [
        f"  {fact}: {plan.world.get(fact, 'nothing')} when planned, {world.get(fact, 'nothing')} now"
        for fact in sorted({*plan.world, *world})
        if plan.world.get(fact) != world.get(fact)
    ]
    if differences:
        listed = "\n".join(differences)
        raise StepFailedError(f"the world changed since {plan.created}; plan again:\n{listed}")
