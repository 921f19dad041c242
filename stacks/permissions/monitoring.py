"""What the monitoring machine may do: find nodes, read what is watched, and tell people."""

from __future__ import annotations

from collections.abc import Sequence

from clusterbox.site import names
from clusterbox.site.environment import Environment
from stacks.permissions import arns
from stacks.permissions.roles import Statement, session_manager_statements, unscoped


def machine(
    environment: Environment,
    *,
    topic: str,
    key_arn: str,
    password: str,
    mail_secret: str | None,
    workspace: str | None,
) -> list[Statement]:
    """Return the permissions of the machine; nothing that it may do changes a cluster's machines.

    `topic`, `key_arn`, `password` and `workspace` are ARNs: of the topic, the site's key, the
    secret with Grafana's password, and the workspace of Amazon Managed Service for Prometheus.
    """
    config = environment.storage.buckets.cluster_config.name
    found = [
        *session_manager_statements(),
        # ParallelCluster's tags say which cluster and queue a machine is of; prices need its disks.
        unscoped("FindNodes", ["ec2:Describe*"]),
        unscoped("Figures", ["cloudwatch:GetMetricData", "pricing:GetProducts"]),
        unscoped("Forgotten", ["acm:ListCertificates", "backup:ListProtectedResources"]),
        Statement(
            "FileSystems",
            ["elasticfilesystem:DescribeFileSystems"],
            [arns.regional(environment, "elasticfilesystem", "file-system/*")],
            because="which file systems there are is what is asked",
        ),
        Statement("Tell", ["sns:Publish"], [topic]),
        Statement("Password", ["secretsmanager:GetSecretValue"], [password]),
        Statement(
            "Parameters",
            ["ssm:GetParameter"],
            [
                arns.regional(
                    environment,
                    "ssm",
                    f"parameter{names.parameter_path(environment, 'monitoring', 'source')}",
                )
            ],
        ),
        Statement(
            "Source",
            ["s3:GetObject"],
            [
                arns.bucket(
                    environment, f"cdk-*-assets-{environment.account}-{environment.region}/*"
                ),
                arns.bucket(environment, f"{config}/monitoring/*"),
            ],
            because="CDK names the archive after its content; the folder has the pinned programs",
        ),
        _use_key(environment, key_arn, ["s3", "secretsmanager", "sns"]),
    ]
    if mail_secret is not None:
        found.append(
            Statement(
                "MailPassword",
                ["secretsmanager:GetSecretValue"],
                [arns.regional(environment, "secretsmanager", f"secret:{mail_secret}-??????")],
                because="Secrets Manager ends the ARN of a secret with six characters of its own",
            )
        )
    if workspace is not None:
        found.append(Statement("Write", ["aps:RemoteWrite"], [workspace]))
    return found


def _use_key(environment: Environment, key_arn: str, services: Sequence[str]) -> Statement:
    return Statement(
        "SiteKey",
        ["kms:Decrypt", "kms:GenerateDataKey"],
        [key_arn],
        condition={
            "StringEquals": {
                "kms:ViaService": [
                    f"{service}.{environment.region}.amazonaws.com" for service in services
                ]
            }
        },
    )
