"""Reading what Slurm prints; the commands are small programs that print what Slurm did."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterbox.slurm import (
    Slurm,
    SlurmError,
    expand_hostlist,
    parse_accounted,
    parse_key_values,
    parse_nodes,
    parse_queue,
    parse_scheduler_figures,
    parse_table,
)

# Slurm 22.05, one line.
NODE = (
    "NodeName=eco-dy-a-1 Arch=x86_64 CoresPerSocket=1 CPUAlloc=2 CPUTot=8 CPULoad=0.50 "
    "AvailableFeatures=dynamic,t3a.2xlarge,a ActiveFeatures=dynamic,t3a.2xlarge,a Gres=(null) "
    "NodeAddr=127.0.0.1 NodeHostName=eco-dy-a-1 Port=20004 RealMemory=31129 AllocMem=0 "
    "State=DOWN+CLOUD+POWERING_UP ThreadsPerCore=1 TmpDisk=0 Weight=1000 "
    "OS=Linux 6.1 #1 SMP Partitions=eco,all "
    "Reason=(Code:InsufficientInstanceCapacity)Failure when resuming nodes "
    "[root@2026-01-02T03:04:05]"
)


def command(folder: Path, name: str, script: str) -> Slurm:
    """Return a door to a folder with one command, a shell script."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return Slurm({"PATH": f"{folder}:/usr/bin:/bin"}, timeout_seconds=5)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("a", ["a"]),
        ("a,b-1", ["a", "b-1"]),
        ("q-dy-r-[1-3,7],s-st-x-1", ["q-dy-r-1", "q-dy-r-2", "q-dy-r-3", "q-dy-r-7", "s-st-x-1"]),
        ("n[08-10]", ["n08", "n09", "n10"]),
        ("r[1-2]n[1-2]", ["r1n1", "r1n2", "r2n1", "r2n2"]),
    ],
)
def test_a_host_list_is_expanded(text: str, names: list[str]) -> None:
    assert expand_hostlist(text) == names


@pytest.mark.parametrize("text", ["a[1-2", "a1-2]", "a[x]"])
def test_what_is_no_host_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a host list"):
        expand_hostlist(text)


def test_a_host_list_does_not_fill_the_memory() -> None:
    assert len(expand_hostlist("q-[1-100000]")) == 100_000
    with pytest.raises(ValueError, match="more than 100000 names"):
        expand_hostlist("q-[1-999999999]")


def test_a_node_is_read() -> None:
    [node] = parse_nodes(NODE)
    assert node.name == "eco-dy-a-1"
    assert node.states == {"DOWN", "CLOUD", "POWERING_UP"}
    assert (node.cpus, node.allocated_cpus, node.memory_mib, node.weight) == (8, 2, 31129, 1000)
    assert node.features == ("dynamic", "t3a.2xlarge", "a")
    assert node.partitions == ("eco", "all")
    assert node.reason == "(Code:InsufficientInstanceCapacity)Failure when resuming nodes"
    assert node.details["OS"] == "Linux 6.1 #1 SMP"


def test_a_node_without_a_reason_has_none() -> None:
    assert parse_nodes("NodeName=a CPUTot=1 State=IDLE*")[0].reason is None
    assert parse_nodes("NodeName=a CPUTot=1 State=IDLE*")[0].states == {"IDLE"}


def test_the_first_value_of_a_key_counts() -> None:
    assert parse_key_values("State=IDLE Comment=State=DOWN State=DOWN")["State"] == "IDLE"


def test_a_queued_job_is_read_with_any_name() -> None:
    [job] = parse_queue("7_[1-5%2]|ann|lab|eco|PENDING|Resources||a|b c\n")
    assert (job.id, job.name, job.nodes) == ("7_[1-5%2]", "a|b c", ())
    assert (job.user, job.account, job.partition) == ("ann", "lab", "eco")
    assert (job.state, job.reason) == ("PENDING", "Resources")


