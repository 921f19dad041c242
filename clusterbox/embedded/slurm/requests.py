"""Requests of Slurm's resume and suspend programs to the fleet's daemon: files in a folder."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

FLEET_FOLDER = "fleet"


@dataclass(frozen=True)
class Request:
    """Nodes that are to be launched (`resume`), or whose instances are to end (`suspend`)."""

    action: str
    nodes: tuple[str, ...]


def is_joined(folder: Path) -> bool:
    """Return whether the cluster in `folder` has instances of an account."""
    return (folder / FLEET_FOLDER).is_dir()


def leave_request(folder: Path, action: str, nodes: Sequence[str]) -> None:
    """Ask the daemon for something; it is done soon after, in the order of the requests."""
    path = folder / FLEET_FOLDER / f"{time.time_ns():020d}-{action}.json"
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(asdict(Request(action, tuple(nodes)))), encoding="utf-8")
    beside.replace(path)


def take_requests(folder: Path) -> list[Request]:
    """Return the requests that wait, the oldest first, and forget them."""
    found = []
    for path in sorted((folder / FLEET_FOLDER).glob("*-*.json")):
        given = json.loads(path.read_text(encoding="utf-8"))
        found.append(Request(given["action"], tuple(given["nodes"])))
        path.unlink()
    return found
