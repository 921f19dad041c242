"""The permissions boundary, for an account that does not have one."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct

from clusterbox.site.environment import Environment
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
    "resource-groups",
    "route53",
    "s3",
    "scheduler",
    "secretsmanager",
    "sns",
    "sqs",
    "ssm",
    "ssmmessages",
    "sts",
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
            synthesizer=cdk.BootstraplessSynthesizer(
                cloud_formation_execution_role_arn=environment.hosting.cloudformation_execution_role
            ),
        )
        boundary = environment.boundary_arn
        roles = f"arn:{environment.partition}:iam::{environment.account}:role/*"
        ceiling = "a boundary is a ceiling and grants nothing; each role's own policy is narrow"
        bounded = {"StringEquals": {"iam:PermissionsBoundary": boundary}}
        statements = [
            Statement("Ceiling", [f"{service}:*" for service in _BOUNDED_SERVICES], ["*"], ceiling),
            Statement(
                "ReadIdentity",
                ["iam:Get*", "iam:List*", "iam:SimulatePrincipalPolicy", "iam:PassRole"],
                ["*"],
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
                    "iam:CreateServiceLinkedRole",
                ],
                ["*"],
                ceiling,
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
                [roles],
                ceiling,
                condition=bounded,
            ),
            Statement(
                "PoliciesAndProviders",
                [
                    "iam:CreateOpenIDConnectProvider",
                    "iam:CreatePolicy",
                    "iam:CreatePolicyVersion",
                    "iam:DeleteOpenIDConnectProvider",
                    "iam:DeletePolicy",
                    "iam:DeletePolicyVersion",
                    "iam:SetDefaultPolicyVersion",
                    "iam:TagOpenIDConnectProvider",
                    "iam:TagPolicy",
                    "iam:UntagPolicy",
                    "iam:UpdateOpenIDConnectProviderThumbprint",
                ],
                ["*"],
                ceiling,
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
                [roles],
                ceiling,
            ),
            Statement(
                "NoWayOut",
                [
                    "iam:DeleteRolePermissionsBoundary",
                    "iam:DeleteUserPermissionsBoundary",
                    "iam:CreateAccessKey",
                    "iam:CreateUser",
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
