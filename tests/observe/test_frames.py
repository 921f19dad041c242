"""Frames: documented, typed, and in agreement with what Slurm's own commands say."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from clusterbox.errors import InputError
from clusterbox.observe import frames
from clusterbox.observe.frame_columns import COLUMNS
from clusterbox.observe.frames import Sources
from clusterbox.observe.frames_slurm import parse_rows
from clusterbox.observe.prometheus import Prometheus
from clusterbox.slurm import Slurm, SlurmError
from tests.conftest import ROOT
from tests.observe.watched import CLUSTER, NODE, Watched, needs_prometheus
from tests.slurm_cluster import wait_for

pandas = pytest.importorskip("pandas")
NAMES = tuple(COLUMNS)
_KINDS = (
    ("-p", "eco", "-H"),
    ("-p", "spot", "-H", "--array=1-7:2"),
    ("-p", "eco", "--begin=now+1hour"),
    ("-p", "eco", "-H", "--array=0-300%3"),
    ("-p", "spot", "-H", "--time=7"),
    ("-p", "eco", "-H", "-n", "4", "--job-name=a|b c"),
)


def _line(*cells: str) -> str:
    return "\x1f".join(cells)


def test_a_job_has_the_most_memory_of_its_steps() -> None:
    job = _line(
        *(
            "7",
            "ann",
            "usgs",
            "eco",
            "COMPLETED",
            "0:0",
            "100",
            "130",
            "230",
            "100",
            "10",
            "1",
            "4",
        ),
        *("billing=4,cpu=4,mem=1.5G,node=1", "03:20", "", "a|name"),
    )
    steps = [_line("7.batch", *[""] * 14, size, "batch") for size in ("1000K", "2M", "")]
    (row,) = parse_rows("\n".join([job, *steps, ""]))
    assert (row.memory_used_bytes, row.memory_bytes) == (2 * 2**20, 3 * 2**29)
    assert (row.cpu_seconds, row.cpu_used_seconds, row.limit_seconds) == (400.0, 200.0, 600)
    assert (row.name, row.count) == ("a|name", 1)


def test_a_job_that_never_ran_has_no_cpus_and_no_wait() -> None:
    text = _line(
        *("8_[1-50%2]", "ann", "usgs", "eco", "PENDING", "0:0", "100", "Unknown", "Unknown", "0"),
        *("Partition_Limit", "1", "4", "", "00:00:00", "", "x"),
    )
    (row,) = parse_rows(text)
    assert (row.count, row.cpus, row.nodes, row.started, row.limit_seconds) == (
        50,
        0,
        0,
        None,
        None,
    )
    assert row.cpu_used_seconds is None


@pytest.mark.parametrize("text", ["nonsense", _line(*["x"] * 17)])
def test_what_sacct_would_not_print_is_refused(text: str) -> None:
    with pytest.raises(SlurmError):
        list(parse_rows(text))


def test_hours_outside_of_the_span_do_not_count() -> None:
    text = _line(
        *(
            "7",
            "ann",
            "usgs",
            "eco",
            "COMPLETED",
            "0:0",
            "100",
            "130",
            "230",
            "100",
            "10",
            "1",
            "4",
        ),
        *("", "03:20", "", "x"),
    )
    (row,) = parse_rows(text)
    assert row.seconds_within(0, 1000) == 100
    assert row.seconds_within(200, 1000) == 30
    assert row.seconds_within(0, 140) == 10
    assert row.seconds_within(500, 1000) == 0


@pytest.mark.parametrize(
    ("since", "start"), [("90m", 4_600), ("2.5h", 1_000), ("1000s", 9_000), (5.0, 5.0)]
)
def test_spans_are_before_now(since: str | float, start: float) -> None:
    assert frames.parse_since(since, 10_000) == start


@pytest.mark.parametrize("since", ["24", "h", "-1h", "0h", "1y", "", 20_000.0, "4h"])
def test_other_spans_are_refused(since: str | float) -> None:
    with pytest.raises(InputError):
        frames.parse_since(since, 10_000)


def test_no_source_is_bad_input() -> None:
    with pytest.raises(InputError, match="a Slurm or a Prometheus"):
        frames.jobs(sources=Sources())
    with pytest.raises(InputError, match="PromQL"):
        frames.query("up", sources=Sources(slurm=Slurm()))


def test_the_documentation_has_every_column() -> None:
    page = (ROOT / "docs" / "observability-frames.md").read_text(encoding="utf-8")
    for name, columns in COLUMNS.items():
        _, found, rest = page.partition(f"<!-- frame: {name} -->\n\n")
        assert found, name
        rows = rest.partition("\n\n")[0].splitlines()[2:]
        assert rows == [
            f"| `{c.name}` | {c.type} | {c.unit} | {c.meaning} | {c.source} |" for c in columns
        ], name


class TestReal:
    pytestmark = needs_prometheus

    @pytest.fixture(params=["slurm", "prometheus", "both"])
    def sources(self, request: pytest.FixtureRequest, watched: Watched) -> Sources:
        slurm = watched.slurm.door if request.param != "prometheus" else None
        return Sources(slurm, watched.prometheus if request.param != "slurm" else None, CLUSTER)

    @pytest.mark.parametrize("name", NAMES)
    def test_every_frame_has_its_columns_and_types(
        self, name: str, sources: Sources, watched: Watched
    ) -> None:
        frame = getattr(frames, name)(since=watched.since, sources=sources)
        assert len(frame)
        assert {c: str(t) for c, t in frame.dtypes.items()} == {
            column.name: column.type for column in COLUMNS[name]
        }
        missing = {
            column.name
            for column in COLUMNS[name]
            if (column.source == "slurm" and sources.slurm is None)
            or (column.source == "prometheus" and sources.prometheus is None)
        }
        known = {column for column in frame.columns if frame[column].notna().any()}
        assert not known & missing
        told = set(re.findall(r"\w+", " ".join(frame.attrs["notes"])))
        assert missing <= told
        # What either source gives is there with each of them.
        either = {column.name for column in COLUMNS[name] if column.source == "either"}
        if sources.slurm is None or name != "costs":
            assert either - known - {"wait_median_seconds", "wait_p95_seconds"} == set()

    def test_jobs_that_ran_are_those_of_sacct(self, watched: Watched) -> None:
        ours, said = _ran(watched)
        assert len(said) >= 6
        assert ours == said

    # Jobs of each kind wait, or have been cancelled before they ran.
    @settings(
        max_examples=5,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(st.lists(st.tuples(st.sampled_from(_KINDS), st.booleans()), min_size=1, max_size=6))
    def test_jobs_agree_with_sacct_and_squeue(
        self, watched: Watched, mix: list[tuple[tuple[str, ...], bool]]
    ) -> None:
        door = watched.slurm.door
        sent = [door.submit("true", "--mem=10", *options) for options, _ in mix]
        try:
            if gone := [
                job for job, (_, is_cancelled) in zip(sent, mix, strict=True) if is_cancelled
            ]:
                door.cancel(*gone)

            # slurmdbd learns of it a moment later, and time does not stand still for others.
            def agree() -> bool | None:
                ours, said = _ran(watched)
                return (ours == said and _waits(watched)) or None

            wait_for("frames as Slurm's commands say", agree, 20)
        finally:
            door.cancel(*sent)

    def test_a_busy_job_used_its_cpu(self, watched: Watched) -> None:
        frame = frames.jobs(since=watched.since, sources=_slurm(watched)).set_index("job")
        job = frame.loc[watched.jobs["busy"]]
        assert job["state"] == "COMPLETED"
        assert job["limit_seconds"] == 600
        assert job["cpu_used_seconds"] > 0.1
        assert job["cpu_efficiency"] == job["cpu_used_seconds"] / job["cpu_seconds"]
        assert job["memory_bytes"] == 100 * 2**20
        assert (job["ended"] - job["started"]).total_seconds() == job["elapsed_seconds"]
        assert pandas.isna(frame.loc[watched.jobs["running"], "ended"])
        assert frame.loc[watched.jobs["failed"], "exit_code"] == "3:0"

    def test_nodes_are_those_of_sinfo(self, watched: Watched) -> None:
        frame = frames.nodes(since="5m", sources=_both(watched)).set_index("node")
        text = watched.slurm.door.run("sinfo", "-a", "-h", "-N", "-o", "%N|%C|%m")
        said = {row[0]: row for row in (line.split("|") for line in text.splitlines())}
        assert set(frame.index) == set(said)
        for name, (_, cpus, memory) in said.items():
            alloc, *_, total = (int(count) for count in cpus.split("/"))
            assert (frame.loc[name, "cpus"], frame.loc[name, "cpus_allocated"]) == (total, alloc)
            assert frame.loc[name, "memory_bytes"] == int(memory) * 2**20
        assert frame.loc[NODE, "state"] == "drain"
        assert frame.loc[NODE, "reason"] == "disk"
        assert frame["memory_busy"].dropna().between(0, 1).all()
        assert frame["memory_busy"].count() == 1

    def test_both_sources_tell_the_same_now(self, watched: Watched) -> None:
        slurm, prometheus = _slurm(watched), Sources(None, watched.prometheus, CLUSTER)

        def agree() -> bool | None:
            pairs = [
                (frames.users, "user", ["running", "waiting", "cpus"]),
                (frames.queues, "queue", ["running", "waiting", "cpus", "nodes_most"]),
            ]
            for make, key, columns in pairs:
                one = make(since="5m", sources=slurm).set_index(key)[columns]
                two = make(since="5m", sources=prometheus).set_index(key)[columns]
                if not one.equals(two):
                    return None
            return True

        # A scrape is a second old.
        wait_for("both sources tell the same", agree, 20)

    def test_costs_are_those_of_the_metrics(self, watched: Watched) -> None:
        everything = Sources(None, watched.prometheus)
        frame = frames.costs(since="1h", sources=everything).set_index("cluster")
        assert frame.loc[CLUSTER, "usd_per_hour"] == 3.25
        assert frame.loc["ws-other", "usd_month"] == 190
        # A minute or two of USD 3.25 an hour, and not an hour of it.
        assert frame["usd"].between(0.001, 3.25 / 4).all()
        assert set(frames.costs(sources=_both(watched))["cluster"]) == {CLUSTER}

    def test_an_expression_is_a_frame(self, watched: Watched) -> None:
        sources = Sources(None, watched.prometheus)
        now = frames.query("slurm_up", sources=sources)
        assert list(now.columns) == ["time", "cluster", "instance", "job", "value"]
        assert now.dtypes.astype(str).to_dict() == {
            "time": "datetime64[us, UTC]",
            **dict.fromkeys(("cluster", "instance", "job"), "string"),
            "value": "Float64",
        }
        over = frames.query("slurm_up", since="10s", step_seconds=1, sources=sources)
        assert len(over) > 3
        assert over["time"].is_monotonic_increasing
        assert frames.query("none_such", sources=sources).empty
        with pytest.raises(InputError, match="cannot read"):
            frames.query("sum(", sources=sources)
        with pytest.raises(InputError, match="steps of 1 s"):
            frames.query("up", since="7d", step_seconds=1, sources=sources)


def _ran(watched: Watched) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Return jobs that do not wait: those of the frame, and of sacct in another format."""
    frame = frames.jobs(since="1h", sources=_slurm(watched))
    text = watched.slurm.door.run(
        *("sacct", "-a", "-X", "-D", "-n", "-P", "-S", "now-1hour", "-E", "now"),
        "--format=JobID,State,ExitCode,AllocCPUS,Partition,User,Start",
    )
    said = []
    for line in text.splitlines():
        ident, state, code, cpus, queue, user, start = line.split("|")
        if state != "PENDING":
            # CPUs of a job that never ran are those that it would have had.
            cpus = "0" if start in ("None", "Unknown") else cpus
            said.append((ident, state.split(" ")[0], code, cpus, queue, user))
    ran = frame[frame["state"] != "PENDING"].astype("string")
    columns = ("job", "state", "exit_code", "cpus", "queue", "user")
    return sorted(zip(*(ran[column] for column in columns), strict=True)), sorted(said)


