from __future__ import annotations

import ast
import json
import os
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from stacks.admin_box import idle_stop
from stacks.admin_box.idle_stop import Decision, Probe, State, decide

NOON = datetime.fromisoformat("2026-03-02T12:00:00+00:00")
QUIET = Probe(load=0.05, cores=2)


def state(idle: float = 30, *, ago: float = 5, warned: bool = False, cpu: float = 0) -> State:
    checked = (NOON - timedelta(minutes=ago)).isoformat()
    return State(checked, idle, warned, {"bash[7]": cpu})


@pytest.mark.parametrize(
    ("before", "probe", "reason"),
    [
        (None, QUIET, "first check since boot"),
        (state(), Probe(users=("ann", "bob"), cores=2), "logged in: ann, bob"),
        (state(), Probe(ssm_sessions=1, cores=2), "Session Manager sessions: 1"),
        (state(), Probe(load=0.2, cores=2), "load 0.20 on 2 cores"),
        (
            state(cpu=10),
            Probe(cpu_seconds={"bash[7]": 10.0, "gdal[8]": 3.5}),
            "a user's process works: gdal[8]",
        ),
        (
            state(cpu=10),
            Probe(cpu_seconds={"bash[7]": 14.0}),
            "a user's process works: bash[7]",
        ),
        (
            state(cpu=10),  # number 7 is used again: its loss hides no work of number 8
            Probe(cpu_seconds={"bash[7]": 1.0, "gdal[8]": 3.5}),
            "a user's process works: gdal[8]",
        ),
        (
            state(),
            Probe(keep_awake="2026-03-02T13:00:00Z\n"),
            "kept awake until 2026-03-02T13:00:00+00:00",
        ),
        (
            state(),
            Probe(keep_awake="2026-03-02T13:00"),
            "kept awake until 2026-03-02T13:00:00+00:00",
        ),
        (state(), Probe(keep_awake="2026-03-03"), "kept awake until 2026-03-03T00:00:00+00:00"),
        (
            state(),
            Probe(keep_awake="tomorrow\n"),
            "/etc/clusterbox/keep-awake-until has no ISO date-time: 'tomorrow'",
        ),
    ],
)
def test_any_use_keeps_the_machine_on_and_counting_starts_again(
    before: State | None, probe: Probe, reason: str
) -> None:
    decision = decide(before, probe, NOON, 60)
    assert (decision.action, decision.reason) == ("stay", reason)
    assert decision.state == State(NOON.isoformat(), 0.0, False, probe.cpu_seconds)


@pytest.mark.parametrize(
    ("before", "limit", "action", "idle"),
    [
        (state(0), 60, "stay", 5),
        (state(45), 60, "stay", 50),
        (state(50), 60, "warn", 55),
        (state(49.9, ago=4.9), 60, "warn", 54.8),
        (state(55, warned=True), 60, "stop", 60),
        (state(55, ago=4.9, warned=True), 60, "stop", 59.9),
        (state(50, ago=1, warned=True), 60, "stay", 51),
        # Never without a warning, and never sooner than five minutes after it.
        (state(58), 60, "warn", 55),
        (state(0), 5, "warn", 0),
        (state(0, warned=True), 5, "stop", 5),
        # A clock that was set, or a timer that paused, is not idleness.
        (state(0, ago=600), 60, "stay", 10),
        (state(30, ago=-600), 60, "stay", 30),
    ],
)
def test_idle_minutes_add_up_to_a_warning_and_then_a_stop(
    before: State, limit: float, action: str, idle: float
) -> None:
    decision = decide(before, QUIET, NOON, limit)
    assert decision.action == action
    assert decision.state.idle_minutes == pytest.approx(idle)
    assert decision.state.warned == (action in {"warn", "stop"} or before.warned)


@pytest.mark.parametrize(
    "probe",
    [
        Probe(load=0.19, cores=2),
        Probe(keep_awake="2026-03-02T11:59:00+00:00"),
        Probe(cpu_seconds={"bash[7]": 12.9}),
        Probe(cpu_seconds={"bash[7]": 1.0}),
    ],
    ids=["small load", "time over", "shell that waits", "process number used again"],
)
def test_what_is_no_use_counts_as_idle(probe: Probe) -> None:
    assert decide(state(30, cpu=10), probe, NOON, 60).reason == "idle for 35 of 60 minutes"


def test_a_box_left_alone_is_warned_after_55_minutes_and_stops_after_60() -> None:
    seen, before = [], None
    for minute in range(0, 65, 5):
        decision = decide(before, QUIET, NOON + timedelta(minutes=minute), 60)
        before = decision.state
        if decision.action != "stay":
            seen.append((minute, decision.action))
    assert seen == [(55, "warn"), (60, "stop")]


