"""A real Slurm, built from a configuration; one cluster for most of these tests."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusterbox.embedded.slurm import Options, SlurmCluster
from clusterbox.slurm import SlurmError
from tests.slurm_cluster import needs_slurm, wait_for, wait_for_job, wait_for_node, write_cluster

pytestmark = needs_slurm

STATIC = "eco-st-n8c32g-1"
DYNAMIC = "eco-dy-n8c32g-1"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """A cluster whose nodes boot in half a second, and go after 3 s without a job."""
    folder = tmp_path_factory.mktemp("slurm")
    options = Options(boot_seconds=0.5, idle_seconds=3, failed_launch_seconds=3)
    with SlurmCluster.start(write_cluster(folder, "tiny"), folder / "state", options) as cluster:
        yield cluster


def submit(slurm: SlurmCluster, script: str, *options: str) -> str:
    """Submit a script whose output is a file of its own, next to the cluster's folder."""
    output = slurm.folder.parent / "job-%j.out"
    return slurm.door.submit(script, f"--output={output}", *options, folder=slurm.folder.parent)


def output_of(slurm: SlurmCluster, job: str) -> str:
    return (slurm.folder.parent / f"job-{job}.out").read_text()


def test_nodes_are_those_of_the_configuration(slurm: SlurmCluster) -> None:
    nodes = {node.name: node for node in slurm.door.fetch_nodes()}
    assert sorted(nodes) == [
        "eco-dy-n8c32g-1",
        "eco-dy-n8c32g-2",
        "eco-st-n8c32g-1",
        "spot-dy-s4c16g-1",
        "spot-dy-s4c16g-2",
    ]
    # 95 % of 32 GiB and of 16 GiB, in MiB, as ParallelCluster has it.
    assert (nodes[DYNAMIC].cpus, nodes[DYNAMIC].memory_mib) == (8, 31129)
    spot = nodes["spot-dy-s4c16g-2"]
    assert (spot.cpus, spot.memory_mib, spot.weight) == (4, 15564, 1000)
    assert spot.features == ("dynamic", "m6i.xlarge", "s4c16g")
    assert nodes[STATIC].features == ("static", "t3a.2xlarge", "n8c32g")
    assert nodes[STATIC].weight == 1


def test_static_nodes_are_up_and_dynamic_ones_are_not(slurm: SlurmCluster) -> None:
    assert "POWERED_DOWN" not in slurm.door.fetch_node(STATIC).states
    assert "POWERED_DOWN" in slurm.door.fetch_node("spot-dy-s4c16g-2").states
    assert slurm.node_pids(STATIC)
    assert slurm.node_pids("spot-dy-s4c16g-2") == []


def test_partitions_are_the_queues(slurm: SlurmCluster) -> None:
    partitions = slurm.door.fetch_partitions()
    assert {name: found["Default"] for name, found in partitions.items()} == {
        "eco": "YES",
        "spot": "NO",
    }


def test_a_job_runs_and_is_in_the_accounting(slurm: SlurmCluster) -> None:
    job = submit(slurm, "echo on $SLURMD_NODENAME", "--job-name=a|b", "--partition=eco")
    wait_for_job(slurm, job)
    # The end of a short job is in the database up to 5 s before the facts of its submission.
    wait_for("its partition", lambda: slurm.door.fetch_accounted("--jobs", job)[0].partition)
    [record] = slurm.door.fetch_accounted("--jobs", job)
    assert (record.name, record.user, record.partition) == ("a|b", getpass.getuser(), "eco")
    assert (record.nodes, record.exit_code) == ((STATIC,), "0:0")
    assert output_of(slurm, job) == f"on {STATIC}\n"


def test_a_failed_job_has_its_exit_code(slurm: SlurmCluster) -> None:
    job = submit(slurm, "exit 7")
    wait_for_job(slurm, job, "FAILED")
    assert slurm.door.fetch_accounted("--jobs", job)[0].exit_code == "7:0"


def test_an_array_has_a_record_for_each_task(slurm: SlurmCluster) -> None:
    job = submit(slurm, "true", "--array=1-4")
    wait_for("4 tasks", lambda: len(done(slurm, job)) == 4)
    assert done(slurm, job) == [f"{job}_{task}" for task in (1, 2, 3, 4)]


def done(slurm: SlurmCluster, job: str) -> list[str]:
    found = slurm.door.fetch_accounted("--jobs", job)
    return sorted(record.id for record in found if record.state == "COMPLETED")


def test_a_job_powers_a_node_up_which_goes_down_when_it_is_idle(slurm: SlurmCluster) -> None:
    node = "spot-dy-s4c16g-1"
    job = submit(slurm, "srun --ntasks=1 hostname", "--partition=spot", f"--nodelist={node}")
    wait_for_job(slurm, job)
    assert slurm.door.fetch_accounted("--jobs", job)[0].nodes == (node,)
    wait_for_node(slurm, node, "POWERED_DOWN")
    assert slurm.node_pids(node) == []
    # A static node stays, however long it is idle.
    assert "POWERED_DOWN" not in slurm.door.fetch_node(STATIC).states


