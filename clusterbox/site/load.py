"""Load environments, the image lock and its pins, reporting every problem at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from clusterbox.errors import InputError, Problem, ProblemsError
from clusterbox.site import names
from clusterbox.site.environment import ClusterEntry, Environment
from clusterbox.site.images import LOCK, ClusterPins, ImageLock, LockedImage
from clusterbox.site.pins import NamedImage, find_pin_problems, pinned_images
from clusterbox.site.yaml_file import Location, YamlFile, parse_yaml, read_yaml, value_at

Model = TypeVar("Model", bound=BaseModel)

_MESSAGES = {
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "string_type": "must be text; put it in quotes",
    "model_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
    "tuple_type": "must be a list",
    "too_short": "must not be empty",
    "too_long": "must hold at most {max_length} values",
    "greater_than_equal": "must be {ge} or more",
    "less_than_equal": "must be {le} or less",
    "string_too_short": "must not be empty",
    "literal_error": "must be one of {expected}",
}


@dataclass(frozen=True)
class Repository:
    """The folder that holds `environments/`, `cluster_configs/` and `ami/`."""

    root: Path

    def environment_names(self) -> list[str]:
        """Return the names of all environments, sorted."""
        files = (self.root / "environments").glob("*.yaml")
        return sorted(
            path.stem for path in files if path.is_file() and not path.name.startswith(".")
        )

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
        environment = parse_model(Environment, file, problems)
        reported = {problem.path for problem in problems}
        crossing = [*self._find_cross_problems(file, name)]
        problems += [problem for problem in crossing if problem.path not in reported]
        if environment is None or problems:
            raise ProblemsError(sort_problems(problems))
        return environment

    def load_images(self, environment: Environment) -> dict[str, LockedImage]:
        """Return the locked images that the environment uses, by name.

        Raises ProblemsError when the lock is malformed or lacks one of them.
        """
        file, lock = self._read_lock()
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

    def load_lock(self) -> ImageLock:
        """Return the whole lock of images, of all environments, with its pins.

        Raises ProblemsError with everything malformed in it. What the pins say is not compared with
        the clusters: `load_pins` does that.
        """
        return self._read_lock()[1]

    def load_pins(self, environment: Environment, cluster: str) -> ClusterPins:
        """Return what parts of a cluster are pinned to; nothing is the usual case.

        Raises ProblemsError where the lock is malformed, or pins what there is not: an environment,
        a cluster of this environment, or a part of this cluster that can be pinned.
        """
        file, lock = self._read_lock()
        problems = [*self._find_unknown_pins(file, lock, environment)]
        pins = lock.pins_of(environment.name, cluster)
        entry = next((entry for entry in environment.clusters if entry.name == cluster), None)
        if pins and entry is not None:
            where = ("pins", environment.name, cluster)
            problems += [
                file.problem((*where, *inside), message, value)
                for inside, message, value in find_pin_problems(self.load_cluster(entry), pins)
            ]
        if problems:
            raise ProblemsError(sort_problems(problems))
        return pins

    def load_seeded_images(self, environment: Environment) -> dict[str, LockedImage]:
        """Return every image of the environment that parts run, or that a rollback would bring back.

        The locked ones go by their names, all others by name and id: `compute-ami-0c0ffee2`. Raises
        ProblemsError as `load_images` and `load_pins` do.
        """
        images = self.load_images(environment)
        others = [
            NamedImage(name, LockedImage(**image.previous.model_dump()))
            for name, image in images.items()
            if image.previous is not None
        ]
        for entry in environment.clusters:
            pins = self.load_pins(environment, entry.name)
            others += pinned_images(self.load_cluster(entry), pins, images)
        return {**{f"{item.image}-{item.entry.ami}": item.entry for item in others}, **images}

    def load_cluster(self, entry: ClusterEntry) -> YamlFile:
        """Return the cluster's native configuration, with its references unresolved."""
        file = read_yaml(
            self.root / "cluster_configs" / entry.config, name=f"cluster_configs/{entry.config}"
        )
        problems = list(_find_untransportable(file, file.data, ()))
        if problems:
            raise ProblemsError(problems)
        return file

    def _read_lock(self) -> tuple[YamlFile, ImageLock]:
        file = read_yaml(self.root / LOCK, name=str(LOCK))
        return file, _parse_lock(file)

    def _find_unknown_pins(
        self, file: YamlFile, lock: ImageLock, environment: Environment
    ) -> Iterator[Problem]:
        """Yield pins of unknown environments, and of clusters that this environment has not."""
        known = self.environment_names()
        for name in lock.pins:
            if name not in known:
                yield file.problem(
                    ("pins", name), f"must be one of environments/: {', '.join(known)}", name
                )
        clusters = [entry.name for entry in environment.clusters]
        for name in lock.pins.get(environment.name, {}):
            if name not in clusters:
                listed = ", ".join(clusters) or "none yet"
                yield file.problem(
                    ("pins", environment.name, name),
                    f"must be a cluster of environments/{environment.name}.yaml: {listed}",
                    name,
                )

    def _find_cross_problems(self, file: YamlFile, name: str) -> Iterator[Problem]:
        """Yield what is wrong between sections, from the plain data: any part may be malformed."""
        if (found := file.data.get("name")) != name:
            yield file.problem(("name",), f"must be {name}, as the file is called", found)
        if "cluster" in name.split("-"):
            # Stacks of clusters are told by ENVIRONMENT-cluster-NAME.
            yield file.problem(("name",), "must not have cluster as one of its words", name)
        yield from _find_unknown_subnets(file)
        images = value_at(file.data, ("images",))
        for machine in ("admin_box", "monitoring"):
            image = value_at(file.data, (machine, "image"))
            if isinstance(images, list) and isinstance(image, str) and image not in images:
                known = ", ".join(map(str, images)) or "none yet"
                yield file.problem((machine, "image"), f"must be one of images: {known}", image)
        yield from _find_unknown_budgets(file)
        yield from _find_too_few_zones(file)
        configs = sorted(path.name for path in (self.root / "cluster_configs").glob("*.yaml"))
        known = ", ".join(configs) or "none yet"
        first: dict[str, int] = {}
        for index, entry in enumerate(_list_at(file, "clusters")):
            cluster = value_at(entry, ("name",))
            if isinstance(cluster, str) and first.setdefault(cluster, index) != index:
                yield file.problem(
                    ("clusters", index, "name"),
                    f"must differ from clusters[{first[cluster]}]",
                    cluster,
                )
            if isinstance(cluster, str):
                yield from _find_name_problems(file, index, name, cluster)
            config = value_at(entry, ("config",))
            if isinstance(config, str) and config not in configs:
                yield file.problem(
                    ("clusters", index, "config"),
                    f"must be a file of cluster_configs/: {known}",
                    config,
                )


