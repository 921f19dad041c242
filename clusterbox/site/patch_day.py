"""When images are baked anew and clusters moved to them, who is told, and with which options."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from clusterbox.site.fields import (
    EmailAddress,
    Finding,
    InstanceType,
    Once,
    Section,
    matching,
    raise_findings,
)

# The day of the week as EventBridge Scheduler counts it, and what it adds for which of a month.
# Source: "Schedule types in EventBridge Scheduler" in its user guide, cron-based schedules.
_WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_WHICH = {"first": "#1", "second": "#2", "third": "#3", "fourth": "#4", "last": "L"}
_TIME = r"([01]\d|2[0-3]):([0-5]\d)"
_NTH_WEEKDAY = re.compile(rf"({'|'.join(_WHICH)}) ({'|'.join(_WEEKDAYS)}) {_TIME}")
# Minutes, hours, day of month, month, day of week, year; one of the days is a question mark.
_CRON = r"cron\([\d,*/-]+ [\d,*/-]+ (\? [\w,*/-]+ [\w,*/#-]+|[\w,*/-]+ [\w,*/-]+ \?) [\d,*/-]+\)"


def _check_time_zone(name: str) -> str:
    """Return the name of a time zone that exists, as far as this machine knows time zones."""
    for known in (name, "UTC"):
        try:
            ZoneInfo(known)
        except (ZoneInfoNotFoundError, OSError, ValueError):
            continue
        if known == name:
            return name
        raise PydanticCustomError(
            "allowed",
            "{allowed}",
            {"allowed": "must be a time zone that exists, such as America/Denver", "found": name},
        )
    return name


def _text(pattern: str, allowed: str) -> Any:
    return BeforeValidator(matching(pattern, allowed))


Schedule = Annotated[
    str,
    _text(
        rf"{_NTH_WEEKDAY.pattern}|{_CRON}",
        "must be such as second Tuesday 22:00 (first to fourth, or last), or a cron expression of "
        "EventBridge Scheduler such as cron(0 22 ? * 3#2 *)",
    ),
]
TimeZone = Annotated[
    str,
    _text(r"[A-Z]\w*(/[A-Z][\w+-]*)*", "must be a time zone, such as UTC or America/Denver"),
    AfterValidator(_check_time_zone),
]
Window = Annotated[
    str, _text(rf"{_TIME}-{_TIME}", "must be two times of a day in quotes, such as 22:00-04:00")
]
QueueName = Annotated[
    str,
    _text(
        r"[a-zA-Z][a-zA-Z0-9-]{0,39}/[a-z][a-z0-9-]{0,24}",
        "must be a cluster of this file and one of its queues, such as ws-eco/eco",
    ),
]
SecretName = Annotated[
    str,
    _text(r"[\w/+=.@-]{1,512}", "must be the name of a secret of Secrets Manager, not its ARN"),
]


class PatchDay(Section):
    """When a patch day starts, what runs it, and what it does unless somebody says otherwise."""

    schedule: Schedule | None = Field(
        None, description="when it starts by itself; none for never: somebody starts it"
    )
    time_zone: TimeZone = Field("UTC", description="time zone of the schedule and the window")
    pipeline: Literal["codebuild", "github", "gitlab"] = Field(
        "codebuild",
        description="what runs it: a project in the account, or the pipeline of hosting.ci",
    )
    token_secret: SecretName | None = Field(
        None,
        description="secret with the token with which the schedule starts the pipeline of hosting.ci",
    )
    notify: Once[EmailAddress] = Field(
        strict=False, min_length=1, description="who gets the alarms"
    )
    users: Once[EmailAddress] = Field(
        (), strict=False, description="who is told before and after, besides notify"
    )
    max_age_days: int = Field(
        35, ge=1, le=365, description="age in days at which a locked image raises an alarm"
    )
    window: Window | None = Field(
        None, description="times of day between which clusters are touched; none for always"
    )
    canary: QueueName | None = Field(
        None, description="queue that is moved first; none for the first of the first cluster"
    )
    head: Literal["patch", "replace", "leave"] = Field(
        "patch",
        description="head nodes are patched in place, replaced with a second cluster, or left",
    )
    resize_head: InstanceType | None = Field(
        None, description="instance type of a head node while it is patched; none for its own"
    )
    when_idle: bool = Field(False, description="whether clusters with running jobs are left alone")
    drain_hours: int = Field(
        24,
        ge=1,
        le=168,
        description="hours that the jobs of a queue or node get to end by themselves",
    )
    gate_minutes: int = Field(
        30, ge=1, le=1440, description="minutes that a gate's job may take, waiting included"
    )
    keep: int = Field(
        2, ge=0, le=24, description="earlier images kept beside the locked one and the one before"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.schedule is not None and self.pipeline != "codebuild" and self.token_secret is None:
            raise_findings(
                [
                    Finding(
                        ("token_secret",),
                        f"must be given: the schedule starts the pipeline of {self.pipeline} with it",
                    )
                ]
            )
        return self

    @property
    def schedule_expression(self) -> str | None:
        """The schedule as EventBridge Scheduler's cron expression."""
        if self.schedule is None:
            return None
        if (found := _NTH_WEEKDAY.fullmatch(self.schedule)) is None:
            return self.schedule
        which, weekday, hour, minute = found.groups()
        day = f"{_WEEKDAYS.index(weekday) + 1}{_WHICH[which]}"
        return f"cron({int(minute)} {int(hour)} ? * {day} *)"

    @property
    def options(self) -> dict[str, Any]:
        """What of it are the options of a plan, by the names they have there; times in seconds."""
        return {
            "canary": self.canary,
            "head": self.head,
            "resize_head": self.resize_head,
            "drain_seconds": self.drain_hours * 3600.0,
            "when_idle": self.when_idle,
            "window": self.window,
            "window_time_zone": self.time_zone,
            "gate_seconds": self.gate_minutes * 60.0,
            "keep": self.keep,
        }
