"""The door to Slurm: its commands as processes, their text output as records."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from clusterbox.errors import ClusterboxError

_SEPARATOR = "|"
# What Slurm's commands read from the caller's environment, and would change what they print.
_STEERING = re.compile(
    r"^(SLURM|SALLOC|SBATCH|SRUN|SQUEUE|SINFO|SACCT|SACCTMGR|SCONTROL|SCANCEL|SDIAG)_"
)
# Their environment becomes that of the job.
_PASSES_ENVIRONMENT_ON = ("sbatch", "srun", "salloc")
_RANGE = re.compile(r"^(?P<prefix>[^\[\]]*)\[(?P<ranges>[\d,\-]+)\](?P<rest>.*)$")
# The suffixes of a node's state in `sinfo` and of `StateLong`: power saving, reservations, ...
_STATE_MARKS = "*~#!%$@^-+"
# Parts of the output of `sdiag` whose labels are the same.
_SECTIONS = {"Main schedule statistics": "Main ", "Backfilling stats": "Backfill "}
_UNREACHABLE = (
    "Unable to contact slurm controller",
    "Connection refused",
    "Unable to establish controller",
)


class SlurmError(ClusterboxError):
    """A command of Slurm failed, took too long, or is not installed."""


# More than any cluster has; a list from outside must not fill the memory.
MOST_NODES = 100_000


@dataclass(frozen=True)
class Node:
    """A node as `scontrol show node` tells of it; memory in MiB."""

    name: str
    states: frozenset[str]
    cpus: int
    allocated_cpus: int
    memory_mib: int
    features: tuple[str, ...]
    partitions: tuple[str, ...]
    weight: int
    reason: str | None
    details: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class QueuedJob:
    """A job, or the pending rest of an array, in the queue."""

    id: str
    name: str
    user: str
    account: str
    partition: str
    state: str
    reason: str
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class AccountedJob:
    """A job as the accounting database has it; one record for each time that it was started."""

    id: str
    name: str
    user: str
    account: str
    partition: str
    state: str
    exit_code: str
    nodes: tuple[str, ...]
    elapsed_seconds: int
    cpus: int


@dataclass(frozen=True)
class Slurm:
    """Slurm's commands against the cluster that `environment` leads to (`SLURM_CONF`).

    What steers the commands in the caller's own environment, such as `SQUEUE_FORMAT`, is left out.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    timeout_seconds: float = 60.0
    # Where commands run that are given no folder, and with them jobs; None for the caller's own.
    folder: Path | None = None

    def run(
        self,
        *words: str,
        stdin: str | None = None,
        folder: Path | None = None,
        timeout_seconds: float | None = None,
    ) -> str:
        """Run a command such as `sinfo -h` and return its standard output.

        Raises SlurmError when it is not installed, fails, or takes longer than the time-out.
        """
        limit = timeout_seconds or self.timeout_seconds
        folder = folder or self.folder
        environment = _surroundings()
        if words[0] not in _PASSES_ENVIRONMENT_ON:
            # Times in UTC: local ones repeat an hour when summer time ends.
            environment |= {"SLURM_TIME_FORMAT": "standard", "TZ": "UTC"}
        try:
            done = subprocess.run(
                words,
                env={**environment, **self.environment},
                cwd=folder,
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=limit,
            )
        except FileNotFoundError as error:
            if folder is not None and not folder.is_dir():
                raise SlurmError(f"`{words[0]}` cannot run in {folder}: no such folder") from error
            raise SlurmError(
                f"`{words[0]}` is not installed here; run this where Slurm's commands are "
                f"(a head or login node), or install slurm-client"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise SlurmError(
                f"`{_shown(words)}` did not answer within {limit:g} s; "
                f"see whether slurmctld and slurmdbd run: `scontrol ping`, `sdiag`"
            ) from error
        if done.returncode != 0:
            raise SlurmError(_explain(words, done))
        return done.stdout

    def submit(self, script: str, *options: str, folder: Path | None = None) -> str:
        """Submit a batch script through `sbatch` and return the job's id.

        `folder` is where it runs. Raises SlurmError with Slurm's reason when it is refused.
        """
        text = script if script.startswith("#!") else f"#!/bin/sh\n{script}\n"
        answer = self.run("sbatch", "--parsable", *options, stdin=text, folder=folder)
        return answer.strip().split(";")[0]

    def cancel(self, *jobs: str) -> None:
        """Cancel jobs by their ids; one that has ended already is left as it is."""
        self.run("scancel", *jobs)

    def fetch_nodes(self) -> list[Node]:
        """Return all nodes, also those of partitions that are hidden."""
        return parse_nodes(self.run("scontrol", "show", "nodes", "--all", "--oneliner"))

    def fetch_node(self, name: str) -> Node:
        """Return one node; raises SlurmError when there is no such node."""
        return parse_nodes(self.run("scontrol", "show", "node", name, "--oneliner"))[0]

    def fetch_partitions(self) -> dict[str, dict[str, str]]:
        """Return the settings of each partition by its name, as Slurm writes them."""
        text = self.run("scontrol", "show", "partitions", "--all", "--oneliner")
        records = [parse_key_values(line) for line in text.splitlines() if line.strip()]
        return {record["PartitionName"]: record for record in records if "PartitionName" in record}

    def fetch_configuration(self) -> dict[str, str]:
        """Return the settings that slurmctld runs with (`scontrol show config`)."""
        found = {}
        for line in self.run("scontrol", "show", "config").splitlines():
            name, equals, value = line.partition("=")
            if equals:
                found[name.strip()] = value.strip()
        return found

    def fetch_queue(self, *options: str) -> list[QueuedJob]:
        """Return the jobs in the queue; `options` are those of `squeue` that choose some."""
        form = _SEPARATOR.join(("%i", "%u", "%a", "%P", "%T", "%r", "%N", "%j"))
        return parse_queue(self.run("squeue", "--all", "--noheader", "-o", form, *options))

    def fetch_accounted(self, *options: str) -> list[AccountedJob]:
        """Return jobs from the accounting database, without their steps.

        `options` are those of `sacct` that choose some; without them it is today's jobs. A job
        that was started more than once has as many records, in that order.
        """
        columns = (
            "JobID,User,Account,Partition,State,ExitCode,NodeList,ElapsedRaw,AllocCPUS,JobName"
        )
        words = ("sacct", "--allusers", "--allocations", "--duplicates", "--parsable2")
        return parse_accounted(self.run(*words, "--noheader", f"--format={columns}", *options))

    def fetch_scheduler_figures(self) -> dict[str, float]:
        """Return the figures of `sdiag` by their labels; several of one label are numbered."""
        return parse_scheduler_figures(self.run("sdiag"))

    def change_accounting(self, *words: str) -> bool:
        """Run `sacctmgr` with changes that are not asked about; return whether any was made."""
        try:
            self.run("sacctmgr", "--immediate", *words)
        except SlurmError as error:
            # Its way of saying that all is as wished already; the exit code is that of a failure.
            if any(text in str(error) for text in ("Nothing new added", "Nothing modified")):
                return False
            raise
        return True

    def fetch_table(self, *words: str) -> list[dict[str, str]]:
        """Return what a command with `--parsable2` and a header prints, by its columns."""
        return parse_table(self.run(*words))

    def update_nodes(self, names: Iterable[str], **settings: str) -> None:
        """Change nodes through `scontrol update`, for example `state="down", reason="..."`."""
        given = [f"{key}={value}" for key, value in settings.items()]
        self.run("scontrol", "update", f"nodename={','.join(names)}", *given)

    def is_up(self) -> bool:
        """Return whether slurmctld answers, asking for at most 5 s."""
        try:
            answer = self.run("scontrol", "ping", timeout_seconds=5)
        except SlurmError:
            return False
        return " is UP" in answer


def parse_table(text: str) -> list[dict[str, str]]:
    """Return the rows of `--parsable2` output that has a header."""
    lines = text.splitlines()
    if not lines:
        return []
    header = lines[0].split(_SEPARATOR)
    return [dict(zip(header, _split(line, len(header)), strict=True)) for line in lines[1:] if line]


def parse_key_values(line: str) -> dict[str, str]:
    """Return the `Key=value` pairs of a line of `scontrol --oneliner`; a value may hold spaces."""
    found: dict[str, str] = {}
    for part in re.split(r"\s+(?=[A-Za-z][\w:/]*=)", line.strip()):
        key, equals, value = part.partition("=")
        # The first one counts: later ones of that name are text of a comment.
        if equals and key not in found:
            found[key] = value.strip()
    return found


def parse_nodes(text: str) -> list[Node]:
    """Return the nodes of `scontrol show nodes --oneliner`."""
    return [_node(parse_key_values(line)) for line in text.splitlines() if "NodeName=" in line]


def parse_queue(text: str) -> list[QueuedJob]:
    """Return the jobs of the format that `fetch_queue` asks for."""
    jobs = []
    for line in text.splitlines():
        ident, user, account, partition, state, reason, nodes, name = _split(line, 8)
        jobs.append(
            QueuedJob(
                ident, name, user, account, partition, state, reason, tuple(expand_hostlist(nodes))
            )
        )
    return jobs


def parse_accounted(text: str) -> list[AccountedJob]:
    """Return the jobs of the columns that `fetch_accounted` asks for."""
    jobs = []
    for line in text.splitlines():
        ident, user, account, partition, state, code, nodes, elapsed, cpus, name = _split(line, 10)
        jobs.append(
            AccountedJob(
                id=ident,
                name=name,
                user=user,
                account=account,
                partition=partition,
                # `CANCELLED by 1000` tells who did it.
                state=state.split(" ")[0],
                exit_code=code,
                nodes=() if nodes == "None assigned" else tuple(expand_hostlist(nodes)),
                elapsed_seconds=int(elapsed or 0),
                cpus=int(cpus or 0),
            )
        )
    return jobs


def parse_scheduler_figures(text: str) -> dict[str, float]:
    """Return the numbers of `sdiag` by their labels, under their section where it has a title."""
    figures: dict[str, float] = {}
    section = ""
    for line in text.splitlines():
        if line.startswith("Remote Procedure Call"):
            break
        if title := next((t for t in _SECTIONS if line.startswith(t)), None):
            section = _SECTIONS[title]
        label, colon, value = line.strip().partition(":")
        number = re.match(r"-?\d+(\.\d+)?", value.strip())
        if colon and number:
            figures[f"{section}{label.strip()}".strip()] = float(number.group())
    return figures


def expand_hostlist(text: str) -> list[str]:
    """Return the names of a host list: `a-[1-2],b-[01,03]` is a-1, a-2, b-01, b-03.

    Raises ValueError for a list that Slurm would not write, and for one of more names than any
    cluster has nodes.
    """
    names = list(islice((name for part in _parts(text) for name in _expand(part)), MOST_NODES + 1))
    if len(names) > MOST_NODES:
        raise ValueError(f"a host list of more than {MOST_NODES} names: {text[:80]!r}")
    return names


def _parts(text: str) -> Iterator[str]:
    depth, start = 0, 0
    for at, letter in enumerate(text):
        depth += (letter == "[") - (letter == "]")
        if letter == "," and depth == 0:
            yield text[start:at]
            start = at + 1
    if depth:
        raise ValueError(f"not a host list: {text!r}")
    if text[start:]:
        yield text[start:]


def _expand(part: str) -> Iterator[str]:
    found = _RANGE.match(part)
    if found is None:
        if "[" in part or "]" in part:
            raise ValueError(f"not a host list: {part!r}")
        yield part
        return
    for one in found["ranges"].split(","):
        first, _, last = one.partition("-")
        for number in range(int(first), int(last or first) + 1):
            for rest in _expand(found["rest"]):
                yield f"{found['prefix']}{number:0{len(first)}d}{rest}"


def _node(record: Mapping[str, str]) -> Node:
    reason = record.get("Reason")
    return Node(
        name=record["NodeName"],
        states=frozenset(
            state.strip(_STATE_MARKS).upper() for state in record.get("State", "").split("+")
        ),
        cpus=int(record.get("CPUTot", 0)),
        allocated_cpus=int(record.get("CPUAlloc", 0)),
        memory_mib=int(record.get("RealMemory", 0)),
        features=_list(record.get("AvailableFeatures", "")),
        partitions=_list(record.get("Partitions", "")),
        weight=int(record.get("Weight", 1)),
        reason=reason.rsplit(" [", 1)[0] if reason else None,
        details=record,
    )


def _list(text: str) -> tuple[str, ...]:
    return () if text in ("", "(null)") else tuple(text.split(","))


def _split(line: str, columns: int) -> list[str]:
    """Return the cells of a line; the last one, a name that a user chose, may hold separators."""
    cells = line.split(_SEPARATOR, columns - 1)
    if len(cells) != columns:
        raise SlurmError(f"Slurm printed a line of {len(cells)} columns, not {columns}: {line!r}")
    return cells


def _surroundings() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not _STEERING.match(name)}
    if "SLURM_CONF" in os.environ:
        kept["SLURM_CONF"] = os.environ["SLURM_CONF"]
    return kept


def _shown(words: Sequence[str]) -> str:
    text = " ".join(words)
    return text if len(text) <= 120 else f"{text[:119]}…"


def _explain(words: Sequence[str], done: subprocess.CompletedProcess[str]) -> str:
    said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()
    message = f"`{_shown(words)}` failed ({done.returncode}): {chr(10).join(said[-10:])}"
    if any(text in message for text in _UNREACHABLE):
        message += "\nslurmctld does not answer: is SLURM_CONF that of a cluster that runs?"
    return message
