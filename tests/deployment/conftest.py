"""A copy of the repository whose files a test may change, with the tools of this one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusterbox.deployment.targets import state_folder
from clusterbox.embedded.account import EmbeddedAccount

COPIED = (
    "LICENSE",
    "README.md",
    "ami",
    "app.py",
    "cdk.json",
    "cluster_configs",
    "clusterbox",
    "environments",
    "monitoring",
    "package-lock.json",
    "pyproject.toml",
    "requirements-pcluster.txt",
    "requirements.txt",
    "stacks",
)
LINKED = (".venv", ".venv-pcluster", "node_modules")


def copy_repository(root: Path, to: Path) -> Path:
    """Copy the repository's files to a folder; link its installed tools into it."""
    to.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, to / name)
    for name in LINKED:
        (to / name).symlink_to(root / name)
    return to


@pytest.fixture(scope="module")
def repository(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a copy of the repository; its embedded accounts end with the module's tests."""
    copy = copy_repository(root, tmp_path_factory.mktemp("repository"))
    yield copy
    for name in ("ws-dev", "sandbox"):
        EmbeddedAccount.stop(state_folder(copy, name))
