"""Edit the clusters of an environment file as text, so that its comments stay.

Every edit is compared with what it must mean: a file that is written in a way that these few rules
do not know is left as it is, and edited by hand.
"""

from __future__ import annotations

import copy
import re
from typing import Any

from clusterbox.errors import InputError
from clusterbox.site.yaml_file import YamlFile, parse_yaml, value_at


def add_cluster(text: str, name: str, like: str) -> str:
    """Return the file with a cluster after the one that it is `like`, with the same settings.

    Raises InputError where there is no such one, there is one of that name, or the file cannot be
    edited this way.
    """
    file = parse_yaml(text, name="the environment")
    index = _index(file, like)
    if any(value_at(entry, ("name",)) == name for entry in _entries(file)):
        raise InputError(f"there is a cluster {name} already")
    wanted = copy.deepcopy(file.data)
    wanted["clusters"].insert(index + 1, {**wanted["clusters"][index], "name": name})
    lines = _lines(text)
    start, end = _block(file, lines, index)
    block = "".join(line for line in lines[start:end] if not line.lstrip().startswith("#"))
    pattern = rf"(\bname:\s*)(['\"]?){re.escape(like)}\2(?=[\s,}}]|$)"
    copied = re.sub(pattern, rf"\g<1>\g<2>{name}\g<2>", block, count=1)
    return _checked("".join([*lines[:end], copied, *lines[end:]]), wanted, f"a cluster {name}")


def replace_cluster(text: str, old: str, new: str) -> str:
    """Return the file without the cluster `old`, whose budget, if it has one, becomes that of `new`.

    Raises InputError where it has no such cluster, or cannot be edited this way.
    """
    file = parse_yaml(text, name="the environment")
    index = _index(file, old)
    wanted = copy.deepcopy(file.data)
    del wanted["clusters"][index]
    lines = _lines(text)
    budgets = value_at(wanted, ("budgets", "clusters"))
    if isinstance(budgets, dict) and old in budgets:
        line = file.line_of(("budgets", "clusters", old))
        wanted["budgets"]["clusters"] = {
            new if key == old else key: value for key, value in budgets.items()
        }
        if line is not None:
            pattern = rf"^(\s*['\"]?){re.escape(old)}(?=['\"]?\s*:)"
            lines[line - 1] = re.sub(pattern, rf"\g<1>{new}", lines[line - 1], count=1)
    start, end = _block(file, lines, index)
    return _checked("".join(lines[:start] + lines[end:]), wanted, f"no cluster {old}")


def _entries(file: YamlFile) -> list[Any]:
    found = value_at(file.data, ("clusters",))
    return found if isinstance(found, list) else []


def _index(file: YamlFile, name: str) -> int:
    entries = _entries(file)
    for index, entry in enumerate(entries):
        if value_at(entry, ("name",)) == name:
            return index
    known = ", ".join(str(value_at(entry, ("name",))) for entry in entries) or "none"
    raise InputError(f"there is no cluster {name}; there are: {known}")


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True) if text.endswith("\n") else _lines(f"{text}\n")


def _block(file: YamlFile, lines: list[str], index: int) -> tuple[int, int]:
    """Return the first line of an entry, counted from 0, and the one after its last."""
    first = file.line_of(("clusters", index))
    if first is None or not lines[first - 1].lstrip().startswith("- "):
        raise InputError("its clusters are not written one after another; edit the file by hand")
    start = first - 1
    indent = len(lines[start]) - len(lines[start].lstrip())
    end = start + 1
    while end < len(lines):
        line = lines[end]
        if not line.strip() or len(line) - len(line.lstrip()) <= indent:
            break
        end += 1
    return start, end


def _checked(text: str, wanted: Any, what: str) -> str:
    if parse_yaml(text, name="the environment").data != wanted:
        raise InputError(f"it is written in a way that cannot be edited; edit it by hand: {what}")
    return text
