from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from itertools import islice

import pytest

from clusterbox.cli.logs import _text
from clusterbox.errors import ClusterboxError, InputError
from clusterbox.observe.log_doors import HeadNodeSlurm
from clusterbox.observe.log_events import LogEvent, LogReader, LogsDeniedError
from clusterbox.observe.log_nodes import find_instances, job_from_slurm, parse_launches
from clusterbox.observe.log_streams import Stream, newest_group, parse_stream, roles
from clusterbox.observe.log_view import Asked, View, make_view, show
from clusterbox.slurm import SlurmError
from tests.observe.log_world import GROUP, HEAD, LAUNCHED, NODE, TEN, FakeLogs, a_cluster, refusal


class FakeSlurm:
    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = answers

    def run(self, *words: str) -> str:
        if words[0] not in self.answers:
            raise SlurmError(f"`{words[0]}` failed")
        return self.answers[words[0]]


def reader(logs: FakeLogs, pauses: list[float] | None = None) -> LogReader:
    waited = [] if pauses is None else pauses
    return LogReader(logs, waited.append, lambda: TEN + 1000 + sum(waited))


def view(logs: FakeLogs, slurm: FakeSlurm | None = None, **asked: object) -> View:
    found = reader(logs)
    return make_view(
        found,
        GROUP,
        found.fetch_streams(GROUP),
        Asked(**asked),  # type: ignore[arg-type]
        default_since=TEN,
        slurm=lambda: slurm,
    )


def shown(logs: FakeLogs, of: View) -> list[tuple[str, float]]:
    return [(event.stream.kind, event.at - TEN) for event in show(reader(logs), GROUP, of)]


def test_the_newest_group_of_exactly_this_cluster_is_taken() -> None:
    names = [
        "/aws/parallelcluster/eco-202601010000",
        "/aws/parallelcluster/eco-202611201200",
        "/aws/parallelcluster/eco-2-202612312359",
        "/aws/parallelcluster/eco-old-202612312359",
        "/aws/parallelcluster/eco-202699999999",
        "/aws/parallelcluster/eco-99991111",
    ]
    found = newest_group(names, "eco")
    assert found is not None
    assert found.name == "/aws/parallelcluster/eco-202611201200"
    assert found.created.isoformat() == "2026-11-20T12:00:00+00:00"
    assert newest_group(["/aws/parallelcluster/eco-2-202612312359"], "eco") is None


def test_groups_of_all_pages_are_seen_and_none_says_why() -> None:
    logs = FakeLogs([f"/aws/parallelcluster/eco-2026{month:02}010000" for month in range(1, 8)])
    assert reader(logs).find_group("eco").name == "/aws/parallelcluster/eco-202607010000"
    with pytest.raises(
        ClusterboxError, match=r"no log group /aws/parallelcluster/eco-TIME.*Enabled: false"
    ):
        reader(FakeLogs([])).find_group("eco")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (f"{HEAD}.slurmctld", "slurmctld"),
        (f"{HEAD}.cloud-init-output", "cloud-init-output"),
        (f"{HEAD}.slurm_health_check_events", "slurm_health_check_events"),
    ],
)
def test_a_streams_name_has_host_instance_and_kind(name: str, kind: str) -> None:
    stream = parse_stream(name)
    assert stream is not None
    assert (stream.host, stream.instance, stream.kind) == (
        "ip-10-0-0-10", "i-0aaaaaaaaaaaaaaa1", kind,
    )  # fmt: skip
    assert parse_stream("some-lambda/2026/11/22/[$LATEST]abc") is None


def test_roles_come_from_the_kinds_of_an_instances_streams() -> None:
    login = [Stream("", "ip-10-0-0-9", "i-0dddddddd", kind) for kind in ("chef-client", "cfn-init")]
    assert set(roles([*reader(a_cluster()).fetch_streams(GROUP), *login]).items()) == {
        ("i-0aaaaaaaaaaaaaaa1", "head"),
        ("i-0bbbbbbbbbbbbbbb1", "compute"),
        ("i-0ccccccccccccccc1", "compute"),
        ("i-0dddddddd", "login"),
    }


