"""Stopping a cluster whose budget is spent: its topics, and the function behind them."""

from __future__ import annotations

from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from aws_cdk import aws_sqs as sqs
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from clusterbox.site.budgets import Budgets
from clusterbox.site.environment import Environment
from stacks.failures import make_log_group
from stacks.permissions import costs
from stacks.permissions.roles import make_role
from stacks.processes import make_function

FUNCTIONS = Path(__file__).parent / "cost_functions"


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
        function = make_function(
            self,
            description="Stops clusters whose budget is spent",
            source=FUNCTIONS / "stop_cluster.py",
            handler="handle",
            role=role,
            variables={
                "CLUSTERBOX_ENVIRONMENT": environment.name,
                "CLUSTERBOX_ACCOUNT": environment.account,
                "CLUSTERBOX_ALARMS": alarms.topic_arn,
                "CLUSTERBOX_DOCUMENT": self._document_name,
                "CLUSTERBOX_BUDGETS": cdk.Stack.of(self).to_json_string(
                    {cluster: str(budgets.clusters[cluster].monthly_usd) for cluster in actions}
                ),
                "CLUSTERBOX_ACTIONS": cdk.Stack.of(self).to_json_string(
                    {
                        _topic_name(environment, cluster): [cluster, action]
                        for cluster, action in actions.items()
                    }
                ),
            },
            dead_letters=dead_letters,
            log_group=log_group,
            not_reserved_because=(
                "runs once an hour; an account with the lowest quota has none to reserve"
            ),
        )
        for cluster, topic in self.topics.items():
            self.subscriptions[cluster] = topic.add_subscription(
                subscriptions.LambdaSubscription(function, dead_letter_queue=dead_letters)
            )

        # AWS tells once that a budget is spent, and a restart of slurmctld opens the queues again.
        events.Rule(
            self,
            "Hourly",
            description="Stops again what a spent budget stopped",
            schedule=events.Schedule.rate(cdk.Duration.hours(1)),
            targets=[
                targets.LambdaFunction(
                    function, event=events.RuleTargetInput.from_object({"check": "again"})
                )
            ],
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


def _topic_name(environment: Environment, cluster: str) -> str:
    return f"clusterbox-{environment.name}-spent-{cluster}"
