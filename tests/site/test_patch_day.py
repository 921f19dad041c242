from __future__ import annotations

from pathlib import Path

import pytest

from clusterbox.images.plan import Options
from tests.site.site_files import EXISTING, load, problems_of

PATCH_DAY = """\
patch_day:
  schedule: second Tuesday 22:05
  time_zone: America/Denver
  notify: [ada@example.gov]
"""


def test_an_environment_may_plan_no_patch_day(tmp_path: Path) -> None:
    assert load(tmp_path, EXISTING).patch_day is None


@pytest.mark.parametrize(
    ("schedule", "expression"),
    [
        ("first Sunday 00:00", "cron(0 0 ? * 1#1 *)"),
        ("second Tuesday 22:05", "cron(5 22 ? * 3#2 *)"),
        ("fourth Saturday 09:30", "cron(30 9 ? * 7#4 *)"),
        ("last Friday 23:59", "cron(59 23 ? * 6L *)"),
        ("cron(0 22 ? * 3#2 *)", "cron(0 22 ? * 3#2 *)"),
        ("cron(15 6 1 */2 ? *)", "cron(15 6 1 */2 ? *)"),
    ],
)
def test_the_nth_weekday_of_a_month_becomes_a_cron_expression(
    tmp_path: Path, schedule: str, expression: str
) -> None:
    text = PATCH_DAY.replace("second Tuesday 22:05", schedule)
    patch_day = load(tmp_path, EXISTING + text).patch_day
    assert patch_day is not None
    assert patch_day.schedule_expression == expression


def test_without_a_schedule_somebody_starts_it(tmp_path: Path) -> None:
    text = PATCH_DAY.replace("  schedule: second Tuesday 22:05\n", "")
    patch_day = load(tmp_path, EXISTING + text).patch_day
    assert patch_day is not None
    assert patch_day.schedule_expression is None


def test_what_is_not_given_is_what_a_plan_has_anyway(tmp_path: Path) -> None:
    text = PATCH_DAY.replace("  time_zone: America/Denver\n", "")
    patch_day = load(tmp_path, EXISTING + text).patch_day
    assert patch_day is not None
    assert Options(**patch_day.options) == Options()


def test_what_is_given_becomes_the_options_of_a_plan(tmp_path: Path) -> None:
    more = (
        '  window: "22:00-04:00"\n  canary: dev-eco/spot\n  head: leave\n  when_idle: true\n'
        "  resize_head: t3.xlarge\n  drain_hours: 2\n  gate_minutes: 5\n  keep: 0\n"
    )
    patch_day = load(tmp_path, EXISTING + PATCH_DAY + more).patch_day
    assert patch_day is not None
    assert Options(**patch_day.options) == Options(
        canary="dev-eco/spot",
        head="leave",
        resize_head="t3.xlarge",
        drain_seconds=7200.0,
        when_idle=True,
        window="22:00-04:00",
        window_time_zone="America/Denver",
        gate_seconds=300.0,
        keep=0,
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("second Tuesday", "fifth Tuesday", "patch_day.schedule: must be such as second Tuesday"),
        ("second Tuesday", "second tuesday", "patch_day.schedule: must be such as"),
        ("22:05", "24:00", "patch_day.schedule: must be such as"),
        ("second Tuesday 22:05", "cron(0 22 * * * *)", "patch_day.schedule: must be such as"),
        ("second Tuesday 22:05", "rate(1 day)", "patch_day.schedule: must be such as"),
        ("America/Denver", "America/Nowhere", "patch_day.time_zone: must be a time zone that exi"),
        ("America/Denver", "../passwd", "patch_day.time_zone: must be a time zone, such as"),
        ("  notify: [ada@example.gov]\n", "", "patch_day.notify: must be given"),
        ("[ada@example.gov]", "[]", "patch_day.notify: must not be empty"),
        ("  time_zone", "  window: 22-04\n  time_zone", "must be two times of a day in quotes"),
        ("  time_zone", "  canary: eco\n  time_zone", "must be a cluster of this file and one of"),
        (
            "  time_zone",
            "  canary: other/eco\n  time_zone",
            "patch_day.canary: must name a cluster of this file: dev-eco",
        ),
        (
            "  time_zone",
            "  pipeline: gitlab\n  time_zone",
            "patch_day.token_secret: must be given: the schedule starts the pipeline of gitlab",
        ),
        (
            "  time_zone",
            "  pipeline: gitlab\n  token_secret: some/token\n  time_zone",
            "there is no hosting.ci.gitlab",
        ),
        (
            "  time_zone",
            "  token_secret: 'arn:aws:secretsmanager'\n  time_zone",
            "must be the name of a secret of Secrets Manager, not its ARN",
        ),
        ("  time_zone", "  max_age_days: 0\n  time_zone", "must be 1 or more"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in PATCH_DAY
    problems = problems_of(tmp_path, EXISTING + PATCH_DAY.replace(old, new))
    assert any(message in problem for problem in problems), problems


def test_no_image_has_the_name_under_which_rollouts_publish(tmp_path: Path) -> None:
    assert "images: [compute" in EXISTING
    problems = problems_of(tmp_path, EXISTING.replace("images: [compute", "images: [pins, compute"))
    assert any("images[0]: must not be pins" in problem for problem in problems), problems
