from __future__ import annotations

from pathlib import Path

import pytest

from tests.site.site_files import EXISTING, edit, load, problems_of


@pytest.mark.parametrize(
    ("old", "new", "problems"),
    [
        pytest.param(
            "name: dev\n",
            "name: prod\n",
            [
                "1: name: must be dev, as the file is called (found: 'prod')",
            ],
            id="a name unlike the file",
        ),
        pytest.param(
            "name: dev\n",
            "name: a-b-c-d-e-f-g-h-i-j-k-l-m-n-o-p\n",
            [
                (
                    "1: name: must start with a small letter and hold at most 30 small "
                    "letters, digits and single dashes, none of them at the end (found: "
                    "'a-b-c-d-e-f-g-h-i-j-k-l-m-n-o-p')"
                ),
            ],
            id="a name of more than thirty characters",
        ),
        pytest.param(
            'account: "123456789012"',
            "account: 123456789012",
            [
                (
                    "3: account: must be the 12 digits of an AWS account in quotes, such as "
                    '"427491229895" (found: 123456789012)'
                ),
            ],
            id="an account that is a number",
        ),
        pytest.param(
            'account: "123456789012"',
            'account: "12345678901"',
            [
                (
                    "3: account: must be the 12 digits of an AWS account in quotes, such as "
                    "\"427491229895\" (found: '12345678901')"
                ),
            ],
            id="an account of eleven digits",
        ),
        pytest.param(
            'account: "123456789012"',
            'account: "12345678901\uff12"',
            [
                (
                    "3: account: must be the 12 digits of an AWS account in quotes, such as "
                    "\"427491229895\" (found: '12345678901\uff12')"
                ),
            ],
            id="an account of digits that are not ASCII",
        ),
        pytest.param(
            "region: us-west-2",
            "region: us-west",
            [
                (
                    "4: region: must be the name of an AWS region, such as us-west-2 (found: "
                    "'us-west')"
                ),
            ],
            id="a region without number",
        ),
        pytest.param(
            "  Owner: ada",
            '  Owner: ""',
            [
                (
                    "6: tags.Owner: must be 1 to 256 letters, digits, spaces and . : / = + - @ "
                    "_ (found: '')"
                ),
            ],
            id="an empty tag",
        ),
        pytest.param(
            "{name: boundary}",
            '{name: "arn:aws:iam::123456789012:policy/boundary"}',
            [
                (
                    "11: hosting.permissions_boundary.name: must be the name of an IAM policy, "
                    "without path or ARN (found: 'arn:aws:iam::123456789012:policy/boundary')"
                ),
            ],
            id="a boundary given as an ARN",
        ),
        pytest.param(
            "  iam_path: /dev/",
            "  iam_path: /dev",
            [
                (
                    "12: hosting.iam_path: must be an IAM path that starts and ends with a "
                    "slash, such as /ws/ (found: '/dev')"
                ),
            ],
            id="an IAM path without slash at the end",
        ),
        pytest.param(
            "  iam_name_prefix: dev-",
            "  iam_name_prefix: dev",
            [
                (
                    "13: hosting.iam_name_prefix: must start with a letter, hold at most 20 "
                    "letters, digits, dashes and underscores, and end with one more dash, such "
                    "as ws-dev- (found: 'dev')"
                ),
            ],
            id="a role prefix without dash",
        ),
        pytest.param(
            "  iam_path: /dev/",
            "  iam_path: /dev/\n  cloudformation_execution_role: deployer",
            [
                (
                    "13: hosting.cloudformation_execution_role: must be the ARN of an IAM role "
                    "(found: 'deployer')"
                ),
            ],
            id="a deployment role that is not an ARN",
        ),
        pytest.param(
            "  iam_path: /dev/",
            "  iam_path: /dev/\n  ci: {github: {repository: box, environment: dev}}",
            [
                (
                    "13: hosting.ci.github.repository: must be an owner and a name, such as "
                    "lcnext/clusterbox (found: 'box')"
                ),
            ],
            id="a GitHub repository without owner",
        ),
        pytest.param(
            "images: [compute, admin]",
            "images: []",
            [
                "31: images: must not be empty (found: [])",
                "35: admin_box.image: must be one of images: none yet (found: 'admin')",
            ],
            id="no image",
        ),
        pytest.param(
            "images: [compute, admin]",
            "images: [compute, admin, compute]",
            [
                "31: images[2]: must stand only once in the list (found: 'compute')",
            ],
            id="an image named twice",
        ),
        pytest.param(
            "images: [compute, admin]",
            "images: [compute, admin, log-in]",
            [
                (
                    "31: images[2]: must start with a small letter and hold at most 32 small "
                    "letters, digits and underscores (found: 'log-in')"
                ),
            ],
            id="an image name with a dash",
        ),
        pytest.param(
            "  image: admin",
            "  image: login",
            [
                "35: admin_box.image: must be one of images: compute, admin (found: 'login')",
            ],
            id="an admin box with an image not in images",
        ),
        pytest.param(
            "  subnet: compute.a",
            "  subnet: compute.c",
            [
                (
                    "37: admin_box.subnet: must be one of the network's subnets: compute.a, "
                    "compute.b (found: 'compute.c')"
                ),
            ],
            id="an admin box in an unknown subnet",
        ),
        pytest.param(
            "  subnet: compute.a",
            "  subnet: compute",
            [
                (
                    "37: admin_box.subnet: must name a subnet of this file as GROUP.ZONE, such "
                    "as compute.a (found: 'compute')"
                ),
            ],
            id="an admin box whose subnet is no GROUP.ZONE",
        ),
        pytest.param(
            "  instance_type: t3a.medium",
            "  instance_type: t3a",
            [
                (
                    "34: admin_box.instance_type: must be an EC2 instance type, such as "
                    "t3a.medium (found: 't3a')"
                ),
            ],
            id="an instance type without size",
        ),
        pytest.param(
            "  root_gib: 30",
            "  root_gib: 7",
            [
                "36: admin_box.root_gib: must be 8 or more (found: 7)",
            ],
            id="a root volume of seven GiB",
        ),
        pytest.param(
            "  idle_stop_minutes: 60",
            "  idle_stop_minutes: -1",
            [
                "39: admin_box.idle_stop_minutes: must be 0 or more (found: -1)",
            ],
            id="negative minutes until it stops itself",
        ),
        pytest.param(
            "  idle_stop_minutes: 60",
            "  idle_stop_minutes: 1441",
            [
                "39: admin_box.idle_stop_minutes: must be 1440 or less (found: 1441)",
            ],
            id="more minutes than a day has",
        ),
        pytest.param(
            "name: dev-eco",
            "name: dev_eco",
            [
                (
                    "41: clusters[0].name: must start with a letter and hold at most 40 "
                    "letters, digits and dashes (found: 'dev_eco')"
                ),
            ],
            id="a cluster name with an underscore",
        ),
        pytest.param(
            "name: dev-eco",
            "name: dev-network",
            [
                (
                    "41: clusters[0].name: must not be the name of one of the site's own stacks "
                    "(found: 'dev-network')"
                ),
            ],
            id="a cluster named like a stack of the site",
        ),
        pytest.param(
            "  - {name: dev-eco, config: eco.yaml}",
            "  - {name: dev-eco, config: eco.yaml}\n  - {name: dev-eco, config: eco.yaml}",
            [
                "42: clusters[1].name: must differ from clusters[0] (found: 'dev-eco')",
            ],
            id="two clusters of one name",
        ),
        pytest.param(
            "config: eco.yaml",
            "config: big.yaml",
            [
                (
                    "41: clusters[0].config: must be a file of cluster_configs/: eco.yaml "
                    "(found: 'big.yaml')"
                ),
            ],
            id="a cluster file that is not there",
        ),
        pytest.param(
            "config: eco.yaml",
            "config: ../eco.yaml",
            [
                (
                    "41: clusters[0].config: must be the name of a file in cluster_configs/, "
                    "such as eco.yaml (found: '../eco.yaml')"
                ),
            ],
            id="a cluster file outside of its folder",
        ),
        pytest.param(
            "  - {name: dev-eco, config: eco.yaml}",
            "  - dev-eco",
            [
                "41: clusters[0]: must be a mapping of keys to values (found: 'dev-eco')",
            ],
            id="clusters that are names",
        ),
    ],
)
def test_a_wrong_value_outside_of_network_and_storage_is_reported(
    tmp_path: Path, old: str, new: str, problems: list[str]
) -> None:
    assert problems_of(tmp_path, edit(EXISTING, old, new)) == problems


def test_a_role_name_that_iam_would_refuse_is_reported_with_the_characters_left(
    tmp_path: Path,
) -> None:
    text = edit(EXISTING, "iam_name_prefix: dev-", f"iam_name_prefix: {'d' * 20}-")
    text = edit(text, "name: dev-eco", f"name: {'e' * 34}")
    assert problems_of(tmp_path, text) == [
        f"41: clusters[0].name: must hold at most 33 characters with iam_name_prefix {'d' * 20}-: "
        f"IAM allows 64 for the roles named after both (found: '{'e' * 34}')"
    ]


@pytest.mark.parametrize(("prefix", "cluster"), [("d" * 20, "e" * 33), ("dev", "e" * 40)])
def test_the_longest_role_name_that_iam_takes_is_good(
    tmp_path: Path, prefix: str, cluster: str
) -> None:
    text = edit(EXISTING, "iam_name_prefix: dev-", f"iam_name_prefix: {prefix}-")
    text = edit(text, "name: dev-eco", f"name: {cluster}")
    assert load(tmp_path, text).clusters[0].name == cluster
