"""`clusterbox logs` and `clusterbox diagnose`."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from clusterbox.cli.tables import FORMATS, render_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from clusterbox.observe.diagnosis import Diagnosis, Finding
    from clusterbox.observe.log_doors import LogDoors
    from clusterbox.observe.log_events import LogEvent, LogReader
    from clusterbox.observe.log_streams import Stream
    from clusterbox.observe.log_view import View

STREAM_COLUMNS = ("node", "role", "instance", "stream", "last_event", "what")
FINDING_COLUMNS = ("severity", "problem", "count", "first", "last", "nodes", "next_step")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SPAN = re.compile(r"(\d+)([smhdw])")
# What a terminal would obey: escape sequences of a log must not move the cursor, or worse.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_BAD = re.compile(r"\b(error|fatal|critical|traceback|exception|failed|failure)\b", re.IGNORECASE)
_WARNING = re.compile(r"\bwarn(ing)?\b", re.IGNORECASE)
_RED, _YELLOW, _DIM, _END = "\x1b[31m", "\x1b[33m", "\x1b[2m", "\x1b[0m"


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments of `logs` or `diagnose`."""
    parser.add_argument("cluster", help="as in the environment; ENVIRONMENT/NAME where two have it")
    parser.add_argument(
        "--target",
        choices=("embedded", "aws"),
        default="embedded",
        help="embedded: the account on this machine (default); aws: AWS",
    )
    parser.add_argument(
        "--node", metavar="NAME", help="head, a node, a host list, a host, or an instance's id"
    )
    parser.add_argument("--job", metavar="ID", help="a job, on the nodes that it had")
    default = "1h; with --job from its start" if command == "logs" else "24h"
    parser.add_argument(
        "--since", metavar="TIME", help=f"30m, 12h, 2d, or a time in UTC (default: {default})"
    )
    parser.add_argument("--until", metavar="TIME", help="up to then (default: now)")
    parser.add_argument(
        "--log-group", metavar="NAME", help="of an earlier cluster (default: the newest)"
    )
    if command == "diagnose":
        parser.add_argument("--format", choices=FORMATS, default="table", help="how to print it")
        parser.epilog = f"example: clusterbox {command} ws-eco --target aws --since 2d"
        parser.set_defaults(run=_diagnose)
        return
    parser.add_argument(
        "--stream",
        action="append",
        default=[],
        metavar="KIND",
        help="such as slurmctld; can be given again",
    )
    parser.add_argument("--grep", metavar="PATTERN", help="only events that match (Python's re)")
    parser.add_argument("--follow", action="store_true", help="show what comes, until Ctrl-C")
    parser.add_argument("--list", action="store_true", help="list streams, and their nodes")
    parser.add_argument(
        "--metric-filters",
        action="store_true",
        help="make metrics of the errors in this log group (costs: see docs/logs.md)",
    )
    parser.add_argument(
        "--format",
        choices=("text", "json", *FORMATS[:2]),
        default="text",
        help="json: one object a line; table and csv: with --list",
    )
    parser.epilog = f"example: clusterbox {command} ws-eco --target aws --job 4711"
    parser.set_defaults(run=_logs)


