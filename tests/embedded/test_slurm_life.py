"""How a Slurm on this machine starts and ends: leftovers, kills, wrong configurations."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from clusterbox.cli.main import main
from clusterbox.embedded.slurm import EmbeddedSlurmError, Options, SlurmCluster
from clusterbox.embedded.slurm.ports import cache_folder
from clusterbox.errors import InputError
from tests.conftest import ROOT
from tests.slurm_cluster import needs_slurm, queue, wait_for, write_cluster

pytestmark = needs_slurm

# Without slurmdbd and MariaDB, where they make no difference.
BARE = Options(accounting=False, boot_seconds=0)


def processes_of(folder: Path) -> list[str]:
    """Return the commands of all processes that have a folder in their words or environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            texts = [(path / name).read_bytes() for name in ("cmdline", "environ")]
        except OSError:
            continue
        if path.name != str(os.getpid()) and any(bytes(folder) in text for text in texts):
            found.append(texts[0].decode(errors="replace"))
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "state"
    SlurmCluster.stop(tmp_path / "state")


def test_nothing_is_left_of_a_cluster_that_ran_jobs(tmp_path: Path, folder: Path) -> None:
    with SlurmCluster.start(write_cluster(tmp_path, "tiny"), folder) as slurm:
        # A job's process that leaves the job, as daemons do.
        slurm.door.submit("setsid sleep 300 & sleep 300", "--output=/dev/null", folder=tmp_path)
        wait_for("the job", lambda: sum("sleep" in text for text in processes_of(folder)) >= 2)
        sockets = Path(slurm.state.sockets)
    assert processes_of(folder) == []
    assert not folder.exists()
    assert not sockets.exists()
    assert str(folder) not in (cache_folder() / "ports.json").read_text()


