from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from clusterbox.cli.main import main
from clusterbox.clusters import validate
from clusterbox.clusters.findings import Finding, Level, NotChecked, Validation

NATIVE = "Region: us-west-2\nHeadNode: {InstanceType: t3.medium}\n"


def answer(*findings: Finding, unchecked: int = 0) -> Any:
    """Return a stand-in for the library that answers the same for every cluster."""

    def validate_clusters(_: object, clusters: Mapping[str, Any], __: object) -> Any:
        return {
            name: Validation(
                name,
                findings,
                tuple(NotChecked(name, f"Rule{index}", "who knows") for index in range(unchecked)),
            )
            for name in clusters
        }

    return validate_clusters


def finding(level: Level) -> Finding:
    return Finding(
        "ws-eco", level, "SomeRule", "HeadNode", "eco.yaml", 4, "It is wrong.", "Fix it."
    )


@pytest.mark.parametrize(("level", "code"), [(Level.ERROR, 1), (Level.WARNING, 0), (Level.INFO, 0)])
def test_only_an_error_fails(
    level: Level, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(validate, "validate_clusters", answer(finding(level)))
    assert main(["clusters", "validate", "ws-eco"]) == code
    output = capsys.readouterr()
    assert f"{level.value:<8}ws-eco  eco.yaml:4  HeadNode  (SomeRule)" in output.out
    assert "→ Fix it." in output.out
    assert output.err == ""


def test_lesser_findings_are_left_out_on_request_and_still_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = (finding(Level.WARNING), finding(Level.INFO))
    monkeypatch.setattr(validate, "validate_clusters", answer(*found))
    assert main(["clusters", "validate", "ws-eco", "--level", "error"]) == 0
    output = capsys.readouterr().out
    assert "SomeRule" not in output
    assert "1 cluster: 0 errors, 1 warning, 1 hint" in output


def test_what_was_not_checked_is_one_line_a_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(validate, "validate_clusters", answer(unchecked=6))
    assert main(["clusters", "validate"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  who knows (Rule0, Rule1, Rule2, Rule3 and 2 more)" in lines
    assert lines[-1] == (
        "4 clusters: 0 errors, 0 warnings, 0 hints; 6 checks that only AWS could answer"
    )


def test_an_unknown_cluster_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clusters", "validate", "ws-nowhere"]) == 2
    assert "there is no cluster ws-nowhere; known:" in capsys.readouterr().err


def test_outside_of_a_repository_only_files_can_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(validate, "validate_clusters", answer())
    (tmp_path / "mine.yaml").write_text(NATIVE)
    assert main(["clusters", "validate", "--file", "mine.yaml"]) == 0
    assert main(["clusters", "validate"]) == 2
    assert "is not in a clusterbox repository" in capsys.readouterr().err


def test_every_unreadable_file_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(validate, "validate_clusters", answer())
    (tmp_path / "twice.yaml").write_text("Region: a\nRegion: b\n")
    (tmp_path / "broken.yaml").write_text("Region: [")
    for name, said in (
        ("twice.yaml", "must stand only once"),
        ("broken.yaml", "is not one YAML document"),
        ("absent.yaml", "there is no such file"),
    ):
        assert main(["clusters", "validate", "--file", str(tmp_path / name)]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.integration
def test_a_native_file_is_judged_outside_of_any_repository(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(NATIVE)
    words = ["clusters", "validate", "--file", "mine.yaml", "--format", "json"]
    done = subprocess.run(
        [sys.executable, "-m", "clusterbox.cli.main", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    missing = {item["path"] for item in json.loads(done.stdout)["findings"]}
    assert {"Image", "Scheduling", "HeadNode.Networking"} <= missing
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]
