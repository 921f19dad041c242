"""Write files so that nobody ever reads half of one."""

from __future__ import annotations

import os
from pathlib import Path

from clusterbox.errors import InputError


def write_whole(path: Path, text: str) -> None:
    """Write a text beside its file and rename it; the one that was there stays until then.

    A device or a pipe, such as /dev/stdout, is written to: it must not be replaced. Raises
    InputError where the name is a folder, or there is none to write it to.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"{path}: {'is a folder' if path.is_dir() else 'its folder is missing'}")
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
