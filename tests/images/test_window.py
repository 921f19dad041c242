"""Clusters are touched only in the maintenance window."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from clusterbox.errors import InputError
from clusterbox.images.plan import Step
from clusterbox.images.rollout import queues
from clusterbox.images.window import WindowClosedError, enter, parse_window
from tests.images.fake_cluster import CLUSTER, NEW, FakeCluster, write_repository


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("window", "zone", "now", "is_open", "opens"),
    [
        ("22:00-04:00", "UTC", "2026-11-22T21:59", False, "2026-11-22T22:00"),
        ("22:00-04:00", "UTC", "2026-11-22T22:00", True, "2026-11-22T22:00"),
        ("22:00-04:00", "UTC", "2026-11-23T03:59", True, "2026-11-23T03:59"),
        ("22:00-04:00", "UTC", "2026-11-23T04:00", False, "2026-11-23T22:00"),
        ("08:00-12:00", "UTC", "2026-11-22T12:00", False, "2026-11-23T08:00"),
        ("08:00-12:00", "UTC", "2026-11-22T07:00", False, "2026-11-22T08:00"),
        # Denver is seven hours behind in winter, six in summer.
        ("22:00-04:00", "America/Denver", "2026-11-23T04:59", False, "2026-11-23T05:00"),
        ("22:00-04:00", "America/Denver", "2026-07-23T04:00", True, "2026-07-23T04:00"),
    ],
)
def test_it_is_open_in_its_time_zone(
    window: str, zone: str, now: str, is_open: bool, opens: str
) -> None:
    found = parse_window(window, zone)
    assert found.is_open(at(now)) is is_open
    assert found.next_opening(at(now)) == at(opens)


@pytest.mark.parametrize(
    ("text", "zone", "message"),
    [
        ("22-4", "UTC", "is no window: write it as 22:00-04:00"),
        ("24:00-04:00", "UTC", "is no window"),
        ("22:00-22:00", "UTC", "is empty"),
        ("22:00-04:00", "Mars/Olympus", "is no time zone"),
    ],
)
def test_what_is_no_window_is_told(text: str, zone: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_window(text, zone)


def test_the_first_part_waits_for_it_and_the_next_stops_when_it_is_closed(tmp_path: Path) -> None:
    fake = FakeCluster(write_repository(tmp_path / "site"))  # at 20:00
    step = Step(id="q", action="queues", subject={"cluster": CLUSTER, "queues": "eco"})
    doors = fake.doors()
    context = fake.context(window="22:00-22:30")
    assert queues(context, step, doors)["queues"] == {"eco": NEW}
    assert fake.now >= at("2026-11-22T22:00")
    assert fake.log[0] == "waiting-for-window"
    fake.now = at("2026-11-22T22:31")
    with pytest.raises(WindowClosedError, match=r"until 2026-11-23 22:00 UTC"):
        enter(context, doors.entered)
    # Resumed by the operator, it waits again.
    enter(context, set())
    assert fake.now >= at("2026-11-23T22:00")
