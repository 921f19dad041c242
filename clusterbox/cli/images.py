"""`clusterbox images`, also called `clusterbox patch-day`."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusterbox.cli import images_status
from clusterbox.cli.ask import ask
from clusterbox.cli.images_progress import StepsProgress, show_seconds
from clusterbox.cli.tables import FORMATS, render_table

if TYPE_CHECKING:
    from clusterbox.images.execute import Outcome
    from clusterbox.images.patch_day import PatchDay
    from clusterbox.images.plan import Action, Options, Plan
    from clusterbox.images.record import Record
    from clusterbox.site.environment import Environment

PLAN_COLUMNS = ("step", "after", "expected")
RETIRE_COLUMNS = ("image", "ami", "name", "created", "gib", "usd_month", "kept")
Run = Callable[[argparse.Namespace, Path], int]


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    status = actions.add_parser("status", help="what is locked, how old it is, and who uses it")
    images_status.add_arguments(status)
    status.set_defaults(run=images_status.run)
    plan = _add(actions, "plan", "the steps of the next patch day; nothing is changed", _plan)
    plan.add_argument("images", nargs="*", metavar="IMAGE", help="images (default: all)")
    _add_options(plan)
    plan.add_argument("--output", type=Path, metavar="FILE", help="keep the plan, for `run --plan`")
    plan.add_argument("--format", choices=FORMATS, default="table", help="how to print it")
    run = _add(actions, "run", "a whole patch day, or the rest of one that was cut off", _run)
    run.add_argument("images", nargs="*", metavar="IMAGE", help="images (default: all)")
    run.add_argument("--plan", type=Path, metavar="FILE", help="a plan of `plan --output`")
    _add_options(run)
    run.add_argument(
        "--retry-failed",
        action="store_true",
        help="delete failed builds of this patch day and build again",
    )
    for name, text in (
        ("bake", "the bakes of a patch day, and no more"),
        ("verify", "the verification of what was baked"),
        ("promote", "lock what was verified, and open a merge request"),
        ("rollout", "bring clusters to what was promoted, canary first"),
    ):
        part = _add(actions, name, text, _run)
        part.add_argument("images", nargs="*", metavar="IMAGE", help="images (default: all)")
        _add_options(part)
        if name == "bake":
            part.add_argument(
                "--retry-failed",
                action="store_true",
                help="delete failed builds of this patch day and build again",
            )
    rollback = _add(actions, "rollback", "back to the images before, with the same care", _rollback)
    rollback.add_argument("images", nargs="*", metavar="IMAGE", help="images (default: all)")
    _add_options(rollback)
    _add(actions, "abandon", "give up the patch day that was cut off; nothing is undone", _abandon)
    retire = _add(actions, "retire", "images that nothing needs any more; --yes deletes", _retire)
    retire.add_argument("--keep", type=int, help="earlier images of each that are kept")
    retire.add_argument("--format", choices=FORMATS, default="table", help="how to print them")
    notify = _add(actions, "notify", "what users are told; --yes tells them", _notify)
    notify.add_argument("--when", choices=("before", "after"), default="before")
    report = _add(actions, "report", "what a patch day did, as Markdown or a page", _report)
    report.add_argument("run_id", nargs="?", metavar="RUN", help="default: the last one")
    report.add_argument("--format", choices=("markdown", "html"), default="markdown")
    report.add_argument("--output", type=Path, metavar="FILE", help="default: standard output")
    report.add_argument("--list", action="store_true", help="list the runs that are recorded")
    parser.epilog = f"example: clusterbox {command} run ws-dev --target embedded"


def _add(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str, run: Run
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument("environment", help="environment: a file of environments/ without .yaml")
    parser.add_argument(
        "--target",
        choices=("embedded", "aws"),
        default="embedded",
        help="embedded: an AWS account on this machine (default); aws: AWS itself",
    )
    if name not in ("plan", "report", "abandon"):
        parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.set_defaults(run=run)
    return parser


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the operator decides; what is not given is the environment's `patch_day`."""
    decide = parser.add_argument_group("decisions (default: patch_day of the environment)")
    decide.add_argument("--canary", metavar="CLUSTER/QUEUE", help="queue that is moved first")
    decide.add_argument(
        "--head", choices=("patch", "replace", "leave"), help="what happens to head nodes"
    )
    decide.add_argument(
        "--resize-head", metavar="TYPE", help="instance type of a head node while it is patched"
    )
    decide.add_argument(
        "--terminate",
        action="store_true",
        default=None,
        help="end and requeue jobs that still run when the time to drain is over",
    )
    decide.add_argument(
        "--drain-hours", type=float, metavar="HOURS", help="time that running jobs get to end"
    )
    decide.add_argument(
        "--gate-minutes", type=float, metavar="MINUTES", help="time of a gate's job"
    )
    decide.add_argument(
        "--when-idle", action="store_true", default=None, help="leave clusters with running jobs"
    )
    decide.add_argument("--window", metavar="HH:MM-HH:MM", help="touch clusters only then")
    decide.add_argument("--keep", type=int, metavar="N", help="earlier images that retire keeps")


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """Return what the operator decides on the command line, by the name in Options."""
    from clusterbox.errors import InputError
    from clusterbox.images.window import parse_window

    given: dict[str, Any] = {
        "canary": options.canary,
        "head": options.head,
        "resize_head": options.resize_head,
        "terminate": options.terminate,
        "drain_seconds": _scaled(options.drain_hours, 3600, "--drain-hours"),
        "gate_seconds": _scaled(options.gate_minutes, 60, "--gate-minutes"),
        "when_idle": options.when_idle,
        "window": options.window,
        "keep": options.keep,
    }
    if options.keep is not None and options.keep < 0:
        raise InputError(f"--keep must be 0 or more, not {options.keep}")
    if options.window is not None:
        parse_window(options.window)
    return {key: value for key, value in given.items() if value is not None}


