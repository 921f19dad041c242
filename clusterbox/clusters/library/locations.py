"""Where in a configuration a finding stands: the section of a resource, then the key in it."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

from pcluster.config.common import Resource

Location = tuple[str | int, ...]

# Attributes of the library's model that are called otherwise in the configuration.
_KEYS = {"queues": "slurmqueues", "settings": "slurmsettings"}
# Arguments of validators that are called otherwise in the configuration.
_ARGUMENTS = {
    "bucket": "customs3bucket",
    "imagevolume": "size",
    "policy": "permissionsboundary",
    "rolearn": "instancerole",
    "rootvolumesize": "size",
    "volumeiops": "iops",
    "volumesize": "size",
    "volumethroughput": "throughput",
    "headnodeinstancetype": "instancetype",
}
# Shorter texts are quoted in messages by chance.
_QUOTABLE = 3
_SURE = 3


def locate_resources(config: Resource, configuration: Mapping[str, Any]) -> dict[int, Location]:
    """Return where each resource of a loaded configuration is written, by `id(resource)`.

    A resource that nobody wrote, because a default made it, has the location of the section that
    encloses it.
    """
    located: dict[int, Location] = {}
    _locate(config, configuration, (), located)
    return located


def _locate(resource: Resource, section: Any, path: Location, located: dict[int, Location]) -> None:
    if id(resource) in located:
        return
    located[id(resource)] = path
    for attribute, value in vars(resource).items():
        children = value if isinstance(value, list) else [value]
        if not any(isinstance(child, Resource) for child in children):
            continue
        below = _find_key(section, attribute)
        for index, child in enumerate(children):
            if not isinstance(child, Resource):
                continue
            if below is None:
                _locate(child, None, path, located)
                continue
            found, where = below
            if isinstance(value, list):
                inner = found[index] if isinstance(found, list) and index < len(found) else None
                _locate(child, inner, (*path, *where, index), located)
            else:
                _locate(child, found, (*path, *where), located)


def _find_key(section: Any, attribute: str) -> tuple[Any, Location] | None:
    """Return what stands under the key of an attribute, also where it stands in the settings.

    The library's shared storage has the keys of `EfsSettings` and its like as its own.
    """
    if not isinstance(section, Mapping):
        return None
    wanted = _plain(attribute)
    wanted = _KEYS.get(wanted, wanted)
    for key, value in section.items():
        if _plain(key) == wanted:
            return value, (key,)
    for key, value in section.items():
        if key.endswith("Settings") and isinstance(value, Mapping) and "StorageType" in section:
            inner = _find_key(value, attribute)
            if inner is not None:
                return inner[0], (key, *inner[1])
    return None


def calling_resources(frame: FrameType | None) -> list[Resource]:
    """Return the resources that a registration of a validator is about, the innermost first.

    The library registers many validators of a queue or a compute resource on the whole cluster, in
    loops over them: the variables of the loops around the calling line are what it is about.
    """
    found: list[Resource] = []
    while frame is not None:
        arguments = inspect.getargvalues(frame)
        names = [
            *reversed(_loop_variables(frame.f_code.co_filename, frame.f_lineno)),
            *(name for name in arguments.args if name != "self"),
        ]
        found += [
            value for name in names if isinstance(value := frame.f_locals.get(name), Resource)
        ]
        if frame.f_code.co_name == "_register_validators":
            break
        frame = frame.f_back
    return found


def _loop_variables(file: str, line: int) -> list[str]:
    return [name for first, last, names in _loops(file) if first <= line <= last for name in names]


@cache
def _loops(file: str) -> list[tuple[int, int, list[str]]]:
    """Return the lines and variables of the loops of a source file, outer ones first."""
    tree = ast.parse(Path(file).read_text("utf-8"))
    loops = [
        (
            node.lineno,
            node.end_lineno or node.lineno,
            [name.id for name in ast.walk(node.target) if isinstance(name, ast.Name)],
        )
        for node in ast.walk(tree)
        if isinstance(node, ast.For)
    ]
    return sorted(loops)


def refine(
    configuration: Mapping[str, Any],
    section: Location,
    arguments: Mapping[str, Any],
    message: str,
) -> Location:
    """Return the location of the key that a message is about, or the section's own.

    A key is meant when an argument of the validator has its name and its value, or when the
    message quotes its value; among keys that are equally meant, the section that holds them all
    is taken, and of values that must not stand twice, the last one.
    """
    scored = [
        (score, location)
        for location, value in leaves(value_at(configuration, section), section)
        if (score := _score(location, value, arguments, message)) >= _SURE
    ]
    # Which section it is, is known; its name in a message says no more.
    name = (*section, "Name")
    scored = [item for item in scored if item[1] != name] or scored
    if scored:
        best = max(score for score, _ in scored)
        meant = [location for score, location in scored if score == best]
        if len(meant) == 1:
            return meant[0]
        values = {str(value_at(configuration, location)) for location in meant}
        if len(values) == 1 and re.search(r"unique|multiple times|same|duplicate", message):
            # A queue and its compute resources may share a name; the outermost have to differ.
            outermost = min(map(len, meant))
            return [location for location in meant if len(location) == outermost][-1]
        shared = _common(meant)
        return shared if len(shared) > len(section) else section
    return _mentioned(configuration, section, message)


def _score(location: Location, value: Any, arguments: Mapping[str, Any], message: str) -> int:
    written = next((part for part in reversed(location) if isinstance(part, str)), "")
    key = _plain(written)
    text = str(value)
    if "Tags" in location and "tag" not in message.lower():
        return 0
    score = 0
    for name, argument in arguments.items():
        plain = _plain(name)
        if not isinstance(argument, str | int | float) or str(argument).lower() != text.lower():
            continue
        if key in (plain, _ARGUMENTS.get(plain, plain)):
            score = max(score, 4)
        elif len(text) >= _QUOTABLE and not isinstance(argument, bool):
            score = max(score, 2)
    # A name that stands twice is quoted on purpose, however short it is.
    quotable = len(text) >= _QUOTABLE or (written == "Name" and "unique" in message)
    if quotable and _has_word(message, text):
        score += 3
    if score and _has_word(message, written):
        score += 5
    elif key in message.replace(" ", "").lower():
        score += 1
    return score


def _mentioned(configuration: Mapping[str, Any], section: Location, message: str) -> Location:
    """Return the key of the section that a message names, when it names exactly one."""
    named = [
        location
        for location in keys(value_at(configuration, section), section)
        if len(str(location[-1])) > _QUOTABLE and _has_word(message, str(location[-1]))
    ]
    # The outermost key of those that a message names is nearest to its section.
    named.sort(key=len)
    if named and (len(named) == 1 or len(named[0]) < len(named[1])):
        return named[0]
    return section


def leaves(data: Any, location: Location) -> Iterator[tuple[Location, Any]]:
    """Yield every value that is neither mapping nor list, with its location."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            yield from leaves(value, (*location, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from leaves(value, (*location, index))
    elif data is not None and location:
        yield location, data


def keys(data: Any, location: Location) -> Iterator[Location]:
    """Yield the location of every key of a section."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            yield (*location, key)
            yield from keys(value, (*location, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from keys(value, (*location, index))


def value_at(data: Any, location: Sequence[str | int]) -> Any:
    """Return the value at a location, None where there is none."""
    for part in location:
        if isinstance(data, Mapping):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            return None
    return data


def _common(locations: Sequence[Location]) -> Location:
    shared: list[str | int] = []
    for parts in zip(*locations, strict=False):
        if len(set(parts)) != 1:
            break
        shared.append(parts[0])
    return tuple(shared)


def _has_word(text: str, word: str) -> bool:
    return re.search(rf"(?<![\w.-]){re.escape(word)}(?![\w-])", text) is not None


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
