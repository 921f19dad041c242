from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusterbox.deployment.bootstrap import bound_template, is_bound
from clusterbox.deployment.cdk import CdkCli
from clusterbox.errors import ClusterboxError
from clusterbox.site.environment import Environment
from clusterbox.site.load import Repository

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def template(root: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the bootstrap template of the pinned CDK CLI."""
    log = tmp_path_factory.mktemp("log") / "cdk.log"
    return CdkCli(root, os.environ, log).bootstrap_template()


@pytest.fixture
def environment(root: Path) -> Environment:
    return Repository(root).load_environment("ws-dev")


def roles(template: str) -> dict[str, dict[str, Any]]:
    resources = yaml.safe_load(template)["Resources"]
    return {name: item for name, item in resources.items() if item["Type"] == "AWS::IAM::Role"}


def test_every_role_of_the_bootstrap_carries_the_boundary(
    template: str, environment: Environment
) -> None:
    found = roles(bound_template(template, environment))
    assert set(found) == {
        "CloudFormationExecutionRole",
        "DeploymentActionRole",
        "FilePublishingRole",
        "ImagePublishingRole",
        "LookupRole",
    }
    assert {role["Properties"]["PermissionsBoundary"] for role in found.values()} == {
        "arn:aws:iam::427491229895:policy/csr-Developer-Permissions-Boundary"
    }


def test_a_named_execution_role_takes_the_place_of_the_bootstrap_s(
    template: str, environment: Environment
) -> None:
    given = "arn:aws:iam::427491229895:role/hosting/cfn-execution"
    hosting = environment.hosting.model_copy(update={"cloudformation_execution_role": given})
    bounded = bound_template(template, environment.model_copy(update={"hosting": hosting}))
    assert "CloudFormationExecutionRole" not in roles(bounded)
    passes = [
        statement
        for policy in roles(bounded)["DeploymentActionRole"]["Properties"]["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Action"] == "iam:PassRole"
    ]
    assert [statement["Resource"] for statement in passes] == [given]


def test_a_template_without_roles_is_refused_rather_than_deployed_unbounded(
    environment: Environment,
) -> None:
    with pytest.raises(ClusterboxError, match="its layout has changed"):
        bound_template("Resources: {Bucket: {Type: 'AWS::S3::Bucket'}}", environment)


def test_a_bootstrap_with_other_bounds_is_found_out(
    template: str, environment: Environment
) -> None:
    bounded = bound_template(template, environment)
    assert is_bound(bounded, environment)
    assert is_bound(yaml.safe_load(bounded), environment)
    assert not is_bound(template, environment)
    given = "arn:aws:iam::427491229895:role/hosting/cfn-execution"
    hosting = environment.hosting.model_copy(update={"cloudformation_execution_role": given})
    changed = environment.model_copy(update={"hosting": hosting})
    assert not is_bound(bounded, changed)
    assert is_bound(bound_template(template, changed), changed)
