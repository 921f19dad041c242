"""The permissions boundary, for an account that does not have one."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct

from clusterbox.site.environment import Environment
from stacks.permissions import arns
from stacks.permissions.ci import QUALIFIER
from stacks.permissions.roles import Statement, acknowledge, acknowledge_wildcards
from stacks.site_stack import SiteStack

# What a role of the site can be allowed at all. A boundary grants nothing by itself.
_BOUNDED_SERVICES = (
    "autoscaling",
    "backup",
    "backup-storage",
    "budgets",
    "cloudformation",
    "cloudwatch",
    "codebuild",
    "dynamodb",
    "ec2",
    "ec2messages",
    "elasticfilesystem",
    "elasticloadbalancing",
    "events",
    "fsx",
    "imagebuilder",
    "kms",
    "lambda",
    "logs",
    "pricing",
    "rds",
    "resource-groups",
    "route53",
    "s3",
    "scheduler",
    "secretsmanager",
    "sns",
    "sqs",
    "ssm",
    "ssmmessages",
    "tag",
    "xray",
)


class BoundaryStack(SiteStack):
    """The policy that bounds every role of the site; it also forbids every way out of itself.

    Deployed before the bootstrap, whose roles carry the boundary too, and so with the credentials
    of whoever deploys: the CI system cannot change the boundary of its own roles.
    """

    def __init__(self, scope: Construct, construct_id: str, *, environment: Environment) -> None:
        super().__init__(
            scope,
            construct_id,
            environment=environment,
            description="Permissions boundary",
            protected=True,
            # Uses neither roles nor a bucket of a bootstrap, which does not exist yet.
            synthesizer=cdk.LegacyStackSynthesizer(),
        )
        ceiling = "a boundary is a ceiling and grants nothing; each role's own policy is narrow"
        statements = _statements(environment, ceiling)
        policy = iam.ManagedPolicy(
            self,
            "Boundary",
            managed_policy_name=environment.hosting.permissions_boundary.name,
            description=f"Bounds every role of {environment.name}",
            document=iam.PolicyDocument.from_json(
                {"Version": "2012-10-17", "Statement": [item.render() for item in statements]}
            ),
        )
        policy.apply_removal_policy(cdk.RemovalPolicy.RETAIN)
        acknowledge(policy, "NIST.800.53.R5-IAMPolicyNoStatementsWithFullAccess", ceiling)
        acknowledge_wildcards(policy, [item for item in statements if item.effect == "Allow"])


def _statements(environment: Environment, ceiling: str) -> list[Statement]:
    """Return what a bounded role can be allowed at all, and the ways out that it is denied."""
    boundary = environment.boundary_arn
    hosting = environment.hosting
    own_roles = [
        arns.site_roles(environment),
        arns.iam(environment, f"role/cdk-{QUALIFIER}-*"),
        # CDK names the roles of its custom resources after the stack.
        arns.iam(environment, f"role/{environment.name}-*"),
    ]
    if hosting.cloudformation_execution_role is not None:
        own_roles.append(hosting.cloudformation_execution_role)
    own_policies = [arns.iam(environment, f"policy{hosting.iam_path}{environment.name}-*")]
    profiles = [arns.iam(environment, "instance-profile/*")]
    return [
        Statement("Ceiling", [f"{service}:*" for service in _BOUNDED_SERVICES], ["*"], ceiling),
        Statement(
            "ReadIdentity", ["iam:Get*", "iam:List*", "iam:SimulatePrincipalPolicy"], ["*"], ceiling
        ),
        # Roles of others may be unbounded: to pass or to assume one would be a way out.
        Statement(
            "OwnRoles", ["iam:PassRole", "sts:AssumeRole", "sts:TagSession"], own_roles, ceiling
        ),
        Statement(
            "RolesInsideTheBoundary",
            [
                "iam:AttachRolePolicy",
                "iam:CreateRole",
                "iam:DeleteRolePolicy",
                "iam:DetachRolePolicy",
                "iam:PutRolePermissionsBoundary",
                "iam:PutRolePolicy",
            ],
            own_roles,
            ceiling,
            condition={"StringEquals": {"iam:PermissionsBoundary": boundary}},
        ),
        Statement(
            "RolesWithoutPower",
            [
                "iam:DeleteRole",
                "iam:TagRole",
                "iam:UntagRole",
                "iam:UpdateAssumeRolePolicy",
                "iam:UpdateRole",
                "iam:UpdateRoleDescription",
            ],
            own_roles,
            ceiling,
        ),
        Statement(
            "OwnPolicies",
            [
                "iam:CreatePolicy",
                "iam:CreatePolicyVersion",
                "iam:DeletePolicy",
                "iam:DeletePolicyVersion",
                "iam:SetDefaultPolicyVersion",
                "iam:TagPolicy",
                "iam:UntagPolicy",
            ],
            own_policies,
            ceiling,
        ),
        Statement(
            "InstanceProfiles",
            [
                "iam:AddRoleToInstanceProfile",
                "iam:CreateInstanceProfile",
                "iam:DeleteInstanceProfile",
                "iam:RemoveRoleFromInstanceProfile",
                "iam:TagInstanceProfile",
                "iam:UntagInstanceProfile",
            ],
            profiles,
            ceiling,
        ),
        Statement(
            "ServiceLinkedRoles",
            ["iam:CreateServiceLinkedRole"],
            [arns.iam(environment, "role/aws-service-role/*")],
            ceiling,
        ),
        Statement(
            "IdentityProviders",
            [
                "iam:AddClientIDToOpenIDConnectProvider",
                "iam:CreateOpenIDConnectProvider",
                "iam:DeleteOpenIDConnectProvider",
                "iam:RemoveClientIDFromOpenIDConnectProvider",
                "iam:TagOpenIDConnectProvider",
                "iam:UntagOpenIDConnectProvider",
                "iam:UpdateOpenIDConnectProviderThumbprint",
            ],
            [arns.iam(environment, "oidc-provider/*")],
            ceiling,
        ),
        Statement(
            "NoWayOut",
            [
                "iam:CreateAccessKey",
                "iam:CreateUser",
                "iam:DeleteRolePermissionsBoundary",
                "iam:DeleteUserPermissionsBoundary",
            ],
            ["*"],
            effect="Deny",
        ),
        Statement(
            "BoundaryStays",
            [
                "iam:CreatePolicyVersion",
                "iam:DeletePolicy",
                "iam:DeletePolicyVersion",
                "iam:SetDefaultPolicyVersion",
            ],
            [boundary],
            effect="Deny",
        ),
    ]
