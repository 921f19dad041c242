"""What the machines of a cluster may do: head node, compute nodes, login nodes, clean-up function.

The actions are those that ParallelCluster 3.16.1 gives to the roles it makes itself
(pcluster/templates/cdk_builder_utils.py and cluster_stack.py), narrowed to one cluster and to the
site's own subnets, roles and buckets.
"""

from __future__ import annotations

from collections.abc import Sequence

from clusterbox.site import names
from clusterbox.site.environment import Environment
from stacks.permissions import arns
from stacks.permissions.roles import Statement, session_manager_statements, unscoped

_NAMED_BY_EC2 = "EC2 gives these their ids when it makes them"


def head_node(
    environment: Environment,
    cluster: str,
    *,
    images: Sequence[str],
    compute_role_arn: str,
    secrets: Sequence[str] = (),
) -> list[Statement]:
    """Return what the head node needs: start and end the cluster's nodes, and know their state."""
    own = {"StringEquals": {f"ec2:ResourceTag/{names.TAG_CLUSTER}": cluster}}
    network = environment.network
    subnets = [network.subnet(name) for name in network.subnet_names]
    launched = ["fleet/*", "instance/*", "network-interface/*", "volume/*"]
    referred = [
        "launch-template/*",
        "placement-group/*",
        "security-group/*",
        f"key-pair/{network.ssh.key_pair}",
    ]
    return [
        unscoped("Describe", ["ec2:Describe*"]),
        Statement(
            "LaunchNodes",
            ["ec2:CreateFleet", "ec2:RunInstances"],
            [
                *(
                    arns.regional(environment, "ec2", resource)
                    for resource in [*launched, *referred]
                ),
                *(
                    arns.regional(environment, "ec2", f"subnet/{subnet.id or '*'}")
                    for subnet in dict.fromkeys(subnets)
                ),
                *(arns.public(environment, "ec2", f"image/{image}") for image in images),
            ],
            because=f"{_NAMED_BY_EC2}; ParallelCluster makes templates and placement groups itself",
        ),
        Statement(
            "EndNodes",
            ["ec2:TerminateInstances"],
            [arns.regional(environment, "ec2", "instance/*")],
            because=f"{_NAMED_BY_EC2}; the condition narrows it to this cluster",
            condition=own,
        ),
        Statement(
            "TagAndAttach",
            ["ec2:AttachVolume", "ec2:CreateTags", "ec2:DetachVolume"],
            [
                arns.regional(environment, "ec2", "instance/*"),
                arns.regional(environment, "ec2", "volume/*"),
            ],
            because=_NAMED_BY_EC2,
        ),
        Statement(
            "ReadConsole",
            ["ec2:GetConsoleOutput"],
            [arns.regional(environment, "ec2", "instance/*")],
            because=f"{_NAMED_BY_EC2}; the condition narrows it to this cluster",
            condition={"StringEquals": {f"aws:ResourceTag/{names.TAG_CLUSTER}": cluster}},
        ),
        Statement(
            "GiveRoleToNodes",
            ["iam:PassRole"],
            [compute_role_arn],
            condition={"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}},
        ),
        *(
            [Statement("ReadSecrets", ["secretsmanager:GetSecretValue"], secrets)]
            if secrets
            else []
        ),
        _stack(environment, cluster, "cloudformation:SignalResource"),
        _table(environment, cluster, "dynamodb:BatchGetItem"),
        *_artefacts(environment),
        *_agent(environment, cluster),
        *session_manager_statements(),
    ]


def compute_node(environment: Environment, cluster: str) -> list[Statement]:
    """Return what a compute node needs: find its cluster and report what it does."""
    return [
        unscoped("Describe", ["ec2:Describe*"]),
        _stack(environment, cluster),
        _table(environment, cluster),
        *_artefacts(environment),
        *_agent(environment, cluster),
        *session_manager_statements(),
    ]


def login_node(environment: Environment, cluster: str) -> list[Statement]:
    """Return what a login node needs: a compute node's permissions, and to end its own life cycle."""
    groups = f"autoScalingGroup:*:autoScalingGroupName/{cluster}-*"
    return [
        *compute_node(environment, cluster),
        Statement(
            "EndLifeCycle",
            ["autoscaling:CompleteLifecycleAction"],
            [arns.regional(environment, "autoscaling", groups)],
            because="Auto Scaling puts an id of its own into the group's ARN",
        ),
    ]


def share_data(
    environment: Environment, *, file_systems: Sequence[str], key_arn: str
) -> list[Statement]:
    """Return what every node needs for the site's data: mount the share, use the results bucket."""
    results = environment.storage.buckets.results.name
    return [
        Statement(
            "MountShare",
            [
                "elasticfilesystem:ClientMount",
                "elasticfilesystem:ClientRootAccess",
                "elasticfilesystem:ClientWrite",
            ],
            file_systems,
        ),
        Statement(
            "Results",
            ["s3:DeleteObject", "s3:GetObject", "s3:ListBucket", "s3:PutObject"],
            [arns.bucket(environment, results), arns.bucket(environment, f"{results}/*")],
            because="jobs name their results themselves",
        ),
        Statement("SiteKey", ["kms:Decrypt", "kms:GenerateDataKey"], [key_arn]),
    ]


def cleanup_function(environment: Environment, cluster: str) -> list[Statement]:
    """Return what ParallelCluster's clean-up function needs when a cluster or a queue goes."""
    bucket = environment.storage.buckets.cluster_config.name
    return [
        Statement(
            "DeleteArtefacts",
            ["s3:DeleteObject", "s3:DeleteObjectVersion", "s3:ListBucket", "s3:ListBucketVersions"],
            [
                arns.bucket(environment, bucket),
                arns.bucket(environment, f"{bucket}/parallelcluster/*"),
            ],
            because="ParallelCluster puts each cluster's artefacts into a folder with a random suffix",
        ),
        unscoped("FindNodes", ["ec2:Describe*"]),
        Statement(
            "EndNodes",
            ["ec2:TerminateInstances"],
            [arns.regional(environment, "ec2", "instance/*")],
            because=f"{_NAMED_BY_EC2}; the condition narrows it to this cluster",
            condition={"StringEquals": {f"ec2:ResourceTag/{names.TAG_CLUSTER}": cluster}},
        ),
        Statement(
            "Log",
            ["logs:CreateLogStream", "logs:PutLogEvents"],
            [arns.regional(environment, "logs", "log-group:/aws/lambda/pcluster-*:*")],
            because="ParallelCluster ends the function's name with part of a stack id",
        ),
    ]


def _stack(environment: Environment, cluster: str, *more: str) -> Statement:
    return Statement(
        "OwnStack",
        ["cloudformation:DescribeStackResource", "cloudformation:DescribeStacks", *more],
        [
            arns.regional(environment, "cloudformation", f"stack/{cluster}/*"),
            arns.regional(environment, "cloudformation", f"stack/{cluster}-*/*"),
        ],
        because="CloudFormation ends the ARN of the cluster's stack, and of those nested in it, with an id",
    )


def _table(environment: Environment, cluster: str, *more: str) -> Statement:
    return Statement(
        "OwnTable",
        ["dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query", "dynamodb:UpdateItem", *more],
        [arns.regional(environment, "dynamodb", f"table/parallelcluster-slurm-{cluster}")],
    )


def _artefacts(environment: Environment) -> list[Statement]:
    bucket = environment.storage.buckets.cluster_config.name
    return [
        Statement(
            "PublicArtefacts",
            ["s3:GetObject"],
            [arns.parallelcluster_artefacts(environment)],
            because="AWS's own public bucket of ParallelCluster; which objects depends on the version",
        ),
        Statement(
            "ClusterArtefacts",
            ["s3:GetBucketLocation", "s3:GetObject", "s3:GetObjectVersion", "s3:ListBucket"],
            [
                arns.bucket(environment, bucket),
                arns.bucket(environment, f"{bucket}/parallelcluster/*"),
            ],
            because="ParallelCluster puts each cluster's artefacts into a folder with a random suffix",
        ),
    ]


def _agent(environment: Environment, cluster: str) -> list[Statement]:
    group = f"log-group:/aws/parallelcluster/{cluster}-*"
    return [
        unscoped(
            "Metrics",
            ["cloudwatch:PutMetricData"],
            condition={
                "StringLike": {
                    "cloudwatch:namespace": ["CWAgent", "ParallelCluster", "ParallelCluster/*"]
                }
            },
        ),
        Statement(
            "Logs",
            ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
            [
                arns.regional(environment, "logs", group),
                arns.regional(environment, "logs", f"{group}:*"),
            ],
            because="ParallelCluster ends the name of the cluster's log group with a time",
        ),
    ]
