"""What a cluster's configuration lacks for its limits to hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterbox.costs.limits_apply import is_setting
from clusterbox.costs.limits_settings import compare_settings, fragment
from tests.costs.limit_plans import cluster_of, plan_of, queue


def test_all_that_is_missing_is_told_with_its_line(tmp_path: Path) -> None:
    cluster = cluster_of(tmp_path)
    found = {item.path: item for item in compare_settings(cluster, plan_of(cluster))}
    weights = found["Scheduling.SlurmQueues[0].CustomSlurmSettings.TRESBillingWeights"]
    assert (weights.found, weights.line) == (None, 12)
    assert found["Scheduling.SlurmSettings.Database"].line == 10
    assert len(found) == 8


def test_what_the_fragment_adds_is_enough(tmp_path: Path) -> None:
    plan = plan_of(cluster_of(tmp_path))
    more = fragment(plan)["Scheduling"]
    cluster = cluster_of(
        tmp_path,
        {**queue("eco", "m6i.2xlarge"), **more["SlurmQueues"][0]},
        Database={"Uri": "db:3306"},
        **more["SlurmSettings"],
    )
    assert compare_settings(cluster, plan) == []


def test_a_setting_that_differs_is_told_where_it_stands(tmp_path: Path) -> None:
    custom = [{"prioritytype": "priority/basic"}, {"PriorityFlags": "SMALL_RELATIVE_TO_TIME"}]
    cluster = cluster_of(tmp_path, EnableMemoryBasedScheduling=True, CustomSlurmSettings=custom)
    found = {item.path: item for item in compare_settings(cluster, plan_of(cluster))}
    place = "Scheduling.SlurmSettings.CustomSlurmSettings"
    basic = found[f"{place}[0].prioritytype"]
    assert (basic.found, basic.must, basic.line) == (
        "priority/basic",
        "priority/multifactor",
        13,
    )
    assert found[f"{place}[1].PriorityFlags"].must == "SMALL_RELATIVE_TO_TIME,MAX_TRES"


def test_settings_in_a_file_elsewhere_cannot_be_checked(tmp_path: Path) -> None:
    cluster = cluster_of(tmp_path, CustomSlurmSettingsIncludeFile="s3://bucket/slurm.conf")
    found = {item.path for item in compare_settings(cluster, plan_of(cluster))}
    assert "Scheduling.SlurmSettings.CustomSlurmSettingsIncludeFile" in found


@pytest.mark.parametrize(
    ("key", "found", "must", "holds"),
    [
        (
            "AccountingStorageEnforce",
            "limits,qos,safe,associations",
            "associations,limits",
            True,
        ),
        ("AccountingStorageEnforce", "limits", "associations,limits,qos,safe", False),
        ("PriorityDecayHalfLife", "00:00:00", "0", True),
        ("PriorityDecayHalfLife", "7-00:00:00", "0", False),
        ("MaxArraySize", "1001", "1001", True),
        ("MaxArraySize", "200000", "1001", False),
        ("MaxJobCount", "50000", "20000", True),
        ("MaxJobCount", "10000", "20000", False),
        ("TRESBillingWeights", "CPU=48000.4", "CPU=48000.000", True),
        ("TRESBillingWeights", "CPU=40000", "CPU=48000.000", False),
        ("TRESBillingWeights", "CPU=48000", "CPU=48000.000,Mem=9.5G", False),
        ("TRESBillingWeights", "CPU=48000,Mem=9.5", "CPU=48000.000,Mem=9.5G", False),
        ("TRESBillingWeights", "", "CPU=48000.000", False),
    ],
)
def test_a_setting_holds_when_it_is_as_strict(key: str, found: str, must: str, holds: bool) -> None:
    assert is_setting(key, found, must) is holds
