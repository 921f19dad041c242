"""What ParallelCluster's CloudFormation provider may do: make, change and delete clusters.

The provider's own roles would carry no boundary, so it is always given this one. The actions are
those of ParallelCluster's published policies (cloudformation/policies/parallelcluster-policies.yaml
of 3.16), without the right to make roles: the site makes them all and passes them.
"""

from __future__ import annotations

from collections.abc import Sequence

from clusterbox.site import names
from clusterbox.site.environment import Environment
from stacks.permissions import arns
from stacks.permissions.nodes import NESTED_STACKS
from stacks.permissions.roles import Statement, unscoped

_RANDOM_SUFFIX = "ParallelCluster or CloudFormation ends these names with an id of its own"


def provider(environment: Environment) -> list[Statement]:
    """Return the statements of the provider's role."""
    return [
        *_compute(environment),
        *_identity(environment),
        *_data(environment),
        *_functions(environment),
        *_accounting(environment),
    ]


def _accounting(environment: Environment) -> list[Statement]:
    """Return what the validator of a cluster's Database asks for: whether the secret exists."""
    database = environment.accounting_database
    if database is None:
        return []
    secret = database.secret or arns.regional(
        environment, "secretsmanager", f"secret:{names.accounting_name(environment)}-??????"
    )
    return [
        Statement(
            "AccountingSecret",
            ["secretsmanager:DescribeSecret"],
            [secret],
            because="Secrets Manager ends the ARN with six characters of its own",
        )
    ]


def _compute(environment: Environment) -> list[Statement]:
    def ec2(*resources: str) -> list[str]:
        return [arns.regional(environment, "ec2", resource) for resource in resources]

    return [
        unscoped(
            "Describe", ["ec2:Describe*", "autoscaling:Describe*", "elasticloadbalancing:Describe*"]
        ),
        Statement(
            "HeadNode",
            [
                "ec2:AttachNetworkInterface",
                "ec2:CreateFleet",
                "ec2:CreateLaunchTemplate",
                "ec2:CreateLaunchTemplateVersion",
                "ec2:CreateNetworkInterface",
                "ec2:CreatePlacementGroup",
                "ec2:CreateTags",
                "ec2:CreateVolume",
                "ec2:DeleteLaunchTemplate",
                "ec2:DeleteNetworkInterface",
                "ec2:DeletePlacementGroup",
                "ec2:DeleteTags",
                "ec2:DeleteVolume",
                "ec2:ModifyLaunchTemplate",
                "ec2:ModifyNetworkInterfaceAttribute",
                "ec2:RunInstances",
            ],
            [
                *ec2(
                    "fleet/*",
                    "instance/*",
                    "key-pair/*",
                    "launch-template/*",
                    "network-interface/*",
                    "placement-group/*",
                    "security-group/*",
                    "subnet/*",
                    "volume/*",
                ),
                arns.public(environment, "ec2", "image/*"),
            ],
            because="EC2 gives these their ids when ParallelCluster makes them; "
            "the validators' dry runs name every image and subnet of the configuration",
        ),
        Statement(
            "NodesOfClusters",
            ["ec2:ModifyInstanceAttribute", "ec2:TerminateInstances"],
            ec2("instance/*"),
            because="EC2 gives instances their ids; the condition narrows it to nodes of clusters",
            condition={"StringLike": {f"aws:ResourceTag/{names.TAG_CLUSTER}": "*"}},
        ),
        unscoped("FindBalancers", ["tag:GetResources"]),
        Statement(
            "LoginNodes",
            [
                "autoscaling:CreateAutoScalingGroup",
                "autoscaling:CreateOrUpdateTags",
                "autoscaling:DeleteAutoScalingGroup",
                "autoscaling:DeleteLifecycleHook",
                "autoscaling:DeleteTags",
                "autoscaling:PutLifecycleHook",
                "autoscaling:UpdateAutoScalingGroup",
            ],
            [
                arns.regional(
                    environment, "autoscaling", "autoScalingGroup:*:autoScalingGroupName/*"
                )
            ],
            because=_RANDOM_SUFFIX,
        ),
        Statement(
            "LoginBalancers",
            [
                "elasticloadbalancing:AddTags",
                "elasticloadbalancing:CreateListener",
                "elasticloadbalancing:CreateLoadBalancer",
                "elasticloadbalancing:CreateTargetGroup",
                "elasticloadbalancing:DeleteListener",
                "elasticloadbalancing:DeleteLoadBalancer",
                "elasticloadbalancing:DeleteTargetGroup",
                "elasticloadbalancing:ModifyLoadBalancerAttributes",
                "elasticloadbalancing:ModifyTargetGroup",
                "elasticloadbalancing:RemoveTags",
            ],
            [
                arns.regional(environment, "elasticloadbalancing", f"{kind}/*")
                for kind in ("listener", "loadbalancer", "targetgroup")
            ],
            because=_RANDOM_SUFFIX,
        ),
    ]


