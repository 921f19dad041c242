"""Patch a head node in place: hold its Slurm, snapshot, update, reboot, compare, let go.

ParallelCluster can never change the image of a head node that stands. What a call has done is read
from the account and the machine - the reservation in Slurm, the snapshot's tags, the folder of the
run, the instance's tags - so that a call after a kill goes on where the one before it ended.
"""

from __future__ import annotations

import base64
import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from clusterbox.errors import ClusterboxError
from clusterbox.images import window
from clusterbox.images.components import collect_files
from clusterbox.images.context import Context, Result, StepFailedError
from clusterbox.images.doors import (
    DOORS,
    Deadline,
    Doors,
    fetch_cluster_machines,
    find_part,
    pauses,
)
from clusterbox.images.execute import StoppedError
from clusterbox.images.fleet import RESERVATION, ClusterMachine, Scheduler, Shell, find_head
from clusterbox.images.head_facts import Facts, compare_facts, parse_changes, parse_facts
from clusterbox.images.plan import Step
from clusterbox.images.rollout import skip_if_busy
from clusterbox.site import names
from clusterbox.site.image_definitions import ImageDefinition, load_image_definition

Found = TypeVar("Found")

TAG_PATCHED = "clusterbox:patched"
TAG_RUN = "clusterbox:run"
# The head node's own type while it has another one.
TAG_TYPE = "clusterbox:instance-type"

_SCRIPTS = Path("ami/patch")
_STEP = "10-os-updates.sh"
_UPDATE_FILES = (
    "bundle.sha256",
    "image.env",
    "steps/common.sh",
    "steps/record.py",
    f"steps/{_STEP}",
)
# A rehearsal lets the files of a head node lie elsewhere.
_HOME = "${CLUSTERBOX_PATCH_HOME:-/opt/clusterbox/patch}"
_KIB_PER_GIB = 1024 * 1024
# Compilers of the modules of EFA and NVIDIA have run out of memory on machines of 4 GiB; what a
# machine of 8 GiB shows as MemTotal is some hundred MiB less than that.
_REBUILD_KIB = 7 * _KIB_PER_GIB
# dnf holds the metadata of all repositories in memory.
_UPDATE_KIB = _KIB_PER_GIB // 2
_REBOOT_SECONDS = 1200.0
_UPDATE_SECONDS = 3600.0
_SNAPSHOT_SECONDS = 4 * 3600.0
_REQUEUE_SECONDS = 600.0
_SCRIPT_SECONDS = 300.0


@dataclass(frozen=True)
class _Patch:
    """One head node that is patched in one run."""

    context: Context
    cluster: str
    definition: ImageDefinition
    doors: Doors

    @property
    def run(self) -> str:
        return self.context.plan.run

    @property
    def folder(self) -> str:
        return f'"{_HOME}/{self.run}"'

    def machine(self) -> ClusterMachine:
        return find_head(fetch_cluster_machines(self.context, self.cluster), self.cluster)

    def shell(self) -> Shell:
        return self.doors.open_shell(self.context, self.machine().instance)

    def scheduler(self) -> Scheduler:
        return Scheduler(self.shell())

    def script(self, name: str, *words: str) -> str:
        """Run a script of ami/patch with arguments, which the shell expands; return its output."""
        text = (self.context.root / _SCRIPTS / name).read_text(encoding="utf-8")
        encoded = base64.b64encode(text.encode()).decode()
        return self.shell().run(
            f"set -euo pipefail\nPATH=/opt/slurm/bin:$PATH\n"
            f'bash <(base64 --decode <<<"{encoded}") {" ".join(words)}',
            timeout_seconds=_SCRIPT_SECONDS,
        )

    def facts(self, file: str = "") -> Facts:
        """Return facts of now; with a file those of the first time that it was named."""
        return parse_facts(self.script("facts.sh", f"{self.folder}/{file}" if file else ""))


