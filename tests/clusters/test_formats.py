from __future__ import annotations

import json
from typing import Any

import pytest

from clusterbox.clusters.findings import Accepted, Finding, Level, NotChecked
from clusterbox.clusters.formats import render_github, render_json, render_sarif

ERROR = Finding(
    cluster="ws-eco",
    level=Level.ERROR,
    rule="RootVolumeSizeValidator",
    path="HeadNode.LocalStorage.RootVolume.Size",
    file="cluster_configs/my eco.yaml",
    line=33,
    message="Root volume size 20 GiB: 100% too small, by far",
    advice="Make it larger.",
)
HINT = Finding("ws-eco", Level.INFO, "LogSettings", "", "a.yaml", None, "No section.", "")
UNCHECKED = NotChecked("ws-eco", "KeyPairValidator", "whether key pair k exists")


@pytest.fixture
def sarif() -> dict[str, Any]:
    log: dict[str, Any] = json.loads(render_sarif([ERROR, HINT, ERROR], [UNCHECKED]))
    return log


def test_json_has_findings_and_what_was_not_checked() -> None:
    document = json.loads(render_json([ERROR], [UNCHECKED]))
    assert document == {
        "findings": [
            {
                "cluster": "ws-eco",
                "level": "ERROR",
                "rule": "RootVolumeSizeValidator",
                "path": "HeadNode.LocalStorage.RootVolume.Size",
                "file": "cluster_configs/my eco.yaml",
                "line": 33,
                "message": "Root volume size 20 GiB: 100% too small, by far",
                "advice": "Make it larger.",
            }
        ],
        "not_checked": [
            {
                "cluster": "ws-eco",
                "rule": "KeyPairValidator",
                "reason": "whether key pair k exists",
            }
        ],
        "accepted": [],
    }


def test_sarif_has_what_its_schema_requires(sarif: dict[str, Any]) -> None:
    assert sarif["version"] == "2.1.0"
    (run,) = sarif["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "clusterbox"
    assert [rule["id"] for rule in driver["rules"]] == ["LogSettings", "RootVolumeSizeValidator"]
    assert all(rule["help"]["text"] for rule in driver["rules"])
    for result in run["results"]:
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["message"]["text"]


def test_sarif_says_where_and_how_serious(sarif: dict[str, Any]) -> None:
    error, hint, _ = sarif["runs"][0]["results"]
    assert (error["level"], hint["level"]) == ("error", "note")
    assert error["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "cluster_configs/my%20eco.yaml"},
        "region": {"startLine": 33},
    }
    # A region has a line, also where none is known.
    assert hint["locations"][0]["physicalLocation"]["region"] == {"startLine": 1}


def test_sarif_tells_what_was_not_checked(sarif: dict[str, Any]) -> None:
    (invocation,) = sarif["runs"][0]["invocations"]
    (notification,) = invocation["toolExecutionNotifications"]
    assert "KeyPairValidator not checked: whether key pair k exists" in str(notification)


def test_a_fingerprint_is_one_finding_s_and_outlives_a_moved_line(sarif: dict[str, Any]) -> None:
    moved = Finding(**{**ERROR.__dict__, "line": 99, "message": "Root volume size 21 GiB"})
    again = json.loads(render_sarif([moved], []))
    prints = [item["partialFingerprints"] for item in sarif["runs"][0]["results"]]
    assert again["runs"][0]["results"][0]["partialFingerprints"] == prints[0]
    assert len({str(item) for item in prints}) == 3


def test_what_is_accepted_is_a_suppressed_result_with_its_reason() -> None:
    accepted = [Accepted(HINT, "the logs go elsewhere")]
    log = json.loads(render_sarif([ERROR], [], accepted))
    told, suppressed = log["runs"][0]["results"]
    assert "suppressions" not in told
    assert suppressed["ruleId"] == "LogSettings"
    assert suppressed["suppressions"] == [
        {"kind": "external", "justification": "the logs go elsewhere"}
    ]
    (entry,) = json.loads(render_json([], [], accepted))["accepted"]
    assert (entry["rule"], entry["reason"]) == ("LogSettings", "the logs go elsewhere")


def test_github_annotations_are_escaped() -> None:
    assert render_github([ERROR, HINT]).splitlines() == [
        "::error file=cluster_configs/my eco.yaml,line=33,"
        "title=ws-eco%3A RootVolumeSizeValidator::HeadNode.LocalStorage.RootVolume.Size: "
        "Root volume size 20 GiB: 100%25 too small, by far%0AMake it larger.",
        "::notice file=a.yaml,line=1,title=ws-eco%3A LogSettings::the configuration: No section.",
    ]