def _options(options: argparse.Namespace, environment: Environment) -> Options:
    from clusterbox.images.plan import Options

    own = environment.patch_day.options if environment.patch_day else {}
    return Options(**{**own, **_given(options)})


def _go_on(plan: Plan, options: argparse.Namespace) -> Plan:
    """Return the plan of a run that goes on, with what is decided otherwise for this call.

    Raises InputError for what decided which steps there are: that cannot change any more.
    """
    from clusterbox.errors import InputError

    given = _given(options)
    other = {key: value for key, value in given.items() if value != getattr(plan.options, key)}
    fixed = [f"--{key} {other[key]}" for key in ("canary", "head") if key in other]
    if options.images and {*options.images} != {*_images(plan)}:
        fixed.append(f"images {', '.join(options.images)}")
    if fixed:
        raise InputError(
            f"the patch day {plan.run} has not ended, and its steps are decided without "
            f"{' and '.join(fixed)}: go on with it, or give it up with `clusterbox images abandon "
            f"{plan.environment}` and begin another one"
        )
    for key, value in other.items():
        _tell(f"from here on {key} is {value}, which was {getattr(plan.options, key)}")
    return replace(plan, options=replace(plan.options, **other))


def _images(plan: Plan) -> list[str]:
    """Return the images that a plan bakes or rolls back."""
    import json

    restored = [step.subject["images"] for step in plan.steps if step.action == "restore"]
    return [image.image for image in plan.images] + [
        key for text in restored for key in json.loads(text)
    ]


def _scaled(value: float | None, factor: float, flag: str) -> float | None:
    from clusterbox.errors import InputError

    if value is not None and not 0 < value < 10_000:
        raise InputError(f"{flag} must be more than 0, not {value:g}")
    return None if value is None else value * factor


