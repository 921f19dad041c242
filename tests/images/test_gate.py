"""The gate lets the rollout go on only when a job on the new image found what it needs."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clusterbox.images.context import StepFailedError
from clusterbox.images.fleet import RESERVATION
from clusterbox.images.gate import Demands, find_mounts, gate, parse_checks, render_job
from clusterbox.images.plan import Step
from clusterbox.images.rollout import queues
from clusterbox.site.yaml_file import parse_yaml
from tests.conftest import ROOT
from tests.images.fake_cluster import (
    CLUSTER,
    NEW,
    OLD,
    RUN,
    FakeCluster,
    run_killed,
    write_repository,
)

STEP = Step(id=f"gate:{CLUSTER}/eco", action="gate", subject={"cluster": CLUSTER, "queue": "eco"})
QUEUES = Step(
    id=f"queues:{CLUSTER}/eco", action="queues", subject={"cluster": CLUSTER, "queues": "eco"}
)
FAILED = """\
ami: ami-0000000000000002b
node: eco-dy-n8c32g-10
{"check": "imports", "ok": false, "detail": "No module named rasterio"}
{"check": "dns", "ok": true, "detail": ""}
gate: done, 1 failed"""


@pytest.fixture
def fake(tmp_path: Path) -> FakeCluster:
    fake = FakeCluster(write_repository(tmp_path / "site"))
    queues(fake.context(), QUEUES, fake.doors())
    return fake


def test_a_job_on_the_new_image_opens_the_gate(fake: FakeCluster) -> None:
    result = gate(fake.context(), STEP, fake.doors())
    assert result["ami"] == NEW
    assert result["checks"] == [{"check": "imports", "ok": True, "detail": ""}]
    assert fake.submitted == [f"clusterbox-gate-{RUN}-eco"]
    assert fake.files == {}, "nothing of the job is left on the shared folder"


def test_a_failed_check_closes_it_with_the_output(fake: FakeCluster) -> None:
    fake.gate_output = FAILED
    with pytest.raises(StepFailedError, match="No module named rasterio") as error:
        gate(fake.context(), STEP, fake.doors())
    assert f"gate of {CLUSTER}/eco: job 100 on eco-dy-n8c32g-10: imports" in str(error.value)
    assert "rollback" in str(error.value)
    fake.gate_output = None
    assert gate(fake.context(), STEP, fake.doors())["job"] != "100", "mended, it is tried anew"


def test_a_job_that_ends_without_having_looked_at_all_closes_it(fake: FakeCluster) -> None:
    fake.gate_output = 'node: n\n{"check": "imports", "ok": true, "detail": ""}\n'
    with pytest.raises(StepFailedError, match="the job ended as COMPLETED"):
        gate(fake.context(), STEP, fake.doors())


def test_a_job_that_never_starts_is_cancelled(fake: FakeCluster) -> None:
    fake.partitions["eco"] = "DOWN"
    with pytest.raises(StepFailedError, match=r"was PENDING .* after 30 min and is cancelled"):
        gate(fake.context(), STEP, fake.doors())
    assert [job.state for job in fake.jobs.values()] == ["CANCELLED"]


def test_after_a_time_out_another_job_is_submitted(fake: FakeCluster) -> None:
    fake.partitions["eco"] = "DOWN"
    with pytest.raises(StepFailedError):
        gate(fake.context(gate_seconds=60.0), STEP, fake.doors())
    fake.partitions["eco"] = "UP"
    assert gate(fake.context(), STEP, fake.doors())["ami"] == NEW
    assert len(fake.submitted) == 2


def test_a_job_that_ran_on_the_old_image_proves_nothing(fake: FakeCluster) -> None:
    fake.gate_output = f"ami: {OLD}\nnode: n\ngate: done, 0 failed"
    with pytest.raises(StepFailedError, match=f"ran on {OLD} and not on {NEW}"):
        gate(fake.context(), STEP, fake.doors())


def test_a_node_without_metadata_is_known_by_its_instance(fake: FakeCluster) -> None:
    fake.gate_output = "node: eco-dy-n8c32g-10\ngate: done, 0 failed"
    fake.jobs.clear()
    assert gate(fake.context(), STEP, fake.doors())["ami"] == NEW


def test_killed_anywhere_and_run_again_there_is_one_job(tmp_path: Path) -> None:
    number = iter(range(10_000))

    def make() -> FakeCluster:
        fake = FakeCluster(write_repository(tmp_path / str(next(number))))
        queues(fake.context(), QUEUES, fake.doors())
        fake.calls = 0
        return fake

    def check(fake: FakeCluster, result: Any) -> None:
        assert result["ami"] == NEW
        # A kill when all is done and forgotten may have it done once more, after the first ended.
        assert len(fake.submitted) <= 2
        assert sum(job.state in ("PENDING", "RUNNING") for job in fake.jobs.values()) == 0
        if len(fake.submitted) == 2:
            assert fake.kill_after or fake.calls

    assert run_killed(make, lambda fake: gate(fake.context(), STEP, fake.doors()), check) > 10


def test_mounts_are_those_of_the_shared_storage() -> None:
    text = "SharedStorage: [{MountDir: /data}, {MountDir: scratch}]\n"
    assert find_mounts(parse_yaml(text, name="c.yaml")) == ["/data", "/scratch"]


def test_lines_that_are_no_checks_are_passed_over() -> None:
    output = 'hello\n{"check": "a", "ok": true, "detail": "b"}\n{"check": broken\n'
    assert parse_checks(output) == [{"check": "a", "ok": True, "detail": "b"}]


def run_job(tmp_path: Path, demands: Demands, **programs: str) -> tuple[int, dict[str, Any], str]:
    """Run the job's script for real, with programs of the test before those of this machine."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name, text in programs.items():
        path = bin_folder / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    script = tmp_path / "job.sh"
    script.write_text(render_job(ROOT, demands))
    done = subprocess.run(
        ["bash", str(script)],
        env={
            "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
            "CLUSTERBOX_MOUNTS": str(tmp_path),
            "SLURM_JOB_ID": "7",
        },
        capture_output=True,
        text=True,
    )
    checks = {str(check["check"]): check for check in parse_checks(done.stdout)}
    return done.returncode, checks, done.stdout


