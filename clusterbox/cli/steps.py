"""Show the steps of long work on stderr: live on a terminal, one line a step in a pipe."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TextIO

from clusterbox.deployment.progress import Progress

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


@dataclass
class ShownProgress(Progress):
    """Steps shown on a stream, each with its time."""

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    _clock: _Clock | None = None

    def started(self, name: str) -> None:
        """Show that a step runs: a clock on a terminal, nothing yet in a pipe."""
        if self.stream.isatty():
            self._clock = _Clock(self.stream, name)
            self._clock.start()

    def ended(self, name: str, state: str) -> None:
        """Show a step's end and its time."""
        if self._clock is not None:
            self._clock.stop()
            self._clock = None
        mark = "✓" if state == "done" else "✗"
        self.stream.write(f"{mark} {name:<10} {self.seconds[name]:6.1f} s\n")
        self.stream.flush()

    def note(self, text: str) -> None:
        """Show what happens inside a step, on a terminal; a pipe stays quiet."""
        if self._clock is not None:
            self._clock.print_above(f"    {text}")


class _Clock(threading.Thread):
    """One line that shows a running step and its seconds."""

    def __init__(self, stream: TextIO, name: str) -> None:
        super().__init__(daemon=True)
        self._stream = stream
        self._label = name
        self._ended = threading.Event()
        self._writing = threading.Lock()

    def run(self) -> None:
        start = time.monotonic()
        turn = 0
        while not self._ended.wait(0.1):
            frame = _FRAMES[turn % len(_FRAMES)]
            turn += 1
            with self._writing:
                if not self._ended.is_set():
                    seconds = time.monotonic() - start
                    self._stream.write(f"\r\x1b[2K{frame} {self._label:<10} {seconds:6.1f} s")
                    self._stream.flush()

    def print_above(self, text: str) -> None:
        with self._writing:
            self._stream.write(f"\r\x1b[2K{text}\n")
            self._stream.flush()

    def stop(self) -> None:
        self._ended.set()
        with self._writing:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()
