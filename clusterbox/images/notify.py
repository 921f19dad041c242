"""What users are told before and after a patch day, and how: by the environment's SNS topic."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from clusterbox.images.context import Context, Result
from clusterbox.images.plan import Options, Plan, Step
from clusterbox.site import names

if TYPE_CHECKING:
    from clusterbox.deployment.targets import Target
    from clusterbox.site.environment import Environment

When = Literal["before", "after"]
# On the topic: the last notice that went out, so that a second call sends none.
TAG_TOLD = "clusterbox:told"
# SNS takes no longer subject of a mail (API reference of Publish).
_SUBJECT_CHARACTERS = 99
_LINE_CHARACTERS = 76
_ABSENT = {"NotFound", "NotFoundException"}


@dataclass(frozen=True)
class Notice:
    """A mail to the users of an environment: plain text, in lines."""

    subject: str
    text: str


def notify(context: Context, step: Step) -> Result:
    """Tell the users what a patch day does, or what it did, by the `when` of the step.

    Returns the `topic` and the `subject`; without a topic it is skipped, and says so. A second call
    sends nothing; only after a kill at the very moment of sending the notice can go out twice.
    """
    when: When = "after" if step.subject.get("when") == "after" else "before"
    environment = context.environment
    events = [
        {
            "event": "skipped" if result.get("skipped") else "done",
            "step": name,
            "result": result,
        }
        for name, result in context.results.items()
    ]
    if when == "after":
        events.append(note_what_runs(context))
    notice = render_notice(environment, context.plan, when, events)
    sns = context.client("sns")
    mark = f"{context.plan.run} {when}"
    topic = topic_arn(environment)
    told = _read_told(sns, topic)
    if told is None:
        return {"skipped": _no_topic(environment), "subject": notice.subject}
    if told != mark:
        sns.publish(TopicArn=topic, Subject=notice.subject, Message=notice.text)
        sns.tag_resource(ResourceArn=topic, Tags=[{"Key": TAG_TOLD, "Value": mark}])
        context.note("noted", told=topic, subject=notice.subject)
    return {"topic": topic, "subject": notice.subject, "users": list(context.plan.users)}


def send_notice(target: Target, environment: Environment, notice: Notice) -> str:
    """Send a notice, and return in a sentence where it went."""
    from botocore.exceptions import ClientError

    topic = topic_arn(environment)
    try:
        target.client("sns").publish(TopicArn=topic, Subject=notice.subject, Message=notice.text)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") not in _ABSENT:
            raise
        return f"nobody was told: {_no_topic(environment)}"
    return f"sent to the subscribers of {topic}"


def topic_arn(environment: Environment) -> str:
    """Return the ARN of the topic of the environment's users."""
    place = f"{environment.region}:{environment.account}"
    return f"arn:{environment.partition}:sns:{place}:{names.patch_day_topic(environment)}"


def render_notice(
    environment: Environment, plan: Plan, when: When, events: Iterable[Mapping[str, Any]] = ()
) -> Notice:
    """Return what users read: what, when, which clusters, what they notice and what to do.

    `events` are those of the release record; the notice afterwards tells what they say.
    """
    subject = f"Patch day {plan.run} of {environment.name}: "
    if when == "before":
        subject += "new images for the clusters"
        lines = [*_before(environment, plan)]
    else:
        events = list(events)
        lines = [*_after(environment, plan, events)]
        subject += "done" if _is_complete(plan, events) else "not complete"
    return Notice(subject[:_SUBJECT_CHARACTERS], "\n".join(lines) + "\n")


def _before(environment: Environment, plan: Plan) -> Iterator[str]:
    if plan.images:
        images = ", ".join(image.image for image in plan.images)
        yield f"The images of {environment.name} are made anew: {images}."
        yield "Updates of the operating system and of the software of the site come with them."
    else:
        yield f"Clusters of {environment.name} go back to the images that they ran before."
    yield ""
    options = plan.options
    if options.window:
        yield f"When: clusters are touched between {options.window} ({options.window_time_zone})."
    else:
        yield f"When: from {plan.created} on, cluster by cluster."
    yield ""
    yield "What happens:"
    for step in plan.steps:
        if sentence := _describe(step, options):
            yield _item(sentence)
    yield ""
    yield "What to do:"
    if options.terminate:
        hours = f"{options.drain_seconds / 3600:g}"
        yield f"- Jobs that run longer than {hours} hours from then are ended and start again:"
        yield "  have them write checkpoints."
    else:
        yield "- Nothing for jobs: those that run go on to their end, those that wait start later."
    if any(step.action in ("login", "head", "replace") for step in plan.steps):
        yield "- Save what is open on login and head nodes: sessions there end."
    if plan.unsupported:
        yield ""
        yield "Not part of it:"
        yield from map(_item, plan.unsupported)
    yield ""
    yield f"Questions: {environment.tags.Owner}"


