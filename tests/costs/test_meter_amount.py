from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterbox.costs.meter_amount import Amount, render_amount, round_parts, to_decimal


def test_rounded_parts_add_up_to_the_rounded_sum() -> None:
    thirds = [Fraction(1, 3)] * 3
    assert round_parts(thirds, 2) == [Decimal("0.34"), Decimal("0.33"), Decimal("0.33")]


def test_the_largest_remainders_get_the_missing_cents() -> None:
    parts = [Fraction("0.014"), Fraction("0.018"), Fraction("0.018")]
    assert round_parts(parts, 2) == [Decimal("0.01"), Decimal("0.02"), Decimal("0.02")]


@given(
    st.lists(st.fractions(min_value=0, max_value=10**6), max_size=20),
    st.integers(min_value=0, max_value=4),
)
def test_parts_are_rounded_by_less_than_a_unit_and_to_the_sum(
    parts: list[Fraction], digits: int
) -> None:
    rounded = round_parts(parts, digits)
    assert sum(rounded, Decimal(0)) == to_decimal(sum(parts, Fraction(0)), digits)
    unit = Fraction(1, 10**digits)
    assert all(abs(Fraction(one) - part) < unit for one, part in zip(rounded, parts, strict=True))


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (Amount(Fraction(5, 4)), "1.25"),
        (Amount(), "0.00"),
        (Amount(Fraction(0), Fraction(10)), "unknown"),
        (Amount(Fraction(5, 4), Fraction(10)), "1.25 + unknown"),
    ],
)
def test_what_is_not_known_is_said_and_never_shown_as_nothing(amount: Amount, text: str) -> None:
    assert render_amount(amount, to_decimal(amount.usd, 2)) == text
