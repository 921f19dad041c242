from __future__ import annotations

from typing import Any

import pytest

from clusterbox.images.timeline import expected_seconds, read_times, show_seconds
from tests.images.patch_day_record import event, plan


def done(run: str, step: str, seconds: float, *, starts: int = 1) -> list[dict[str, Any]]:
    started = [event("started", 0, step, run=run) for _ in range(starts)]
    return [*started, event("done", seconds, step, run=run, seconds=seconds)]


def test_medians_are_by_step_and_by_action() -> None:
    events = [
        *done("1", "bake:compute", 1000.0),
        *done("1", "bake:admin", 400.0),
        *done("2", "bake:compute", 1200.0),
        *done("3", "bake:compute", 3000.0),
        *done("3", "promote", 5.0),
    ]
    assert expected_seconds(events) == {
        "bake": 1100.0,
        "bake:admin": 400.0,
        "bake:compute": 1200.0,
        "promote": 5.0,
    }


def test_failures_and_what_was_cut_off_say_nothing_of_the_time() -> None:
    events = [
        *done("1", "bake:compute", 7.0, starts=2),
        event("started", 0, "promote"),
        event("failed", 3, "promote", seconds=3.0),
        event("started", 0, "retire"),
        event("skipped", 3, "retire", seconds=0.1),
        *done("2", "bake:compute", 1000.0),
    ]
    assert expected_seconds(events) == {"bake": 1000.0, "bake:compute": 1000.0}


def test_no_record_expects_nothing() -> None:
    assert expected_seconds([]) == {}


def test_steps_have_their_attempts() -> None:
    events = [
        event("started", 0, "bake:compute", expected_seconds=60.0),
        # A kill: nothing ended it.
        event("started", 100, "bake:compute", expected_seconds=60.0),
        event("failed", 130, "bake:compute", seconds=30.0, reason="disk full"),
        event("started", 200, "bake:compute", expected_seconds=60.0),
        event("done", 250, "bake:compute", seconds=50.0, result={}),
        event("started", 250, "verify:compute"),
    ]
    bake, verify, promote = read_times(plan(), events)
    assert [(each.seconds, each.state) for each in bake.attempts] == [
        (None, "cut off"),
        (30.0, "failed"),
        (50.0, "done"),
    ]
    assert (bake.state, bake.seconds, bake.expected) == ("done", 80.0, 60.0)
    assert (verify.state, verify.seconds) == ("cut off", None)
    assert (promote.step, promote.state, promote.attempts) == ("promote", "not begun", ())


def test_a_reason_is_that_of_the_last_end() -> None:
    events = [
        event("started", 0, "promote"),
        event("failed", 1, "promote", seconds=1.0, reason="not verified"),
    ]
    assert read_times(None, events)[0].reason == "not verified"
    events = [event("skipped", 1, "promote", seconds=1.0, result={"skipped": "jobs run"})]
    assert read_times(None, events)[0].reason == "jobs run"


@pytest.mark.parametrize("damaged", [{}, {"event": "done", "step": "a"}, {"step": "a", "at": "x"}])
def test_a_damaged_event_does_not_stop_a_report(damaged: dict[str, Any]) -> None:
    assert read_times(None, [damaged]) == []
    assert expected_seconds([damaged]) == {}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0.4, "0 s"), (59.6, "1 min 0 s"), (725, "12 min 5 s"), (3780, "1 h 3 min")],
)
def test_times_are_in_words(seconds: float | None, text: str) -> None:
    assert show_seconds(seconds) == text