def _item(sentence: str) -> str:
    """Return a sentence as an item of a list, in lines that a mail shows as they are."""
    return textwrap.fill(
        f"- {sentence}",
        _LINE_CHARACTERS,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _describe(step: Step, options: Options) -> str | None:
    """Return what users notice of a step; None where that is nothing."""
    subject = step.subject
    cluster = subject.get("cluster", "")
    if step.action == "queues":
        queues = subject["queues"].replace(",", ", ")
        only = " once nothing runs on the cluster" if options.when_idle else ""
        return (
            f"{cluster}, queue {queues}: nodes are replaced{only} as soon as their jobs have ended; "
            "jobs that wait start on new ones"
        )
    if step.action == "login":
        return (
            f"{cluster}, login nodes {subject['pool']}: they end, and new ones start minutes later"
        )
    if step.action == "head":
        return (
            f"{cluster}, head node: no job starts while it is updated and restarted; sessions on it "
            "end, and jobs wait in their queues"
        )
    if step.action == "replace":
        return (
            f"{cluster}: a second cluster takes its place, with the same files; log in to that one "
            "when you are told its address"
        )
    if step.action == "admin-box":
        return "the admin box is made anew; sessions on it end"
    return None


def _after(environment: Environment, plan: Plan, events: list[Mapping[str, Any]]) -> Iterator[str]:
    results = {
        str(event["step"]): event.get("result") or {}
        for event in events
        if event.get("event") in ("done", "skipped") and "step" in event
    }
    complete = _is_complete(plan, events)
    yield f"The patch day {plan.run} of {environment.name} is {'done' if complete else 'not complete'}."
    yield ""
    for image in plan.images:
        verify = results.get(f"verify:{image.image}", {})
        kernel = verify.get("kernel") or "not known"
        slurm = f", Slurm {verify['slurm_version']}" if verify.get("slurm_version") else ""
        yield f"- image {image.image}: {verify.get('ami', 'not made')}, kernel {kernel}{slurm}"
    moved = [step for step in plan.steps if _describe(step, plan.options)]
    for title, chosen in (
        ("On the new images:", [step for step in moved if _is_done(results.get(step.id))]),
        (
            "Not moved, and as before:",
            [step for step in moved if not _is_done(results.get(step.id))],
        ),
    ):
        if chosen:
            yield ""
            yield title
            for step in chosen:
                why = (results.get(step.id) or {}).get("skipped")
                yield f"- {_name(step)}{f': {why}' if why else ''}"
    rows = next((event["what_runs"] for event in reversed(events) if "what_runs" in event), None)
    if rows:
        yield ""
        yield "What runs which image:"
        yield from (f"- {row[0]}: {', '.join(map(str, row[1:]))}" for row in rows)
    yield ""
    yield "What to do: log in again where your session ended. What worked before and does not now:"
    yield f"tell {environment.tags.Owner}."


def _name(step: Step) -> str:
    subject = step.subject
    cluster = subject.get("cluster", "")
    return {
        "queues": f"{cluster}, queue {subject.get('queues', '').replace(',', ', ')}",
        "login": f"{cluster}, login nodes {subject.get('pool', '')}",
        "head": f"{cluster}, head node",
        "replace": f"{cluster}, the whole cluster",
        "admin-box": "the admin box",
    }.get(step.action, step.id)


def _is_done(result: Mapping[str, Any] | None) -> bool:
    return result is not None and not result.get("skipped")


def _is_complete(plan: Plan, events: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether every step before the last notice is done."""
    done = {event.get("step") for event in events if event.get("event") == "done"}
    return all(step.id in done for step in plan.steps if step.action != "notify")


def note_what_runs(context: Context) -> dict[str, Any]:
    """Record what runs on which image now, for the report, and return that event.

    A row is a part, its AMI by the lock, what runs with the number of machines, and its state.
    """
    from clusterbox.images.rollback import what_runs

    rows = [
        [
            " ".join(filter(None, [part.cluster, part.kind, part.name])),
            part.wanted or "AWS's own",
            ", ".join(f"{ami} ({count})" for ami, count in part.machines.items()) or "no machine",
            part.state,
        ]
        for part in what_runs(context)
    ]
    context.note("noted", what_runs=rows)
    return {"event": "noted", "what_runs": rows}


def _read_told(sns: Any, topic: str) -> str | None:
    """Return what the topic was told last, or None where there is no such topic."""
    from botocore.exceptions import ClientError

    try:
        tags = sns.list_tags_for_resource(ResourceArn=topic)["Tags"]
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in {*_ABSENT, "ResourceNotFound", "ResourceNotFoundException"}:
            return None
        raise
    return next((str(tag["Value"]) for tag in tags if tag["Key"] == TAG_TOLD), "")


def _no_topic(environment: Environment) -> str:
    name = names.patch_day_topic(environment)
    return f"there is no topic {name}; `clusterbox deploy {environment.name}` makes it"
