"""Roles that belong to no single machine: ParallelCluster's provider, image baking, CI."""

from __future__ import annotations

from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from clusterbox.site.environment import Environment
from clusterbox.site.hosting import GitHub, GitLab
from stacks.permissions import arns, ci, images, nodes, provider
from stacks.permissions.roles import make_role
from stacks.site_stack import SiteStack

GITHUB_HOST = "token.actions.githubusercontent.com"


class IdentityStack(SiteStack):
    """The site's roles; those of a cluster's nodes are in the cluster's stack."""

    def __init__(
        self, scope: Construct, construct_id: str, *, environment: Environment, key: kms.IKey
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            environment=environment,
            description="Roles",
        )
        functions = iam.ServicePrincipal("lambda.amazonaws.com")
        # A bucket that exists outside of the site has a key of its own, if any.
        made_here = not environment.storage.buckets.cluster_config.exists
        key_use = [nodes.use_key(environment, key.key_arn)] if made_here else []
        self.provider = make_role(
            self,
            "Provider",
            environment=environment,
            purpose="pcluster-provider",
            description="ParallelCluster's CloudFormation provider",
            principal=functions,
            statements=[*provider.provider(environment), *key_use],
        )
        self.image_build = make_role(
            self,
            "ImageBuild",
            environment=environment,
            purpose="image-build",
            description="Instances that bake images",
            principal=iam.ServicePrincipal("ec2.amazonaws.com"),
            statements=[*images.build(environment), *key_use],
        )
        self.image_cleanup = make_role(
            self,
            "ImageCleanup",
            environment=environment,
            purpose="image-cleanup",
            description="Cleans up after an image is baked (CleanupLambdaRole)",
            principal=functions,
            statements=images.cleanup(environment),
        )
        self._key_use = key_use
        if environment.hosting.ci.github is not None:
            self._trust_github(environment.hosting.ci.github)
        if environment.hosting.ci.gitlab is not None:
            self._trust_gitlab(environment.hosting.ci.gitlab)

    def _trust_github(self, github: GitHub) -> None:
        repository = f"repo:{github.repository}"
        self._make_ci_roles(
            "GitHub",
            host=GITHUB_HOST,
            audience="sts.amazonaws.com",
            provider_exists=github.provider_exists,
            deploys=f"{repository}:environment:{github.environment}",
            reads=f"{repository}:pull_request",
        )

    def _trust_gitlab(self, gitlab: GitLab) -> None:
        project = f"project_path:{gitlab.project}:ref_type:branch:ref"
        self._make_ci_roles(
            "GitLab",
            host=gitlab.host,
            audience=f"https://{gitlab.host}",
            provider_exists=gitlab.provider_exists,
            deploys=f"{project}:{gitlab.branch}",
            reads=f"{project}:*",
        )

    def _make_ci_roles(
        self,
        system: str,
        *,
        host: str,
        audience: str,
        provider_exists: bool,
        deploys: str,
        reads: str,
    ) -> None:
        """Make the provider, a deploy role for one branch and a read-only role for reviews."""
        environment = self._environment
        if provider_exists:
            arn = arns.iam(environment, f"oidc-provider/{host}")
        else:
            arn = iam.CfnOIDCProvider(
                self, f"{system}Provider", url=f"https://{host}", client_id_list=[audience]
            ).attr_arn
        for kind, subject, statements in (
            ("Deploy", deploys, [*ci.deploy(environment), *self._key_use]),
            ("ReadOnly", reads, ci.read_only(environment)),
        ):
            make_role(
                self,
                f"{system}{kind}",
                environment=environment,
                purpose=f"ci-{system.lower()}-{'deploy' if kind == 'Deploy' else 'read-only'}",
                description=f"{system}: {'deploys the site' if kind == 'Deploy' else 'reviews changes'}",
                principal=iam.WebIdentityPrincipal(arn, claims(host, audience, subject)),
                statements=statements,
            )


def claims(host: str, audience: str, subject: str) -> dict[str, dict[str, str]]:
    """Return what a token must say; a pattern is allowed only where the subject is one."""
    said = {f"{host}:aud": audience}
    if "*" in subject:
        return {"StringEquals": said, "StringLike": {f"{host}:sub": subject}}
    return {"StringEquals": {**said, f"{host}:sub": subject}}
