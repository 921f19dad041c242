"""Replace a cluster by a second one beside it, on the new image and the same external storage."""

from __future__ import annotations

import dataclasses
import re

from clusterbox.errors import ClusterboxError, InputError
from clusterbox.files import write_whole
from clusterbox.images import window
from clusterbox.images.context import Context, Result, StepFailedError
from clusterbox.images.doors import (
    DOORS,
    Deadline,
    Doors,
    deploy,
    fetch_cluster_machines,
    load_cluster,
    open_scheduler,
    pauses,
    reload_environment,
)
from clusterbox.images.environment_file import add_cluster, replace_cluster
from clusterbox.images.fleet import Scheduler
from clusterbox.images.gate import gate
from clusterbox.images.head_node import snapshot_head
from clusterbox.images.plan import Step
from clusterbox.images.rollout import skip_if_busy
from clusterbox.site import names
from clusterbox.site.images import LOCK, NO_PINS, render_lock
from clusterbox.site.load import Repository
from clusterbox.site.pins import find_configured_parts
from clusterbox.site.yaml_file import YamlFile, value_at

_SUFFIX = re.compile(r"(?P<base>.+)-(?P<letter>[b-y])")


def replace(context: Context, step: Step, doors: Doors = DOORS) -> Result:
    """Bring up a second cluster on the locked image, switch users to it, and remove the first.

    Both have the same configuration file, so that everything on external storage is in both; what
    is only on the head node's disk (/home) is not. `step.subject` has `cluster`. Returns
    `{"cluster", "replacement", "gates": [results], "notice"}` or `{"skipped": reason}`. Raises
    StepFailedError, which says which of the two users are to work on.
    """
    old = step.subject["cluster"]
    new = successor(old)
    known = [entry.name for entry in reload_environment(context).clusters]
    if old in known and new not in known:
        window.enter(context, doors.entered)
        skipped = skip_if_busy(context, old, open_scheduler(context, old, doors))
        if skipped is not None:
            return skipped
        if (inner := find_inner_storage(load_cluster(context, old))) is not None:
            raise StepFailedError(inner)
        _add(context, old, new)
    if old not in known and new not in known:
        raise InputError(f"{context.environment.name} has neither {old} nor {new}")
    gates: list[Result] = []
    if old in known:
        gates = _bring_up(context, step, old, new, doors)
        _switch(context, old, new)
        _empty(context, old, new, doors)
        # Users may not have copied their /home: it is on this disk, which goes with the cluster.
        snapshot_head(context, old, doors)
        _remove(context, old, new, doors)
    notice = render_notice(context.environment.name, old, new)
    context.note("replaced", cluster=old, replacement=new)
    return {"cluster": old, "replacement": new, "gates": gates, "notice": notice}


def find_inner_storage(config: YamlFile) -> str | None:
    """Return which shared storage a second cluster would not have, and why; None if it has all.

    What ParallelCluster makes goes with its cluster, and an EBS volume or a RAID of these is
    attached to one head node only.
    """
    shares = value_at(config.data, ("SharedStorage",))
    inner = [
        str(value_at(share, ("MountDir",)))
        for share in (shares if isinstance(shares, list) else ())
        if value_at(share, ("StorageType",)) == "Ebs"
        or not any(
            value_at(share, (settings, key))
            for settings in share
            for key in ("FileSystemId", "VolumeId", "FileCacheId")
        )
    ]
    if not inner:
        return None
    return (
        f"{config.name} cannot be replaced: {', '.join(inner)} is storage of the cluster itself, which "
        "a second one does not see and which is deleted with the first. Move it to a file system of "
        "the environment (EFS, FSx), or patch the head node in place"
    )


def successor(cluster: str) -> str:
    """Return the name of the cluster that replaces one: NAME-b, then NAME-c."""
    match = _SUFFIX.fullmatch(cluster)
    return f"{match['base']}-{chr(ord(match['letter']) + 1)}" if match else f"{cluster}-b"


