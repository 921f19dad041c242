"""The report of a patch day, from its release record: what changed, how long it took, what failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clusterbox.images.packages import (
    Advisories,
    Change,
    Fixes,
    compare_advisories,
    compare_packages,
)
from clusterbox.images.plan import Plan
from clusterbox.images.record import ENDINGS, Event, Store, done_results
from clusterbox.images.timeline import StepTime, expected_seconds, read_times, show_seconds
from clusterbox.review.markup import code, details, plural, table, text

__all__ = ["expected_seconds", "read_report", "render_html", "render_markdown"]

# Runs in which the facts of an image's predecessor are looked for: two years of patch days.
_EARLIER_RUNS = 24


@dataclass(frozen=True, kw_only=True)
class ImageReport:
    """One image: what it is now and was before; None where that is not known."""

    image: str
    ami: str | None
    before: str | None
    parent: str | None
    verify: Mapping[str, Any] = field(default_factory=dict)
    # The verification of the image before, from the record of the run that made it.
    earlier: Mapping[str, Any] = field(default_factory=dict)

    @property
    def changes(self) -> list[Change] | None:
        """What changed of the packages; None where one of both lists is not recorded."""
        old, new = self.earlier.get("packages"), self.verify.get("packages")
        if not isinstance(old, Mapping) or not isinstance(new, Mapping):
            return None
        return compare_packages(old, new)

    @property
    def fixes(self) -> Fixes:
        """What the package manager says of security advisories."""
        return compare_advisories(_advisories(self.earlier), _advisories(self.verify), self.changes)


@dataclass(frozen=True, kw_only=True)
class HeadReport:
    """One head node that was patched in place; None where the record does not say it."""

    cluster: str
    instance: str | None
    kernel_before: str | None
    kernel_after: str | None
    snapshot: str | None
    changes: tuple[Change, ...] | None
    modules_gone: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """One run, as both pages show it."""

    run: str
    environment: str
    state: str
    who: tuple[str, ...]
    begun: str
    ended: str
    images: tuple[ImageReport, ...]
    heads: tuple[HeadReport, ...]
    times: tuple[StepTime, ...]
    unsupported: tuple[str, ...]
    users: tuple[str, ...]
    cost_usd: str | None
    # Part, AMI by the lock, what runs and its state at the end, where it was recorded.
    what_runs: tuple[tuple[str, ...], ...]
    told: tuple[str, ...]
    retired: tuple[str, ...]
    merge_request: str | None

    @property
    def title(self) -> str:
        """The heading."""
        return f"Patch day {self.run} of {self.environment}"

    @property
    def failures(self) -> list[StepTime]:
        """The steps that did not come to a good end."""
        return [time for time in self.times if time.state in ("failed", "stopped", "cut off")]


def render_markdown(store: Store, run: str) -> str:
    """Return the report of a run as Markdown; nothing in it is more than the text it stands for."""
    report = read_report(store, run)
    parts = [f"# {text(report.title)}", _summary(report)]
    if report.images:
        parts += ["## Images", table(IMAGE_COLUMNS, [_cells(row) for row in image_rows(report)])]
    for image in report.images:
        parts += [f"### {text(image.image)}: packages", _packages(image), _advisories_text(image)]
    if report.heads:
        parts += ["## Head nodes", table(HEAD_COLUMNS, [_cells(row) for row in head_rows(report)])]
    for head in report.heads:
        if head.changes is not None:
            parts += [f"### Head node of {text(head.cluster)}: packages", _changes(head.changes)]
    parts += ["## Steps", table(STEP_COLUMNS, [_cells(row) for row in step_rows(report)])]
    if report.failures:
        parts.append("## Failures")
        for time in report.failures:
            parts.append(f"- {code(time.step)} {text(time.state)}: {text(time.reason)}")
    parts += _ending(report)
    return "\n\n".join(part for part in parts if part) + "\n"


def render_html(store: Store, run: str) -> str:
    """Return the report of a run as one HTML page, which needs no network and no other file."""
    from clusterbox.images.report_page import render_page

    return render_page(read_report(store, run))


def read_report(store: Store, run: str) -> Report:
    """Return what the record of a run says, and of its images' predecessors what older ones say."""
    events, plan = store.read(run), store.read_plan(run)
    results = done_results(events)
    notes = [event for event in events if event.get("event") == "noted"]
    before = {
        str(note["image"]): note.get("before")
        for note in notes
        if "locked" in note and "image" in note
    }
    names = [image.image for image in plan.images] if plan else []
    earlier = _find_earlier(
        store, run, {name: str(before[name]) for name in names if before.get(name)}
    )
    return Report(
        run=run,
        environment=plan.environment if plan else "an unknown environment",
        state=_state(events, plan),
        who=tuple(dict.fromkeys(str(event["who"]) for event in events if event.get("who"))),
        begun=str(events[0].get("at", "")) if events else "",
        ended=str(events[-1].get("at", "")) if events else "",
        images=tuple(
            ImageReport(
                image=image.image,
                ami=results.get(f"bake:{image.image}", {}).get("ami"),
                before=before.get(image.image),
                parent=results.get(f"bake:{image.image}", {}).get("parent") or image.parent,
                verify=results.get(f"verify:{image.image}", {}),
                earlier=earlier.get(image.image, {}),
            )
            for image in (plan.images if plan else ())
        ),
        heads=tuple(
            _read_head(result)
            for step, result in results.items()
            if step.startswith("head:") and not result.get("skipped")
        ),
        times=tuple(read_times(plan, events)),
        unsupported=plan.unsupported if plan else (),
        users=plan.users if plan else (),
        cost_usd=plan.cost_usd if plan else None,
        what_runs=_last_rows(notes),
        told=tuple(str(note.get("subject", "")) for note in notes if "told" in note),
        retired=tuple(str(note["retired"]) for note in notes if "retired" in note),
        merge_request=results.get("promote", {}).get("merge_request"),
    )


