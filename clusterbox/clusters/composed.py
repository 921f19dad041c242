"""Clusters as they come from files: configuration, references resolved, and where it was written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from clusterbox.clusters.compose import compose_offline
from clusterbox.clusters.older_schemas import explain_ini
from clusterbox.errors import InputError, Problem, ProblemsError
from clusterbox.site.environment import ClusterEntry, Environment
from clusterbox.site.images import LockedImage
from clusterbox.site.load import Repository
from clusterbox.site.pins import NamedImage, pinned_images
from clusterbox.site.yaml_file import Location, YamlFile, read_yaml


class UnknownClusterError(InputError):
    """There is no cluster of such a name; `known` are those that there are."""

    def __init__(self, unknown: Sequence[str], known: Sequence[str]) -> None:
        self.known = tuple(known)
        listed = ", ".join(known) or "none yet"
        super().__init__(f"there is no cluster {', '.join(unknown)}; known: {listed}")


@dataclass(frozen=True)
class ComposedCluster:
    """One cluster: its configuration without references, and the file that it was written in.

    `environment` is None, and `images` empty, for a native configuration that belongs to no site.
    """

    name: str
    file: YamlFile = field(repr=False)
    configuration: Mapping[str, Any] = field(repr=False)
    environment: Environment | None = field(default=None, repr=False)
    images: Mapping[str, LockedImage] = field(default_factory=dict, repr=False)
    # Images that parts are pinned to (clusterbox/site/pins.py) and that are not locked now.
    pinned: tuple[NamedImage, ...] = field(default=(), repr=False)

    def known_images(self) -> list[NamedImage]:
        """Return the images that the cluster may run: the site's locked ones, then the pinned."""
        return [*(NamedImage(name, entry) for name, entry in self.images.items()), *self.pinned]

    def line_of(self, location: Location) -> int | None:
        """Return the line of the source file where a value of the configuration stands.

        A value inside what a reference stands for (a tag of `${site.tags}`) is on the reference's
        line.
        """
        return self.file.line_of(location)


def compose_environment(root: Path, name: str) -> list[ComposedCluster]:
    """Return the composed clusters of one environment, in the order of its file.

    Raises ProblemsError with everything wrong in the environment, the image lock and the cluster
    configurations.
    """
    environment = Repository(root).load_environment(name)
    return _compose(root, [(environment, entry) for entry in environment.clusters])


def compose_repository(root: Path, wanted: Sequence[str] = ()) -> dict[str, ComposedCluster]:
    """Return the named clusters, or every cluster of every environment, by name.

    A name that two environments have is told apart by the environment's: `ws-dev/eco`. Raises
    InputError for unknown names, and ProblemsError with everything wrong in the environments and
    in the configurations of the clusters.
    """
    repository = Repository(root)
    environments: list[Environment] = []
    problems: list[Problem] = []
    for name in repository.environment_names():
        try:
            environments.append(repository.load_environment(name))
        except ProblemsError as error:
            problems += error.problems
    if problems:
        raise ProblemsError(list(dict.fromkeys(problems)))
    entries = [(item, entry) for item in environments for entry in item.clusters]
    counts = Counter(entry.name for _, entry in entries)
    known = {
        entry.name if counts[entry.name] == 1 else f"{environment.name}/{entry.name}": (
            environment,
            entry,
        )
        for environment, entry in entries
    }
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise UnknownClusterError(unknown, sorted(known))
    chosen = {name: known[name] for name in wanted} if wanted else known
    return dict(zip(chosen, _compose(root, list(chosen.values())), strict=True))


def _compose(
    root: Path, entries: Sequence[tuple[Environment, ClusterEntry]]
) -> list[ComposedCluster]:
    """Return the clusters of entries; raises ProblemsError with all that is wrong in any."""
    repository = Repository(root)
    composed: list[ComposedCluster] = []
    problems: list[Problem] = []
    for environment, entry in entries:
        try:
            images = repository.load_images(environment)
            file = repository.load_cluster(entry)
            pins = repository.load_pins(environment, entry.name)
            configuration = compose_offline(environment, entry.name, file, images, pins)
        except ProblemsError as error:
            problems += error.problems
            continue
        pinned = tuple(pinned_images(file, pins, images))
        composed.append(
            ComposedCluster(entry.name, file, configuration, environment, images, pinned)
        )
    if problems:
        raise ProblemsError(list(dict.fromkeys(problems)))
    return composed


def read_native(path: Path) -> ComposedCluster:
    """Return the cluster of a native ParallelCluster configuration, named after its file.

    Nothing is resolved: a `${...}` in it is a text like any other. Raises InputError when the file
    is not one strict YAML mapping, with what to do when it is one of ParallelCluster 2.x, and
    ProblemsError with the dates in it that are not in quotes.
    """
    try:
        file = read_yaml(path)
    except InputError as error:
        older = explain_ini(path.read_text(errors="replace")) if path.is_file() else None
        if older is None:
            raise
        raise InputError(f"{path}: {older}") from error
    problems = [
        file.problem(location, "must be text, a number, true or false; put it in quotes", found)
        for location, found in _dates(file.data, ())
    ]
    if problems:
        raise ProblemsError(problems)
    return ComposedCluster(path.stem, file, file.data)


def _dates(data: Any, location: Location) -> Iterator[tuple[Location, date]]:
    """Yield what YAML reads as a date, as a value or as a key: no key of ParallelCluster is one."""
    if isinstance(data, date):
        yield location, data
    elif isinstance(data, Mapping):
        for key, value in data.items():
            if isinstance(key, date):
                yield (*location, str(key)), key
            yield from _dates(value, (*location, str(key)))
    elif isinstance(data, list):
        for index, item in enumerate(data):
            yield from _dates(item, (*location, index))
