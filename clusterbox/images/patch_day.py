"""A patch day as one thing: plan it, run it or a part of it, take it up again, give it up."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from clusterbox.errors import ClusterboxError, InputError
from clusterbox.images.checkpoint import restore_files, save_files
from clusterbox.images.context import Clock, Context
from clusterbox.images.execute import Execution, Outcome, Run, check_world
from clusterbox.images.lease import SECONDS, Lease, LeaseLostError, this_process, whoami
from clusterbox.images.plan import Action, Options, Plan
from clusterbox.images.promotion import propose_again
from clusterbox.images.record import Event, Record, Store, is_over, open_store
from clusterbox.images.timeline import expected_seconds

if TYPE_CHECKING:
    from clusterbox.deployment.progress import Progress
    from clusterbox.deployment.targets import Target
    from clusterbox.site.environment import Environment

BUILDING: tuple[Action, ...] = ("bake", "verify", "promote")
ROLLING: tuple[Action, ...] = ("queues", "gate", "login", "head", "replace", "admin-box")
# Runs whose timings an expectation comes from: a year of patch days.
_TIMED_RUNS = 12


@dataclass(frozen=True)
class PatchDay:
    """The patch days of one environment in one account."""

    root: Path
    environment: Environment
    target: Target
    progress: Progress
    clock: Clock = field(default_factory=Clock)
    lease_seconds: float = SECONDS
    # Failed builds of this run are deleted and built again; otherwise they stop it.
    retry_failed: bool = False

    @property
    def store(self) -> Store:
        """Where the runs are recorded."""
        return open_store(self.root, self.environment, self.target.client("s3"))

    def plan(self, options: Options, images: Sequence[str] = ()) -> Plan:
        """Return the plan of a new run; nothing is changed by making it.

        Raises InputError where it cannot be made, with what to do.
        """
        from clusterbox.images.planning import look, make_plan, next_run
        from clusterbox.images.users import find_users

        store = self.store
        now = self.clock.now()
        world = look(self.root, self.environment, self.target, images)
        return make_plan(
            world,
            options,
            run=next_run(now, store.runs()),
            now=now,
            expected=expected_seconds(self._earlier(store)),
            users=find_users(self.target, self.environment),
        )

    def plan_rollback(self, options: Options, images: Sequence[str] = ()) -> Plan:
        """Return the plan of the way back to the images before, also from the middle of a rollout.

        Raises InputError where there is nothing to go back to.
        """
        from clusterbox.images.live import fetch_live
        from clusterbox.images.planning import next_run
        from clusterbox.images.restore import make_rollback_plan
        from clusterbox.images.users import find_users

        store = self.store
        now = self.clock.now()
        return make_rollback_plan(
            self.root,
            self.environment,
            fetch_live(self.target, self.environment),
            options,
            images,
            run=next_run(now, store.runs()),
            now=now,
            expected=expected_seconds(self._earlier(store)),
            users=find_users(self.target, self.environment),
        )

    def events(self, run: str) -> list[Event]:
        """Return the release record of a run."""
        return self.store.read(run)

    def current(self) -> Plan | None:
        """Return the plan of the run that is under way or was cut off; None where there is none."""
        store = self.store
        run = store.unfinished()
        return None if run is None else store.read_plan(run)

    def run(self, plan: Plan, only: Collection[Action] | None = None) -> tuple[Outcome, Record]:
        """Run a plan, or only the steps of some actions, and return how it ended.

        A run that was cut off goes on where it was. A new one is refused where the world is not
        what the plan was made from (StepFailedError), where another one has not ended (InputError)
        and where another operator's is under way (LeaseHeldError).
        """
        if plan.environment != self.environment.name:
            raise InputError(f"this plan is for {plan.environment}, not {self.environment.name}")
        store = self.store
        with self._lease(plan.run) as lease:
            events = store.read(plan.run)
            if is_over(events):
                raise InputError(f"the run {plan.run} has ended; plan a new one")
            if not events:
                self._begin(store, plan)
            else:
                self._refuse_other_plan(store, plan)
            record = Record.open(store, plan.run, whoami())
            record.check = lease.check
            if not events:
                record.append("begun", environment=plan.environment, target=self.target.name)
            else:
                self._go_on(store, plan, record)
            outcome = self._execute(plan, record, only, lease)
            if not outcome.failed and all(step.id in outcome.done for step in plan.steps):
                record.append("completed")
            return outcome, record

    def abandon(self, reason: str = "abandoned") -> str:
        """Mark the run that has not ended as given up, and return its id.

        What it changed stays as it is. Raises InputError where every run has ended.
        """
        store = self.store
        run = store.unfinished()
        if run is None:
            raise InputError(f"every patch day of {self.environment.name} has ended")
        with self._lease(run):
            Record.open(store, run, whoami()).append(reason)
        return run

    def _begin(self, store: Store, plan: Plan) -> None:
        from clusterbox.images.planning import look

        unfinished = store.unfinished()
        if unfinished is not None:
            raise InputError(
                f"the run {unfinished} has not ended: go on with it (without --plan), roll it "
                f"back, or give it up with `clusterbox images abandon {self.environment.name}`"
            )
        if plan.images:
            names = [image.image for image in plan.images]
            check_world(plan, look(self.root, self.environment, self.target, names).facts())
        store.create(plan)

    def _refuse_other_plan(self, store: Store, plan: Plan) -> None:
        """Raise InputError where a run of this id has begun by another plan; options may differ."""
        begun = store.read_plan(plan.run)
        if begun is not None and replace(begun, options=plan.options) != plan:
            raise InputError(
                f"the run {plan.run} was begun by another plan, of {begun.created}: go on with it "
                "(without --plan), or plan again"
            )

    def _go_on(self, store: Store, plan: Plan, record: Record) -> None:
        """Bring the files to where the run was, and record what is decided otherwise this time."""
        begun = store.read_plan(plan.run)
        if begun is not None and begun.options != plan.options:
            record.append("noted", options=asdict(plan.options))
        if taken := restore_files(store, plan.run, self.root, plan.environment):
            record.append("noted", restored=taken)
            self.progress.note(f"{', '.join(taken)}: as the run has left it")

    def _execute(
        self, plan: Plan, record: Record, only: Collection[Action] | None, lease: Lease
    ) -> Outcome:
        context = Context(
            root=self.root,
            environment=self.environment,
            target=self.target,
            progress=self.progress,
            plan=plan,
            clock=self.clock,
            check=lease.check,
        )
        try:
            outcome = Execution(
                context,
                record,
                actions(retry_failed=self.retry_failed),
                after=lambda: self._save(record),
            ).run(only)
        finally:
            self._propose(replace(context, note=record.append), record)
        if outcome.failed:
            _note_state(context, record)
        return outcome

    def _save(self, record: Record) -> None:
        """Keep what the run has written so far; where AWS does not answer, this machine has it."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            record.check()
            save_files(record.store, record.run, self.root, self.environment.name)
        except (BotoCoreError, ClientError, LeaseLostError) as error:
            record.behind = f"what the run wrote is only in {self.root}: {error}"

    def _propose(self, context: Context, record: Record) -> None:
        """Bring the merge request of the promotion up to date with the pins that moved since."""
        moved = {
            str(event["step"]).partition(":")[0]
            for event in record.events
            if event.get("event") == "started"
        }
        if self.target.name != "aws" or not moved.intersection((*ROLLING, "restore")):
            return
        try:
            record.check()
            url = propose_again(context)
        except ClusterboxError as error:
            record.append("noted", proposal=f"the merge request is not up to date: {error}")
            self.progress.note(f"commit ami/images.lock.yaml by hand: {error}")
        else:
            record.append("noted", proposal=url)

    def _lease(self, run: str) -> Lease:
        store = self.store
        return Lease(
            store.s3,
            store.bucket,
            f"{store.prefix}/lease.json",
            this_process(run),
            self.lease_seconds,
        )

    def _earlier(self, store: Store) -> list[Event]:
        return [event for run in store.runs()[-_TIMED_RUNS:] for event in store.read(run)]


