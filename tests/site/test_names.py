from __future__ import annotations

from pathlib import Path

import pytest

from clusterbox.site import names
from tests.site.site_files import EXISTING, edit, load


def test_a_stack_is_called_after_its_environment_and_unit(tmp_path: Path) -> None:
    assert names.stack_name(load(tmp_path), "network") == "dev-network"


def test_a_clusters_stack_is_not_called_like_the_cluster(tmp_path: Path) -> None:
    assert names.cluster_stack_name(load(tmp_path), "dev-eco") == "dev-cluster-dev-eco"


def test_a_role_has_the_prefix_of_the_hosting_service(tmp_path: Path) -> None:
    text = edit(EXISTING, "iam_name_prefix: dev-", "iam_name_prefix: lab-")
    assert names.role_name(load(tmp_path, text), "head-node") == "lab-head-node"


def test_a_parameter_stands_under_its_environment(tmp_path: Path) -> None:
    path = names.parameter_path(load(tmp_path), "images", "compute")
    assert path == "/clusterbox/dev/images/compute"


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("us-west-2", "us-west-2-aws-parallelcluster.s3.us-west-2.amazonaws.com"),
        ("us-gov-west-1", "us-gov-west-1-aws-parallelcluster.s3.us-gov-west-1.amazonaws.com"),
        ("cn-north-1", "cn-north-1-aws-parallelcluster.s3.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_the_provider_template_comes_from_the_region(
    tmp_path: Path, region: str, host: str
) -> None:
    environment = load(tmp_path, edit(EXISTING, "us-west-2", region))
    assert names.provider_template_url(environment) == (
        f"https://{host}/parallelcluster/3.16.1/templates/custom_resource/cluster.yaml"
    )


@pytest.mark.parametrize(
    ("region", "arn"),
    [
        ("us-west-2", "arn:aws:iam::123456789012:policy/boundary"),
        ("us-gov-west-1", "arn:aws-us-gov:iam::123456789012:policy/boundary"),
        ("cn-north-1", "arn:aws-cn:iam::123456789012:policy/boundary"),
    ],
)
def test_the_boundary_is_in_the_partition_of_the_region(
    tmp_path: Path, region: str, arn: str
) -> None:
    assert load(tmp_path, edit(EXISTING, "us-west-2", region)).boundary_arn == arn


def test_a_zone_is_the_region_and_a_letter(tmp_path: Path) -> None:
    assert load(tmp_path).zone("b") == "us-west-2b"
