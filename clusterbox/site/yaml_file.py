"""Read YAML strictly, and remember on which line each value stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from clusterbox.errors import InputError, Problem, ProblemsError

Location = tuple[str | int, ...]


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
        found = None if value is None else _shorten(repr(value))
        return Problem(
            file=self.name,
            path=render_path(location),
            message=message,
            line=self.line_of(location),
            value=found,
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
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{shown}: cannot be read: {error}") from error
    return parse_yaml(text, name=shown)


def parse_yaml(text: str, *, name: str) -> YamlFile:
    """Return the strictly parsed YAML text; raises InputError as `read_yaml` does."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise InputError(f"{name}: must be a mapping of keys to values")
        lines: dict[Location, int] = {}
        duplicates = list(_walk(node, (), lines))
        data = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{name}:{mark.line + 1}" if mark is not None else name
        raise InputError(f"{where}: is not YAML: {error.problem or error}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{name}: is not YAML: {error}") from error
    except RecursionError as error:
        raise InputError(f"{name}: is nested too deeply, or an alias contains itself") from error
    finally:
        loader.dispose()
    if duplicates:
        raise ProblemsError(
            [
                Problem(name, render_path(path), f"stands twice; first on line {first}", line)
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


def _walk(
    node: yaml.Node, path: Location, lines: dict[Location, int]
) -> list[tuple[Location, int, int]]:
    """Fill `lines` from a node and what it holds; return the keys that stand twice."""
    lines.setdefault(path, node.start_mark.line + 1)
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
