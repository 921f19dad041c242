"""The gate: a job on the new image must find what jobs need, before more queues follow."""

from __future__ import annotations

import base64
import json
import math
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from clusterbox.errors import ClusterboxError
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
    open_scheduler,
    pauses,
)
from clusterbox.images.fleet import RESERVATION, Scheduler, find_nodes_of
from clusterbox.images.plan import Step
from clusterbox.images.rollout import find_left
from clusterbox.site.image_definitions import image_definition_names, load_image_definition
from clusterbox.site.yaml_file import YamlFile, value_at

SCRIPT = Path("ami/patch/gate.sh")
_TAIL_LINES = 30
_MOST_OUTPUT = 15_000
_SCRIPT_SECONDS = 120.0
_LATE_SECONDS = 5.0
_JOB_STATE = re.compile(r"\bJobState=(\S+)")
_NODE_LIST = re.compile(r"\bNodeList=(\S+)")
_REASON = re.compile(r"\bReason=(\S+)")
# Lines of the job's output: the node that it ran on, and the last one of all.
_NODE = re.compile(r"^node: (\S+)$", re.MULTILINE)
_WHOLE = re.compile(r"^gate: done, ", re.MULTILINE)
_SUCCEEDED = "COMPLETED"
# squeue's manual, "JOB STATE CODES".
_OVER = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    }
)


@dataclass(frozen=True)
class Demands:
    """What the job looks for on its node."""

    imports: tuple[str, ...]
    mounts: tuple[str, ...]
    slurm_version: str | None
    # Name that must resolve, and answer on port 443.
    endpoint: str
    bucket: str


def find_demands(context: Context, cluster: str, queue: str) -> Demands:
    """Return what a job of a queue must find, from its image's definition and the cluster's file."""
    part = find_part(context, cluster, "queue", queue)
    definition = None
    if part.image is not None and part.image in image_definition_names(context.root):
        definition = load_image_definition(context.root, part.image)
    environment = context.environment
    suffix = "amazonaws.com.cn" if environment.partition == "aws-cn" else "amazonaws.com"
    return Demands(
        imports=tuple(definition.expect.imports) if definition else (),
        mounts=tuple(find_mounts(load_cluster(context, cluster))),
        slurm_version=definition.slurm_version if definition else None,
        endpoint=f"s3.{environment.region}.{suffix}",
        bucket=environment.storage.buckets.results.name,
    )


def find_mounts(config: YamlFile) -> list[str]:
    """Return where the cluster mounts its shared storage."""
    shares = value_at(config.data, ("SharedStorage",))
    found = [value_at(share, ("MountDir",)) for share in shares] if isinstance(shares, list) else []
    return [mount if mount.startswith("/") else f"/{mount}" for mount in found if mount]


def render_job(root: Path, demands: Demands) -> str:
    """Return the job's script: the values it looks for, then `ami/patch/gate.sh`."""
    values = {
        "BUCKET": demands.bucket,
        "ENDPOINT": demands.endpoint,
        "IMPORTS": " ".join(demands.imports),
        "MOUNTS": "\n".join(demands.mounts),
        "SLURM_VERSION": demands.slurm_version or "",
    }
    shebang, _, rest = (root / SCRIPT).read_text(encoding="utf-8").partition("\n")
    lines = [f"export GATE_{key}={shlex.quote(value)}" for key, value in values.items()]
    return "\n".join([shebang, *lines, rest])


