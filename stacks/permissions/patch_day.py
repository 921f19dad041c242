"""What a patch day may do: bake, verify, roll out and retire the images of one environment.

What `pcluster build-image` and `delete-image` call is from ParallelCluster's published policies
(ParallelClusterImageManagedPolicy in cloudformation/policies/parallelcluster-policies.yaml), without
the right to make roles: an image can only be baked with those that the site has made.
"""

from __future__ import annotations

from dataclasses import replace

from clusterbox.site import names
from clusterbox.site.environment import Environment
from clusterbox.site.image_definitions import bake_name
from stacks.permissions import arns, ci
from stacks.permissions.provider import provider
from stacks.permissions.roles import Statement, session_manager_statements, unscoped

# The namespace of the metric that says how old the locked images are.
METRICS = "Clusterbox/Images"
_NAMED_AT_BUILD = "ParallelCluster ends these names with the image's id"
_NAMED_BY_EC2 = "EC2 gives these their ids when it makes them"


def verify_image(environment: Environment) -> list[Statement]:
    """Return what a machine needs that is started to verify an image, and ends with that."""
    bucket = environment.storage.buckets.cluster_config.name
    return [
        *session_manager_statements(),
        Statement(
            "Bundle",
            ["s3:GetObject"],
            [arns.bucket(environment, f"{bucket}/images/*")],
            because="checks and artefacts of every image, named by their content",
        ),
    ]


def run(
    environment: Environment, *, key_arn: str, notices: str, alarms: str, replaces: bool
) -> list[Statement]:
    """Return what `clusterbox patch-day run` needs, wherever it runs.

    `notices` and `alarms` are the ARNs of the topics; `replaces` says whether head nodes are
    replaced, which makes and deletes whole clusters as the provider does.
    """
    return [
        *(item for item in ci.deploy(environment) if item.sid != "PatchDaySource"),
        unscoped("Describe", ["ec2:Describe*", "autoscaling:Describe*"]),
        *_build(environment),
        *_verify(environment),
        *_command(environment),
        *_patch_head_nodes(environment),
        *_retire(environment),
        *_keep(environment),
        Statement("Tell", ["sns:Publish"], [notices, alarms]),
        # What was told last is a tag of the topic, so that nobody is told twice.
        Statement("Told", ["sns:ListTagsForResource", "sns:TagResource"], [notices]),
        *_use_key(environment, key_arn),
        # Ids of statements are unique in a policy.
        *(
            replace(statement, sid=f"Clusters{statement.sid}")
            for statement in (provider(environment) if replaces else [])
        ),
    ]


def run_in_project(environment: Environment, *, log_group: str) -> list[Statement]:
    """Return what CodeBuild needs besides: the archive of the repository, and its log.

    It may read the archive and not write it: what runs next is up to whoever deploys.
    """
    bucket = environment.storage.buckets.cluster_config.name
    key = names.patch_day_source_key(environment)
    return [
        Statement(
            "Source",
            ["s3:GetObject", "s3:GetObjectVersion"],
            [arns.bucket(environment, f"{bucket}/{key}")],
        ),
        # CodeBuild looks whose bucket it is: "S3BucketIdentity" of its user guide's service role.
        Statement(
            "SourceBucket",
            ["s3:GetBucketAcl", "s3:GetBucketLocation"],
            [arns.bucket(environment, bucket)],
        ),
        _write_log(log_group),
    ]


def start(
    environment: Environment, *, action: str, target: str, dead_letters: str, key_arn: str
) -> list[Statement]:
    """Return what a schedule needs: one action on one target, and to leave word where it fails."""
    return [
        Statement("Start", [action], [target]),
        Statement("DeadLetters", ["sqs:SendMessage"], [dead_letters]),
        _use_key_of(environment, key_arn, "sqs"),
    ]


def start_pipeline(
    environment: Environment, *, secret: str, dead_letters: str, log_group: str, key_arn: str
) -> list[Statement]:
    """Return what the function needs that starts a pipeline of GitHub or GitLab."""
    return [
        Statement(
            "Token",
            ["secretsmanager:GetSecretValue"],
            [arns.regional(environment, "secretsmanager", f"secret:{secret}-??????")],
            because="Secrets Manager ends the ARN of a secret with six characters of its own",
        ),
        Statement("DeadLetters", ["sqs:SendMessage"], [dead_letters]),
        _write_log(log_group),
        _use_key_of(environment, key_arn, "secretsmanager", "sqs"),
    ]