def head(context: Context, step: Step, doors: Doors = DOORS) -> Result:
    """Patch the head node of `step.subject`'s `cluster` where it stands.

    Returns `{"cluster", "instance", "snapshot", "kernel_before", "kernel_after", "packages":
    {"added", "removed", "upgraded"}, "modules_gone"}` or `{"skipped": reason}`. Raises
    StepFailedError; from the reboot on, jobs are then held, and the message says how to go back.
    """
    cluster = step.subject["cluster"]
    patch = _Patch(context, cluster, _definition(context, cluster), doors)
    machine = patch.machine()
    if machine.tags.get(TAG_PATCHED) == patch.run:
        return _finish(patch, _find_snapshot(patch))
    begun = _is_begun(patch, machine)
    if not begun:
        window.enter(context, doors.entered)
        if (skipped := skip_if_busy(context, cluster, patch.scheduler())) is not None:
            return skipped
        check_memory(patch.facts(), patch.definition, machine, context.options.resize_head)
    if TAG_TYPE in machine.tags:
        # A call that was killed may have left it stopped, or with another type.
        _bring_to_type(patch, context.options.resize_head or machine.tags[TAG_TYPE])
    if begun:
        # It may be on its way up since a call that was killed.
        _wait_until_back(patch, "", _find_snapshot(patch))
    _hold(patch)
    before = patch.facts("before.json")
    snapshot = _snapshot(patch)
    _resize(patch)
    updated_in = _update(patch, snapshot)
    _reboot(patch, updated_in, snapshot)
    _compare(patch, before, snapshot)
    _resize_back(patch, snapshot)
    _tag(patch, TAG_PATCHED, patch.run)
    return _finish(patch, snapshot)


def check_memory(
    facts: Facts, definition: ImageDefinition, machine: ClusterMachine, resize: str | None
) -> None:
    """Raise StepFailedError where an update could exhaust the memory of a head node.

    Modules are built anew only where the update may change the kernel: `10-os-updates.sh` leaves
    kernel, EFA, Lustre and NVIDIA alone on images of ParallelCluster.
    """
    if resize is not None:
        return
    modules = definition.expect.kernel_modules
    moves_kernel = not definition.parallelcluster_version and definition.kernel.policy != "minimal"
    gib = facts.memory_total_kib / _KIB_PER_GIB
    todo = "resume with a larger type for the time of the patch, such as --resize-head m6a.large"
    if modules and moves_kernel and facts.memory_total_kib < _REBUILD_KIB:
        raise StepFailedError(
            f"{machine.instance} ({machine.instance_type}) has {gib:.1f} GiB of memory, and building "
            f"the modules {', '.join(modules)} for a new kernel can exhaust it; {todo}"
        )
    if facts.memory_available_kib < _UPDATE_KIB:
        raise StepFailedError(
            f"{machine.instance} ({machine.instance_type}) has {facts.memory_available_kib // 1024} "
            f"MiB of memory available, and an update needs {_UPDATE_KIB // 1024}; {todo}"
        )


def snapshot_head(context: Context, cluster: str, doors: Doors) -> str | None:
    """Return this run's snapshot of a head node's disk, once complete; None where there is no node."""
    machines = fetch_cluster_machines(context, cluster)
    if not any(machine.kind == "head" for machine in machines):
        return None
    return _snapshot(_Patch(context, cluster, _definition(context, cluster), doors))


def restore_hint(cluster: str, instance: str, snapshot: str | None) -> str:
    """Return how to bring a head node back to what it was before it was patched."""
    back = (
        f"to go back: aws ec2 create-replace-root-volume-task --instance-id {instance} "
        f"--snapshot-id {snapshot}, and when it is done "
        if snapshot
        else "once it is as it was: "
    )
    return (
        f"Jobs of {cluster} are held and none is lost. Mend it and resume the run, or {back}"
        f"`scontrol delete ReservationName={RESERVATION}` on the head node"
    )


def _definition(context: Context, cluster: str) -> ImageDefinition:
    part = find_part(context, cluster, "head", "")
    if part.image is None:
        raise StepFailedError(
            f"the head node of {cluster} names its AMI itself: without an image of ami/images/ "
            "nobody knows which updates it may have"
        )
    return load_image_definition(context.root, part.image)


def _is_begun(patch: _Patch, machine: ClusterMachine) -> bool:
    """Whether an earlier call holds the Slurm of the cluster already."""
    if TAG_TYPE in machine.tags or _find_snapshot(patch) is not None:
        return True
    return machine.state == "running" and patch.scheduler().has_reservation(RESERVATION)