def test_panes_of_tmux_and_screen_are_no_sessions() -> None:
    text = (
        "ann      pts/0        2026-03-02 11:00 (198.51.100.7)\n"
        "bob      pts/1        2026-03-02 09:00 (tmux(1234).%0)\n"
        "cas      pts/2        2026-03-02 09:00 (198.51.100.8:S.0)\n"
        "dan      tty1         2026-03-02 09:00\n"
    )
    assert idle_stop.parse_who(text) == ("ann", "dan")


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put stand-ins for who, wall and systemctl on PATH; they write down how they were called."""
    for name in ("who", "wall", "systemctl"):
        stub = tmp_path / name
        stub.write_text(f'#!/bin/sh\n[ {name} = who ] || echo "{name} $*" >>{tmp_path}/calls\n')
        stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(idle_stop, "STATE_FILE", tmp_path / "state.json")
    monkeypatch.setattr(idle_stop, "KEEP_AWAKE_FILE", tmp_path / "keep-awake-until")
    return tmp_path


def add_process(proc: Path, number: int, name: str, times: str) -> None:
    folder = proc / str(number)
    folder.mkdir(parents=True)
    (folder / "stat").write_text(f"{number} ({name}) S 1 1 1 0 -1 0 0 0 0 0 {times} 20 0 1 0 5")


def test_processes_are_read_with_their_children_and_by_their_cut_names(
    tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle_stop, "HUMAN_UIDS", (range(os.getuid(), os.getuid() + 1),))
    ticks = os.sysconf("SC_CLK_TCK")
    add_process(tools / "proc", 7, "a) b (c", f"{ticks} {ticks} {2 * ticks} {ticks}")
    add_process(tools / "proc", 8, "ssm-session-wor", "0 0 0 0")
    (tools / "proc/9").mkdir()
    (tools / "keep-awake-until").write_text("2026-03-03\n")
    probe = idle_stop.fetch_probe(tools / "proc")
    assert probe.cpu_seconds == {"a) b (c[7]": 5.0, "ssm-session-wor[8]": 0.0}
    assert (probe.ssm_sessions, probe.users) == (1, ())
    assert probe.keep_awake == "2026-03-03\n"


@pytest.mark.parametrize("uid", [0, 999, 61184, 65519, 65534])
def test_accounts_of_the_system_are_no_human_users(uid: int) -> None:
    assert not any(uid in humans for humans in idle_stop.HUMAN_UIDS)


@pytest.mark.parametrize(
    ("action", "call"),
    [
        (
            "warn",
            "wall idle for 55 of 60 minutes: this machine stops in 5 minutes."
            " Any use of it prevents that.",
        ),
        ("stop", "systemctl poweroff"),
    ],
)
def test_a_decision_is_kept_and_carried_out(tools: Path, action: str, call: str) -> None:
    kept = state(55, warned=True)
    idle_stop.apply_decision(Decision(action, "idle for 55 of 60 minutes", kept))
    assert (tools / "calls").read_text() == call + "\n"
    assert idle_stop.fetch_state() == kept


def test_a_dry_run_prints_the_decision_and_changes_nothing(
    tools: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["idle-stop", "--minutes", "60", "--dry-run"])
    assert idle_stop.main() == 0
    assert capsys.readouterr().out == "stay: first check since boot\n"
    assert not (tools / "state.json").exists()


def test_a_machine_that_cannot_be_examined_stays_on(
    tools: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tools / "who").write_text("#!/bin/sh\nexit 3\n")
    monkeypatch.setattr(sys, "argv", ["idle-stop", "--minutes", "60"])
    assert idle_stop.main() == 1
    assert capsys.readouterr().err.startswith("stays on: ")
    assert not (tools / "calls").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"checked": "then"}', '{"checked": 5}'])
def test_a_state_that_cannot_be_read_starts_the_counting_anew(tools: Path, text: str) -> None:
    (tools / "state.json").write_text(text)
    assert idle_stop.fetch_state() is None


def test_the_state_is_plain_json(tools: Path) -> None:
    idle_stop.apply_decision(Decision("stay", "", state(5)))
    assert json.loads((tools / "state.json").read_text())["idle_minutes"] == 5


def test_the_program_is_written_for_the_python_of_the_system() -> None:
    source = Path(idle_stop.__file__).read_text()
    tree = ast.parse(source, feature_version=(3, 9))
    imported = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    }
    assert imported <= sys.stdlib_module_names
