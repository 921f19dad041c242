from __future__ import annotations

import io

import pytest

from clusterbox.cli.steps import ShownProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_one_line_a_step_and_no_notes() -> None:
    stream = io.StringIO()
    progress = ShownProgress(stream=stream)
    with progress.step("synth"):
        progress.note("8 stacks")
    assert stream.getvalue() == "✓ synth         0.0 s\n"


def test_a_terminal_gets_notes_above_the_running_clock() -> None:
    stream = Terminal()
    progress = ShownProgress(stream=stream)
    with progress.step("deploy"):
        progress.note("ws-dev-network deployed")
    shown = stream.getvalue()
    assert "    ws-dev-network deployed\n" in shown
    assert shown.endswith("✓ deploy        0.0 s\n")


def test_a_failed_step_is_shown_as_failed_and_timed() -> None:
    stream = io.StringIO()
    progress = ShownProgress(stream=stream)
    with pytest.raises(RuntimeError), progress.step("deploy"):
        raise RuntimeError
    assert stream.getvalue().startswith("✗ deploy")
    assert "deploy" in progress.seconds
