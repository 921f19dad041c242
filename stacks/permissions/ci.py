"""What the CI system may do: deploy from the main branch, and only read from a merge request."""

from __future__ import annotations

from clusterbox.site import names
from clusterbox.site.environment import Environment
from stacks.permissions import arns
from stacks.permissions.roles import Statement, unscoped

# The qualifier of CDK's default bootstrap, part of the names of its roles and bucket.
QUALIFIER = "hnb659fds"


def _bootstrap_role(environment: Environment, kind: str) -> str:
    name = f"cdk-{QUALIFIER}-{kind}-role-{environment.account}-{environment.region}"
    return arns.iam(environment, f"role/{name}")


def deploy(environment: Environment) -> list[Statement]:
    """Return what deploying needs: the bootstrap's roles do the rest, under the boundary."""
    return [
        Statement(
            "BootstrapRoles",
            ["sts:AssumeRole"],
            [
                _bootstrap_role(environment, kind)
                for kind in ("deploy", "file-publishing", "lookup")
            ],
        ),
        *_put_limits(environment),
        *_put_patch_day(environment),
        *read_only(environment),
    ]


def read_only(environment: Environment) -> list[Statement]:
    """Return what reviewing needs: compare stacks and clusters with what stands."""
    buckets = environment.storage.buckets
    return [
        Statement(
            "ReadStacks",
            [
                "cloudformation:DescribeStackEvents",
                "cloudformation:DescribeStackResources",
                "cloudformation:DescribeStacks",
                "cloudformation:GetTemplate",
                "cloudformation:ListStackResources",
            ],
            [
                arns.regional(environment, "cloudformation", f"stack/{environment.name}-*/*"),
                arns.regional(environment, "cloudformation", "stack/CDKToolkit/*"),
                *(
                    arns.regional(environment, "cloudformation", f"stack/{entry.name}/*")
                    for entry in environment.clusters
                ),
            ],
            because="CloudFormation ends the ARN of a stack with an id; names start with the environment's",
        ),
        Statement(
            "ReadParameters",
            ["ssm:GetParameter", "ssm:GetParameters", "ssm:GetParametersByPath"],
            [arns.regional(environment, "ssm", f"parameter/clusterbox/{environment.name}/*")],
            because="the parameters that the environment's stacks publish",
        ),
        Statement(
            "ReadRoles",
            ["iam:GetRole"],
            [arns.iam(environment, "role/*")],
            because="the boundary of every role is read back, those of the bootstrap included",
        ),
        Statement(
            "ReadFileSystems",
            ["elasticfilesystem:DescribeFileSystems", "elasticfilesystem:DescribeMountTargets"],
            [arns.regional(environment, "elasticfilesystem", "file-system/*")],
            because="file systems are found by their tags",
        ),
        Statement(
            "ReadBuckets",
            ["s3:GetBucketVersioning", "s3:ListBucket"],
            [
                arns.bucket(environment, bucket.name)
                for bucket in (buckets.cluster_config, buckets.logs, buckets.results)
            ],
        ),
        *_read_accounting(environment),
        # Not all of Describe: that would show the user data of every machine to a pull request.
        unscoped(
            "Read",
            [
                "cloudformation:ListStacks",
                "ec2:DescribeInstances",
                "ec2:DescribeSecurityGroups",
                "ec2:DescribeSubnets",
                "ec2:DescribeVpcs",
            ],
        ),
    ]


def _read_accounting(environment: Environment) -> list[Statement]:
    database = environment.accounting_database
    if database is None or not database.is_made_here:
        return []
    server = f"cluster:{names.accounting_name(environment)}"
    return [
        Statement(
            "ReadAccounting",
            ["rds:DescribeDBClusters"],
            [arns.regional(environment, "rds", server)],
        )
    ]


def _put_patch_day(environment: Environment) -> list[Statement]:
    """Return what `clusterbox deploy` needs to leave the repository for CodeBuild's patch days."""
    plan = environment.patch_day
    if plan is None or plan.pipeline != "codebuild":
        return []
    bucket = environment.storage.buckets.cluster_config.name
    key = names.patch_day_source_key(environment)
    return [
        Statement("PatchDaySource", ["s3:PutObject"], [arns.bucket(environment, f"{bucket}/{key}")])
    ]


def _put_limits(environment: Environment) -> list[Statement]:
    """Return what `clusterbox deploy` needs to leave the limits of clusters for their head nodes."""
    bucket = environment.storage.buckets.cluster_config.name
    scripts = [
        arns.bucket(environment, f"{bucket}/{names.limits_script_key(entry.name)}")
        for entry in environment.clusters
    ]
    if not scripts:
        return []
    return [Statement("LimitScripts", ["s3:GetObject", "s3:PutObject"], scripts)]
