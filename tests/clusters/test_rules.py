from __future__ import annotations

import copy
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clusterbox.clusters.composed import ComposedCluster, compose_repository, read_native
from clusterbox.clusters.findings import Finding, Level
from clusterbox.clusters.plain_text_secrets import find_plain_text_secrets
from clusterbox.clusters.rules import find_rule_findings, rule_names
from clusterbox.clusters.sections import architecture, has_nvidia_gpus
from clusterbox.errors import ProblemsError
from tests.clusters.broken import BROKEN, ECO, Broken, break_cluster, edit, parse_path

Clusters = dict[str, ComposedCluster]

_NATIVE = """\
Region: eu-west-1
Image:
  Os: alinux2023
HeadNode:
  InstanceType: t3.medium
  Networking:
    SubnetId: subnet-0123456789abcdef0
Scheduling:
  Scheduler: slurm
  SlurmQueues:
    - Name: one
      ComputeResources:
        - Name: small
          InstanceType: c5.large
      Networking:
        SubnetIds: [subnet-0123456789abcdef0]
"""


@pytest.fixture(scope="module")
def clusters(root: Path) -> Clusters:
    return compose_repository(root)


def test_the_shipped_clusters_give_no_finding(clusters: Clusters) -> None:
    assert {name: find_rule_findings(cluster) for name, cluster in clusters.items()} == {
        "sandbox-eco": [],
        "sandbox-economy-hpc": [],
        "ws-eco": [],
        "ws-eco-login": [],
    }


def test_the_shipped_clusters_give_no_finding_as_cloudformation_delivers_them(
    clusters: Clusters,
) -> None:
    for cluster in clusters.values():
        delivered = replace(cluster, configuration=_as_texts(cluster.configuration))
        assert find_rule_findings(delivered) == []


