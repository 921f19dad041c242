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

# How ParallelCluster begins the names of the stacks that it nests in a cluster's.
NESTED_STACKS = ("ComputeFleet", "LoginNodes")

_NAMED_BY_EC2 = "EC2 gives these their ids when it makes them"


def head_node(
    environment: Environment,
    cluster: str,
    *,
    images: Sequence[str],
    compute_role_arn: str,
    secrets: Sequence[str] = (),
    secret_keys: Sequence[str] = (),
    managed_dns: bool = False,
) -> list[Statement]:
    """Return what the head node needs: start and end the cluster's nodes, and know their state.

    `secrets` are the ARNs, of Secrets Manager or of the Parameter Store, that the configuration
    names, and `secret_keys` those of the KMS keys that encrypt them; with `managed_dns`
    ParallelCluster keeps a zone with a name for each node.
    """
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
        unscoped(
            "Describe",
            [
                "ec2:DescribeCapacityReservations",
                "ec2:DescribeInstanceAttribute",
                "ec2:DescribeInstanceStatus",
                "ec2:DescribeInstances",
                "ec2:DescribeLaunchTemplateVersions",
                "ec2:DescribeTags",
                "ec2:DescribeVolumes",
            ],
        ),
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
        Statement(
            "SpotRole",
            ["iam:CreateServiceLinkedRole"],
            [arns.iam(environment, "role/aws-service-role/spot.amazonaws.com/*")],
            because="AWS names the role; an account without it has never used Spot",
            condition={"StringEquals": {"iam:AWSServiceName": "spot.amazonaws.com"}},
        ),
        *_secrets(environment, secrets, secret_keys),
        *([_zone_records(environment)] if managed_dns else []),
        _stack(environment, cluster, "cloudformation:SignalResource"),
        _tables(environment, cluster, "dynamodb:BatchGetItem", "dynamodb:BatchWriteItem"),
        *_artefacts(environment),
        *_agent(environment, cluster),
        *session_manager_statements(),
    ]


def run_on_head_nodes(environment: Environment) -> list[Statement]:
    """Return what Slurm's commands on the head nodes of the site's clusters need, from elsewhere.

    It is root there, as who makes the clusters and passes their roles is anyway.
    """
    clusters = [entry.name for entry in environment.clusters]
    if not clusters:
        return []
    return [
        unscoped("ReadResult", ["ssm:GetCommandInvocation"]),
        Statement(
            "RunCommands",
            ["ssm:SendCommand"],
            [arns.public(environment, "ssm", "document/AWS-RunShellScript")],
        ),
        Statement(
            "OnHeadNodes",
            ["ssm:SendCommand"],
            [arns.regional(environment, "ec2", "instance/*")],
            because=f"{_NAMED_BY_EC2}; the conditions narrow it to head nodes of the site's clusters",
            condition={
                "StringEquals": {
                    f"ssm:resourceTag/{names.TAG_CLUSTER}": clusters,
                    f"ssm:resourceTag/{names.TAG_NODE_TYPE}": "HeadNode",
                }
            },
        ),
    ]


def compute_node(environment: Environment, cluster: str) -> list[Statement]:
    """Return what a compute node needs: find its cluster and its name, and report what it does."""
    return [*_any_node(environment, cluster), _find_own_name(environment, cluster)]


def login_node(environment: Environment, cluster: str) -> list[Statement]:
    """Return what a login node needs: find its cluster, report, and end its own life cycle."""
    groups = f"autoScalingGroup:*:autoScalingGroupName/{cluster}-*-AutoScalingGroup"
    return [
        *_any_node(environment, cluster),
        Statement(
            "EndLifeCycle",
            ["autoscaling:CompleteLifecycleAction"],
            [arns.regional(environment, "autoscaling", groups)],
            because="Auto Scaling puts an id of its own into the group's ARN",
        ),
    ]


def _any_node(environment: Environment, cluster: str) -> list[Statement]:
    return [
        unscoped(
            "Describe", ["ec2:DescribeInstanceAttribute", "ec2:DescribeTags", "ec2:DescribeVolumes"]
        ),
        _stack(environment, cluster),
        _tables(environment, cluster),
        *_artefacts(environment),
        *_agent(environment, cluster),
        *session_manager_statements(),
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
        use_key(environment, key_arn),
    ]


def use_key(environment: Environment, key_arn: str) -> Statement:
    """Return what reading and writing buckets that the site's key encrypts needs."""
    return Statement(
        "SiteKey",
        ["kms:Decrypt", "kms:GenerateDataKey"],
        [key_arn],
        condition={"StringEquals": {"kms:ViaService": f"s3.{environment.region}.amazonaws.com"}},
    )


def cleanup_function(
    environment: Environment, cluster: str, *, managed_dns: bool = False
) -> list[Statement]:
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
        *([_zone_records(environment, "route53:ListResourceRecordSets")] if managed_dns else []),
        unscoped("FindNodes", ["ec2:DescribeInstances"]),
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
            *(
                arns.regional(environment, "cloudformation", f"stack/{cluster}-{nested}*/*")
                for nested in NESTED_STACKS
            ),
        ],
        because="CloudFormation ends the ARN of the cluster's stack, and of those nested in it, with an id",
    )


def _tables(environment: Environment, cluster: str, *more: str) -> Statement:
    """Return access to the cluster's two tables: state of the fleet, and names of the nodes."""
    found = [f"table/parallelcluster-{cluster}", f"table/parallelcluster-slurm-{cluster}"]
    return Statement(
        "OwnTables",
        ["dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", *more],
        [arns.regional(environment, "dynamodb", table) for table in found],
    )


def _find_own_name(environment: Environment, cluster: str) -> Statement:
    """Return what a compute node needs to find its name by its instance id."""
    table = arns.regional(environment, "dynamodb", f"table/parallelcluster-slurm-{cluster}")
    return Statement(
        "FindOwnName",
        ["dynamodb:Query"],
        [table, f"{table}/index/*"],
        because="the indexes of one table",
    )


def _secrets(
    environment: Environment, arns_of_secrets: Sequence[str], keys: Sequence[str]
) -> list[Statement]:
    parameters = [arn for arn in arns_of_secrets if arn.split(":")[2:3] == ["ssm"]]
    secrets = [arn for arn in arns_of_secrets if arn not in parameters]
    found = []
    if secrets:
        found.append(Statement("ReadSecrets", ["secretsmanager:GetSecretValue"], secrets))
    if parameters:
        found.append(Statement("ReadSecretParameters", ["ssm:GetParameter"], parameters))
    if keys:
        service = f"secretsmanager.{environment.region}.amazonaws.com"
        condition = {"StringEquals": {"kms:ViaService": service}}
        found.append(Statement("SecretKeys", ["kms:Decrypt"], keys, condition=condition))
    return found


def _zone_records(environment: Environment, *more: str) -> Statement:
    return Statement(
        "NodeNames",
        ["route53:ChangeResourceRecordSets", *more],
        [f"arn:{environment.partition}:route53:::hostedzone/*"],
        because="Route 53 gives the cluster's zone its id when ParallelCluster makes it",
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
