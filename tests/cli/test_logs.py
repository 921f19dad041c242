"""`clusterbox logs` and `diagnose` against the embedded account, with streams as ParallelCluster's."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clusterbox.cli.logs import parse_when
from clusterbox.cli.main import main
from clusterbox.deployment.targets import EmbeddedTarget, start_embedded, state_folder
from clusterbox.embedded.account import EmbeddedAccount
from clusterbox.errors import InputError
from clusterbox.site.load import Repository
from tests.conftest import ROOT
from tests.deployment.conftest import copy_repository
from tests.observe.log_world import HEAD, LINES, NODE, TEN

CLUSTER = "ws-eco"
GROUP = f"/aws/parallelcluster/{CLUSTER}-202611201200"
AT_TEN = ("--since", "2026-11-22T10:00", "--until", "2026-11-22T11:00")
Run = Callable[..., tuple[int, str, str]]


def test_times_are_spans_before_now_or_moments_in_utc() -> None:
    assert parse_when("2h", 10_000.0) == 2_800
    assert parse_when("2026-11-22T10:00", 0) == TEN
    assert parse_when("2026-11-22T11:00+01:00", 0) == TEN
    with pytest.raises(InputError, match="'yesterday' is no time: give 30m, 12h, 2d"):
        parse_when("yesterday", 0)


@pytest.fixture(scope="module")
def copy(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = copy_repository(root, tmp_path_factory.mktemp("logs") / "copy")
    yield folder
    EmbeddedAccount.stop(state_folder(folder, "ws-dev"))


@pytest.fixture(scope="module")
def target(copy: Path) -> EmbeddedTarget:
    """The embedded account with a cluster's log group, an older one, and a neighbour's."""
    started = start_embedded(copy, Repository(copy).load_environment("ws-dev"))
    logs = started.client("logs")
    for group in (GROUP, GROUP.replace("202611", "202510"), f"{GROUP[:-13]}-2-202611211200"):
        logs.create_log_group(logGroupName=group)
    streams: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for after, stream, message in LINES:
        streams[stream].append((TEN + after, message))
    streams[f"{NODE}.bootstrap_error_msg"].append((TEN + 800, "mount.nfs4: Connection timed out"))
    streams[f"{HEAD}.slurmctld"].append((TEN + 950, "[x] error: \x1b[2Jof a bad name\nsecond line"))
    for stream, events in streams.items():
        logs.create_log_stream(logGroupName=GROUP, logStreamName=stream)
        logs.put_log_events(
            logGroupName=GROUP,
            logStreamName=stream,
            logEvents=[{"timestamp": round(at * 1000), "message": text} for at, text in events],
        )
    return started


@pytest.fixture
def run(copy: Path, target: EmbeddedTarget, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: str) -> tuple[int, str, str]:
        code = main(["--root", str(copy), *words])
        out, err = capsys.readouterr()
        return code, out, err

    return call


pytestmark = pytest.mark.integration


def test_the_head_nodes_daemons_are_merged_by_time_and_plain_in_a_pipe(run: Run) -> None:
    code, out, err = run("logs", CLUSTER, *AT_TEN, "--grep", "Allocate|mount")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "2026-11-22T10:00:02.000Z head slurmctld: [2026-11-22T10:00:02.000] sched: Allocate JobId=7 "
        "NodeList=eco-dy-n8c32g-1 #CPUs=8 Partition=eco",
        "2026-11-22T10:00:02.500Z head slurmctld: [2026-11-22T10:00:02.500] sched: Allocate JobId=77 "
        "NodeList=eco-dy-n8c32g-12 #CPUs=8 Partition=eco",
        "2026-11-22T10:13:20.000Z ip-10-0-0-21 bootstrap_error_msg: mount.nfs4: Connection timed out",
    ]


def test_a_log_cannot_steer_a_terminal_and_its_lines_stay_together(run: Run) -> None:
    _, out, _ = run("logs", CLUSTER, *AT_TEN, "--grep", "bad name")
    assert out == (
        "2026-11-22T10:15:50.000Z head slurmctld: [x] error: [2Jof a bad name\n    second line\n"
    )


def test_a_job_is_shown_on_its_node_by_name_as_json(run: Run) -> None:
    code, out, err = run(
        "logs", CLUSTER, *AT_TEN, "--job", "7", "--format", "json", "--stream", "slurmd"
    )
    assert code == 0
    assert [json.loads(line) for line in out.splitlines()] == [
        {
            "time": "2026-11-22T10:01:30.000Z",
            "node": "eco-dy-n8c32g-1",
            "role": "compute",
            "host": "ip-10-0-0-21",
            "instance": "i-0bbbbbbbbbbbbbbb1",
            "stream": "slurmd",
            "message": "[2026-11-22T10:01:30.000] launch task StepId=7.0 request",
        }
    ]
    assert "job 7: read from slurmctld's log" in err


def test_the_streams_are_listed_with_their_nodes(run: Run) -> None:
    code, out, _ = run("logs", CLUSTER, *AT_TEN, "--list", "--format", "csv", "--stream", "slurmd")
    assert code == 0
    assert out.splitlines() == [
        "node,role,instance,stream,last_event,what",
        "eco-dy-n8c32g-1,compute,i-0bbbbbbbbbbbbbbb1,slurmd,2026-11-22T10:15:00.000Z,"
        "Slurm's daemon of a compute node",
        "eco-dy-n8c32g-12,compute,i-0ccccccccccccccc1,slurmd,2026-11-22T10:01:31.000Z,"
        "Slurm's daemon of a compute node",
    ]


def test_a_diagnosis_says_what_it_means_and_the_next_step(run: Run) -> None:
    code, out, err = run("diagnose", CLUSTER, *AT_TEN)
    assert (code, err) == (0, "")
    assert out.startswith(
        "1. error, 2026-11-22T10:13:20.000Z\n"
        "   a file system cannot be mounted: Connection timed out\n"
        "   nodes: eco-dy-n8c32g-1\n"
        "   seen:  mount.nfs4: Connection timed out\n"
        "   next:  Timed out: security groups must allow NFS (2049) from the node"
    )
    code, out, _ = run("diagnose", CLUSTER, *AT_TEN, "--format", "json")
    (finding,) = json.loads(out)
    assert (finding["severity"], finding["count"], finding["nodes"]) == (
        "error",
        1,
        "eco-dy-n8c32g-1",
    )


def test_a_time_without_failures_says_so(run: Run) -> None:
    code, out, err = run("diagnose", CLUSTER, "--since", "30s")
    assert (code, out) == (0, "nothing known was found in the logs\n")
    assert err.startswith("clusterbox: Slurm was not asked")


def test_metric_filters_are_made_and_can_be_made_again(run: Run, target: EmbeddedTarget) -> None:
    for _ in range(2):
        code, out, _ = run("logs", CLUSTER, "--metric-filters")
        assert code == 0
        assert out.splitlines()[0] == "Clusterbox/Logs ws-eco/SlurmErrors"
    made = target.client("logs").describe_metric_filters(logGroupName=GROUP)["metricFilters"]
    assert sorted(one["filterName"] for one in made) == [
        "clusterbox-BootstrapErrors",
        "clusterbox-PluginErrors",
        "clusterbox-ProtectedMode",
        "clusterbox-SlurmErrors",
        "clusterbox-SlurmFatals",
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("logs", "nowhere"), "there is no cluster nowhere"),
        (("logs", CLUSTER, "--stream", "nonsense"), "no stream nonsense in"),
        (("logs", CLUSTER, "--job", "7;reboot"), "a job's id is a number"),
        (("logs", CLUSTER, "--grep", "("), "--grep '('"),
        (("logs", CLUSTER, "--format", "csv"), "--format csv is for --list"),
        (("logs", CLUSTER, "--follow", "--until", "1h"), "--follow has no end"),
        (("logs", CLUSTER, "--job", "7", "--node", "head"), "leave --node out"),
        (("diagnose", CLUSTER, "--since", "1h", "--until", "2h"), "is not before --until"),
    ],
)
def test_bad_input_says_what_is_wrong(words: tuple[str, ...], says: str, run: Run) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert says in err


def test_following_shows_what_comes_and_ends_with_ctrl_c(
    copy: Path, target: EmbeddedTarget
) -> None:
    words = ("logs", CLUSTER, "--follow", "--stream", "clustermgtd", "--format", "json")
    process = subprocess.Popen(
        [sys.executable, "-m", "clusterbox.cli.main", "--root", str(copy), *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    # A command that shows nothing must not hold the tests up.
    limit = threading.Timer(60, process.kill)
    limit.start()
    try:
        assert process.stdout is not None
        for message in ("first", "second"):
            target.client("logs").put_log_events(
                logGroupName=GROUP,
                logStreamName=f"{HEAD}.clustermgtd",
                logEvents=[{"timestamp": int(time.time() * 1000), "message": message}],
            )
            assert json.loads(process.stdout.readline())["message"] == message
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
    finally:
        limit.cancel()
        process.kill()
        process.communicate()


def test_what_is_written_now_is_shown_within_the_last_hour(
    run: Run, target: EmbeddedTarget
) -> None:
    target.client("logs").put_log_events(
        logGroupName=GROUP,
        logStreamName=f"{HEAD}.clustermgtd",
        logEvents=[{"timestamp": int(time.time() * 1000), "message": "of now"}],
    )
    code, out, _ = run("logs", CLUSTER)
    assert code == 0
    assert out.endswith("Z head clustermgtd: of now\n")
    assert "Allocate" not in out  # That was earlier.
