"""Findings as other tools read them: SARIF 2.1.0, and GitHub's workflow commands."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from clusterbox.clusters.findings import Accepted, Finding, Level, NotChecked

_SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_SARIF_LEVELS = {Level.ERROR: "error", Level.WARNING: "warning", Level.INFO: "note"}
_GITHUB_COMMANDS = {Level.ERROR: "error", Level.WARNING: "warning", Level.INFO: "notice"}


def render_json(
    findings: Iterable[Finding],
    not_checked: Iterable[NotChecked],
    accepted: Iterable[Accepted] = (),
) -> str:
    """Return findings, what was not checked and what is accepted as one JSON object."""
    document = {
        "findings": [_record(item) for item in findings],
        "not_checked": [
            {"cluster": item.cluster, "rule": item.rule, "reason": item.reason}
            for item in not_checked
        ],
        "accepted": [{**_record(item.finding), "reason": item.reason} for item in accepted],
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def _record(finding: Finding) -> dict[str, Any]:
    return {
        "cluster": finding.cluster,
        "level": finding.level.value,
        "rule": finding.rule,
        "path": finding.path,
        "file": finding.file,
        "line": finding.line,
        "message": finding.message,
        "advice": finding.advice,
    }


def render_sarif(
    findings: Sequence[Finding],
    not_checked: Iterable[NotChecked],
    accepted: Sequence[Accepted] = (),
) -> str:
    """Return a SARIF log, as code scanning of GitHub and others read it.

    What was not checked is a notification of the run, and what is accepted a suppressed result. A
    finding keeps its fingerprint when lines move and when values in its message change.
    """
    told = [*((item, None) for item in findings), *((i.finding, i.reason) for i in accepted)]
    rules = sorted({finding.rule for finding, _ in told})
    places: Counter[str] = Counter()
    results = []
    for finding, reason in told:
        place = "/".join((finding.file, finding.cluster, finding.rule, finding.path))
        places[place] += 1
        result = _sarif_result(finding, rules, f"{place}/{places[place]}")
        if reason is not None:
            result["suppressions"] = [{"kind": "external", "justification": reason}]
        results.append(result)
    log = {
        "$schema": _SARIF_SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "clusterbox",
                        "rules": [_sarif_rule(rule, [item for item, _ in told]) for rule in rules],
                    }
                },
                "invocations": [
                    {
                        "executionSuccessful": True,
                        "toolExecutionNotifications": [
                            {
                                "level": "note",
                                "message": {
                                    "text": f"{item.cluster}: {item.rule} not checked:"
                                    f" {item.reason}"
                                },
                            }
                            for item in not_checked
                        ],
                    }
                ],
                "columnKind": "unicodeCodePoints",
                "results": results,
            }
        ],
    }
    return json.dumps(log, indent=2, ensure_ascii=False)


def _sarif_rule(rule: str, findings: Iterable[Finding]) -> dict[str, Any]:
    first = next(finding for finding in findings if finding.rule == rule)
    return {
        "id": rule,
        "shortDescription": {"text": rule},
        "fullDescription": {"text": first.message},
        "help": {"text": first.advice or first.message},
        "defaultConfiguration": {"level": _SARIF_LEVELS[first.level]},
    }


def _sarif_result(finding: Finding, rules: Sequence[str], place: str) -> dict[str, Any]:
    text = f"{finding.cluster}: {finding.path or 'the configuration'}: {finding.message}"
    return {
        "ruleId": finding.rule,
        "ruleIndex": rules.index(finding.rule),
        "level": _SARIF_LEVELS[finding.level],
        "message": {"text": f"{text} {finding.advice}".strip()},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": _uri(finding.file)},
                    "region": {"startLine": finding.line or 1},
                }
            }
        ],
        "partialFingerprints": {
            "clusterboxFinding/v1": hashlib.sha256(place.encode()).hexdigest()[:32]
        },
    }


def _uri(file: str) -> str:
    return Path(file).as_uri() if Path(file).is_absolute() else quote(file)


def render_github(findings: Iterable[Finding]) -> str:
    """Return one workflow command a finding, which GitHub shows at the line of the change."""
    return "\n".join(
        f"::{_GITHUB_COMMANDS[item.level]} file={_property(item.file)},line={item.line or 1},"
        f"title={_property(f'{item.cluster}: {item.rule}')}::"
        + _data(f"{item.path or 'the configuration'}: {item.message}\n{item.advice}".strip())
        for item in findings
    )


def _data(text: str) -> str:
    """Return a text as the message of a workflow command (actions/toolkit, `escapeData`)."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """Return a text as a property of a workflow command (actions/toolkit, `escapeProperty`)."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
