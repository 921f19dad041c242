"""The exporter on a real Slurm: every count against what Slurm's own commands say of it."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from clusterbox.embedded.slurm import Options, SlurmCluster
from clusterbox.observe import slurm_collector
from clusterbox.observe.slurm_collector import SlurmCollector
from clusterbox.slurm import SlurmError
from tests.observe.stand_ins import Samples, names, scrape, value
from tests.slurm_cluster import needs_slurm, wait_for, wait_for_job, write_cluster

pytestmark = needs_slurm

# As the Go exporter matches what sinfo calls a state.
_SINFO = {
    "alloc": "alloc",
    "comp": "comp",
    "down": "down",
    "drain": "drain",
    "fail": "fail",
    "idle": "idle",
    "maint": "maint",
    "mix": "mix",
    "res": "resv",
}
_SQUEUE = "State:20,Partition:20,UserName:20,Account:20,NumCPUs:10,Reason:120"
_KEPT = {
    *("pending", "running", "suspended", "cancelled", "completing", "completed"),
    *("configuring", "failed", "timeout", "preempted", "node_fail"),
}
# Slurm's own sentences for reasons.
_SENTENCES = (("Nodes required for job", "Resources"), ("job requeued in held", "JobHeldUser"))


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """A cluster with accounting, two users, two accounts and licences."""
    folder = tmp_path_factory.mktemp("slurm")
    more = {"Licenses": "matlab:3", "MaxArraySize": 50002, "MaxJobCount": 70000}
    options = Options(boot_seconds=0.5, idle_seconds=60, settings=more)
    cluster = write_cluster(folder, "seen", EnableMemoryBasedScheduling=True)
    with SlurmCluster.start(cluster, folder / "state", options) as running:
        running.door.change_accounting("add", "account", "landsat")
        running.door.change_accounting("add", "user", "nobody", "account=landsat")
        yield running


@dataclass(frozen=True)
class Ask:
    """One submission, and what is done with it afterwards."""

    words: tuple[str, ...]
    then: str = ""


LONG = ("--wrap", "sleep 1000")
_queue = st.sampled_from(["eco", "spot", "eco,spot"])
_user = st.sampled_from([(), ("--uid=nobody",)])
_what = st.one_of(
    st.builds(lambda n: Ask((f"--cpus-per-task={n}", "--mem=500", *LONG)), st.integers(1, 4)),
    st.builds(
        lambda n, limit: Ask((f"--array=1-{n}%{limit}", *LONG)),
        st.integers(1, 300),
        st.integers(1, 3),
    ),
    st.builds(lambda n: Ask((f"--array=1,3,7-{n}", "--hold", *LONG)), st.integers(8, 30000)),
    st.sampled_from(
        [
            Ask(("--hold", *LONG)),
            Ask(("--begin=now+1hour", *LONG)),
            Ask(("--wrap", "true")),
            Ask(("--wrap", "exit 3")),
            Ask(("--nodes=2", "--exclusive", *LONG)),
            Ask(("--licenses=matlab:2", *LONG)),
            Ask(LONG, "suspend"),
            Ask(LONG, "requeuehold"),
            Ask(("--hold", *LONG), "cancel"),
            Ask((":", *LONG), "heterogeneous"),
            Ask(LONG, "dependency"),
        ]
    ),
)
_mix = st.lists(st.tuples(_what, _queue, _user), min_size=3, max_size=8)


@settings(
    max_examples=5,
    deadline=None,
    # Making a failing mix smaller would take minutes: each try runs jobs.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(_mix)
def test_every_count_is_what_slurm_says(
    slurm: SlurmCluster, mix: list[tuple[Ask, str, tuple[str, ...]]]
) -> None:
    for ask, queue, user in mix:
        submit(slurm, ask, queue, user)
    try:
        said, found = at_rest(slurm, say)
        assert {key: found.get(key) for key in said} == said
        # And nothing else of these is told.
        counted = (
            "slurm_pending_jobs",
            "slurm_jobs",
            "slurm_user_jobs_running",
            "slurm_node_cpu_alloc",
        )
        extra = {k: n for k, n in found.items() if k[0] in counted and k not in said and n}
        assert extra == {}
    finally:
        for name in ("root", "nobody"):
            slurm.door.run("scancel", f"--user={name}")
        wait_for("an empty queue", lambda: not slurm.door.fetch_queue())


def submit(slurm: SlurmCluster, ask: Ask, queue: str, user: tuple[str, ...]) -> None:
    common = ("--parsable", "--output=/dev/null", f"--partition={queue}", *user)
    words = ask.words
    if ask.then == "heterogeneous":
        words = ("--ntasks=1", *words[:1], *common[2:3], *words[1:])
    if ask.then == "dependency":
        first = slurm.door.run("sbatch", *common, *LONG, folder=slurm.folder).strip()
        words = (f"--dependency=afterok:{first}", "--array=1-20", *words)
    job = slurm.door.run("sbatch", *common, *words, folder=slurm.folder).strip()
    if ask.then == "cancel":
        slurm.door.cancel(job)
    if ask.then in ("suspend", "requeuehold"):
        time.sleep(0.3)
        # One that still waits cannot be suspended, which is no matter here.
        try:
            slurm.door.run("scontrol", ask.then, job)
        except SlurmError:
            return


def at_rest(slurm: SlurmCluster, ask: Callable[[SlurmCluster], Samples]) -> tuple[Samples, Samples]:
    """Return what Slurm says, and a scrape between two times that it said the same."""
    for _ in range(60):
        before = ask(slurm)
        found = scrape(SlurmCollector(slurm.door))
        if ask(slurm) == before:
            return before, found
        time.sleep(0.5)
    raise AssertionError("Slurm does not come to rest")


def say(slurm: SlurmCluster) -> Samples:
    """Return what Slurm's commands say, in formats that the exporter does not use."""
    return {**say_jobs(slurm), **say_nodes(slurm)}


