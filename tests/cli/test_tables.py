from __future__ import annotations

import json

import pytest

from clusterbox.cli.tables import FORMATS, render_table

COLUMNS = ("name", "count")
ROWS: list[list[object]] = [["a|b", 1], ['say "hi", twice', None]]


def test_a_table_for_people_is_aligned() -> None:
    assert render_table(COLUMNS, ROWS, "table").splitlines() == [
        "name             count",
        "---------------  -----",
        "a|b              1",
        'say "hi", twice',
    ]


def test_csv_quotes_what_csv_must_quote() -> None:
    assert render_table(COLUMNS, ROWS, "csv").splitlines() == [
        "name,count",
        "a|b,1",
        '"say ""hi"", twice",',
    ]


def test_json_keeps_types_and_shows_what_is_unknown_as_null() -> None:
    assert json.loads(render_table(COLUMNS, ROWS, "json")) == [
        {"name": "a|b", "count": 1},
        {"name": 'say "hi", twice', "count": None},
    ]


def test_markdown_escapes_bars() -> None:
    assert render_table(COLUMNS, ROWS, "markdown").splitlines()[2] == r"| a\|b | 1 |"


@pytest.mark.parametrize("form", FORMATS)
def test_no_rows_still_make_a_valid_answer(form: str) -> None:
    text = render_table(COLUMNS, [], form)
    assert json.loads(text) == [] if form == "json" else text.startswith(("name", "| name"))


def test_a_table_for_a_terminal_is_cut_to_its_width() -> None:
    lines = render_table(COLUMNS, ROWS, "table", width=10).splitlines()
    assert lines[0] == "name     …"
    assert max(map(len, lines)) == 10
