"""The exporter of containers against a real Docker engine, and as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clusterbox.observe.container_collector import ContainerCollector
from clusterbox.observe.containers import EngineError
from clusterbox.observe.docker_engine import DockerEngine
from tests.conftest import ROOT
from tests.observe.docker_service import DockerService, docker_service, needs_docker
from tests.observe.scrapes import samples, scrape

pytestmark = needs_docker

BURN = "i=0; while [ $i -lt 500000 ]; do i=$((i+1)); done; echo burnt; sleep 1000"


@pytest.fixture(scope="module")
def docker() -> Iterator[DockerService]:
    with docker_service() as service:
        service.run("burner", BURN, "--env", "SLURM_JOB_ID=42", "--env", "SLURM_JOB_USER=ana")
        service.run("sleeper", "sleep 1000", "--memory=64m")
        limit = time.monotonic() + 60
        while "burnt" not in service.docker("logs", "burner"):
            assert time.monotonic() < limit
            time.sleep(0.1)
        yield service


def cgroup_value(docker: DockerService, name: str, files: dict[str, str]) -> int:
    """Return a figure of a container's cgroup; `files` are those of version 1 and 2."""
    pid = docker.inspect(name, "{{.State.Pid}}")
    groups = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        groups.update(dict.fromkeys(controllers.split(","), path))
    for controller, file in files.items():
        found = Path(f"/sys/fs/cgroup/{controller}{groups.get(controller, '')}/{file}")
        if found.is_file():
            return int(re.findall(r"\d+", found.read_text())[0])
    raise AssertionError(f"no cgroup file of {name}: {groups}")


def test_figures_are_those_of_the_kernels_own_files(docker: DockerService) -> None:
    text = scrape(ContainerCollector([DockerEngine(docker.socket)]))
    cpu = samples(text, "clusterbox_container_cpu_seconds_total", "container", "job", "user")
    assert set(cpu) == {("burner", "42", "ana"), ("sleeper", "", "")}
    usage = cgroup_value(docker, "burner", {"cpuacct": "cpuacct.usage", "": "cpu.stat"})
    # Nanoseconds in version 1, microseconds in version 2.
    seconds = usage / (1e9 if usage > 1e7 else 1e6)
    assert cpu["burner", "42", "ana"] == pytest.approx(seconds, abs=0.05)
    assert cpu["burner", "42", "ana"] > cpu["sleeper", "", ""]
    limit = samples(text, "clusterbox_container_memory_limit_bytes", "container")
    assert limit == {("sleeper",): 64.0 * 1024 * 1024}
    memory = samples(text, "clusterbox_container_memory_bytes", "container")
    peak = {"memory": "memory.max_usage_in_bytes", "": "memory.peak"}
    assert 0 < memory[("sleeper",)] <= cgroup_value(docker, "sleeper", peak)
    assert samples(text, "clusterbox_containers", "engine") == {("docker",): 2.0}


def test_a_container_that_ends_goes_and_a_new_one_comes(docker: DockerService) -> None:
    engine = DockerEngine(docker.socket)
    docker.run("brief", "sleep 1000", "--env", "SLURM_JOB_ID=7")
    assert {one.name for one in engine.read(10)[0]} == {"burner", "sleeper", "brief"}
    docker.docker("rm", "--force", "brief")
    assert {one.name for one in engine.read(10)[0]} == {"burner", "sleeper"}


def test_many_containers_are_read_before_a_scrape_is_given_up(docker: DockerService) -> None:
    # Docker 20.10 takes a second for each; one after the other they would take too long.
    names = [f"one-of-many-{number}" for number in range(12)]
    for name in names:
        docker.run(name, "sleep 1000")
    try:
        found = DockerEngine(docker.socket).read(100)[0]
    finally:
        docker.docker("rm", "--force", *names)
    assert len(found) == 14


def test_a_paused_container_is_told(docker: DockerService) -> None:
    docker.docker("pause", "sleeper")
    try:
        found = {one.name for one in DockerEngine(docker.socket).read(10)[0]}
    finally:
        docker.docker("unpause", "sleeper")
    assert found == {"burner", "sleeper"}


def test_an_engine_that_hangs_is_down_and_comes_back(docker: DockerService) -> None:
    engine = DockerEngine(docker.socket, timeout_seconds=0.5)
    docker.pause()
    try:
        with pytest.raises(EngineError, match="timed out"):
            engine.read(10)
    finally:
        docker.resume()
    assert len(DockerEngine(docker.socket).read(10)[0]) == 2


@contextmanager
def exporter(docker: DockerService, listen: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run the command; yields its process and port."""
    words = [sys.executable, "-m", "clusterbox.cli.main", "observe", "exporter", "containers"]
    words += ["--docker-socket", str(docker.socket), "--listen", listen]
    process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        found = re.search(r":(\d+)/metrics", said)
        assert found, said
        yield process, int(found[1])
    finally:
        process.kill()
        process.wait()


def get(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        return str(answer.read().decode())


def test_the_command_serves_ends_by_sigterm_and_survives_being_killed_in_a_scrape(
    docker: DockerService,
) -> None:
    with exporter(docker, "127.0.0.1:0") as (process, port):
        assert 'container="burner"' in get(port)
        # A scrape that waits for the engine is cut off with the process.
        docker.pause()
        try:
            scraper = subprocess.Popen(
                [sys.executable, "-c", f"import urllib.request as u; u.urlopen({get_url(port)!r})"],
                stderr=subprocess.DEVNULL,
            )
            time.sleep(0.2)
            os.kill(process.pid, signal.SIGKILL)
            process.wait(30)
            scraper.kill()
            scraper.wait(30)
        finally:
            docker.resume()
    with exporter(docker, f"127.0.0.1:{port}") as (process, again):
        assert again == port
        assert 'container="burner"' in get(port)
        process.terminate()
        assert process.wait(30) == 0


def get_url(port: int) -> str:
    return f"http://127.0.0.1:{port}/metrics"
