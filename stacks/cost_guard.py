"""Stopping a cluster whose budget is spent: topics, function, and what happens when it fails."""

from __future__ import annotations

from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as functions
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from aws_cdk import aws_sqs as sqs
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from clusterbox.site import names
from clusterbox.site.budgets import Budgets
from clusterbox.site.environment import Environment
from stacks.permissions import costs
from stacks.permissions.roles import acknowledge, ignore_lint, make_role

FUNCTIONS = Path(__file__).parent / "cost_functions"
_LOG_RETENTION = logs.RetentionDays.ONE_YEAR


class CostGuard(Construct):
    """The function that stops clusters, with one topic for each cluster that it may stop.

    `topics` has the topic that a cluster's budget publishes to when it is spent, for clusters that
    are then drained or stopped; `subscriptions` has the function's subscription of each.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        budgets: Budgets,
        key: kms.IKey,
        alarms: sns.Topic,
        dead_letters: sqs.Queue,
    ) -> None:
        super().__init__(scope, construct_id)
        self._environment = environment
        actions = {
            cluster: budget.when_spent
            for cluster, budget in budgets.clusters.items()
            if budget.when_spent != "warn"
        }
        self.topics = {
            cluster: sns.Topic(
                self,
                f"Spent-{cluster}",
                # The function knows by this name which cluster a notification is about.
                topic_name=_topic_name(environment, cluster),
                master_key=key,
                enforce_ssl=True,
            )
            for cluster in actions
        }
        self.subscriptions: dict[str, sns.Subscription] = {}
        if not actions:
            return
        drained = [cluster for cluster, action in actions.items() if action == "drain"]
        self._document_name = f"clusterbox-{environment.name}-queues"
        if drained:
            self._make_document()
        log_group = make_log_group(self, key)
        role = make_role(
            self,
            "Role",
            environment=environment,
            purpose="cost-stop",
            description="Stops clusters whose budget is spent",
            principal=iam.ServicePrincipal("lambda.amazonaws.com"),
            statements=costs.stop_clusters(
                environment,
                stopped=[cluster for cluster in actions if cluster not in drained],
                drained=drained,
                document=self._document_name,
                alarms=alarms.topic_arn,
                dead_letters=dead_letters.queue_arn,
                log_group=log_group.log_group_arn,
                key_arn=key.key_arn,
            ),
        )
        function = functions.Function(
            self,
            "Function",
            description="Stops clusters whose budget is spent",
            runtime=functions.Runtime.PYTHON_3_14,
            architecture=functions.Architecture.ARM_64,
            handler="stop_cluster.handle",
            code=functions.Code.from_asset(str(FUNCTIONS), exclude=["*", "!stop_cluster.py"]),
            # All permissions are in stacks/permissions; CDK adds none of its own.
            role=role.without_policy_updates(),
            memory_size=256,
            timeout=cdk.Duration.minutes(3),
            retry_attempts=2,
            dead_letter_queue=dead_letters,
            log_group=log_group,
            environment={
                "CLUSTERBOX_ENVIRONMENT": environment.name,
                "CLUSTERBOX_ACCOUNT": environment.account,
                "CLUSTERBOX_ALARMS": alarms.topic_arn,
                "CLUSTERBOX_DOCUMENT": self._document_name,
                "CLUSTERBOX_ACTIONS": cdk.Stack.of(self).to_json_string(
                    {
                        _topic_name(environment, cluster): [cluster, action]
                        for cluster, action in actions.items()
                    }
                ),
            },
        )
        acknowledge(
            function,
            "NIST.800.53.R5-LambdaInsideVPC",
            "calls nothing but AWS's APIs, to which the site's VPC need not have a route",
        )
        acknowledge(
            function,
            "NIST.800.53.R5-LambdaConcurrency",
            "runs once a cluster and month; an account with the lowest quota has none to reserve",
        )
        ignore_lint(function, "W3005", "CDK lets every function wait for its role by itself")
        for cluster, topic in self.topics.items():
            self.subscriptions[cluster] = topic.add_subscription(
                subscriptions.LambdaSubscription(function, dead_letter_queue=dead_letters)
            )

    def _make_document(self) -> None:
        """Make the one script that the function may run on a head node."""
        script = (FUNCTIONS / "set_queues.sh").read_text(encoding="utf-8")
        ssm.CfnDocument(
            self,
            "Document",
            name=self._document_name,
            document_type="Command",
            document_format="JSON",
            # A new version becomes the default one; the name stays, as permissions refer to it.
            update_method="NewVersion",
            content={
                "schemaVersion": "2.2",
                "description": "Sets the queues of a cluster to UP or DOWN; run it on a head node",
                "parameters": {
                    "State": {
                        "type": "String",
                        "allowedValues": ["DOWN", "UP"],
                        "description": "DOWN: no job starts, running ones go on",
                    }
                },
                "mainSteps": [
                    {
                        "action": "aws:runShellScript",
                        "name": "SetQueues",
                        "inputs": {"timeoutSeconds": "60", "runCommand": script.splitlines()},
                    }
                ],
            },
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
    scope: Construct, environment: Environment, *, key: kms.IKey
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
            alarm_description=(
                f"{environment.name}: a cluster whose budget is spent was NOT stopped, or the daily "
                "cost report was not started. The logs of the stack "
                f"{names.stack_name(environment, 'costs')} say why."
            ),
            metric=metric,
            threshold=0,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            evaluation_periods=1,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        for name, metric in metrics.items()
    ]
    return queue, alarms


def _topic_name(environment: Environment, cluster: str) -> str:
    return f"clusterbox-{environment.name}-spent-{cluster}"
