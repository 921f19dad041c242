"""`clusterbox rehearse`: whole days of a site on this machine."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from clusterbox.cli.images_progress import StepsProgress

if TYPE_CHECKING:
    from clusterbox.images.plan import Plan


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    day = actions.add_parser(
        "patch-day", help="bake, verify, promote and roll out images, beside a job that runs"
    )
    day.add_argument("environment", help="environment: a file of environments/ without .yaml")
    day.add_argument(
        "--output", type=Path, metavar="FILE", help="where the report goes (an HTML page)"
    )
    day.add_argument(
        "--cluster",
        action="append",
        default=[],
        metavar="NAME",
        help="rehearse with this cluster only; can be repeated (default: all)",
    )
    day.set_defaults(run=_patch_day)
    observe = actions.add_parser(
        "observe", help="watch a cluster run jobs, until the mail of an alert has arrived"
    )
    observe.add_argument("cluster", help="cluster: a name in a file of environments/")
    observe.set_defaults(run=_observe)
    parser.epilog = f"example: clusterbox {command} patch-day ws-dev"


def _patch_day(options: argparse.Namespace, root: Path) -> int:
    from clusterbox.cli.images import print_plan
    from clusterbox.rehearsal.patch_day import rehearse_patch_day

    # How long the account's stand-in of Image Builder takes; it is read when the account starts.
    os.environ.setdefault("CLUSTERBOX_IMAGE_BUILD_SECONDS", "2")
    progress = StepsProgress()
    folder = root / ".clusterbox" / "rehearsals" / "patch-day"
    report = options.output or folder.parent / f"patch-day-{options.environment}.html"

    def show(plan: Plan) -> None:
        print_plan(plan, "table")

    begin = time.monotonic()
    with progress.showing():
        done = rehearse_patch_day(
            root, options.environment, folder, report, progress, show, options.cluster
        )
    for step, reason in done.outcome.failed.items():
        _tell(f"failed {step}: {reason}")
    if done.outcome.left:
        _tell(f"not begun: {', '.join(done.outcome.left)}")
    _tell(f"the job that ran all the while: {done.job}")
    _tell(f"{time.monotonic() - begin:.0f} s in all; report: {done.report}")
    spared = done.job in ("COMPLETED", "RUNNING")
    return 0 if done.outcome.is_complete and spared else 1


def _observe(options: argparse.Namespace, root: Path) -> int:
    from clusterbox.cli.images import ended_like_interrupted
    from clusterbox.rehearsal.observe import ALERT, FOR_SECONDS, rehearse_observe

    progress = StepsProgress()
    folder = root / ".clusterbox" / "rehearsals" / "observe"
    begin = time.monotonic()
    with progress.showing(), ended_like_interrupted():
        seen = rehearse_observe(root, options.cluster, folder, progress)
    jobs = ", ".join(f"{count} {state}" for state, count in sorted(seen.jobs.items()))
    lines = [
        f"jobs     {jobs}",
        f"alerts   {', '.join(seen.alerts)}",
        f"         {ALERT} after {FOR_SECONDS} s here; after {seen.rule_for} at the site",
        f"mail     {seen.mail['Subject']}, to {seen.mail['To']}",
        *(f"page     {page}" for page in seen.pages),
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    _tell(f"{time.monotonic() - begin:.0f} s in all; nothing of it runs any more")
    return 0


def _tell(text: str) -> None:
    sys.stderr.write(f"clusterbox: {text}\n")
