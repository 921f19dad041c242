"""Times of the meter: days and months of a site's time zone as spans of seconds in UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from clusterbox.errors import InputError

# EC2 began in 2006; past 2199 a date is a slip of the pen, and soon no date of Python's.
FIRST_YEAR, LAST_YEAR = 2006, 2199


@dataclass(frozen=True)
class Period:
    """From `start` up to, and without, `end`; seconds since 1970 in UTC."""

    start: int
    end: int

    @property
    def seconds(self) -> int:
        """Its length."""
        return max(0, self.end - self.start)


def find_timezone(name: str) -> tzinfo:
    """Return a time zone such as `America/Denver`; raises InputError for an unknown one."""
    if name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InputError(
            f"{name} is not a time zone known here; names are such as UTC or America/Denver"
        ) from error


def midnight(day: date, zone: tzinfo) -> int:
    """Return when a day begins; where the clock skips midnight, the moment after the gap."""
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp())


def local_date(at: int, zone: tzinfo) -> date:
    """Return the date of a time in a time zone."""
    return datetime.fromtimestamp(at, zone).date()


def day_of(at: int, zone: tzinfo) -> Period:
    """Return the day of a time; it has 23 or 25 hours where summer time begins or ends."""
    today = local_date(at, zone)
    return Period(midnight(today, zone), midnight(today + timedelta(days=1), zone))


def month_of(at: int, zone: tzinfo) -> Period:
    """Return the calendar month of a time."""
    first = local_date(at, zone).replace(day=1)
    following = (first + timedelta(days=32)).replace(day=1)
    return Period(midnight(first, zone), midnight(following, zone))


def midnights(period: Period, zone: tzinfo) -> list[int]:
    """Return the midnights within a period, without its start and end."""
    found: list[int] = []
    day = local_date(period.start, zone) + timedelta(days=1)
    while (moment := midnight(day, zone)) < period.end:
        # A date that a zone left out, as Samoa 30 December 2011, begins with the next one.
        if moment > (found[-1] if found else period.start):
            found.append(moment)
        day += timedelta(days=1)
    return found


def parse_moment(text: str, zone: tzinfo) -> int:
    """Return the time of a date (its midnight) or of a date and time, in a time zone.

    Raises InputError for anything else.
    """
    try:
        if len(text) == len("2026-11-01"):
            at = midnight(date.fromisoformat(text), zone)
        else:
            moment = datetime.fromisoformat(text)
            at = int((moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp())
        if not FIRST_YEAR <= datetime.fromtimestamp(at, UTC).year <= LAST_YEAR:
            raise ValueError(f"not of the years {FIRST_YEAR} to {LAST_YEAR}")
    except (ValueError, OverflowError) as error:
        raise InputError(
            f"{text} is not a time; write 2026-11-01 or 2026-11-01T08:30:00"
        ) from error
    return at
