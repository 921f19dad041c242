"""Records of use as JSON lines."""

from __future__ import annotations

import itertools
from decimal import Decimal
from pathlib import Path

import pytest

from clusterbox.costs.usage import (
    Usage,
    merge_usage,
    parse_usage,
    read_usage,
    render_usage,
    write_usage,
)
from clusterbox.errors import InputError, ProblemsError
from tests.costs.meter_records import at, disk, head, run

FULL = Usage(
    (
        head(at("07:00:00"), public_ipv4=1),
        run(
            at("08:00:00"),
            at("09:00:00"),
            purchase="spot",
            gpus=4,
            ready=at("08:03:00"),
            released=at("08:59:00"),
            interrupted=True,
        ),
        run(at("10:00:00"), None, seen=at("11:00:00"), source="slurm"),
    ),
    (disk(at("07:00:00")), disk(at("07:00:00"), at("08:00:00"), id="vol-2", amount=Decimal("0.5"))),
)


def test_records_are_the_same_after_writing_and_reading(tmp_path: Path) -> None:
    path = tmp_path / "new" / "usage.jsonl"
    write_usage(FULL, path)
    assert read_usage(path) == FULL
    assert [file.name for file in path.parent.iterdir()] == ["usage.jsonl"]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_of_several_records_of_one_start_the_best_known_counts(order: tuple[int, ...]) -> None:
    looks = [
        run(at("08:00:00"), None, seen=at("08:10:00"), node=None, ready=at("08:04:00")),
        run(at("08:00:00"), None, seen=at("08:30:00"), cpus=None),
        run(at("08:00:00"), at("09:00:00"), node=None, cpus=None),
        run(at("08:00:00"), None),
    ]
    merged = merge_usage(*(Usage((looks[number],)) for number in order))
    assert merged.instances == (run(at("08:00:00"), at("09:00:00"), ready=at("08:04:00")),)


def test_a_record_of_now_counts_more_than_one_of_an_earlier_look() -> None:
    kept = Usage((run(at("08:00:00"), None, seen=at("08:30:00")),))
    now = Usage((run(at("08:00:00"), None),))
    assert merge_usage(now, kept).instances[0].seen is None


def test_all_wrong_lines_are_told_at_once() -> None:
    good = render_usage(FULL).splitlines()[0]
    lines = [
        "{",
        "[]",
        '{"record": "rocket"}',
        good,
        good.replace("HeadNode", "Kitchen"),
        good.replace("2025-11-03T07:00:00Z", "today"),
        good.replace('"zone"', '"zones"'),
        '{"record": "storage", "id": "v", "product": "ebs", "name": "gp3", "amount": -1}',
        good.replace('"public_ipv4": 1', '"end": "2025-11-03T06:00:00Z"'),
        good.replace('"public_ipv4": 1', '"cpus": "8"'),
    ]
    with pytest.raises(ProblemsError) as caught:
        parse_usage("\n".join(lines), name="u.jsonl")
    assert [problem.line for problem in caught.value.problems] == [1, 2, 3, 5, 6, 7, 8, 9, 10]
    assert "`node_type` must be one of HeadNode, Compute, LoginNode" in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_bad_input(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "u.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"u\.jsonl"):
        read_usage(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"node": "eco-dy-n-1"', '"node": ["x"]', "`node` must be text"),
        ('"queue": "eco"', '"queue": 5', "`queue` must be text"),
        ('"amount": "720"', '"amount": true', "`amount` must be a number, 0 or more .found: True"),
        ('"amount": "720"', '"amount": "1E999"', "`amount` must be a number"),
    ],
)
def test_a_value_of_the_wrong_kind_is_told(old: str, new: str, message: str) -> None:
    text = render_usage(Usage((run(at("08:00:00"), None),), (disk(at("08:00:00")),)))
    assert old in text
    with pytest.raises(ProblemsError, match=message):
        parse_usage(text.replace(old, new), name="usage.jsonl")
