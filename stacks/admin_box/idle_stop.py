#!/usr/bin/python3
"""Power the admin box off when nobody has used it for some time; a timer runs this.

Python 3.9 and the standard library: the system's interpreter outlives a broken environment.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

STATE_FILE = Path("/run/clusterbox-idle-stop.json")  # /run is empty after boot: counting restarts
KEEP_AWAKE_FILE = Path("/etc/clusterbox/keep-awake-until")
WARNING_MINUTES = 5.0
MAX_STEP_MINUTES = 10.0  # what one check may add: a set clock or a paused timer is not idleness
TOLERANCE_MINUTES = 0.5  # the timer may fire a little early
IDLE_LOAD_PER_CORE = 0.1
BUSY_CORES = 0.01  # of one core: 3 s of CPU in 5 minutes; a shell that waits uses none
# How `who` shows a pane of tmux or screen. It stays when its user has left: only its work counts.
PANE = re.compile(r"\((tmux\(|\S*:S\.\d)")
HUMAN_UIDS = (range(1000, 61184), range(65536, 2**32))  # what is between is systemd's, and nobody


@dataclass(frozen=True)
class Probe:
    """What the machine shows at one moment; CPU in seconds, by process of a human user."""

    users: tuple[str, ...] = ()
    ssm_sessions: int = 0
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    load: float = 0.0
    cores: int = 1
    keep_awake: str | None = None


@dataclass(frozen=True)
class State:
    """What one check leaves to the next; `checked` is an ISO date-time."""

    checked: str
    idle_minutes: float = 0.0
    warned: bool = False
    cpu_seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """What to do (stay, warn or stop), why, and the state to keep."""

    action: str
    reason: str
    state: State


def decide(state: State | None, probe: Probe, now: datetime, limit_minutes: float) -> Decision:
    """Return what to do now; pure. `now` has a time zone, `limit_minutes` is above 0."""
    if state is None:
        return _stay("first check since boot", probe, now)
    elapsed = (now - datetime.fromisoformat(state.checked)).total_seconds() / 60
    busy = find_use(state, probe, now, elapsed)
    if busy:
        return _stay(busy, probe, now)
    idle = state.idle_minutes + min(max(elapsed, 0.0), MAX_STEP_MINUTES)
    reason = f"idle for {idle:.0f} of {limit_minutes:.0f} minutes"
    reached = idle + TOLERANCE_MINUTES
    if state.warned and reached >= limit_minutes:
        action = "stop"
    elif not state.warned and reached >= limit_minutes - WARNING_MINUTES:
        action = "warn"
    else:
        action = "stay"
    # A late warning moves the end, so that nobody has less than the promised time.
    if action == "warn":
        idle = min(idle, max(0.0, limit_minutes - WARNING_MINUTES))
    warned = state.warned or action == "warn"
    return Decision(action, reason, State(now.isoformat(), idle, warned, probe.cpu_seconds))


def find_use(state: State, probe: Probe, now: datetime, elapsed_minutes: float) -> str:
    """Return how the machine is used, or an empty text; what is unclear counts as use."""
    if probe.keep_awake is not None:
        try:
            until = datetime.fromisoformat(probe.keep_awake.strip().replace("Z", "+00:00"))
        except ValueError:
            return f"{KEEP_AWAKE_FILE} has no ISO date-time: {probe.keep_awake.strip()!r}"
        until = until if until.tzinfo else until.replace(tzinfo=now.tzinfo)
        if now < until:
            return f"kept awake until {until.isoformat()}"
    if probe.users:
        return "logged in: " + ", ".join(probe.users)
    if probe.ssm_sessions:
        return f"Session Manager sessions: {probe.ssm_sessions}"
    used = {
        name: seconds - state.cpu_seconds.get(name, 0.0)
        for name, seconds in probe.cpu_seconds.items()
    }
    if sum(max(0.0, s) for s in used.values()) > BUSY_CORES * 60 * max(elapsed_minutes, 1.0):
        return "a user's process works: " + max(used, key=lambda name: used[name])
    if probe.load >= IDLE_LOAD_PER_CORE * probe.cores:
        return f"load {probe.load:.2f} on {probe.cores} cores"
    return ""


def _stay(reason: str, probe: Probe, now: datetime) -> Decision:
    return Decision("stay", reason, State(now.isoformat(), cpu_seconds=probe.cpu_seconds))


def parse_who(text: str) -> tuple[str, ...]:
    """Return the users that have a terminal open, from the output of `who`."""
    lines = [line for line in text.splitlines() if line.strip() and not PANE.search(line)]
    return tuple(sorted({line.split()[0] for line in lines}))


def fetch_probe(proc: Path = Path("/proc")) -> Probe:
    """Look at the machine; raises OSError or CalledProcessError if it cannot be seen."""
    who = subprocess.run(["who"], check=True, stdout=subprocess.PIPE, text=True)
    sessions, cpu = 0, {}
    ticks = os.sysconf("SC_CLK_TCK")
    for folder in proc.glob("[0-9]*"):
        try:
            uid = folder.stat().st_uid
            head, _, tail = (folder / "stat").read_text(errors="replace").rpartition(")")
        except OSError:
            continue  # it ended meanwhile
        name = head.partition("(")[2]
        # The kernel cuts names to 15 characters: ssm-session-worker reads ssm-session-wor.
        sessions += name.startswith("ssm-session-wor")
        if any(uid in humans for humans in HUMAN_UIDS):
            # utime to cstime, proc(5): also of children that ended, so short commands count.
            times = tail.split()[11:15]
            cpu[f"{name}[{folder.name}]"] = sum(map(int, times)) / ticks
    return Probe(
        users=parse_who(who.stdout),
        ssm_sessions=sessions,
        cpu_seconds=cpu,
        load=os.getloadavg()[0],
        cores=os.cpu_count() or 1,
        keep_awake=KEEP_AWAKE_FILE.read_text() if KEEP_AWAKE_FILE.exists() else None,
    )


def fetch_state() -> State | None:
    """Return what the last check left; None at boot or if it cannot be read."""
    try:
        state = State(**json.loads(STATE_FILE.read_text()))
        datetime.fromisoformat(state.checked)
        return state
    except (OSError, ValueError, TypeError):
        return None


def main() -> int:
    """Check once and act; exit code 1 if the machine could not be examined or stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, required=True, help="idle minutes until it stops")
    parser.add_argument("--dry-run", action="store_true", help="print the decision, do nothing")
    arguments = parser.parse_args()
    try:
        now = datetime.now().astimezone()
        decision = decide(fetch_state(), fetch_probe(), now, arguments.minutes)
        sys.stdout.write(f"{decision.action}: {decision.reason}\n")
        if not arguments.dry_run:
            apply_decision(decision)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"stays on: {error}\n")
        return 1
    return 0


def apply_decision(decision: Decision) -> None:
    """Keep the state, then warn or power off; AWS sees an instance that stopped itself."""
    new = STATE_FILE.with_suffix(".new")
    new.write_text(json.dumps(asdict(decision.state)))
    new.replace(STATE_FILE)
    if decision.action == "warn":
        message = f"{decision.reason}: this machine stops in {WARNING_MINUTES:.0f} minutes."
        subprocess.run(["wall", f"{message} Any use of it prevents that."], check=True)
    elif decision.action == "stop":
        subprocess.run(["systemctl", "poweroff"], check=True)


if __name__ == "__main__":
    sys.exit(main())
