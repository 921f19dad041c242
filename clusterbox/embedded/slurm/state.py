"""What a later command must know of a cluster on this machine: the file in its state folder."""

from __future__ import annotations

import json
import os
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from clusterbox.embedded.slurm.ports import STATE_FILE
from clusterbox.embedded.slurm.settings import Layout
from clusterbox.errors import InputError
from clusterbox.files import write_whole

# A socket's path has at most 107 bytes on Linux. The longest one is that of a job's step:
# FOLDER/spool/NODE/NODE_JOB.STEP, with two numbers of up to ten digits.
_LONGEST_SOCKET = 107
_OF_STEP = len("/spool///_.") + 2 * 10
FOLDERS = ("bin", "etc", "log", "state")


def cluster_folder(root: Path, name: str) -> Path:
    """Return the state folder of a cluster's Slurm in a repository.

    A name that two environments have is told apart by theirs: `ENVIRONMENT/NAME`. Raises InputError
    for what is no name.
    """
    folder = root / ".clusterbox" / "slurm" / name.replace("/", ".")
    if not name or folder.name in (".", ".."):
        raise InputError(f"{name!r} is not the name of a cluster")
    return folder


def cluster_folders(root: Path) -> list[Path]:
    """Return the state folders of all clusters' Slurms in a repository."""
    return sorted(path for path in (root / ".clusterbox" / "slurm").glob("*") if path.is_dir())


@dataclass(frozen=True)
class State:
    """A cluster that was started, or is about to be; `mark` is in all its processes."""

    cluster: str
    mark: str
    sockets: str
    first_port: int
    ports: int
    accounting: bool
    is_ready: bool = False
    # The embedded account that it is joined to, and the cluster's stack there.
    account_dir: str = ""
    stack: str = ""

    def write(self, folder: Path) -> None:
        """Write it into the state folder."""
        write_whole(folder / STATE_FILE, json.dumps(asdict(self), indent=2) + "\n")

    def layout(self, folder: Path) -> Layout:
        """Return where the files are."""
        return Layout(folder, Path(self.sockets))


def read_state(folder: Path) -> State | None:
    """Return the state in a folder; None where no cluster is, or only a broken file."""
    try:
        return State(**json.loads((folder / STATE_FILE).read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return None


def make_folders(folder: Path, longest_node: int) -> Layout:
    """Make the folders of a cluster; sockets are elsewhere where their path would be too long.

    `longest_node` is the length of the longest name of a node. Raises InputError when it is too
    long for any folder.
    """
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    sockets = folder / "run"
    room = _LONGEST_SOCKET - _OF_STEP - 2 * longest_node
    if len(os.fsencode(sockets)) > room:
        sockets = Path(tempfile.mkdtemp(prefix="cbx-"))
        if len(os.fsencode(sockets)) > room:
            sockets.rmdir()
            raise InputError(
                f"a node's name has {longest_node} characters, too many for Slurm's sockets here: "
                "shorten the names of the queue and its compute resource"
            )
    (sockets / "spool").mkdir(parents=True, exist_ok=True)
    # Jobs of other users ask munged, too.
    for shared in (folder, sockets):
        shared.chmod(0o755)
    return Layout(folder, sockets)


def write_program(path: Path, words: Sequence[str], environment: dict[str, str]) -> None:
    """Write a program that runs a command with its own arguments added, in an environment."""
    exports = "".join(
        f"export {name}={shlex.quote(value)}\n" for name, value in environment.items()
    )
    path.write_text(f'#!/bin/sh\n{exports}exec {shlex.join(words)} "$@"\n', encoding="utf-8")
    path.chmod(0o755)
