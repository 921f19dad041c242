"""What a pipe, such as the log of a CI job, is told of the steps of a patch day."""

from __future__ import annotations

import io

from clusterbox.cli.images_progress import StepsProgress


def test_a_pipe_is_told_what_a_step_waits_for_but_not_every_figure_of_it() -> None:
    stream = io.StringIO()
    progress = StepsProgress(stream=stream)
    with progress.step("queues:a/b"):
        progress.note("job 7 of ada, 3:20:00 left")
        progress.note("job 7 of ada, 3:19:30 left")
        progress.note("requeueing 1 jobs")
    lines = stream.getvalue().splitlines()
    assert lines[:2] == [
        "· queues:a/b: job 7 of ada, 3:20:00 left",
        "· queues:a/b: requeueing 1 jobs",
    ]
    assert lines[2].startswith("✓ queues:a/b")


def test_what_is_said_between_steps_is_not_lost() -> None:
    stream = io.StringIO()
    StepsProgress(stream=stream).note("ami/images.lock.yaml: as the run has left it")
    assert stream.getvalue() == "· ami/images.lock.yaml: as the run has left it\n"
