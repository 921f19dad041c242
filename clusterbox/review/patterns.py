"""Patterns with `*` and `?`: which covers which, and which meet."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=100_000)
def pattern_covers(wide: str, narrow: str) -> bool:
    """Return whether everything that `narrow` matches is matched by `wide` (`*` and `?`)."""
    if wide in ("*", narrow):
        return True
    if "*" not in wide and "?" not in wide:
        return False
    # Reach[i] says that wide[:i] covers what was read of `narrow`.
    reach = [True] + [False] * len(wide)
    for i, letter in enumerate(wide):
        reach[i + 1] = reach[i] and letter == "*"
    for symbol in narrow:
        following = [False] * (len(wide) + 1)
        for i, letter in enumerate(wide):
            if letter == "*":
                following[i + 1] = reach[i + 1] or following[i]
            elif letter == symbol or (letter == "?" and symbol != "*"):
                following[i + 1] = reach[i]
        reach = following
    return reach[-1]


@lru_cache(maxsize=100_000)
def patterns_meet(one: str, other: str) -> bool:
    """Return whether some text is matched by both patterns."""
    reach = {(0, 0)}
    todo = [(0, 0)]
    while todo:
        i, j = todo.pop()
        if i == len(one) and j == len(other):
            return True
        a, b = one[i : i + 1], other[j : j + 1]
        steps = []
        if a == "*":
            steps += [(i + 1, j)] + ([(i, j + 1)] if b else [])
        if b == "*":
            steps += [(i, j + 1)] + ([(i + 1, j)] if a else [])
        if a and b and (a == b or "?" in (a, b)) and "*" not in (a, b):
            steps.append((i + 1, j + 1))
        for step in steps:
            if step not in reach:
                reach.add(step)
                todo.append(step)
    return False
