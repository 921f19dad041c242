"""Read YAML strictly, and remember on which line each value stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from clusterbox.errors import InputError, Problem, ProblemsError

Location = tuple[str | int, ...]

# Aliases of aliases can make a short text stand for more values than any memory holds.
MOST_VALUES = 100_000
# Kinds of YAML 1.1 that have no place in a configuration; a set would pass for a list.
_REFUSED_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("binary", "omap", "pairs", "set")}


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which tells of a value that is not of its type as of any YAML error."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return the value of a node; raises ConstructorError whatever is wrong with it."""
        try:
            if node.tag in _REFUSED_TAGS:
                raise ValueError
            if isinstance(node, yaml.ScalarNode):
                node.value.encode()  # half of a surrogate pair could not be printed
            return super().construct_object(node, deep=deep)
        except (ValueError, LookupError, AttributeError) as error:
            kind = node.tag.rpartition(":")[2]
            found = _shorten(repr(node.value)) if isinstance(node, yaml.ScalarNode) else "this"
            raise yaml.constructor.ConstructorError(
                None, None, f"{found} cannot stand here as a YAML {kind}", node.start_mark
            ) from error


@dataclass(frozen=True)
class YamlFile:
    """The data of one YAML file and the line of each of its values."""

    name: str
    data: Any
    lines: dict[Location, int] = field(repr=False)

    def line_of(self, location: Sequence[str | int]) -> int | None:
        """Return the line (from 1) of a value, or of the nearest one that encloses it."""
        path = tuple(location)
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[:-1]
        return self.lines.get(())

    def problem(
        self, location: Sequence[str | int], message: str, value: object | None = None
    ) -> Problem:
        """Return a problem that names this file, the line and the dotted path of a value."""
        # Dates and truth values as YAML has them: 2024-01-31, true.
        found = str(value).lower() if isinstance(value, date | bool) else repr(value)
        return Problem(
            file=self.name,
            path=render_path(location),
            message=message,
            line=self.line_of(location),
            value=None if value is None else _shorten(found),
        )


def read_yaml(path: Path, *, name: str | None = None) -> YamlFile:
    """Return the strictly read YAML file at `path`; `name` is what messages call it.

    Raises InputError when the file cannot be read, is not YAML, is not a mapping, or has a
    key twice (YAML's own rule is to keep the last one silently).
    """
    shown = name or str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{shown}: there is no such file") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(f"{shown}:{line}: must be UTF-8 text") from error
    except OSError as error:
        raise InputError(f"{shown}: cannot be read: {error.strerror}") from error
    return parse_yaml(text, name=shown)


def parse_yaml(text: str, *, name: str) -> YamlFile:
    """Return the strictly parsed YAML text; raises InputError as `read_yaml` does."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise InputError(f"{name}: must be a mapping of keys to values")
        lines: dict[Location, int] = {}
        duplicates = list(_walk(node, (), lines))
        data = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{name}:{mark.line + 1}" if mark is not None else name
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise InputError(f"{where}: is not one YAML document: {said}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError(
            f"{name}:{line}: must be text without control characters"
            f" (found: {text[error.position]!r})"
        ) from error
    except yaml.YAMLError as error:
        raise InputError(f"{name}: is not YAML: {error}") from error
    except RecursionError as error:
        raise InputError(f"{name}: is nested too deeply, or an alias contains itself") from error
    if duplicates:
        raise ProblemsError(
            [
                Problem(
                    name, render_path(path), f"must stand only once; first on line {first}", line
                )
                for path, first, line in duplicates
            ]
        )
    return YamlFile(name=name, data=data, lines=lines)


def render_path(location: Sequence[str | int]) -> str:
    """Return a location as text: `clusters[0].name`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def value_at(data: Any, location: Sequence[str | int]) -> Any:
    """Return the value at a location of YAML data, or None where there is none."""
    for part in location:
        if isinstance(data, dict):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            return None
    return data


def _walk(
    node: yaml.Node, path: Location, lines: dict[Location, int]
) -> list[tuple[Location, int, int]]:
    """Fill `lines` from a node and what it holds; return the keys that stand twice."""
    lines.setdefault(path, node.start_mark.line + 1)
    if len(lines) > MOST_VALUES:
        raise yaml.composer.ComposerError(
            None, None, f"holds more than {MOST_VALUES} values", node.start_mark
        )
    duplicates: list[tuple[Location, int, int]] = []
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            child = (*path, str(key.value))
            line = key.start_mark.line + 1
            if child in lines:
                duplicates.append((child, lines[child], line))
                continue
            lines[child] = line
            duplicates += _walk(value, child, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            duplicates += _walk(item, (*path, index), lines)
    return duplicates


def _shorten(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
