"""One environment at one revision: its files as models, and its stacks as templates."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from clusterbox.clusters.composed import ComposedCluster, compose_environment
from clusterbox.deployment.cdk import CdkError, read_assembly, synthesize
from clusterbox.errors import InputError
from clusterbox.review.revisions import Cache, Revision, list_files
from clusterbox.site.addresses import SubnetBudget, plan_addresses
from clusterbox.site.environment import Environment
from clusterbox.site.images import LockedImage
from clusterbox.site.load import Repository

# Files that no synth reads.
_OTHER_FOLDERS = ("docs/", "tests/", "benchmarks/", ".github/", ".ci/")
_OTHER_SUFFIXES = (".md",)
# What decides, beside the revision's own files, what synth makes of them: the installed libraries.
_INSTALLED = ("requirements.txt", "package-lock.json")


@dataclass(frozen=True)
class EnvironmentFiles:
    """What an environment consists of at one revision, and a digest of all that synth reads."""

    name: str
    revision: Revision
    digest: str


@dataclass(frozen=True)
class Snapshot:
    """An environment at one revision. `problem` says why it could not be read or synthesized."""

    name: str
    environment: Environment | None = None
    images: Mapping[str, LockedImage] = field(default_factory=dict)
    clusters: tuple[ComposedCluster, ...] = ()
    budgets: tuple[SubnetBudget, ...] = ()
    templates: Mapping[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    protected: frozenset[str] = frozenset()
    folder: Path | None = None
    problem: str | None = None


def list_environments(revision: Revision, installed: Path) -> dict[str, EnvironmentFiles]:
    """Return the environments of a revision by name, with a digest each.

    Two environments with the same digest have the same stacks: everything but documentation and
    tests counts, of the environments' and clusters' files only their own. `installed` is the
    repository whose libraries run synth.
    """
    common: list[Path] = []
    own: dict[str, Path] = {}
    configs: dict[str, Path] = {}
    for path in list_files(revision):
        text = path.as_posix()
        if path.parent.as_posix() == "environments" and path.suffix == ".yaml":
            if not path.name.startswith("."):
                own[path.stem] = path
        elif path.parent.as_posix() == "cluster_configs":
            configs[path.name] = path
        elif not text.startswith(_OTHER_FOLDERS) and not text.endswith(_OTHER_SUFFIXES):
            common.append(path)
    shared = _digest(revision.folder, common)
    for name in _INSTALLED:
        shared.update((installed / name).read_bytes())
    found = {}
    for name, path in own.items():
        whole = shared.copy()
        used = [configs[config] for config in _configs_of(revision.folder / path, configs)]
        whole.update(_digest(revision.folder, [path, *used]).digest())
        found[name] = EnvironmentFiles(name, revision, whole.hexdigest())
    return found


def take_snapshot(files: EnvironmentFiles, cache: Cache, installed: Path) -> Snapshot:
    """Return the environment as models and templates; what cannot be read becomes its `problem`.

    Stacks are synthesized by the revision's own code, with the libraries of `installed`, and kept
    in the cache under the digest. Models are read by this code.
    """
    folder = files.revision.folder
    try:
        repository = Repository(folder)
        environment = repository.load_environment(files.name)
        images = repository.load_images(environment)
        clusters = compose_environment(folder, files.name)
        budgets = plan_addresses(environment, {item.name: item.file for item in clusters})

        home = cache.folder / "home"
        home.mkdir(mode=0o700, exist_ok=True)

        def synth(entry: Path) -> None:
            synthesize(folder, files.name, entry, installed=installed, home=home)

        assembly = read_assembly(cache.make("assemblies", files.digest, synth))
    except (InputError, CdkError) as error:
        return Snapshot(files.name, problem=str(error).replace(f"{folder}/", ""))
    return Snapshot(
        files.name,
        environment,
        images,
        tuple(clusters),
        budgets,
        {stack: assembly.template(stack) for stack in assembly.stacks},
        assembly.protected,
        assembly.folder,
    )


def _configs_of(path: Path, known: Mapping[str, Path]) -> Sequence[str]:
    """Return the configurations that an environment file names; all of them if it is malformed."""
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))["clusters"]
        return sorted({entry["config"] for entry in entries} & set(known))
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, RecursionError):
        return sorted(known)


def _digest(folder: Path, paths: Sequence[Path]) -> hashlib._Hash:
    digest = hashlib.sha256()
    for path in sorted(paths):
        content = (folder / path).read_bytes()
        digest.update(json.dumps([path.as_posix(), len(content)]).encode() + content)
    return digest
