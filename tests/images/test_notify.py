from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError

from clusterbox.deployment.progress import Progress
from clusterbox.images import rollback
from clusterbox.images.context import Context
from clusterbox.images.notify import notify, render_notice, send_notice
from clusterbox.images.plan import Options, Plan, Step
from clusterbox.images.rollback import RunningPart
from clusterbox.site.environment import Environment
from tests.images import small_site
from tests.images.patch_day_record import STEPS, event, plan

TOPIC = "arn:aws:sns:us-west-2:123456789012:dev-patch-day"
MOVED = (
    Step(
        id="queues:dev-eco/eco,big",
        action="queues",
        subject={"cluster": "dev-eco", "queues": "eco,big"},
    ),
    Step(id="login:dev-eco/login", action="login", subject={"cluster": "dev-eco", "pool": "login"}),
    Step(id="head:dev-eco", action="head", subject={"cluster": "dev-eco"}),
)
BEFORE = Step(id="notify:before", action="notify", subject={"when": "before"})
AFTER = Step(id="notify:after", action="notify", subject={"when": "after"})


def a_plan(**more: Any) -> Plan:
    return plan((BEFORE, *STEPS, *MOVED, AFTER), **more)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return small_site.write(tmp_path)


class Topic:
    """SNS with one topic, or none."""

    def __init__(self, *, exists: bool = True) -> None:
        self.exists = exists
        self.sent: list[tuple[str, str]] = []
        self.tags: dict[str, str] = {}
        self.refuse: list[str] = []

    def client(self, service: str) -> Topic:
        assert service == "sns"
        return self

    def _check(self, arn: str) -> None:
        if self.refuse:
            raise ClientError({"Error": {"Code": self.refuse.pop(), "Message": "no"}}, "Call")
        if not self.exists or arn != TOPIC:
            raise ClientError({"Error": {"Code": "NotFound", "Message": "no topic"}}, "Call")

    def list_tags_for_resource(self, **words: str) -> dict[str, Any]:
        self._check(words["ResourceArn"])
        return {"Tags": [{"Key": key, "Value": value} for key, value in self.tags.items()]}

    def publish(self, **words: str) -> None:
        self._check(words["TopicArn"])
        self.sent.append((words["Subject"], words["Message"]))

    def tag_resource(self, **words: Any) -> None:
        self._check(words["ResourceArn"])
        self.tags |= {tag["Key"]: tag["Value"] for tag in words["Tags"]}


def test_users_read_before_what_happens_and_what_to_do(environment: Environment) -> None:
    notice = render_notice(environment, a_plan(), "before")
    assert notice.subject == "Patch day 2026-11-22 of dev: new images for the clusters"
    assert (
        notice.text
        == """\
The images of dev are made anew: compute.
Updates of the operating system and of the software of the site come with them.

When: from 2026-11-22T08:00:00+00:00 on, cluster by cluster.

What happens:
- dev-eco, queue eco, big: nodes are replaced as soon as their jobs have
  ended; jobs that wait start on new ones
- dev-eco, login nodes login: they end, and new ones start minutes later
- dev-eco, head node: no job starts while it is updated and restarted;
  sessions on it end, and jobs wait in their queues

What to do:
- Nothing for jobs: those that run go on to their end, those that wait start later.
- Save what is open on login and head nodes: sessions there end.

Questions: ada
"""
    )


def test_a_rollback_is_told_as_one(environment: Environment) -> None:
    text = render_notice(environment, a_plan(images=()), "before").text
    assert text.startswith("Clusters of dev go back to the images that they ran before.\n")


def test_a_window_the_end_of_jobs_and_what_is_left_out_are_told(environment: Environment) -> None:
    options = Options(
        window="22:00-04:00", window_time_zone="America/Denver", terminate=True, drain_seconds=7200
    )
    chosen = a_plan(options=options, unsupported=("dev-two does not stand",))
    text = render_notice(environment, chosen, "before").text
    assert "When: clusters are touched between 22:00-04:00 (America/Denver).\n" in text
    assert "- Jobs that run longer than 2 hours from then are ended and start again:\n" in text
    assert "Nothing for jobs" not in text
    assert "Not part of it:\n- dev-two does not stand\n" in text