def test_an_accounted_job_is_read() -> None:
    text = (
        "5|ann|lab|eco|CANCELLED by 1000|0:15|None assigned|0|4|x\n"
        "6|ann|lab|eco|COMPLETED|0:0|a-[1-2]|61|4|x|y\n"
    )
    cancelled, completed = parse_accounted(text)
    assert (cancelled.state, cancelled.nodes) == ("CANCELLED", ())
    assert (completed.nodes, completed.elapsed_seconds) == (("a-1", "a-2"), 61)
    assert (completed.name, completed.cpus, completed.exit_code) == ("x|y", 4, "0:0")


def test_a_line_that_is_cut_off_is_an_error() -> None:
    with pytest.raises(SlurmError, match="3 columns, not 8"):
        parse_queue("7|ann|lab\n")


def test_a_table_is_read_by_its_header() -> None:
    assert parse_table("Name|GrpTRES\nnormal|\nlow|cpu=4\n") == [
        {"Name": "normal", "GrpTRES": ""},
        {"Name": "low", "GrpTRES": "cpu=4"},
    ]
    assert parse_table("") == []


def test_the_schedulers_figures_are_told_apart_by_section() -> None:
    text = (
        "Server thread count:  3\nJobs submitted: 12\n\n"
        "Main schedule statistics (microseconds):\n\tLast cycle:   35\n\n"
        "Backfilling stats\n\tLast cycle: 48\n\n"
        "Remote Procedure Call statistics by message type\n\tREQUEST_PING: 9\n"
    )
    figures = parse_scheduler_figures(text)
    assert figures["Jobs submitted"] == 12
    assert (figures["Main Last cycle"], figures["Backfill Last cycle"]) == (35, 48)
    assert not any("PING" in label for label in figures)


def test_a_refusal_is_an_error_with_slurms_reason(tmp_path: Path) -> None:
    slurm = command(tmp_path, "sbatch", "echo 'sbatch: error: too many' >&2; exit 1")
    with pytest.raises(SlurmError, match=r"`sbatch --parsable` failed \(1\): .*too many"):
        slurm.submit("true")


def test_a_submission_returns_the_id_without_the_cluster(tmp_path: Path) -> None:
    slurm = command(tmp_path, "sbatch", "cat > given; echo '42;ws-eco'")
    assert slurm.submit("true", folder=tmp_path) == "42"
    assert (tmp_path / "given").read_text() == "#!/bin/sh\ntrue\n"


def test_a_missing_command_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SlurmError, match="install slurm-client"):
        Slurm({"PATH": str(tmp_path)}).run("sinfo")


def test_a_slurmctld_that_does_not_answer_is_told(tmp_path: Path) -> None:
    words = "slurm_load_partitions: Unable to contact slurm controller (connect failure)"
    slurm = command(tmp_path, "sinfo", f"echo '{words}' >&2; exit 1")
    with pytest.raises(SlurmError, match="slurmctld does not answer"):
        slurm.run("sinfo")


def test_a_command_that_hangs_is_given_up(tmp_path: Path) -> None:
    slurm = command(tmp_path, "squeue", "exec sleep 60")
    with pytest.raises(SlurmError, match=r"did not answer within 0\.2 s"):
        slurm.run("squeue", timeout_seconds=0.2)


def test_settings_of_the_caller_do_not_steer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUEUE_FORMAT", "%i")
    monkeypatch.setenv("SLURM_CONF", "/etc/site.conf")
    slurm = command(tmp_path, "squeue", 'echo "$SQUEUE_FORMAT $SLURM_CONF $TZ"')
    assert slurm.run("squeue") == " /etc/site.conf UTC\n"
    # A job would inherit the time zone.
    monkeypatch.setenv("TZ", "America/Denver")
    assert command(tmp_path, "sbatch", 'echo "$TZ"').run("sbatch") == "America/Denver\n"


def test_accounting_that_is_as_wished_is_no_change(tmp_path: Path) -> None:
    slurm = command(tmp_path, "sacctmgr", "echo ' Nothing new added.'; exit 1")
    assert slurm.change_accounting("add", "account", "lab") is False
    assert command(tmp_path, "sacctmgr", "true").change_accounting("add", "account", "x") is True
    with pytest.raises(SlurmError, match="denied"):
        command(tmp_path, "sacctmgr", "echo denied; exit 1").change_accounting("add", "user", "x")