def _open(options: argparse.Namespace, root: Path, progress: StepsProgress) -> PatchDay:
    from clusterbox.deployment import targets
    from clusterbox.errors import InputError
    from clusterbox.images.patch_day import PatchDay
    from clusterbox.site.load import Repository

    environment = Repository(root).load_environment(options.environment)
    if options.target == "aws":
        aws = targets.AwsTarget(root, environment)
        aws.check_account()
        return PatchDay(root, environment, aws, progress)
    embedded = targets.find_embedded(root, environment)
    if embedded is None:
        raise InputError(
            f"no embedded account of {environment.name} runs; `clusterbox deploy "
            f"{environment.name}` starts one, and --target aws means AWS itself"
        )
    return PatchDay(root, environment, embedded, progress)


def _plan(options: argparse.Namespace, root: Path) -> int:
    from clusterbox.files import write_whole

    patch_day = _open(options, root, StepsProgress())
    plan = patch_day.plan(_options(options, patch_day.environment), options.images)
    if options.output is not None:
        write_whole(options.output, plan.to_json())
    print_plan(plan, options.format)
    return 0


def print_plan(plan: Plan, form: str) -> None:
    """Print the steps of a plan, and beside them what a person wants to know."""
    if form == "json":
        sys.stdout.write(plan.to_json())
        return
    rows = [
        (
            step.id,
            ", ".join(step.after),
            "unknown" if step.expected_seconds is None else show_seconds(step.expected_seconds),
        )
        for step in plan.steps
    ]
    sys.stdout.write(render_table(PLAN_COLUMNS, rows, form) + "\n")
    sys.stdout.flush()
    for image in plan.images:
        _tell(f"{image.image}: {image.name} from {image.parent}")
    known = [step.expected_seconds for step in plan.steps if step.expected_seconds is not None]
    unknown = len(plan.steps) - len(known)
    total = f"{show_seconds(sum(known))} of work" if known else "no earlier run to learn from"
    _tell(f"expected: {total}{f', {unknown} steps unknown' if unknown and known else ''}")
    _tell(f"machines that bake and verify: {_money(plan.cost_usd)}")
    _tell(f"users at work: {', '.join(plan.users) or 'none found'}")
    for sentence in plan.unsupported:
        _tell(f"not done: {sentence}")


def _money(usd: str | None) -> str:
    return "unknown, for lack of a price" if usd is None else f"about {usd} USD"