def say_jobs(slurm: SlurmCluster) -> Samples:
    counts: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()

    def add(name: str, count: int = 1, **labels: str) -> None:
        counts[name, tuple(sorted(labels.items()))] += count

    for name in _KEPT | {"pending_dependency"}:
        add(f"slurm_queue_{name}", 0)
    words = ("squeue", "--all", "--array", "--noheader", "--states=all", "-O", _SQUEUE)
    for line in slurm.door.run(*words).splitlines():
        state, partition, user, account = (line[i : i + 20].strip() for i in (0, 20, 40, 60))
        cpus, reason = int(line[80:90]), line[90:].strip()
        partition = partition.split(",")[0]
        add("slurm_jobs", partition=partition, state=state.lower())
        if state.lower() in _KEPT:
            add(f"slurm_queue_{state.lower()}")
        figure = {"PENDING": "pending", "RUNNING": "running", "SUSPENDED": "suspended"}.get(state)
        if figure:
            add(f"slurm_user_jobs_{figure}", user=user)
            add(f"slurm_account_jobs_{figure}", account=account)
        if state == "RUNNING":
            add("slurm_user_cpus_running", cpus, user=user)
            add("slurm_account_cpus_running", cpus, account=account)
        if state == "PENDING":
            add("slurm_partition_jobs_pending", partition=partition)
            sentences = [word for start, word in _SENTENCES if reason.startswith(start)]
            word = sentences[0] if sentences else re.split(r"[,:(]", reason)[0]
            add("slurm_pending_jobs", partition=partition, reason=word)
            if reason == "Dependency":
                add("slurm_queue_pending_dependency")
    return {key: float(count) for key, count in counts.items()}


