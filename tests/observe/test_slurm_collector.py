"""The Slurm exporter on commands that are stand-ins: what it tells, and what it does in a fault."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from clusterbox.cli.main import main
from clusterbox.observe.serve import MetricsServer
from clusterbox.observe.slurm_accounting import EndedJobs
from clusterbox.observe.slurm_collector import SlurmCollector, WaitTimes
from clusterbox.observe.slurm_reader import SEPARATOR, Job
from tests.observe.recorded import VERSIONS, read_recorded
from tests.observe.stand_ins import StandIns, names, parse, scrape, value


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def commands(tmp_path: Path) -> StandIns:
    return StandIns(tmp_path)


def first_words(commands: StandIns) -> list[str]:
    return [call.split()[0] for call in commands.calls()]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_scrape_of_every_version(tmp_path: Path, version: str) -> None:
    collector = SlurmCollector(StandIns(tmp_path, version).door)
    collector.poll()
    found = scrape(collector)
    assert value(found, "slurm_up") == 1
    assert value(found, "slurm_queue_pending") == 390
    assert value(found, "slurm_queue_pending_dependency") == 335
    assert value(found, "slurm_queue_running") == 6
    assert value(found, "slurm_nodes_mix") == 2
    assert value(found, "slurm_cpus_total") == 32
    assert value(found, "slurm_user_jobs_pending", user="root") == 390
    assert value(found, "slurm_scheduler_mean_cycle") == 37
    assert value(found, "slurm_scheduler_cycle_per_minute") == 31
    assert value(found, "slurm_partition_inactive", partition="spot") == 1
    assert value(found, "slurm_partition_inactive", partition="eco") == 0
    assert value(found, "slurm_licenses_used", license="matlab") == 1
    assert value(found, "slurm_accounting_up") == 1
    assert value(found, "slurm_unknown_states_total", kind="node") == 0
    assert value(found, "slurm_unknown_states_total", kind="job") == 0
    assert value(found, "slurm_node_cpu_alloc", node="spot-dy-s4c16g-2", status="allocated") == 4
    # There is no machine behind it.
    assert value(found, "slurm_node_cpu_alloc", node="spot-dy-s4c16g-1", status="down") is None


def test_a_scrape_is_three_commands_and_the_next_ones_are_none(commands: StandIns) -> None:
    clock = Clock()
    collector = SlurmCollector(commands.door, clock=clock)
    for _ in range(5):
        scrape(collector)
    assert first_words(commands) == ["scontrol", "squeue", "sdiag"]
    clock.now += 14.9
    scrape(collector)
    assert len(commands.calls()) == 3
    clock.now += 0.2
    scrape(collector)
    assert first_words(commands) == ["scontrol", "squeue", "sdiag"] * 2


def test_a_hundred_scrapers_at_once_are_one_refresh(commands: StandIns) -> None:
    commands.write("squeue", f'sleep 0.5; cat "{commands.folder}/jobs"')
    with Serving(SlurmCollector(commands.door)) as port, ThreadPoolExecutor(100) as pool:
        texts = [*pool.map(lambda _: fetch(port), range(100))]
    assert len(commands.calls()) == 3
    assert {value(parse(text), "slurm_queue_running") for text in texts} == {6.0}


def test_who_waits_longer_than_a_refresh_lasts_does_not_ask_again(commands: StandIns) -> None:
    # The answer is older than the limit once it is there.
    commands.write("sdiag", f'sleep 0.5; cat "{commands.folder}/scheduler"')
    collector = SlurmCollector(commands.door, refresh_seconds=0.1)
    with ThreadPoolExecutor(20) as pool:
        found = [*pool.map(lambda _: collector.snapshots.get().taken, range(20))]
    assert len(found) == 20
    # One that comes when the first has ended may ask; those that waited may not.
    assert collector.snapshots.count <= 2


@pytest.mark.parametrize(
    ("command", "key", "script"),
    [
        ("scontrol", "nodes", "echo 'slurm_load_node error: Connection refused' >&2; exit 1"),
        ("squeue", "jobs", "exit 1"),
        ("squeue", "jobs", "echo some other text"),
        ("squeue", "jobs", "kill -9 $$"),
        ("sdiag", "scheduler", "echo"),
        ("scontrol", "nodes", "head -c 700 nodes | tr -d '\\n' | sed 's/State=/Stat=/'"),
    ],
)
def test_a_command_that_fails_leaves_up_0_and_no_stale_sample(
    commands: StandIns, command: str, key: str, script: str
) -> None:
    clock = Clock()
    collector = SlurmCollector(commands.door, clock=clock)
    assert value(scrape(collector), "slurm_up") == 1
    commands.write(command, f"cd {commands.folder}; {script}")
    clock.now += 15
    found = scrape(collector)
    assert value(found, "slurm_up") == 0
    assert value(found, "slurm_exporter_command_failures_total", command=key) == 1
    told = {name for name in names(found) if not name.startswith("slurm_exporter_")}
    assert told == {"slurm_up", "slurm_unknown_states_total"}


def test_a_slurmctld_that_is_down_is_not_asked_by_every_scrape(commands: StandIns) -> None:
    commands.write("scontrol", "exit 1")
    collector = SlurmCollector(commands.door, clock=Clock())
    for _ in range(5):
        assert value(scrape(collector), "slurm_up") == 0
    assert len(commands.calls()) == 1


def test_it_comes_back_with_slurmctld(commands: StandIns) -> None:
    clock = Clock()
    collector = SlurmCollector(commands.door, clock=clock)
    commands.write("sdiag", "exit 1")
    assert value(scrape(collector), "slurm_up") == 0
    commands.write("sdiag", f'cat "{commands.folder}/scheduler"')
    clock.now += 15
    assert value(scrape(collector), "slurm_queue_running") == 6


def test_a_command_that_hangs_is_ended_when_the_time_is_over(commands: StandIns) -> None:
    commands.write("squeue", f"echo $$ > {commands.folder}/pid; exec sleep 100")
    collector = SlurmCollector(commands.door, timeout_seconds=1)
    assert value(scrape(collector), "slurm_up") == 0
    pid = (commands.folder / "pid").read_text().strip()
    assert not Path(f"/proc/{pid}").exists()
    # Nothing is left of the time for the third one.
    assert first_words(commands) == ["scontrol", "squeue"]


def test_an_accounting_that_is_down_leaves_the_rest(commands: StandIns) -> None:
    commands.write("sacct", "echo 'sacct: error: Problem talking to the database' >&2; exit 1")
    collector = SlurmCollector(commands.door)
    collector.poll()
    found = scrape(collector)
    assert value(found, "slurm_up") == 1
    assert value(found, "slurm_accounting_up") == 0
    assert value(found, "slurm_queue_running") == 6
    assert value(found, "slurm_licenses_total", license="idl") == 2
    assert value(found, "slurm_exporter_command_failures_total", command="accounting") == 1
    assert "slurm_jobs_ended_total" not in names(found)


def test_a_poll_that_does_not_come_any_more_is_not_told_for_ever(commands: StandIns) -> None:
    clock = Clock()
    collector = SlurmCollector(commands.door, clock=clock)
    collector.poll()
    clock.now += 179
    assert value(scrape(collector), "slurm_accounting_up") == 1
    clock.now += 2
    found = scrape(collector)
    assert value(found, "slurm_up") == 1
    assert "slurm_accounting_up" not in names(found)
    assert "slurm_licenses_total" not in names(found)


def test_states_of_a_newer_slurm_are_told_as_other(commands: StandIns) -> None:
    commands.say("jobs", read_recorded("22.05", "jobs").replace("SUSPENDED", "DREAMING"))
    commands.say("nodes", read_recorded("22.05", "nodes").replace("ALLOCATED", "DREAMING"))
    found = scrape(SlurmCollector(commands.door))
    assert value(found, "slurm_up") == 1
    assert value(found, "slurm_jobs", partition="eco", state="other") == 1
    assert value(found, "slurm_partition_nodes", partition="spot", state="other") == 1
    assert value(found, "slurm_unknown_states_total", kind="job") == 1
    assert value(found, "slurm_unknown_states_total", kind="node") == 1


@pytest.mark.parametrize(
    "user", ['a"b', "DOMAIN\\anna", "a b", "jürgen", "x|y", "a{b=c}", "☂", "a\u2028b"]
)
def test_an_odd_name_of_a_user_is_a_label(commands: StandIns, user: str) -> None:
    cells = ("1", user, "acc", "eco", "RUNNING", "2", "5", "6", "n", "None")
    commands.say("jobs", SEPARATOR.join(cells) + "\n")
    found = scrape(SlurmCollector(commands.door))
    assert value(found, "slurm_user_cpus_running", user=user) == 2


def test_a_name_that_is_not_utf8_does_not_end_the_scrape(commands: StandIns) -> None:
    cells = (b"1", b"a\xff", b"acc", b"eco", b"RUNNING", b"2", b"5", b"6", b"n", b"None")
    (commands.folder / "jobs").write_bytes(SEPARATOR.encode().join(cells) + b"\n")
    assert value(scrape(SlurmCollector(commands.door)), "slurm_user_cpus_running", user="a\ufffd")


def test_users_beyond_the_limit_are_other(commands: StandIns) -> None:
    lines = [
        SEPARATOR.join((str(i), f"u{i}", "acc", "eco", "RUNNING", "1", "5", "6", "n", "None"))
        for i in range(50)
    ]
    lines += [lines[7]] * 3
    commands.say("jobs", "\n".join(lines) + "\n")
    found = scrape(SlurmCollector(commands.door, most_labels=10))
    users = {labels: n for (name, labels), n in found.items() if name == "slurm_user_jobs_running"}
    assert len(users) == 11
    assert sum(users.values()) == 53
    assert users[("user", "u7"),] == 4
    assert users[("user", "other"),] == 40
    assert value(found, "slurm_exporter_labels_dropped", kind="user") == 40
    assert value(found, "slurm_exporter_labels_dropped", kind="account") == 0


def test_reasons_beyond_the_limit_are_other(commands: StandIns) -> None:
    lines = [
        SEPARATOR.join((str(i), "u", "acc", "eco", "PENDING", "1", "5", "N/A", "", f"Why{i}"))
        for i in range(80)
    ]
    commands.say("jobs", "\n".join(lines) + "\n")
    found = scrape(SlurmCollector(commands.door))
    reasons = [n for (name, _), n in found.items() if name == "slurm_pending_jobs"]
    assert (len(reasons), sum(reasons)) == (51, 80)


def test_an_empty_cluster_is_up(commands: StandIns) -> None:
    commands.say("jobs", "")
    commands.say("nodes", "No nodes in the system\n")
    found = scrape(SlurmCollector(commands.door))
    assert value(found, "slurm_up") == 1
    assert value(found, "slurm_queue_running") == 0
    assert value(found, "slurm_gpus_total") == 0
    assert "slurm_gpus_utilization" not in names(found)


def test_a_command_that_cannot_be_run_is_a_failure_as_others(commands: StandIns) -> None:
    (commands.folder / "squeue").chmod(0o644)
    found = scrape(SlurmCollector(commands.door))
    assert value(found, "slurm_up") == 0
    assert value(found, "slurm_exporter_command_failures_total", command="jobs") == 1


def test_sixty_thousand_jobs_fit_into_the_memory(commands: StandIns) -> None:
    line = SEPARATOR.join(
        ("12345_{}", "anna", "landsat", "eco", "RUNNING", "4", "5", "6", "eco-dy-n8c32g-1", "None")
    )
    commands.say("jobs", "\n".join(line.format(i) for i in range(60_000)) + "\n")
    collector = SlurmCollector(commands.door)
    tracemalloc.start()
    try:
        assert value(scrape(collector), "slurm_queue_running") == 60_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # On top of some 30 MB of the interpreter; the aim for the process is 100.
    assert peak < 60_000_000


def test_a_clock_that_goes_back_does_not_freeze_the_figures(commands: StandIns) -> None:
    clock = Clock()
    collector = SlurmCollector(commands.door, clock=clock)
    scrape(collector)
    clock.now -= 500
    scrape(collector)
    assert len(commands.calls()) == 6


def test_no_figure_is_negative_when_the_wall_clock_jumps(
    commands: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    collector = SlurmCollector(commands.door, clock=clock)
    for wall in (1795389827.0, 1795300000.0, 1895389827.0, 0.0):
        monkeypatch.setattr(time, "time", lambda wall=wall: wall)
        clock.now += 15
        collector.poll()
        found = scrape(collector)
        assert value(found, "slurm_up") == 1
        assert [key for key, sample in found.items() if sample < 0] == []


def test_the_wait_of_a_job_is_counted_once_and_again_when_it_is_requeued() -> None:
    waits = WaitTimes(since=100)
    job = Job("7", "eco", submitted=100, started=145)
    waits.add([job, Job("6", "eco", submitted=20, started=99)])
    waits.add([job])
    waits.add([job._replace(started=8000)])
    samples = {
        (sample.name, sample.labels.get("le")): sample.value for sample in waits.family().samples
    }
    assert samples["slurm_job_wait_seconds_count", None] == 2
    assert samples["slurm_job_wait_seconds_sum", None] == 45 + 7900
    assert samples["slurm_job_wait_seconds_bucket", "30.0"] == 0
    assert samples["slurm_job_wait_seconds_bucket", "60.0"] == 1


def test_a_job_that_ended_counts_once(commands: StandIns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1795389455.0)
    ended = EndedJobs(most_users=1)
    first = ended.read(commands.door, 5)
    assert first.by_state == {
        ("eco", "COMPLETED"): 4,
        ("eco", "FAILED"): 1,
        ("eco", "CANCELLED"): 1,
        ("spot", "FAILED"): 1,
    }
    assert first.allocated_seconds["eco", "root"] == 601
    assert first.used_seconds["eco", "root"] == pytest.approx(0.065 + 0.001 + 0.002 * 2 + 0.001)
    again = ended.read(commands.door, 5)
    assert again == first
    text = read_recorded("22.05", "accounting").replace("root", "anna").replace("1795", "1796")
    commands.say("accounting", text)
    later = ended.read(commands.door, 5)
    assert later.by_state["eco", "COMPLETED"] == 8
    # The second user is over the limit.
    assert {user for _, user in later.allocated_seconds} == {"root", "other"}


def test_what_ended_before_the_exporter_started_does_not_count(commands: StandIns) -> None:
    assert EndedJobs(most_users=9).read(commands.door, 5).by_state == {}


def test_once_prints_a_scrape(
    commands: StandIns, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", f"{commands.folder}:/usr/bin:/bin")
    assert main(["observe", "exporter", "slurm", "--once"]) == 0
    found = parse(capsys.readouterr().out)
    assert value(found, "slurm_up") == 1
    assert value(found, "slurm_accounting_up") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["--listen", "9341"],
        ["--listen", "127.0.0.1:x"],
        ["--listen", "127.0.0.1:70000"],
        ["--refresh-seconds", "0"],
        ["--timeout-seconds", "-1"],
        ["--most-users", "0"],
    ],
)
def test_arguments_that_cannot_be_are_refused(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["observe", "exporter", "slurm", *words]) == 2
    assert words[0] in capsys.readouterr().err


class Serving:
    """A server of one collector on a free port."""

    def __init__(self, collector: SlurmCollector) -> None:
        registry = CollectorRegistry()
        registry.register(collector)
        self.server = MetricsServer(("127.0.0.1", 0), registry)

    def __enter__(self) -> int:
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self.server.port

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def fetch(port: int, accept: str = "") -> str:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept} if accept else {}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - loopback
        return str(answer.read().decode())


def test_openmetrics_is_served_to_who_asks_for_it(commands: StandIns) -> None:
    with Serving(SlurmCollector(commands.door)) as port:
        text = fetch(port, "application/openmetrics-text; version=1.0.0")
    assert text.endswith("# EOF\n")
    assert "slurm_up 1.0\n" in text


def test_a_port_that_is_taken_is_told(
    commands: StandIns, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", f"{commands.folder}:/usr/bin:/bin")
    with Serving(SlurmCollector(commands.door)) as port:
        assert main(["observe", "exporter", "slurm", "--listen", f"127.0.0.1:{port}"]) == 2
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err


class Exporter:
    """The command as a process of its own, on a port."""

    def __init__(self, commands: StandIns, port: int = 0) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "clusterbox.cli.main", "observe", "exporter", "slurm"),
                *("--listen", f"127.0.0.1:{port}"),
            ],
            env={**os.environ, "PATH": f"{commands.folder}:/usr/bin:/bin"},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        self.port = int(line.rpartition("/metrics")[0].rpartition(":")[2])

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=30)
        assert said == ""
        return self.process.returncode


@pytest.fixture
def started(commands: StandIns) -> Iterator[list[Exporter]]:
    exporters: list[Exporter] = []
    yield exporters
    for exporter in exporters:
        exporter.process.kill()
        exporter.process.wait()


def test_sigterm_ends_it(commands: StandIns, started: list[Exporter]) -> None:
    started.append(Exporter(commands))
    assert "slurm_up 1.0" in fetch(started[0].port)
    assert started[0].end(signal.SIGTERM) == 0


def test_one_that_was_killed_in_a_scrape_is_started_again_on_its_port(
    commands: StandIns, started: list[Exporter]
) -> None:
    going = commands.folder / "going"
    commands.write("squeue", f"touch {going}; exec sleep 3")
    started.append(Exporter(commands))
    with ThreadPoolExecutor(1) as pool:
        scraped = pool.submit(fetch, started[0].port)
        while not going.exists():
            time.sleep(0.02)
        started[0].end(signal.SIGKILL)
        with pytest.raises(ConnectionError):
            scraped.result(timeout=30)
    commands.write("squeue", f'cat "{commands.folder}/jobs"')
    started.append(Exporter(commands, started[0].port))
    assert "slurm_queue_running 6.0" in fetch(started[0].port)
