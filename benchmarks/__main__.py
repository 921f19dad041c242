"""Measure synth and reviews with many clusters, and the deployment to the embedded account.

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
from pathlib import Path

from benchmarks.common import measure, tell, write_site
from benchmarks.costs import COST_COLUMNS, measure_costs
from benchmarks.observe import OBSERVE_COLUMNS, measure_observe
from benchmarks.review import REVIEW_COLUMNS, measure_review
from clusterbox.cli.tables import render_table
from clusterbox.deployment.cdk import node, without_aws
from clusterbox.deployment.targets import state_folder
from clusterbox.embedded.account import EmbeddedAccount
from tests.deployment.conftest import copy_repository

ROOT = Path(__file__).parent.parent
CLUSTERS = (1, 5, 20, 50)


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
    sys.stdout.write(render_table(REVIEW_COLUMNS, measure_review(ROOT, runs), "markdown") + "\n\n")
    sys.stdout.write(render_table(COST_COLUMNS, measure_costs(ROOT, runs), "markdown") + "\n\n")
    sys.stdout.write(render_table(OBSERVE_COLUMNS, measure_observe(runs), "markdown") + "\n\n")
    deployment = ("embedded account, site ws-dev", "seconds", "runs")
    sys.stdout.write(render_table(deployment, measure_deployment(runs), "markdown") + "\n")


if __name__ == "__main__":
    main()
