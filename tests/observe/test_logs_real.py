"""Jobs and states as a real Slurm tells of them, read for logs and diagnosis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from clusterbox.embedded.slurm import Options, SlurmCluster
from clusterbox.observe.diagnosis import diagnose
from clusterbox.observe.log_doors import LogDoors
from clusterbox.observe.log_events import LogReader
from clusterbox.observe.log_nodes import job_from_slurm
from clusterbox.observe.log_view import Asked, make_view
from clusterbox.slurm import SlurmError
from tests.observe.log_world import GROUP, TEN, FakeLogs
from tests.observe.test_diagnose import FakeEc2
from tests.slurm_cluster import needs_slurm, wait_for_job, write_cluster

pytestmark = needs_slurm


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    folder = tmp_path_factory.mktemp("slurm")
    options = Options(boot_seconds=0.5, idle_seconds=60)
    with SlurmCluster.start(write_cluster(folder, "told"), folder / "state", options) as running:
        yield running


class Forgetful:
    """A Slurm whose slurmctld has forgotten its jobs."""

    def __init__(self, slurm: SlurmCluster) -> None:
        self.slurm = slurm

    def run(self, *words: str) -> str:
        if words[0] == "scontrol":
            raise SlurmError("slurm_load_jobs error: Invalid job id specified")
        return self.slurm.door.run(*words)


def test_a_job_is_found_in_memory_and_in_the_accounting(slurm: SlurmCluster) -> None:
    output = slurm.folder / "tile.out"
    job = slurm.door.run(
        *("sbatch", "--parsable", "--partition=eco", f"--output={output}", "--wrap", "true")
    ).strip()
    wait_for_job(slurm, job)
    held = job_from_slurm(job, slurm.door)
    accounted = job_from_slurm(job, Forgetful(slurm))
    assert held is not None
    assert accounted is not None
    assert held.output == str(output)
    assert (held.state, accounted.state) == ("COMPLETED", "COMPLETED")
    assert len(held.nodes) == 1
    assert accounted.nodes == held.nodes
    assert held.start is not None
    assert held.end is not None
    assert held.start <= held.end
    assert (accounted.start, accounted.end) == (held.start, held.end)
    assert job_from_slurm("999999", slurm.door) is None


def test_drained_nodes_and_queues_that_are_off_are_told(slurm: SlurmCluster) -> None:
    slurm.door.run(
        "scontrol", "update", "nodename=eco-st-n8c32g-1", "state=drain", "reason=Kill task failed"
    )
    slurm.door.run(
        "scontrol", "update", "nodename=spot-dy-s4c16g-1", "state=down", "reason=look at it"
    )
    slurm.door.run("scontrol", "update", "partitionname=spot", "state=inactive")
    reader = LogReader(FakeLogs(), lambda _: None, lambda: TEN)
    view = make_view(reader, GROUP, [], Asked(), default_since=TEN)
    doors = LogDoors(lambda _service: FakeEc2(), lambda: slurm.door)
    diagnosis = diagnose(reader, GROUP, view, doors, "told")
    assert [(one.id, one.meaning.split(":")[0], one.nodes) for one in diagnosis.findings] == [
        (
            "partition-inactive",
            "the queue spot is switched off",
            ("spot-dy-s4c16g-1", "spot-dy-s4c16g-2"),
        ),
        ("kill-task", "processes of a job could not be ended", ("eco-st-n8c32g-1",)),
        ("held-node", "nodes are held with the reason", ("spot-dy-s4c16g-1",)),
    ]
    assert diagnosis.notes == ()
