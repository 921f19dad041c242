"""Budgets, the guard rails behind them, and the schedule of the cost report."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clusterbox import aws
from clusterbox.errors import InputError
from clusterbox.site.load import Repository
from stacks import build_app
from stacks.permissions.costs import READ_ACTIONS, read_costs
from tests.conftest import Templates
from tests.deployment.conftest import copy_repository
from tests.stacks.resources import Resource, each, only

ALARMS = {"Ref": "Alarms04B5A0BF"}
# Everything that an account could be emptied or taken over with; no guard rail needs it.
POWERFUL = ("iam:", "ec2:Run", "ec2:Terminate", "ec2:Create", "s3:Delete", "kms:Create", "sts:")


def stack_of(templates: Templates) -> Templates:
    """Return the costs stack alone."""
    return {name: template for name, template in templates.items() if name.endswith("-costs")}


def statements(templates: Templates, policy: str) -> dict[str, dict[str, Any]]:
    """Return the statements of the managed policies whose logical id starts so, by Sid."""
    return {
        statement["Sid"]: statement
        for _, logical_id, resource in each(stack_of(templates), "AWS::IAM::ManagedPolicy")
        if logical_id.startswith(policy)
        for statement in resource["Properties"]["PolicyDocument"]["Statement"]
    }


def budgets_of(templates: Templates) -> dict[str, Resource]:
    """Return the properties of each budget by the one tag value that it counts."""
    found = {}
    for _, _, budget in each(stack_of(templates), "AWS::Budgets::Budget"):
        (tag,) = budget["Properties"]["Budget"]["CostFilters"]["TagKeyValue"]
        found[tag] = budget["Properties"]
    return found


def test_what_a_credit_pays_counts_too(ws_dev: Templates) -> None:
    for properties in budgets_of(ws_dev).values():
        assert properties["Budget"]["CostTypes"] == {"IncludeCredit": False, "IncludeRefund": False}


def test_each_budget_counts_what_carries_one_tag(ws_dev: Templates) -> None:
    amounts = {
        tag: (properties["Budget"]["BudgetLimit"], properties["Budget"]["TimeUnit"])
        for tag, properties in budgets_of(ws_dev).items()
    }
    assert amounts == {
        "user:Environment$ws-dev": ({"Amount": 1200, "Unit": "USD"}, "MONTHLY"),
        "user:parallelcluster:cluster-name$ws-eco": ({"Amount": 700, "Unit": "USD"}, "MONTHLY"),
        "user:parallelcluster:cluster-name$ws-eco-login": (
            {"Amount": 300, "Unit": "USD"},
            "MONTHLY",
        ),
    }


def test_a_budget_has_no_name_so_that_a_changed_one_can_replace_it(templates: Templates) -> None:
    for budget in budgets_of(templates).values():
        assert "BudgetName" not in budget["Budget"]


def notifications(budget: Resource) -> list[tuple[str, int, str]]:
    """Return kind, threshold and topic of each notification."""
    return [
        (
            entry["Notification"]["NotificationType"],
            entry["Notification"]["Threshold"],
            entry["Subscribers"][0]["Address"]["Ref"],
        )
        for entry in budget["NotificationsWithSubscribers"]
    ]


def test_what_is_spent_stops_the_cluster_and_all_else_is_told(ws_dev: Templates) -> None:
    alarms, eco = "Alarms04B5A0BF", "GuardSpentwseco287C12EE"
    found = budgets_of(ws_dev)
    assert notifications(found["user:Environment$ws-dev"]) == [
        ("ACTUAL", 50, alarms),
        ("ACTUAL", 80, alarms),
        ("ACTUAL", 100, alarms),
        ("FORECASTED", 100, alarms),
    ]
    # The function tells of the last one, after it has stopped the cluster.
    assert notifications(found["user:parallelcluster:cluster-name$ws-eco"]) == [
        ("ACTUAL", 50, alarms),
        ("ACTUAL", 80, alarms),
        ("FORECASTED", 100, alarms),
        ("ACTUAL", 100, eco),
    ]


def test_a_cluster_that_only_warns_has_no_topic_that_stops_it(sandbox: Templates) -> None:
    found = budgets_of(sandbox)["user:parallelcluster:cluster-name$sandbox-eco"]
    assert {topic for _, _, topic in notifications(found)} == {"Alarms04B5A0BF"}
    topics = each(stack_of(sandbox), "AWS::SNS::Topic")
    names = [topic["Properties"].get("TopicName") for _, _, topic in topics]
    assert sorted(filter(None, names)) == ["clusterbox-sandbox-spent-sandbox-economy-hpc"]


def test_as_many_warnings_as_can_be_are_not_more_than_aws_takes(root: Path, tmp_path: Path) -> None:
    copy = copy_repository(root, tmp_path / "copy")
    path = copy / "environments" / "ws-dev.yaml"
    text = path.read_text(encoding="utf-8")
    assert "\n  monthly_usd: 1200\n" in text

    def warn_at(percents: range) -> None:
        line = f"\n  monthly_usd: 1200\n  warn_percent: {[*percents]}\n"
        path.write_text(text.replace("\n  monthly_usd: 1200\n", line), encoding="utf-8")

    warn_at(range(10, 90, 10))
    build_app(copy, "ws-dev", outdir=tmp_path / "out").synth()
    template = json.loads((tmp_path / "out" / "ws-dev-costs.template.json").read_text())
    found = [
        len(budget["Properties"]["NotificationsWithSubscribers"])
        for _, _, budget in each({"ws-dev-costs": template}, "AWS::Budgets::Budget")
    ]
    # AWS Budgets API reference, "Notification": up to ten.
    assert max(found) == 10
    warn_at(range(10, 100, 10))
    with pytest.raises(InputError, match=r"budgets\.warn_percent: must hold at most 8"):
        build_app(copy, "ws-dev", outdir=tmp_path / "more")


def test_a_budget_waits_until_it_may_tell_and_somebody_listens(ws_dev: Templates) -> None:
    template = ws_dev["ws-dev-costs"]["Resources"]

    def is_about(resource: Resource, topic: str) -> bool:
        properties = resource["Properties"]
        return {"Ref": topic} in [*properties.get("Topics", []), properties.get("TopicArn")]

    budgets = {k: r for k, r in template.items() if r["Type"] == "AWS::Budgets::Budget"}
    assert len(budgets) == 3
    for budget in budgets.values():
        told = {topic for _, _, topic in notifications(budget["Properties"])}
        waits_for = [template[name] for name in budget["DependsOn"]]
        for topic in told:
            kinds = {item["Type"] for item in waits_for if is_about(item, topic)}
            # People confirm their subscriptions later than any deployment.
            stops = set() if topic == ALARMS["Ref"] else {"AWS::SNS::Subscription"}
            assert kinds == {"AWS::SNS::TopicPolicy", *stops}


def test_without_budgets_there_is_no_stack_and_nobody_else_may_use_the_key(
    root: Path, tmp_path: Path
) -> None:
    copy = copy_repository(root, tmp_path / "copy")
    path = copy / "environments" / "ws-dev.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text[: text.index("\nbudgets:\n")], encoding="utf-8")
    build_app(copy, "ws-dev", outdir=tmp_path / "out").synth()
    assert not (tmp_path / "out" / "ws-dev-costs.template.json").exists()
    encryption = (tmp_path / "out" / "ws-dev-encryption.template.json").read_text(encoding="utf-8")
    assert "budgets.amazonaws.com" not in encryption


def test_topics_are_encrypted_and_refuse_plain_http(templates: Templates) -> None:
    stack = stack_of(templates)
    topics = {i: t for _, i, t in each(stack, "AWS::SNS::Topic")}
    policies = [p["Properties"] for _, _, p in each(stack, "AWS::SNS::TopicPolicy")]
    assert len(topics) == len(policies)
    assert all("Fn::ImportValue" in t["Properties"]["KmsMasterKeyId"] for t in topics.values())
    for policy in policies:
        denied = [s for s in policy["PolicyDocument"]["Statement"] if s["Effect"] == "Deny"]
        assert denied[0]["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_budgets_publish_only_on_behalf_of_this_account(ws_dev: Templates) -> None:
    found = [
        statement
        for _, _, policy in each(stack_of(ws_dev), "AWS::SNS::TopicPolicy")
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if statement.get("Principal") == {"Service": "budgets.amazonaws.com"}
    ]
    assert len(found) == 3
    for statement in found:
        assert statement["Action"] == "sns:Publish"
        assert statement["Condition"] == {
            "StringEquals": {"aws:SourceAccount": "427491229895"},
            "ArnLike": {"aws:SourceArn": "arn:aws:budgets::427491229895:*"},
        }


def test_who_publishes_may_use_the_key_without_which_nothing_arrives(ws_dev: Templates) -> None:
    key = only(ws_dev["ws-dev-encryption"], "AWS::KMS::Key")
    allowed = {
        statement["Principal"]["Service"]: statement
        for statement in key["Properties"]["KeyPolicy"]["Statement"]
        if "Service" in statement["Principal"]
    }
    assert {"budgets.amazonaws.com", "cloudwatch.amazonaws.com", "sns.amazonaws.com"} < set(allowed)
    for service in ("budgets", "cloudwatch", "sns"):
        statement = allowed[f"{service}.amazonaws.com"]
        assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": "427491229895"}}
    # A condition would refuse EventBridge, whose requests carry no source.
    assert "Condition" not in allowed["events.amazonaws.com"]


def test_mail_goes_to_everyone_who_is_named(root: Path, templates: Templates) -> None:
    (name,) = (stack.removesuffix("-costs") for stack in stack_of(templates))
    budgets = Repository(root).load_environment(name).budgets
    assert budgets is not None
    mails = {
        subscription["Properties"]["Endpoint"]
        for _, _, subscription in each(stack_of(templates), "AWS::SNS::Subscription")
        if subscription["Properties"]["Protocol"] == "email"
    }
    assert mails == set(budgets.notify)


def test_the_function_knows_the_topics_and_what_each_cluster_asks_for(ws_dev: Templates) -> None:
    function = only(ws_dev["ws-dev-costs"], "AWS::Lambda::Function")["Properties"]
    variables = function["Environment"]["Variables"]
    assert json.loads(variables["CLUSTERBOX_ACTIONS"]) == {
        "clusterbox-ws-dev-spent-ws-eco": ["ws-eco", "drain"],
        "clusterbox-ws-dev-spent-ws-eco-login": ["ws-eco-login", "stop"],
    }
    subscribed = {
        subscription["Properties"]["TopicArn"]["Ref"]
        for _, _, subscription in each(stack_of(ws_dev), "AWS::SNS::Subscription")
        if subscription["Properties"]["Protocol"] == "lambda"
    }
    topics = {
        logical_id
        for _, logical_id, topic in each(stack_of(ws_dev), "AWS::SNS::Topic")
        if topic["Properties"].get("TopicName") in json.loads(variables["CLUSTERBOX_ACTIONS"])
    }
    assert subscribed == topics


def test_a_stop_that_fails_for_good_is_told(templates: Templates) -> None:
    stack = stack_of(templates)
    (template,) = stack.values()
    queue = {"Fn::GetAtt": ["DeadLettersBBF8BAAB", "Arn"]}
    function = only(template, "AWS::Lambda::Function")["Properties"]
    assert function["DeadLetterConfig"] == {"TargetArn": queue}
    assert (
        only(template, "AWS::Lambda::EventInvokeConfig")["Properties"]["MaximumRetryAttempts"] == 2
    )
    schedule = only(template, "AWS::Scheduler::Schedule")["Properties"]
    assert schedule["Target"]["DeadLetterConfig"] == {"Arn": queue}
    alarms = [alarm["Properties"] for _, _, alarm in each(stack, "AWS::CloudWatch::Alarm")]
    for alarm in alarms:
        assert alarm["Dimensions"][0]["Value"] == {
            "Fn::GetAtt": ["DeadLettersBBF8BAAB", "QueueName"]
        }
        assert (alarm["Threshold"], alarm["AlarmActions"]) == (0, [ALARMS])
    # What lies in the queue keeps the one on for two weeks; the other tells of what is new.
    assert {(alarm["MetricName"], alarm["Statistic"]) for alarm in alarms} == {
        ("ApproximateNumberOfMessagesVisible", "Maximum"),
        ("NumberOfMessagesSent", "Sum"),
    }


def test_logs_are_encrypted_and_end(templates: Templates) -> None:
    groups = [g["Properties"] for _, _, g in each(stack_of(templates), "AWS::Logs::LogGroup")]
    assert len(groups) == 2
    assert all("KmsKeyId" in group and group["RetentionInDays"] == 365 for group in groups)


def test_the_function_looks_each_hour_whether_a_budget_is_still_spent(ws_dev: Templates) -> None:
    (rule,) = (
        rule["Properties"]
        for _, _, rule in each(stack_of(ws_dev), "AWS::Events::Rule")
        if "ScheduleExpression" in rule["Properties"]
    )
    assert rule["ScheduleExpression"] == "rate(1 hour)"
    (target,) = rule["Targets"]
    assert target["Input"] == '{"check":"again"}'
    assert target["Arn"]["Fn::GetAtt"][0].startswith("GuardFunction")
    function = only(ws_dev["ws-dev-costs"], "AWS::Lambda::Function")["Properties"]
    budgets = json.loads(function["Environment"]["Variables"]["CLUSTERBOX_BUDGETS"])
    assert budgets == {"ws-eco": "700", "ws-eco-login": "300"}
    assert statements(ws_dev, "GuardRolePolicy")["Spent"]["Action"] == "budgets:ViewBudget"


def test_the_stopping_function_changes_one_item_of_the_clusters_it_stops(
    ws_dev: Templates,
) -> None:
    found = statements(ws_dev, "GuardRolePolicy")
    assert found["FleetStatus"] == {
        "Sid": "FleetStatus",
        "Effect": "Allow",
        "Action": ["dynamodb:GetItem", "dynamodb:UpdateItem"],
        "Resource": "arn:aws:dynamodb:us-west-2:427491229895:table/parallelcluster-ws-eco-login",
        "Condition": {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": ["COMPUTE_FLEET"]}},
    }


def test_the_stopping_function_runs_one_document_on_head_nodes_it_drains(
    ws_dev: Templates,
) -> None:
    found = statements(ws_dev, "GuardRolePolicy")
    assert found["RunDocument"]["Resource"] == (
        "arn:aws:ssm:us-west-2:427491229895:document/clusterbox-ws-dev-queues"
    )
    assert found["OnHeadNodes"]["Condition"] == {
        "StringEquals": {
            "ssm:resourceTag/parallelcluster:cluster-name": ["ws-eco"],
            "ssm:resourceTag/parallelcluster:node-type": "HeadNode",
        }
    }
    sending = [sid for sid, item in found.items() if "ssm:SendCommand" in item["Action"]]
    assert sorted(sending) == ["OnHeadNodes", "RunDocument"]


def test_no_guard_rail_can_do_more_than_it_must(templates: Templates) -> None:
    actions = {
        action
        for _, _, policy in each(stack_of(templates), "AWS::IAM::ManagedPolicy")
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        for action in (
            statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        )
    }
    assert "dynamodb:UpdateItem" in actions or "ssm:SendCommand" in actions
    assert [action for action in actions if "*" in action or action.startswith(POWERFUL)] == []
    # CDK would add policies of its own, which nobody gave a reason for.
    assert list(each(stack_of(templates), "AWS::IAM::Policy")) == []


def test_the_document_takes_two_words_and_holds_the_script(root: Path, ws_dev: Templates) -> None:
    document = only(ws_dev["ws-dev-costs"], "AWS::SSM::Document")["Properties"]
    content = document["Content"]
    assert content["parameters"]["State"]["allowedValues"] == ["DOWN", "UP"]
    script = (root / "stacks" / "cost_functions" / "set_queues.sh").read_text(encoding="utf-8")
    assert content["mainSteps"][0]["inputs"]["runCommand"] == script.splitlines()
    assert document["UpdateMethod"] == "NewVersion"


def test_the_report_is_made_at_the_hour_of_the_environment(ws_dev: Templates) -> None:
    schedule = only(ws_dev["ws-dev-costs"], "AWS::Scheduler::Schedule")["Properties"]
    assert schedule["ScheduleExpression"] == "cron(0 6 * * ? *)"
    assert schedule["ScheduleExpressionTimezone"] == "UTC"
    assert schedule["Target"]["Arn"] == {"Fn::GetAtt": ["ReportProject38522135", "Arn"]}
    started = statements(ws_dev, "ReportScheduleRolePolicy")["StartReport"]
    assert started["Action"] == "codebuild:StartBuild"
    assert started["Resource"] == {"Fn::GetAtt": ["ReportProject38522135", "Arn"]}


def test_the_project_reads_the_archive_and_looks_whose_bucket_it_is(ws_dev: Templates) -> None:
    found = statements(ws_dev, "ReportRolePolicy")
    bucket = "arn:aws:s3:::cdk-*-assets-427491229895-us-west-2"
    assert found["Source"]["Resource"] == f"{bucket}/*"
    assert found["SourceBucket"]["Resource"] == bucket
    assert found["SourceBucket"]["Action"] == ["s3:GetBucketAcl", "s3:GetBucketLocation"]


def test_a_report_that_fails_is_told(ws_dev: Templates) -> None:
    (rule,) = (
        rule["Properties"]
        for _, _, rule in each(stack_of(ws_dev), "AWS::Events::Rule")
        if "EventPattern" in rule["Properties"]
    )
    assert rule["EventPattern"]["detail"]["project-name"] == [{"Ref": "ReportProject38522135"}]
    assert set(rule["EventPattern"]["detail"]["build-status"]) == {
        "FAILED",
        "FAULT",
        "STOPPED",
        "TIMED_OUT",
    }
    assert [target["Arn"] for target in rule["Targets"]] == [ALARMS]


@pytest.fixture(scope="module")
def assembly(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an assembly of ws-dev."""
    folder = tmp_path_factory.mktemp("assembly")
    build_app(root, "ws-dev", outdir=folder).synth()
    return folder


