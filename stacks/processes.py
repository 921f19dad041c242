"""What runs by itself in the account: functions, projects of CodeBuild, and their schedules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as functions
from aws_cdk import aws_logs as logs
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from stacks.permissions.roles import acknowledge, ignore_lint


def make_function(
    scope: Construct,
    *,
    description: str,
    source: Path,
    handler: str,
    role: iam.Role,
    variables: Mapping[str, str],
    dead_letters: sqs.Queue,
    log_group: logs.ILogGroup,
    not_reserved_because: str,
    timeout_seconds: int = 180,
) -> functions.Function:
    """Make a function of one Python file, which `role` alone permits anything."""
    function = functions.Function(
        scope,
        "Function",
        description=description,
        runtime=functions.Runtime.PYTHON_3_14,
        architecture=functions.Architecture.ARM_64,
        handler=f"{source.stem}.{handler}",
        code=functions.Code.from_asset(str(source.parent), exclude=["*", f"!{source.name}"]),
        # All permissions are in stacks/permissions; CDK adds none of its own.
        role=role.without_policy_updates(),
        memory_size=256,
        timeout=cdk.Duration.seconds(timeout_seconds),
        retry_attempts=2,
        dead_letter_queue=dead_letters,
        log_group=log_group,
        environment=dict(variables),
    )
    acknowledge(
        function,
        "NIST.800.53.R5-LambdaInsideVPC",
        "calls nothing but public APIs, to which the site's VPC need not have a route",
    )
    acknowledge(function, "NIST.800.53.R5-LambdaConcurrency", not_reserved_because)
    ignore_lint(function, "W3005", "CDK lets every function wait for its role by itself")
    return function


def make_project(
    scope: Construct,
    *,
    description: str,
    source: codebuild.ISource,
    role: iam.Role,
    commands: Sequence[str],
    variables: Mapping[str, str],
    key: kms.IKey,
    log_group: logs.ILogGroup,
    timeout: cdk.Duration,
) -> codebuild.Project:
    """Make a project that runs `commands` in an archive of this repository, one build at a time."""
    project = codebuild.Project(
        scope,
        "Project",
        description=description,
        # All permissions are in stacks/permissions; CDK adds none of its own.
        role=role.without_policy_updates(),
        source=source,
        build_spec=codebuild.BuildSpec.from_object(
            {
                "version": "0.2",
                "phases": {
                    "install": {"runtime-versions": {"python": "3.12"}},
                    "build": {"commands": list(commands)},
                },
            }
        ),
        environment=codebuild.BuildEnvironment(
            build_image=codebuild.LinuxBuildImage.AMAZON_LINUX_2023_5,
            compute_type=codebuild.ComputeType.SMALL,
            environment_variables={
                name: codebuild.BuildEnvironmentVariable(value=value)
                for name, value in variables.items()
            },
        ),
        encryption_key=key,
        logging=codebuild.LoggingOptions(
            cloud_watch=codebuild.CloudWatchLoggingOptions(log_group=log_group)
        ),
        timeout=timeout,
        concurrent_build_limit=1,
    )
    acknowledge(
        project,
        "CloudFormation-Validate::E3050",
        "ServiceRole is Fn::GetAtt of the role's ARN; the rule takes it for a Ref",
    )
    return project


def start_on_schedule(
    scope: Construct,
    construct_id: str,
    *,
    description: str,
    expression: str,
    time_zone: str,
    target: str,
    role: iam.IRole,
    dead_letters: sqs.Queue,
) -> None:
    """Let EventBridge Scheduler start `target`, an ARN, and leave word where it cannot."""
    scheduler.CfnSchedule(
        scope,
        construct_id,
        description=description,
        schedule_expression=expression,
        schedule_expression_timezone=time_zone,
        flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(mode="OFF"),
        target=scheduler.CfnSchedule.TargetProperty(
            arn=target,
            role_arn=role.role_arn,
            dead_letter_config=scheduler.CfnSchedule.DeadLetterConfigProperty(
                arn=dead_letters.queue_arn
            ),
            retry_policy=scheduler.CfnSchedule.RetryPolicyProperty(
                maximum_event_age_in_seconds=3600, maximum_retry_attempts=5
            ),
        ),
    )


def scheduler_principal(account: str) -> iam.PrincipalBase:
    """Return EventBridge Scheduler as principal, for schedules of this account alone."""
    return iam.ServicePrincipal("scheduler.amazonaws.com").with_conditions(
        {"StringEquals": {"aws:SourceAccount": account}}
    )
