"""The address budget against a search through all distributions of small random cases."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import pytest

from clusterbox.errors import ProblemsError
from tests.site.cluster_texts import budgets, cluster, environment_of, queue

USABLE = {"10.0.%d.0/28": 11, "10.0.%d.0/27": 27}


def has_distribution(
    room: tuple[int, ...], demands: tuple[tuple[int, tuple[int, ...]], ...]
) -> bool:
    """Return whether all demands (addresses, subnets) find room, by trying every distribution."""

    @cache
    def place(left: tuple[int, ...], position: int, addresses: int) -> bool:
        if addresses == 0:
            if position + 1 == len(demands):
                return True
            return place(left, position + 1, demands[position + 1][0])
        subnets = demands[position][1]
        return any(
            place((*left[:subnet], left[subnet] - 1, *left[subnet + 1 :]), position, addresses - 1)
            for subnet in subnets
            if left[subnet]
        )

    return place(room, 0, demands[0][0])


@pytest.mark.parametrize("seed", range(60))
def test_the_budget_is_refused_exactly_where_no_distribution_exists(
    tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - the same cases in every run
    count = chance.randint(2, 4)
    ranges = [chance.choice(["10.0.%d.0/28", "10.0.%d.0/28", "10.0.%d.0/27"]) for _ in range(count)]
    room = [USABLE[cidr] for cidr in ranges]
    # Admin box, mount target and head node in compute.a, a mount target in compute.b.
    room[0] -= 3
    room[1] -= 1
    places = [
        tuple(sorted(chance.sample(range(count), chance.randint(1, 2))))
        for _ in range(chance.randint(2, 5))
    ]
    # Fill the subnets as far as a hidden distribution can, then ask for a little more or less.
    sizes = [1] * len(places)
    for subnet, free in enumerate(room):
        for _ in range(free):
            if takers := [n for n, place in enumerate(places) if subnet in place]:
                sizes[chance.choice(takers)] += 1
    changed = chance.randrange(len(places))
    sizes[changed] = max(1, sizes[changed] - chance.randint(0, 2 * len(places)))
    environment = environment_of(tmp_path, *(cidr % n for n, cidr in enumerate(ranges)))
    names = [f"compute.{letter}" for letter in "abcd"]
    text = cluster(
        *(
            queue(f"q{n}", [names[subnet] for subnet in subnets], f"MaxCount: {size}")
            for n, (subnets, size) in enumerate(zip(places, sizes, strict=True))
        )
    )
    try:
        budgets(environment, text)
        accepted = True
    except ProblemsError:
        accepted = False
    assert accepted == has_distribution(tuple(room), tuple(zip(sizes, places, strict=True)))


def test_the_search_finds_what_there_is_and_nothing_else() -> None:
    assert has_distribution((2, 2), ((2, (0,)), (2, (0, 1))))
    assert not has_distribution((2, 2), ((3, (0,)), (1, (0, 1))))