def _done(*steps: str) -> list[dict[str, Any]]:
    verify = {"ami": "ami-000000aa", "kernel": "6.1.150", "slurm_version": "25.11.8"}
    return [
        event("done", 1, step, result=verify if step.startswith("verify") else {}) for step in steps
    ]


def test_users_read_afterwards_what_runs_where(environment: Environment) -> None:
    steps = [step.id for step in (*STEPS, *MOVED)]
    rows = [["dev-eco queue eco", "ami-000000aa", "ami-000000aa (2)", "as it should be"]]
    events = [*_done(*steps), event("noted", 2, what_runs=rows)]
    notice = render_notice(environment, a_plan(), "after", events)
    assert notice.subject == "Patch day 2026-11-22 of dev: done"
    assert "- image compute: ami-000000aa, kernel 6.1.150, Slurm 25.11.8\n" in notice.text
    assert "On the new images:\n- dev-eco, queue eco, big\n" in notice.text
    assert "Not moved" not in notice.text
    assert "- dev-eco queue eco: ami-000000aa, ami-000000aa (2), as it should be\n" in notice.text


def test_what_was_left_is_never_told_as_done(environment: Environment) -> None:
    skipped = event("skipped", 1, "head:dev-eco", result={"skipped": "left: 3 jobs run"})
    notice = render_notice(
        environment, a_plan(), "after", [*_done("verify:compute", MOVED[0].id), skipped]
    )
    assert notice.subject == "Patch day 2026-11-22 of dev: not complete"
    assert (
        "Not moved, and as before:\n- dev-eco, login nodes login\n"
        "- dev-eco, head node: left: 3 jobs run\n" in notice.text
    )


def _context(tmp_path: Path, environment: Environment, topic: Topic, **words: Any) -> Context:
    return Context(
        root=tmp_path,
        environment=environment,
        target=cast("Any", topic),
        progress=Progress(),
        plan=a_plan(users=("grace",)),
        **words,
    )


def test_a_notice_goes_out_once(tmp_path: Path, environment: Environment) -> None:
    topic = Topic()
    notes: list[dict[str, Any]] = []
    context = _context(
        tmp_path, environment, topic, note=lambda _event, **facts: notes.append(facts)
    )
    result = notify(context, BEFORE)
    assert notify(context, BEFORE) == result
    assert [subject for subject, _ in topic.sent] == [
        "Patch day 2026-11-22 of dev: new images for the clusters"
    ]
    assert (result["topic"], result["users"]) == (TOPIC, ["grace"])
    assert notes == [{"told": TOPIC, "subject": result["subject"]}]


def test_before_and_after_and_every_run_are_notices_of_their_own(
    tmp_path: Path, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = RunningPart(
        cluster="dev-eco",
        kind="head",
        name="",
        wanted="ami-1",
        launches=None,
        machines={"ami-2": 1},
    )
    monkeypatch.setattr(rollback, "what_runs", lambda _context: [head])
    topic = Topic()
    context = _context(tmp_path, environment, topic)
    notify(context, BEFORE)
    notify(context, AFTER)
    notify(replace(context, plan=replace(context.plan, run="2026-12-20")), BEFORE)
    assert len(topic.sent) == 3
    assert "- dev-eco head: ami-1, ami-2 (1), keeps its own image\n" in topic.sent[1][1]


def test_a_site_without_the_topic_goes_on_and_says_so(
    tmp_path: Path, environment: Environment
) -> None:
    result = notify(_context(tmp_path, environment, Topic(exists=False)), BEFORE)
    assert result["skipped"] == "there is no topic dev-patch-day; `clusterbox deploy dev` makes it"


def test_any_other_refusal_stops_it(tmp_path: Path, environment: Environment) -> None:
    topic = Topic()
    topic.refuse = ["AuthorizationError"]
    with pytest.raises(ClientError, match="AuthorizationError"):
        notify(_context(tmp_path, environment, topic), BEFORE)
    assert topic.sent == []


def test_a_notice_can_be_sent_by_hand(environment: Environment) -> None:
    topic = Topic()
    notice = render_notice(environment, a_plan(), "before")
    assert send_notice(cast("Any", topic), environment, notice).endswith(f"subscribers of {TOPIC}")
    assert topic.sent == [(notice.subject, notice.text)]
    said = send_notice(cast("Any", Topic(exists=False)), environment, notice)
    assert said.startswith("nobody was told: there is no topic dev-patch-day")
