from __future__ import annotations

import csv
import io

import pytest

from clusterbox.cli.costs_cells import safe_rows
from clusterbox.cli.tables import render_table

EVIL = ["=cmd|'/C calc'!A0", "@SUM(1)", "+1+1", "-2+3", "\tx"]


@pytest.mark.parametrize("text", EVIL)
def test_a_spreadsheet_computes_no_cell(text: str) -> None:
    table = render_table(["a"], safe_rows([[text]], "csv"), "csv")
    assert list(csv.reader(io.StringIO(table)))[1] == [f"'{text}"]


@pytest.mark.parametrize("text", ["ws-dev", "-12.50", "10.0.0.1", "a=b", ""])
def test_other_cells_stay(text: str) -> None:
    assert safe_rows([[text, None, 3]], "csv") == [[text, None, 3]]


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_no_cell_breaks_a_line_or_reaches_the_terminal(form: str) -> None:
    assert safe_rows([["a\nb\x1b[31mc", "ünï"]], form) == [["a b [31mc", "ünï"]]


def test_json_has_everything_as_it_is() -> None:
    assert safe_rows([["=a\nb"]], "json") == [["=a\nb"]]
