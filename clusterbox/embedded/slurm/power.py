"""ResumeProgram and SuspendProgram: they start and end the slurmd of nodes on this machine.

Called by slurmctld as `resume NODES` and `suspend NODES`, with a host list.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from clusterbox.embedded.slurm import marked
from clusterbox.embedded.slurm.launches import LaunchPlan
from clusterbox.embedded.slurm.requests import is_joined, leave_request
from clusterbox.slurm import expand_hostlist

# As ParallelCluster's own programs say it.
_FAILED_REASON = "(Code:InsufficientInstanceCapacity)Failure when resuming nodes"


def resume(folder: Path, mark: str, nodes: Sequence[str], environment: Mapping[str, str]) -> None:
    """Start each node's slurmd after the boot time, or mark it down where its launch fails.

    A cluster that is joined to an account leaves the launch to its fleet's daemon.
    """
    plan = LaunchPlan.read(folder)
    failing = [node for node in nodes if plan.fails(node)]
    launched = [node for node in nodes if node not in failing]
    if launched and is_joined(folder):
        leave_request(folder, "resume", launched)
    else:
        for node in launched:
            marks = marked.environment(mark, node)
            boot(folder, node, plan.boot_seconds(node), {**environment, **marks})
    if failing:
        _fail(failing, plan.failed_seconds, folder, environment)


def suspend(folder: Path, mark: str, slurm_conf: Path, nodes: Sequence[str]) -> None:
    """End everything that runs on the nodes, as when their instances are terminated."""
    for node in nodes:
        marked.end(mark, slurm_conf, node)
    if is_joined(folder):
        leave_request(folder, "suspend", nodes)


def boot(
    folder: Path,
    node: str,
    seconds: float,
    environment: Mapping[str, str],
    inside: Sequence[str] = (),
) -> None:
    """Start a node's slurmd after some seconds; `inside` are words that run it in a machine."""
    # -b: the node says that it has booted just now.
    start = f'sleep {seconds:g}; exec {shlex.join(inside)} slurmd -b -D -N "$1"'
    with (folder / "log" / f"slurmd-{node}.out").open("ab") as log:
        subprocess.Popen(
            ["sh", "-c", start, "sh", node],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # slurmctld ends the group of this program when it is done.
            start_new_session=True,
        )


def _fail(
    nodes: Sequence[str], seconds: float, folder: Path, environment: Mapping[str, str]
) -> None:
    names = ",".join(nodes)
    # Here clusterbox does what clustermgtd does on a head node: the node is reset after a while.
    script = (
        'scontrol update nodename="$1" state=down reason="$2"; '
        f'sleep {seconds:g}; scontrol update nodename="$1" state=power_down'
    )
    with (folder / "log" / "launch-failures.log").open("ab") as log:
        log.write(f"{time.strftime('%FT%TZ', time.gmtime())} {names} {_FAILED_REASON}\n".encode())
        log.flush()
        subprocess.Popen(
            ["sh", "-c", script, "sh", names, _FAILED_REASON],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def main() -> None:
    """Run as `power.py resume|suspend FOLDER MARK NODES`, called from the cluster's bin folder."""
    action, folder, mark, hostlist = sys.argv[1:]
    slurm_conf = Path(os.environ["SLURM_CONF"])
    nodes = expand_hostlist(hostlist)
    if action == "resume":
        resume(Path(folder), mark, nodes, {**os.environ, **marked.environment(mark)})
    else:
        suspend(Path(folder), mark, slurm_conf, nodes)


if __name__ == "__main__":
    main()
