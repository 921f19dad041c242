"""What the guard rails of the budgets and the daily cost report may do."""

from __future__ import annotations

from collections.abc import Sequence

from clusterbox.site import names
from clusterbox.site.environment import Environment
from stacks.permissions import arns
from stacks.permissions.roles import Statement, unscoped

# What the report asks for. Launch templates can show user data; the report needs the images that
# they start, which would else be called unused.
READ_ACTIONS = (
    "cloudwatch:GetMetricData",
    "cloudwatch:GetMetricStatistics",
    "cloudwatch:ListMetrics",
    "ec2:DescribeAddresses",
    "ec2:DescribeImages",
    "ec2:DescribeInstances",
    "ec2:DescribeLaunchTemplateVersions",
    "ec2:DescribeNatGateways",
    "ec2:DescribeSnapshots",
    "ec2:DescribeSpotPriceHistory",
    "ec2:DescribeVolumes",
    "ec2:DescribeVpcEndpoints",
    "elasticloadbalancing:DescribeLoadBalancers",
    "s3:ListAllMyBuckets",
)


def read_costs(environment: Environment) -> list[Statement]:
    """Return what `clusterbox costs report` reads of the account."""
    return [
        unscoped("Inventory", READ_ACTIONS),
        Statement(
            "FileSystems",
            ["elasticfilesystem:DescribeFileSystems", "fsx:DescribeFileSystems"],
            [
                arns.regional(environment, "elasticfilesystem", "file-system/*"),
                arns.regional(environment, "fsx", "file-system/*"),
            ],
            because="file systems of the whole account are counted",
        ),
        Statement(
            "Buckets",
            ["s3:GetBucketTagging"],
            [arns.bucket(environment, "*")],
            because="buckets of the whole account are counted: whose they are, not what is in them",
        ),
    ]


def stop_clusters(
    environment: Environment,
    *,
    stopped: Sequence[str],
    drained: Sequence[str],
    document: str,
    alarms: str,
    dead_letters: str,
    log_group: str,
    key_arn: str,
) -> list[Statement]:
    """Return what the stopping function needs; `stopped` and `drained` are names of clusters.

    It changes one item of the tables of `stopped`, and runs one document on head nodes of
    `drained`. The other parameters are the document's name and ARNs.
    """
    found = [
        Statement("Tell", ["sns:Publish"], [alarms]),
        Statement("DeadLetters", ["sqs:SendMessage"], [dead_letters]),
        Statement(
            "Spent",
            ["budgets:ViewBudget"],
            [f"arn:{environment.partition}:budgets::{environment.account}:budget/*"],
            because="CloudFormation names the budgets; they are told by what they count",
        ),
        Statement(
            "Log",
            ["logs:CreateLogStream", "logs:PutLogEvents"],
            [log_group],
            because="the streams of its own log group",
        ),
        use_key_for_messages(environment, key_arn),
    ]
    if stopped:
        found.append(
            Statement(
                "FleetStatus",
                ["dynamodb:GetItem", "dynamodb:UpdateItem"],
                [
                    arns.regional(environment, "dynamodb", f"table/parallelcluster-{cluster}")
                    for cluster in stopped
                ],
                # The table holds the fleet's status and the mapping of nodes, for the daemons.
                condition={
                    "ForAllValues:StringEquals": {"dynamodb:LeadingKeys": ["COMPUTE_FLEET"]}
                },
            )
        )
    if drained:
        found += [
            unscoped("FindHeadNode", ["ec2:DescribeInstances"]),
            unscoped("ReadResult", ["ssm:GetCommandInvocation"]),
            Statement(
                "RunDocument",
                ["ssm:SendCommand"],
                [arns.regional(environment, "ssm", f"document/{document}")],
            ),
            Statement(
                "OnHeadNodes",
                ["ssm:SendCommand"],
                [arns.regional(environment, "ec2", "instance/*")],
                because="EC2 gives the ids; the conditions narrow it to head nodes of these clusters",
                condition={
                    "StringEquals": {
                        f"ssm:resourceTag/{names.TAG_CLUSTER}": list(drained),
                        f"ssm:resourceTag/{names.TAG_NODE_TYPE}": "HeadNode",
                    }
                },
            ),
        ]
    return found


def make_report(
    environment: Environment,
    *,
    source: str,
    reports: tuple[str, str],
    alarms: str,
    log_group: str,
    key_arn: str,
) -> list[Statement]:
    """Return what the project needs that makes the daily report.

    `source` is the ARN of the bucket that has the archive of this repository, `reports` the name of
    the bucket and the folder in it where reports are kept.
    """
    bucket, folder = reports
    return [
        *read_costs(environment),
        Statement(
            "Source",
            ["s3:GetObject", "s3:GetObjectVersion"],
            [f"{source}/*"],
            because="CDK names the archive after its content",
        ),
        # CodeBuild looks whose bucket it is: "S3BucketIdentity" of its user guide's service role.
        Statement(
            "SourceBucket",
            ["s3:GetBucketAcl", "s3:GetBucketLocation"],
            [source],
            because="CDK's bootstrap has a qualifier in the name of its bucket",
        ),
        Statement(
            "KeepReports",
            ["s3:GetObject", "s3:PutObject"],
            [arns.bucket(environment, f"{bucket}/{folder}/*")],
            because="one folder, with a file for each day",
        ),
        Statement(
            "ListReports",
            ["s3:ListBucket"],
            [arns.bucket(environment, bucket)],
            condition={"StringLike": {"s3:prefix": f"{folder}/*"}},
        ),
        Statement("Tell", ["sns:Publish"], [alarms]),
        Statement(
            "Log",
            ["logs:CreateLogStream", "logs:PutLogEvents"],
            [log_group],
            because="the streams of its own log group",
        ),
        use_key_for_messages(environment, key_arn),
    ]


def start_report(
    environment: Environment, *, project: str, dead_letters: str, key_arn: str
) -> list[Statement]:
    """Return what the schedule needs: start one project, and leave word when it cannot."""
    return [
        Statement("StartReport", ["codebuild:StartBuild"], [project]),
        Statement("DeadLetters", ["sqs:SendMessage"], [dead_letters]),
        use_key_for_messages(environment, key_arn),
    ]


def use_key_for_messages(environment: Environment, key_arn: str) -> Statement:
    """Return what sending to a topic or a queue that the site's key encrypts needs."""
    return Statement(
        "SiteKey",
        ["kms:Decrypt", "kms:GenerateDataKey"],
        [key_arn],
        condition={
            "StringEquals": {
                "kms:ViaService": [
                    f"{service}.{environment.region}.amazonaws.com" for service in ("sns", "sqs")
                ]
            }
        },
    )
