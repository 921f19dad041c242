from __future__ import annotations

import pytest

from clusterbox.review.redaction import redact


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("key AKIAIOSFODNN7EXAMPLE is", "AKIAIOSFODNN7EXAMPLE"),
        ("StoragePass=hunter22", "hunter22"),
        ('"Password": "correct horse"', "correct horse"),
        ("db_password: 'pa ss'", "pa ss"),
        ('--password "abcdef"', "abcdef"),
        ("API_KEY=1234567890", "1234567890"),
        ("mysql://root:topsecret@db.internal/ws", "topsecret"),
        ("ghp_0123456789abcdefghij0123456789", "ghp_0123456789abcdefghij0123456789"),
        ("glpat-ABCDEFGHIJKLMNOPQRST", "glpat-ABCDEFGHIJKLMNOPQRST"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "MIIE"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNz", "b3BlbnNz"),
        ("+      [+] SecretString: swordfish", "swordfish"),
    ],
)
def test_secrets_are_hidden(text: str, secret: str) -> None:
    assert secret not in redact(text)
    assert "***" in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "PasswordSecretArn: arn:aws:secretsmanager:us-west-2:427491229895:secret:ldap-AbCdEf",
        "SecretName: slurmdb",
        "HttpTokens: required",
        '"HttpTokens": "required"',
        "token: ${storage.secret}",
        "Password: '{{resolve:secretsmanager:ldap}}'",
        "AWS::SecretsManager::Secret",
        "secretsmanager:GetSecretValue on arn:aws:secretsmanager:*",
        "MaxCount: 3",
        "Encrypted: true",
        "TokenPolicy: x",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_hiding_twice_changes_nothing() -> None:
    once = redact("Password: swordfish, api_key=abc")
    assert redact(once) == once