def archive_of(assembly: Path) -> Path:
    """Return the folder that becomes the archive of the report's project."""
    text = (assembly / "ws-dev-costs.template.json").read_text(encoding="utf-8")
    location = only(json.loads(text), "AWS::CodeBuild::Project")["Properties"]["Source"]["Location"]
    return assembly / f"asset.{location.rpartition('/')[2].removesuffix('.zip')}"


def test_the_archive_has_what_the_report_reads_and_nothing_else(assembly: Path) -> None:
    archive = archive_of(assembly)
    files = {str(path.relative_to(archive)) for path in archive.rglob("*") if path.is_file()}
    assert {
        "ami/images.lock.yaml",
        "cdk.json",
        "clusterbox/costs/data/us-west-2.csv",
        "clusterbox/costs/report.py",
        "requirements.txt",
        "stacks/cost_functions/report.sh",
        "stacks/cost_functions/summary.py",
    } <= files
    folders = {"ami", "clusterbox", "prices", "stacks"}
    assert {name.partition("/")[0] for name in files if "/" in name} <= folders
    assert {name for name in files if "/" not in name} == {"cdk.json", "requirements.txt"}


def test_the_report_finds_its_way_in_the_archive_alone(
    ws_dev: Templates, assembly: Path, root: Path, tmp_path: Path
) -> None:
    project = only(ws_dev["ws-dev-costs"], "AWS::CodeBuild::Project")["Properties"]
    *commands, last = json.loads(project["Source"]["BuildSpec"])["phases"]["build"]["commands"]
    assert last == "bash stacks/cost_functions/report.sh"
    archive = tmp_path / "archive"
    shutil.copytree(archive_of(assembly), archive)
    for command in commands:
        subprocess.run(["sh", "-c", command], cwd=archive, check=True)
    made, given = (Repository(place).load_environment("ws-dev") for place in (archive, root))
    assert [entry.name for entry in made.clusters] == [entry.name for entry in given.clusters]
    left_out = {"clusters", "budgets", "patch_day"}
    assert made.model_dump(exclude=left_out) == given.model_dump(exclude=left_out)

    words = ["--target", "aws", "--account", made.account, "--region", made.region]
    done = subprocess.run(
        [sys.executable, "-m", "clusterbox.cli.main", "costs", "report", *words],
        cwd=archive,
        capture_output=True,
        text=True,
        check=False,
        env={
            "PATH": os.environ["PATH"],
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        },
    )
    # It has read all files, and asks AWS first who it is.
    assert "AWS does not know who you are" in done.stderr


