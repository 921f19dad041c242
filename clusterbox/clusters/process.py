"""Ask ParallelCluster's library about many clusters in one process of its own environment."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from clusterbox.pcluster import Pcluster, PclusterError

_IMPORT_ROOT = Path(__file__).parents[2]


def ask_library(
    pcluster: Pcluster,
    operation: str,
    clusters: Mapping[str, Any],
    note: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Return the library's answer for each cluster.

    `operation` is a module of `clusterbox.clusters.library`, whose `answer` is called with each
    cluster's name and request. `note` is told each cluster when it is done. Starting takes about
    2 s. Raises PclusterError when the process fails; a failure of one cluster fails it all.
    """
    request = {"operation": operation, "clusters": dict(clusters)}
    answers: dict[str, Any] = {}
    lines = pcluster.stream_python(
        "-m", "clusterbox.clusters.library", stdin=json.dumps(request), import_root=_IMPORT_ROOT
    )
    for line in lines:
        try:
            answer = json.loads(line)
        except ValueError as error:
            raise PclusterError(f"ParallelCluster's library said: {line}") from error
        answers[answer["cluster"]] = answer["answer"]
        note(answer["cluster"])
    return answers