def parse_when(text: str, now: float) -> float:
    """Return a time in seconds since 1970 of `2h` ago, or of a date and time, UTC by default.

    Raises InputError for anything else.
    """
    from datetime import UTC, datetime

    from clusterbox.errors import InputError

    if (span := _SPAN.fullmatch(text)) is not None:
        return now - int(span[1]) * _UNITS[span[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"{text!r} is no time: give 30m, 12h, 2d, or such as 2026-11-22T10:30"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


class _Case:
    """What the options mean: which cluster, its account, its log group, which time."""

    def __init__(self, options: argparse.Namespace, root: Path) -> None:
        import time

        from clusterbox.clusters.composed import compose_repository
        from clusterbox.errors import InputError
        from clusterbox.observe.log_doors import open_log_doors
        from clusterbox.observe.log_events import LogReader
        from clusterbox.observe.log_nodes import check_job_id

        self.options = options
        self.now = time.time()
        self.since = None if options.since is None else parse_when(options.since, self.now)
        self.until = None if options.until is None else parse_when(options.until, self.now)
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise InputError(f"--since {options.since} is not before --until {options.until}")
        if options.job is not None:
            check_job_id(options.job)
            if options.node is not None:
                raise InputError("--job has its own nodes: leave --node out")
        cluster = compose_repository(root, [options.cluster])[options.cluster]
        self.name = cluster.name
        self.doors: LogDoors = open_log_doors(root, cluster, options.cluster, options.target)
        self.reader: LogReader = LogReader(self.doors.client("logs"))
        self.group: str = options.log_group or self.reader.find_group(self.name).name
        self.streams: list[Stream] = self.reader.fetch_streams(self.group)

    def view(self, kinds: Sequence[str], default_seconds: float) -> View:
        """Return what to show."""
        from clusterbox.errors import InputError
        from clusterbox.observe.log_view import Asked, make_view

        grep = getattr(self.options, "grep", None)
        try:
            pattern = None if grep is None else re.compile(grep)
        except re.error as error:
            raise InputError(f"--grep {grep!r}: {error}") from error
        known = sorted({stream.kind for stream in self.streams})
        unknown = [kind for kind in kinds if kind not in known]
        if unknown:
            raise InputError(
                f"no stream {', '.join(unknown)} in {self.group}; it has: {', '.join(known)}"
            )
        asked = Asked(
            self.options.node, self.options.job, tuple(kinds), self.since, self.until, pattern
        )
        return make_view(
            self.reader,
            self.group,
            self.streams,
            asked,
            default_since=(self.until or self.now) - default_seconds,
            slurm=self.doors.slurm,
        )


def _logs(options: argparse.Namespace, root: Path) -> int:
    from clusterbox.errors import InputError
    from clusterbox.observe.log_view import show

    if options.format in ("table", "csv") and not options.list:
        raise InputError(f"--format {options.format} is for --list; give text or json")
    if options.follow and options.until is not None:
        raise InputError("--follow has no end: leave --until out")
    case = _Case(options, root)
    if options.metric_filters:
        return _metric_filters(case)
    if options.list:
        return _list(case)
    view = case.view(options.stream, 3600.0)
    _say([f"{case.group}", *view.notes], only_on_terminal=1)
    _write(show(case.reader, case.group, view, follow=options.follow), view, options.format)
    return 0


def _write(events: Iterable[LogEvent], view: View, form: str) -> None:
    import os

    colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for event in events:
        line = _json(event, view) if form == "json" else _text(event, view, colours=colours)
        sys.stdout.write(line + "\n")
        # Whoever follows wants it now.
        sys.stdout.flush()


def _text(event: LogEvent, view: View, *, colours: bool) -> str:
    stream = event.stream
    where = f"{_node_of(stream, view)} {stream.kind}"
    message = _CONTROLS.sub("", event.message.replace("\r\n", "\n").replace("\r", "\n"))
    message = message.replace("\n", "\n    ")
    if not colours:
        return f"{_time(event.at)} {where}: {message}"
    colour = _RED if _BAD.search(message) else _YELLOW if _WARNING.search(message) else ""
    end = _END if colour else ""
    return f"{_DIM}{_time(event.at)}{_END} {where}: {colour}{message}{end}"


def _json(event: LogEvent, view: View) -> str:
    stream = event.stream
    return json.dumps(
        {
            "time": _time(event.at),
            "node": _node_of(stream, view),
            "role": view.roles.get(stream.instance),
            "host": stream.host,
            "instance": stream.instance,
            "stream": stream.kind,
            "message": event.message,
        },
        ensure_ascii=False,
    )


def _node_of(stream: Stream, view: View) -> str:
    if view.roles.get(stream.instance) == "head":
        return "head"
    return view.nodes.get(stream.instance, stream.host)


def _list(case: _Case) -> int:
    from clusterbox.observe.log_nodes import node_of_instances
    from clusterbox.observe.log_streams import KINDS, roles
    from clusterbox.observe.log_view import LOOK_BACK_SECONDS, fetch_launches

    since = case.now - LOOK_BACK_SECONDS if case.since is None else case.since
    nodes = node_of_instances(fetch_launches(case.reader, case.group, case.streams, since, None))
    by_role = roles(case.streams)
    rows = [
        [
            "head"
            if by_role[stream.instance] == "head"
            else nodes.get(stream.instance, stream.host),
            by_role[stream.instance],
            stream.instance,
            stream.kind,
            None if stream.last is None else _time(stream.last),
            KINDS[stream.kind].what if stream.kind in KINDS else None,
        ]
        for stream in sorted(
            case.streams, key=lambda s: (by_role[s.instance] != "head", s.host, s.instance, s.kind)
        )
        if not case.options.stream or stream.kind in case.options.stream
    ]
    form = "table" if case.options.format == "text" else case.options.format
    sys.stdout.write(render_table(STREAM_COLUMNS, rows, form) + "\n")
    _say([case.group], only_on_terminal=1)
    return 0


def _metric_filters(case: _Case) -> int:
    from clusterbox.observe.metric_filters import NAMESPACE, put_metric_filters

    made = put_metric_filters(case.doors.client("logs"), case.group, case.name)
    for name in made:
        sys.stdout.write(f"{NAMESPACE} {name}\n")
    return 0


def _diagnose(options: argparse.Namespace, root: Path) -> int:
    from clusterbox.observe.diagnosis import diagnose

    case = _Case(options, root)
    found = diagnose(case.reader, case.group, case.view((), 86400.0), case.doors, case.name)
    sys.stdout.write(_render(found, options.format) + "\n")
    _say(found.notes)
    return 0


def _render(found: Diagnosis, form: str) -> str:
    if form != "table":
        rows = [
            [
                finding.severity,
                finding.meaning,
                finding.count,
                None if finding.first is None else _time(finding.first),
                None if finding.last is None else _time(finding.last),
                " ".join(finding.nodes),
                finding.next_step,
            ]
            for finding in found.findings
        ]
        return render_table(FINDING_COLUMNS, rows, form)
    if not found.findings:
        return "nothing known was found in the logs"
    return "\n\n".join(
        _paragraph(number, finding) for number, finding in enumerate(found.findings, 1)
    )


def _paragraph(number: int, finding: Finding) -> str:
    when = ""
    if finding.first is not None and finding.last is not None:
        when = f", {finding.count} times" if finding.count > 1 else ""
        when += f", {_time(finding.first)}"
        when += f" to {_time(finding.last)}" if finding.last > finding.first else ""
    lines = [f"{number}. {finding.severity}{when}", f"   {finding.meaning}"]
    if finding.nodes:
        more = f" and {len(finding.nodes) - 8} more" if len(finding.nodes) > 8 else ""
        lines.append(f"   nodes: {', '.join(finding.nodes[:8])}{more}")
    if finding.example:
        lines.append(f"   seen:  {_CONTROLS.sub('', ' '.join(finding.example.split()))[:200]}")
    lines.append(f"   next:  {finding.next_step}")
    if finding.source:
        lines.append(f"   more:  {finding.source}")
    return "\n".join(lines)


def _time(at: float) -> str:
    from datetime import UTC, datetime

    moment = datetime.fromtimestamp(at, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _say(notes: Sequence[str], *, only_on_terminal: int = 0) -> None:
    """Write notes to standard error; the first ones only where somebody watches."""
    for at, note in enumerate(notes):
        if at >= only_on_terminal or sys.stderr.isatty():
            sys.stderr.write(f"clusterbox: {note}\n")