def _read_head(result: Mapping[str, Any]) -> HeadReport:
    """Return what patching a head node returned (head_node.py)."""
    packages = result.get("packages")
    changes = None
    if isinstance(packages, Mapping):
        added = [Change(name, None, str(new)) for name, new in packages.get("added", {}).items()]
        removed = [
            Change(name, str(old), None) for name, old in packages.get("removed", {}).items()
        ]
        upgraded = [
            Change(name, str(old), str(new))
            for name, (old, new) in packages.get("upgraded", {}).items()
        ]
        changes = tuple(sorted([*added, *removed, *upgraded], key=lambda change: change.name))
    return HeadReport(
        cluster=str(result.get("cluster", "")),
        instance=result.get("instance"),
        kernel_before=result.get("kernel_before"),
        kernel_after=result.get("kernel_after"),
        snapshot=result.get("snapshot"),
        changes=changes,
        modules_gone=tuple(map(str, result.get("modules_gone") or ())),
    )


def _find_earlier(
    store: Store, run: str, before: Mapping[str, str]
) -> dict[str, Mapping[str, Any]]:
    """Return the verification of each image's predecessor, from the runs before this one."""
    found: dict[str, Mapping[str, Any]] = {}
    runs = store.runs()
    older = runs[: runs.index(run)] if run in runs else []
    for earlier in reversed(older[-_EARLIER_RUNS:]):
        if len(found) == len(before):
            break
        results = done_results(store.read(earlier))
        for image, ami in before.items():
            verify = results.get(f"verify:{image}", {})
            if verify.get("ami") == ami:
                found.setdefault(image, verify)
    return found


def _state(events: Sequence[Event], plan: Plan | None) -> str:
    ends = [str(event["event"]) for event in events if event.get("event") in ENDINGS]
    if ends:
        return ends[-1]
    if any(time.state == "failed" for time in read_times(plan, events)):
        return "stopped at a failure"
    return "not complete"


def _last_rows(notes: Sequence[Event]) -> tuple[tuple[str, ...], ...]:
    rows = next((note["what_runs"] for note in reversed(notes) if "what_runs" in note), ())
    return tuple(tuple(map(str, row)) for row in rows)


def _advisories(verify: Mapping[str, Any]) -> Advisories | None:
    found = verify.get("advisories")
    return found if isinstance(found, Mapping) else None


IMAGE_COLUMNS = ("image", "AMI", "before", "kernel", "before", "Slurm", "parent", "checks")
HEAD_COLUMNS = ("cluster", "kernel", "before", "packages", "modules gone", "machine", "snapshot")
STEP_COLUMNS = ("step", "state", "began", "took", "expected", "attempts")
RUNS_COLUMNS = ("part", "by the lock", "runs (machines)", "state")
PACKAGE_COLUMNS = ("package", "before", "after")
ADVISORY_COLUMNS = ("advisory", "severity", "CVEs", "packages")


def image_rows(report: Report) -> list[tuple[str, ...]]:
    """Return a row for each image, as plain text; what is not known says so."""
    return [
        (
            image.image,
            image.ami or "not made",
            image.before or "not known",
            str(image.verify.get("kernel") or "not known"),
            str(image.earlier.get("kernel") or "not known"),
            str(image.verify.get("slurm_version") or ""),
            image.parent or "",
            _checks(image.verify),
        )
        for image in report.images
    ]


