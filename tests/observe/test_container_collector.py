"""Containers of engines that are made up, and Apptainer's by real processes with its variables."""

from __future__ import annotations

import json
import os
import signal
import socketserver
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from clusterbox.observe.apptainer import Apptainer
from clusterbox.observe.container_collector import ContainerCollector
from clusterbox.observe.containers import Container, EngineError, job_of_cgroup
from clusterbox.observe.docker_engine import DockerEngine
from tests.observe.scrapes import names, samples, scrape

# Made by hand after Docker's API on a machine with cgroup v2 (Amazon Linux 2023): those of the
# real engine of the other test have whichever cgroups its machine has.
LISTED = [{"Id": "a" * 64, "Names": ["/tiles"], "Image": "ard:3", "Created": 100}]
ABOUT = {
    "State": {"Pid": 0},
    "Config": {"Env": ["SLURM_JOB_ID=42", "SLURM_JOB_USER=ana", "PATH=/bin"]},
    "HostConfig": {"Memory": 67108864},
}
STATS = {
    "read": "2026-11-22T23:18:53.903651592Z",
    "pids_stats": {"current": 3},
    "cpu_stats": {"cpu_usage": {"total_usage": 2_500_000_000}},
    "memory_stats": {"usage": 9000, "stats": {"inactive_file": 2000}, "limit": 67108864},
    "blkio_stats": {
        "io_service_bytes_recursive": [
            {"major": 259, "minor": 0, "op": "read", "value": 4096},
            {"major": 259, "minor": 0, "op": "write", "value": 100},
            {"major": 259, "minor": 1, "op": "write", "value": 23},
        ]
    },
}
LABELS = ("engine", "container", "image", "job", "user")
TILES = ("docker", "tiles", "ard:3", "42", "ana")

Answers = Callable[[str], tuple[int, Any]]


def answers(**changes: Any) -> Answers:
    """Return the answers of an engine with one container."""

    def answer(target: str) -> tuple[int, Any]:
        for part, found in {
            "stats": (200, STATS),
            f"{'a' * 64}/json": (200, ABOUT),
            "containers/json": (200, LISTED),
        }.items():
            if part in target:
                changed: tuple[int, Any] = changes.get(part.partition("/")[0], found)
                return changed
        return 404, {}

    return answer


