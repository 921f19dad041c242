"""What the steps of a rollout reach the world through: deployments, pins and head nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from clusterbox.errors import ClusterboxError, InputError
from clusterbox.files import write_whole
from clusterbox.images.context import Context, StepFailedError
from clusterbox.images.fleet import ClusterMachine, Scheduler, Shell, fetch_machines, find_head
from clusterbox.site import names
from clusterbox.site.environment import Environment
from clusterbox.site.images import LOCK, ClusterPins, ImageLock, render_lock
from clusterbox.site.load import Repository
from clusterbox.site.pins import ConfiguredPart, PartKind, find_configured_parts
from clusterbox.site.yaml_file import YamlFile

# A deployment that a killed run left behind ends by itself within this.
_SETTLE_SECONDS = 3600.0
# First and longest pause between two looks.
_FIRST_SECONDS = 1.0
_MOST_SECONDS = 30.0


def _deploy(context: Context, environment: Environment, cluster: str) -> None:
    from clusterbox.deployment.site import Site

    Site(context.root, environment, context.progress).deploy_clusters(context.target, [cluster])


def _publish(context: Context, lock: ImageLock) -> None:
    from clusterbox.deployment.pins import publish_lock

    publish_lock(context.client("ssm"), context.environment, context.plan.run, lock)


def _remove(context: Context, environment: Environment, cluster: str) -> None:
    from clusterbox.deployment.site import Site

    site = Site(context.root, environment, context.progress)
    site.remove_cluster(context.target.name, cluster, lambda _question: True)


def _open_shell(context: Context, instance: str) -> Shell:
    from clusterbox.run_command import Machine

    return Machine(instance, context.client("ssm"), sleep=context.clock.sleep)


@dataclass(frozen=True)
class Doors:
    """What the steps call that is more than one call of boto3; tests give others.

    `entered` are the runs that this process has had in a maintenance window.
    """

    deploy: Callable[[Context, Environment, str], None] = _deploy
    remove: Callable[[Context, Environment, str], None] = _remove
    publish: Callable[[Context, ImageLock], None] = _publish
    open_shell: Callable[[Context, str], Shell] = _open_shell
    entered: set[str] = field(default_factory=set)


DOORS = Doors()


def pauses() -> Iterator[float]:
    """Yield the seconds to wait between looks: short at first, then as long as is polite."""
    seconds = _FIRST_SECONDS
    while True:
        yield seconds
        seconds = min(_MOST_SECONDS, seconds * 1.5)


@dataclass(frozen=True)
class Deadline:
    """A moment after which waiting ends."""

    at: datetime
    now: Callable[[], datetime]

    @classmethod
    def after(cls, context: Context, seconds: float) -> Deadline:
        """Return the one that many seconds from now."""
        return cls(context.clock.now() + timedelta(seconds=seconds), context.clock.now)

    @property
    def is_over(self) -> bool:
        """Whether it has passed."""
        return self.now() >= self.at


def load_cluster(context: Context, cluster: str) -> YamlFile:
    """Return a cluster's configuration; raises InputError where the environment has no such one."""
    environment = reload_environment(context)
    for entry in environment.clusters:
        if entry.name == cluster:
            return Repository(context.root).load_cluster(entry)
    known = ", ".join(entry.name for entry in environment.clusters) or "none"
    raise InputError(f"{environment.name} has no cluster {cluster}; it has: {known}")


def reload_environment(context: Context) -> Environment:
    """Return the environment as its file is now: a replacement adds a cluster to it."""
    return Repository(context.root).load_environment(context.environment.name)


def find_part(context: Context, cluster: str, kind: PartKind, name: str) -> ConfiguredPart:
    """Return a part of a cluster; raises InputError where there is none."""
    parts = [
        part for part in find_configured_parts(load_cluster(context, cluster)) if part.kind == kind
    ]
    for part in parts:
        if part.name == name:
            return part
    known = ", ".join(part.name for part in parts) or "none"
    raise InputError(f"{cluster} has no {kind} {name}; it has: {known}")


def locked_ami(context: Context, part: ConfiguredPart) -> str:
    """Return the AMI that a part runs when it isn't pinned; raises StepFailedError if it has none."""
    if part.image is None or not part.is_own:
        what = {"head": "the head node", "queue": "queue", "login": "pool"}[part.kind]
        raise StepFailedError(
            f"{what} {part.name} has no image of its own: give it Image: CustomAmi: "
            "${images.NAME}, deploy, and resume the run"
        )
    locked = Repository(context.root).load_lock().environments.get(context.environment.name, {})
    if part.image not in locked:
        raise StepFailedError(
            f"{LOCK} has no image {part.image} of {context.environment.name}: promote one first"
        )
    return locked[part.image].ami


