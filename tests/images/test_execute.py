"""The engine: order, what runs side by side, failures, interruption and going on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from clusterbox.deployment.progress import Progress
from clusterbox.errors import InputError
from clusterbox.images.context import Context, Result, StepFailedError
from clusterbox.images.execute import Execution, Run, check_world
from clusterbox.images.plan import Action, Options, Plan, Step
from clusterbox.images.record import Record, Store
from tests.images.memory_s3 import MemoryS3, error

STEPS = (
    Step(id="bake:a", action="bake", subject={"image": "a"}),
    Step(id="bake:b", action="bake", subject={"image": "b"}),
    Step(id="promote", action="promote", after=("bake:a", "bake:b")),
    Step(id="retire", action="retire", after=("promote",)),
)


def _plan(steps: tuple[Step, ...] = STEPS) -> Plan:
    return Plan(
        run="2026-11-22",
        environment="ws-dev",
        created="2026-11-22T12:00:00+00:00",
        options=Options(),
        images=(),
        steps=steps,
        world={"lock": "1", "parent of a": "ami-1"},
    )


class Site:
    """Steps that note that they ran, and fail or wait where they are told to."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder, MemoryS3(), "logs", "patch-day/ws-dev")
        self.ran: list[str] = []
        self.failures: dict[str, BaseException] = {}
        self.before: dict[str, Callable[[Context], None]] = {}

    def execute(self) -> Execution:
        record = Record.open(self.store, "2026-11-22", "ann")
        context = Context(
            root=Path("/nowhere"),
            environment=cast("Any", SimpleNamespace(name="ws-dev")),
            target=cast("Any", None),
            progress=Progress(),
            plan=_plan(),
        )
        actions: dict[Action, Run] = {
            "bake": self._step,
            "promote": self._step,
            "retire": self._step,
        }
        return Execution(context, record, actions)

    def _step(self, context: Context, step: Step) -> Result:
        if step.id in self.before:
            self.before[step.id](context)
        self.ran.append(step.id)
        if step.id in self.failures:
            raise self.failures[step.id]
        return {"ami": f"ami-of-{step.id}", "knows": sorted(context.results)}


def test_steps_wait_for_those_before_them_and_get_their_results(tmp_path: Path) -> None:
    site = Site(tmp_path)
    outcome = site.execute().run()
    assert outcome.is_complete
    assert set(site.ran[:2]) == {"bake:a", "bake:b"}
    assert site.ran[2:] == ["promote", "retire"]
    events = site.store.read("2026-11-22")
    promoted = next(e for e in events if e["event"] == "done" and e["step"] == "promote")
    assert promoted["result"]["knows"] == ["bake:a", "bake:b"]
    assert promoted["seconds"] >= 0


def test_independent_steps_run_side_by_side(tmp_path: Path) -> None:
    site = Site(tmp_path)
    both = threading.Barrier(2, timeout=30)

    def meet(_: Context) -> None:
        both.wait()

    site.before = {"bake:a": meet, "bake:b": meet}
    assert site.execute().run().is_complete


def test_after_a_failure_no_step_begins_and_what_runs_ends(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.failures["bake:a"] = StepFailedError("no space left")
    site.before = {"bake:b": lambda _: time.sleep(0.2)}
    outcome = site.execute().run()
    assert outcome.failed == {"bake:a": "no space left"}
    assert outcome.done == ("bake:b",)
    assert outcome.left == ("promote", "retire")


def test_the_next_run_goes_on_where_it_failed(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.failures["promote"] = StepFailedError("not verified")
    assert not site.execute().run().is_complete
    site.failures.clear()
    site.ran.clear()
    assert site.execute().run().is_complete
    assert site.ran == ["promote", "retire"]


def test_only_some_actions(tmp_path: Path) -> None:
    site = Site(tmp_path)
    bake: tuple[Action, ...] = ("bake",)
    outcome = site.execute().run(only=bake)
    assert outcome.failed == {}
    assert sorted(site.ran) == ["bake:a", "bake:b"]
    assert outcome.left == ()
    retire: tuple[Action, ...] = ("retire",)
    outcome = site.execute().run(only=retire)
    assert outcome.left == ("retire",)  # Promote has not been done.


def test_what_aws_refuses_is_a_failure_in_its_words(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.failures["bake:a"] = error("ExpiredToken", "GetImage")
    outcome = site.execute().run()
    assert "ExpiredToken for GetImage" in outcome.failed["bake:a"]


def test_a_programming_error_is_raised_and_recorded(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.failures["bake:a"] = KeyError("oops")
    with pytest.raises(KeyError):
        site.execute().run()
    events = site.store.read("2026-11-22")
    assert any(e["event"] == "failed" and "KeyError" in e["reason"] for e in events)


def test_an_interruption_stops_what_waits_and_is_no_failure_of_the_step(tmp_path: Path) -> None:
    site = Site(tmp_path)
    waiting = threading.Event()

    def wait_long(context: Context) -> None:
        waiting.set()
        for _ in range(3000):
            context.wait(0.01)

    def interrupt(_: Context) -> None:
        assert waiting.wait(30)
        raise KeyboardInterrupt

    site.before = {"bake:a": wait_long, "bake:b": interrupt}
    with pytest.raises(KeyboardInterrupt):
        site.execute().run()
    events = [(e["event"], e.get("step")) for e in site.store.read("2026-11-22")]
    assert ("stopped", "bake:a") in events
    assert ("stopped", "bake:b") in events
    site.before = {}
    assert site.execute().run().is_complete


def test_another_world_is_refused_with_every_difference() -> None:
    check_world(_plan(), {"lock": "1", "parent of a": "ami-1"})
    with pytest.raises(StepFailedError) as caught:
        check_world(_plan(), {"lock": "2", "live x": "ami-9"})
    text = str(caught.value)
    assert "lock: 1 when planned, 2 now" in text
    assert "parent of a: ami-1 when planned, nothing now" in text
    assert "live x: nothing when planned, ami-9 now" in text


@pytest.mark.parametrize("run", ["../../2026-11-22", "$(id)", "2026-11-22\n", "", "2026-11-22/x"])
def test_a_plan_whose_run_is_no_date_is_refused(run: str) -> None:
    # It names files, branches, and folders on head nodes.
    plan = Plan(
        run=run, environment="dev", created="", options=Options(), images=(), steps=(), world={}
    )
    with pytest.raises(InputError, match="no date of a run"):
        Plan.from_json(plan.to_json())