def _identity(environment: Environment) -> list[Statement]:
    path = environment.hosting.iam_path
    # Where the site has no path of its own, ParallelCluster takes one.
    profiles = "/parallelcluster/" if path == "/" else path
    clusters = [entry.name for entry in environment.clusters]
    machines = [
        f"{cluster}-{kind}" for cluster in clusters for kind in ("head-node", "compute", "login")
    ]
    return [
        Statement(
            "ReadRoles",
            [
                "iam:GetInstanceProfile",
                "iam:GetPolicy",
                "iam:GetRole",
                "iam:GetRolePolicy",
                "iam:ListAttachedRolePolicies",
                "iam:ListRolePolicies",
                "iam:SimulatePrincipalPolicy",
            ],
            [
                arns.iam(environment, "role/*"),
                arns.iam(environment, "policy/*"),
                arns.iam(environment, "instance-profile/*"),
            ],
            because="ParallelCluster's validators read whichever role a configuration names",
        ),
        Statement(
            "InstanceProfiles",
            [
                "iam:AddRoleToInstanceProfile",
                "iam:CreateInstanceProfile",
                "iam:DeleteInstanceProfile",
                "iam:RemoveRoleFromInstanceProfile",
                "iam:TagInstanceProfile",
            ],
            [arns.iam(environment, f"instance-profile{profiles}*")],
            because=_RANDOM_SUFFIX,
        ),
        *_pass(environment, "PassMachines", "ec2.amazonaws.com", machines),
        *_pass(
            environment,
            "PassCleanup",
            "lambda.amazonaws.com",
            [f"{cluster}-cleanup" for cluster in clusters],
        ),
        Statement(
            "ServiceLinkedRoles",
            ["iam:CreateServiceLinkedRole"],
            [arns.iam(environment, "role/aws-service-role/*")],
            because="AWS names these roles; login nodes are the first to need them in an account",
            condition={
                "StringEquals": {
                    "iam:AWSServiceName": [
                        "autoscaling.amazonaws.com",
                        "elasticloadbalancing.amazonaws.com",
                    ]
                }
            },
        ),
    ]


def _pass(
    environment: Environment, sid: str, service: str, purposes: Sequence[str]
) -> list[Statement]:
    """Return leave to give the roles of clusters to one service; none where there are none."""
    if not purposes:
        return []
    return [
        Statement(
            sid,
            ["iam:PassRole"],
            [arns.site_roles(environment, purpose) for purpose in purposes],
            condition={"StringEquals": {"iam:PassedToService": service}},
        )
    ]


def _data(environment: Environment) -> list[Statement]:
    bucket = environment.storage.buckets.cluster_config.name
    # CloudFormation keeps about 24 characters of a stack's name in the names of its buckets.
    own = f"{f'{environment.name}-cluster-':.24}*"
    return [
        Statement(
            "Artefacts",
            [
                "s3:DeleteObject",
                "s3:DeleteObjectVersion",
                "s3:GetBucketLocation",
                "s3:GetBucketVersioning",
                "s3:GetEncryptionConfiguration",
                "s3:GetObject",
                "s3:GetObjectVersion",
                "s3:ListBucket",
                "s3:ListBucketVersions",
                "s3:PutObject",
            ],
            [
                arns.bucket(environment, bucket),
                arns.bucket(environment, f"{bucket}/parallelcluster/*"),
                arns.bucket(environment, own),
            ],
            because=f"{_RANDOM_SUFFIX}; the second is the provider's own bucket in the cluster's stack",
        ),
        Statement(
            "PublicArtefacts",
            ["s3:GetObject", "s3:ListBucket"],
            [
                arns.parallelcluster_artefacts(environment, ""),
                arns.parallelcluster_artefacts(environment),
            ],
            because="AWS's own public bucket of ParallelCluster; which objects depends on the version",
        ),
        Statement(
            "FileSystems",
            [
                "elasticfilesystem:DescribeFileSystemPolicy",
                "elasticfilesystem:DescribeFileSystems",
                "elasticfilesystem:DescribeMountTargetSecurityGroups",
                "elasticfilesystem:DescribeMountTargets",
            ],
            [
                arns.regional(environment, "elasticfilesystem", "file-system/*"),
                arns.regional(environment, "elasticfilesystem", "access-point/*"),
            ],
            because="ParallelCluster's validators read whichever file system a configuration names",
        ),
        Statement(
            "NodeTables",
            [
                "dynamodb:CreateTable",
                "dynamodb:DeleteTable",
                "dynamodb:DescribeTable",
                "dynamodb:GetItem",
                "dynamodb:ListTagsOfResource",
                "dynamodb:PutItem",
                "dynamodb:Query",
                "dynamodb:TagResource",
                "dynamodb:UntagResource",
                "dynamodb:UpdateItem",
            ],
            [arns.regional(environment, "dynamodb", "table/parallelcluster-*")],
            because="one table a cluster, named after it",
        ),
        Statement(
            "ClusterZones",
            [
                "route53:ChangeResourceRecordSets",
                "route53:ChangeTagsForResource",
                "route53:DeleteHostedZone",
                "route53:GetChange",
                "route53:GetHostedZone",
                "route53:ListQueryLoggingConfigs",
                "route53:ListResourceRecordSets",
            ],
            [
                f"arn:{environment.partition}:route53:::hostedzone/*",
                f"arn:{environment.partition}:route53:::change/*",
            ],
            because="Route 53 gives a cluster's zone its id when ParallelCluster makes it",
        ),
        unscoped("NewClusterZones", ["route53:CreateHostedZone"]),
    ]