def test_events_of_many_pages_and_more_than_a_hundred_streams_come_in_order() -> None:
    logs = FakeLogs(page=7)
    for at in range(250):
        logs.put(f"ip-10-0-{at}-1.i-{at:08x}.slurmd", TEN + (at * 37) % 250, f"line {at}")
    found = reader(logs)
    events = list(found.fetch_events(GROUP, found.fetch_streams(GROUP), TEN, TEN + 1000))
    assert [event.at - TEN for event in events] == list(range(250))
    asked = [words["logStreamNames"] for name, words in logs.calls if name == "filter_log_events"]
    assert {len(names) for names in asked} == {100, 50}


def test_only_the_first_pages_are_asked_for_when_only_the_first_events_are_read() -> None:
    logs = FakeLogs(page=1)
    for at in range(1000):
        logs.put(f"{HEAD}.slurmctld", TEN + at, "line")
    found = reader(logs)
    streams = found.fetch_streams(GROUP)
    logs.calls.clear()
    assert len(list(islice(found.fetch_events(GROUP, streams, TEN), 3))) == 3
    assert len(logs.calls) == 5  # Three pages of one event, and two empty ones between them.


def test_throttling_is_waited_out_with_growing_pauses() -> None:
    logs = a_cluster()
    logs.refusals = [refusal("ThrottlingException")] * 4
    pauses: list[float] = []
    assert len(reader(logs, pauses).fetch_streams(GROUP)) == 6
    assert pauses == [1, 2, 4, 8]


def test_endless_throttling_ends_with_what_to_do() -> None:
    logs = a_cluster()
    logs.refusals = [refusal("ThrottlingException")] * 100
    with pytest.raises(
        ClusterboxError, match="throttled logs:DescribeLogStreams 8 times: ask for less"
    ):
        reader(logs).fetch_streams(GROUP)


def test_a_denied_call_names_the_permission_and_is_not_tried_again() -> None:
    logs = a_cluster()
    logs.refusals = [refusal("AccessDeniedException")]
    streams = [stream for name in logs.events if (stream := parse_stream(name))]
    with pytest.raises(LogsDeniedError, match=rf"{GROUP}: .*allow logs:FilterLogEvents on it"):
        list(reader(logs).fetch_events(GROUP, streams, TEN))
    assert len(logs.calls) == 1


def test_expired_credentials_are_bad_input() -> None:
    logs = a_cluster()
    logs.refusals = [refusal("ExpiredTokenException")]
    with pytest.raises(InputError, match="Sign in again"):
        reader(logs).find_group("eco")


def test_launches_tell_which_instance_a_node_ran_on() -> None:
    stream = Stream("", "", "", "slurm_resume")
    later = LAUNCHED.replace("i-0bbbbbbbbbbbbbbb1", "i-0eeeeeeeeeeeeeee1")
    assert parse_launches([LogEvent(1, stream, LAUNCHED), LogEvent(2, stream, later)]) == {
        "eco-dy-n8c32g-1": ["i-0bbbbbbbbbbbbbbb1", "i-0eeeeeeeeeeeeeee1"],
        "eco-dy-n8c32g-12": ["i-0ccccccccccccccc1", "i-0ccccccccccccccc1"],
    }


