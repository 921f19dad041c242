"""What Slurm's commands printed, by version; each file's first line says where it is from."""

from __future__ import annotations

from pathlib import Path

VERSIONS = ("22.05", "23.11", "24.11", "25.11")


def read_recorded(version: str, name: str) -> str:
    """Return what a command printed in a version; what did not change is that of 22.05."""
    folder = Path(__file__).parent
    path = folder / version / f"{name}.txt"
    if not path.exists():
        path = folder / VERSIONS[0] / f"{name}.txt"
    head, _, text = path.read_text(encoding="utf-8").partition("\n")
    assert head.startswith("# ")
    return text
