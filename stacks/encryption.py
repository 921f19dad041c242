"""The key that encrypts the site's data, logs and backups."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from clusterbox.site.environment import Environment
from stacks.site_stack import SiteStack


class EncryptionStack(SiteStack):
    """The site's key; stateful, because data encrypted with a lost key is lost."""

    def __init__(self, scope: Construct, construct_id: str, *, environment: Environment) -> None:
        super().__init__(
            scope,
            construct_id,
            environment=environment,
            description="Encryption key",
            protected=True,
        )
        self.key = kms.Key(
            self,
            "Key",
            alias=f"alias/clusterbox/{environment.name}",
            description=f"Data, logs and backups of {environment.name}",
            enable_key_rotation=True,
            removal_policy=cdk.RemovalPolicy.RETAIN,
        )
        # CloudWatch Logs and log delivery encrypt with the key on behalf of this account alone.
        self.key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="Logs",
                principals=[iam.ServicePrincipal(f"logs.{environment.region}.amazonaws.com")],
                actions=[
                    "kms:Encrypt*",
                    "kms:Decrypt*",
                    "kms:ReEncrypt*",
                    "kms:GenerateDataKey*",
                    "kms:Describe*",
                ],
                resources=["*"],
                conditions={
                    "ArnLike": {
                        "kms:EncryptionContext:aws:logs:arn": (
                            f"arn:{environment.partition}:logs:{environment.region}:{environment.account}:*"
                        )
                    }
                },
            )
        )
