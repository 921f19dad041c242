from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from clusterbox.costs.native import decimal, number


@pytest.mark.parametrize("value", [-3, "-0.5", float("inf"), float("nan"), "many", True, None, []])
def test_what_is_no_count_or_size_is_none(value: Any) -> None:
    assert decimal(value) is None
    assert number(value, 7) == 7


def test_numbers_may_be_text() -> None:
    assert decimal("0.25") == Decimal("0.25")
    assert number("40", 7) == 40
    assert number(0, 7) == 0
