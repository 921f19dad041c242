"""Stop a cluster whose budget is spent: the Lambda function behind the budgets' topics.

AWS Budgets publishes to a topic of the cluster's own, so that the topic says which cluster it is
and nothing is read out of the notification's text, which AWS may word as it likes.

AWS tells once a month that a budget is spent. So a schedule lets the function look each hour whether
one still is, and do it again where a restart of the head node or somebody has undone it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import boto3
from botocore.exceptions import ClientError

# How ParallelCluster keeps the state of a compute fleet.
# Source: JsonComputeFleetStatusManager in pcluster/models/compute_fleet_status_manager.py, 3.16.1.
FLEET_TABLE_PREFIX = "parallelcluster-"
FLEET_KEY = {"Id": {"S": "COMPUTE_FLEET"}}
STOPPED = frozenset({"STOP_REQUESTED", "STOPPING", "STOPPED"})

# What Systems Manager says while a command is under way.
UNDER_WAY = frozenset({"Pending", "InProgress", "Delayed", "Cancelling"})
COMMAND_SECONDS = 100.0
POLL_SECONDS = 2.0
# The shortest that Systems Manager takes for the delivery of a command.
DELIVERY_SECONDS = 30
# How set_queues.sh says that a queue is not as it was.
_QUEUE_CHANGED = ", now "
# How a budget says that it counts one cluster.
CLUSTER_FILTER = "user:parallelcluster:cluster-name$"
# SNS takes a subject of at most 100 characters.
SUBJECT_CHARACTERS = 100

Clients = Callable[[str], Any]


class NotStoppedError(Exception):
    """The cluster could not be stopped; Lambda tries again, and then the event is a dead letter."""


@dataclass(frozen=True)
class Settings:
    """What the stack tells the function."""

    environment: str
    account: str
    region: str
    alarms: str  # ARN of the topic that people listen to
    document: str  # name of the document that sets the queues
    actions: Mapping[str, tuple[str, str]]  # name of a topic → cluster, and `drain` or `stop`
    budgets_usd: Mapping[str, Decimal]  # cluster → USD a month


@dataclass(frozen=True)
class Outcome:
    """What was done, in a word and in detail, and how it is undone."""

    done: str
    detail: str
    undo: str
    changed: bool = False  # whether anything is not as it was


def handle(event: Mapping[str, Any], _context: object) -> list[str]:
    """Serve an event of SNS, or of the schedule; return what was done to each cluster.

    Raises NotStoppedError, KeyError for a topic that the function does not know, and boto3's
    errors: all of them make Lambda try again.
    """
    settings = read_settings(os.environ)
    clients = {name: boto3.client(name) for name in ("budgets", "dynamodb", "ec2", "sns", "ssm")}
    if "Records" not in event:
        return check_again(settings, clients.__getitem__)
    return [
        serve(record["Sns"]["TopicArn"], settings, clients.__getitem__)
        for record in event["Records"]
    ]


def read_settings(variables: Mapping[str, str]) -> Settings:
    """Return the settings that the function's environment holds; KeyError when one is missing."""
    actions = json.loads(variables["CLUSTERBOX_ACTIONS"])
    return Settings(
        environment=variables["CLUSTERBOX_ENVIRONMENT"],
        account=variables["CLUSTERBOX_ACCOUNT"],
        region=variables["AWS_REGION"],
        alarms=variables["CLUSTERBOX_ALARMS"],
        document=variables["CLUSTERBOX_DOCUMENT"],
        actions={topic: (cluster, action) for topic, (cluster, action) in actions.items()},
        budgets_usd={
            cluster: Decimal(amount)
            for cluster, amount in json.loads(variables["CLUSTERBOX_BUDGETS"]).items()
        },
    )


def serve(topic_arn: str, settings: Settings, clients: Clients) -> str:
    """Do what the budget behind a topic asks for and tell people; return the word for it."""
    cluster, action = settings.actions[topic_arn.rpartition(":")[2]]
    outcome = _act(cluster, action, settings, clients)
    _tell(cluster, outcome, settings, clients("sns"))
    return f"{cluster}: {outcome.done}"


