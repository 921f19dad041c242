"""What is decided when a run goes on, and what else must not be taken for the same run."""

from __future__ import annotations

import argparse
import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from clusterbox.cli import images
from clusterbox.deployment.progress import Progress
from clusterbox.errors import InputError
from clusterbox.images.patch_day import PatchDay
from clusterbox.images.plan import Options, Plan, PlannedImage, Step
from clusterbox.images.record import Record, find_held
from tests.images.memory_s3 import MemoryS3
from tests.images.patch_day_world import WS_DEV

PLAN = Plan(
    run="2026-11-22",
    environment="ws-dev",
    created="2026-11-22T12:00:00+00:00",
    options=Options(),
    images=(PlannedImage(image="compute", name="c", parent="ami-1", bundle="b"),),
    steps=(Step(id="promote", action="promote"),),
    world={},
)


def _words(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    images.add_arguments(parser, "images")
    return parser.parse_args(["run", "ws-dev", *words])


def test_what_is_given_when_a_run_goes_on_holds_from_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = images._go_on(PLAN, _words("--terminate", "--drain-hours", "1"))
    assert (found.options.terminate, found.options.drain_seconds) == (True, 3600.0)
    assert replace(found, options=PLAN.options) == PLAN
    assert "from here on terminate is True, which was False" in capsys.readouterr().err
    assert images._go_on(PLAN, _words()) == PLAN


@pytest.mark.parametrize(
    ("words", "said"),
    [(("--head", "replace"), "--head replace"), (("admin",), "images admin")],
)
def test_what_decides_the_steps_cannot_be_changed_any_more(
    words: tuple[str, ...], said: str
) -> None:
    with pytest.raises(InputError, match=f"without {said}: .*abandon"):
        images._go_on(PLAN, _words(*words))
    assert images._go_on(PLAN, _words("compute", "--head", "patch")) == PLAN


def _patch_day(folder: Path, s3: MemoryS3) -> PatchDay:
    target = SimpleNamespace(name="embedded", client=lambda _service: s3)
    return PatchDay(folder, WS_DEV, cast("Any", target), Progress())


def test_a_second_plan_of_the_same_day_does_not_go_on_with_the_first(tmp_path: Path) -> None:
    patch_day = _patch_day(tmp_path, MemoryS3())
    patch_day.store.create(PLAN)
    Record.open(patch_day.store, PLAN.run, "ann").append("begun")
    other = replace(PLAN, created="2026-11-22T13:00:00+00:00")
    with pytest.raises(InputError, match=r"begun by another plan, of 2026-11-22T12:00"):
        patch_day.run(other)


def test_a_rollback_does_not_undo_the_patch_day_before_the_one_under_way(tmp_path: Path) -> None:
    patch_day = _patch_day(tmp_path, MemoryS3())
    record = Record.open(patch_day.store, PLAN.run, "ann")
    with pytest.raises(InputError, match="has not promoted an image"):
        images._refuse_unpromoted(patch_day, PLAN)
    record.append("done", step="promote", result={})
    images._refuse_unpromoted(patch_day, PLAN)


def test_clusters_whose_jobs_are_held_are_known_from_the_record() -> None:
    events = [
        {"event": "held", "cluster": "one"},
        {"event": "held", "cluster": "two"},
        {"event": "released", "cluster": "one"},
    ]
    assert find_held(events) == ["two"]


def test_a_plan_with_an_unknown_action_is_none() -> None:
    with pytest.raises(InputError, match="there is no action dance"):
        Plan.from_json(PLAN.to_json().replace('"action": "promote"', '"action": "dance"'))
    with pytest.raises(InputError, match="not a plan"):
        Plan.from_json("[]")


def test_a_cancelled_job_of_ci_ends_like_an_interrupted_command() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), images.ended_like_interrupted():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