def test_a_failed_launch_marks_the_node_down_and_returns_it(slurm: SlurmCluster) -> None:
    slurm.fail_launches("spot-dy-s4c16g")
    job = submit(slurm, "true", "--partition=spot")
    node = "spot-dy-s4c16g-1"
    wait_for_node(slurm, node, "DOWN")
    reason = slurm.door.fetch_node(node).reason or ""
    assert reason.startswith("(Code:InsufficientInstanceCapacity)")
    slurm.fail_launches()
    wait_for_job(slurm, job)
    wait_for_node(slurm, node, "POWERED_DOWN", without="DOWN")


def test_an_interrupted_node_has_its_job_run_again(tmp_path: Path) -> None:
    # Idle for a minute: Slurm 22.05 takes a node whose requeued job is about to start for idle.
    options = Options(boot_seconds=0, idle_seconds=60)
    with SlurmCluster.start(write_cluster(tmp_path, "tiny"), tmp_path / "state", options) as slurm:
        script = 'if [ "${SLURM_RESTART_COUNT:-0}" = 0 ]; then sleep 100; fi; echo again'
        job = submit(slurm, script, "--requeue", f"--nodelist={STATIC}")
        wait_for("the job to run", lambda: running(slurm, job))
        slurm.interrupt(STATIC)
        assert slurm.node_pids(STATIC) == []
        wait_for_job(slurm, job)
        states = [record.state for record in slurm.door.fetch_accounted("--jobs", job)]
        assert states == ["NODE_FAIL", "COMPLETED"]
        assert output_of(slurm, job).endswith("again\n")


def running(slurm: SlurmCluster, job: str) -> bool:
    return any(found.state == "RUNNING" for found in slurm.door.fetch_queue("--jobs", job))


def test_minutes_of_a_qos_are_a_limit(slurm: SlurmCluster) -> None:
    slurm.door.change_accounting("add", "qos", "broke", "GrpTRESMins=cpu=10", "flags=DenyOnLimit")
    slurm.door.change_accounting("modify", "user", getpass.getuser(), "set", "qos+=broke")
    allowed = submit(slurm, "true", "--qos=broke", "--time=1", "--partition=eco")
    wait_for_job(slurm, allowed)
    with pytest.raises(SlurmError, match="limit"):
        submit(slurm, "true", "--qos=broke", "--time=60", "--partition=eco")


def test_a_job_above_the_limit_of_an_account_waits_with_the_reason(slurm: SlurmCluster) -> None:
    slurm.door.change_accounting("add", "account", "poor", "GrpTRES=cpu=1")
    slurm.door.change_accounting("add", "user", getpass.getuser(), "account=poor")
    job = submit(slurm, "true", "--account=poor", "--ntasks=2", "--partition=eco")
    wait_for("the reason", lambda: reason_of(slurm, job) == "AssocGrpCpuLimit")
    slurm.door.cancel(job)


def reason_of(slurm: SlurmCluster, job: str) -> str:
    return slurm.door.fetch_queue("--jobs", job)[0].reason


def test_mail_reaches_the_sink(slurm: SlurmCluster) -> None:
    job = submit(slurm, "exit 3", "--mail-type=BEGIN,FAIL", "--mail-user=dopey@corp.example")
    wait_for("2 mails", lambda: len(mails(slurm, job)) == 2)
    begun, failed = mails(slurm, job)
    assert "Began" in begun
    assert "Failed" in failed


def mails(slurm: SlurmCluster, job: str) -> list[str]:
    found = [mail for mail in slurm.mails() if f"Job_id={job} " in mail.subject]
    assert {mail.to for mail in found} <= {"dopey@corp.example"}
    return [mail.subject for mail in found]


def test_a_second_cluster_runs_beside_it(slurm: SlurmCluster, tmp_path: Path) -> None:
    other_cluster = write_cluster(tmp_path, "tiny", CustomSlurmSettings=[{"MaxArraySize": 77}])
    with SlurmCluster.start(other_cluster, tmp_path / "state", Options(idle_seconds=60)) as other:
        assert set(ports(slurm)).isdisjoint(ports(other))
        job = submit(other, "true")
        wait_for_job(other, job)
        assert other.door.fetch_configuration()["MaxArraySize"] == "77"
        assert slurm.door.fetch_configuration()["MaxArraySize"] == "1001"
        pids = set(other.pids())
        assert pids.isdisjoint(slurm.pids())
    # Its end is not that of the first one.
    assert slurm.door.is_up()
    assert other.pids() == []


def ports(slurm: SlurmCluster) -> range:
    return range(slurm.state.first_port, slurm.state.first_port + slurm.state.ports)
