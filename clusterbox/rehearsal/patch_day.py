"""Rehearse a whole patch day: a site on this machine, a job that must not be lost, and all steps."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clusterbox.deployment.progress import Progress
from clusterbox.errors import ClusterboxError
from clusterbox.images.context import Clock
from clusterbox.images.execute import Outcome
from clusterbox.images.patch_day import PatchDay
from clusterbox.images.plan import Options, Plan
from clusterbox.images.report import render_html
from clusterbox.rehearsal.copies import copy_site, keep_clusters
from clusterbox.rehearsal.site import RehearsedSite, rehearse_site

# Long enough to be at work when its queue is to be drained, short enough to watch.
JOB_SECONDS = 8
# What answers is on this machine: it may be asked more often than AWS.
_MOST_PAUSE_SECONDS = 0.5
OPTIONS = Options(drain_seconds=300.0, gate_seconds=180.0)


@dataclass(frozen=True)
class Rehearsed:
    """How a rehearsed patch day went; `job` is the state of the job that ran all the while."""

    plan: Plan
    outcome: Outcome
    job: str
    report: Path


def rehearse_patch_day(
    root: Path,
    environment: str,
    folder: Path,
    report: Path,
    progress: Progress,
    show_plan: Callable[[Plan], None],
    clusters: Sequence[str] = (),
) -> Rehearsed:
    """Run a patch day in a copy of the repository at `folder`, and write its report.

    `clusters` are those that are rehearsed with, by default all. Raises ClusterboxError where it
    could not be run; a step that fails is in the outcome.
    """
    copy = copy_site(root, folder)
    keep_clusters(copy, environment, clusters)
    try:
        with rehearse_site(copy, environment, progress) as site:
            return _run(site, report, progress, show_plan)
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _run(
    site: RehearsedSite, report: Path, progress: Progress, show_plan: Callable[[Plan], None]
) -> Rehearsed:
    cluster, queue = _first_queue(site)
    door = site.slurms[cluster].door
    words = (f"--partition={queue}", "--job-name=bystander", "--output=/dev/null")
    job = door.submit(f"sleep {JOB_SECONDS}", *words)
    clock = Clock(sleep=lambda seconds: time.sleep(min(seconds, _MOST_PAUSE_SECONDS)))
    patch_day = PatchDay(site.root, site.environment, site.target, progress, clock)
    plan = patch_day.plan(OPTIONS)
    show_plan(plan)
    outcome, _ = patch_day.run(plan)
    shown = door.run("scontrol", "show", "job", "--oneliner", job)
    state = next(
        (word.removeprefix("JobState=") for word in shown.split() if word.startswith("JobState=")),
        "unknown",
    )
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(render_html(patch_day.store, plan.run), encoding="utf-8")
    return Rehearsed(plan, outcome, state, report)


def _first_queue(site: RehearsedSite) -> tuple[str, str]:
    for cluster, slurm in site.slurms.items():
        for partition in slurm.door.fetch_partitions():
            return cluster, partition
    raise ClusterboxError(f"{site.environment.name} has no cluster to rehearse with")
