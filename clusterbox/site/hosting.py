"""What the hosting service asks of a site: boundary, role names and paths, deployment roles, CI."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from clusterbox.site.fields import (
    Branch,
    DnsName,
    Finding,
    IamPath,
    NamePrefix,
    PolicyName,
    ProjectPath,
    RoleArn,
    Section,
    raise_findings,
)


class PermissionsBoundary(Section):
    """The policy that bounds every role of the site."""

    name: PolicyName = Field(description="name of the managed policy")
    exists: bool = Field(True, description="whether the account has it, or the site makes it")


class GitHub(Section):
    """The GitHub repository whose workflows deploy the site."""

    repository: ProjectPath = Field(description="OWNER/REPOSITORY")
    environment: Branch = Field(description="GitHub environment that may deploy")
    provider_exists: bool = Field(False, description="whether the account has the OIDC provider")


class GitLab(Section):
    """The GitLab project whose pipelines deploy the site."""

    host: DnsName = Field(description="host name of the GitLab server")
    project: ProjectPath = Field(description="GROUP/PROJECT")
    branch: Branch = Field("main", description="branch that may deploy")
    provider_exists: bool = Field(False, description="whether the account has the OIDC provider")


class ContinuousIntegration(Section):
    """Who deploys and reviews the site without stored credentials, through OIDC."""

    github: GitHub | None = Field(None, description="GitHub")
    gitlab: GitLab | None = Field(None, description="GitLab")


class Hosting(Section):
    """The rules of the account's owner."""

    permissions_boundary: PermissionsBoundary = Field(description="bounds every role")
    iam_path: IamPath = Field("/", description="path of every role and policy made here")
    iam_name_prefix: NamePrefix = Field(
        description="start of every role's name: at most 20 characters and a dash"
    )
    cloudformation_execution_role: RoleArn | None = Field(
        None, description="role that CloudFormation must use; one is bootstrapped where left out"
    )
    ci: ContinuousIntegration = Field(
        ContinuousIntegration(github=None, gitlab=None), description="CI"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        # ParallelCluster's ResourcePrefix is this path and this prefix; its own limit is 30
        # characters for the name part (IAM_NAME_PREFIX_LENGTH_LIMIT).
        if len(self.iam_path) > 512:
            raise_findings(
                [Finding(("iam_path",), "must hold at most 512 characters", self.iam_path)]
            )
        return self
