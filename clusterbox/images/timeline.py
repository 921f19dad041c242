"""When the steps of a patch day ran and how long they took, from its release record."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from clusterbox.images.plan import Plan

_ENDS = ("done", "failed", "skipped", "stopped")


@dataclass(frozen=True)
class Attempt:
    """One time that a step ran: from `start` for `seconds`; None where a kill cut it off."""

    start: datetime
    seconds: float | None
    state: str


@dataclass(frozen=True)
class StepTime:
    """A step, its attempts and how it ended: done, failed, skipped, stopped, cut off, not begun.

    `expected` is what the plan said it would take, in seconds.
    """

    step: str
    attempts: tuple[Attempt, ...]
    state: str
    expected: float | None
    reason: str = ""

    @property
    def seconds(self) -> float | None:
        """The time of all attempts together; None where none of them ended."""
        known = [each.seconds for each in self.attempts if each.seconds is not None]
        return sum(known) if known else None


def expected_seconds(events: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return the median time of earlier runs in seconds, by step id and by action.

    Events are those of any number of runs. Only steps that ended well in one go count: what a kill
    cut off, or a failure repeated, says nothing of how long the step takes.
    """
    attempts: dict[tuple[str, str], int] = defaultdict(int)
    took: dict[str, list[float]] = defaultdict(list)
    for event in events:
        step = event.get("step")
        if step is None:
            continue
        key = str(event.get("run", "")), str(step)
        if event.get("event") == "started":
            attempts[key] += 1
        seconds = event.get("seconds")
        if event.get("event") != "done" or attempts[key] > 1:
            continue
        if isinstance(seconds, int | float):
            took[str(step)].append(float(seconds))
            if ":" in str(step):
                took[str(step).partition(":")[0]].append(float(seconds))
    return {name: median(values) for name, values in sorted(took.items())}


def read_times(plan: Plan | None, events: Iterable[Mapping[str, Any]]) -> list[StepTime]:
    """Return the steps of a run in the plan's order; without a plan, in the order in which they ran."""
    attempts: dict[str, list[Attempt]] = defaultdict(list)
    last: dict[str, Mapping[str, Any]] = {}
    expected: dict[str, float | None] = {}
    for event in events:
        step, kind = event.get("step"), event.get("event")
        at = parse_time(event.get("at"))
        if step is None or at is None:
            continue
        if kind == "started":
            attempts[step].append(Attempt(at, None, "cut off"))
            expected[step] = event.get("expected_seconds")
        elif kind in _ENDS:
            seconds = float(event.get("seconds") or 0.0)
            if attempts[step] and attempts[step][-1].seconds is None:
                start = attempts[step].pop().start
            else:
                start = at - timedelta(seconds=seconds)
            attempts[step].append(Attempt(start, seconds, str(kind)))
            last[step] = event
    planned = {step.id: step.expected_seconds for step in plan.steps} if plan else {}
    return [
        StepTime(
            step=step,
            attempts=tuple(attempts.get(step, ())),
            state=attempts[step][-1].state if attempts.get(step) else "not begun",
            expected=expected.get(step, planned.get(step)),
            reason=_reason(last.get(step, {})),
        )
        for step in dict.fromkeys([*planned, *attempts])
    ]


def _reason(event: Mapping[str, Any]) -> str:
    result = event.get("result")
    skipped = result.get("skipped") if isinstance(result, Mapping) else None
    return str(event.get("reason") or skipped or "")


def parse_time(value: Any) -> datetime | None:
    """Return the time of an event; None where it has none."""
    try:
        return datetime.fromisoformat(str(value))
    except ValueError:
        return None


def show_seconds(seconds: float | None) -> str:
    """Return a time as people say it: `4 s`, `12 min 5 s`, `1 h 3 min`."""
    if seconds is None:
        return ""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {left} s" if minutes else f"{left} s"