def head_rows(report: Report) -> list[tuple[str, ...]]:
    """Return a row for each head node that was patched, as plain text."""
    return [
        (
            head.cluster,
            head.kernel_after or "not known",
            head.kernel_before or "not known",
            "not known" if head.changes is None else count_changes(head.changes),
            ", ".join(head.modules_gone),
            head.instance or "",
            head.snapshot or "none",
        )
        for head in report.heads
    ]


def step_rows(report: Report) -> list[tuple[str, ...]]:
    """Return a row for each step, as plain text."""
    return [
        (
            time.step,
            time.state,
            time.attempts[0].start.strftime("%Y-%m-%d %H:%M:%S") if time.attempts else "",
            show_seconds(time.seconds),
            show_seconds(time.expected),
            str(len(time.attempts)),
        )
        for time in report.times
    ]


def _checks(verify: Mapping[str, Any]) -> str:
    checks = verify.get("checks") or ()
    held = sum(bool(check.get("ok")) for check in checks)
    return f"{held} of {len(checks)} held" if checks else "none recorded"


def _cells(row: Sequence[str]) -> list[str]:
    return [text(cell) for cell in row]


def facts(report: Report) -> list[tuple[str, str]]:
    """Return what the head of both pages says, as names and plain texts."""
    done = sum(time.state == "done" for time in report.times)
    found = [
        ("state", report.state),
        ("begun", report.begun),
        ("last event", report.ended),
        ("by", ", ".join(report.who)),
        ("steps done", f"{done} of {len(report.times)}"),
        ("merge request", report.merge_request or "none: the lock was only written"),
        ("machines that baked and verified", _usd(report.cost_usd)),
    ]
    return [(name, value) for name, value in found if value]


def _usd(amount: str | None) -> str:
    return "cost not known" if amount is None else f"about {amount} USD, as planned"


def _summary(report: Report) -> str:
    return "\n".join(f"- {text(name)}: {text(value)}" for name, value in facts(report))


def count_changes(changes: Sequence[Change]) -> str:
    """Return how many packages were added, removed and changed, in words."""
    counts = [
        f"{sum(change.kind == kind for change in changes)} {kind}"
        for kind in ("changed", "added", "removed")
    ]
    return ", ".join(counts)


def _packages(image: ImageReport) -> str:
    if image.changes is None:
        return "Not known: the packages of this image or of the one before are in no record."
    return _changes(image.changes)


def _changes(changes: Sequence[Change]) -> str:
    if not changes:
        return "No package changed."
    rows = [_cells((each.name, each.before or "", each.after or "")) for each in changes]
    return details(count_changes(changes), table(PACKAGE_COLUMNS, rows))


def advisory_sections(image: ImageReport) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Return titles with rows of plain text: what was fixed, and what applies still."""
    fixes = image.fixes
    why = f" ({fixes.reason})" if fixes.reason else ""
    sections: list[tuple[str, list[tuple[str, ...]]]] = []
    for title, found in (("fixed", fixes.fixed), ("still open", fixes.still_open)):
        shown = (
            "not known"
            if found is None
            else plural(len(found), "advisory").replace("advisorys", "advisories")
        )
        rows: list[tuple[str, ...]] = [
            (each.id, each.severity, " ".join(each.cves), " ".join(each.packages))
            for each in found or ()
        ]
        sections.append((f"Security, {title}: {shown}{why if title == 'fixed' else ''}", rows))
    return sections


def _advisories_text(image: ImageReport) -> str:
    parts = []
    for title, rows in advisory_sections(image):
        parts.append(f"{text(title)}.")
        if rows:
            parts.append(table(ADVISORY_COLUMNS, [_cells(row) for row in rows]))
    return "\n\n".join(parts)


def _ending(report: Report) -> list[str]:
    parts = []
    left = [time for time in report.times if time.state == "skipped" and time.reason]
    if left or report.unsupported:
        lines = [f"- {code(time.step)}: {text(time.reason)}" for time in left]
        lines += [f"- {text(sentence)}" for sentence in report.unsupported]
        parts += ["## Left out", "\n".join(lines)]
    parts.append("## What runs which image")
    if report.what_runs:
        parts.append(table(RUNS_COLUMNS, [_cells(row) for row in report.what_runs]))
    else:
        parts.append("Not recorded; `clusterbox images status` shows it.")
    if report.retired:
        parts += ["## Retired", ", ".join(map(code, report.retired))]
    parts += ["## Users", "\n".join(f"- {line}" for line in map(text, user_lines(report)))]
    return parts


def user_lines(report: Report) -> list[str]:
    """Return what users were told, and who was at work when it was planned."""
    told = [f"told: {subject}" for subject in report.told] or ["no notice went out"]
    return [*told, f"at work when it was planned: {', '.join(report.users) or 'nobody found'}"]
