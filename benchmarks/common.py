"""What the benchmarks share: timing whole commands, and a site with many clusters."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Measurement:
    """Medians of several runs of one command."""

    seconds: float
    cpu_seconds: float
    peak_mib: float


def measure(
    command: Sequence[str],
    environment: dict[str, str],
    folder: Path,
    runs: int,
    before: Callable[[], object] = lambda: None,
) -> Measurement:
    """Run a command several times, after one run that warms caches; raises if a run fails.

    `before` is called ahead of each run, and is not counted.
    """
    walls, cpus, peaks = [], [], []
    for run in range(runs + 1):
        before()
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


def write_site(root: Path, clusters: int, *, own_configs: bool = False) -> None:
    """Give the sandbox site of a copied repository as many clusters, on a network that fits them.

    With `own_configs` each cluster has a configuration of its own, so that one can change alone.
    """
    path = root / "environments" / "sandbox.yaml"
    text = path.read_text(encoding="utf-8")
    head = text[: text.index("clusters:")].replace("10.12.64.0/21", "10.12.0.0/16")
    for old, new in (("64.0/22", "0.0/18"), ("68.0/23", "64.0/18"), ("70.0/23", "128.0/18")):
        head = head.replace(f"10.12.{old}", f"10.12.{new}")
    head = head.replace("10.12.72.", "100.64.0.")
    configs = ["eco.yaml"] * clusters
    if own_configs:
        configs = [f"c{i:02d}.yaml" for i in range(clusters)]
        for config in configs:
            shutil.copy2(root / "cluster_configs" / "eco.yaml", root / "cluster_configs" / config)
    entries = "".join(
        f"  - {{name: c{i:02d}, config: {config}}}\n" for i, config in enumerate(configs)
    )
    path.write_text(f"{head}clusters:\n{entries}", encoding="utf-8")


def tell(text: str) -> None:
    """Show progress on a terminal; a pipe gets the result alone."""
    if sys.stderr.isatty():
        sys.stderr.write(f"{text}\n")
