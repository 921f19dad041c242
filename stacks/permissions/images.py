"""What baking an image may do: the build instance, and the function that cleans up after it.

The actions are those that ParallelCluster 3.16.1 uses itself (pcluster/imagebuilder_utils.py and
templates/imagebuilder_stack.py) and of AWS's policy for Image Builder's instances, narrowed to the
site's region.
"""

from __future__ import annotations

from clusterbox.site.environment import Environment
from stacks.permissions import arns
from stacks.permissions.roles import Statement, session_manager_statements, unscoped

_NAMED_AT_BUILD = "ParallelCluster ends these names with the image's id"
_ANY_IMAGE = "EC2 gives the image its id when it is made"


def build(environment: Environment) -> list[Statement]:
    """Return what the instance that bakes an image needs."""
    logs = environment.storage.buckets.logs.name
    return [
        *session_manager_statements(),
        Statement(
            "Components",
            ["imagebuilder:GetComponent"],
            [
                arns.regional(environment, "imagebuilder", "component/*"),
                f"arn:{environment.partition}:imagebuilder:{environment.region}:aws:component/*",
            ],
            because=_NAMED_AT_BUILD,
        ),
        Statement(
            "Artefacts",
            ["s3:GetObject"],
            [
                arns.parallelcluster_artefacts(environment),
                arns.bucket(environment, f"{environment.storage.buckets.cluster_config.name}/*"),
                arns.bucket(environment, f"ec2imagebuilder-*-{environment.region}-*/*"),
            ],
            because="recipes of ParallelCluster, scripts of the site, and Image Builder's own agent",
        ),
        Statement(
            "KeepLog",
            ["s3:PutObject"],
            [arns.bucket(environment, f"{logs}/imagebuilder/*")],
            because="one log a build",
        ),
        Statement(
            "MarkImage",
            ["ec2:CreateTags", "ec2:ModifyImageAttribute"],
            [arns.public(environment, "ec2", "image/*")],
            because=_ANY_IMAGE,
        ),
        Statement(
            "Log",
            ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"],
            [
                arns.regional(environment, "logs", "log-group:/aws/imagebuilder/*"),
                arns.regional(environment, "logs", "log-group:/aws/imagebuilder/*:*"),
            ],
            because=_NAMED_AT_BUILD,
        ),
    ]


def cleanup(environment: Environment) -> list[Statement]:
    """Return what deleting the stack of a finished build needs."""

    def builder(kind: str) -> str:
        return arns.regional(environment, "imagebuilder", f"{kind}/parallelclusterimage-*")

    return [
        Statement(
            "DeleteStack",
            ["cloudformation:DeleteStack"],
            [arns.regional(environment, "cloudformation", "stack/*/*")],
            because="the stack is named after the image; the condition narrows it to image builds",
            condition={
                "ForAnyValue:StringLike": {
                    "cloudformation:ResourceTag/parallelcluster:image_id": "*"
                }
            },
        ),
        Statement(
            "DeleteBuild",
            [
                "imagebuilder:CancelImageCreation",
                "imagebuilder:DeleteComponent",
                "imagebuilder:DeleteDistributionConfiguration",
                "imagebuilder:DeleteImage",
                "imagebuilder:DeleteImageRecipe",
                "imagebuilder:DeleteInfrastructureConfiguration",
                "imagebuilder:GetImage",
            ],
            [
                builder(kind)
                for kind in (
                    "component",
                    "distribution-configuration",
                    "image",
                    "image-recipe",
                    "infrastructure-configuration",
                )
            ],
            because=_NAMED_AT_BUILD,
        ),
        Statement(
            "DeleteProfile",
            ["iam:DeleteInstanceProfile", "iam:RemoveRoleFromInstanceProfile"],
            [arns.iam(environment, "instance-profile/parallelcluster/*")],
            because=_NAMED_AT_BUILD,
        ),
        Statement(
            "DeleteFunction",
            [
                "lambda:DeleteFunction",
                "lambda:GetFunction",
                "lambda:GetPolicy",
                "lambda:RemovePermission",
            ],
            [arns.regional(environment, "lambda", "function:ParallelClusterImage-*")],
            because=_NAMED_AT_BUILD,
        ),
        Statement(
            "DeleteTopic",
            [
                "sns:DeleteTopic",
                "sns:GetSubscriptionAttributes",
                "sns:GetTopicAttributes",
                "sns:Unsubscribe",
            ],
            [arns.regional(environment, "sns", "ParallelClusterImage-*")],
            because=_NAMED_AT_BUILD,
        ),
        Statement(
            "Log",
            [
                "logs:CreateLogGroup",
                "logs:CreateLogStream",
                "logs:DeleteLogGroup",
                "logs:PutLogEvents",
            ],
            [
                arns.regional(environment, "logs", "log-group:/aws/lambda/ParallelClusterImage-*"),
                arns.regional(
                    environment, "logs", "log-group:/aws/lambda/ParallelClusterImage-*:*"
                ),
            ],
            because=_NAMED_AT_BUILD,
        ),
        Statement(
            "MarkImage",
            ["ec2:CreateTags"],
            [arns.public(environment, "ec2", "image/*")],
            because=_ANY_IMAGE,
        ),
        unscoped("TagImage", ["tag:TagResources"]),
    ]