def _waits(watched: Watched) -> bool:
    """Return whether frames count what squeue lists with a line for each task."""
    door, sources = watched.slurm.door, _slurm(watched)
    frame = frames.jobs(since="1h", sources=sources)
    queue = frames.queues(since="1h", sources=sources).set_index("queue")
    user = frames.users(since="1h", sources=sources).set_index("user")

    def count(*words: str) -> int:
        return len(door.run("squeue", "-a", "-r", "-h", "-o", "%A", *words).split())

    pairs: list[tuple[Any, int]] = [
        (frame.loc[frame["state"] == "PENDING", "jobs"].sum(), count("-t", "PENDING"))
    ]
    # The database calls a job RUNNING whose nodes boot.
    pairs.append(((frame["state"] == "RUNNING").sum(), count("-t", "RUNNING,CONFIGURING")))
    for name in ("eco", "spot"):
        pairs.append((queue.loc[name, "waiting"], count("-t", "PENDING", "-p", name)))
        pairs.append((queue.loc[name, "running"], count("-t", "RUNNING", "-p", name)))
    pairs.append((user.loc["root", "waiting"], count("-t", "PENDING", "-u", "root")))
    return all(one == other for one, other in pairs)


def _slurm(watched: Watched) -> Sources:
    return Sources(watched.slurm.door, None, CLUSTER)


def _both(watched: Watched) -> Sources:
    return Sources(watched.slurm.door, watched.prometheus, CLUSTER)


def test_without_a_name_rows_have_that_of_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Slurm):
        def run(self, *words: str, **_: Any) -> str:
            if words[:3] == ("scontrol", "show", "config"):
                return "ClusterName = parallelcluster\n"
            return ""

    frame = frames.jobs(sources=Sources(Silent()))
    assert frame.empty
    assert list(frame.columns) == [column.name for column in COLUMNS["jobs"]]


def test_a_name_cannot_end_the_selector() -> None:
    case = frames._Case(None, Prometheus(), 'a"} or up{b="', 0, 1, "jobs")
    assert case.selector == 'cluster="a\\"} or up{b=\\""'
