from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, tzinfo
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterbox.costs.meter_charges import compute_charges
from clusterbox.costs.meter_time import (
    Period,
    day_of,
    find_timezone,
    midnights,
    month_of,
    parse_moment,
)
from clusterbox.costs.usage import Usage, parse_time, render_time
from clusterbox.errors import InputError
from tests.costs.meter_records import disk, head, rates

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


def test_a_date_that_a_zone_left_out_is_no_day() -> None:
    apia = find_timezone("Pacific/Apia")
    found = midnights(month_of(parse_time("2011-12-15T00:00:00Z"), apia), apia)
    assert len(found) == len(set(found)) == 29


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


# Zones whose clocks change in both halves of the world, by half an hour, by a whole day, and never.
zones = st.sampled_from(
    [
        "UTC",
        "America/Denver",
        "America/Santiago",
        "Australia/Lord_Howe",
        "Asia/Kathmandu",
        "Pacific/Apia",
    ]
).map(find_timezone)
# Mid-December 2011, when Apia left out a day, to 2037; ends of months and leap days among them.
moments = st.one_of(
    st.integers(parse_time("2011-12-15T00:00:00Z"), parse_time("2037-12-31T00:00:00Z")),
    st.builds(
        lambda year, month, seconds: parse_time(f"{year}-{month:02}-01T00:00:00Z") + seconds,
        st.integers(2012, 2037),
        st.integers(1, 12),
        st.integers(-36 * 3600, 36 * 3600),
    ),
    st.builds(
        lambda year, seconds: parse_time(f"{year}-02-29T00:00:00Z") + seconds,
        st.sampled_from([2012, 2024, 2028]),
        st.integers(0, 24 * 3600),
    ),
)


@given(moments, zones)
def test_every_moment_is_in_its_day_and_its_day_in_its_month(at: int, zone: tzinfo) -> None:
    day, month = day_of(at, zone), month_of(at, zone)
    assert month.start <= day.start <= at < day.end <= month.end
    assert 22 * 3600 < day.seconds < 26 * 3600


@given(moments, zones)
def test_the_days_of_a_month_follow_each_other_without_gap_or_overlap(
    at: int, zone: tzinfo
) -> None:
    month = month_of(at, zone)
    edges = [month.start, *midnights(month, zone), month.end]
    days = [Period(start, end) for start, end in pairwise(edges)]
    assert days == [day_of(day.start, zone) for day in days]
    assert sum(day.seconds for day in days) == month.seconds


@given(moments, zones)
def test_what_runs_all_month_costs_the_same_by_days_and_by_the_month(at: int, zone: tzinfo) -> None:
    month = month_of(at, zone)
    usage = Usage((head(month.start - 3600),), (disk(month.start - 3600),))

    def cost(period: Period, cuts: Sequence[int] = ()) -> Fraction:
        charges = compute_charges(usage, (), rates(), period, cuts=cuts)
        return sum((item.amount.usd for item in charges.items), Fraction(0))

    edges = [month.start, *midnights(month, zone), month.end]
    by_day = [cost(Period(start, end)) for start, end in pairwise(edges)]
    assert sum(by_day) == cost(month) == cost(month, edges[1:-1])
    assert min(by_day) > 0