def fetch_cluster_machines(context: Context, cluster: str) -> list[ClusterMachine]:
    """Return the machines of a cluster that are not terminated."""
    return fetch_machines(context.client("ec2"), cluster)


def open_scheduler(context: Context, cluster: str, doors: Doors) -> Scheduler:
    """Return the Slurm of a cluster; raises ClusterboxError where it has no head node."""
    head = find_head(fetch_cluster_machines(context, cluster), cluster)
    return Scheduler(doors.open_shell(context, head.instance))


def move_pins(
    context: Context, cluster: str, change: Callable[[ClusterPins], ClusterPins], doors: Doors
) -> None:
    """Change the pins of a cluster in the lock, publish them, and deploy the cluster's stack.

    Can be repeated: a deployment that a killed run left under way is waited for, and one that
    changes nothing is quick. Where the account rolled a deployment back, the pins go back too, so
    that lock and account agree. Raises StepFailedError with the reasons.
    """
    repository = Repository(context.root)
    name = context.environment.name
    _settle(context, cluster)
    start = _stack(context, cluster)
    # Read as late as can be, here and below: other environments may be patched from this checkout.
    before = repository.load_lock()
    pins = before.pins_of(name, cluster)
    after = before.with_pins(name, cluster, change(pins))
    write_whole(context.root / LOCK, render_lock(after))
    doors.publish(context, after)
    try:
        deploy(context, cluster, doors)
    except ClusterboxError as error:
        if not _was_rolled_back(context, cluster, start):
            raise StepFailedError(
                f"the deployment of {cluster} did not come to its end here, and may go on in the "
                f"account: resume the run, and it is taken up: {error}"
            ) from error
        back = repository.load_lock().with_pins(name, cluster, pins)
        write_whole(context.root / LOCK, render_lock(back))
        doors.publish(context, back)
        raise StepFailedError(
            f"{cluster} was not changed, and runs as before: its deployment failed: {error}"
        ) from error


def deploy(context: Context, cluster: str, doors: Doors) -> None:
    """Deploy a cluster's stack as the repository says, once no other run works on the environment."""
    from clusterbox.deployment.site import BusyError

    deadline = Deadline.after(context, _SETTLE_SECONDS)
    for seconds in pauses():
        context.check()
        try:
            doors.deploy(context, reload_environment(context), cluster)
        except BusyError:
            # What a killed run started goes on, and holds the environment until it is done.
            if deadline.is_over:
                raise
            context.wait(seconds)
        else:
            context.note("deployed", cluster=cluster)
            return


def _settle(context: Context, cluster: str) -> None:
    """Wait until no deployment of a cluster is under way that nobody follows any more."""
    deadline = Deadline.after(context, _SETTLE_SECONDS)
    for seconds in pauses():
        state = _stack(context, cluster)[0]
        if not state.endswith("_IN_PROGRESS") or state == "REVIEW_IN_PROGRESS":
            return
        if deadline.is_over:
            raise StepFailedError(
                f"the stack of {cluster} has been {state} for an hour: see its events in "
                "CloudFormation, and resume the run when it has come to an end"
            )
        context.progress.note(f"the stack of {cluster} is {state}: waiting for its end")
        context.wait(seconds)


def _stack(context: Context, cluster: str) -> tuple[str, Any]:
    """Return the state of a cluster's stack, empty where there is none, and its last change."""
    from botocore.exceptions import ClientError

    stack = names.cluster_stack_name(context.environment, cluster)
    try:
        found = context.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ValidationError":
            return "", None
        raise
    return found["StackStatus"], found.get("LastUpdatedTime", found.get("CreationTime"))


def _was_rolled_back(context: Context, cluster: str, start: tuple[str, Any]) -> bool:
    """Whether a failed deployment surely left the cluster as it was: rolled back, or never begun."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        state, changed = _stack(context, cluster)
    except (BotoCoreError, ClientError):
        return False
    if state.endswith("_IN_PROGRESS"):
        return False
    return state.endswith("ROLLBACK_COMPLETE") or (state, changed) == start
