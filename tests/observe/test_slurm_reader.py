"""Reading what Slurm's commands printed, from 22.05 to 25.11."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterbox.observe.slurm_accounting import parse_duration, parse_licences
from clusterbox.observe.slurm_reader import (
    SEPARATOR,
    MalformedError,
    read_jobs,
    read_nodes,
    read_scheduler,
)
from clusterbox.observe.slurm_states import (
    cause,
    count_tasks,
    launch_code,
    node_state,
    short_reason,
    split_node_name,
)
from tests.observe.recorded import VERSIONS, read_recorded

# When the files were recorded.
NOW = 1795389827
every_version = pytest.mark.parametrize("version", VERSIONS)


@every_version
def test_nodes_are_counted_in_every_version(version: str) -> None:
    nodes = read_nodes(read_recorded(version, "nodes"))
    assert nodes.by_state == {"idle": 1, "mix": 2, "down": 1, "alloc": 1}
    assert nodes.by_partition == {
        ("eco", "powering_down"): 1,
        ("eco", "mix"): 2,
        ("spot", "down"): 1,
        ("spot", "alloc"): 1,
    }
    assert nodes.by_resource["spot", "s4c16g", "alloc"] == 1
    assert nodes.launch_failed == {("spot", "s4c16g", "InsufficientInstanceCapacity"): 1}
    assert nodes.unhealthy == {("spot", "launch_failed"): 1}
    assert nodes.cpus == (9, 19, 4, 32)
    assert nodes.partition_cpus["spot"] == (4, 0, 4, 8)
    # 31129 - 15381 MiB on two nodes; those that are not up tell nothing.
    assert nodes.used_bytes["eco"] == 2 * 15748 * 1024 * 1024
    assert nodes.version.startswith(version)
    assert nodes.unknown == 0


@every_version
def test_jobs_are_counted_in_every_version(version: str) -> None:
    jobs = read_jobs(read_recorded(version, "jobs"), NOW)
    # Arrays of 46, 334 and 5 tasks, and six jobs.
    assert jobs.by_state["eco", "PENDING"] == 46 + 334 + 5 + 5
    assert jobs.by_state["eco", "RUNNING"] == 5
    assert jobs.by_state["eco", "COMPLETED"] == 2
    assert jobs.by_reason["eco", "Dependency"] == 335
    assert jobs.by_reason["eco", "JobArrayTaskLimit"] == 46
    assert jobs.by_reason["eco", "JobHeldUser"] == 5 + 1 + 1
    lacks = "Resources" if version < "24.11" else "ReqNodeNotAvail"
    assert jobs.by_reason["eco", lacks] == 1
    odd = "SUSPENDED" if version < "25.11" else "EXPEDITING"
    assert jobs.by_state["eco", odd] == 1
    assert jobs.by_user["root", "cpus_running"] == 5 + 4
    # Of those that wait for the cluster, not for a time, a job or a person.
    assert jobs.oldest == {"eco": 1795389757}
    assert jobs.unknown == 0


def test_who_never_started_has_not_waited() -> None:
    started = {job.id for job in read_jobs(read_recorded("22.05", "jobs"), NOW).started}
    # 12 was cancelled while it waited, 17 could never start.
    assert started == {"2_1", "2_2", "2_3", "2_4", "7", "11", "14+0", "14+1", "16", "18"}


@pytest.mark.parametrize(("state", "count"), [("CONFIGURING", 0), ("RUNNING", 1)])
def test_a_job_whose_nodes_boot_has_not_started(state: str, count: int) -> None:
    # Slurm gives it another start once they have: both would count.
    cells = ("1", "u", "a", "eco", state, "2", "5", "6", "n", "None")
    assert len(read_jobs(SEPARATOR.join(cells) + "\n", NOW).started) == count


@every_version
def test_scheduler_figures_are_those_of_their_section(version: str) -> None:
    figures = read_scheduler(read_recorded(version, "scheduler"))
    assert figures["Server thread count"] == 3
    assert figures["Jobs submitted"] == 404
    assert figures["Main Mean cycle"] == 37
    assert figures["Main Cycles per minute"] == 31
    assert figures["Backfill Mean cycle"] != figures["Main Mean cycle"]


@every_version
def test_licences_are_read_in_every_version(version: str) -> None:
    found = parse_licences(read_recorded(version, "licenses"))
    assert {name: (x.total, x.used, x.free) for name, x in found.items()} == {
        "idl": (2, 0, 2),
        "matlab": (5, 1, 4),
    }


@pytest.mark.parametrize(
    ("words", "name", "power"),
    [
        ("IDLE", "idle", "idle"),
        ("IDLE+CLOUD+POWERED_DOWN", "idle", "powered_down"),
        ("ALLOCATED+CLOUD+NOT_RESPONDING+POWERING_UP", "alloc", "powering_up"),
        ("ALLOCATED+COMPLETING", "alloc", "alloc"),
        ("MIXED+COMPLETING", "comp", "comp"),
        ("IDLE+COMPLETING+DRAIN", "drain", "drain"),
        ("DOWN+CLOUD+POWERED_DOWN", "down", "down"),
        ("DOWN+DRAIN", "drain", "drain"),
        ("IDLE+DRAIN+MAINTENANCE", "drain", "drain"),
        ("IDLE+CLOUD+MAINTENANCE+POWERED_DOWN+RESERVED", "maint", "powered_down"),
        ("MIXED+MAINTENANCE+RESERVED", "mix", "mix"),
        ("IDLE+RESERVED", "resv", "resv"),
        ("IDLE+FAIL", "fail", "fail"),
        ("IDLE+PLANNED", "idle", "idle"),
    ],
)
def test_a_state_of_a_node_is_what_sinfo_calls_it(words: str, name: str, power: str) -> None:
    state = node_state(words)
    assert (state.name, state.power, state.is_known) == (name, power, True)


@pytest.mark.parametrize("words", ["HIBERNATING", "IDLE+CLOUD+QUANTUM"])
def test_a_state_of_a_newer_slurm_is_unknown(words: str) -> None:
    assert not node_state(words).is_known


def test_a_node_of_an_unknown_state_is_other_and_counted() -> None:
    text = read_recorded("22.05", "nodes").replace("State=ALLOCATED+CLOUD", "State=DREAMING")
    nodes = read_nodes(text)
    assert (nodes.by_state["other"], nodes.unknown) == (1, 1)


def test_a_job_of_an_unknown_state_is_other_and_counted() -> None:
    jobs = read_jobs(read_recorded("22.05", "jobs").replace("SUSPENDED", "DREAMING"), NOW)
    assert (jobs.by_state["eco", "OTHER"], jobs.unknown) == (1, 1)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("7", 1),
        ("7_3", 1),
        ("7+1", 1),
        ("7_[3]", 1),
        ("7_[1-50000%100]", 50000),
        ("7_[1-1000:3%7]", 334),
        ("7_[5,9-12]", 5),
    ],
)
def test_tasks_of_an_array_each_count(text: str, count: int) -> None:
    assert count_tasks(text) == count


@given(st.sets(st.integers(0, 5000), min_size=1), st.integers(0, 9))
def test_any_set_of_tasks_is_counted(tasks: set[int], limit: int) -> None:
    ranges: list[list[int]] = []
    for task in sorted(tasks):
        if ranges and task == ranges[-1][1] + 1:
            ranges[-1][1] = task
        else:
            ranges.append([task, task])
    text = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)
    assert count_tasks(f"12_[{text}{f'%{limit}' if limit else ''}]") == len(tasks)


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("Priority", "Priority"),
        ("(Resources)", "Resources"),
        ("ReqNodeNotAvail, UnavailableNodes:eco-dy-a-[1-9]", "ReqNodeNotAvail"),
        ("ReqNodeNotAvail(Unavailable:a)", "ReqNodeNotAvail"),
        ("Nodes required for job are DOWN, DRAINED or reserved", "Resources"),
        ("Nodes_required_for_job_are_DOWN,_DRAINED", "Resources"),
        ("job requeued in held state", "JobHeldUser"),
        ("ask anna before you release this", "other"),
        ("", "other"),
    ],
)
def test_a_reason_is_one_word(reason: str, word: str) -> None:
    assert short_reason(reason) == word


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("(Code:InsufficientInstanceCapacity)Failure when resuming nodes", "launch_failed"),
        ("Not responding", "not_responding"),
        ("Low RealMemory (reported:1 < 100.00% of configured:2)", "configuration"),
        ("Scheduler health check failed", "health_check"),
        ("Node node-1 failed to complete bootstrap", "bootstrap_failed"),
        ("anna looks at the disk", "other"),
        ("", "unknown"),
    ],
)
def test_the_cause_of_a_reason(reason: str, kind: str) -> None:
    assert cause(reason) == kind


def test_a_code_that_cannot_be_one_of_ec2_is_other() -> None:
    assert launch_code("(Code:x)why") == "other"
    assert launch_code("why") is None


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("eco-dy-n8c32g-12", ("eco", "n8c32g")),
        ("my-queue-st-a-dy-b-1", ("my-queue-st-a", "b")),
        ("login", None),
        ("eco-dy-n8c32g-x", None),
    ],
)
def test_queue_and_resource_are_in_the_name_of_a_node(
    name: str, split: tuple[str, str] | None
) -> None:
    assert split_node_name(name) == split


@pytest.mark.parametrize(
    "text", ["slurm_load_jobs error\n", "1|root|eco\n", SEPARATOR.join(["7_[x-y]"] + ["1"] * 9)]
)
def test_what_squeue_never_prints_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        read_jobs(text, NOW)


@pytest.mark.parametrize("text", ["Slurm is tired\n", "NodeName=a Arch=x86_64 CPUTot=1\n"])
def test_what_scontrol_never_prints_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        read_nodes(text)


def test_an_sdiag_without_figures_is_refused() -> None:
    with pytest.raises(MalformedError):
        read_scheduler("No data available. Probably slurmctld is not working\n")


def test_a_reason_cannot_pose_as_a_node_or_a_state() -> None:
    line = read_recorded("22.05", "nodes").splitlines()[0]
    odd = line.replace("bad disk", "bad\u2028NodeName=x | State=DOWN Partitions=spot gres/gpu=9")
    nodes = read_nodes(odd)
    assert nodes.by_partition == {("eco", "powering_down"): 1}
    assert nodes.gpus_total == 0


@given(st.text(st.characters(exclude_characters=f"\n{SEPARATOR}", codec="utf-8"), min_size=1))
def test_any_name_of_a_user_stays_one_name(user: str) -> None:
    cells = ("1", user, "a|b", "eco", "RUNNING", "2", "5", "6", "n", "None")
    jobs = read_jobs(SEPARATOR.join(cells) + "\n", NOW)
    assert jobs.by_user == {(user, "jobs_running"): 1, (user, "cpus_running"): 2}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1-02:03:04", 93784), ("02:03:04", 7384), ("03:04.567", 184.567), ("", 0), ("N/A", 0)],
)
def test_a_duration_is_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)
