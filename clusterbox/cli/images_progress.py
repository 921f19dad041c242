"""Show the steps of a patch day: several run at once. Live on a terminal, line by line in a pipe."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from clusterbox.deployment.progress import Progress

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

_FIGURES = re.compile(r"\d+")
# A pipe is told the same with other figures after this time.
_QUIET_SECONDS = 300.0
_MARKS = {"done": "✓", "failed": "✗"}


@dataclass
class _Running:
    since: float
    expected: float | None
    note: str = ""
    # What a pipe has been told last: the note without its figures, and when.
    told: str = ""
    told_at: float = 0.0


@dataclass
class StepsProgress(Progress):
    """Steps that run at the same time, each with its time and the last thing that it said.

    `expected` says by step how many seconds earlier runs took.
    """

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    expected: dict[str, float | None] = field(default_factory=dict)
    _running: dict[str, _Running] = field(default_factory=dict)
    _live: Live | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _own: threading.local = field(default_factory=threading.local)

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Show what runs until the end of the block, on a terminal."""
        if not self.stream.isatty():
            yield
            return
        from rich.console import Console
        from rich.live import Live

        live = Live(
            console=Console(file=self.stream),
            get_renderable=self._render,
            refresh_per_second=4,
            transient=True,
        )
        with live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def started(self, name: str) -> None:
        """Show that a step runs; a step inside of another one is a note of it."""
        stack = self._stack()
        stack.append(name)
        if len(stack) > 1:
            self.note(f"{name} …")
            return
        with self._lock:
            self._running[name] = _Running(time.monotonic(), self.expected.get(name))

    def ended(self, name: str, state: str) -> None:
        """Write a line about a step that has ended, with its time."""
        stack = self._stack()
        stack.pop()
        if stack:
            return
        with self._lock:
            self._running.pop(name, None)
            line = f"{_MARKS.get(state, '·')} {name:<28} {show_seconds(self.seconds[name]):>8}"
            self._write(line)

    def note(self, text: str) -> None:
        """Show the last thing that a step said; a pipe gets a line where something new is said.

        Where only figures change, such as the time that a job has left, it gets one now and then.
        """
        stack = self._stack()
        line = " ".join(text.split())
        with self._lock:
            running = self._running.get(stack[0]) if stack else None
            if running is None:
                self._write(f"· {line}")
                return
            running.note = line
            if self._live is not None or len(stack) > 1:
                return
            shape, now = _FIGURES.sub("", line), time.monotonic()
            if shape != running.told or now - running.told_at >= _QUIET_SECONDS:
                running.told, running.told_at = shape, now
                self._write(f"· {stack[0]}: {line}")

    def _write(self, line: str) -> None:
        if self._live is not None:
            self._live.console.print(line, highlight=False, markup=False)
        else:
            self.stream.write(line + "\n")
            self.stream.flush()

    def _stack(self) -> list[str]:
        """Return the steps of this thread, the outer one first."""
        if not hasattr(self._own, "steps"):
            self._own.steps = []
        steps: list[str] = self._own.steps
        return steps

    def _render(self) -> Table:
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1))
        table.add_column(width=1)
        table.add_column(min_width=28, no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(overflow="ellipsis", no_wrap=True, ratio=1)
        with self._lock:
            for name, step in self._running.items():
                took = show_seconds(time.monotonic() - step.since)
                if step.expected:
                    took += f" of about {show_seconds(step.expected)}"
                spinner = Spinner("dots", speed=1)
                table.add_row(spinner, Text(name), Text(took), Text(step.note, style="dim"))
        return table


def show_seconds(seconds: float) -> str:
    """Return a duration for people: `8.3 s`, `12 min`, `3 h 05 min`."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"
