"""Load environments and the image lock from a repository, reporting every problem at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from clusterbox.errors import InputError, Problem, ProblemsError
from clusterbox.site.environment import AdminBox, ClusterEntry, Environment
from clusterbox.site.images import ImageLock, LockedImage
from clusterbox.site.network import Network
from clusterbox.site.storage import Storage
from clusterbox.site.yaml_file import Location, YamlFile, read_yaml

Model = TypeVar("Model", bound=BaseModel)

_MESSAGES = {
    "extra_forbidden": "is not a known key; allowed here: {keys}",
    "missing": "must be given",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "string_type": "must be text; put it in quotes",
    "model_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
    "tuple_type": "must be a list",
    "too_short": "must not be empty",
    "greater_than_equal": "must be {ge} or more",
    "less_than_equal": "must be {le} or less",
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_short": "must not be empty",
    "string_too_long": "must hold at most {max_length} characters",
    "literal_error": "must be one of {expected}",
}


@dataclass(frozen=True)
class Repository:
    """The folder that holds `environments/`, `cluster_configs/` and `ami/`."""

    root: Path

    def environment_names(self) -> list[str]:
        """Return the names of all environments, sorted."""
        return sorted(path.stem for path in (self.root / "environments").glob("*.yaml"))

    def load_environment(self, name: str) -> Environment:
        """Return the environment called `name`.

        Raises InputError when there is none and ProblemsError with everything wrong in its file.
        """
        names = self.environment_names()
        if name not in names:
            known = ", ".join(names) or "none yet"
            raise InputError(f"there is no environment {name!r}; environments/ has: {known}")
        file = read_yaml(
            self.root / "environments" / f"{name}.yaml", name=f"environments/{name}.yaml"
        )
        problems: list[Problem] = []
        environment = _parse(Environment, file, problems)
        problems += self._find_cross_problems(file, name)
        if environment is None or problems:
            raise ProblemsError(sorted(problems, key=lambda p: (p.file, p.line or 0, p.path)))
        return environment

    def load_images(self, environment: Environment) -> dict[str, LockedImage]:
        """Return the locked images that the environment uses, by name.

        Raises ProblemsError when the lock is malformed or lacks one of them.
        """
        file = read_yaml(self.root / "ami" / "images.lock.yaml", name="ami/images.lock.yaml")
        problems: list[Problem] = []
        lock = _parse(ImageLock, file, problems)
        if lock is None:
            raise ProblemsError(problems)
        locked = lock.environments.get(environment.name, {})
        missing = [image for image in environment.images if image not in locked]
        if missing:
            raise ProblemsError(
                [
                    file.problem(
                        ("environments", environment.name),
                        f"must have an entry {image}: environments/{environment.name}.yaml uses it",
                    )
                    for image in missing
                ]
            )
        return {image: locked[image] for image in environment.images}

    def load_cluster(self, entry: ClusterEntry) -> YamlFile:
        """Return the cluster's native configuration, with its references unresolved."""
        return read_yaml(
            self.root / "cluster_configs" / entry.config, name=f"cluster_configs/{entry.config}"
        )

    def _find_cross_problems(self, file: YamlFile, name: str) -> Iterable[Problem]:
        """Return what is wrong between sections; a malformed section is left out of this."""
        data = file.data
        if data.get("name") != name:
            yield file.problem(
                ("name",), f"must be {name}, as the file is called", data.get("name")
            )
        network = _section(Network, data.get("network"))
        if network is not None:
            yield from _find_unknown_subnets(file, network)
        images = data.get("images")
        box = _section(AdminBox, data.get("admin_box"))
        if box is not None and isinstance(images, list) and box.image not in images:
            known = ", ".join(str(image) for image in images)
            yield file.problem(("admin_box", "image"), f"must be one of images: {known}", box.image)
        clusters = _section(tuple[ClusterEntry, ...], data.get("clusters", []))
        seen: dict[str, int] = {}
        for index, entry in enumerate(clusters or ()):
            if entry.name in seen:
                first = seen[entry.name]
                yield file.problem(
                    ("clusters", index, "name"), f"must differ from clusters[{first}]", entry.name
                )
            seen.setdefault(entry.name, index)
            if not (self.root / "cluster_configs" / entry.config).is_file():
                known = ", ".join(
                    sorted(p.name for p in (self.root / "cluster_configs").glob("*.yaml"))
                )
                yield file.problem(
                    ("clusters", index, "config"),
                    f"must be a file of cluster_configs/: {known}",
                    entry.config,
                )


def _find_unknown_subnets(file: YamlFile, network: Network) -> Iterable[Problem]:
    known = ", ".join(network.subnet_names)
    storage = _section(Storage, file.data.get("storage"))
    named: list[tuple[Location, str]] = []
    for fs_name, file_system in (storage.file_systems if storage else {}).items():
        named += [
            (("storage", "file_systems", fs_name, "subnets", index), subnet)
            for index, subnet in enumerate(file_system.subnets)
        ]
    box = _section(AdminBox, file.data.get("admin_box"))
    if box is not None:
        named.append((("admin_box", "subnet"), box.subnet))
    for location, subnet in named:
        if subnet not in network.subnet_names:
            yield file.problem(location, f"must be one of the network's subnets: {known}", subnet)


def _section(kind: Any, data: object) -> Any:
    """Return a part of the file parsed by itself, or None where it is absent or malformed."""
    if data is None:
        return None
    try:
        return TypeAdapter(kind).validate_python(data, strict=None)
    except ValidationError:
        return None


def _parse(model: type[Model], file: YamlFile, problems: list[Problem]) -> Model | None:
    """Return the file as `model`; on errors add them to `problems` and return None."""
    try:
        return model.model_validate(file.data)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            problems += _translate(model, file, detail)
        return None


def _translate(model: type[BaseModel], file: YamlFile, detail: Any) -> list[Problem]:
    location = tuple(part for part in detail["loc"] if part != "[key]")
    context = detail.get("ctx", {})
    kind = detail["type"]
    if kind == "findings":
        return [
            file.problem((*location, *where), message, value)
            for where, message, value in context["all"]
        ]
    if kind == "missing":
        return [file.problem(location, _MESSAGES[kind])]
    if kind == "extra_forbidden":
        keys = ", ".join(_keys_at(model, location[:-1]))
        return [file.problem(location, _MESSAGES[kind].format(keys=keys))]
    if kind == "allowed":
        return [file.problem(location, context["allowed"], detail["input"])]
    template = _MESSAGES.get(kind)
    message = template.format(**context) if template else detail["msg"]
    return [file.problem(location, message, detail["input"])]


def _keys_at(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """Return the keys that the model allows at a location."""
    current: Any = model
    for part in location:
        if isinstance(current, type) and issubclass(current, BaseModel):
            current = current.model_fields[str(part)].annotation
        else:
            current = _value_type(current)
        current = _without_none(current)
    if isinstance(current, type) and issubclass(current, BaseModel):
        return list(current.model_fields)
    return []


def _value_type(annotation: Any) -> Any:
    """Return the type of the values of dict[K, V], or of the items of tuple[V, ...]."""
    arguments = [part for part in getattr(annotation, "__args__", ()) if part is not Ellipsis]
    return arguments[-1] if arguments else None


def _without_none(annotation: Any) -> Any:
    arguments = [part for part in getattr(annotation, "__args__", ()) if part is not type(None)]
    is_optional = type(None) in getattr(annotation, "__args__", ())
    return arguments[0] if is_optional and len(arguments) == 1 else annotation