PASSING = {
    "science_python": "exit 0",
    "curl": "exit 0",
    "getent": "echo 10.0.0.1 s3",
    "srun": "echo slurm 24.05.8",
}
DEMANDS = Demands(("numpy", "scipy"), ("/data",), "24.05.8", "s3.example", "results")


def test_the_script_passes_where_all_is_there(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    code, checks, output = run_job(tmp_path, DEMANDS, **PASSING)
    assert code == 0, output
    assert list(checks) == ["imports", "mount /data", "dns", "s3", "slurm"]
    assert all(check["ok"] for check in checks.values())
    assert list((tmp_path / "data").iterdir()) == [], "the file of the check is gone"
    assert output.rstrip().endswith("gate: done, 0 failed")


@pytest.mark.parametrize(
    ("check", "programs"),
    [
        ("imports", {"science_python": "echo 'No module named \"numpy\"' >&2; exit 1"}),
        ("dns", {"getent": "exit 2"}),
        ("s3", {"curl": "echo 'Could not connect\\n' >&2; exit 7"}),
        ("slurm", {"srun": "echo slurm 23.11.1"}),
    ],
)
def test_the_script_fails_with_the_check_that_does(
    tmp_path: Path, check: str, programs: dict[str, str]
) -> None:
    (tmp_path / "data").mkdir()
    code, checks, output = run_job(tmp_path, DEMANDS, **{**PASSING, **programs})
    assert code == 1
    assert [name for name, found in checks.items() if not found["ok"]] == [check]
    assert checks[check]["detail"]
    assert output.rstrip().endswith("gate: done, 1 failed")


def test_the_script_fails_where_a_mount_cannot_be_written(tmp_path: Path) -> None:
    code, checks, _ = run_job(tmp_path, DEMANDS, **PASSING)
    assert code == 1
    assert checks["mount /data"]["ok"] is False


def test_details_are_one_line_of_json_whatever_is_in_them(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    ugly = "printf 'a\"b\\\\\\\\c\\td\\ne\\033[0m' >&2; exit 1"
    _, checks, output = run_job(tmp_path, DEMANDS, **{**PASSING, "science_python": ugly})
    line = next(line for line in output.splitlines() if '"imports"' in line)
    assert json.loads(line)["ok"] is False
    assert checks["imports"]["detail"]


def test_the_scripts_are_clean() -> None:
    scripts = sorted((ROOT / "ami" / "patch").glob("*.sh"))
    assert len(scripts) == 3
    done = subprocess.run(["shellcheck", *map(str, scripts)], capture_output=True, text=True)
    assert done.stdout == ""


def test_a_queue_that_was_left_for_its_jobs_is_not_tried(fake: FakeCluster) -> None:
    context = fake.context()
    plan = replace(context.plan, steps=(QUEUES, STEP))
    left = {QUEUES.id: {"skipped": f"left: 1 job runs on {CLUSTER}"}}
    result = gate(replace(context, plan=plan, results=left), STEP, fake.doors())
    assert "1 job runs" in result["skipped"]
    assert fake.submitted == []


def test_jobs_that_are_held_since_a_failed_patch_are_told_at_once(fake: FakeCluster) -> None:
    fake.reservations.add(RESERVATION)
    with pytest.raises(StepFailedError, match=f"delete ReservationName={RESERVATION}"):
        gate(fake.context(), STEP, fake.doors())
    assert fake.submitted == []
