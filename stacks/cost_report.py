"""The daily cost report: a project that makes it, and the schedule that starts it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3_assets as assets
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from clusterbox.site.environment import Environment
from stacks.cost_guard import make_log_group
from stacks.permissions import arns, costs
from stacks.permissions.roles import acknowledge, make_role

# What the report needs of this repository; everything else is left out of the archive. Neither
# environments nor configurations of clusters are in it: a change of a queue, or of another
# environment, would change this stack.
_SOURCE = ("ami", "cdk.json", "clusterbox", "prices", "requirements.txt")
_LEFT_OUT = (
    "*",
    *(pattern for name in _SOURCE for pattern in (f"!{name}", f"!{name}/**")),
    # A folder is only looked into where it is not left out itself.
    *("!stacks", "stacks/*", "!stacks/cost_functions", "!stacks/cost_functions/**"),
    *("__pycache__", "*.pyc"),
)
# An environment names the file of each cluster, which has to exist; the report reads ids from it.
_CONFIG = "used-ids.yaml"


class CostReport(Construct):
    """`clusterbox costs report`, once a day, kept in the logs bucket and told by mail."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        named_ids: Sequence[str],
        hour_utc: int,
        root: Path,
        key: kms.IKey,
        alarms: sns.Topic,
        dead_letters: sqs.Queue,
    ) -> None:
        super().__init__(scope, construct_id)
        project = self._make_project(environment, named_ids, root, key, alarms)
        self._start_daily(environment, hour_utc, project, key, dead_letters)
        events.Rule(
            self,
            "Failed",
            description="The cost report could not be made",
            event_pattern=events.EventPattern(
                source=["aws.codebuild"],
                detail_type=["CodeBuild Build State Change"],
                detail={
                    "project-name": [project.project_name],
                    "build-status": ["FAILED", "FAULT", "STOPPED", "TIMED_OUT"],
                },
            ),
            targets=[
                targets.SnsTopic(
                    alarms,
                    message=events.RuleTargetInput.from_text(
                        f"{environment.name}: NO cost report today, the build is "
                        f"{events.EventField.from_path('$.detail.build-status')}. Its log: "
                        f"{events.EventField.from_path('$.detail.additional-information.logs.deep-link')}"
                    ),
                )
            ],
        )

    def _make_project(
        self,
        environment: Environment,
        named_ids: Sequence[str],
        root: Path,
        key: kms.IKey,
        alarms: sns.Topic,
    ) -> codebuild.Project:
        source = assets.Asset(
            self,
            "Source",
            path=str(root),
            ignore_mode=cdk.IgnoreMode.GIT,
            exclude=list(_LEFT_OUT),
        )
        bucket = environment.storage.buckets.logs.name
        folder = f"costs/{environment.name}"
        log_group = make_log_group(self, key)
        role = make_role(
            self,
            "Role",
            environment=environment,
            purpose="cost-report",
            description="Makes the daily cost report",
            principal=iam.ServicePrincipal("codebuild.amazonaws.com"),
            statements=costs.make_report(
                environment,
                source=arns.bucket(
                    environment, f"cdk-*-assets-{environment.account}-{environment.region}"
                ),
                reports=(bucket, folder),
                alarms=alarms.topic_arn,
                log_group=log_group.log_group_arn,
                key_arn=key.key_arn,
            ),
        )
        variables = {
            "CLUSTERBOX_ENVIRONMENT": environment.name,
            "CLUSTERBOX_ACCOUNT": environment.account,
            "CLUSTERBOX_REPORTS": f"s3://{bucket}/{folder}",
            "CLUSTERBOX_ALARMS": alarms.topic_arn,
        }
        project = codebuild.Project(
            self,
            "Project",
            description=f"Daily cost report of {environment.name}",
            # All permissions are in stacks/permissions; CDK adds none of its own.
            role=role.without_policy_updates(),
            source=codebuild.Source.s3(bucket=source.bucket, path=source.s3_object_key),
            build_spec=codebuild.BuildSpec.from_object(
                {
                    "version": "0.2",
                    "phases": {
                        "install": {"runtime-versions": {"python": "3.12"}},
                        "build": {
                            "commands": [
                                *_write_environment(environment, named_ids),
                                "bash stacks/cost_functions/report.sh",
                            ]
                        },
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
            timeout=cdk.Duration.minutes(30),
            # A day without a report is told; two at a time would write the same history.
            concurrent_build_limit=1,
        )
        acknowledge(
            project,
            "CloudFormation-Validate::E3050",
            "ServiceRole is Fn::GetAtt of the role's ARN; the rule takes it for a Ref",
        )
        return project

    def _start_daily(
        self,
        environment: Environment,
        hour_utc: int,
        project: codebuild.Project,
        key: kms.IKey,
        dead_letters: sqs.Queue,
    ) -> None:
        role = make_role(
            self,
            "ScheduleRole",
            environment=environment,
            purpose="cost-schedule",
            description="Starts the daily cost report",
            principal=iam.ServicePrincipal("scheduler.amazonaws.com").with_conditions(
                {"StringEquals": {"aws:SourceAccount": environment.account}}
            ),
            statements=costs.start_report(
                environment,
                project=project.project_arn,
                dead_letters=dead_letters.queue_arn,
                key_arn=key.key_arn,
            ),
        )
        scheduler.CfnSchedule(
            self,
            "Daily",
            description=f"Daily cost report of {environment.name}",
            schedule_expression=f"cron(0 {hour_utc} * * ? *)",
            schedule_expression_timezone="UTC",
            flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(mode="OFF"),
            target=scheduler.CfnSchedule.TargetProperty(
                arn=project.project_arn,
                role_arn=role.role_arn,
                dead_letter_config=scheduler.CfnSchedule.DeadLetterConfigProperty(
                    arn=dead_letters.queue_arn
                ),
                retry_policy=scheduler.CfnSchedule.RetryPolicyProperty(
                    maximum_event_age_in_seconds=3600, maximum_retry_attempts=5
                ),
            ),
        )


def _write_environment(environment: Environment, named_ids: Sequence[str]) -> list[str]:
    """Return the commands that make the files of the environment, with what the report reads.

    `named_ids` are what the clusters' configurations use by their ids: the report must not take
    them for orphans.
    """
    told = environment.model_dump(mode="json", exclude_unset=True, exclude={"budgets", "clusters"})
    told["clusters"] = [{"name": entry.name, "config": _CONFIG} for entry in environment.clusters]
    # JSON is YAML too.
    text = json.dumps(told, indent=1)
    return [
        "mkdir -p environments cluster_configs",
        f"cat >cluster_configs/{_CONFIG} <<'END'\n{json.dumps({'used': list(named_ids)})}\nEND",
        f"cat >environments/{environment.name}.yaml <<'END'\n{text}\nEND",
    ]