def _note_state(context: Context, record: Record) -> None:
    """Record what runs on which image where a run stopped; what stopped it may forbid that too."""
    from botocore.exceptions import BotoCoreError, ClientError

    from clusterbox.images.notify import note_what_runs

    try:
        note_what_runs(replace(context, note=record.append))
    except (BotoCoreError, ClientError, ClusterboxError) as error:
        record.append("noted", unknown=f"nobody knows what runs: {error}")


def actions(*, retry_failed: bool = False) -> Mapping[Action, Run]:
    """Return the function of each action."""
    from clusterbox.images.admin_box import admin_box
    from clusterbox.images.bake import bake
    from clusterbox.images.blue_green import replace
    from clusterbox.images.gate import gate
    from clusterbox.images.head_node import head
    from clusterbox.images.login import login
    from clusterbox.images.notify import notify
    from clusterbox.images.promotion import promote
    from clusterbox.images.restore import restore
    from clusterbox.images.retire import retire
    from clusterbox.images.rollout import queues
    from clusterbox.images.verification import verify

    return {
        "bake": partial(bake, retry_failed=retry_failed),
        "verify": verify,
        "promote": promote,
        "restore": restore,
        "queues": queues,
        "gate": gate,
        "login": login,
        "head": head,
        "replace": replace,
        "admin-box": admin_box,
        "retire": retire,
        "notify": notify,
    }
