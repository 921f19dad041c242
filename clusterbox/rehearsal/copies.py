"""A copy of the repository to rehearse in: a patch day writes its lock, which is not yours to lose."""

from __future__ import annotations

import shutil
from pathlib import Path

# What a site is made of, and the tools that `make setup` installed.
_COPIED = (
    "LICENSE",
    "README.md",
    "ami",
    "app.py",
    "cdk.json",
    "cluster_configs",
    "clusterbox",
    "environments",
    "monitoring",
    "prices",
    "pyproject.toml",
    "requirements-pcluster.txt",
    "requirements.txt",
    "stacks",
)
_LINKED = (".venv", ".venv-pcluster", "node_modules")


def copy_site(root: Path, to: Path) -> Path:
    """Copy the files of the repository at `root` to a folder and link its tools there; return it.

    What is in the folder is replaced.
    """
    if to.exists():
        shutil.rmtree(to)
    to.mkdir(parents=True)
    for name in _COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy2(source, to / name)
    for name in _LINKED:
        if (root / name).exists():
            (to / name).symlink_to((root / name).resolve())
    return to
