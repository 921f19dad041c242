"""What people forget, as metrics."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from prometheus_client import CollectorRegistry, generate_latest

from clusterbox.aws import Account
from clusterbox.observe.heartbeat import HeartbeatCollector
from clusterbox.observe.metrics import SITE
from clusterbox.observe.site_collector import SiteCollector, SiteSources, make_collector

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
OWN = [{"Key": "Environment", "Value": "ws-dev"}]
SYSTEMS = [
    {
        "FileSystemId": "fs-1",
        "ThroughputMode": "bursting",
        "PerformanceMode": "generalPurpose",
        "Tags": OWN,
    },
    {
        "FileSystemId": "fs-2",
        "ThroughputMode": "elastic",
        "PerformanceMode": "generalPurpose",
        "Tags": OWN,
    },
    {"FileSystemId": "fs-3", "ThroughputMode": "bursting", "Tags": []},
]
ANSWERS: dict[str, dict[str, Any]] = {
    "describe_images": {
        "Images": [{"ImageId": "ami-1", "CreationDate": "2026-02-28T12:00:00.000Z"}]
    },
    "describe_file_systems": {"FileSystems": SYSTEMS},
    "list_protected_resources": {
        "Results": [
            {
                "ResourceArn": "arn:aws:elasticfilesystem:us-west-2:1:file-system/fs-1",
                "ResourceType": "EFS",
                "LastBackupTime": NOW - timedelta(hours=5),
            }
        ]
    },
    "list_certificates": {
        "CertificateSummaryList": [
            {"DomainName": "ws.example.gov", "NotAfter": NOW + timedelta(days=3), "InUse": True},
            {"DomainName": "ws.example.gov", "NotAfter": NOW + timedelta(days=90), "InUse": True},
            {"DomainName": "old.example.gov", "NotAfter": NOW, "InUse": False},
        ]
    },
    "get_metric_data": {
        "MetricDataResults": [{"Id": "m0", "Values": [40.0, 30.0]}, {"Id": "m1", "Values": []}]
    },
}


class Client:
    """Answers of AWS by operation, in the case of boto3; an operation of `refused` is denied."""

    def __init__(self, answers: Mapping[str, Mapping[str, Any]], refused: set[str]) -> None:
        self.answers = answers
        self.refused = refused
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, operation: str) -> Any:
        def call(**words: Any) -> Mapping[str, Any]:
            self.asked.append((operation, words))
            if operation in self.refused:
                error: Any = {"Error": {"Code": "AccessDenied", "Message": "no"}}
                raise ClientError(error, operation)
            return self.answers[operation]

        return call

    def get_paginator(self, operation: str) -> Any:
        client = self

        class Paginator:
            def paginate(self, **words: Any) -> Iterator[Mapping[str, Any]]:
                words.pop("PaginationConfig", None)
                yield getattr(client, operation)(**words)

        return Paginator()


def collect(
    *refused: str, answers: Mapping[str, Mapping[str, Any]] = ANSWERS
) -> tuple[SiteCollector, Client, list[str]]:
    client, said = Client(answers, set(refused)), list[str]()
    sources = SiteSources(
        "ws-dev",
        lambda: Account("427491229895", "us-west-2", lambda _: client),
        {"compute": "ami-1", "admin": "ami-1"},
        clock=lambda: NOW,
    )
    collector, backgrounds = make_collector(sources, refresh_seconds=300, report=said.append)
    for background in backgrounds:
        background.refresh()
    return collector, client, said


def samples(collector: SiteCollector) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(collector)
    lines = generate_latest(registry).decode().splitlines()
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in lines
        if not line.startswith("#")
    }


def test_each_source_is_told_with_its_figures() -> None:
    collector, _, said = collect()
    day = 86400.0
    assert samples(collector) == {
        'clusterbox_site_source_up{source="images"}': 1,
        'clusterbox_site_source_up{source="backups"}': 1,
        'clusterbox_site_source_up{source="certificates"}': 1,
        'clusterbox_site_source_up{source="file_systems"}': 1,
        'clusterbox_image_age_seconds{image="compute"}': 10 * day,
        'clusterbox_image_age_seconds{image="admin"}': 10 * day,
        'clusterbox_backup_age_seconds{resource="fs-1"}': 5 * 3600,
        'clusterbox_backup_missing{resource="fs-1"}': 0,
        'clusterbox_backup_missing{resource="fs-2"}': 1,
        'clusterbox_certificate_expiry_timestamp_seconds{domain="ws.example.gov"}': (
            NOW.timestamp() + 90 * day
        ),
        'clusterbox_efs_burst_credit_bytes{file_system="fs-1"}': 40,
        'clusterbox_efs_io_limit_ratio{file_system="fs-1"}': 0.4,
    }
    assert said == []


def test_only_a_file_system_that_bursts_is_asked_for_its_credits() -> None:
    _, client, _ = collect()
    asked = [
        query["MetricStat"]["Metric"]
        for operation, words in client.asked
        if operation == "get_metric_data"
        for query in words["MetricDataQueries"]
    ]
    assert [
        metric["Dimensions"][0]["Value"]
        for metric in asked
        if metric["MetricName"] == "BurstCreditBalance"
    ] == ["fs-1"]


def test_a_scrape_asks_aws_nothing() -> None:
    collector, client, _ = collect()
    before = len(client.asked)
    for _ in range(10):
        samples(collector)
    assert len(client.asked) == before


@pytest.mark.parametrize(
    ("call", "source", "permission"),
    [
        ("describe_images", "images", "ec2:DescribeImages"),
        ("list_protected_resources", "backups", "backup:ListProtectedResources"),
        ("list_certificates", "certificates", "acm:ListCertificates"),
        ("get_metric_data", "file_systems", "cloudwatch:GetMetricData"),
    ],
)
def test_a_source_that_is_refused_has_no_figures_and_the_others_have(
    call: str, source: str, permission: str
) -> None:
    collector, _, said = collect(call)
    found = samples(collector)
    up = {name: value for name, value in found.items() if "source_up" in name}
    assert up.pop(f'clusterbox_site_source_up{{source="{source}"}}') == 0
    assert set(up.values()) == {1}
    assert len(said) == 1
    assert said[0].startswith(f"{source}: ")
    assert said[0].endswith(f"allow {permission}")


def test_credentials_are_asked_for_anew_with_each_read() -> None:
    opened = []

    def open_account() -> Account:
        opened.append(1)
        return Account("427491229895", "us-west-2", lambda _: Client(ANSWERS, set()))

    sources = SiteSources("ws-dev", open_account, {}, clock=lambda: NOW)
    _, backgrounds = make_collector(sources, refresh_seconds=300, report=lambda _: None)
    for background in backgrounds * 2:
        background.refresh()
    assert len(opened) == 8


def test_every_metric_of_the_site_is_told_by_one_of_both_collectors(tmp_path: Path) -> None:
    (tmp_path / "heartbeat").touch()
    told = {family.name for family in collect()[0].collect()}
    told |= {family.name for family in HeartbeatCollector(tmp_path / "heartbeat").collect()}
    assert told == {metric.name for metric in SITE}


def test_the_heartbeat_is_when_the_daemon_wrote_its_file(tmp_path: Path) -> None:
    path = tmp_path / "clustermgtd_heartbeat"
    path.touch()
    os.utime(path, (1_700_000_000, 1_700_000_000))
    (family,) = HeartbeatCollector(path).collect()
    (sample,) = family.samples
    assert sample.labels == {"daemon": "clustermgtd"}
    assert sample.value == 1_700_000_000


def test_another_slurm_has_no_heartbeat(tmp_path: Path) -> None:
    assert list(HeartbeatCollector(tmp_path / "none").collect()) == []
