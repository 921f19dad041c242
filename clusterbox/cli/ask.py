"""Ask a person on the terminal."""

from __future__ import annotations

import sys


def ask(question: str, yes: bool) -> bool:
    """Return whether the user agrees; without a terminal only --yes is an agreement."""
    if yes:
        return True
    if not sys.stdin.isatty():
        sys.stderr.write("clusterbox: there is no terminal to ask on; give --yes to agree\n")
        return False
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
