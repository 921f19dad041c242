"""Bring the queues of a cluster to the promoted image, without ending a job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clusterbox.errors import ClusterboxError, InputError
from clusterbox.images import window
from clusterbox.images.context import Context, Result, StepFailedError
from clusterbox.images.doors import (
    DOORS,
    Deadline,
    Doors,
    fetch_cluster_machines,
    find_part,
    load_cluster,
    locked_ami,
    move_pins,
    open_scheduler,
    pauses,
)
from clusterbox.images.fleet import ClusterMachine, Job, Scheduler, find_nodes_of
from clusterbox.images.plan import Step
from clusterbox.site.images import ClusterPins
from clusterbox.site.load import Repository
from clusterbox.site.yaml_file import YamlFile, value_at

# With these ParallelCluster changes a queue's image while its nodes run (update policy of
# SlurmQueues: Image: CustomAmi, QUEUE_UPDATE_STRATEGY).
_STRATEGIES = ("DRAIN", "TERMINATE")
# Jobs that were requeued have ended, and their nodes are gone, within this.
_END_SECONDS = 1800.0
# Systems Manager may be away for as long, as when its agent is updated.
_UNREACHABLE_SECONDS = 600.0


@dataclass(frozen=True)
class Remains:
    """What still runs on an earlier image: machines, and the jobs on them."""

    machines: tuple[ClusterMachine, ...]
    jobs: tuple[Job, ...]

    def __str__(self) -> str:
        """Return it in one line."""
        machines = ", ".join(f"{machine.instance} ({machine.ami})" for machine in self.machines)
        jobs = "; ".join(map(str, self.jobs)) or "no job"
        return f"{len(self.machines)} nodes on earlier images: {machines}; {jobs}"


def find_unsupported(config: YamlFile, cluster: str) -> str | None:
    """Return why the queues of a cluster cannot get a new image while it runs; None if they can."""
    found = value_at(config.data, ("Scheduling", "SlurmSettings", "QueueUpdateStrategy"))
    if found in _STRATEGIES:
        return None
    has = f"is {found}" if found else "is not set, which means COMPUTE_FLEET_STOP"
    return (
        f"queues of {cluster} cannot be moved while it runs: QueueUpdateStrategy in {config.name} "
        f"{has}; it must be DRAIN, with which jobs end by themselves, or TERMINATE"
    )


def find_ending(config: YamlFile) -> bool:
    """Whether a change of a queue ends its running jobs: the strategy is TERMINATE."""
    strategy = value_at(config.data, ("Scheduling", "SlurmSettings", "QueueUpdateStrategy"))
    return bool(strategy == "TERMINATE")


def queues(context: Context, step: Step, doors: Doors = DOORS) -> Result:
    """Bring queues to the image that is locked; nodes that are left over end by themselves.

    `step.subject` has `cluster` and `queues`. Returns `{"cluster", "queues": {queue: ami},
    "requeued": [jobs]}`, or `{"skipped": reason}` where jobs run and the operator wants idle
    clusters only. Raises StepFailedError for what it could not bring, with what still runs where;
    new nodes then have the new image already, and old ones end with their last job.
    """
    cluster, wanted = step.subject["cluster"], step.subject["queues"].split(",")
    config = load_cluster(context, cluster)
    if (reason := find_unsupported(config, cluster)) is not None:
        raise StepFailedError(reason)
    amis = {
        queue: locked_ami(context, find_part(context, cluster, "queue", queue)) for queue in wanted
    }
    window.enter(context, doors.entered)
    scheduler = open_scheduler(context, cluster, doors)
    if (skipped := skip_if_busy(context, cluster, scheduler, amis)) is not None:
        return skipped
    if find_ending(config) and not context.options.terminate:
        _refuse_ending(cluster, scheduler, wanted)

    def unpin(pins: ClusterPins) -> ClusterPins:
        left = {queue: ami for queue, ami in pins.queues.items() if queue not in amis}
        return pins.model_copy(update={"queues": left})

    move_pins(context, cluster, unpin, doors)
    requeued = _wait_until_moved(context, cluster, amis, scheduler)
    return {"cluster": cluster, "queues": amis, "requeued": [job.id for job in requeued]}


def skip_if_busy(
    context: Context, cluster: str, scheduler: Scheduler, amis: dict[str, str] | None = None
) -> Result | None:
    """Return why a cluster is left alone, where the operator wants only idle ones touched.

    A cluster whose queues are on their way to `amis` since an earlier call is not left half-way,
    and one of which a part was left in this run is left as a whole: its gate has tried nothing.
    """
    if (left := find_left(context, cluster)) is not None:
        return {"skipped": left}
    if not context.options.when_idle:
        return None
    if amis and _is_begun(context, cluster, amis):
        return None
    running = [job for job in scheduler.fetch_jobs() if job.is_running]
    if not running:
        return None
    what = "1 job runs" if len(running) == 1 else f"{len(running)} jobs run"
    return {"skipped": f"left: {what} on {cluster}", "jobs": [str(job) for job in running]}


def find_left(context: Context, cluster: str) -> str | None:
    """Return which queues of a cluster this run has left alone and why; None where it has not."""
    for step in context.plan.steps:
        skipped = context.results.get(step.id, {}).get("skipped")
        if skipped and step.action == "queues" and step.subject.get("cluster") == cluster:
            return f"{step.id} was left out ({skipped})"
    return None


def find_remains(
    context: Context, cluster: str, amis: dict[str, str], scheduler: Scheduler
) -> Remains:
    """Return what still runs on another image than `amis` says by queue."""
    old = tuple(
        machine
        for machine in fetch_cluster_machines(context, cluster)
        if machine.kind == "queue" and machine.name in amis and machine.ami != amis[machine.name]
    )
    if not old:
        return Remains((), ())
    nodes = find_nodes_of(old, scheduler.fetch_nodes(), amis)
    jobs = [
        job for job in scheduler.fetch_jobs() if job.is_running and nodes.intersection(job.nodes)
    ]
    return Remains(old, tuple(jobs))


def _is_begun(context: Context, cluster: str, amis: dict[str, str]) -> bool:
    pins = Repository(context.root).load_lock().pins_of(context.environment.name, cluster)
    return not any(queue in pins.queues for queue in amis)


def _refuse_ending(cluster: str, scheduler: Scheduler, wanted: Sequence[str]) -> None:
    jobs = [job for job in scheduler.fetch_jobs() if job.is_running and job.partition in wanted]
    if jobs:
        listed = "; ".join(map(str, jobs))
        raise StepFailedError(
            f"{cluster} has QueueUpdateStrategy: TERMINATE, which would end {listed}: set it to "
            "DRAIN, wait for the jobs, or resume with --terminate"
        )


def _wait_until_moved(
    context: Context, cluster: str, amis: dict[str, str], scheduler: Scheduler
) -> list[Job]:
    """Wait until no node of the queues runs an earlier image; return the jobs that were requeued."""
    look = _looking(context, cluster, amis, scheduler)
    remains = _wait_for_end(context, look, context.options.drain_seconds)
    if not remains.machines:
        return []
    if not context.options.terminate:
        raise StepFailedError(
            f"{', '.join(amis)} of {cluster} did not drain within "
            f"{context.options.drain_seconds / 3600:g} h. New nodes start on the new image; these "
            f"end with their last job: {remains}. Resume the run to wait again, or with "
            "--terminate to requeue these jobs"
        )
    context.note("requeued", cluster=cluster, jobs=[str(job) for job in remains.jobs])
    context.progress.note(f"requeueing {len(remains.jobs)} jobs of {cluster}")
    refused = scheduler.requeue(remains.jobs)
    if refused:
        listed = "; ".join(map(str, refused))
        raise StepFailedError(
            f"Slurm does not requeue {listed} (submitted with --no-requeue, or not a batch job): "
            "cancel them with scancel, or wait; new nodes start on the new image already"
        )
    nodes = find_nodes_of(remains.machines, scheduler.fetch_nodes(), amis)
    scheduler.power_down(nodes, "clusterbox: moved to a new image")
    left = _wait_for_end(context, look, _END_SECONDS)
    if left.machines:
        raise StepFailedError(
            f"nodes of {cluster} did not end after their jobs were requeued: {left}"
        )
    return list(remains.jobs)


def _looking(
    context: Context, cluster: str, amis: dict[str, str], scheduler: Scheduler
) -> Callable[[], Remains | None]:
    """Return a function that looks once, and gives None where the head node does not answer."""
    since: list[Deadline] = []

    def look() -> Remains | None:
        try:
            remains = find_remains(context, cluster, amis, scheduler)
        except InputError:
            raise
        except ClusterboxError as error:
            since[:] = since or [Deadline.after(context, _UNREACHABLE_SECONDS)]
            if since[0].is_over:
                raise StepFailedError(
                    f"the head node of {cluster} has not answered for "
                    f"{_UNREACHABLE_SECONDS / 60:g} min, so nobody knows what still runs on the "
                    f"old image; new nodes start on the new one: {error}"
                ) from error
            context.progress.note(f"the head node of {cluster} does not answer; asking again")
            return None
        since.clear()
        return remains

    return look


def _wait_for_end(context: Context, look: Callable[[], Remains | None], seconds: float) -> Remains:
    """Return what remains when nothing does any more, or when the time is over."""
    deadline = Deadline.after(context, seconds)
    told = ""
    for pause in pauses():
        remains = look()
        if remains is not None:
            if not remains.machines:
                return remains
            if str(remains) != told:
                told = str(remains)
                context.progress.note(told)
            if deadline.is_over:
                return remains
        context.wait(pause)
    raise AssertionError("pauses never end")
