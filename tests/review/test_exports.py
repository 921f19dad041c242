from __future__ import annotations

from typing import Any

import pytest

from clusterbox.review.exports import ExportInUse, find_exports_in_use
from clusterbox.review.stacks import Impact, ResourceDiff, StackChange, StackDiff

EXPORTER: dict[str, Any] = {
    "Outputs": {
        "A": {"Value": {"Ref": "Data"}, "Export": {"Name": "storage:Data"}},
        "B": {"Value": {"Fn::GetAtt": ["Group", "GroupId"]}, "Export": {"Name": "storage:Group"}},
        "C": {"Value": "plain"},
    }
}
IMPORTER: dict[str, Any] = {
    "Resources": {"X": {"Properties": {"Ids": [{"Fn::ImportValue": "storage:Data"}]}}}
}
BEFORE = {"storage": EXPORTER, "cluster": IMPORTER}


def _diff(impact: Impact, logical_id: str = "Data") -> list[StackDiff]:
    resource = ResourceDiff(logical_id, "T", f"storage/{logical_id}", impact, ())
    return [StackDiff("e", "storage", StackChange.CHANGED, (resource,), 0, "")]


def test_a_replaced_resource_whose_value_is_imported_is_found() -> None:
    found = find_exports_in_use(BEFORE, BEFORE, _diff(Impact.REPLACE))
    assert found == (ExportInUse("storage", ("storage/Data",), ("cluster",)),)


def test_an_export_that_goes_while_it_is_imported_is_found() -> None:
    after: dict[str, Any] = {"storage": {"Outputs": {}}, "cluster": {}}
    found = find_exports_in_use(BEFORE, after, _diff(Impact.DESTROY))
    assert found == (ExportInUse("storage", ("storage/Data",), ("cluster",)),)


@pytest.mark.parametrize("diff", [_diff(Impact.UPDATE), _diff(Impact.REPLACE, "Group")])
def test_what_stays_or_is_not_imported_is_fine(diff: list[StackDiff]) -> None:
    assert find_exports_in_use(BEFORE, BEFORE, diff) == ()


def test_a_stack_that_is_removed_or_new_is_told_of_elsewhere() -> None:
    after = {"storage": EXPORTER}
    assert find_exports_in_use(BEFORE, after, _diff(Impact.REPLACE)) == ()
    assert find_exports_in_use({"cluster": IMPORTER}, BEFORE, _diff(Impact.REPLACE)) == ()