def test_the_report_may_make_every_call_that_it_makes(root: Path) -> None:
    files = (root / "clusterbox" / "costs").glob("*.py")
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    calls = re.findall(r'\.(?:pages|ask)\(\s*"(\w+)",\s*"(\w+)"', text)
    assert len(calls) == len(re.findall(r"ount\.(?:pages|ask)\(", text)) > 10
    needed = {aws._names(service, operation)[1] for service, operation in calls}
    statements = read_costs(Repository(root).load_environment("ws-dev"))
    assert needed == {action for statement in statements for action in statement.actions}


def test_the_report_only_reads() -> None:
    verbs = {action.partition(":")[2] for action in READ_ACTIONS}
    assert {verb for verb in verbs if not verb.startswith(("Describe", "Get", "List"))} == set()


def test_a_pipeline_of_the_main_branch_makes_the_report_and_can_do_nothing_else(
    ws_dev: Templates, sandbox: Templates
) -> None:
    subjects = {}
    for templates in (ws_dev, sandbox):
        for _, logical_id, role in each(stack_of(templates), "AWS::IAM::Role"):
            (statement,) = role["Properties"]["AssumeRolePolicyDocument"]["Statement"]
            if statement["Action"] == "sts:AssumeRoleWithWebIdentity":
                equals = statement["Condition"]["StringEquals"]
                (subjects[logical_id],) = (v for k, v in equals.items() if k.endswith(":sub"))
                assert set(statement["Condition"]) == {"StringEquals"}
    assert sorted(subjects.values()) == [
        "project_path:lcnext/clusterbox:ref_type:branch:ref:main",
        "repo:lcnext/clusterbox:ref:refs/heads/main",
    ]
    assert set(statements(ws_dev, "GitLabCostReportPolicy")) == {
        "Inventory",
        "FileSystems",
        "Buckets",
    }


def test_the_report_knows_the_ids_that_clusters_name(root: Path, tmp_path: Path) -> None:
    copy = copy_repository(root, tmp_path / "site")
    config = copy / "cluster_configs" / "eco.yaml"
    config.write_text(config.read_text().replace("${images.compute}", "ami-0123456789abcdef0"))
    build_app(copy, "ws-dev", outdir=tmp_path / "out").synth()
    template = json.loads((tmp_path / "out" / "ws-dev-costs.template.json").read_text())
    assert "ami-0123456789abcdef0" in json.dumps(template)