def _as_texts(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _as_texts(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_as_texts(item) for item in data]
    return str(data).lower() if isinstance(data, bool) else str(data)


_OWN = [broken for broken in BROKEN if broken.rule in rule_names()]


@pytest.mark.parametrize("broken", _OWN, ids=lambda broken: broken.name)
def test_a_mistake_gives_its_finding_with_its_line_and_advice(
    clusters: Clusters, broken: Broken
) -> None:
    cluster = break_cluster(clusters[broken.base], broken)
    (found,) = (
        finding
        for finding in find_rule_findings(cluster)
        if finding.rule == broken.rule and finding.path == broken.path
    )
    assert found.level == broken.level
    assert broken.message in found.message
    assert found.line == cluster.file.line_of(parse_path(broken.path))
    assert found.file == cluster.file.name
    assert found.advice


def test_every_own_rule_has_a_broken_configuration() -> None:
    assert {broken.rule for broken in _OWN} == set(rule_names())


def test_a_finding_stands_on_the_line_of_its_key(clusters: Clusters) -> None:
    (found,) = _find(clusters, {"Imds.ImdsSupport": "v1.0"})
    cluster = clusters[ECO]
    text = Path("cluster_configs/eco.yaml")
    line = (Path(__file__).parents[2] / text).read_text(encoding="utf-8").splitlines()
    expected = next(number for number, item in enumerate(line, 1) if "ImdsSupport" in item)
    assert (found.file, cluster.line_of(("Imds", "ImdsSupport"))) == (str(text), expected)


def _find(clusters: Clusters, edits: dict[str, Any], base: str = ECO) -> list[Finding]:
    return find_rule_findings(
        break_cluster(clusters[base], Broken("", base, edits, "", "", "", ""))
    )


def test_only_general_rules_hold_for_a_cluster_without_a_site(tmp_path: Path) -> None:
    file = tmp_path / "native.yaml"
    file.write_text(_NATIVE, encoding="utf-8")
    found = find_rule_findings(read_native(file))
    assert [(item.rule, item.level, item.path, item.line) for item in found] == [
        ("SshFromAnywhere", Level.WARNING, "HeadNode.Ssh.AllowedIps", 4),
        ("QueueUpdateStrategy", Level.INFO, "Scheduling.SlurmSettings.QueueUpdateStrategy", 8),
        ("LogSettings", Level.INFO, "Monitoring.Logs.CloudWatch", 1),
    ]


def test_login_pools_take_the_allowed_addresses_of_the_head_node(tmp_path: Path) -> None:
    file = tmp_path / "native.yaml"
    pool = "LoginNodes: {Pools: [{Name: login, InstanceType: t3.medium}]}\n"
    head = "HeadNode: {Ssh: {AllowedIps: 10.0.0.0/8}}\n"
    file.write_text(pool + head)
    assert find_rule_findings(read_native(file)) == []
    file.write_text(pool)
    assert [item.path for item in find_rule_findings(read_native(file))] == [
        "LoginNodes.Pools[0].Ssh.AllowedIps"
    ]


def test_dates_without_quotes_are_refused_as_values_and_as_keys(tmp_path: Path) -> None:
    file = tmp_path / "native.yaml"
    file.write_text("Tags:\n  - {Key: until, Value: 2031-05-01}\n2031-05-02: x\n")
    with pytest.raises(ProblemsError) as caught:
        read_native(file)
    assert [(problem.path, problem.line) for problem in caught.value.problems] == [
        ("Tags[0].Value", 2),
        ("2031-05-02", 3),
    ]
    assert "put it in quotes" in str(caught.value)


def test_a_configuration_without_queues_gives_no_remarks_on_missing_sections(
    tmp_path: Path,
) -> None:
    file = tmp_path / "two.yaml"
    file.write_text("cluster default:\n  base_os: alinux2\n", encoding="utf-8")
    assert find_rule_findings(read_native(file)) == []


def test_a_secret_is_never_shown(clusters: Clusters) -> None:
    found = _find(
        clusters,
        {
            "HeadNode.CustomActions.OnNodeStart": {
                "Script": "s3://ws-out/a.sh",
                "Args": ["--token=abc123def", "AKIAIOSFODNN7EXAMPLE"],
            }
        },
    )
    assert [item.rule for item in found] == ["PlainTextSecret", "PlainTextSecret"]
    shown = " ".join(f"{item.message} {item.advice}" for item in found)
    assert "abc123def" not in shown
    assert "AKIA" not in shown


@pytest.mark.parametrize(
    "value",
    [
        {"PasswordSecretArn": "arn:aws:secretsmanager:us-west-2:123456789012:secret:ad-x1"},
        {"MungeKeySecretArn": "arn:aws:secretsmanager:us-west-2:123456789012:secret:munge"},
        {"KeyName": "ws-pcluster-keypair", "KmsKeyId": "1234abcd-12ab-34cd-56ef-1234567890ab"},
        {"AccountingStoragePass": "/var/run/munge/munge.socket.2"},
        {"LdapTlsCaCert": "/opt/parallelcluster/shared/ca.pem"},
        {"GenerateSshKeysForUsers": True, "GenerateSshKeys": "true"},
        {"Args": ["--secret-name", "prod/database", "--token-file", "token.txt"]},
        {"Args": ["--password", "${DB_PASSWORD}", "--region", "us-west-2"]},
        {"Args": ["--password-secret", "arn:aws:secretsmanager:us-west-2:1:secret:x"]},
        {"Key": "PasswordPolicy", "Value": "strict"},
        {"Key": "TokenTtl", "Value": "3600"},
        {"Key": "Passenger", "Value": "yes please"},
        {"Script": "https://bucket.s3.us-west-2.amazonaws.com/secrets/setup.sh"},
        {"ExtraChefAttributes": '{"cluster": {"password_secret_arn": "arn:aws:x"}}'},
        {"ExtraChefAttributes": '{"not": "json"'},
        {"Uri": "mysql.example.org:3306", "UserName": "slurm"},
        {"Bypass": "on", "Compass": "north", "PassThrough": "all", "TokenBucket": "fast"},
        {"Args": ["PasswordAuthentication=required"]},
    ],
)
def test_addresses_of_secrets_and_words_about_them_are_no_secrets(value: Any) -> None:
    assert list(find_plain_text_secrets(value)) == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"StoragePass": "hunter2"}, [(("StoragePass",), "the value of StoragePass")]),
        ({"Args": ["-x", "DB_PASSWORD=hunter2"]}, [(("Args", 1), "the value of DB_PASSWORD")]),
        ({"db_password_2": "x1"}, [(("db_password_2",), "the value of db_password_2")]),
        ({"PASSWORD_PROD": "x1"}, [(("PASSWORD_PROD",), "the value of PASSWORD_PROD")]),
        ({"Args": ["--api-key", "0a1b2c"]}, [(("Args", 1), "the value of api-key")]),
        ({"Key": "secretKey", "Value": "abc"}, [(("Value",), "the value of secretKey")]),
        (["ghp_" + "a" * 36], [((0,), "a GitHub token")]),
        (["glpat-" + "a" * 20], [((0,), "a GitLab token")]),
        (["https://me:hunter2@git.example.org/x"], [((0,), "a password in an address")]),
        (["-----BEGIN OPENSSH PRIVATE KEY-----\nabc"], [((0,), "a private key")]),
        (['{"a": [{"dbPassword": "x1"}]}'], [((0,), "the value of dbPassword")]),
        ({"Token": 1234}, []),
    ],
)
def test_secrets_are_found_by_form_and_by_name(value: Any, expected: list[Any]) -> None:
    assert list(find_plain_text_secrets(value)) == expected