def say_nodes(slurm: SlurmCluster) -> Samples:
    found: Samples = {}
    states: Counter[str] = Counter()
    memory: Counter[str] = Counter()
    form = "StateLong:20,AllocMem:20,Partition:20,NodeList:40,CPUsState:20"
    text = slurm.door.run("sinfo", "--all", "-N", "-h", "-O", form)
    for line in text.splitlines():
        state, partition = line[:20].strip(), line[40:60].strip(" *")
        states[next(name for start, name in _SINFO.items() if state.startswith(start))] += 1
        memory[partition] += int(line[20:40])
        node, four = line[60:100].strip(), line[100:].strip().split("/")
        if "~" not in state:
            labels = (("node", node), ("status", state.strip("*~#!%$@^-+")))
            for figure, count in zip(("alloc", "idle", "other", "total"), four, strict=True):
                found[f"slurm_node_cpu_{figure}", labels] = float(count)
    for name in _SINFO.values():
        found[f"slurm_nodes_{name}", ()] = float(states[name])
    for partition, mib in memory.items():
        key = ("slurm_memory_requested_bytes", (("partition", partition),))
        found[key] = float(mib * 1024 * 1024)
    text = slurm.door.run("sinfo", "--all", "-h", "-o", "%R %C")
    sums: Counter[str] = Counter()
    for line in text.splitlines():
        partition, _, figures = line.partition(" ")
        cpus = [int(figure) for figure in figures.split("/")]
        named = zip(("allocated", "idle", "other", "total"), cpus, strict=True)
        for name, number in named:
            found[f"slurm_partition_cpus_{name}", (("partition", partition),)] = float(number)
            sums[name] += number
    for name, number in sums.items():
        found[f"slurm_cpus_{name.replace('allocated', 'alloc')}", ()] = float(number)
    return found


def test_the_last_task_of_an_array_with_a_step_counts(slurm: SlurmCluster) -> None:
    # `squeue --array` of Slurm 22.05 leaves it out; slurmctld says how many were submitted.
    def submitted() -> float:
        return slurm.door.fetch_scheduler_figures()["Jobs submitted"]

    before = submitted()
    job = slurm.door.submit("true", "--hold", "--array=3-40:7", "--output=/dev/null")
    try:
        found = scrape(SlurmCollector(slurm.door))
        held = value(found, "slurm_pending_jobs", partition="eco", reason="JobHeldUser")
        assert held == submitted() - before == 6
    finally:
        slurm.door.cancel(job)


def test_states_of_nodes_are_those_of_sinfo(slurm: SlurmCluster) -> None:
    door = slurm.door
    door.update_nodes(["eco-dy-n8c32g-1"], state="drain", reason="a disk | State=IDLE")
    door.update_nodes(["spot-dy-s4c16g-1"], state="fail", reason="soon")
    door.update_nodes(["spot-dy-s4c16g-2"], state="down", reason="(Code:InsufficientX)Failure")
    door.run(
        *("scontrol", "create", "reservation", "reservationname=care", "starttime=now"),
        *("duration=60", "flags=maint,ignore_jobs", "nodes=eco-dy-n8c32g-2", "users=root"),
    )
    try:
        wait_for("it", lambda: value(say_nodes(slurm), "slurm_nodes_maint") == 1)
        said, found = at_rest(slurm, say_nodes)
        assert {key: found.get(key) for key in said} == said
        assert [value(said, f"slurm_nodes_{n}") for n in ("drain", "fail", "down")] == [1, 1, 1]
        labels = {"partition": "spot", "compute_resource": "s4c16g", "code": "InsufficientX"}
        assert value(found, "slurm_launch_failed_nodes", **labels) == 1
        assert value(found, "slurm_unhealthy_nodes", partition="eco", cause="other") == 1
    finally:
        door.run("scontrol", "delete", "reservation=care")
        names_ = ["eco-dy-n8c32g-1", "spot-dy-s4c16g-1", "spot-dy-s4c16g-2"]
        door.update_nodes(names_, state="resume")


def test_licences_and_partitions_are_told(slurm: SlurmCluster) -> None:
    job = slurm.door.submit("sleep 100", "--licenses=matlab:2", "--output=/dev/null")
    slurm.door.run("scontrol", "update", "partitionname=spot", "state=inactive")
    try:
        wait_for("the job", lambda: slurm.door.fetch_queue("--states=RUNNING"))
        collector = SlurmCollector(slurm.door)
        collector.poll()
        found = scrape(collector)
        figures = [value(found, f"slurm_licenses_{n}", license="matlab") for n in ("used", "free")]
        assert figures == [2, 1]
        assert value(found, "slurm_partition_inactive", partition="spot") == 1
        assert value(found, "slurm_partition_inactive", partition="eco") == 0
    finally:
        slurm.door.run("scontrol", "update", "partitionname=spot", "state=up")
        slurm.door.cancel(job)


