from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from clusterbox.clusters.composed import ComposedCluster, compose_repository
from clusterbox.clusters.findings import Finding, Level, Validation
from clusterbox.clusters.validate import validate_clusters
from clusterbox.pcluster import Pcluster
from tests.clusters.broken import BROKEN, Broken, break_cluster, parse_path

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Judged:
    """All broken and all shipped clusters, and the judgements of them."""

    clusters: Mapping[str, ComposedCluster]
    validations: Mapping[str, Validation]


@pytest.fixture(scope="module")
def judged(root: Path) -> Judged:
    """Return the judgements of all clusters, made by one process."""
    shipped = compose_repository(root)
    clusters = shipped | {
        broken.name: break_cluster(shipped[broken.base], broken) for broken in BROKEN
    }
    pcluster = Pcluster(root / ".venv-pcluster", os.environ)
    return Judged(clusters, validate_clusters(pcluster, clusters))


def test_the_table_has_different_mistakes() -> None:
    assert max(Counter(broken.name for broken in BROKEN).values()) == 1
    assert len(BROKEN) >= 150
    assert len({broken.rule for broken in BROKEN}) >= 75


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
def test_a_broken_configuration_gives_the_expected_finding(judged: Judged, broken: Broken) -> None:
    findings = judged.validations[broken.name].findings
    expected = [finding for finding in findings if _is_expected(finding, broken)]
    assert len(expected) == 1, "\n".join(map(str, findings))
    (found,) = expected
    assert broken.message in found.message
    assert broken.advice in found.advice
    # The line is that of the key itself, or of the section that would have to hold it.
    file = judged.clusters[broken.name].file
    assert (found.file, found.line) == (file.name, file.line_of(parse_path(broken.path)))
    assert judged.validations[broken.name].failed or broken.level != Level.ERROR


def _is_expected(finding: Finding, broken: Broken) -> bool:
    return (
        (finding.rule, finding.level, finding.path) == (broken.rule, broken.level, broken.path)
    ) and broken.message in finding.message


@pytest.mark.parametrize("name", ["sandbox-eco", "sandbox-economy-hpc", "ws-eco", "ws-eco-login"])
def test_a_shipped_cluster_gives_no_finding(judged: Judged, name: str) -> None:
    assert judged.validations[name].findings == ()


def test_the_only_accepted_remark_is_on_queues_in_several_zones(judged: Judged) -> None:
    found = {
        (name, item.finding.rule)
        for name, validation in judged.validations.items()
        if name not in {broken.name for broken in BROKEN}
        for item in validation.accepted
    }
    assert found == {("sandbox-economy-hpc", "MultiAzRootVolumeValidator")}