def measure_age(
    environment: Environment, *, dead_letters: str, log_group: str, key_arn: str
) -> list[Statement]:
    """Return what the function needs that says how old the locked images are."""
    return [
        unscoped("ReadImages", ["ec2:DescribeImages"]),
        unscoped(
            "Measure",
            ["cloudwatch:PutMetricData"],
            condition={"StringEquals": {"cloudwatch:namespace": METRICS}},
        ),
        Statement("DeadLetters", ["sqs:SendMessage"], [dead_letters]),
        _write_log(log_group),
        _use_key_of(environment, key_arn, "sqs"),
    ]


def _build(environment: Environment) -> list[Statement]:
    """Return what `pcluster build-image` and its readers need; stacks are named after the image."""
    stacks = [
        arns.regional(
            environment, "cloudformation", f"stack/{bake_name(environment.name, image, '*')}/*"
        )
        for image in environment.images
    ]
    config = environment.storage.buckets.cluster_config.name
    imagebuilder = [
        arns.regional(environment, "imagebuilder", f"{kind}/parallelclusterimage-*")
        for kind in (
            "component",
            "distribution-configuration",
            "image",
            "image-recipe",
            "infrastructure-configuration",
        )
    ]
    log_groups = [
        arns.regional(environment, "logs", f"log-group:/aws/{kind}/ParallelClusterImage-*")
        for kind in ("imagebuilder", "lambda")
    ]
    return [
        Statement(
            "BuildStacks",
            ["cloudformation:CreateStack", "cloudformation:DeleteStack"],
            stacks,
            because="a bake's name ends with its day, and the ARN of its stack with an id",
        ),
        Statement(
            "ReadBuilds",
            [
                "cloudformation:DescribeStackEvents",
                "cloudformation:DescribeStackResource",
                "cloudformation:DescribeStackResources",
                "cloudformation:DescribeStacks",
                "cloudformation:GetTemplate",
            ],
            [arns.regional(environment, "cloudformation", "stack/*")],
            because="pcluster lists all stacks to find those of images",
        ),
        Statement(
            "Builds",
            [
                "imagebuilder:CancelImageCreation",
                "imagebuilder:CreateComponent",
                "imagebuilder:CreateDistributionConfiguration",
                "imagebuilder:CreateImage",
                "imagebuilder:CreateImageRecipe",
                "imagebuilder:CreateInfrastructureConfiguration",
                "imagebuilder:DeleteComponent",
                "imagebuilder:DeleteDistributionConfiguration",
                "imagebuilder:DeleteImage",
                "imagebuilder:DeleteImageRecipe",
                "imagebuilder:DeleteInfrastructureConfiguration",
                "imagebuilder:GetComponent",
                "imagebuilder:GetDistributionConfiguration",
                "imagebuilder:GetImage",
                "imagebuilder:GetImageRecipe",
                "imagebuilder:GetInfrastructureConfiguration",
                "imagebuilder:ListImageBuildVersions",
                "imagebuilder:ListWorkflowExecutions",
                "imagebuilder:TagResource",
            ],
            imagebuilder,
            because=_NAMED_AT_BUILD,
        ),
        unscoped("ListBuilds", ["imagebuilder:ListImages"]),
        # `pcluster build-image` looks whether the boundary that it is given exists.
        Statement("ReadBoundary", ["iam:GetPolicy"], [environment.boundary_arn]),
        Statement(
            "BuildProfile",
            [
                "iam:AddRoleToInstanceProfile",
                "iam:CreateInstanceProfile",
                "iam:DeleteInstanceProfile",
                "iam:GetInstanceProfile",
                "iam:RemoveRoleFromInstanceProfile",
            ],
            [arns.iam(environment, "instance-profile/parallelcluster/ParallelClusterImage-*")],
            because=_NAMED_AT_BUILD,
        ),
        Statement(
            "PassToMachines",
            ["iam:PassRole"],
            [
                arns.site_roles(environment, purpose)
                for purpose in ("image-build", names.IMAGE_VERIFY)
            ],
            condition={"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}},
        ),
        Statement(
            "PassCleanup",
            ["iam:PassRole"],
            [arns.site_roles(environment, "image-cleanup")],
            condition={"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}},
        ),
        Statement(
            "ServiceRole",
            ["iam:CreateServiceLinkedRole"],
            [
                arns.iam(
                    environment,
                    "role/aws-service-role/imagebuilder.amazonaws.com/AWSServiceRoleForImageBuilder",
                )
            ],
            condition={"StringEquals": {"iam:AWSServiceName": "imagebuilder.amazonaws.com"}},
        ),
        Statement(
            "CleanupFunction",
            [
                "lambda:AddPermission",
                "lambda:CreateFunction",
                "lambda:DeleteFunction",
                "lambda:GetFunction",
                "lambda:RemovePermission",
                "lambda:TagResource",
            ],
            [arns.regional(environment, "lambda", "function:ParallelClusterImage-*")],
            because=_NAMED_AT_BUILD,
        ),
        Statement(
            "BuildTopic",
            [
                "sns:CreateTopic",
                "sns:DeleteTopic",
                "sns:GetSubscriptionAttributes",
                "sns:GetTopicAttributes",
                # Image Builder asks for it of whoever names a topic in an infrastructure configuration.
                "sns:Publish",
                "sns:Subscribe",
                "sns:TagResource",
                "sns:Unsubscribe",
            ],
            [arns.regional(environment, "sns", "ParallelClusterImage-*")],
            because=_NAMED_AT_BUILD,
        ),
        Statement(
            "BuildLogs",
            [
                "logs:CreateLogGroup",
                "logs:DeleteLogGroup",
                "logs:DescribeLogStreams",
                "logs:FilterLogEvents",
                "logs:GetLogEvents",
                "logs:TagResource",
                "logs:UntagResource",
            ],
            [arn for group in log_groups for arn in (group, f"{group}:*")],
            because=_NAMED_AT_BUILD,
        ),
        unscoped("FindLogs", ["logs:DescribeLogGroups"]),
        Statement(
            "Artefacts",
            [
                "s3:DeleteObject",
                "s3:DeleteObjectVersion",
                "s3:GetObject",
                "s3:GetObjectVersion",
                "s3:PutObject",
            ],
            [
                arns.bucket(environment, f"{config}/images/*"),
                arns.bucket(
                    environment,
                    f"{config}/parallelcluster/{names.PARALLELCLUSTER_VERSION}/images/*",
                ),
            ],
            because="scripts are named by their content, and ParallelCluster's folders end at random",
        ),
        Statement(
            "ArtefactBucket",
            [
                "s3:GetBucketLocation",
                "s3:GetBucketVersioning",
                "s3:GetEncryptionConfiguration",
                "s3:ListBucket",
                "s3:ListBucketVersions",
            ],
            [arns.bucket(environment, config)],
        ),
    ]


def _verify(environment: Environment) -> list[Statement]:
    """Return what starting and ending a machine for one verification needs."""
    network = environment.network
    subnets = [network.subnet(name).id for name in network.subnet_names]

    def ec2(*resources: str) -> list[str]:
        return [arns.regional(environment, "ec2", resource) for resource in resources]

    return [
        Statement(
            "StartVerifier",
            ["ec2:RunInstances"],
            ec2("instance/*"),
            because=f"{_NAMED_BY_EC2}; the condition makes them carry the tags by which they end",
            condition={
                "StringEquals": {f"aws:RequestTag/{names.TAG_ENVIRONMENT}": environment.name},
                "StringLike": {f"aws:RequestTag/{names.TAG_VERIFIES}": "*"},
            },
        ),
        Statement(
            "VerifierImage",
            ["ec2:RunInstances"],
            [arns.public(environment, "ec2", "image/*")],
            because=f"{_NAMED_BY_EC2}; the condition narrows it to images of the site",
            condition=_is_own_image(environment),
        ),
        Statement(
            "VerifierParts",
            ["ec2:RunInstances"],
            ec2(
                "network-interface/*",
                "security-group/*",
                "volume/*",
                *(f"subnet/{subnet or '*'}" for subnet in dict.fromkeys(subnets)),
            ),
            because=f"{_NAMED_BY_EC2}, or the site's other stacks when they make them",
        ),
        Statement(
            "TagVerifier",
            ["ec2:CreateTags"],
            ec2("instance/*", "network-interface/*", "volume/*"),
            because=f"{_NAMED_BY_EC2}; only while they are made",
            condition={"StringEquals": {"ec2:CreateAction": "RunInstances"}},
        ),
        Statement(
            "EndVerifier",
            ["ec2:TerminateInstances"],
            ec2("instance/*"),
            because=f"{_NAMED_BY_EC2}; the condition narrows it to machines of patch days",
            condition={
                "StringEquals": {f"aws:ResourceTag/{names.TAG_ENVIRONMENT}": environment.name},
                "StringLike": {f"aws:ResourceTag/{names.TAG_VERIFIES}": "*"},
                # A node of a cluster is no such machine, whatever tags it carries.
                "Null": {f"aws:ResourceTag/{names.TAG_CLUSTER}": "true"},
            },
        ),
        Statement(
            "MarkImage",
            ["ec2:CreateTags"],
            [arns.public(environment, "ec2", "image/*")],
            because=f"{_NAMED_BY_EC2}; the condition narrows it to images of the site",
            condition={
                **_is_own_image(environment),
                "ForAllValues:StringLike": {"aws:TagKeys": ["clusterbox:*"]},
            },
        ),
    ]


def _is_own_image(environment: Environment) -> dict[str, dict[str, str]]:
    return {
        "StringEquals": {f"aws:ResourceTag/{names.TAG_ENVIRONMENT}": environment.name},
        "StringLike": {f"aws:ResourceTag/{names.TAG_IMAGE}": "*"},
    }


def _command(environment: Environment) -> list[Statement]:
    """Return what Run Command needs on machines of the environment, those of clusters included."""
    return [
        Statement(
            "RunScript",
            ["ssm:SendCommand"],
            [arns.public(environment, "ssm", "document/AWS-RunShellScript")],
        ),
        Statement(
            "OnOwnMachines",
            ["ssm:SendCommand"],
            [arns.regional(environment, "ec2", "instance/*")],
            because=f"{_NAMED_BY_EC2}; the condition narrows it to machines of the environment",
            condition={
                "StringEquals": {f"ssm:resourceTag/{names.TAG_ENVIRONMENT}": environment.name}
            },
        ),
        unscoped(
            "FollowCommand",
            [
                "ssm:CancelCommand",
                "ssm:DescribeInstanceInformation",
                "ssm:GetCommandInvocation",
                "ssm:ListCommandInvocations",
            ],
        ),
    ]


def _patch_head_nodes(environment: Environment) -> list[Statement]:
    """Return what patching a head node in place needs: snapshot, reboot, a larger type meanwhile."""
    own = {f"aws:ResourceTag/{names.TAG_ENVIRONMENT}": environment.name}
    head = {**own, f"aws:ResourceTag/{names.TAG_NODE_TYPE}": "HeadNode"}
    instances = [arns.regional(environment, "ec2", "instance/*")]
    snapshots = [arns.public(environment, "ec2", "snapshot/*")]
    return [
        Statement(
            "PatchHeadNode",
            [
                "ec2:ModifyInstanceAttribute",
                "ec2:RebootInstances",
                "ec2:StartInstances",
                "ec2:StopInstances",
            ],
            instances,
            because=f"{_NAMED_BY_EC2}; the condition narrows it to head nodes of the environment",
            condition={"StringEquals": head},
        ),
        Statement(
            "MarkHeadNode",
            ["ec2:CreateTags", "ec2:DeleteTags"],
            instances,
            because=f"{_NAMED_BY_EC2}; the condition narrows it to head nodes, and to our own tags",
            condition={
                "StringEquals": head,
                "ForAllValues:StringLike": {"aws:TagKeys": ["clusterbox:*"]},
            },
        ),
        Statement(
            "SnapshotVolume",
            ["ec2:CreateSnapshot"],
            [arns.regional(environment, "ec2", "volume/*")],
            because=f"{_NAMED_BY_EC2}; the condition narrows it to volumes of the environment",
            condition={"StringEquals": own},
        ),
        Statement(
            "MakeSnapshot",
            ["ec2:CreateSnapshot"],
            snapshots,
            because=f"{_NAMED_BY_EC2}; the condition makes them carry the tag by which they go",
            condition={
                "StringEquals": {f"aws:RequestTag/{names.TAG_ENVIRONMENT}": environment.name}
            },
        ),
        Statement(
            "TagSnapshot",
            ["ec2:CreateTags"],
            snapshots,
            because=f"{_NAMED_BY_EC2}; only while they are made",
            condition={"StringEquals": {"ec2:CreateAction": "CreateSnapshot"}},
        ),
    ]


def _retire(environment: Environment) -> list[Statement]:
    snapshots = [arns.public(environment, "ec2", "snapshot/*")]
    return [
        Statement(
            "RetireImage",
            ["ec2:DeregisterImage"],
            [arns.public(environment, "ec2", "image/*")],
            because=f"{_NAMED_BY_EC2}; the condition narrows it to images of the site",
            condition=_is_own_image(environment),
        ),
        # Image Builder gives the snapshots of an image no tag but this one of its own
        # (EC2ImageBuilderLifecycleExecutionPolicy, AWS's managed policy for the same purpose).
        Statement(
            "RetireSnapshot",
            ["ec2:DeleteSnapshot"],
            snapshots,
            because=f"{_NAMED_BY_EC2}; the condition narrows it to those of baked images, and EC2 "
            "refuses it while an image uses one",
            condition={"StringEquals": {"aws:ResourceTag/CreatedBy": "EC2 Image Builder"}},
        ),
        Statement(
            "MarkSnapshot",
            ["ec2:CreateTags"],
            snapshots,
            because=f"{_NAMED_BY_EC2}; the condition narrows it to those of baked images and one tag",
            condition={
                "StringEquals": {"aws:ResourceTag/CreatedBy": "EC2 Image Builder"},
                "ForAllValues:StringLike": {"aws:TagKeys": ["clusterbox:*"]},
            },
        ),
        Statement(
            "RetireOwnSnapshot",
            ["ec2:DeleteSnapshot"],
            snapshots,
            because=f"{_NAMED_BY_EC2}; the condition narrows it to those of the environment",
            condition={
                "StringEquals": {f"aws:ResourceTag/{names.TAG_ENVIRONMENT}": environment.name}
            },
        ),
    ]


def _keep(environment: Environment) -> list[Statement]:
    """Return what records, the lease, and the parameters about a rollout need."""
    logs = environment.storage.buckets.logs.name
    folder = names.patch_day_folder(environment)
    return [
        Statement(
            "Records",
            ["s3:DeleteObject", "s3:GetObject", "s3:PutObject"],
            [arns.bucket(environment, f"{logs}/{folder}/*")],
            because="one folder, with a record for each run",
        ),
        Statement(
            "ListRecords",
            ["s3:ListBucket"],
            [arns.bucket(environment, logs)],
            condition={"StringLike": {"s3:prefix": [f"{folder}/*", folder]}},
        ),
        Statement(
            "Rollout",
            ["ssm:DeleteParameter", "ssm:PutParameter"],
            [
                arns.regional(
                    environment, "ssm", f"parameter{names.parameter_path(environment, *parts)}"
                )
                for parts in (("images", "pins"), ("clusters", "*", "active"))
            ],
            because="one parameter a cluster",
        ),
    ]


def _use_key(environment: Environment, key_arn: str) -> list[Statement]:
    return [
        _use_key_of(environment, key_arn, "s3", "sns"),
        Statement("SiteKeyByAlias", ["kms:DescribeKey"], [key_arn]),
        # A machine from an encrypted image: EC2 uses the key on behalf of whoever starts it
        # ("Permissions to use KMS keys" for encrypted volumes in the EBS user guide).
        Statement(
            "SiteKeyOfVolumes",
            [
                "kms:Decrypt",
                "kms:GenerateDataKeyWithoutPlaintext",
                "kms:ReEncryptFrom",
                "kms:ReEncryptTo",
            ],
            [key_arn],
            condition={
                "StringEquals": {"kms:ViaService": f"ec2.{environment.region}.amazonaws.com"}
            },
        ),
        Statement(
            "SiteKeyGrants",
            ["kms:CreateGrant"],
            [key_arn],
            condition={
                "Bool": {"kms:GrantIsForAWSResource": "true"},
                "StringEquals": {"kms:ViaService": f"ec2.{environment.region}.amazonaws.com"},
            },
        ),
    ]


def _use_key_of(environment: Environment, key_arn: str, *services: str) -> Statement:
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


def _write_log(log_group: str) -> Statement:
    return Statement(
        "Log",
        ["logs:CreateLogStream", "logs:PutLogEvents"],
        [log_group],
        because="the streams of its own log group",
    )
