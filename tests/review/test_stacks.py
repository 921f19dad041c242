from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clusterbox.deployment.cdk import node
from clusterbox.review.snapshot import Snapshot
from clusterbox.review.stacks import Impact, StackChange, StackDiff, compare_stacks
from tests.conftest import Templates

pytestmark = pytest.mark.integration

Compare = Callable[[dict[str, Any] | None, dict[str, Any] | None], tuple[StackDiff, ...]]


@pytest.fixture
def compare(tmp_path: Path, root: Path) -> Compare:
    def snapshot(side: str, templates: dict[str, Any] | None) -> Snapshot | None:
        if templates is None:
            return None
        folder = tmp_path / side
        folder.mkdir()
        for stack, template in templates.items():
            (folder / f"{stack}.template.json").write_text(json.dumps(template))
        return Snapshot("ws-dev", templates=templates, folder=folder)

    def run(base: dict[str, Any] | None, head: dict[str, Any] | None) -> tuple[StackDiff, ...]:
        return compare_stacks(snapshot("base", base), snapshot("head", head), node(root))

    return run


@pytest.fixture
def pair(ws_dev: Templates) -> tuple[dict[str, Any], dict[str, Any]]:
    return copy.deepcopy(dict(ws_dev)), copy.deepcopy(dict(ws_dev))


def _of_type(template: dict[str, Any], kind: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        item for item in template["Resources"].values() if item["Type"] == kind
    )
    return found


def test_equal_templates_have_no_difference(compare: Compare, pair: Any) -> None:
    assert compare(*pair) == ()


def test_a_changed_queue_is_shown_with_both_values(compare: Compare, pair: Any) -> None:
    base, head = pair
    cluster = _of_type(head["ws-dev-cluster-ws-eco"], "Custom::PclusterCluster")
    cluster["Properties"]["ClusterConfiguration"]["HeadNode"]["InstanceType"] = "t3.large"
    (diff,) = compare(base, head)
    assert (diff.stack, diff.change) == ("ws-dev-cluster-ws-eco", StackChange.CHANGED)
    assert [(item.impact, item.properties) for item in diff.resources] == [
        (Impact.UPDATE, ("ClusterConfiguration",))
    ]
    assert "[-] t3.medium" in diff.text
    assert "[+] t3.large" in diff.text
    assert diff.losses == ()


def test_a_replaced_file_system_is_a_loss(compare: Compare, pair: Any) -> None:
    base, head = pair
    _of_type(head["ws-dev-storage"], "AWS::EFS::FileSystem")["Properties"]["Encrypted"] = False
    diff = next(item for item in compare(base, head) if item.stack == "ws-dev-storage")
    assert diff.change is StackChange.REPLACES
    assert [(item.type, item.impact) for item in diff.losses] == [
        ("AWS::EFS::FileSystem", Impact.REPLACE)
    ]


@pytest.mark.parametrize(
    ("policy", "impact"), [("Retain", Impact.ORPHAN), ("Delete", Impact.DESTROY)]
)
def test_a_removed_bucket_is_given_up_or_deleted(
    compare: Compare, pair: Any, policy: str, impact: Impact
) -> None:
    base, head = pair
    for template in (base, head):
        _of_type(template["ws-dev-storage"], "AWS::S3::Bucket")["DeletionPolicy"] = policy
    resources = head["ws-dev-storage"]["Resources"]
    name = next(key for key, item in resources.items() if item["Type"] == "AWS::S3::Bucket")
    del resources[name]
    diff = next(item for item in compare(base, head) if item.stack == "ws-dev-storage")
    assert [(item.id, item.impact) for item in diff.losses] == [(name, impact)]


def test_a_renamed_file_system_is_one_that_goes_and_one_that_comes(
    compare: Compare, pair: Any
) -> None:
    base, head = pair
    resources = head["ws-dev-storage"]["Resources"]
    name = next(key for key, item in resources.items() if item["Type"] == "AWS::EFS::FileSystem")
    resources["Renamed"] = resources.pop(name)
    diff = next(item for item in compare(base, head) if item.stack == "ws-dev-storage")
    assert [item.id for item in diff.losses] == [name]
    assert "Renamed" in [item.id for item in diff.resources if item.impact is Impact.CREATE]


def test_an_added_environment_is_all_new(compare: Compare, pair: Any) -> None:
    diffs = compare(None, pair[1])
    assert {diff.change for diff in diffs} == {StackChange.ADDED}
    assert {item.impact for diff in diffs for item in diff.resources} == {Impact.CREATE}


def test_a_removed_stack_gives_up_what_it_retains(compare: Compare, pair: Any) -> None:
    base, head = pair
    del head["ws-dev-cluster-ws-eco"]
    (diff,) = compare(base, head)
    assert diff.change is StackChange.REMOVED
    kept = [item.type for item in diff.resources if item.impact is Impact.ORPHAN]
    assert kept == ["Custom::PclusterCluster"]
    assert diff.losses == ()


def test_an_output_that_changes_is_counted(compare: Compare, pair: Any) -> None:
    base, head = pair
    head["ws-dev-network"].setdefault("Outputs", {})["Extra"] = {"Value": "x"}
    (diff,) = compare(base, head)
    assert (diff.resources, diff.other) == ((), 1)


def test_secrets_are_hidden_in_the_difference(compare: Compare, pair: Any) -> None:
    base, head = pair
    for template, secret in ((base, "swordfish"), (head, "rainbow trout")):
        cluster = _of_type(template["ws-dev-cluster-ws-eco"], "Custom::PclusterCluster")
        cluster["Properties"]["Password"] = secret
        configuration = cluster["Properties"]["ClusterConfiguration"]
        configuration["HeadNode"]["Token"] = secret
        configuration["HeadNode"]["InstanceType"] = "t3.large" if template is head else "t3.medium"
        configuration["Scheduling"]["SlurmSettings"]["CustomSlurmSettings"] = [
            {"StoragePass": secret, "Other": f"AKIAIOSFODNN7EXAMPL{secret[0].upper()}"}
        ]
    (diff,) = compare(base, head)
    for secret in ("swordfish", "rainbow", "trout", "AKIAIOSFODNN7"):
        assert secret not in diff.text
    for shown in ("Password", "Token", "StoragePass", "t3.medium", "t3.large"):
        assert shown in diff.text
