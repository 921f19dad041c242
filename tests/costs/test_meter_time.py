from __future__ import annotations

from datetime import UTC

import pytest

from clusterbox.costs.meter_time import (
    Period,
    day_of,
    find_timezone,
    midnights,
    month_of,
    parse_moment,
)
from clusterbox.costs.usage import parse_time, render_time
from clusterbox.errors import InputError

DENVER = find_timezone("America/Denver")


def shown(period: Period) -> tuple[str, str]:
    return render_time(period.start), render_time(period.end)


def test_a_day_begins_at_midnight_of_the_time_zone() -> None:
    late = parse_time("2025-11-05T03:00:00Z")
    assert shown(day_of(late, UTC)) == ("2025-11-05T00:00:00Z", "2025-11-06T00:00:00Z")
    assert shown(day_of(late, DENVER)) == ("2025-11-04T07:00:00Z", "2025-11-05T07:00:00Z")


@pytest.mark.parametrize(("day", "hours"), [("2025-03-09", 23), ("2025-11-02", 25)])
def test_days_on_which_summer_time_begins_or_ends_are_shorter_or_longer(
    day: str, hours: int
) -> None:
    assert day_of(parse_time(f"{day}T18:00:00Z"), DENVER).seconds == hours * 3600


def test_a_day_without_midnight_begins_after_the_gap() -> None:
    # In Santiago the clocks went from 24:00 to 1:00 on 7 September 2025.
    period = day_of(parse_time("2025-09-07T12:00:00Z"), find_timezone("America/Santiago"))
    assert shown(period) == ("2025-09-07T04:00:00Z", "2025-09-08T03:00:00Z")


@pytest.mark.parametrize(
    ("moment", "start", "end"),
    [
        ("2024-02-29T12:00:00Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"),
        ("2025-02-28T23:59:59Z", "2025-02-01T00:00:00Z", "2025-03-01T00:00:00Z"),
        ("2025-12-31T23:59:59Z", "2025-12-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"),
    ],
)
def test_months_end_where_the_calendar_says(moment: str, start: str, end: str) -> None:
    assert shown(month_of(parse_time(moment), UTC)) == (start, end)


def test_a_month_in_which_summer_time_ends_has_an_hour_more() -> None:
    period = month_of(parse_time("2025-11-20T00:00:00Z"), DENVER)
    assert shown(period) == ("2025-11-01T06:00:00Z", "2025-12-01T07:00:00Z")


def test_midnights_are_those_within_a_period() -> None:
    period = Period(parse_time("2025-11-01T06:00:00Z"), parse_time("2025-11-04T07:00:00Z"))
    found = [render_time(moment) for moment in midnights(period, DENVER)]
    assert found == ["2025-11-02T06:00:00Z", "2025-11-03T07:00:00Z"]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2025-11-03", "2025-11-03T07:00:00Z"),
        ("2025-11-03T08:30:00", "2025-11-03T15:30:00Z"),
        ("2025-11-03T08:30:00+00:00", "2025-11-03T08:30:00Z"),
    ],
)
def test_times_are_read_in_the_time_zone(text: str, moment: str) -> None:
    assert render_time(parse_moment(text, DENVER)) == moment


@pytest.mark.parametrize("text", ["yesterday", "2025-13-01", "2025-02-29", "1"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not a time"):
        parse_moment(text, UTC)


@pytest.mark.parametrize("name", ["Mars/Olympus", "../etc/passwd", "America"])
def test_unknown_time_zones_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="is not a time zone"):
        find_timezone(name)


@pytest.mark.parametrize("text", ["9999-12-31", "0001-01-01", "9999-12-31T23:59:59", "2200-01-02"])
def test_a_time_that_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not a time"):
        parse_moment(text, DENVER)
