from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clusterbox.embedded.account import EmbeddedAccount
from tests.embedded.stack_driver import ACCOUNT, Stack, outputs_of


def backup_plan(selection: dict[str, Any] | None) -> dict[str, Any]:
    vault = {"BackupVaultName": "site-vault"}
    rule = {
        "RuleName": "daily",
        "TargetBackupVault": {"Ref": "Vault"},
        "ScheduleExpression": "cron(0 5 * * ? *)",
        "Lifecycle": {"DeleteAfterDays": 35},
    }
    plan = {"BackupPlan": {"BackupPlanName": "site", "BackupPlanRule": [rule]}}
    resources = {
        "Vault": {"Type": "AWS::Backup::BackupVault", "Properties": vault},
        "Plan": {"Type": "AWS::Backup::BackupPlan", "Properties": plan},
    }
    if selection:
        properties = {"BackupPlanId": {"Ref": "Plan"}, "BackupSelection": selection}
        resources["Selection"] = {
            "Type": "AWS::Backup::BackupSelection",
            "Properties": properties,
        }
    return resources


def test_a_backup_plan_selects_resources_until_the_selection_is_deleted(
    stack: Stack, account: EmbeddedAccount
) -> None:
    backup = account.client("backup")
    selection = {
        "SelectionName": "homes",
        "IamRoleArn": f"arn:aws:iam::{ACCOUNT}:role/backup",
        "Resources": ["arn:aws:elasticfilesystem:us-west-2:427491229895:file-system/fs-1"],
    }
    outputs = outputs_of(Selection="Selection.SelectionId", Plan="Plan")
    assert stack.create(backup_plan(selection), Outputs=outputs) == "CREATE_COMPLETE"
    plan_id, selection_id = stack.outputs()["Plan"], stack.outputs()["Selection"]
    rules = backup.get_backup_plan(BackupPlanId=plan_id)["BackupPlan"]["Rules"]
    assert rules[0]["Lifecycle"]["DeleteAfterDays"] == 35
    assert backup.describe_backup_vault(BackupVaultName="site-vault")["BackupVaultArn"]
    found = backup.get_backup_selection(BackupPlanId=plan_id, SelectionId=selection_id)
    assert found["BackupSelection"]["Resources"] == selection["Resources"]

    selection["Resources"] = ["*"]
    assert stack.update(backup_plan(selection), Outputs=outputs) == "UPDATE_COMPLETE"
    (only,) = backup.list_backup_selections(BackupPlanId=plan_id)["BackupSelectionsList"]
    assert only["SelectionId"] != selection_id
    assert stack.update(backup_plan(None)) == "UPDATE_COMPLETE"
    assert backup.list_backup_selections(BackupPlanId=plan_id)["BackupSelectionsList"] == []
    assert stack.delete() == "DELETE_COMPLETE"


def test_a_backup_plan_with_selections_is_not_deleted(
    stack: Stack, account: EmbeddedAccount
) -> None:
    backup = account.client("backup")
    assert stack.create(backup_plan(None)) == "CREATE_COMPLETE"
    plan_id = stack.ids()["Plan"]
    chosen = {"SelectionName": "by-hand", "IamRoleArn": f"arn:aws:iam::{ACCOUNT}:role/b"}
    made = backup.create_backup_selection(BackupPlanId=plan_id, BackupSelection=chosen)
    assert stack.delete() == "DELETE_FAILED"
    backup.delete_backup_selection(BackupPlanId=plan_id, SelectionId=made["SelectionId"])
    assert stack.delete() == "DELETE_COMPLETE"


def budget(amount: int, threshold: int = 80) -> dict[str, Any]:
    notification = {
        "Notification": {
            "ComparisonOperator": "GREATER_THAN",
            "NotificationType": "ACTUAL",
            "Threshold": threshold,
        },
        "Subscribers": [{"SubscriptionType": "EMAIL", "Address": "hpc@example.com"}],
    }
    limits = {
        "BudgetType": "COST",
        "TimeUnit": "MONTHLY",
        "BudgetLimit": {"Amount": amount, "Unit": "USD"},
    }
    properties = {"Budget": limits, "NotificationsWithSubscribers": [notification]}
    return {"Budget": {"Type": "AWS::Budgets::Budget", "Properties": properties}}