def gate(context: Context, step: Step, doors: Doors = DOORS) -> Result:
    """Run a job on a queue's new image and return what it found.

    `step.subject` has `cluster` and `queue`. The job is found again by its name after a kill. Returns
    `{"cluster", "queue", "job", "node", "ami", "checks": [{"check", "ok", "detail"}]}`. Raises
    StepFailedError with the end of the job's output where a check fails, where the job does not end
    in time (it is cancelled then), or where it ran on another image.
    """
    cluster, queue = step.subject["cluster"], step.subject["queue"]
    ami = locked_ami(context, find_part(context, cluster, "queue", queue))
    if (left := find_left(context, cluster)) is not None:
        return {"skipped": f"not tried: {left}"}
    window.enter(context, doors.entered)
    demands = find_demands(context, cluster, queue)
    scheduler = open_scheduler(context, cluster, doors)
    if scheduler.has_reservation(RESERVATION):
        raise StepFailedError(
            f"no job starts on {cluster}: the reservation {RESERVATION}, with which its head node was "
            "patched, is still there. When the head node is in order, let jobs start with `scontrol "
            f"delete ReservationName={RESERVATION}` on it, and resume the run"
        )
    job = _GateJob(context, scheduler, cluster, queue, demands.mounts)
    ident = job.submit(render_job(context.root, demands))
    context.progress.note(f"job {ident} of {cluster}/{queue} looks at the new image")
    state, node = job.wait(ident)
    output = job.read_output()
    if state == _SUCCEEDED and not _WHOLE.search(output):
        # A network file system may show it a moment later.
        context.wait(_LATE_SECONDS)
        output = job.read_output()
    checks = parse_checks(output)
    if said := _NODE.search(output):
        node = said[1]
    found = _find_ami(context, cluster, queue, node, output, scheduler)
    context.note("gate", cluster=cluster, queue=queue, job=ident, node=node, ami=found, state=state)
    # So that another call submits another job.
    job.forget()
    where = f"gate of {cluster}/{queue}: job {ident} on {node or 'no node'}"
    failed = [str(check["check"]) for check in checks if not check["ok"]]
    if state != _SUCCEEDED or failed or not _WHOLE.search(output):
        what = ", ".join(failed) or f"the job ended as {state}"
        tail = "\n".join(output.splitlines()[-_TAIL_LINES:]) or "nothing"
        raise StepFailedError(
            f"{where}: {what}. Nothing further was moved; jobs of this queue start on the new image: "
            f"`clusterbox images rollback` brings the earlier one back. The job's output:\n{tail}"
        )
    if found != ami:
        raise StepFailedError(
            f"{where} ran on {found or 'an unknown image'} and not on {ami}: a node of the earlier "
            "image still takes jobs; wait until the queue has drained, and resume the run"
        )
    return {
        "cluster": cluster,
        "queue": queue,
        "job": ident,
        "node": node,
        "ami": found,
        "checks": checks,
    }


def parse_checks(output: str) -> list[dict[str, object]]:
    """Return the checks of a job's output: lines of JSON with `check`, `ok` and `detail`."""
    checks = []
    for line in output.splitlines():
        if line.startswith('{"check"'):
            try:
                found = json.loads(line)
            except ValueError:
                continue
            checks.append(
                {"check": found["check"], "ok": found.get("ok") is True,
                 "detail": str(found.get("detail", ""))}
            )  # fmt: skip
    return checks


