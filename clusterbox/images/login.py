"""Bring a pool of login nodes to the promoted image: 0 nodes, the new image, N nodes again."""

from __future__ import annotations

from collections.abc import Callable

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
from clusterbox.images.fleet import ClusterMachine, Scheduler
from clusterbox.images.plan import Step
from clusterbox.images.rollout import skip_if_busy
from clusterbox.site.images import ClusterPins, LoginPin
from clusterbox.site.load import Repository
from clusterbox.site.yaml_file import value_at

# ParallelCluster gives users at most 120 minutes (GracetimePeriod), then the instance ends.
_MARGIN_SECONDS = 900.0
_START_SECONDS = 1800.0
# pcluster/config: the default of LoginNodes/Pools/GracetimePeriod.
_GRACE_MINUTES = 10


def login(context: Context, step: Step, doors: Doors = DOORS) -> Result:
    """Bring a pool of login nodes to the image that is locked.

    ParallelCluster changes a pool's image only while the pool has no nodes, so that it is closed
    first; its nodes warn who is logged in for GracetimePeriod. A pool that an interrupted call left
    closed is opened by the next. `step.subject` has `cluster` and `pool`. Returns `{"cluster",
    "pool", "ami", "nodes": count}`, or `{"skipped": reason}`. Raises StepFailedError, which says so
    where the pool is still closed.
    """
    cluster, pool = step.subject["cluster"], step.subject["pool"]
    ami = locked_ami(context, find_part(context, cluster, "login", pool))
    count, grace = _settings(context, cluster, pool)
    done = {"cluster": cluster, "pool": pool, "ami": ami, "nodes": count}
    pin = _pin(context, cluster, pool)
    machines = _machines(context, cluster, pool)
    if pin is None and count and _are_on(machines, ami, count):
        return done
    is_closed = pin is not None and pin.closed
    if not is_closed:
        window.enter(context, doors.entered)
        scheduler = open_scheduler(context, cluster, doors)
        if (skipped := skip_if_busy(context, cluster, scheduler)) is not None:
            return skipped
        _wait_for_sessions(context, cluster, pool, scheduler)
    if is_closed or any(machine.ami != ami for machine in machines):
        old = pin.ami if pin is not None else next(each.ami for each in machines if each.ami != ami)
        context.note("login-closed", cluster=cluster, pool=pool, ami=old)
        context.progress.note(
            f"closing {pool} of {cluster}: who is logged in is warned for {grace} min"
        )
        move_pins(context, cluster, _change(pool, LoginPin(ami=old, closed=True)), doors)
        _wait_until_gone(context, cluster, pool, grace * 60.0 + _MARGIN_SECONDS)
    _open(context, cluster, pool, doors)
    _wait_until_on(context, cluster, pool, ami, count)
    context.note("login-opened", cluster=cluster, pool=pool, ami=ami, nodes=count)
    return done


def _wait_for_sessions(context: Context, cluster: str, pool: str, scheduler: Scheduler) -> None:
    """Wait for the jobs that would end with the pool, since their srun or salloc runs in it."""
    deadline, told = Deadline.after(context, context.options.drain_seconds), ""
    for pause in pauses():
        jobs = scheduler.fetch_jobs_from(_machines(context, cluster, pool))
        if not jobs:
            return
        listed = "; ".join(map(str, jobs))
        if listed != told:
            context.progress.note(f"waiting for interactive jobs of {pool}: {listed}")
            told = listed
        if deadline.is_over and context.options.terminate:
            context.note("ended", cluster=cluster, pool=pool, jobs=[str(job) for job in jobs])
            return
        if deadline.is_over:
            raise StepFailedError(
                f"{pool} of {cluster} was not touched: interactive jobs were started in it and would "
                f"end with it: {listed}. Resume the run to wait again, or with --terminate"
            )
        context.wait(pause)


def _open(context: Context, cluster: str, pool: str, doors: Doors) -> None:
    try:
        move_pins(context, cluster, _change(pool, None), doors)
    except StepFailedError as error:
        raise StepFailedError(
            f"THE POOL {pool} OF {cluster} HAS NO LOGIN NODES: it was closed for its new image and "
            "could not be opened. Users can work on the head node meanwhile. Resume the run, "
            f"which opens it: {error}"
        ) from error


def _change(pool: str, pin: LoginPin | None) -> Callable[[ClusterPins], ClusterPins]:
    def change(pins: ClusterPins) -> ClusterPins:
        others = {name: item for name, item in pins.login.items() if name != pool}
        return pins.model_copy(update={"login": others if pin is None else {**others, pool: pin}})

    return change


def _pin(context: Context, cluster: str, pool: str) -> LoginPin | None:
    pins = Repository(context.root).load_lock().pins_of(context.environment.name, cluster)
    return pins.login.get(pool)


def _settings(context: Context, cluster: str, pool: str) -> tuple[int, int]:
    """Return how many nodes a pool has, and for how many minutes its users are warned."""
    pools = value_at(load_cluster(context, cluster).data, ("LoginNodes", "Pools"))
    found = next(item for item in pools if item.get("Name") == pool)
    # pcluster/config: the default of Count is 1.
    return int(found.get("Count", 1)), int(found.get("GracetimePeriod", _GRACE_MINUTES))


def _machines(context: Context, cluster: str, pool: str) -> list[ClusterMachine]:
    return [
        machine
        for machine in fetch_cluster_machines(context, cluster)
        if machine.kind == "login" and machine.name == pool
    ]


def _are_on(machines: list[ClusterMachine], ami: str, count: int) -> bool:
    running = [machine for machine in machines if machine.state == "running"]
    return len(running) >= count and all(machine.ami == ami for machine in machines)


def _wait_until_gone(context: Context, cluster: str, pool: str, seconds: float) -> None:
    deadline = Deadline.after(context, seconds)
    for pause in pauses():
        machines = _machines(context, cluster, pool)
        if not machines:
            return
        if deadline.is_over:
            listed = ", ".join(machine.instance for machine in machines)
            raise StepFailedError(
                f"THE POOL {pool} OF {cluster} IS CLOSED and its nodes {listed} did not end within "
                f"{seconds / 60:g} min: see the Auto Scaling group's activity. Resume the run, "
                "which waits again and opens the pool on the new image"
            )
        context.wait(pause)


def _wait_until_on(context: Context, cluster: str, pool: str, ami: str, count: int) -> None:
    deadline = Deadline.after(context, _START_SECONDS)
    for pause in pauses():
        machines = _machines(context, cluster, pool)
        if _are_on(machines, ami, count):
            return
        if deadline.is_over:
            listed = ", ".join(f"{each.instance} {each.state} {each.ami}" for each in machines)
            raise StepFailedError(
                f"THE POOL {pool} OF {cluster} IS NOT OPEN: of {count} login nodes on {ami} there "
                f"are, {_START_SECONDS / 60:g} min after it was opened: {listed or 'none'}. See the "
                "Auto Scaling group's activity (capacity, image), and resume the run"
            )
        context.wait(pause)
