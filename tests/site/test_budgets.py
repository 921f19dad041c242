from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from tests.site.site_files import EXISTING, load, problems_of

BUDGETS = """\
budgets:
  monthly_usd: 3000
  notify: [ada@example.gov]
  clusters:
    dev-eco:
      monthly_usd: 700.10
      accounts:
        rivers: {monthly_usd: 0.01, max_submit_jobs: 5}
"""


def test_budgets_are_exact_amounts(tmp_path: Path) -> None:
    budgets = load(tmp_path, EXISTING + BUDGETS).budgets
    assert budgets is not None
    assert budgets.clusters_usd == Decimal("700.1")
    assert budgets.warn_percent == (50, 80, 100)
    cluster = budgets.clusters["dev-eco"]
    assert (cluster.when_spent, cluster.max_array_size) == ("drain", 1001)
    assert cluster.accounts["rivers"].monthly_usd == Decimal("0.01")


def test_an_environment_may_have_no_budgets(tmp_path: Path) -> None:
    assert load(tmp_path, EXISTING).budgets is None


@pytest.mark.parametrize(
    "amount", ["0", "-1", "0.001", "'700'", "true", ".inf", ".nan", "[1]", "100000001"]
)
def test_what_is_no_amount_is_refused(tmp_path: Path, amount: str) -> None:
    text = EXISTING + BUDGETS.replace("700.10", amount)
    (problem,) = problems_of(tmp_path, text)
    assert "budgets.clusters.dev-eco.monthly_usd: must be an amount in USD" in problem


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dev-eco:", "other:", "budgets.clusters.other: must be a cluster of this file: dev-eco"),
        ("ada@example.gov", "ada", "budgets.notify[0]: must be one mail address"),
        ("ada@example.gov", "", "budgets.notify: must not be empty"),
        ("rivers:", "Rivers:", "must start with a small letter"),
        ("max_submit_jobs: 5", "max_submit_jobs: 0", "must be 1 or more"),
        ("  monthly_usd: 3000", "  warn_percent: [0]\n  monthly_usd: 3000", "must be 1 or more"),
        ("  monthly_usd: 3000\n", "", "budgets.monthly_usd: must be given"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in BUDGETS
    problems = problems_of(tmp_path, EXISTING + BUDGETS.replace(old, new))
    assert any(message in problem for problem in problems)
