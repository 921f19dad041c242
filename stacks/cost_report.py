"""The daily cost report: a project that makes it, and the schedule that starts it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3_assets as assets
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from clusterbox.site.environment import Environment
from stacks.failures import make_log_group, tell_failed_builds
from stacks.permissions import arns, costs
from stacks.permissions.roles import make_role
from stacks.processes import make_project, scheduler_principal, start_on_schedule

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
        tell_failed_builds(
            self,
            description="The cost report could not be made",
            project=project,
            topic=alarms,
            message=f"{environment.name}: NO cost report today",
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
        return make_project(
            self,
            description=f"Daily cost report of {environment.name}",
            source=codebuild.Source.s3(bucket=source.bucket, path=source.s3_object_key),
            role=role,
            commands=[
                *_write_environment(environment, named_ids),
                "bash stacks/cost_functions/report.sh",
            ],
            variables=variables,
            key=key,
            log_group=log_group,
            # Two at a time, which the project does not let be, would write the same history.
            timeout=cdk.Duration.minutes(30),
        )

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
            principal=scheduler_principal(environment.account),
            statements=costs.start_report(
                environment,
                project=project.project_arn,
                dead_letters=dead_letters.queue_arn,
                key_arn=key.key_arn,
            ),
        )
        start_on_schedule(
            self,
            "Daily",
            description=f"Daily cost report of {environment.name}",
            expression=f"cron(0 {hour_utc} * * ? *)",
            time_zone="UTC",
            target=project.project_arn,
            role=role,
            dead_letters=dead_letters,
        )


def _write_environment(environment: Environment, named_ids: Sequence[str]) -> list[str]:
    """Return the commands that make the files of the environment, with what the report reads.

    `named_ids` are what the clusters' configurations use by their ids: the report must not take
    them for orphans.
    """
    left_out = {"budgets", "clusters", "patch_day"}
    told = environment.model_dump(mode="json", exclude_unset=True, exclude=left_out)
    told["clusters"] = [{"name": entry.name, "config": _CONFIG} for entry in environment.clusters]
    # JSON is YAML too.
    text = json.dumps(told, indent=1)
    return [
        "mkdir -p environments cluster_configs",
        f"cat >cluster_configs/{_CONFIG} <<'END'\n{json.dumps({'used': list(named_ids)})}\nEND",
        f"cat >environments/{environment.name}.yaml <<'END'\n{text}\nEND",
    ]
