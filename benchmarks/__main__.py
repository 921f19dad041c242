"""Measure synth with many clusters, and the deployment to the embedded account.

Prints Markdown. Each figure is the median of several runs; memory is the peak of the largest
single process (the Node that runs CDK), as the operating system accounts for it.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clusterbox.cli.tables import render_table
from clusterbox.deployment.cdk import node, without_aws
from clusterbox.deployment.targets import state_folder
from clusterbox.embedded.account import EmbeddedAccount
from tests.deployment.conftest import copy_repository

ROOT = Path(__file__).parent.parent
CLUSTERS = (1, 5, 20, 50)


@dataclass(frozen=True)
class Measurement:
    """Medians of several runs of one command."""

    seconds: float
    cpu_seconds: float
    peak_mib: float


def measure(
    command: Sequence[str], environment: dict[str, str], folder: Path, runs: int
) -> Measurement:
    """Run a command several times, after one run that warms caches; raises if a run fails."""
    walls, cpus, peaks = [], [], []
    for run in range(runs + 1):
        start = time.monotonic()
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            message = process.stderr.read().decode() if process.stderr else ""
            raise SystemExit(f"{' '.join(command)} failed:\n{message}")
        if run:
            walls.append(time.monotonic() - start)
            cpus.append(usage.ru_utime + usage.ru_stime)
            peaks.append(usage.ru_maxrss / 1024)
    return Measurement(statistics.median(walls), statistics.median(cpus), statistics.median(peaks))


def write_site(root: Path, clusters: int) -> None:
    """Give the sandbox site of a copied repository as many clusters, on a network that fits them."""
    path = root / "environments" / "sandbox.yaml"
    text = path.read_text(encoding="utf-8")
    head = text[: text.index("clusters:")].replace("10.12.64.0/21", "10.12.0.0/16")
    for old, new in (("64.0/22", "0.0/18"), ("68.0/23", "64.0/18"), ("70.0/23", "128.0/18")):
        head = head.replace(f"10.12.{old}", f"10.12.{new}")
    head = head.replace("10.12.72.", "100.64.0.")
    entries = "".join(f"  - {{name: c{i:02d}, config: eco.yaml}}\n" for i in range(clusters))
    path.write_text(f"{head}clusters:\n{entries}", encoding="utf-8")


def measure_synth(runs: int) -> list[list[object]]:
    """Return a row for each number of clusters, with and without CDK's validation."""
    rows: list[list[object]] = []
    for validation in (False, True):
        first = 0.0
        for clusters in CLUSTERS:
            with tempfile.TemporaryDirectory() as folder:
                copy = copy_repository(ROOT, Path(folder) / "site")
                write_site(copy, clusters)
                environment = {
                    **without_aws(os.environ),
                    "CDK_OUTDIR": str(Path(folder) / "out"),
                    "CDK_CONTEXT_JSON": '{"env": "sandbox"}',
                    "CDK_VALIDATION": "true" if validation else "false",
                    "JSII_NODE": str(node(ROOT)),
                }
                found = measure([sys.executable, "app.py"], environment, copy, runs)
            first = first or found.seconds
            further = (found.seconds - first) / (clusters - 1) * 1000 if clusters > 1 else None
            rows.append(
                [
                    "with" if validation else "without",
                    clusters,
                    f"{found.seconds:.2f}",
                    f"{found.cpu_seconds:.2f}",
                    f"{found.peak_mib:.0f}",
                    "" if further is None else f"{further:.0f}",
                ]
            )
            tell(f"synth, {clusters} clusters, {rows[-1][0]} validation: {found.seconds:.2f} s")
    return rows


def measure_deployment(runs: int) -> list[list[object]]:
    """Return a row for a first deployment, one that changes nothing, a change and a removal."""
    command = [sys.executable, "-m", "clusterbox.cli.main"]
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        copy = copy_repository(ROOT, Path(folder) / "site")
        queue = copy / "cluster_configs" / "eco.yaml"

        def run(name: str, *words: str) -> None:
            start = time.monotonic()
            subprocess.run([*command, *words, "ws-dev"], cwd=copy, check=True, capture_output=True)
            seconds.setdefault(name, []).append(time.monotonic() - start)
            tell(f"{name}: {seconds[name][-1]:.1f} s")

        try:
            for count in range(runs):
                run("first deployment, from no account", "deploy")
                run("deployment that changes nothing", "deploy")
                text = queue.read_text(encoding="utf-8")
                queue.write_text(
                    text.replace(f"MaxCount: {3 + count}", f"MaxCount: {4 + count}", 1)
                )
                run("a queue's MaxCount changed", "deploy")
                run("removal", "destroy")
                EmbeddedAccount.stop(state_folder(copy, "ws-dev"))
        finally:
            EmbeddedAccount.stop(state_folder(copy, "ws-dev"))
    return [
        [name, f"{statistics.median(found):.1f}", len(found)] for name, found in seconds.items()
    ]


def measure_help(runs: int) -> float:
    """Return the seconds until `clusterbox --help` has answered."""
    command = [str(ROOT / ".venv" / "bin" / "clusterbox"), "--help"]
    return measure(command, dict(os.environ), ROOT, runs).seconds


def tell(text: str) -> None:
    """Show progress on a terminal; a pipe gets the result alone."""
    if sys.stderr.isatty():
        sys.stderr.write(f"{text}\n")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="counted runs of each (default: 3)")
    runs = parser.parse_args().runs

    cores = os.cpu_count()
    sys.stdout.write(
        f"{platform.system()}, {platform.machine()}, {cores} cores, Python {platform.python_version()}; "
        f"medians of {runs} runs\n\n"
    )
    sys.stdout.write(f"`clusterbox --help`: {measure_help(runs):.2f} s\n\n")
    synth = ("validation", "clusters", "seconds", "CPU seconds", "peak MiB", "ms a further cluster")
    sys.stdout.write(render_table(synth, measure_synth(runs), "markdown") + "\n\n")
    deployment = ("embedded account, site ws-dev", "seconds", "runs")
    sys.stdout.write(render_table(deployment, measure_deployment(runs), "markdown") + "\n")


if __name__ == "__main__":
    main()
