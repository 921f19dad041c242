"""Measure the review of a change and the validation of clusters, as whole commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common import measure, tell, write_site
from tests.deployment.conftest import copy_repository

CLUSTERS = 20
REVIEW_COLUMNS = (f"repository of {CLUSTERS} clusters", "seconds", "CPU seconds", "peak MiB", "aim")


def measure_review(root: Path, runs: int) -> list[list[object]]:
    """Return a row for a review with nothing cached, with the base cached, and a validation."""
    command = [sys.executable, "-m", "clusterbox.cli.main"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy = copy_repository(root, folder / "site")
        write_site(copy, CLUSTERS, own_configs=True)
        _commit(copy)
        changed = copy / "cluster_configs" / "c07.yaml"
        text = changed.read_text(encoding="utf-8").replace("MaxCount: 3", "MaxCount: 5", 1)
        changed.write_text(text, encoding="utf-8")
        cache = folder / "cache"
        review = [*command, "review", "--base", "HEAD", "--cache", str(cache)]

        def forget_all() -> None:
            shutil.rmtree(cache, ignore_errors=True)

        def forget_head() -> None:
            # The newest assembly is that of the working tree.
            assemblies = [*(cache / "assemblies").iterdir()]
            shutil.rmtree(max(assemblies, key=lambda path: path.stat().st_ctime))

        rows: list[list[object]] = []
        for title, words, before, aim in (
            ("review of one changed cluster, nothing cached", review, forget_all, "< 30"),
            ("the same with the base cached", review, forget_head, "< 15"),
            (
                f"validation of {CLUSTERS} clusters",
                [*command, "clusters", "validate", *(f"c{i:02d}" for i in range(CLUSTERS))],
                lambda: None,
                "< 60",
            ),
        ):
            found = measure(words, dict(os.environ), copy, runs, before)
            figures = f"{found.seconds:.1f}", f"{found.cpu_seconds:.1f}", f"{found.peak_mib:.0f}"
            rows.append([title, *figures, aim])
            tell(f"{title}: {found.seconds:.1f} s")
    return rows


def _commit(folder: Path) -> None:
    (folder / ".gitignore").write_text(".venv\n.venv-pcluster\nnode_modules\n__pycache__\n")
    identity = ["-c", "user.name=benchmark", "-c", "user.email=benchmark@example.com"]
    for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "base"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
