"""Find passwords, keys and tokens that stand in a configuration in plain text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from clusterbox.site.yaml_file import Location

# Texts that are secrets by their form. Sources: the prefixes in AWS's "IAM identifiers", GitHub's
# "About authentication", GitLab's "Token prefixes", Slack's "Token types", RFC 7468 and RFC 7519.
_FORMS = {
    "an AWS access key": re.compile(r"(?<![A-Z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])"),
    "a private key": re.compile(r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----"),
    "a GitHub token": re.compile(r"gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{50}"),
    "a GitLab token": re.compile(r"gl(?:pat|dt|rt|ptt|cbt)-[A-Za-z0-9_-]{20}"),
    "a Slack token": re.compile(r"xox[abeprs]-[A-Za-z0-9-]{10}"),
    "a web token": re.compile(r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\."),
    "a password in an address": re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@]+:[^/\s:@$]+@"),
}
# Names whose value is a secret: those with one of these words, and those that end in one.
_PASSWORDS = {"password", "passwd", "passphrase", "pwd"}
_SECRETS = {
    "pass", "storagepass", "secret", "secrets", "token", "apikey", "credential", "credentials",
    "privatekey", "secretkey", "authtoken",
}  # fmt: skip
_SECRET_PAIRS = {("api", "key"), ("private", "key"), ("access", "key"), ("encryption", "key")}
# Last words that turn a secret into something about it: PasswordSecretArn, token_file.
_ABOUT_WORDS = {
    "arn", "authentication", "count", "days", "enabled", "expiration", "expiry", "file", "hash",
    "host", "id", "length", "mode", "name", "path", "policy", "port", "region", "rotation", "store",
    "ttl", "type", "uri", "url", "version",
}  # fmt: skip
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
# Values that say where a secret is, or that there is none.
_HARMLESS = re.compile(
    r"|arn:.*|/.*|[a-z][a-z0-9+.-]*://.*|\$.*|\{\{.*\}\}|<.*>|%.*%|[*xX.]+"
    r"|true|false|yes|no|none|null|[0-9]+",
    re.IGNORECASE | re.DOTALL,
)
_OPTION = re.compile(r"--?([A-Za-z][\w.-]*)(?:=(.*))?", re.DOTALL)
_ASSIGNMENT = re.compile(r"([A-Za-z_][\w.-]*)=(.*)", re.DOTALL)


def find_plain_text_secrets(value: Any) -> Iterator[tuple[Location, str]]:
    """Yield where a secret stands in plain text, and what it is in words, never the secret.

    Secrets are told by their form, or by the name that they are given to: a key, a tag, an option
    or an assignment among arguments, a key of JSON in a text. ARNs, paths and addresses are not.
    """
    yield from _search(value, (), "")


def _search(value: Any, location: Location, name: str) -> Iterator[tuple[Location, str]]:
    if isinstance(value, Mapping):
        if set(value) == {"Key", "Value"}:
            yield from _search(value["Value"], (*location, "Value"), str(value["Key"]))
            return
        for key, item in value.items():
            yield from _search(item, (*location, str(key)), str(key))
    elif isinstance(value, list):
        option = ""
        for index, item in enumerate(value):
            yield from _search(item, (*location, index), option)
            match = _OPTION.fullmatch(item) if isinstance(item, str) else None
            option = match[1] if match and match[2] is None else ""
    elif isinstance(value, str):
        what = describe_secret(name, value)
        if what is not None:
            yield location, what


def describe_secret(name: str, text: str) -> str | None:
    """Return what secret a text under a name is, in words without the secret; None for none."""
    for what, form in _FORMS.items():
        if form.search(text):
            return what
    if _is_secret_name(name) and not _HARMLESS.fullmatch(text.strip()):
        return f"the value of {name}"
    match = _OPTION.fullmatch(text) or _ASSIGNMENT.fullmatch(text)
    if match and match[2] is not None:
        return describe_secret(match[1], match[2])
    return _describe_json(text)


def _describe_json(text: str) -> str | None:
    """Return the first secret in a text of JSON, such as ExtraChefAttributes."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        inside = json.loads(text)
    except ValueError:
        return None
    return next((what for _, what in find_plain_text_secrets(inside)), None)


def _is_secret_name(name: str) -> bool:
    words = [word.lower() for word in _WORD.findall(name) if not word.isdigit()]
    if not words or words[-1] in _ABOUT_WORDS:
        return False
    endings = {words[-1], "".join(words)}
    return bool(_PASSWORDS & set(words) or _SECRETS & endings or tuple(words[-2:]) in _SECRET_PAIRS)
