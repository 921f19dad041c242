from __future__ import annotations

from pathlib import Path

import pytest

from tests.site.site_files import EXISTING, edit, problems_of


@pytest.mark.parametrize(
    ("old", "new", "problems"),
    [
        pytest.param(
            "region: us-west-2",
            "region: us-west-2\nregions: 1",
            [
                (
                    "5: regions: is not a known key; allowed here: name, description, account, "
                    "region, tags, hosting, network, storage, images, admin_box, clusters, budgets, "
                    "accounting_database, patch_day, monitoring"
                ),
            ],
            id="an unknown key of the file",
        ),
        pytest.param(
            "  CostCenter: c-1",
            "  CostCenter: c-1\n  Team: x",
            [
                (
                    "10: tags.Team: is not a known key; allowed here: Owner, Project, "
                    "Organization, CostCenter"
                ),
            ],
            id="an unknown key of the tags",
        ),
        pytest.param(
            "  iam_path: /dev/",
            "  iam_path: /dev/\n  path: /x/",
            [
                (
                    "13: hosting.path: is not a known key; allowed here: permissions_boundary, "
                    "iam_path, iam_name_prefix, cloudformation_execution_role, ci"
                ),
            ],
            id="an unknown key of hosting",
        ),
        pytest.param(
            "{name: boundary}",
            "{name: boundary, arn: x}",
            [
                (
                    "11: hosting.permissions_boundary.arn: is not a known key; allowed here: "
                    "name, exists"
                ),
            ],
            id="an unknown key of the boundary",
        ),
        pytest.param(
            "  iam_path: /dev/",
            (
                "  iam_path: /dev/\n  ci: {github: {repository: a/b, environment: dev, branch: "
                "main}}"
            ),
            [
                (
                    "13: hosting.ci.github.branch: is not a known key; allowed here: "
                    "repository, environment, provider_exists"
                ),
            ],
            id="an unknown key of GitHub",
        ),
        pytest.param(
            "  subnets:\n    compute",
            "  subnet: {}\n  subnets:\n    compute",
            [
                (
                    "16: network.subnet: is not a known key; allowed here: vpc, subnets, "
                    "public_subnets, nat_gateways, interface_endpoints, flow_logs_days, "
                    "private_zone, ssh"
                ),
            ],
            id="an unknown key of the network",
        ),
        pytest.param(
            "cidr: 10.0.0.0/16",
            "cidr: 10.0.0.0/16, name: x",
            [
                (
                    "15: network.vpc.name: is not a known key; allowed here: cidr, id, "
                    "additional_cidrs"
                ),
            ],
            id="an unknown key of the VPC",
        ),
        pytest.param(
            "cidr: 10.0.1.0/24",
            "cidr: 10.0.1.0/24, zone: b",
            [
                "19: network.subnets.compute.b.zone: is not a known key; allowed here: cidr, id",
            ],
            id="an unknown key of a subnet",
        ),
        pytest.param(
            "{key_pair: keys,",
            "{key_pair: keys, port: 22,",
            [
                (
                    "20: network.ssh.port: is not a known key; allowed here: key_pair, cidrs, "
                    "bastion_security_group"
                ),
            ],
            id="an unknown key of ssh",
        ),
        pytest.param(
            "      access_points:",
            "      size: 1\n      access_points:",
            [
                (
                    "25: storage.file_systems.home.size: is not a known key; allowed here: id, "
                    "security_group, subnets, throughput, infrequent_access_days, backup_days, "
                    "access_points"
                ),
            ],
            id="an unknown key of a file system",
        ),
        pytest.param(
            "uid: 0, gid",
            "uid: 0, mode: 1, gid",
            [
                (
                    "26: storage.file_systems.home.access_points.projects.mode: is not a known "
                    "key; allowed here: path, uid, gid, permissions"
                ),
            ],
            id="an unknown key of an access point",
        ),
        pytest.param(
            "  buckets:",
            "  buckets:\n    scratch: {name: x}",
            [
                (
                    "28: storage.buckets.scratch: is not a known key; allowed here: "
                    "cluster_config, logs, results"
                ),
            ],
            id="an unknown key of the buckets",
        ),
        pytest.param(
            "{name: dev-logs}",
            "{name: dev-logs, region: x}",
            [
                (
                    "29: storage.buckets.logs.region: is not a known key; allowed here: name, "
                    "exists, infrequent_access_days, expire_days, noncurrent_days"
                ),
            ],
            id="an unknown key of a bucket",
        ),
        pytest.param(
            "  ssh: false",
            "  ssh: false\n  ami: x",
            [
                (
                    "39: admin_box.ami: is not a known key; allowed here: name, instance_type, "
                    "image, root_gib, subnet, ssh, idle_stop_minutes"
                ),
            ],
            id="an unknown key of the admin box",
        ),
        pytest.param(
            "config: eco.yaml",
            "config: eco.yaml, queue: x",
            [
                "41: clusters[0].queue: is not a known key; allowed here: name, config, accepted_findings",
            ],
            id="an unknown key of a cluster",
        ),
        pytest.param(
            "  CostCenter: c-1",
            "  CostCenter: c-1\n  7: x",
            [
                (
                    "10: tags.7: is not a known key; allowed here: Owner, Project, "
                    "Organization, CostCenter"
                ),
            ],
            id="a number as a key",
        ),
        pytest.param(
            "region: us-west-2\n",
            "",
            [
                "1: region: must be given: AWS region",
            ],
            id="a missing key of the file",
        ),
        pytest.param(
            "  Organization: lab\n",
            "",
            [
                "5: tags.Organization: must be given: whose it is",
            ],
            id="a missing key of a section",
        ),
        pytest.param(
            "tags:\n  Owner: ada\n  Project: rivers\n  Organization: lab\n  CostCenter: c-1\n",
            "",
            [
                "1: tags: must be given: tags on everything",
            ],
            id="missing tags",
        ),
        pytest.param(
            "  file_systems:\n    home:",
            "  file_systems: null\n  homes:\n    home:",
            [
                "22: storage.file_systems: must be a mapping of keys to values",
                "23: storage.homes: is not a known key; allowed here: file_systems, buckets",
            ],
            id="a section that is null",
        ),
        pytest.param(
            (
                "hosting:\n  permissions_boundary: {name: boundary}\n  iam_path: /dev/\n  "
                "iam_name_prefix: dev-\n"
            ),
            "hosting: [a, b]\n",
            [
                "10: hosting: must be a mapping of keys to values (found: ['a', 'b'])",
            ],
            id="a list where a mapping belongs",
        ),
        pytest.param(
            "images: [compute, admin]",
            "images: compute",
            [
                "31: images: must be a list (found: 'compute')",
            ],
            id="text where a list belongs",
        ),
        pytest.param(
            "  ssh: false",
            '  ssh: "yes"',
            [
                "38: admin_box.ssh: must be true or false (found: 'yes')",
            ],
            id="text where a boolean belongs",
        ),
        pytest.param(
            "  root_gib: 30",
            '  root_gib: "30"',
            [
                "36: admin_box.root_gib: must be a whole number (found: '30')",
            ],
            id="text where a number belongs",
        ),
        pytest.param(
            "  root_gib: 30",
            "  root_gib: 30.5",
            [
                "36: admin_box.root_gib: must be a whole number (found: 30.5)",
            ],
            id="a fraction where a whole number belongs",
        ),
        pytest.param(
            "description: Smallest site that has one of everything",
            "description: 5",
            [
                "2: description: must be text; put it in quotes (found: 5)",
            ],
            id="a number where text belongs",
        ),
        pytest.param(
            "description: Smallest site that has one of everything",
            "description: 2024-01-31",
            [
                "2: description: must be text; put it in quotes (found: 2024-01-31)",
            ],
            id="a date where text belongs",
        ),
        pytest.param(
            "description: Smallest site that has one of everything",
            'description: ""',
            [
                "2: description: must not be empty (found: '')",
            ],
            id="an empty text",
        ),
    ],
)
def test_what_a_file_may_not_hold_is_reported_with_what_it_may(
    tmp_path: Path, old: str, new: str, problems: list[str]
) -> None:
    assert problems_of(tmp_path, edit(EXISTING, old, new)) == problems
