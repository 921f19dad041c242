"""Ids of AWS that the files of a repository name: what they name is in use, though nothing runs."""

from __future__ import annotations

import re
from pathlib import Path

from clusterbox.costs.snapshot import read_text

FOLDERS = ("environments", "cluster_configs", "ami")
_SUFFIXES = (".yaml", ".yml")
_ID = re.compile(r"\b(?:ami|snap|vol|eipalloc)-[0-9a-f]{8,17}\b")


def read_used_ids(root: Path) -> frozenset[str]:
    """Return the ids of images, snapshots, volumes and addresses in a repository's YAML files.

    Among them are the lock of images, and a volume or address that a cluster will take up again.
    """
    return frozenset(
        found
        for folder in FOLDERS
        for path in (root / folder).rglob("*")
        if path.suffix in _SUFFIXES and path.is_file()
        for found in _ID.findall(read_text(path))
    )