@pytest.mark.parametrize(
    ("wanted", "instances"),
    [
        ("head", ["i-0aaaaaaaaaaaaaaa1"]),
        ("eco-dy-n8c32g-1", ["i-0bbbbbbbbbbbbbbb1"]),
        ("eco-dy-n8c32g-[1,12]", ["i-0bbbbbbbbbbbbbbb1", "i-0ccccccccccccccc1"]),
        ("ip-10-0-0-22", ["i-0ccccccccccccccc1"]),
        ("ip-10-0-0-22.ec2.internal", ["i-0ccccccccccccccc1"]),
        ("i-0fffffffff", ["i-0fffffffff"]),
        ("eco-dy-n8c32g-3", []),
    ],
)
def test_a_node_is_named_in_many_ways(wanted: str, instances: list[str]) -> None:
    streams = reader(a_cluster()).fetch_streams(GROUP)
    launches = parse_launches([LogEvent(1, streams[0], LAUNCHED)])
    assert find_instances(wanted, streams, launches) == instances


def test_by_default_the_head_nodes_daemons_are_shown_and_no_compute_node() -> None:
    assert [kind for kind, _ in shown(a_cluster(), view(a_cluster()))] == [
        *(
            "slurmctld",
            "slurmctld",
            "slurmctld",
            "slurm_resume",
            "clustermgtd",
            "slurmctld",
            "slurmctld",
        )
    ]


def test_a_node_has_all_of_its_streams_and_the_head_nodes_lines_that_name_it() -> None:
    logs = a_cluster()
    assert shown(logs, view(logs, node="eco-dy-n8c32g-1")) == [
        ("slurmctld", 2),
        ("slurm_resume", 5),
        ("cloud-init-output", 60),
        ("slurmd", 90),
        ("slurmd", 900),
    ]


def test_a_job_has_slurmd_of_its_node_while_it_ran_and_lines_that_name_it() -> None:
    logs = a_cluster()
    of = view(logs, job="7")
    assert shown(logs, of) == [
        ("slurmctld", 1),
        ("slurmctld", 2),
        ("slurm_resume", 5),
        ("slurmd", 90),
        ("slurmctld", 300),
        ("slurmctld", 300.5),
    ]
    assert of.job is not None
    assert of.job.nodes == ("eco-dy-n8c32g-1",)
    assert of.notes[0] == "job 7: read from slurmctld's log, Slurm does not tell of it"


def test_slurm_tells_of_a_jobs_nodes_time_and_output() -> None:
    answer = (
        "JobId=7 JobName=tile JobState=COMPLETED StartTime=2026-11-22T10:00:02 "
        "EndTime=2026-11-22T10:05:00 NodeList=eco-dy-n8c32g-[1-2] WorkDir=/home/dopey "
        "StdOut=/wspcefs/out/slurm-7.out"
    )
    place = job_from_slurm("7", FakeSlurm({"scontrol": answer}))
    assert place is not None
    assert place.nodes == ("eco-dy-n8c32g-1", "eco-dy-n8c32g-2")
    assert (place.start, place.end) == (TEN + 2, TEN + 300)
    logs = a_cluster()
    assert view(logs, FakeSlurm({"scontrol": answer}), job="7").notes == (
        "job 7 COMPLETED on eco-dy-n8c32g-1, eco-dy-n8c32g-2; its output: /wspcefs/out/slurm-7.out",
    )


def test_the_end_of_a_running_job_is_not_its_time_limit() -> None:
    answer = "JobId=7 JobState=RUNNING StartTime=2026-11-22T10:00:02 EndTime=2026-11-23T10:00:02 NodeList=a"
    place = job_from_slurm("7", FakeSlurm({"scontrol": answer}))
    assert place is not None
    assert place.end is None


def test_a_job_that_slurmctld_forgot_is_in_the_accounting_with_all_its_starts() -> None:
    rows = (
        "7|2026-11-22T10:00:02|2026-11-22T10:01:00|eco-dy-n8c32g-2|NODE_FAIL|/home/dopey\n"
        "7|2026-11-22T10:02:00|2026-11-22T10:05:00|eco-dy-n8c32g-1|COMPLETED|/home/dopey\n"
    )
    place = job_from_slurm("7", FakeSlurm({"sacct": rows}))
    assert place is not None
    assert place.nodes == ("eco-dy-n8c32g-2", "eco-dy-n8c32g-1")
    assert (place.start, place.end, place.state) == (TEN + 2, TEN + 300, "COMPLETED")