def parse_lock(text: str) -> ImageLock:
    """Return the lock of a text; raises ProblemsError with everything malformed in it."""
    return _parse_lock(parse_yaml(text, name=str(LOCK)))


def _parse_lock(file: YamlFile) -> ImageLock:
    problems: list[Problem] = []
    lock = parse_model(ImageLock, file, problems)
    if lock is None:
        raise ProblemsError(sort_problems(problems))
    return lock


def _find_name_problems(
    file: YamlFile, index: int, environment: str, cluster: str
) -> Iterator[Problem]:
    """Yield why a cluster cannot have its name: stacks and roles are named after it."""
    where = ("clusters", index, "name")
    # ParallelCluster's stack has the cluster's name, and ours start with the environment's.
    own = {f"{environment}-{unit}" for unit in names.UNITS} | {names.BOOTSTRAP_STACK}
    if cluster in own or cluster.startswith(f"{environment}-cluster-"):
        yield file.problem(where, "must not be the name of one of the site's own stacks", cluster)
    prefix = value_at(file.data, ("hosting", "iam_name_prefix"))
    if isinstance(prefix, str):
        left = names.ROLE_NAME_CHARACTERS - len(prefix) - len("-head-node")
        if len(cluster) > left:
            yield file.problem(
                where,
                f"must hold at most {left} characters with iam_name_prefix {prefix}: IAM allows "
                f"{names.ROLE_NAME_CHARACTERS} for the roles named after both",
                cluster,
            )


def _find_untransportable(file: YamlFile, data: Any, location: Location) -> Iterator[Problem]:
    """Yield what a cluster's configuration holds that CloudFormation cannot carry as JSON."""
    if isinstance(data, dict):
        for key, value in data.items():
            if not isinstance(key, str):
                yield file.problem(location, "must have text as keys; put them in quotes", key)
            elif "${" in key:
                yield file.problem(
                    (*location, key), "must not be a reference: they stand in values"
                )
            yield from _find_untransportable(file, value, (*location, str(key)))
    elif isinstance(data, list):
        for index, item in enumerate(data):
            yield from _find_untransportable(file, item, (*location, index))
    elif not (data is None or isinstance(data, str | int | float)):
        yield file.problem(
            location, "must be text, a number, true or false; put it in quotes", data
        )