def _hold(patch: _Patch) -> None:
    """Let no job start, and wait until none runs; let go again where that takes too long."""
    scheduler, context = patch.scheduler(), patch.context
    if not scheduler.has_reservation(RESERVATION):
        context.progress.note(f"holding jobs of {patch.cluster}: they queue, and none starts")
        context.note("held", cluster=patch.cluster)
        scheduler.reserve_all(RESERVATION)
    try:
        _wait_for_jobs(patch, scheduler)
    except StoppedError:
        # Nobody may come back for hours; what is half-way stays held.
        if _find_snapshot(patch) is None:
            _release(patch, scheduler)
        raise


def _release(patch: _Patch, scheduler: Scheduler) -> None:
    scheduler.end_reservation(RESERVATION)
    patch.context.note("released", cluster=patch.cluster)


def _wait_for_jobs(patch: _Patch, scheduler: Scheduler) -> None:
    context = patch.context
    deadline, told, requeued = Deadline.after(context, context.options.drain_seconds), "", False
    for seconds in pauses():
        jobs = [job for job in scheduler.fetch_jobs() if job.is_running]
        if not jobs:
            return
        listed = "; ".join(map(str, jobs))
        if listed != told:
            context.progress.note(f"waiting for the jobs of {patch.cluster}: {listed}")
            told = listed
        if deadline.is_over and context.options.terminate and not requeued:
            context.note("requeued", cluster=patch.cluster, jobs=[str(job) for job in jobs])
            scheduler.requeue(jobs)
            deadline, requeued = Deadline.after(context, _REQUEUE_SECONDS), True
        elif deadline.is_over:
            _release(patch, scheduler)
            raise StepFailedError(
                f"the head node of {patch.cluster} was not touched, and jobs start again: after "
                f"{context.options.drain_seconds / 3600:g} h there still run {listed}. Resume the "
                "run to wait again"
                + ("; Slurm would not requeue these" if requeued else ", or with --terminate")
            )
        context.wait(seconds)


def _find_snapshot(patch: _Patch) -> str | None:
    found = patch.context.client("ec2").describe_snapshots(
        OwnerIds=["self"],
        Filters=[
            {"Name": f"tag:{TAG_RUN}", "Values": [patch.run]},
            {"Name": f"tag:{names.TAG_CLUSTER}", "Values": [patch.cluster]},
        ],
    )["Snapshots"]
    return str(found[0]["SnapshotId"]) if found else None


def _snapshot(patch: _Patch) -> str:
    """Return the snapshot of the root volume from before this run's update, once it is complete."""
    context, ec2 = patch.context, patch.context.client("ec2")
    snapshot = _find_snapshot(patch)
    if snapshot is None:
        patch.shell().run("sync", timeout_seconds=_SCRIPT_SECONDS)
        instance = _describe(patch)
        root = next(
            mapping["Ebs"]["VolumeId"]
            for mapping in instance["BlockDeviceMappings"]
            if mapping["DeviceName"] == instance["RootDeviceName"]
        )
        tags = {
            "Name": f"{patch.cluster} head node before {patch.run}",
            TAG_RUN: patch.run,
            names.TAG_CLUSTER: patch.cluster,
            names.TAG_ENVIRONMENT: context.environment.name,
        }
        snapshot = str(
            ec2.create_snapshot(
                VolumeId=root,
                Description=f"Before patch day {patch.run}",
                TagSpecifications=[{"ResourceType": "snapshot", "Tags": _tags(tags)}],
            )["SnapshotId"]
        )
        context.note("snapshot", cluster=patch.cluster, snapshot=snapshot, volume=root)
    deadline = Deadline.after(context, _SNAPSHOT_SECONDS)
    for seconds in pauses():
        found = ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]
        if found["State"] == "completed":
            return snapshot
        if found["State"] == "error" or deadline.is_over:
            raise StepFailedError(
                f"the snapshot {snapshot} of the head node of {patch.cluster} is {found['State']}, "
                f"and nothing was updated. Delete it and resume the run. "
                f"{restore_hint(patch.cluster, patch.machine().instance, None)}"
            )
        context.progress.note(f"snapshot {snapshot}: {found.get('Progress', '?')}")
        context.wait(seconds)
    raise AssertionError("pauses never end")