def render_notice(environment: str, old: str, new: str) -> str:
    """Return what users are told."""
    return (
        f"Cluster {old} of {environment} is replaced by {new}, which has the new image. Sign in to "
        f"{new} from now on; everything on the shared file systems is there. Jobs that run on {old} "
        "end by themselves, and it takes no new ones. Copy what you need from /home before then: "
        "it is on the head node and is not taken over; administrators keep a snapshot of that disk."
    )


def _add(context: Context, old: str, new: str) -> None:
    """Name the new cluster in the environment's file."""
    path = context.root / "environments" / f"{context.environment.name}.yaml"
    before = path.read_text(encoding="utf-8")
    write_whole(path, add_cluster(before, new, old))
    try:
        reload_environment(context)
    except InputError as error:
        write_whole(path, before)
        raise StepFailedError(f"{old} cannot be replaced by a cluster {new}: {error}") from error
    context.note("added", cluster=new, like=old)


def _bring_up(context: Context, step: Step, old: str, new: str, doors: Doors) -> list[Result]:
    """Deploy the new cluster and run the gate's job in each of its queues."""
    beside = (
        f"users stay on {old}, which was not touched. {new} stands beside it: resume the run, or "
        f"remove it with `clusterbox destroy {context.environment.name} --cluster {new}` and take "
        f"it out of environments/{context.environment.name}.yaml"
    )
    try:
        deploy(context, new, doors)
        queues = [
            part.name
            for part in find_configured_parts(load_cluster(context, new))
            if part.kind == "queue"
        ]
        return [
            gate(
                context,
                dataclasses.replace(step, subject={"cluster": new, "queue": queue}),
                doors,
            )
            for queue in queues
        ]
    except ClusterboxError as error:
        raise StepFailedError(f"{new} is not ready; {beside}: {error}") from error


def _switch(context: Context, old: str, new: str) -> None:
    """Publish which cluster users are to work on."""
    context.client("ssm").put_parameter(
        Name=names.parameter_path(context.environment, "clusters", old, "active"),
        Description=f"Cluster that stands in the place of {old}",
        Value=new,
        Type="String",
        Overwrite=True,
    )
    context.progress.note(render_notice(context.environment.name, old, new))
    context.note("switched", cluster=old, replacement=new)


def _empty(context: Context, old: str, new: str, doors: Doors) -> None:
    """Take no more jobs on the old cluster, and wait for the end of those that it has."""
    machines = fetch_cluster_machines(context, old)
    if not any(machine.kind == "head" for machine in machines):
        return  # An earlier call has removed it, or is at that.
    scheduler = open_scheduler(context, old, doors)
    # Other than DOWN this lets the jobs run that wait already.
    scheduler.set_partitions("DRAIN")
    deadline = Deadline.after(context, context.options.drain_seconds)
    for seconds in pauses():
        jobs = scheduler.fetch_jobs()
        if not jobs:
            return
        if deadline.is_over:
            listed = "; ".join(map(str, jobs))
            if context.options.terminate:
                context.note("ended", cluster=old, jobs=[str(job) for job in jobs])
                _cancel_all(scheduler)
                return
            raise StepFailedError(
                f"users are on {new}; {old} takes no new jobs, and has some after "
                f"{context.options.drain_seconds / 3600:g} h: {listed}. Resume the run to wait "
                "again, or with --terminate to end them: another cluster cannot requeue them"
            )
        context.wait(seconds)


def _cancel_all(scheduler: Scheduler) -> None:
    for job in scheduler.fetch_jobs():
        scheduler.run("scancel", job.id)


def _remove(context: Context, old: str, new: str, doors: Doors) -> None:
    """Delete the old cluster, then its pins and its entry in the environment's file."""
    environment = reload_environment(context)
    try:
        doors.remove(context, environment, old)
    except InputError:
        # Its stack is gone already: an earlier call was killed after that.
        context.progress.note(f"{old} is gone already")
    lock = Repository(context.root).load_lock()
    without = lock.with_pins(environment.name, old, NO_PINS)
    write_whole(context.root / LOCK, render_lock(without))
    doors.publish(context, without)
    path = context.root / "environments" / f"{environment.name}.yaml"
    write_whole(path, replace_cluster(path.read_text(encoding="utf-8"), old, new))
    context.note("removed", cluster=old)