def _find_unknown_subnets(file: YamlFile) -> Iterator[Problem]:
    groups = value_at(file.data, ("network", "subnets"))
    if not isinstance(groups, dict):
        return
    known = [
        f"{group}.{zone}"
        for group, zones in groups.items()
        for zone in (zones if isinstance(zones, dict) else ())
    ]
    named: list[Location] = [("admin_box", "subnet"), ("monitoring", "subnet")]
    file_systems = value_at(file.data, ("storage", "file_systems"))
    for name in file_systems if isinstance(file_systems, dict) else ():
        where = ("storage", "file_systems", name, "subnets")
        named += [(*where, index) for index in range(len(_list_at(file, *where)))]
    database = ("accounting_database", "subnets")
    named += [(*database, index) for index in range(len(_list_at(file, *database)))]
    for location in named:
        subnet = value_at(file.data, location)
        if isinstance(subnet, str) and subnet not in known:
            yield file.problem(
                location, f"must be one of the network's subnets: {', '.join(known)}", subnet
            )


def _find_unknown_budgets(file: YamlFile) -> Iterator[Problem]:
    known = [value_at(entry, ("name",)) for entry in _list_at(file, "clusters")]
    budgets = value_at(file.data, ("budgets", "clusters"))
    for name in budgets if isinstance(budgets, dict) else ():
        if name not in known:
            listed = ", ".join(map(str, known)) or "none yet"
            yield file.problem(
                ("budgets", "clusters", name), f"must be a cluster of this file: {listed}", name
            )


def _find_too_few_zones(file: YamlFile) -> Iterator[Problem]:
    """Yield subnets of one zone for the accounting database: RDS wants two of them."""
    where = ("accounting_database", "subnets")
    given = [name for name in _list_at(file, *where) if isinstance(name, str)]
    if not given or len({name.rpartition(".")[2] for name in given}) > 1:
        return
    groups = value_at(file.data, ("network", "subnets"))
    zones = {
        zone
        for group in (groups.values() if isinstance(groups, dict) else ())
        for zone in (group if isinstance(group, dict) else ())
    }
    message = "must be of two or more zones: RDS makes no database in fewer"
    if len(zones) < 2:
        message += (
            "; network.subnets has one zone only, so name a subnet of another one there, or give "
            "host and secret of a database that exists"
        )
    yield file.problem(where, message, given)


def _list_at(file: YamlFile, *location: str | int) -> list[Any]:
    found = value_at(file.data, location)
    return found if isinstance(found, list) else []


def sort_problems(problems: Sequence[Problem]) -> list[Problem]:
    """Return problems in the order of their files, lines and paths."""
    return sorted(problems, key=lambda problem: (problem.file, problem.line or 0, problem.path))


def parse_model(model: type[Model], file: YamlFile, problems: list[Problem]) -> Model | None:
    """Return the file as `model`; on errors add them to `problems` and return None."""
    try:
        return model.model_validate(file.data)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            problems += _translate(model, file, detail)
        return None


def _translate(model: type[BaseModel], file: YamlFile, detail: Any) -> list[Problem]:
    """Return the problems of one of pydantic's errors, in our words."""
    kind, location, context = detail["type"], tuple(detail["loc"]), detail.get("ctx", {})
    if kind == "findings":
        return [
            file.problem((*location, *where), message, value)
            for where, message, value in context["all"]
        ]
    if kind in ("extra_forbidden", "invalid_key"):
        section = _type_at(model, location[:-1])
        keys = ", ".join(section.model_fields)
        location = (*location[:-1], str(location[-1]))
        return [file.problem(location, f"is not a known key; allowed here: {keys}")]
    if kind == "missing":
        field = _type_at(model, location[:-1]).model_fields[str(location[-1])]
        return [file.problem(location, f"must be given: {field.description}")]
    if location[-1] == "[key]":
        location = (*location[:-2], str(location[-2]))
    if kind == "allowed":
        message = context["allowed"]
    elif kind in _MESSAGES:
        message = _MESSAGES[kind].format(**context)
    else:
        message = "must be a value of another kind"
    return [file.problem(location, message, detail["input"])]


def _type_at(model: type[BaseModel], location: Sequence[str | int]) -> Any:
    """Return the type that the model has at a location, without Annotated and None."""
    current: Any = model
    for part in location:
        if isinstance(current, type) and issubclass(current, BaseModel):
            current = current.model_fields[str(part)].annotation
        else:  # dict[K, V] or tuple[V, ...]
            current = [kind for kind in get_args(current) if kind is not Ellipsis][-1]
        current = _plain(current)
    return current


def _plain(annotation: Any) -> Any:
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return _plain(next(kind for kind in get_args(annotation) if kind is not NoneType))
    return annotation
