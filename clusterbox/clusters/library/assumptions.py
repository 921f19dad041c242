"""Values that nobody has stated: who looks at one learns that the account has made it up.

A validator that looked at such a value has neither passed nor failed. What it found before it
looked does not depend on the value, and stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Listener = Callable[[str], None]
_listeners: list[Listener] = []


class NotAnsweredError(Exception):
    """The account has no answer to a call; the text says what it cannot know."""


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call `listener` with the reason of every made-up value that is looked at meanwhile."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def assume(reason: str) -> None:
    """Tell whoever listens that a value is made up; `reason` says what is not known."""
    # The innermost one asks; those around it have asked for something else.
    if _listeners:
        _listeners[-1](reason)


def refuse(reason: str) -> NotAnsweredError:
    """Return the error for a call without an answer, and tell whoever listens."""
    assume(reason)
    return NotAnsweredError(reason)


class Assumed(dict[str, Any]):
    """An answer whose values are made up: reading one of them tells so."""

    def __init__(self, values: dict[str, Any], reason: str) -> None:
        super().__init__(values)
        self.reason = reason

    def __getitem__(self, key: str) -> Any:
        """Return the value, and tell that it is made up."""
        assume(self.reason)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value or the default, and tell that it is made up."""
        assume(self.reason)
        return super().get(key, default)


class AssumedNumber(int):
    """A number that is made up: calculating or comparing with it tells so."""

    reason: str

    def __new__(cls, number: int, reason: str) -> AssumedNumber:
        """Return the number with the reason for which it is made up."""
        made = super().__new__(cls, number)
        made.reason = reason
        return made

    def __lt__(self, other: int) -> bool:
        """Compare, and tell that the result rests on a made-up number."""
        assume(self.reason)
        return int(self) < other

    def __gt__(self, other: int) -> bool:
        """Compare, and tell that the result rests on a made-up number."""
        assume(self.reason)
        return int(self) > other

    def __le__(self, other: int) -> bool:
        """Compare, and tell that the result rests on a made-up number."""
        return not self > other

    def __ge__(self, other: int) -> bool:
        """Compare, and tell that the result rests on a made-up number."""
        return not self < other

    def __rtruediv__(self, other: float) -> float:
        """Divide, and tell that the result rests on a made-up number."""
        assume(self.reason)
        return other / int(self)

    def __mul__(self, other: Any) -> Any:
        """Multiply, and tell that the result rests on a made-up number."""
        assume(self.reason)
        return int(self) * other

    __rmul__ = __mul__
    __hash__ = int.__hash__


class AssumedFlag:
    """A truth value that is made up, false: asking for it tells so."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __bool__(self) -> bool:
        """Return false, and tell that it is made up."""
        assume(self.reason)
        return False


class AssumedText(str):
    """A text that is made up: comparing it with another tells so.

    With `only_equal` it is telling only that it equals another, as a name in a list does.
    """

    reason: str
    only_equal: bool

    def __new__(cls, text: str, reason: str, *, only_equal: bool = False) -> AssumedText:
        """Return the text with the reason for which it is made up."""
        made = super().__new__(cls, text)
        made.reason, made.only_equal = reason, only_equal
        return made

    def __eq__(self, other: object) -> bool:
        """Compare, and tell that the result rests on a made-up text."""
        equal = str.__eq__(self, other) is True
        if equal or not self.only_equal:
            assume(self.reason)
        return equal

    def __ne__(self, other: object) -> bool:
        """Compare as `==` does."""
        return not self == other

    def __hash__(self) -> int:
        """Return the hash of the text."""
        return str.__hash__(self)


def reasons_in(value: Any) -> Iterator[str]:
    """Yield why the texts that a validator is given are made up, those in containers too."""
    if isinstance(value, AssumedText):
        yield value.reason
    elif isinstance(value, dict) and not isinstance(value, Assumed):
        for key, item in value.items():
            yield from reasons_in(key)
            yield from reasons_in(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from reasons_in(item)
