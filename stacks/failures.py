"""What is told when something fails: topics that people listen to, dead letters, logs."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from clusterbox.site.environment import Environment
from stacks.permissions import arns
from stacks.permissions.roles import acknowledge

_LOG_RETENTION = logs.RetentionDays.ONE_YEAR


def make_topic(
    scope: Construct,
    construct_id: str,
    *,
    display_name: str,
    addresses: Sequence[str],
    key: kms.IKey,
    topic_name: str | None = None,
) -> sns.Topic:
    """Make a topic that people listen to; each address has to confirm its subscription."""
    topic = sns.Topic(
        scope,
        construct_id,
        topic_name=topic_name,
        display_name=display_name,
        master_key=key,
        enforce_ssl=True,
    )
    for address in addresses:
        topic.add_subscription(subscriptions.EmailSubscription(address))
    return topic


def let_alarms_publish(topic: sns.Topic, environment: Environment) -> None:
    """Let CloudWatch's alarms of this account publish to a topic."""
    topic.add_to_resource_policy(
        iam.PolicyStatement(
            sid="CloudWatch",
            principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
            actions=["sns:Publish"],
            resources=[topic.topic_arn],
            conditions=on_behalf_of(
                environment, arns.regional(environment, "cloudwatch", "alarm:*")
            ),
        )
    )


def on_behalf_of(environment: Environment, source: str) -> dict[str, dict[str, str]]:
    """Return the conditions under which a service acts for this account alone."""
    return {
        "StringEquals": {"aws:SourceAccount": environment.account},
        "ArnLike": {"aws:SourceArn": source},
    }


def let_services_use(key: kms.IKey, environment: Environment, services: dict[str, str]) -> None:
    """Let services use the key that publish to topics; without it nothing arrives, silently.

    `services` has the service by the statement's id. EventBridge has a statement of CDK's own,
    without a condition: its requests to KMS carry no source, so that one would refuse them all
    ("EventBridge targets" in its user guide).
    """
    for sid, service in services.items():
        key.add_to_resource_policy(
            iam.PolicyStatement(
                sid=sid,
                principals=[iam.ServicePrincipal(f"{service}.amazonaws.com")],
                actions=["kms:Decrypt", "kms:GenerateDataKey*"],
                resources=["*"],
                conditions={"StringEquals": {"aws:SourceAccount": environment.account}},
            )
        )


def make_log_group(scope: Construct, key: kms.IKey) -> logs.LogGroup:
    """Make the log of a function or a project: encrypted, and gone with its stack."""
    return logs.LogGroup(
        scope,
        "Log",
        retention=_LOG_RETENTION,
        encryption_key=key,
        removal_policy=cdk.RemovalPolicy.DESTROY,
    )


def make_dead_letters(
    scope: Construct, *, description: str, key: kms.IKey
) -> tuple[sqs.Queue, list[cloudwatch.Alarm]]:
    """Return the queue of what failed for good, and the alarms that somebody has to look at it.

    The first one goes on while anything lies in the queue, and an alarm that is on tells nothing
    more. The second one tells of each failure after that; alone it could miss the first, as SQS
    tells CloudWatch of a queue that nobody used for six hours only minutes later.
    """
    queue = sqs.Queue(
        scope,
        "DeadLetters",
        encryption=sqs.QueueEncryption.KMS,
        encryption_master_key=key,
        enforce_ssl=True,
        retention_period=cdk.Duration.days(14),
    )
    acknowledge(queue, "AwsSolutions-SQS3", "is itself the queue of dead letters")
    minute = cdk.Duration.minutes(1)
    metrics = {
        "DeadLettersAlarm": queue.metric_approximate_number_of_messages_visible(
            period=minute, statistic="Maximum"
        ),
        "NewDeadLettersAlarm": queue.metric_number_of_messages_sent(period=minute, statistic="Sum"),
    }
    alarms = [
        cloudwatch.Alarm(
            scope,
            name,
            alarm_description=description,
            metric=metric,
            threshold=0,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            evaluation_periods=1,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        for name, metric in metrics.items()
    ]
    return queue, alarms


def tell_failed_builds(
    scope: Construct,
    *,
    description: str,
    project: codebuild.Project,
    topic: sns.Topic,
    message: str,
) -> None:
    """Tell a topic of each build of a project that does not end well.

    `message` says what that means, and stands before how the build ended and where its log is.
    """
    events.Rule(
        scope,
        "Failed",
        description=description,
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
                topic,
                message=events.RuleTargetInput.from_text(
                    f"{message}, the build is "
                    f"{events.EventField.from_path('$.detail.build-status')}. Its log: "
                    f"{events.EventField.from_path('$.detail.additional-information.logs.deep-link')}"
                ),
            )
        ],
    )
