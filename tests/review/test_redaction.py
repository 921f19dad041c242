from __future__ import annotations

import pytest

from clusterbox.review.redaction import find_secrets, hide_secrets, redact


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


CONFIGURATION = {
    "Args": ["--password", "hunter2pw", "--db-token=hunter3pw", "--name", "worker"],
    "Tags": [{"Key": "ApiToken", "Value": 'hunter4"pw'}],
    "CustomSlurmSettings": [{"AccountingStoragePass": "hunter5pw"}],
    "Arn": "arn:aws:secretsmanager:us-west-2:427491229895:secret:ldap",
}


def test_what_the_files_tell_to_be_a_secret_is_hidden_wherever_it_stands() -> None:
    secrets = find_secrets([CONFIGURATION])
    shown = {"old": CONFIGURATION, "text": '[+] "Value": "hunter4\\"pw" for hunter2pw', "count": 3}
    hidden = hide_secrets(shown, secrets)
    assert "hunter" not in str(hidden)
    assert hidden["old"]["Args"] == ["--password", "***", "--db-token=***", "--name", "worker"]  # type: ignore[index]
    assert hidden["old"]["Arn"] == CONFIGURATION["Arn"]  # type: ignore[index]
    assert hidden["count"] == 3


def test_short_words_are_not_hidden_everywhere() -> None:
    assert find_secrets([{"Password": "eco"}]) == ()