def _functions(environment: Environment) -> list[Statement]:
    functions = [
        arns.regional(environment, "lambda", f"function:{prefix}-*")
        for prefix in ("pcluster", "parallelcluster")
    ]
    return [
        Statement(
            "ReadStacks",
            [
                "cloudformation:DescribeStackEvents",
                "cloudformation:DescribeStackResource",
                "cloudformation:DescribeStackResources",
                "cloudformation:DescribeStacks",
                "cloudformation:GetTemplate",
            ],
            [arns.regional(environment, "cloudformation", "stack/*")],
            because="pcluster lists all stacks to find those of clusters",
        ),
        # A stack keeps the role it was made with: to change one of others would be to have its role.
        *_write_stacks(environment),
        unscoped("ListStacks", ["cloudformation:ListStacks"]),
        Statement(
            "CleanupFunctions",
            [
                "lambda:AddPermission",
                "lambda:CreateFunction",
                "lambda:DeleteFunction",
                "lambda:GetFunction",
                "lambda:GetFunctionConfiguration",
                "lambda:InvokeFunction",
                "lambda:ListTags",
                "lambda:RemovePermission",
                "lambda:TagResource",
                "lambda:UntagResource",
                "lambda:UpdateFunctionConfiguration",
            ],
            functions,
            because=_RANDOM_SUFFIX,
        ),
        Statement(
            "PollWhileWaiting",
            ["events:DeleteRule", "events:PutRule", "events:PutTargets", "events:RemoveTargets"],
            [arns.regional(environment, "events", "rule/Cluster????????")],
            because="the provider calls itself until a cluster stands, by a rule named after the resource",
        ),
        Statement(
            "Watch",
            [
                "cloudwatch:DeleteAlarms",
                "cloudwatch:DeleteDashboards",
                "cloudwatch:GetDashboard",
                "cloudwatch:ListTagsForResource",
                "cloudwatch:PutCompositeAlarm",
                "cloudwatch:PutDashboard",
                "cloudwatch:PutMetricAlarm",
                "cloudwatch:TagResource",
                "cloudwatch:UntagResource",
            ],
            [
                arns.regional(environment, "cloudwatch", "alarm:*"),
                f"arn:{environment.partition}:cloudwatch::{environment.account}:dashboard/*",
            ],
            because="dashboards and alarms are named after the cluster",
        ),
        unscoped("ReadAlarms", ["cloudwatch:DescribeAlarms"]),
        Statement(
            "LogGroups",
            [
                "logs:CreateLogGroup",
                "logs:CreateLogStream",
                "logs:DeleteLogGroup",
                "logs:DeleteMetricFilter",
                "logs:DescribeLogStreams",
                "logs:DescribeMetricFilters",
                "logs:FilterLogEvents",
                "logs:GetLogEvents",
                "logs:ListTagsForResource",
                "logs:PutLogEvents",
                "logs:PutMetricFilter",
                "logs:PutRetentionPolicy",
                "logs:TagResource",
                "logs:UntagResource",
            ],
            [
                arns.regional(environment, "logs", "log-group:/aws/parallelcluster/*"),
                arns.regional(environment, "logs", "log-group:/aws/lambda/pcluster-*"),
                arns.regional(
                    environment, "logs", f"log-group:/aws/lambda/{environment.name}-cluster-*"
                ),
            ],
            because=_RANDOM_SUFFIX,
        ),
        unscoped("FindLogGroups", ["logs:DescribeLogGroups"]),
        unscoped("Trace", ["xray:PutTelemetryRecords", "xray:PutTraceSegments"]),
    ]


def _write_stacks(environment: Environment) -> list[Statement]:
    stacks = [
        f"stack/{entry.name}{nested}/*"
        for entry in environment.clusters
        for nested in ("", *(f"-{name}*" for name in NESTED_STACKS))
    ]
    if not stacks:
        return []
    return [
        Statement(
            "WriteStacks",
            [
                "cloudformation:CreateStack",
                "cloudformation:DeleteStack",
                "cloudformation:UpdateStack",
            ],
            [arns.regional(environment, "cloudformation", stack) for stack in stacks],
            because="CloudFormation ends the ARN of a stack, and the names of nested ones, with an id",
        )
    ]