def _update(patch: _Patch, snapshot: str) -> str:
    """Update the operating system and return the id of the boot in which that ended."""
    context = patch.context
    files = collect_files(context.root, patch.definition, context.environment)
    missing = [name for name in _UPDATE_FILES if name not in files]
    if missing:
        raise StepFailedError(
            f"image {patch.definition.name} has no step {_STEP}: it cannot be patched in place"
        )
    packed = _pack({name: files[name] for name in _UPDATE_FILES})
    patch.shell().run(
        f"set -euo pipefail\nfolder={patch.folder}\n"
        'mkdir -p "$folder"\n'
        f'base64 --decode <<<"{packed}" | tar -xzf - -C "$folder" --no-same-owner\n',
        timeout_seconds=_SCRIPT_SECONDS,
    )
    deadline = Deadline.after(context, _UPDATE_SECONDS)
    for seconds in pauses():
        said = _try(patch, lambda: patch.script("update.sh", patch.folder)) or "no answer"
        state, _, rest = said.partition("\n")
        word, _, value = state.partition(" ")
        if word == "done":
            return value.strip()
        if word == "failed":
            # So that another call tries again.
            patch.shell().run(f"rm -f {patch.folder}/status", timeout_seconds=_SCRIPT_SECONDS)
            raise StepFailedError(
                f"the update of the head node of {patch.cluster} failed:\n{rest.rstrip()}\n"
                f"{restore_hint(patch.cluster, patch.machine().instance, snapshot)}"
            )
        if deadline.is_over:
            raise StepFailedError(
                f"the update of the head node of {patch.cluster} is not over after "
                f"{_UPDATE_SECONDS / 60:g} min ({state}); its log is {patch.folder}/log. "
                f"{restore_hint(patch.cluster, patch.machine().instance, snapshot)}"
            )
        context.wait(seconds)
    raise AssertionError("pauses never end")


def _reboot(patch: _Patch, updated_in: str, snapshot: str) -> None:
    """Reboot unless it was since the update, and wait until machine and Slurm answer."""
    instance, context = patch.machine().instance, patch.context
    if patch.facts().boot_id == updated_in:
        context.progress.note(f"rebooting the head node of {patch.cluster}")
        context.note("rebooting", cluster=patch.cluster, instance=instance)
        context.client("ec2").reboot_instances(InstanceIds=[instance])
    _wait_until_back(patch, updated_in, snapshot)


def _wait_until_back(patch: _Patch, other_than: str, snapshot: str | None) -> None:
    """Wait until the machine runs in another boot, and slurmctld answers."""
    context = patch.context
    deadline = Deadline.after(context, _REBOOT_SECONDS)
    for seconds in pauses():
        facts = _try(patch, patch.facts)
        if facts is not None and facts.boot_id != other_than and patch.scheduler().is_up():
            return
        if deadline.is_over:
            what = (
                "does not answer Systems Manager"
                if facts is None
                else "did not reboot" if facts.boot_id == other_than
                else "runs, but its slurmctld does not"
            )  # fmt: skip
            raise StepFailedError(
                f"the head node of {patch.cluster} {what}, {_REBOOT_SECONDS / 60:g} min after its "
                f"reboot; see its console (aws ec2 get-console-output). "
                f"{restore_hint(patch.cluster, patch.machine().instance, snapshot)}"
            )
        context.wait(seconds)


def _compare(patch: _Patch, before: Facts, snapshot: str) -> None:
    """Compare modules and services with those from before, which may need a while to start."""
    context = patch.context
    start = context.clock.now()
    for seconds in pauses():
        after = patch.facts()
        found = compare_facts(before, after, patch.definition.expect.kernel_modules)
        if not found.faults:
            patch.script("facts.sh", f"{patch.folder}/after.json")
            return
        if (context.clock.now() - start).total_seconds() >= found.wait_seconds:
            raise StepFailedError(
                f"the head node of {patch.cluster} is not what it was: {'; '.join(found.faults)}. "
                f"{restore_hint(patch.cluster, patch.machine().instance, snapshot)}"
            )
        context.wait(seconds)


def _resize(patch: _Patch) -> None:
    """Give the head node the type that the operator wants for the time of the update."""
    wanted, machine = patch.context.options.resize_head, patch.machine()
    if wanted is None or machine.instance_type == wanted:
        return
    if TAG_TYPE not in machine.tags:
        _tag(patch, TAG_TYPE, machine.instance_type)
    _bring_to_type(patch, wanted)