def check_again(settings: Settings, clients: Clients) -> list[str]:
    """Do again what the budgets that are spent ask for; tell people only where it changed anything.

    A cluster that cannot be stopped keeps no other one from it: NotStoppedError comes at the end.
    """
    spent = find_spent(clients("budgets"), settings)
    done, failed = [], []
    for cluster, action in settings.actions.values():
        if cluster not in spent:
            continue
        try:
            outcome = _act(cluster, action, settings, clients)
        except NotStoppedError as error:
            failed.append(str(error))
            continue
        if outcome.changed:
            _tell(cluster, outcome, settings, clients("sns"))
        done.append(f"{cluster}: {outcome.done}")
    if failed:
        raise NotStoppedError("; ".join(failed))
    return done


def find_spent(budgets: Any, settings: Settings) -> set[str]:
    """Return the clusters of which more than their budget is billed this month.

    CloudFormation names the budgets. Those of the stack are told by what they count and by their
    amount; one that somebody made beside them for the same cluster with less stops nothing.
    """
    spent = set()
    for page in budgets.get_paginator("describe_budgets").paginate(AccountId=settings.account):
        for budget in page.get("Budgets", []):
            counted = budget.get("CostFilters", {}).get("TagKeyValue", [])
            cluster = counted[0].removeprefix(CLUSTER_FILTER) if len(counted) == 1 else ""
            limit = settings.budgets_usd.get(cluster)
            if limit is None or Decimal(budget.get("BudgetLimit", {}).get("Amount", "0")) != limit:
                continue
            billed = budget.get("CalculatedSpend", {}).get("ActualSpend", {}).get("Amount", "0")
            if Decimal(billed) > limit:
                spent.add(cluster)
    return spent


def _act(cluster: str, action: str, settings: Settings, clients: Clients) -> Outcome:
    if action == "stop":
        return stop(cluster, settings, clients("dynamodb"), datetime.now(UTC))
    return drain(cluster, settings, clients("ec2"), clients("ssm"))


def _tell(cluster: str, outcome: Outcome, settings: Settings, sns: Any) -> None:
    subject, text = render_message(cluster, outcome, settings)
    print(text)  # noqa: T201 -- the function's log
    sns.publish(TopicArn=settings.alarms, Subject=subject, Message=text)


def render_message(cluster: str, outcome: Outcome, settings: Settings) -> tuple[str, str]:
    """Return subject and text of the mail."""
    subject = f"[{settings.environment}] budget of {cluster} is spent: {outcome.done}"
    lines = [
        f"The monthly budget of cluster {cluster} is spent.",
        f"Account {settings.account}, {settings.region}, environment {settings.environment}.",
        "",
        outcome.detail,
    ]
    if outcome.undo:
        lines += [
            "",
            "Each hour it is done again while more than the budget is billed. To undo it, raise",
            f"budgets.clusters.{cluster}.monthly_usd in the environment file, deploy, and:",
            f"  {outcome.undo}",
        ]
    return subject[:SUBJECT_CHARACTERS], "\n".join(lines) + "\n"


def stop(cluster: str, settings: Settings, dynamodb: Any, now: datetime) -> Outcome:
    """Ask ParallelCluster to stop the compute fleet, as `pcluster update-compute-fleet` does.

    Running jobs end. The status is changed only from what was read, so that a request of somebody
    else at the same moment is not overwritten: NotStoppedError then.
    """
    table = FLEET_TABLE_PREFIX + cluster
    undo = (
        f"pcluster update-compute-fleet --cluster-name {cluster} --region {settings.region} "
        "--status START_REQUESTED"
    )
    status = _fetch_fleet_status(dynamodb, table)
    if status is None:
        return Outcome("it does not exist", f"There is no cluster {cluster} in the account.", "")
    if status in STOPPED:
        return Outcome("stopped already", f"Its compute fleet was {status} already.", undo)
    try:
        dynamodb.update_item(
            TableName=table,
            Key=FLEET_KEY,
            UpdateExpression="set #data.#status = :next, #data.#time = :now",
            ConditionExpression="#data.#status = :read",
            ExpressionAttributeNames={
                "#data": "Data",
                "#status": "status",
                "#time": "lastStatusUpdatedTime",
            },
            ExpressionAttributeValues={
                ":next": {"S": "STOP_REQUESTED"},
                ":now": {"S": str(now)},
                ":read": {"S": status},
            },
        )
    except ClientError as error:
        if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
            raise
        raise NotStoppedError(f"{cluster}: the fleet's status was changed meanwhile") from error
    detail = (
        f"Its compute fleet was {status} and is asked to stop: nodes end, and jobs on them too."
    )
    return Outcome("stopped", detail, undo, changed=True)