def test_a_budgets_limit_changes_in_place_and_its_notifications_replace_it(
    stack: Stack, account: EmbeddedAccount
) -> None:
    budgets = account.client("budgets")
    assert stack.create(budget(5000)) == "CREATE_COMPLETE"
    name = {"AccountId": ACCOUNT, "BudgetName": stack.ids()["Budget"]}

    def limit() -> float:
        return float(budgets.describe_budget(**name)["Budget"]["BudgetLimit"]["Amount"])

    assert limit() == 5000
    (told,) = budgets.describe_notifications_for_budget(**name)["Notifications"]
    assert told["Threshold"] == 80
    assert stack.update(budget(7000)) == "UPDATE_COMPLETE"
    assert (limit(), stack.ids()["Budget"]) == (7000, name["BudgetName"])

    assert stack.update(budget(7000, threshold=50)) == "UPDATE_COMPLETE"
    assert stack.ids()["Budget"] != name["BudgetName"]
    with pytest.raises(ClientError, match="NotFound"):
        limit()
    assert stack.delete() == "DELETE_COMPLETE"


def alarm(name: str) -> dict[str, Any]:
    properties = {
        "AlarmName": name,
        "Namespace": "AWS/EFS",
        "MetricName": "PercentIOLimit",
        "ComparisonOperator": "GreaterThanThreshold",
        "Threshold": 95,
        "EvaluationPeriods": 1,
        "Period": 300,
        "Statistic": "Average",
    }
    return {"Type": "AWS::CloudWatch::Alarm", "Properties": properties}


def composite(rule: str, description: str = "site") -> dict[str, Any]:
    properties = {"AlarmName": "any", "AlarmRule": rule, "AlarmDescription": description}
    return {
        "Type": "AWS::CloudWatch::CompositeAlarm",
        "DependsOn": "One",
        "Properties": properties,
    }


def test_a_composite_alarm_is_made_changed_and_deleted(
    stack: Stack, account: EmbeddedAccount
) -> None:
    cloudwatch = account.client("cloudwatch")
    resources = {"One": alarm("io-limit"), "Any": composite('ALARM("io-limit")')}
    assert stack.create(resources) == "CREATE_COMPLETE"

    def described() -> list[Any]:
        kinds = {"AlarmNames": ["any"], "AlarmTypes": ["CompositeAlarm"]}
        return list(cloudwatch.describe_alarms(**kinds)["CompositeAlarms"])

    assert described()[0]["AlarmRule"] == 'ALARM("io-limit")'
    resources["Any"] = composite('OK("io-limit")', "changed")
    assert stack.update(resources) == "UPDATE_COMPLETE"
    (found,) = described()
    assert (found["AlarmRule"], found["AlarmDescription"]) == ('OK("io-limit")', "changed")
    assert stack.delete() == "DELETE_COMPLETE"
    assert described() == []


def test_a_composite_alarm_of_an_alarm_that_does_not_exist_is_refused(stack: Stack) -> None:
    resources = {"One": alarm("there"), "Any": composite('ALARM("not-there")')}
    assert stack.create(resources) == "ROLLBACK_COMPLETE"
    assert "do not exist" in stack.failures()["Any"]


def test_an_alarm_on_a_metric_expression_is_kept(stack: Stack, account: EmbeddedAccount) -> None:
    stat = {
        "Metric": {"Namespace": "AWS/EFS", "MetricName": "StorageBytes"},
        "Period": 300,
        "Stat": "Sum",
    }
    metrics = [
        {"Id": "used", "MetricStat": stat, "ReturnData": False},
        {"Id": "tib", "Expression": "used / 1099511627776", "Label": "TiB"},
    ]
    properties = {
        "AlarmName": "large",
        "Metrics": metrics,
        "ComparisonOperator": "GreaterThanThreshold",
        "Threshold": 10,
        "EvaluationPeriods": 1,
    }
    resources = {"Large": {"Type": "AWS::CloudWatch::Alarm", "Properties": properties}}
    assert stack.create(resources) == "CREATE_COMPLETE"
    cloudwatch = account.client("cloudwatch")
    (found,) = cloudwatch.describe_alarms(AlarmNames=["large"])["MetricAlarms"]
    assert [m["Id"] for m in found["Metrics"]] == ["used", "tib"]
    assert found["Threshold"] == 10
    assert stack.delete() == "DELETE_COMPLETE"