def _resize_back(patch: _Patch, snapshot: str) -> None:
    machine = patch.machine()
    own = machine.tags.get(TAG_TYPE)
    if own is None:
        return
    boot = patch.facts().boot_id if machine.state == "running" else ""
    if machine.instance_type != own:
        _bring_to_type(patch, own)
        _wait_until_back(patch, boot, snapshot)
    patch.context.client("ec2").delete_tags(Resources=[machine.instance], Tags=[{"Key": TAG_TYPE}])


def _bring_to_type(patch: _Patch, wanted: str) -> None:
    """Stop, change and start the head node, whatever of that is left to do."""
    context, ec2 = patch.context, patch.context.client("ec2")
    instance = patch.machine().instance
    if patch.machine().instance_type != wanted:
        context.progress.note(
            f"the head node of {patch.cluster} stops and becomes a {wanted}; "
            "its public address changes, where it has one that is not elastic"
        )
        context.note("resizing", cluster=patch.cluster, instance=instance, type=wanted)
        ec2.stop_instances(InstanceIds=[instance])
        _wait_for_state(patch, "stopped")
        ec2.modify_instance_attribute(InstanceId=instance, InstanceType={"Value": wanted})
    if patch.machine().state != "running":
        if patch.machine().state == "stopping":
            _wait_for_state(patch, "stopped")
        try:
            ec2.start_instances(InstanceIds=[instance])
        except context.client("ec2").exceptions.ClientError as error:
            raise StepFailedError(
                f"THE HEAD NODE {instance} OF {patch.cluster} IS STOPPED and does not start as a "
                f"{wanted}: {error}. Resume the run, or with another --resize-head"
            ) from error
        _wait_for_state(patch, "running")
        _wait_until_back(patch, "", None)


def _wait_for_state(patch: _Patch, state: str) -> None:
    context = patch.context
    deadline = Deadline.after(context, _REBOOT_SECONDS)
    for seconds in pauses():
        found = patch.machine()
        if found.state == state:
            return
        if deadline.is_over:
            raise StepFailedError(
                f"THE HEAD NODE {found.instance} OF {patch.cluster} is {found.state} and does not "
                f"become {state} within {_REBOOT_SECONDS / 60:g} min. Resume the run when it has"
            )
        context.wait(seconds)


def _finish(patch: _Patch, snapshot: str | None) -> Result:
    """Let jobs start, and return what changed."""
    before, after = patch.facts("before.json"), patch.facts("after.json")
    _release(patch, patch.scheduler())
    gone = sorted(before.modules - after.modules)
    files = [f"{patch.folder}/{name}.json" for name in ("before", "after")]
    packages = parse_changes(patch.script("facts.sh", "--changes", *files))
    instance = patch.machine().instance
    patch.context.note("patched", cluster=patch.cluster, instance=instance, kernel=after.kernel)
    return {
        "cluster": patch.cluster,
        "instance": instance,
        "snapshot": snapshot,
        "kernel_before": before.kernel,
        "kernel_after": after.kernel,
        "packages": packages,
        "modules_gone": gone,
    }


def _try(patch: _Patch, call: Callable[[], Found]) -> Found | None:
    """Return what a call to the machine gives; None while it doesn't answer."""
    try:
        return call()
    except StepFailedError:
        raise
    except ClusterboxError:
        patch.context.check()
        return None


def _describe(patch: _Patch) -> dict[str, Any]:
    found: dict[str, Any] = patch.context.client("ec2").describe_instances(
        InstanceIds=[patch.machine().instance]
    )["Reservations"][0]["Instances"][0]
    return found


def _tag(patch: _Patch, key: str, value: str) -> None:
    patch.context.client("ec2").create_tags(
        Resources=[patch.machine().instance], Tags=_tags({key: value})
    )


def _tags(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _pack(files: dict[str, bytes]) -> str:
    """Return files as a compressed archive in Base64; those that end with .sh can be run."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755 if name.endswith(".sh") else 0o644
            archive.addfile(entry, io.BytesIO(content))
    return base64.b64encode(packed.getvalue()).decode()
