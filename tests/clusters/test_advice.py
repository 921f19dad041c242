from __future__ import annotations

import ast
from pathlib import Path

import pytest

from clusterbox.clusters.advice import advise, advised_rules
from clusterbox.clusters.rules import rule_names

# Classes that other validators are made of.
_BASES = {"Validator", "AsyncValidator", "_LaunchTemplateValidator"}


@pytest.fixture(scope="module")
def validators(root: Path) -> dict[str, list[str]]:
    """Return the messages of each validator of the installed library; what varies in them is ~."""
    (folder,) = root.glob(".venv-pcluster/lib/python3*/site-packages/pcluster/validators")
    found: dict[str, list[str]] = {}
    for file in folder.glob("*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and _is_validator(node):
                found[node.name] = _messages(node)
    return found


def _is_validator(node: ast.ClassDef) -> bool:
    bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
    return node.name not in _BASES and any("Validator" in base for base in bases)


def _messages(node: ast.ClassDef) -> list[str]:
    calls = [call for call in ast.walk(node) if isinstance(call, ast.Call) and call.args]
    return [
        _text(call.args[0])
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr == "_add_failure"
    ]


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(value) for value in node.values)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return _text(node.func.value)
    return "~"


@pytest.mark.integration
def test_every_validator_of_the_installed_library_has_advice(
    validators: dict[str, list[str]],
) -> None:
    assert len(validators) > 110
    assert set(validators) - advised_rules() == set()


@pytest.mark.integration
def test_all_advice_is_for_a_validator_or_an_own_rule(validators: dict[str, list[str]]) -> None:
    assert advised_rules() - set(validators) - set(rule_names()) == {"Schema", "Validators"}


@pytest.mark.integration
def test_advice_for_each_message_of_a_validator_says_what_to_do(
    validators: dict[str, list[str]],
) -> None:
    for rule, messages in validators.items():
        for message in messages or [""]:
            advice = advise(rule, message)
            assert advice[0].isupper(), rule
            assert advice.endswith("."), rule
            assert 20 < len(advice) < 260, f"{rule}: {advice}"


def test_every_own_rule_has_advice() -> None:
    assert set(rule_names()) <= advised_rules()


@pytest.mark.parametrize(
    ("rule", "message", "expected"),
    [
        ("KeyPairValidator", "ubuntu2404 does not support RSA keys.", "ed25519"),
        ("KeyPairValidator", "If you do not specify a key pair, ...", "HeadNode.Ssh.KeyName"),
        ("KeyPairValidator", "The key pair 'x' does not exist", "Correct Ssh.KeyName"),
        ("CustomAmiTagValidator", "was created with pcluster 3.14.0, but", "3.16.1"),
        ("EfaValidator", "Instance type 't3.large' does not support EFA.", "c6i.32xlarge"),
        ("EfaValidator", "The EC2 instance selected supports enhanced", "Efa.Enabled"),
        ("Schema", "Not a valid integer.", "whole number"),
        ("Schema", "Unknown field.", "spelling"),
        ("DeletionPolicyValidator", "The DeletionPolicy is set to Retain. The", "Nothing to do"),
        ("DeletionPolicyValidator", "The DeletionPolicy is set to Delete. The", "to Retain"),
        ("AsyncTimedUrlValidator", "The value 'x' is not a valid URL, choose", "s3://"),
    ],
)
def test_advice_fits_the_message(rule: str, message: str, expected: str) -> None:
    assert expected in advise(rule, message)


def test_a_rule_of_a_later_library_gets_general_advice() -> None:
    assert advise("QuantumValidator", "Entangled.").startswith("Change the value")
