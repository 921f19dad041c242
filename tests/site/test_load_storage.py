from __future__ import annotations

from pathlib import Path

import pytest

from tests.site.site_files import EXISTING, edit, problems_of


@pytest.mark.parametrize(
    ("old", "new", "problems"),
    [
        pytest.param(
            (
                "    home:\n      subnets: [compute.a, compute.b]\n      "
                "access_points:\n        projects: {path: /projects, uid: 0, gid: 0, "
                'permissions: "1777"}\n'
            ),
            "    {}\n",
            [
                "22: storage.file_systems: must not be empty (found: {})",
            ],
            id="a site without file systems",
        ),
        pytest.param(
            "      subnets: [compute.a, compute.b]\n",
            "",
            [
                (
                    "23: storage.file_systems.home.subnets: must name at least one subnet for "
                    "the mount target"
                ),
            ],
            id="a file system without subnets",
        ),
        pytest.param(
            "[compute.a, compute.b]",
            "[compute.a, compute.a]",
            [
                (
                    "24: storage.file_systems.home.subnets[1]: must be in a zone of its own: "
                    "EFS has one mount target a zone (found: 'compute.a')"
                ),
            ],
            id="two mount targets in a zone",
        ),
        pytest.param(
            "[compute.a, compute.b]",
            "[compute.a, compute.c]",
            [
                (
                    "24: storage.file_systems.home.subnets[1]: must be one of the network's "
                    "subnets: compute.a, compute.b (found: 'compute.c')"
                ),
            ],
            id="a mount target in an unknown subnet",
        ),
        pytest.param(
            "      subnets: [compute.a, compute.b]",
            "      id: fs-00000001\n      security_group: sg-00000001",
            [
                (
                    "26: storage.file_systems.home.access_points: must be left out: the file "
                    "system exists"
                ),
            ],
            id="an access point of an existing file system",
        ),
        pytest.param(
            (
                "      subnets: [compute.a, compute.b]\n      access_points:\n        "
                'projects: {path: /projects, uid: 0, gid: 0, permissions: "1777"}\n'
            ),
            "      id: fs-00000001\n",
            [
                (
                    "23: storage.file_systems.home.security_group: must be given: nodes reach "
                    "an existing file system through it"
                ),
            ],
            id="an existing file system without security group",
        ),
        pytest.param(
            "      subnets: [compute.a, compute.b]",
            "      subnets: [compute.a, compute.b]\n      security_group: sg-00000001",
            [
                (
                    "25: storage.file_systems.home.security_group: must be left out: the file "
                    "system is made here, and so is its group (found: 'sg-00000001')"
                ),
            ],
            id="a security group of a file system made here",
        ),
        pytest.param(
            "      access_points:",
            "      throughput: provisioned\n      access_points:",
            [
                (
                    "25: storage.file_systems.home.throughput: must be one of 'elastic' or "
                    "'bursting' (found: 'provisioned')"
                ),
            ],
            id="an unknown throughput mode",
        ),
        pytest.param(
            "      access_points:",
            "      infrequent_access_days: 31\n      access_points:",
            [
                (
                    "25: storage.file_systems.home.infrequent_access_days: must be one of 1, "
                    "7, 14, 30, 60, 90, 180, 270 or 365 (found: 31)"
                ),
            ],
            id="days until infrequent access that EFS does not have",
        ),
        pytest.param(
            "      access_points:",
            "      infrequent_access_days: true\n      access_points:",
            [
                (
                    "25: storage.file_systems.home.infrequent_access_days: must be a whole "
                    "number (found: true)"
                ),
            ],
            id="true as a number of days",
        ),
        pytest.param(
            "path: /projects",
            "path: projects",
            [
                (
                    "26: storage.file_systems.home.access_points.projects.path: must be a path "
                    "from the root, such as /projects, of letters, digits, dots, dashes and "
                    "underscores (found: 'projects')"
                ),
            ],
            id="a folder that does not start at the root",
        ),
        pytest.param(
            "uid: 0",
            "uid: -1",
            [
                (
                    "26: storage.file_systems.home.access_points.projects.uid: must be 0 or "
                    "more (found: -1)"
                ),
            ],
            id="a user below zero",
        ),
        pytest.param(
            'permissions: "1777"',
            "permissions: 1777",
            [
                (
                    "26: storage.file_systems.home.access_points.projects.permissions: must be "
                    '3 or 4 octal digits in quotes, such as "1777" (found: 1777)'
                ),
            ],
            id="a mode without quotes",
        ),
        pytest.param(
            'permissions: "1777"',
            'permissions: "1799"',
            [
                (
                    "26: storage.file_systems.home.access_points.projects.permissions: must be "
                    "3 or 4 octal digits in quotes, such as \"1777\" (found: '1799')"
                ),
            ],
            id="a mode that is not octal",
        ),
        pytest.param(
            "name: dev-results",
            "name: dev-logs",
            [
                (
                    "30: storage.buckets.results.name: must differ from the site's other "
                    "buckets (found: 'dev-logs')"
                ),
            ],
            id="a bucket named twice",
        ),
        pytest.param(
            "name: dev-logs",
            "name: Dev-Logs",
            [
                (
                    "29: storage.buckets.logs.name: must be the name of an S3 bucket: 3 to 63 "
                    "small letters, digits, dashes and single dots, with a letter or digit at "
                    "both ends (found: 'Dev-Logs')"
                ),
            ],
            id="a bucket name in capitals",
        ),
        pytest.param(
            "name: dev-logs",
            "name: dev-logs-",
            [
                (
                    "29: storage.buckets.logs.name: must be the name of an S3 bucket: 3 to 63 "
                    "small letters, digits, dashes and single dots, with a letter or digit at "
                    "both ends (found: 'dev-logs-')"
                ),
            ],
            id="a bucket name with a dash at the end",
        ),
        pytest.param(
            "{name: dev-logs}",
            "{name: dev-logs, infrequent_access_days: 29}",
            [
                ("29: storage.buckets.logs.infrequent_access_days: must be 30 or more (found: 29)"),
            ],
            id="a bucket that moves objects too early",
        ),
        pytest.param(
            "{name: dev-logs}",
            "{name: dev-logs, expire_days: 1000000000000000000000000000000}",
            [
                (
                    "29: storage.buckets.logs.expire_days: must be 36500 or less (found: "
                    "1000000000000000000000000000000)"
                ),
            ],
            id="a bucket that keeps objects for ever and a day",
        ),
        pytest.param(
            "    logs: {name: dev-logs}\n",
            "",
            [
                "27: storage.buckets.logs: must be given: access logs and build logs",
            ],
            id="a missing bucket",
        ),
    ],
)
def test_wrong_storage_is_reported(tmp_path: Path, old: str, new: str, problems: list[str]) -> None:
    assert problems_of(tmp_path, edit(EXISTING, old, new)) == problems
