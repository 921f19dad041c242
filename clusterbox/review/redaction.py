"""Take secrets out of text that people and platforms will see.

Two ways, one behind the other: what the files themselves tell to be a secret, by its name or form, is
hidden wherever it stands (`find_secrets`, `hide_secrets`); then whatever looks like one in a text
(`redact`).
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, TypeVar, cast

from clusterbox.clusters.plain_text_secrets import find_plain_text_secrets
from clusterbox.site.yaml_file import value_at

Item = TypeVar("Item")

HIDDEN = "***"

# A shorter one would be found in other words; where its name stands beside it, `redact` hides it.
_SHORTEST_SECRET = 6

# What looks like a secret wherever it stands.
_SECRETS = (
    re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),  # ids of AWS access keys
    re.compile(
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S
    ),
    re.compile(r"\bgh[pousr]_[A-Za-z0-9]{20,}\b"),  # tokens of GitHub
    re.compile(r"\bgithub_pat_[A-Za-z0-9_]{20,}\b"),
    re.compile(r"\bglpat-[A-Za-z0-9_-]{16,}"),  # tokens of GitLab
    re.compile(
        r"\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{5,}"
    ),  # JSON web tokens
    re.compile(r"(?<=://)[^/\s:@\"']+:[^/\s@\"']+(?=@)"),  # user and password in an address
)
# A key that holds a secret, as YAML, JSON, a Slurm setting or a command line has it; an ARN or a
# reference to a secret is none.
_KEY = (
    r"(?P<key>[\w-]*(?:password|passwd|passphrase|secret|token|api[_-]?key|access[_-]?key"
    r"|private[_-]?key|credential|storagepass)[\w-]*)"
)
_NAMED = re.compile(
    _KEY + r"(?P<between>[\"']?\s*(?:=\s*|:\s+|:(?=[\"']))|\s+(?=[\"']))"
    r"(?P<value>\"(?:[^\"\\]|\\.)*\"|'[^']*'|[^\s,;}\]]+)",
    re.I,
)
# Keys of that kind whose value is a name or a setting.
_NAME_KEYS = re.compile(r"(?:arn|name|id|type|length|path|file|policy|rotation|enabled)s?$", re.I)
_PLAIN_VALUES = re.compile(
    r"[\"']?(?:arn:|\$\{|\{\{resolve:|\{|\[|\*\*\*|true\b|false\b|null\b|required\b|optional\b|$)",
    re.I,
)


def find_secrets(documents: Iterable[Any]) -> tuple[str, ...]:
    """Return the texts that stand in the documents as secrets in plain text, the longest first."""
    found: set[str] = set()
    for document in documents:
        for location, _ in find_plain_text_secrets(document):
            value = str(value_at(document, location))
            # An option is told apart from its value: `--password=swordfish`.
            option, sign, rest = value.partition("=")
            secret = rest if sign and re.fullmatch(r"-*[\w.-]+", option) else value
            if len(secret) >= _SHORTEST_SECRET:
                # Differences of templates show texts as JSON has them.
                found |= {secret, json.dumps(secret)[1:-1]}
    return tuple(sorted(found, key=lambda secret: (-len(secret), secret)))


def hide_secrets(value: Item, secrets: tuple[str, ...]) -> Item:
    """Return a value of dataclasses, mappings and sequences in which no text holds a secret."""
    return cast(Item, _hidden(value, secrets)) if secrets else value


def _hidden(value: Any, secrets: tuple[str, ...]) -> Any:
    if isinstance(value, Enum):
        return value
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, HIDDEN)
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            item.name: _hidden(getattr(value, item.name), secrets)
            for item in dataclasses.fields(value)
        }
        return dataclasses.replace(value, **fields)
    if isinstance(value, Mapping):
        return {_hidden(key, secrets): _hidden(item, secrets) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_hidden(item, secrets) for item in value)
    return value


def redact(text: str) -> str:
    """Return the text with everything that looks like a secret replaced by `***`."""
    for pattern in _SECRETS:
        text = pattern.sub(HIDDEN, text)
    return _NAMED.sub(_hide, text)


def _hide(match: re.Match[str]) -> str:
    if _NAME_KEYS.search(match["key"]) or _PLAIN_VALUES.match(match["value"]):
        return match[0]
    return f"{match['key']}{match['between']}{HIDDEN}"


# A line of a difference: how deep it stands, what it does, and what it holds.
_LINE = re.compile(r"(?P<depth>[^\[]*)\[(?P<sign>[-+~])\] (?P<rest>.*)", re.S)
_SECRET_LINE = re.compile(r"(?:Added: |Removed: )?\.?" + _KEY + r":?\s*$", re.I)


def redact_difference(text: str) -> str:
    """Return a difference of `@aws-cdk/cloudformation-diff` without secrets.

    It writes a key on one line and its values on the lines below, deeper.
    """
    lines = []
    hidden_below: int | None = None
    for line in text.split("\n"):
        match = _LINE.fullmatch(line)
        depth = len(match["depth"]) if match else 0
        if hidden_below is not None and match and depth <= hidden_below:
            hidden_below = None
        if hidden_below is not None and match:
            lines.append(f"{match['depth']}[{match['sign']}] {HIDDEN}")
            continue
        if match and (named := _SECRET_LINE.fullmatch(match["rest"])):
            hidden_below = None if _NAME_KEYS.search(named["key"]) else depth
        lines.append(line)
    return redact("\n".join(lines))