def test_waits_and_ended_jobs_are_counted_while_it_runs(slurm: SlurmCluster) -> None:
    collector = SlurmCollector(slurm.door, refresh_seconds=0.01)
    before = count_waits(collector, "eco")
    loop = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"
    good = slurm.door.submit(loop, "--partition=eco", "--output=/dev/null")
    bad = slurm.door.submit("exit 3", "--partition=eco", "--output=/dev/null")
    never = slurm.door.submit("true", "--hold", "--partition=eco", "--output=/dev/null")
    slurm.door.cancel(never)
    wait_for_job(slurm, good)
    wait_for_job(slurm, bad, "FAILED")

    def read() -> Samples | None:
        collector.poll()
        found = scrape(collector)
        failed = value(found, "slurm_jobs_ended_total", partition="eco", state="failed")
        done = value(found, "slurm_jobs_ended_total", partition="eco", state="completed")
        return found if failed and done else None

    found = wait_for("the accounting", read)
    assert value(found, "slurm_jobs_ended_total", partition="eco", state="completed") == 1
    assert value(found, "slurm_jobs_ended_total", partition="eco", state="failed") == 1
    used = "slurm_ended_jobs_cpu_used_seconds_total"
    assert (value(found, used, partition="eco", user="root") or 0) > 0
    # The one that was cancelled has not started.
    assert count_waits(collector, "eco") - before == 2


def count_waits(collector: SlurmCollector, partition: str) -> float:
    found = scrape(collector)
    return value(found, "slurm_job_wait_seconds_count", partition=partition) or 0.0


def test_an_accounting_that_is_down_leaves_the_rest(
    slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    [pid] = daemon(slurm, "slurmdbd")
    monkeypatch.setattr(slurm_collector, "_POLL_COMMAND_SECONDS", 1)
    collector = SlurmCollector(slurm.door)
    os.kill(pid, signal.SIGSTOP)
    try:
        collector.poll()
        found = scrape(collector)
        assert value(found, "slurm_up") == 1
        assert value(found, "slurm_accounting_up") == 0
        assert value(found, "slurm_nodes_idle") is not None
        assert value(found, "slurm_licenses_total", license="matlab") == 3
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_slurmctld_that_stands_still_is_down_within_the_time(slurm: SlurmCluster) -> None:
    [pid] = daemon(slurm, "slurmctld")
    collector = SlurmCollector(slurm.door, refresh_seconds=0.01, timeout_seconds=1)
    os.kill(pid, signal.SIGSTOP)
    try:
        found = scrape(collector)
        assert value(found, "slurm_up") == 0
        assert "slurm_nodes_idle" not in names(found)
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for("slurmctld", lambda: value(scrape(collector), "slurm_up"))


def daemon(slurm: SlurmCluster, name: str) -> list[int]:
    """Return the process of a daemon of this cluster."""
    return [pid for pid in slurm.pids() if Path(f"/proc/{pid}/comm").read_text().strip() == name]


def test_a_slurmctld_that_is_not_there_is_down(slurm: SlurmCluster, tmp_path: Path) -> None:
    # A copy of its configuration that leads to a port on which nothing listens.
    text = slurm.layout.slurm_conf.read_text()
    conf = tmp_path / "slurm.conf"
    conf.write_text(re.sub(r"(?m)^SlurmctldPort=\d+", "SlurmctldPort=1", text))
    for other in slurm.layout.slurm_conf.parent.glob("*.conf"):
        if other.name != "slurm.conf":
            (tmp_path / other.name).write_text(other.read_text())
    door = type(slurm.door)({**slurm.environment, "SLURM_CONF": str(conf)})
    found = scrape(SlurmCollector(door, timeout_seconds=2))
    assert value(found, "slurm_up") == 0
    assert "slurm_nodes_idle" not in names(found)
