"""What several modules look at: a Slurm with jobs that a Prometheus has watched."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.observe.watched import Watched, watch


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Yield a Slurm with jobs, and the Prometheus that scrapes it."""
    with watch(tmp_path_factory.mktemp("watched")) as found:
        yield found