def test_stopping_what_does_not_run_says_so(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    assert SlurmCluster.stop(tmp_path) is False
    assert SlurmCluster.stop(tmp_path / "nowhere") is False
    assert (tmp_path / "precious").read_text() == "kept"


def test_a_start_that_was_killed_is_found_and_ended(tmp_path: Path, folder: Path) -> None:
    write_cluster(tmp_path, "tiny")
    program = (
        "import sys; from pathlib import Path\n"
        "from clusterbox.clusters.composed import read_native\n"
        "from clusterbox.embedded.slurm import SlurmCluster\n"
        "SlurmCluster.start(read_native(Path(sys.argv[1])), Path(sys.argv[2]))\n"
    )
    words = [sys.executable, "-c", program, str(tmp_path / "tiny.yaml"), str(folder)]
    with subprocess.Popen(words, cwd=ROOT) as starter:
        wait_for("slurmdbd", lambda: any("slurmdbd" in text for text in processes_of(folder)))
        starter.send_signal(signal.SIGKILL)
    assert processes_of(folder) != []
    assert SlurmCluster.attach(folder) is None
    assert SlurmCluster.stop(folder) is True
    assert processes_of(folder) == []
    assert not folder.exists()


def test_a_cluster_that_runs_is_found_and_not_started_twice(tmp_path: Path, folder: Path) -> None:
    cluster = write_cluster(tmp_path, "tiny")
    started = SlurmCluster.start(cluster, folder, BARE)
    found = SlurmCluster.attach(folder)
    assert found is not None
    assert found.environment["SLURM_CONF"] == started.environment["SLURM_CONF"]
    with pytest.raises(EmbeddedSlurmError, match="already runs"):
        SlurmCluster.start(cluster, folder, BARE)
    assert started.door.is_up()


def test_a_wrong_setting_fails_with_the_words_of_slurmctld(tmp_path: Path, folder: Path) -> None:
    cluster = write_cluster(tmp_path, "t", CustomSlurmSettings=[{"SchedulerType": "sched/none"}])
    with pytest.raises(EmbeddedSlurmError) as caught:
        SlurmCluster.start(cluster, folder, BARE)
    assert "slurmctld ended while it started" in str(caught.value)
    assert "sched/none" in str(caught.value)
    assert processes_of(folder) == []


def test_settings_of_the_configuration_arrive(tmp_path: Path, folder: Path) -> None:
    cluster = write_cluster(
        tmp_path,
        "tiny",
        ScaledownIdletime=7,
        EnableMemoryBasedScheduling=True,
        CustomSlurmSettings=[{"MaxJobCount": 4321}, {"SchedulerParameters": "bf_max_job_test=9"}],
    )
    hpc = queue("hpc", "c6i32x", "c6i.32xlarge", MaxCount=2, DisableSimultaneousMultithreading=True)
    hpc |= {"JobExclusiveAllocation": True, "CustomSlurmSettings": {"PriorityTier": 5}}
    gpu = queue("gpu", "g4", "g4dn.xlarge", MinCount=1, MaxCount=1)
    gpu["ComputeResources"][0]["CustomSlurmSettings"] = {"CoreSpecCount": 1}
    slurm_queues = [hpc, gpu]
    scheduling = {**cluster.configuration["Scheduling"], "SlurmQueues": slurm_queues}
    cluster = replace(cluster, configuration={"Scheduling": scheduling})
    with SlurmCluster.start(cluster, folder, replace(BARE, settings={"KillWait": 9})) as slurm:
        running = slurm.door.fetch_configuration()
        assert running["SuspendTime"] == "420 sec"
        assert running["SelectTypeParameters"] == "CR_CPU_MEMORY"
        assert running["MaxJobCount"] == "4321"
        assert running["SchedulerParameters"].startswith("bf_max_job_test=9,")
        assert running["KillWait"] == "9 sec"
        partition = slurm.door.fetch_partitions()["hpc"]
        assert (partition["OverSubscribe"], partition["PriorityTier"]) == ("EXCLUSIVE", "5")
        nodes = {node.name: node for node in slurm.door.fetch_nodes()}
        assert nodes["hpc-dy-c6i32x-2"].cpus == 64
        node = nodes["gpu-st-g4-1"]
        assert node.details["Gres"].startswith("gpu:t4:1")
        assert node.details["CoreSpecCount"] == "1"
        assert "gpu" in node.features


def test_a_job_above_its_memory_is_ended(tmp_path: Path, folder: Path) -> None:
    cluster = write_cluster(tmp_path, "tiny", EnableMemoryBasedScheduling=True)
    eater = f"{sys.executable} -c 'import time; x = b\"x\" * (200 << 20); time.sleep(60)'"
    with SlurmCluster.start(cluster, folder) as slurm:
        job = slurm.door.submit(eater, "--mem=50M", "--output=/dev/null", folder=tmp_path)

        def ended() -> list[str]:
            records = slurm.door.fetch_accounted("--jobs", job)
            return [r.state for r in records if r.state not in ("RUNNING", "PENDING")]

        # Without cgroups Slurm does not call it OUT_OF_MEMORY.
        assert wait_for("the end", ended) == ["FAILED"]
        assert slurm.door.fetch_accounted("--jobs", job)[0].exit_code == "0:9"


def test_an_unknown_instance_type_is_refused(tmp_path: Path, folder: Path) -> None:
    cluster = write_cluster(tmp_path, "tiny")
    unknown = [queue("eco", "big", "z9.enormous", MaxCount=1)]
    scheduling = {"Scheduler": "slurm", "SlurmQueues": unknown}
    with pytest.raises(InputError, match=r"z9\.enormous are not known"):
        SlurmCluster.start(replace(cluster, configuration={"Scheduling": scheduling}), folder)
    assert not folder.exists()


def test_names_too_long_for_sockets_are_refused(tmp_path: Path, folder: Path) -> None:
    long = [queue("q" * 25, "r" * 25, "t3a.2xlarge", MaxCount=1)]
    scheduling = {"Scheduler": "slurm", "SlurmQueues": long}
    cluster = replace(write_cluster(tmp_path, "t"), configuration={"Scheduling": scheduling})
    with pytest.raises(InputError, match="shorten the names"):
        SlurmCluster.start(cluster, folder, BARE)


def test_a_long_path_does_not_hinder_the_sockets(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 20) / "state"
    with SlurmCluster.start(write_cluster(tmp_path, "tiny"), folder, BARE) as slurm:
        sockets = Path(slurm.state.sockets)
        assert sockets.parent != folder
        assert slurm.door.run("sinfo", "--noheader")
    assert not sockets.exists()


def test_the_command_starts_shows_and_ends_a_cluster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "site"
    root.mkdir()
    for name in ("environments", "cluster_configs", "ami", ".venv-pcluster", "cdk.json"):
        (root / name).symlink_to(ROOT / name)

    def run(*words: str) -> str:
        assert main(["--root", str(root), "embedded", "slurm", *words]) == 0
        return capsys.readouterr().out

    try:
        assert "slurm env ws-eco" in run("up", "ws-eco", "--no-accounting")
        shown = subprocess.run(
            ["bash", "-c", f"{run('env', 'ws-eco')}\nsinfo --noheader -o '%P %D %t'"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert shown.stdout == "eco* 3 idle~\nspot 3 idle~\n"
        [_, row] = run("status", "--format", "csv").splitlines()
        assert row.startswith("ws-eco,up,6,0,0,")
    finally:
        run("down", "ws-eco")
    assert run("status", "--format", "csv").splitlines()[1:] == []
    assert main(["--root", str(root), "embedded", "slurm", "env", "ws-eco"]) == 1
    assert "slurm up ws-eco" in capsys.readouterr().err