def _run(options: argparse.Namespace, root: Path) -> int:
    """Run a patch day or a part of it; one that was cut off goes on."""
    from clusterbox.errors import InputError
    from clusterbox.images.patch_day import BUILDING, ROLLING
    from clusterbox.images.plan import Plan

    progress = StepsProgress()
    patch_day = _open(options, root, progress)
    current = patch_day.current()
    given = getattr(options, "plan", None)
    if given is not None:
        if options.images or _given(options):
            raise InputError(
                "a plan has decided everything: --plan goes without images and decisions"
            )
        try:
            plan = Plan.from_json(given.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise InputError(f"{given}: this is not a plan of a patch day") from error
    elif current is not None:
        _tell(f"going on with the {_what(current)} {current.run}, planned {current.created}")
        plan = _go_on(current, options)
    elif options.action in ("run", "bake"):
        plan = patch_day.plan(_options(options, patch_day.environment), options.images)
    else:
        raise InputError(
            f"no patch day of {options.environment} is under way; begin one with "
            f"`clusterbox images bake {options.environment}` or `run`"
        )
    only: dict[str, tuple[Action, ...]] = {
        "bake": ("bake",),
        "verify": ("verify",),
        "promote": ("notify", "promote"),
        "rollout": ROLLING,
    }
    patch_day = replace(patch_day, retry_failed=getattr(options, "retry_failed", False))
    if current is None or given is not None:
        print_plan(plan, "table")
    clusters = only.get(options.action) != BUILDING
    question = f"Run this in account {patch_day.environment.account}?"
    if options.target == "aws" and clusters and not ask(question, options.yes):
        _tell("nothing was done")
        return 1
    return _execute(patch_day, plan, only.get(options.action), options.action == "run")


def _execute(patch_day: PatchDay, plan: Plan, only: tuple[Action, ...] | None, whole: bool) -> int:
    progress = patch_day.progress
    assert isinstance(progress, StepsProgress)  # noqa: S101 - made by _open
    progress.expected = {step.id: step.expected_seconds for step in plan.steps}
    try:
        with ended_like_interrupted(), progress.showing():
            outcome, record = patch_day.run(plan, only)
    except KeyboardInterrupt:
        _tell(f"interrupted; `clusterbox images run {plan.environment}` goes on with {plan.run}")
        _tell_held(patch_day, plan.run)
        raise
    _tell_outcome(plan, outcome, record)
    _tell_held(patch_day, plan.run)
    if whole or outcome.failed:
        _write_report(patch_day, plan)
    return 0 if not outcome.failed and not outcome.left else 1


@contextmanager
def ended_like_interrupted() -> Iterator[None]:
    """Let SIGTERM, with which CI cancels a job, end what runs as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _tell_held(patch_day: PatchDay, run: str) -> None:
    """Tell of clusters on which no job starts, which nobody would notice before users do."""
    from clusterbox.images.fleet import RESERVATION
    from clusterbox.images.record import find_held

    # What this machine has recorded is enough, and is there when AWS does not answer.
    for cluster in find_held(replace(patch_day.store, s3=None).read(run)):
        _tell(
            f"JOBS OF {cluster} ARE HELD since the patch of its head node began: go on with the run, "
            f"or let them start with `scontrol delete ReservationName={RESERVATION}` on the head node"
        )


def _tell_outcome(plan: Plan, outcome: Outcome, record: Record) -> None:
    for step, result in record.results.items():
        if result.get("skipped"):
            _tell(f"left out {step}: {result['skipped']}")
    for step, reason in outcome.failed.items():
        _tell(f"failed {step}: {reason}")
    if outcome.left:
        _tell(f"not begun: {', '.join(outcome.left)}")
    if outcome.failed:
        from clusterbox.images.report import RUNS_COLUMNS

        events = [event for event in record.events if "what_runs" in event]
        if events:
            text = render_table(RUNS_COLUMNS, events[-1]["what_runs"], "table")
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
        name = plan.environment
        back = (
            f"`clusterbox images rollback {name}` goes back"
            if {"promote", "restore"} & {*record.results}
            else "no cluster was touched"
        )
        _tell(f"`clusterbox images run {name}` tries again from there; {back}")
    if record.behind:
        _tell(record.behind)


def _write_report(patch_day: PatchDay, plan: Plan) -> None:
    from clusterbox.files import write_whole
    from clusterbox.images.report import render_html, render_markdown

    store = patch_day.store
    for suffix, render in (("md", render_markdown), ("html", render_html)):
        text = render(store, plan.run)
        path = store.folder / f"{plan.run}.{suffix}"
        write_whole(path, text)
        store.put(f"{plan.run}/report.{suffix}", text)
    _tell(f"report: {store.folder / f'{plan.run}.html'}")


def _rollback(options: argparse.Namespace, root: Path) -> int:
    progress = StepsProgress()
    patch_day = _open(options, root, progress)
    current = patch_day.current()
    if current is not None and any(step.action == "restore" for step in current.steps):
        _tell(f"going on with the rollback {current.run}, planned {current.created}")
        plan = _go_on(current, options)
    else:
        _refuse_unpromoted(patch_day, current)
        plan = patch_day.plan_rollback(_options(options, patch_day.environment), options.images)
        print_plan(plan, "table")
    question = f"Roll back in account {patch_day.environment.account}?"
    if options.target == "aws" and not ask(question, options.yes):
        _tell("nothing was done")
        return 1
    if current is not None and current.run != plan.run:
        _tell(f"giving up the patch day {current.run}")
        patch_day.abandon("rolled back")
        _tell_held(patch_day, current.run)
    return _execute(patch_day, plan, None, whole=True)


def _what(plan: Plan) -> str:
    is_rollback = any(step.action == "restore" for step in plan.steps)
    return "rollback" if is_rollback else "patch day"


def _refuse_unpromoted(patch_day: PatchDay, current: Plan | None) -> None:
    """Raise InputError where a rollback would undo the patch day before the one under way."""
    from clusterbox.errors import InputError
    from clusterbox.images.record import done_results

    if current is not None and "promote" not in done_results(patch_day.events(current.run)):
        raise InputError(
            f"the patch day {current.run} has not promoted an image, so that there is nothing of it "
            "to roll back. To go back behind the one before it, give it up first: `clusterbox images "
            f"abandon {current.environment}`"
        )


def _abandon(options: argparse.Namespace, root: Path) -> int:
    patch_day = _open(options, root, StepsProgress())
    run = patch_day.abandon()
    _tell_held(patch_day, run)
    _tell(f"{run} is given up; what it did stays as it is: `clusterbox images status` shows it")
    return 0


def _retire(options: argparse.Namespace, root: Path) -> int:
    from clusterbox.images.retire import delete_retirable, find_retirable

    patch_day = _open(options, root, StepsProgress())
    own = patch_day.environment.patch_day
    keep = options.keep if options.keep is not None else own.keep if own else 2
    found = find_retirable(root, patch_day.target, patch_day.environment, keep)
    rows = [
        [item.image, item.ami, item.name, item.created, item.gib, item.usd_month, item.kept or ""]
        for item in found
    ]
    sys.stdout.write(render_table(RETIRE_COLUMNS, rows, options.format) + "\n")
    sys.stdout.flush()
    doomed = [item for item in found if not item.kept]
    if not doomed:
        _tell("nothing to delete")
        return 0
    if not options.yes:
        _tell(f"{len(doomed)} can go; nothing was deleted: --yes deletes them")
        return 0
    failures = delete_retirable(root, patch_day.target, patch_day.environment, doomed, keep)
    for failure in failures:
        _tell(failure)
    _tell(f"{len(doomed) - len(failures)} deleted")
    return 1 if failures else 0


def _notify(options: argparse.Namespace, root: Path) -> int:
    from clusterbox.images.notify import render_notice, send_notice

    patch_day = _open(options, root, StepsProgress())
    plan = patch_day.current() or patch_day.plan(patch_day_options(patch_day.environment), ())
    notice = render_notice(patch_day.environment, plan, options.when, patch_day.events(plan.run))
    sys.stdout.write(f"{notice.subject}\n\n{notice.text}\n")
    sys.stdout.flush()
    if not options.yes:
        _tell("nobody was told: --yes sends it")
        return 0
    _tell(send_notice(patch_day.target, patch_day.environment, notice))
    return 0


def patch_day_options(environment: Environment) -> Options:
    """Return the options that the environment's file decides."""
    from clusterbox.images.plan import Options

    return Options(**(environment.patch_day.options if environment.patch_day else {}))


def _report(options: argparse.Namespace, root: Path) -> int:
    from clusterbox.errors import InputError
    from clusterbox.files import write_whole
    from clusterbox.images.report import render_html, render_markdown

    store = _open(options, root, StepsProgress()).store
    runs = store.runs()
    if options.list:
        sys.stdout.write("".join(f"{run}\n" for run in runs))
        return 0
    run = options.run_id or (runs[-1] if runs else None)
    if run is None or run not in runs:
        known = ", ".join(runs[-5:]) or "none yet"
        raise InputError(
            f"there is no patch day {run or ''} of {options.environment}; last: {known}"
        )
    text = (render_html if options.format == "html" else render_markdown)(store, run)
    if options.output is None:
        sys.stdout.write(text)
    else:
        write_whole(options.output, text)
    return 0


def _tell(text: str) -> None:
    sys.stderr.write(f"clusterbox: {text}\n")
