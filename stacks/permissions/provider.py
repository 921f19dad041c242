"""What ParallelCluster's CloudFormation provider may do: make, change and delete clusters.

The provider's own roles would carry no boundary, so it is always given this one. The actions are
those of ParallelCluster's published policies (cloudformation/policies/parallelcluster-policies.yaml
of 3.16), without the right to make roles: the site makes them all and passes them.
"""

from __future__ import annotations

from clusterbox.site.environment import Environment
from stacks.permissions import arns
from stacks.permissions.roles import Statement, unscoped

_RANDOM_SUFFIX = "ParallelCluster or CloudFormation ends these names with an id of its own"


def provider(environment: Environment) -> list[Statement]:
    """Return the statements of the provider's role."""
    return [
        *_compute(environment),
        *_identity(environment),
        *_data(environment),
        *_functions(environment),
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
                "ec2:ModifyInstanceAttribute",
                "ec2:ModifyLaunchTemplate",
                "ec2:ModifyNetworkInterfaceAttribute",
                "ec2:RunInstances",
                "ec2:TerminateInstances",
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
            [arns.iam(environment, f"instance-profile{path}*")],
            because=_RANDOM_SUFFIX,
        ),
        Statement(
            "PassSiteRoles",
            ["iam:PassRole"],
            [arns.site_roles(environment)],
            because="every cluster has roles of its own, all with the site's prefix and the boundary",
            condition={
                "StringEquals": {
                    "iam:PassedToService": ["ec2.amazonaws.com", "lambda.amazonaws.com"]
                }
            },
        ),
    ]


def _data(environment: Environment) -> list[Statement]:
    bucket = environment.storage.buckets.cluster_config.name
    own = f"{environment.name}-cluster-*"
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
            "Stacks",
            [
                "cloudformation:CreateStack",
                "cloudformation:DeleteStack",
                "cloudformation:DescribeStackEvents",
                "cloudformation:DescribeStackResource",
                "cloudformation:DescribeStackResources",
                "cloudformation:DescribeStacks",
                "cloudformation:GetTemplate",
                "cloudformation:UpdateStack",
            ],
            [arns.regional(environment, "cloudformation", "stack/*")],
            because="a cluster's stack is named after the cluster, and clusters are free to be named",
        ),
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
            [arns.regional(environment, "events", "rule/*")],
            because="the provider makes a rule with a random name to call itself until a cluster stands",
        ),
        Statement(
            "Watch",
            [
                "cloudwatch:DeleteAlarms",
                "cloudwatch:DeleteDashboards",
                "cloudwatch:GetDashboard",
                "cloudwatch:PutCompositeAlarm",
                "cloudwatch:PutDashboard",
                "cloudwatch:PutMetricAlarm",
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
                "logs:DescribeMetricFilters",
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
            ],
            because=_RANDOM_SUFFIX,
        ),
        unscoped("FindLogGroups", ["logs:DescribeLogGroups"]),
    ]