def image_pipeline(schedule: str = "cron(0 6 1 * ? *)") -> dict[str, Any]:
    kinds: dict[str, dict[str, Any]] = {
        "Component": {"Platform": "Linux", "Version": "1.0.0", "Data": "name: base"},
        "ImageRecipe": {
            "Version": "1.0.0",
            "ParentImage": "arn:aws:imagebuilder:us-west-2:aws:image/amazon-linux-2023-x86/x.x.x",
            "Components": [{"ComponentArn": {"Ref": "Component"}}],
        },
        "InfrastructureConfiguration": {"InstanceProfileName": "builder"},
        "DistributionConfiguration": {
            "Distributions": [
                {"Region": "us-west-2", "AmiDistributionConfiguration": {"Name": "hpc"}}
            ]
        },
        "ImagePipeline": {
            "ImageRecipeArn": {"Ref": "ImageRecipe"},
            "InfrastructureConfigurationArn": {"Ref": "InfrastructureConfiguration"},
            "DistributionConfigurationArn": {"Ref": "DistributionConfiguration"},
            "Schedule": {"ScheduleExpression": schedule},
            "Tags": {"Owner": "hpc"},
        },
    }
    return {
        kind: {
            "Type": f"AWS::ImageBuilder::{kind}",
            "Properties": {"Name": f"Site_{kind}", **properties},
        }
        for kind, properties in kinds.items()
    }


def test_an_image_pipeline_and_its_parts_are_made_read_changed_and_deleted(
    stack: Stack, account: EmbeddedAccount
) -> None:
    builder = account.client("imagebuilder")
    assert stack.create(image_pipeline()) == "CREATE_COMPLETE"
    ids = stack.ids()
    base = f"arn:aws:imagebuilder:us-west-2:{ACCOUNT}"
    assert ids["Component"] == f"{base}:component/site-component/1.0.0/1"
    assert ids["ImageRecipe"] == f"{base}:image-recipe/site-imagerecipe/1.0.0"

    arn = {"imagePipelineArn": ids["ImagePipeline"]}
    pipeline = builder.get_image_pipeline(**arn)["imagePipeline"]
    assert pipeline["imageRecipeArn"] == ids["ImageRecipe"]
    assert pipeline["tags"] == {"Owner": "hpc"}
    assert [p["arn"] for p in builder.list_image_pipelines()["imagePipelineList"]] == [
        ids["ImagePipeline"]
    ]
    recipe = builder.get_image_recipe(imageRecipeArn=ids["ImageRecipe"])["imageRecipe"]
    assert recipe["components"][0]["componentArn"] == ids["Component"]

    assert stack.update(image_pipeline("cron(0 6 15 * ? *)")) == "UPDATE_COMPLETE"
    pipeline = builder.get_image_pipeline(**arn)["imagePipeline"]
    assert pipeline["schedule"]["scheduleExpression"] == "cron(0 6 15 * ? *)"
    assert stack.delete() == "DELETE_COMPLETE"
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        builder.get_image_pipeline(**arn)


def test_image_builder_operations_that_are_not_there_are_refused_by_name(
    account: EmbeddedAccount,
) -> None:
    with pytest.raises(
        ClientError, match="does not know Image Builder's StartImagePipelineExecution"
    ):
        account.client("imagebuilder").start_image_pipeline_execution(
            imagePipelineArn=f"arn:aws:imagebuilder:us-west-2:{ACCOUNT}:image-pipeline/x"
        )


def test_a_secure_topic_a_rule_and_a_schedule_deploy_together(stack: Stack) -> None:
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Deny",
                "Principal": "*",
                "Action": "sns:Publish",
                "Resource": {"Ref": "Topic"},
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        ],
    }
    resources = {
        "Topic": {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": "site-news"}},
        "Policy": {
            "Type": "AWS::SNS::TopicPolicy",
            "Properties": {"Topics": [{"Ref": "Topic"}], "PolicyDocument": policy},
        },
        "Rule": {
            "Type": "AWS::Events::Rule",
            "Properties": {
                "EventPattern": {"source": ["aws.ec2"]},
                "Targets": [{"Id": "news", "Arn": {"Ref": "Topic"}}],
            },
        },
    }
    assert json.dumps(policy)
    assert stack.create(resources) == "CREATE_COMPLETE"
    assert stack.delete() == "DELETE_COMPLETE"
