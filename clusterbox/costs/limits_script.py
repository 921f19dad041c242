"""The script that gives a cluster its limits at its start: a custom action of the head node."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib import resources
from typing import Any

from clusterbox.costs.limits import LimitPlan
from clusterbox.costs.limits_apply import qos_name

_END = "CLUSTERBOX_END"

_SHELL = """\
#!/bin/bash
# Limits of cluster {cluster}, in its own Slurm: {what}.
# Written by `clusterbox costs limits script {cluster}`.
#
# A custom action of the head node (OnNodeConfigured and OnNodeUpdated), where slurmctld and slurmdbd
# run already. It changes nothing when all is as it must be, and can be run at any time as root.
set -euo pipefail
PATH="/opt/slurm/bin:$PATH"
exec python3 - "$@" <<'{end}'
{program}
{end}
"""

# What a limit does not hold for is told and no failure: that would take down a cluster that starts.
_MAIN = """

import json
import subprocess
import sys
import time

_QOS_NAME = "{qos}"
# Nothing where the cluster has no budget: limits that it had are taken away.
_WANTED = json.loads('''{wanted}''')
# Five minutes: the first start makes slurmdbd's tables in a database at its smallest.
_ATTEMPTS = 150


def _run(*words: str) -> str:
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"`{{' '.join(words)}}` failed: {{done.stderr or done.stdout}}")
    return done.stdout


def _wait() -> State:
    # The daemons may still be on their way up when the head node's actions run.
    for _ in range(_ATTEMPTS):
        try:
            state = read_state(_run)
            if state.account("root"):
                return state
            reason = "the accounting database does not know the cluster yet"
        except (RuntimeError, KeyError, OSError) as error:
            reason = str(error)
        time.sleep(2)
    raise SystemExit(f"clusterbox limits: {{reason}}")


def main() -> None:
    wanted = None
    if _WANTED is not None:
        limits = _WANTED.pop("accounts").items()
        accounts = {{name: AccountLimit(**limit) for name, limit in limits}}
        wanted = Wanted(accounts=accounts, **_WANTED)
    state = _wait()
    steps = plan_steps(wanted, _QOS_NAME, state)
    for step in steps:
        changes = "; ".join(f"{{key}}: {{old}} -> {{new}}" for key, old, new in step.changes)
        print(f"clusterbox limits: {{step.subject}}: {{changes}}")
    try:
        take(steps, _run)
    except RuntimeError as error:
        raise SystemExit(f"clusterbox limits: {{error}}")
    if not steps:
        print("clusterbox limits: nothing to change")
    if wanted is None:
        return
    for text in [*find_faults(wanted, _run), *find_ways_round(wanted, read_state(_run))]:
        print(f"clusterbox limits: NOT ENFORCED: {{text}}", file=sys.stderr)


main()
"""


def render_script(plan: LimitPlan) -> str:
    """Return the script: the very code of `clusterbox costs limits apply`, and the plan.

    It needs bash, Slurm's commands and Python 3.9 or newer. It waits up to five minutes for
    slurmctld and slurmdbd, and exits with 1 when Slurm refuses a change.
    """
    what = f"{plan.jobs_usd:.2f} USD a month for jobs, by prices of {plan.prices_title}"
    return _render(plan.cluster, what, asdict(plan.wanted))


def render_removal(cluster: str) -> str:
    """Return the script of a cluster without a budget: it takes away the limits that it had."""
    return _render(cluster, "none, as it has no budget", None)


def _render(cluster: str, what: str, wanted: dict[str, Any] | None) -> str:
    folder = resources.files("clusterbox.costs")
    program = (folder / "limits_apply.py").read_text(encoding="utf-8")
    # Names are those that the site's files allow: no quote can be among them.
    main = _MAIN.format(wanted=json.dumps(wanted, sort_keys=True), qos=qos_name(cluster))
    return _SHELL.format(cluster=cluster, what=what, end=_END, program=(program + main).rstrip())