def _fetch_fleet_status(dynamodb: Any, table: str) -> str | None:
    try:
        found = dynamodb.get_item(TableName=table, Key=FLEET_KEY, ConsistentRead=True)
    except ClientError as error:
        if error.response["Error"]["Code"] == "ResourceNotFoundException":
            return None
        raise
    if "Item" not in found:
        raise NotStoppedError(f"{table} has no status of the compute fleet yet")
    return str(found["Item"]["Data"]["M"]["status"]["S"])


def drain(
    cluster: str,
    settings: Settings,
    ec2: Any,
    ssm: Any,
    sleep: Callable[[float], None] = time.sleep,
) -> Outcome:
    """Let no new job start in any queue, through the head node; running jobs go on.

    Raises NotStoppedError when Systems Manager does not reach the head node, or Slurm refuses, and
    when it is not clear which machine is the head node.
    """
    # One that starts just now is not reached yet either: an error, and so tried again.
    instance = _find_head_node(ec2, cluster)
    if instance is None:
        return Outcome(
            "its head node does not run",
            "Its head node does not run, so no job starts now. Nodes that it started before may "
            "still run. Nothing is drained when it runs again: jobs start then.",
            "",
        )
    try:
        command = ssm.send_command(
            InstanceIds=[instance],
            DocumentName=settings.document,
            Parameters={"State": ["DOWN"]},
            TimeoutSeconds=DELIVERY_SECONDS,
            Comment=f"budget of {cluster} is spent",
        )["Command"]["CommandId"]
    except ClientError as error:
        raise NotStoppedError(
            f"{cluster}: Systems Manager does not reach the head node {instance}: {error}"
        ) from error
    output = _wait(ssm, command, instance, cluster, sleep)
    undo = (
        f"aws ssm send-command --region {settings.region} --document-name {settings.document} "
        f"--instance-ids {instance} --parameters State=UP"
    )
    detail = f"No new job starts in its queues; running jobs go on, others wait.\n\n{output}"
    return Outcome("drained", detail, undo, changed=_QUEUE_CHANGED in output)


def _find_head_node(ec2: Any, cluster: str) -> str | None:
    found = ec2.describe_instances(
        Filters=[
            {"Name": "tag:parallelcluster:cluster-name", "Values": [cluster]},
            {"Name": "tag:parallelcluster:node-type", "Values": ["HeadNode"]},
            {"Name": "instance-state-name", "Values": ["pending", "running"]},
        ]
    )
    ids = [item["InstanceId"] for group in found["Reservations"] for item in group["Instances"]]
    # Anybody who may tag machines can make a second one.
    if len(ids) > 1:
        raise NotStoppedError(f"{cluster}: more than one head node: {', '.join(sorted(ids))}")
    return str(ids[0]) if ids else None


def _wait(
    ssm: Any, command: str, instance: str, cluster: str, sleep: Callable[[float], None]
) -> str:
    """Return what a command printed, once it has succeeded."""
    state = "Pending"
    for _ in range(int(COMMAND_SECONDS / POLL_SECONDS)):
        sleep(POLL_SECONDS)
        try:
            found = ssm.get_command_invocation(CommandId=command, InstanceId=instance)
        except ssm.exceptions.InvocationDoesNotExist:
            continue  # it shows a moment after the command was sent
        state = found["Status"]
        if state == "Success":
            return str(found["StandardOutputContent"])
        if state not in UNDER_WAY:
            said = found["StandardErrorContent"] or found["StatusDetails"]
            raise NotStoppedError(f"{cluster}: command {command} on {instance}: {state}: {said}")
    raise NotStoppedError(
        f"{cluster}: command {command} on {instance} is {state} after {COMMAND_SECONDS:g} s"
    )
