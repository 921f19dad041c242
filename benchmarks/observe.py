"""Measure a scrape of the Slurm exporter against the commands that it runs, and a reader of JSON."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml
from prometheus_client import CollectorRegistry, generate_latest

from benchmarks.common import tell
from clusterbox.clusters.composed import read_native
from clusterbox.embedded.slurm import Options, SlurmCluster
from clusterbox.embedded.slurm.programs import missing_packages
from clusterbox.observe.slurm_collector import SlurmCollector
from clusterbox.observe.slurm_reader import COMMANDS
from clusterbox.slurm import Slurm

NODES = 1000
JOBS = 10_000
TASKS = 50_000
OBSERVE_COLUMNS = (f"a Slurm of {NODES:,} nodes", "seconds", "times", "peak MiB", "aim")
# A Slurm of that size on a small machine answers slowly now and then.
_TIMEOUT_SECONDS = 60.0


def measure_observe(runs: int) -> list[list[object]]:
    """Return rows for the three commands alone, a scrape, and reading JSON; none without Slurm."""
    if missing := missing_packages():
        tell(f"no Slurm is measured: {' '.join(missing)} are missing")
        return []
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with _start(folder) as slurm:
            _submit_jobs(slurm, folder)
            rows += _measure(slurm, f"{JOBS:,} jobs", runs)
            submit(slurm, folder, f"--array=1-{TASKS}%100")
            rows += _measure(slurm, f"{JOBS:,} jobs, {TASKS:,} array tasks", runs)
    return rows


def _start(folder: Path) -> SlurmCluster:
    resources = [
        {"Name": f"r{i}", "Instances": [{"InstanceType": "t3a.2xlarge"}], "MaxCount": NODES // 4}
        for i in range(4)
    ]
    queues = [{"Name": f"q{i}", "ComputeResources": [resources[i]]} for i in range(4)]
    path = folder / "big.yaml"
    scheduling = {"Scheduler": "slurm", "SlurmQueues": queues}
    path.write_text(yaml.safe_dump({"Region": "us-west-2", "Scheduling": scheduling}))
    # At the limit sbatch would wait until a job has ended.
    more = {"MaxJobCount": JOBS + TASKS + 1000, "MaxArraySize": TASKS + 1}
    options = Options(accounting=False, settings=more)
    return SlurmCluster.start(read_native(path), folder / "state", options)


def _submit_jobs(slurm: SlurmCluster, folder: Path) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda i: submit(slurm, folder, f"--partition=q{i % 4}"), range(JOBS)):
            pass


def submit(slurm: SlurmCluster, folder: Path, *options: str) -> None:
    """Submit a job that is held: nothing is to run while it is measured."""
    slurm.door.submit("true", "--hold", "--output=/dev/null", *options, folder=folder)


def _measure(slurm: SlurmCluster, title: str, runs: int) -> list[list[object]]:
    """Return a row each for commands, scrape and JSON, measured in turn in a process of its own."""
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        with contextlib.suppress(BaseException), os.fdopen(write, "w") as out:
            json.dump(_figures(slurm, runs), out)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(pid, 0)
    if not text:
        raise SystemExit(f"{title}: the measurement failed")
    seconds, peak = json.loads(text)
    rows: list[list[object]] = [
        [f"{title}: the three commands alone", f"{seconds[0]:.2f}", "", "", ""]
    ]
    for what, taken, memory, aim in (
        ("a scrape", seconds[1], f"{peak:.0f}", "< 1.3 times, < 100 MiB"),
        ("a reader of JSON", seconds[2], "", ""),
    ):
        figures = f"{taken:.2f}", f"{taken / seconds[0]:.2f}"
        rows.append([f"{title}: {what}", *figures, memory, aim])
        tell(f"{rows[-1][0]}: {taken:.2f} s")
    return rows


def _figures(slurm: SlurmCluster, runs: int) -> tuple[list[float], float]:
    door = slurm.door
    ways: tuple[Callable[[Slurm], object], ...] = (_commands, _scrape, _read_json)
    taken: list[list[float]] = [[], [], []]
    peak = 0.0
    for run in range(2 * runs + 1):
        # JSON last and once, after the memory of a scrape is known.
        for which in (0, 1):
            start = time.monotonic()
            ways[which](door)
            if run:
                taken[which].append(time.monotonic() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.monotonic()
    _read_json(door)
    taken[2].append(time.monotonic() - start)
    return [statistics.median(each) for each in taken], peak


def _commands(door: Slurm) -> None:
    environment = {**os.environ, **door.environment, "SLURM_BITSTR_LEN": "0"}
    environment["SLURM_TIME_FORMAT"] = "%s"
    for words in COMMANDS.values():
        subprocess.run(words, env=environment, stdout=subprocess.PIPE, check=True)


def _scrape(door: Slurm) -> None:
    registry = CollectorRegistry()
    registry.register(SlurmCollector(door, timeout_seconds=_TIMEOUT_SECONDS))
    if b"slurm_up 1.0" not in generate_latest(registry):
        raise SystemExit("slurmctld did not answer")


def _read_json(door: Slurm) -> Counter[str]:
    """Count states as an exporter that reads JSON does; `sdiag` has none in Slurm 22.05."""
    jobs = json.loads(door.run("squeue", "--all", "--states=all", "--json"))["jobs"]
    nodes = json.loads(door.run("sinfo", "--all", "--json"))["nodes"]
    door.run("sdiag")
    return Counter([job["job_state"] for job in jobs] + [node["state"] for node in nodes])


if __name__ == "__main__":
    from clusterbox.cli.tables import render_table

    sys.stdout.write(render_table(OBSERVE_COLUMNS, measure_observe(3), "markdown") + "\n")
