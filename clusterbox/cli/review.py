"""`clusterbox review`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from clusterbox.review.review import Review

FORMATS = ("markdown", "json", "html")
# Less would not hold a verdict and the note that the rest was left out.
LEAST_LIMIT = 500
FAILURES = ("widening", "data", "replaces", "stops", "refused")


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--base", required=True, metavar="REF", help="branch, tag or commit to merge into"
    )
    parser.add_argument(
        "--head", metavar="REF", help="what to judge (default: the working tree as it is)"
    )
    parser.add_argument(
        "--environment", action="append", default=[], metavar="NAME", help="only this environment"
    )
    parser.add_argument("--format", choices=FORMATS, default="markdown")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="file to write (default: standard output)"
    )
    parser.add_argument(
        "--limit", type=int, metavar="CHARACTERS", help="leave out parts that make Markdown longer"
    )
    parser.add_argument(
        "--fail-on",
        action="append",
        choices=FAILURES,
        default=[],
        help="exit with 1 when the change has this consequence; may be given again",
    )
    parser.add_argument("--post", choices=("github", "gitlab"), help="write or update the comment")
    parser.add_argument("--fleet", choices=("running", "stopped"), default="running")
    parser.add_argument("--login", choices=("running", "stopped"), default="running")
    parser.add_argument(
        "--cache", type=Path, metavar="FOLDER", help="where exports and assemblies are kept"
    )
    parser.epilog = f"example: clusterbox {command} --base origin/main"
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, root: Path) -> int:
    from clusterbox.cli.steps import ShownProgress
    from clusterbox.errors import InputError
    from clusterbox.files import write_whole
    from clusterbox.review.comment import render_comment
    from clusterbox.review.consequences import Severity, find_consequences
    from clusterbox.review.page import render_page
    from clusterbox.review.records import render_json
    from clusterbox.review.review import FleetState, review_change
    from clusterbox.review.revisions import Cache

    if options.limit is not None and options.limit < LEAST_LIMIT:
        raise InputError(f"--limit must be at least {LEAST_LIMIT} characters, not {options.limit}")
    review = review_change(
        root,
        options.base,
        options.head,
        cache=Cache.open(options.cache),
        fleet=FleetState(options.fleet == "running", options.login == "running"),
        progress=ShownProgress(),
        only=options.environment,
    )
    if options.format == "json":
        shown = render_json(review)
    elif options.format == "html":
        shown = render_page("Review", render_comment(review))
    else:
        shown = render_comment(review, limit=options.limit)
    if options.output is None:
        sys.stdout.write(shown)
    else:
        write_whole(options.output, shown)
    if options.post:
        _post(options.post, review)
    failing = {
        "widening": {Severity.WIDENING, Severity.GRANT},
        "data": {Severity.DATA},
        "replaces": {Severity.REPLACE_CLUSTER},
        "stops": {Severity.STOP},
        "refused": {Severity.REFUSED},
    }
    severities = {item.severity for item in find_consequences(review)}
    if Severity.BROKEN in severities:
        sys.stderr.write("clusterbox: the change cannot be deployed; the review says why\n")
        return 2
    failed = [word for word in options.fail_on if failing[word] & severities]
    if failed:
        sys.stderr.write(f"clusterbox: the change has what --fail-on names: {', '.join(failed)}\n")
    return 1 if failed else 0


def _post(platform: Literal["github", "gitlab"], review: Review) -> None:
    from clusterbox.review.comment import render_comment
    from clusterbox.review.post import post_comment, room

    body = render_comment(review, limit=room(platform))
    address = post_comment(platform, body, environment=os.environ)
    sys.stderr.write(f"clusterbox: the comment is at {address}\n")