@pytest.mark.parametrize(
    ("instance_type", "expected"),
    [
        ("t4g.medium", "arm64"),
        ("c7gn.16xlarge", "arm64"),
        ("im4gn.large", "arm64"),
        ("g5g.xlarge", "arm64"),
        ("a1.metal", "arm64"),
        ("hpc7g.4xlarge", "arm64"),
        ("p6e-gb200.36xlarge", "arm64"),
        ("g4dn.xlarge", "x86_64"),
        ("hpc7a.96xlarge", "x86_64"),
        ("m7i-flex.large", "x86_64"),
        ("u-6tb1.metal", "x86_64"),
        ("nonsense", "x86_64"),
    ],
)
def test_the_architecture_is_told_from_the_name(instance_type: str, expected: str) -> None:
    assert architecture(instance_type) == expected


def test_families_with_nvidia_gpus_are_told_from_the_name() -> None:
    kinds = ("p5.48xlarge", "g4dn.xlarge", "gr6.4xlarge", "m6g.large", "inf2.xlarge", "c6gn.large")
    assert [has_nvidia_gpus(kind) for kind in kinds] == [True, True, True, False, False, False]


def test_the_bastion_group_of_the_site_is_one_of_its_groups(clusters: Clusters) -> None:
    edits = {"HeadNode.Networking.SecurityGroups": ["sg-067d5d0cb608f6af9"]}
    assert _find(clusters, edits) == []


def test_storage_made_to_stay_gives_no_finding(clusters: Clusters) -> None:
    kept = {"DeletionPolicy": "Retain", "Encrypted": True}
    edits = {
        "SharedStorage[1]": {
            "Name": "a",
            "StorageType": "Efs",
            "MountDir": "/a",
            "EfsSettings": kept,
        },
        "SharedStorage[2]": {
            "Name": "b",
            "StorageType": "Ebs",
            "MountDir": "/ab",
            "EbsSettings": {"DeletionPolicy": "Snapshot"},
        },
    }
    assert _find(clusters, edits) == []


def test_malformed_configurations_give_findings_and_no_error(clusters: Clusters) -> None:
    """Put junk of every kind at random places; the schema is what refuses it."""
    choose = random.Random(1)  # noqa: S311 - no secret depends on it
    junk: list[Any] = [
        None,
        "",
        "x",
        7,
        -1,
        1.5,
        True,
        [],
        {},
        [None],
        {"x": []},
        [[{}]],
        [{"Key": []}],
    ]
    for cluster in clusters.values():
        places = [place for place in cluster.file.lines if place]
        for _ in range(300):
            data = copy.deepcopy(cluster.configuration)
            place = choose.choice(places)
            try:
                edit(data, place, choose.choice(junk))
            except (KeyError, TypeError, IndexError):
                continue
            broken = replace(
                cluster, configuration=data, file=replace(cluster.file, data=copy.deepcopy(data))
            )
            for finding in find_rule_findings(broken):
                assert finding.line is not None