@dataclass(frozen=True)
class _GateJob:
    """The job of one run in one queue, and its files, which all nodes of the cluster see."""

    context: Context
    scheduler: Scheduler
    cluster: str
    queue: str
    mounts: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"clusterbox-gate-{self.context.plan.run}-{self.queue}"

    def submit(self, text: str) -> str:
        """Submit the job unless an earlier call did; return its id."""
        minutes = max(1, math.ceil(self.context.options.gate_seconds / 60))
        words = [
            *("sbatch", "--parsable", f"--job-name={self.name}", f"--comment={self.name}"),
            # Alone on its node, so that it is not put beside other jobs on one of the old image.
            *("--exclusive", "--nodes=1", "--ntasks=1", "--no-requeue", f"--time={minutes}"),
            # Before what users have queued, which may be more than the queue takes in this time.
            "--priority=TOP",
            f"--partition={self.queue}",
        ]
        encoded = base64.encodebytes(text.encode()).decode()
        printed = self._run(
            'mkdir -p "$folder"',
            # One at a time, and what an earlier call submitted is not submitted again.
            'exec 9>"$folder/lock" && flock 9',
            'if [[ -s $folder/job ]]; then cat "$folder/job"; exit 0; fi',
            "base64 --decode >\"$folder/job.sh\" <<'END'",
            f"{encoded}END",
            # What is queued under this name was submitted by a call that was killed since.
            f"found=$(squeue --noheader --name={self.name} --format=%i | head -n 1)",
            "if [[ -z $found ]]; then",
            f'  found=$({shlex.join(words)} --chdir="$folder" --output="$folder/output" \\',
            '    "$folder/job.sh" 9>&-)',
            "fi",
            # A cluster's name follows the id where there are several.
            'printf "%s\\n" "${found%%;*}" >"$folder/job.new"',
            'mv "$folder/job.new" "$folder/job"',
            'cat "$folder/job"',
        ).strip()
        job = printed.splitlines()[-1] if printed else ""
        if not job.isdigit():
            raise StepFailedError(f"sbatch on {self.cluster} printed no job id: {printed!r}")
        self.context.note("gate-submitted", job=job, name=self.name)
        return job

    def wait(self, job: str) -> tuple[str, str]:
        """Wait for the job's end; return its state and node. One that takes too long is cancelled."""
        context = self.context
        deadline = Deadline.after(context, context.options.gate_seconds)
        where, node, told = f"gate of {self.cluster}/{self.queue}", "", ""
        for seconds in pauses():
            shown = self._show(job)
            # Slurm forgets a job some minutes after its end; then its output says how it went.
            state = match[1] if (match := _JOB_STATE.search(shown)) else _SUCCEEDED
            if (listed := _NODE_LIST.search(shown)) and listed[1] not in ("(null)", "None"):
                node = listed[1]
            if state in _OVER:
                return state, node
            if state != told:
                context.progress.note(f"{where}: job {job} is {state}")
                told = state
            if deadline.is_over:
                self.scheduler.run("scancel", job)
                self.forget()
                why = _REASON.search(shown)
                raise StepFailedError(
                    f"{where}: job {job} was {state} ({why[1] if why else 'no reason'}) after "
                    f"{context.options.gate_seconds / 60:g} min and is cancelled: see whether nodes "
                    "of the queue start (clustermgtd and slurm_resume.log on the head node). "
                    "Nothing further was moved"
                )
            context.wait(seconds)
        raise AssertionError("pauses never end")

    def read_output(self) -> str:
        """Return the end of what the job has printed, empty where it has printed nothing."""
        return self._run(f'tail -c {_MOST_OUTPUT} "$folder/output" 2>/dev/null || true')

    def forget(self) -> None:
        """Remove the job's files, so that another call submits another job."""
        self._run('rm -rf "$folder"')

    def _show(self, job: str) -> str:
        """Return what Slurm knows of a job, empty when it has forgotten it (MinJobAge)."""
        try:
            return self.scheduler.run("scontrol", "show", "job", "--oneliner", job)
        except ClusterboxError as error:
            if "Invalid job id" in str(error):
                return ""
            raise

    def _run(self, *lines: str) -> str:
        other = self.mounts[0] if self.mounts else "/home"
        return self.scheduler.shell.run(
            "\n".join(
                (
                    "set -euo pipefail",
                    "PATH=/opt/slurm/bin:$PATH",
                    # The head node's /home is mounted by all nodes of a cluster.
                    f"folder=/home; [[ -w $folder ]] || folder={shlex.quote(other)}",
                    f"folder=$folder/.clusterbox/{self.name}",
                    *lines,
                )
            ),
            timeout_seconds=_SCRIPT_SECONDS,
        )


def _find_ami(
    context: Context, cluster: str, queue: str, node: str, output: str, scheduler: Scheduler
) -> str | None:
    """Return the AMI that the job ran on: what its node said, else its instance's; None if unknown."""
    said = re.search(r"^ami: (ami-[0-9a-f]+)$", output, re.MULTILINE)
    if said:
        return said[1]
    machines = [
        machine for machine in fetch_cluster_machines(context, cluster)
        if machine.kind == "queue" and machine.name == queue
    ]  # fmt: skip
    nodes = scheduler.fetch_nodes()
    for machine in machines:
        if node in find_nodes_of([machine], nodes):
            return machine.ami
    # Where addresses tell nothing, all of them may still run the same image.
    amis = {machine.ami for machine in machines}
    return amis.pop() if len(amis) == 1 else None