@contextmanager
def engine_api(answer: Answers) -> Iterator[tuple[Path, list[str]]]:
    """Serve answers on a unix socket; yields it, and the list of what is asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(self.path)
            status, content = answer(self.path)
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_: Any) -> None:
            pass

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True
        request_queue_size = 200

        def handle_error(self, *_: Any) -> None:
            """Say nothing of clients that went away."""

    with tempfile.TemporaryDirectory(prefix="api") as folder:
        path = Path(folder) / "s"
        with Server(str(path), Handler) as server:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            try:
                yield path, asked
            finally:
                server.shutdown()


def collector(path: Path, **settings: Any) -> ContainerCollector:
    return ContainerCollector([DockerEngine(path)], **settings)


def test_a_container_is_told_with_its_job_and_what_it_uses() -> None:
    with engine_api(answers()) as (path, _asked):
        text = scrape(collector(path))
    prefix = "clusterbox_container_"
    assert samples(text, f"{prefix}cpu_seconds_total", *LABELS) == {TILES: 2.5}
    assert samples(text, f"{prefix}memory_bytes", *LABELS) == {TILES: 7000.0}
    assert samples(text, f"{prefix}memory_limit_bytes", *LABELS) == {TILES: 67108864.0}
    assert samples(text, f"{prefix}io_read_bytes_total", *LABELS) == {TILES: 4096.0}
    assert samples(text, f"{prefix}io_write_bytes_total", *LABELS) == {TILES: 123.0}
    assert samples(text, f"{prefix}processes", *LABELS) == {TILES: 3.0}
    assert samples(text, f"{prefix}engine_up", "engine") == {("docker",): 1.0}


def test_io_that_the_kernel_does_not_count_is_not_told_as_nothing() -> None:
    stats = {**STATS, "blkio_stats": {"io_service_bytes_recursive": None}}
    with engine_api(answers(stats=(200, stats))) as (path, _asked):
        text = scrape(collector(path))
    assert "clusterbox_container_io_read_bytes_total" not in names(text)
    assert "clusterbox_container_cpu_seconds_total" in names(text)


def test_what_does_not_change_is_asked_once() -> None:
    with engine_api(answers()) as (path, asked):
        engine = DockerEngine(path)
        assert engine.read(10) == engine.read(10)
    assert [target.partition("?")[0].rpartition("/")[2] for target in asked] == [
        "json",
        "json",
        "stats",
        "json",
        "stats",
    ]


@pytest.mark.parametrize(
    "gone",
    [
        (404, {"message": "No such container"}),
        (409, {}),
        (200, {"read": "0001-01-01T00:00:00Z"}),
        (200, {"id": "a"}),
    ],
)
def test_a_container_that_ends_meanwhile_is_left_out(gone: tuple[int, Any]) -> None:
    with engine_api(answers(stats=gone)) as (path, _asked):
        text = scrape(collector(path))
    assert samples(text, "clusterbox_containers", "engine") == {("docker",): 0.0}
    assert "clusterbox_container_cpu_seconds_total" not in names(text)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, b"<html>"), "Expecting value"),
        ((500, {"message": "no disk left"}), "no disk left"),
        ((200, [{"Id": "x"}]), "not its API"),
        ((200, {"message": "odd"}), "not its API"),
        ((200, [None]), "not its API"),
    ],
)
def test_an_engine_that_says_something_else_is_down_and_has_no_samples(
    answer: tuple[int, Any], said: str
) -> None:
    with engine_api(lambda _target: answer) as (path, _asked):
        with pytest.raises(EngineError, match=said):
            DockerEngine(path).read(10)
        text = scrape(collector(path))
    assert samples(text, "clusterbox_container_engine_up", "engine") == {("docker",): 0.0}
    assert names(text) == {"clusterbox_container_engine_up"}


def test_an_engine_that_does_not_answer_is_given_up() -> None:
    released = threading.Event()

    def wait(_target: str) -> tuple[int, Any]:
        released.wait(30)
        return 200, []

    with engine_api(wait) as (path, _asked):
        with pytest.raises(EngineError, match="timed out"):
            DockerEngine(path, timeout_seconds=0.2).read(10)
        released.set()


def test_no_engine_is_down(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="No such file"):
        DockerEngine(tmp_path / "none").read(10)


def test_a_hundred_scrapers_ask_the_engine_once() -> None:
    with engine_api(answers()) as (path, asked):
        one = collector(path, refresh_seconds=3600)
        with ThreadPoolExecutor(100) as pool:
            texts = set(pool.map(lambda _: scrape(one), range(100)))
    assert len(texts) == 1
    assert len(asked) == 3


def test_of_too_many_containers_the_oldest_have_series_and_the_rest_is_counted() -> None:
    class Many:
        name = "docker"

        def read(self, most: int) -> tuple[list[Container], int]:
            return [Container(f"c{i}", "i", "", "", i, cpu_seconds=1) for i in range(most)], 50

    text = scrape(ContainerCollector([Many()], most_containers=2))
    cpu = samples(text, "clusterbox_container_cpu_seconds_total", "container")
    assert set(cpu) == {("c0",), ("c1",)}
    assert samples(text, "clusterbox_containers", "engine") == {("docker",): 50.0}
    assert samples(text, "clusterbox_containers_left_out", "engine") == {("docker",): 48.0}


def test_odd_variables_are_no_job_and_no_user() -> None:
    odd = ['SLURM_JOB_ID=1; drop"\n', "SLURM_JOB_USER=a\nb"]
    about = {**ABOUT, "Config": {"Env": odd}}
    with engine_api(answers(**{"a" * 64: (200, about)})) as (path, _asked):
        (one,), _count = DockerEngine(path).read(10)
    assert (one.job, one.user) == ("", "")


@pytest.mark.parametrize(
    ("line", "job"),
    [
        ("0::/system.slice/slurmstepd.scope/job_42/step_0/user/task_0", "42"),
        ("0::/system.slice/n1_slurmstepd.scope/job_7/step_batch/slurm", "7"),
        ("4:memory:/slurm/uid_1000/job_42/step_batch", "42"),
        ("4:memory:/slurm_eco-dy-n-1/uid_0/job_3", "3"),
        ("0::/system.slice/docker-0123.scope", ""),
        ("0::/user.slice/job_9/x", ""),
    ],
)
def test_the_job_is_in_the_path_of_slurms_cgroups(line: str, job: str) -> None:
    assert job_of_cgroup(f"1:cpu:/\n{line}\n") == job


# Apptainer itself is no package of Debian. These are real processes with the variables that it
# sets, as children of one without them, like those of its `starter`.
@contextmanager
def contained(script: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Run a shell with the variables of a container until the end, with all that it starts."""
    environment = {"PATH": os.environ["PATH"], "APPTAINER_CONTAINER": "/images/tiles.sif"}
    process = subprocess.Popen(
        ["sh", "-c", script],
        env=environment | variables,
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def read_job(engine: Apptainer, job: str) -> Container | None:
    return next((one for one in engine.read(1000)[0] if one.job == job), None)


BURN = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"


def test_containers_of_apptainer_are_found_with_job_and_user() -> None:
    with contained("sleep 60 & echo up; wait", SLURM_JOB_ID="90001") as process:
        assert line_of(process) == "up"
        found = read_job(Apptainer(), "90001")
    assert found is not None
    assert (found.name, found.image) == ("tiles.sif", "/images/tiles.sif")
    assert found.user == "root" or os.geteuid() != 0
    assert found.processes == 2
    assert found.memory_bytes is not None
    assert found.memory_bytes > 0


def test_the_job_is_found_by_who_started_a_container_with_a_clean_environment() -> None:
    inner = "env -i APPTAINER_CONTAINER=/images/clean.sif sleep 60 & echo up; wait"
    with contained(inner, SLURM_JOB_ID="90002", APPTAINER_CONTAINER="") as process:
        assert line_of(process) == "up"
        engine = Apptainer()
        limit = time.monotonic() + 30
        while (found := read_job(engine, "90002")) is None and time.monotonic() < limit:
            time.sleep(0.05)
    assert found is not None
    assert found.name == "clean.sif"


def test_two_containers_of_one_image_and_job_are_one_series() -> None:
    with (
        contained("echo up; sleep 60", SLURM_JOB_ID="90003") as one,
        contained("echo up; sleep 60", SLURM_JOB_ID="90003") as other,
    ):
        assert (line_of(one), line_of(other)) == ("up", "up")
        text = scrape(ContainerCollector([Apptainer()]))
    cpu = samples(text, "clusterbox_container_cpu_seconds_total", "container", "job")
    assert [key for key in cpu if key[1] == "90003"] == [("tiles.sif", "90003")]


def test_cpu_time_does_not_go_back_when_a_container_or_its_child_ends() -> None:
    # The child burns and says so, then waits until it may end; so does the container.
    script = f"({BURN}; echo burnt; read x); echo ended; read x"
    engine = Apptainer()

    def cpu() -> float:
        found = read_job(engine, "90004")
        assert found is not None
        assert found.cpu_seconds is not None
        return found.cpu_seconds

    with contained("echo up; sleep 60", SLURM_JOB_ID="90004") as other:
        assert line_of(other) == "up"
        before = cpu()
        with contained(script, SLURM_JOB_ID="90004") as process:
            assert process.stdin is not None
            assert line_of(process) == "burnt"
            burnt = cpu()
            process.stdin.write("\n")
            process.stdin.flush()
            assert line_of(process) == "ended"
            ended = cpu()
        after = cpu()
    assert before < burnt <= ended <= after
    # Counted once, though the child's time is its parent's when it has ended.
    assert after - before < 2 * (burnt - before)


def test_a_child_that_lived_between_two_looks_counts() -> None:
    engine = Apptainer()
    script = f"echo up; read x; ({BURN}); echo ended; read x"
    with contained(script, SLURM_JOB_ID="90005") as process:
        assert process.stdin is not None
        assert line_of(process) == "up"
        before = read_job(engine, "90005")
        process.stdin.write("\n")
        process.stdin.flush()
        assert line_of(process) == "ended"
        after = read_job(engine, "90005")
    assert before is not None
    assert after is not None
    assert (after.cpu_seconds or 0) > (before.cpu_seconds or 0)


def test_a_machine_without_processes_to_list_is_an_engine_that_is_down(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="No such file"):
        Apptainer(tmp_path / "none").read(10)


def test_processes_that_end_while_they_are_read_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "4711").mkdir()
    (tmp_path / "4712").mkdir()
    (tmp_path / "4712" / "stat").write_text("4712 (a) b) S 1")
    assert Apptainer(tmp_path).read(10) == ([], 0)
