"""The maintenance window: clusters are touched only between two times of the day."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from clusterbox.errors import InputError
from clusterbox.images.context import Context, StepFailedError

_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
# Between two looks at the clock; an interrupted run notices it no later than this.
_MOST_SECONDS = 60.0


class WindowClosedError(StepFailedError):
    """The window closed while the run was at work: it stopped before the next part."""


@dataclass(frozen=True)
class Window:
    """From `opens` to `closes` every day, over midnight where it closes before it opens."""

    opens: time
    closes: time
    zone: ZoneInfo

    def is_open(self, now: datetime) -> bool:
        """Whether clusters may be touched at a time, which has a time zone."""
        at = now.astimezone(self.zone).time().replace(tzinfo=None)
        if self.opens < self.closes:
            return self.opens <= at < self.closes
        return at >= self.opens or at < self.closes

    def next_opening(self, now: datetime) -> datetime:
        """Return when it opens next, in UTC; the time itself where it is open."""
        if self.is_open(now):
            return now.astimezone(UTC)
        local = now.astimezone(self.zone)
        day = local.date() if local.time() < self.opens else local.date() + timedelta(days=1)
        return datetime.combine(day, self.opens, self.zone).astimezone(UTC)


def parse_window(text: str, time_zone: str = "UTC") -> Window:
    """Return the window of `22:00-04:00`; raises InputError for any other text or an unknown zone."""
    match = _WINDOW.fullmatch(text)
    if match is None:
        raise InputError(f"{text!r} is no window: write it as 22:00-04:00")
    first, second, third, fourth = map(int, match.groups())
    opens, closes = time(first, second), time(third, fourth)
    if opens == closes:
        raise InputError(f"the window {text} is empty: it must close at another time")
    try:
        return Window(opens, closes, ZoneInfo(time_zone))
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise InputError(f"{time_zone!r} is no time zone such as America/Denver") from error


def enter(context: Context, entered: set[str]) -> None:
    """Wait until clusters may be touched.

    `entered` holds the runs that this process has had in a window before. For these a closed
    window raises WindowClosedError: the next part waits for the operator to start the run again.
    """
    if context.options.window is None:
        return
    window = parse_window(context.options.window, context.options.window_time_zone)
    now = context.clock.now()
    if not window.is_open(now):
        opening = window.next_opening(now)
        if context.plan.run in entered:
            raise WindowClosedError(
                f"the window {context.options.window} closed, so nothing further is touched until "
                f"{opening:%Y-%m-%d %H:%M} UTC; what runs on which image is consistent: resume the "
                "run, and it waits for the next opening"
            )
        context.progress.note(f"waiting for the window, which opens {opening:%Y-%m-%d %H:%M} UTC")
        context.note("waiting-for-window", opens=opening.isoformat(timespec="seconds"))
    while not window.is_open(now := context.clock.now()):
        left = (window.next_opening(now) - now).total_seconds()
        context.wait(min(_MOST_SECONDS, max(1.0, left)))
    entered.add(context.plan.run)
