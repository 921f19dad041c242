"""A copy of the repository to rehearse in: a patch day writes its lock, which is not yours to lose."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml

from clusterbox.errors import InputError
from clusterbox.files import write_whole
from clusterbox.site.load import Repository

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


def keep_clusters(copy: Path, environment: str, clusters: Sequence[str]) -> None:
    """Take all other clusters out of an environment of a copy; none named keeps them all.

    Raises InputError for one that the environment does not have.
    """
    if not clusters:
        return
    known = [entry.name for entry in Repository(copy).load_environment(environment).clusters]
    if unknown := [name for name in clusters if name not in known]:
        raise InputError(
            f"{environment} has no cluster {', '.join(unknown)}; it has: {', '.join(known)}"
        )
    path = copy / "environments" / f"{environment}.yaml"
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    data["clusters"] = [entry for entry in data["clusters"] if entry["name"] in clusters]
    budgets = data.get("budgets", {})
    if "clusters" in budgets:
        budgets["clusters"] = {
            name: budget for name, budget in budgets["clusters"].items() if name in clusters
        }
    canary = str(data.get("patch_day", {}).get("canary", ""))
    if canary and canary.partition("/")[0] not in clusters:
        del data["patch_day"]["canary"]
    # Numbers of accounts stay text: safe_dump quotes what would be read as a number.
    write_whole(path, yaml.safe_dump(data, sort_keys=False))
