"""Budgets, the guard rails behind them, and the daily cost report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aws_cdk import aws_budgets
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from constructs import Construct

from clusterbox.site import names
from clusterbox.site.budgets import Budgets
from clusterbox.site.environment import Environment
from stacks.cost_guard import CostGuard
from stacks.cost_report import CostReport
from stacks.failures import (
    let_alarms_publish,
    let_services_use,
    make_dead_letters,
    make_topic,
    on_behalf_of,
)
from stacks.identity import IdentityStack
from stacks.permissions import arns, costs
from stacks.permissions.roles import make_role
from stacks.site_stack import SiteStack

_SPENT_PERCENT = 100


class CostsStack(SiteStack):
    """One budget for the environment and one for each cluster that has one, and what they set off."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        budgets: Budgets,
        named_ids: Sequence[str],
        root: Path,
        key: kms.IKey,
        identity: IdentityStack,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            environment=environment,
            description="Budgets and cost report",
        )
        self._budgets = budgets
        let_services_use(
            key,
            environment,
            {
                "BudgetAlarms": "budgets",
                "CostAlarms": "cloudwatch",
                # SNS puts into the queue what it could not deliver to the function.
                "CostDeadLetters": "sns",
            },
        )
        self.alarms = make_topic(
            self,
            "Alarms",
            display_name=f"Costs of {environment.name}",
            addresses=budgets.notify,
            key=key,
        )
        let_alarms_publish(self.alarms, environment)
        dead_letters, alarms = make_dead_letters(
            self,
            description=(
                f"{environment.name}: a cluster whose budget is spent was NOT stopped, or the daily "
                "cost report was not started. The logs of the stack "
                f"{names.stack_name(environment, 'costs')} say why."
            ),
            key=key,
        )
        for alarm in alarms:
            alarm.add_alarm_action(actions.SnsAction(self.alarms))
        guard = CostGuard(
            self,
            "Guard",
            environment=environment,
            budgets=budgets,
            key=key,
            alarms=self.alarms,
            dead_letters=dead_letters,
        )
        for topic in (self.alarms, *guard.topics.values()):
            self._let_budgets_publish(topic)
        self._make_budgets(guard)
        if budgets.report_hour_utc is not None:
            CostReport(
                self,
                "Report",
                environment=environment,
                named_ids=named_ids,
                hour_utc=budgets.report_hour_utc,
                root=root,
                key=key,
                alarms=self.alarms,
                dead_letters=dead_letters,
            )
        self._trust_ci(identity)

    def _let_budgets_publish(self, topic: sns.Topic) -> None:
        environment = self._environment
        topic.add_to_resource_policy(
            iam.PolicyStatement(
                sid="Budgets",
                principals=[iam.ServicePrincipal("budgets.amazonaws.com")],
                actions=["sns:Publish"],
                resources=[topic.topic_arn],
                # Budgets belong to an account and to no region.
                conditions=on_behalf_of(
                    environment, f"arn:{environment.partition}:budgets::{environment.account}:*"
                ),
            )
        )

    def _make_budgets(self, guard: CostGuard) -> None:
        budgets, environment = self._budgets, self._environment
        self._make_budget(
            self,
            "Budget",
            amount=float(budgets.monthly_usd),
            tag=(names.TAG_ENVIRONMENT, environment.name),
        )
        # A name inside of it becomes a logical id of its own, whatever characters it has.
        scope = Construct(self, "Budgets")
        for cluster, budget in sorted(budgets.clusters.items()):
            self._make_budget(
                scope,
                cluster,
                amount=float(budget.monthly_usd),
                tag=(names.TAG_CLUSTER, cluster),
                spent=guard.topics.get(cluster),
                stops=guard.subscriptions.get(cluster),
            )

    def _make_budget(
        self,
        scope: Construct,
        construct_id: str,
        *,
        amount: float,
        tag: tuple[str, str],
        spent: sns.Topic | None = None,
        stops: sns.Subscription | None = None,
    ) -> None:
        """Make a monthly budget of what carries a tag; `spent` is told when all of it is spent.

        `stops` is the subscription of what then stops the cluster.
        """
        budgets = self._budgets
        warn = [
            percent for percent in budgets.warn_percent if percent != _SPENT_PERCENT or not spent
        ]
        # AWS takes ten (API reference, "Notification"): warn_percent holds at most eight.
        notifications = [
            *(_notification("ACTUAL", percent, self.alarms) for percent in warn),
            _notification("FORECASTED", budgets.forecast_percent, self.alarms),
            *([_notification("ACTUAL", _SPENT_PERCENT, spent)] if spent else []),
        ]
        budget = aws_budgets.CfnBudget(
            scope,
            construct_id,
            # No name of our own: a change of the notifications makes a new budget before the old
            # one goes, and both cannot have one name.
            budget=aws_budgets.CfnBudget.BudgetDataProperty(
                budget_type="COST",
                time_unit="MONTHLY",
                budget_limit=aws_budgets.CfnBudget.SpendProperty(amount=amount, unit="USD"),
                cost_filters={"TagKeyValue": [f"user:{tag[0]}${tag[1]}"]},
                # What is used counts, whoever pays for it: an account that lives on credits must
                # be told too.
                cost_types=aws_budgets.CfnBudget.CostTypesProperty(
                    include_credit=False, include_refund=False
                ),
            ),
            notifications_with_subscribers=notifications,
        )
        # What is spent is told once a month: a budget that is there before it may publish, or before
        # anybody listens, could tell it to nobody.
        for topic in filter(None, (self.alarms, spent)):
            budget.node.add_dependency(topic.node.find_child("Policy"))
        if stops is not None:
            budget.node.add_dependency(stops)

    def _trust_ci(self, identity: IdentityStack) -> None:
        """Make a role with which a scheduled pipeline of the main branch makes the report.

        It is not the read-only role of the reviews, which any pull request can assume.
        """
        ci = self._environment.hosting.ci
        if ci.github is not None:
            self._make_ci_role(
                "GitHub",
                host="token.actions.githubusercontent.com",
                audience="sts.amazonaws.com",
                subject=f"repo:{ci.github.repository}:ref:refs/heads/main",
                identity=identity,
            )
        if ci.gitlab is not None:
            self._make_ci_role(
                "GitLab",
                host=ci.gitlab.host,
                audience=f"https://{ci.gitlab.host}",
                subject=f"project_path:{ci.gitlab.project}:ref_type:branch:ref:{ci.gitlab.branch}",
                identity=identity,
            )

    def _make_ci_role(
        self, system: str, *, host: str, audience: str, subject: str, identity: IdentityStack
    ) -> None:
        # The identity stack makes the provider, where the account does not have it.
        self.add_stack_dependency(identity)
        environment = self._environment
        make_role(
            self,
            f"{system}CostReport",
            environment=environment,
            purpose=f"ci-{system.lower()}-cost-report",
            description=f"{system}: makes the cost report",
            principal=iam.WebIdentityPrincipal(
                arns.iam(environment, f"oidc-provider/{host}"),
                {"StringEquals": {f"{host}:aud": audience, f"{host}:sub": subject}},
            ),
            statements=costs.read_costs(environment),
        )


def _notification(
    kind: str, percent: int, topic: sns.Topic
) -> aws_budgets.CfnBudget.NotificationWithSubscribersProperty:
    return aws_budgets.CfnBudget.NotificationWithSubscribersProperty(
        notification=aws_budgets.CfnBudget.NotificationProperty(
            comparison_operator="GREATER_THAN",
            notification_type=kind,
            threshold=percent,
            threshold_type="PERCENTAGE",
        ),
        subscribers=[
            aws_budgets.CfnBudget.SubscriberProperty(
                subscription_type="SNS", address=topic.topic_arn
            )
        ],
    )
