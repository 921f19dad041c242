"""What to do about each finding, as advice.yaml says it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml

_FILE = Path(__file__).with_name("advice.yaml")
# ParallelCluster derives validators with a time limit at run time, under this prefix.
_TIMED = "AsyncTimed"
_UNKNOWN = (
    "Change the value that the message names; the user guide of ParallelCluster 3 has its limits."
)


class _Advice(NamedTuple):
    """One text of advice, and the part of a message for which it holds, if not for all."""

    when: str | None
    text: str


def advise(rule: str, message: str) -> str:
    """Return what to do about a finding of a rule, in one or two sentences.

    A rule that advice.yaml does not have, such as a validator of a later ParallelCluster, gets a
    general text.
    """
    for advice in _load().get(rule.removeprefix(_TIMED), ()):
        if advice.when is None or advice.when.lower() in message.lower():
            return advice.text
    return _UNKNOWN


def advised_rules() -> frozenset[str]:
    """Return the names of all rules that there is advice for."""
    return frozenset(_load())


@cache
def _load() -> dict[str, tuple[_Advice, ...]]:
    loaded = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return {
        rule: (_Advice(None, given),)
        if isinstance(given, str)
        else tuple(_Advice(item.get("when"), item["advice"]) for item in given)
        for rule, given in loaded.items()
    }
