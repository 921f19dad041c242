"""Findings that an environment accepts for a cluster, with its reason."""

from __future__ import annotations

import copy
import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from clusterbox.clusters.composed import ComposedCluster, compose_repository
from clusterbox.clusters.findings import Level, Validation
from clusterbox.clusters.validate import validate_clusters
from clusterbox.pcluster import Pcluster

pytestmark = pytest.mark.integration

REASON = "known, and mended with the next cluster"


def _accepting(cluster: ComposedCluster, *rules: str) -> ComposedCluster:
    environment = cluster.environment
    assert environment is not None
    entries = tuple(
        entry.model_copy(update={"accepted_findings": dict.fromkeys(rules, REASON)})
        if entry.name == cluster.name
        else entry
        for entry in environment.clusters
    )
    changed = environment.model_copy(update={"clusters": entries})
    return dataclasses.replace(cluster, environment=changed)


@pytest.fixture(scope="module")
def judged(root: Path) -> dict[str, Validation]:
    shipped = compose_repository(root, ["ws-eco"])["ws-eco"]
    open_disk: dict[str, Any] = copy.deepcopy(dict(shipped.configuration))
    open_disk["HeadNode"]["LocalStorage"]["RootVolume"]["Encrypted"] = False
    wrong = copy.deepcopy(dict(shipped.configuration))
    wrong["HeadNode"]["InstanceType"] = "t3.humongous"
    warned = dataclasses.replace(shipped, configuration=open_disk)
    refused = dataclasses.replace(shipped, configuration=wrong)
    plain = validate_clusters(
        Pcluster(root / ".venv-pcluster", os.environ), {"warned": warned, "refused": refused}
    )
    rules = {key: {item.rule for item in found.findings} for key, found in plain.items()}
    again = validate_clusters(
        Pcluster(root / ".venv-pcluster", os.environ),
        {
            "warned": _accepting(warned, *rules["warned"]),
            "refused": _accepting(refused, *rules["refused"]),
            "stale": _accepting(shipped, "UnencryptedVolume"),
        },
    )
    return {"plain": plain["warned"], **again}


def test_what_is_accepted_is_told_apart_with_its_reason(judged: dict[str, Validation]) -> None:
    assert [item.level for item in judged["plain"].findings] == [Level.WARNING]
    assert judged["warned"].findings == ()
    (accepted,) = judged["warned"].accepted
    assert accepted.reason == REASON
    assert accepted.finding.path == "HeadNode.LocalStorage.RootVolume.Encrypted"


def test_an_error_is_never_accepted(judged: dict[str, Validation]) -> None:
    assert judged["refused"].failed
    assert all(item.finding.level is not Level.ERROR for item in judged["refused"].accepted)


def test_an_entry_that_accepts_nothing_is_a_finding(judged: dict[str, Validation]) -> None:
    (finding,) = judged["stale"].findings
    assert (finding.rule, finding.level) == ("NothingToAccept", Level.INFO)
    assert finding.file == "environments/ws-dev.yaml"
    assert "UnencryptedVolume" in finding.message