def test_an_unknown_job_and_an_unknown_node_say_so() -> None:
    with pytest.raises(ClusterboxError, match="job 8: neither Slurm nor slurmctld's log"):
        view(a_cluster(), job="8")
    with pytest.raises(InputError, match="no node nonsense in the logs"):
        view(a_cluster(), node="nonsense")


def test_a_pattern_keeps_what_matches() -> None:
    logs = a_cluster()
    found = view(logs, grep=re.compile("JobId=7\\b"), kinds=("slurmctld",))
    assert [at for _, at in shown(logs, found)] == [1, 2, 300, 300.5]


def test_following_shows_each_event_once_finds_late_ones_and_new_nodes() -> None:
    logs = a_cluster()
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 1:
            logs.put(f"{NODE}.slurmd", TEN + 901, "came")
            logs.put(f"{NODE}.slurmd", TEN + 870, "late")
        if len(waited) == 3:
            logs.put("ip-10-0-0-30.i-0dddddddddddddd1.slurmd", TEN + 950, "new node")

    follower = LogReader(logs, sleep, lambda: TEN + 1000 + 20 * len(waited))

    def choose(streams: Sequence[Stream]) -> list[Stream]:
        return [stream for stream in streams if stream.kind == "slurmd"]

    events = follower.follow(GROUP, choose, TEN + 800)
    assert [event.message.rpartition("] ")[2] for event in islice(events, 4)] == [
        "error: of a later job", "late", "came", "new node",
    ]  # fmt: skip
    assert waited[0] == 2
    assert all(pause <= 15 for pause in waited)


def test_a_head_node_in_aws_is_asked_in_utc_and_its_refusal_is_slurms() -> None:
    scripts: list[str] = []

    class Machine:
        def run(self, script: str) -> str:
            scripts.append(script)
            if "sacct" in script:
                raise ClusterboxError("Systems Manager does not reach i-0a")
            return "JobId=7\n"

    slurm = HeadNodeSlurm(Machine())  # type: ignore[arg-type]
    assert slurm.run("scontrol", "show", "job", "7; reboot") == "JobId=7\n"
    done = subprocess.run(
        ["bash", "-c", scripts[0].replace("scontrol", "printf '%s\\n' \"$TZ\"")],
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == ["UTC", "show", "job", "7; reboot"]
    with pytest.raises(
        SlurmError, match="`sacct` on the head node: Systems Manager does not reach"
    ):
        slurm.run("sacct")


def test_a_node_that_was_never_launched_is_told_by_the_head_node_alone() -> None:
    logs = a_cluster()
    logs.put(
        f"{HEAD}.slurmctld",
        TEN + 400,
        "[x] node eco-dy-n8c32g-3 not resumed by ResumeTimeout(1800)",
    )
    of = view(logs, node="eco-dy-n8c32g-[3-4]")
    assert shown(logs, of) == [("slurmctld", 400)]
    assert of.notes == ("eco-dy-n8c32g-[3-4]: no instance of it is in the logs",)


def test_a_line_has_colours_by_what_it_says_on_a_terminal_only() -> None:
    of = View(lambda _: [], lambda _: True, TEN, None, roles={"i-0a": "head"})
    event = LogEvent(TEN, Stream("", "ip-10-0-0-10", "i-0a", "slurmctld"), "error: \x1b[31mred")
    assert (
        _text(event, of, colours=False) == "2026-11-22T10:00:00.000Z head slurmctld: error: [31mred"
    )
    assert _text(event, of, colours=True) == (
        "\x1b[2m2026-11-22T10:00:00.000Z\x1b[0m head slurmctld: \x1b[31merror: [31mred\x1b[0m"
    )
