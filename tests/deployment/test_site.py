"""A site is deployed for real: CDK CLI, CloudFormation and ParallelCluster's own library.

The tests of this module follow one site through its life and depend on their order.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from clusterbox.deployment.inventory import Item
from clusterbox.deployment.progress import Progress
from clusterbox.deployment.site import Site
from clusterbox.deployment.targets import EmbeddedTarget, find_embedded
from clusterbox.errors import ClusterboxError, InputError
from clusterbox.site.load import Repository

pytestmark = pytest.mark.integration

BOUNDARY = "boundary csr-Developer-Permissions-Boundary"


def open_site(repository: Path) -> Site:
    return Site(repository, Repository(repository).load_environment("ws-dev"), Progress())


def never(_question: str) -> bool:
    raise AssertionError("the embedded account is not asked about")


def of_kind(items: list[Item], kind: str) -> list[Item]:
    return [item for item in items if item.kind == kind]


def set_max_count(repository: Path, old: int, new: int) -> None:
    path = repository / "cluster_configs" / "eco.yaml"
    text = path.read_text()
    assert f"MaxCount: {old}" in text
    path.write_text(text.replace(f"MaxCount: {old}", f"MaxCount: {new}", 1))


def test_an_interrupted_deployment_can_be_run_again(repository: Path) -> None:
    run = subprocess.Popen(
        [sys.executable, "-m", "clusterbox.cli.main", "deploy", "ws-dev"],
        cwd=repository,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    log = repository / ".clusterbox" / "sites" / "ws-dev" / "cdk.log"
    end = time.monotonic() + 60
    while time.monotonic() < end and run.poll() is None:
        if log.exists() and "ws-dev-storage" in log.read_text(encoding="utf-8"):
            break
        time.sleep(0.05)
    assert run.poll() is None, run.communicate()
    os.killpg(run.pid, signal.SIGINT)
    _, told = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "interrupted" in told

    done = open_site(repository).deploy("embedded", never)
    assert {stack["StackStatus"] for stack in fetch_stacks(repository)} <= {
        "CREATE_COMPLETE",
        "UPDATE_COMPLETE",
    }
    assert [item.name for item in of_kind(done.items, "cluster")] == ["ws-eco", "ws-eco-login"]


def fetch_stacks(repository: Path) -> list[dict[str, str]]:
    target = find_embedded(repository, open_site(repository).environment)
    assert target is not None
    stacks: list[dict[str, str]] = target.client("cloudformation").describe_stacks()["Stacks"]
    return stacks


def test_what_was_deployed_is_read_back(repository: Path) -> None:
    items = open_site(repository).show("embedded")
    assert [(item.id, item.detail) for item in of_kind(items, "vpc")] == [
        ("vpc-0c0ffee0000000001", "10.12.64.0/21")
    ]
    assert [item.id for item in of_kind(items, "subnet")] == ["subnet-08f1118dd59133513"]
    roles = {item.name: item.detail for item in of_kind(items, "role")}
    assert "ws-dev-ws-eco-head-node" in roles
    assert "cdk-hnb659fds-cfn-exec-role-427491229895-us-west-2" in roles
    assert len(roles) == 28
    assert set(roles.values()) == {BOUNDARY}
    assert [item.detail for item in of_kind(items, "file system")] == ["encrypted"]
    assert len(of_kind(items, "mount target")) == 1
    assert [item.id for item in of_kind(items, "bucket")] == ["cluster_config", "logs", "results"]
    (box,) = of_kind(items, "admin box")
    assert box.name == "ws-pc-adminbox"
    assert box.detail.startswith("10.12.64.")
    for cluster in of_kind(items, "cluster"):
        assert cluster.detail.startswith("10.12.64."), cluster
        assert cluster.state == "running"


def test_the_roles_of_the_bootstrap_are_bounded_too(repository: Path) -> None:
    target = find_embedded(repository, open_site(repository).environment)
    assert target is not None
    iam = target.client("iam")
    bounds = {
        role["RoleName"]: iam.get_role(RoleName=role["RoleName"])["Role"]
        .get("PermissionsBoundary", {})
        .get("PermissionsBoundaryArn")
        for page in iam.get_paginator("list_roles").paginate()
        for role in page["Roles"]
    }
    assert any(name.startswith("cdk-") for name in bounds)
    unbounded = [
        name
        for name, arn in bounds.items()
        if not str(arn).endswith("csr-Developer-Permissions-Boundary")
    ]
    assert unbounded == []


def test_a_spent_budget_stops_the_cluster_once_and_people_are_told(repository: Path) -> None:
    target = find_embedded(repository, open_site(repository).environment)
    assert target is not None
    sns, sqs, dynamodb = (target.client(name) for name in ("sns", "sqs", "dynamodb"))
    topics = [topic["TopicArn"] for topic in sns.list_topics()["Topics"]]
    (alarms,) = (topic for topic in topics if "ws-dev-costs-Alarms" in topic)
    listener = sqs.create_queue(QueueName="listener")["QueueUrl"]
    arn = "arn:aws:sqs:us-west-2:427491229895:listener"
    subscription = sns.subscribe(TopicArn=alarms, Protocol="sqs", Endpoint=arn)["SubscriptionArn"]

    def fleet_status() -> str:
        found = dynamodb.get_item(
            TableName="parallelcluster-ws-eco-login", Key={"Id": {"S": "COMPUTE_FLEET"}}
        )
        return str(found["Item"]["Data"]["M"]["status"]["S"])

    def publish(cluster: str) -> None:
        (topic,) = (arn for arn in topics if arn.endswith(f":clusterbox-ws-dev-spent-{cluster}"))
        sns.publish(TopicArn=topic, Subject="AWS Budgets", Message="as AWS words it")

    def next_subject() -> str:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            for message in sqs.receive_message(QueueUrl=listener).get("Messages", []):
                sqs.delete_message(QueueUrl=listener, ReceiptHandle=message["ReceiptHandle"])
                return str(json.loads(message["Body"])["Subject"])
            time.sleep(0.1)
        raise AssertionError("nobody was told")

    assert fleet_status() == "RUNNING"
    publish("ws-eco-login")
    assert next_subject() == "[ws-dev] budget of ws-eco-login is spent: stopped"
    # The account stands in for the daemon that fulfils the request.
    assert fleet_status() == "STOPPED"
    publish("ws-eco-login")
    assert next_subject() == "[ws-dev] budget of ws-eco-login is spent: stopped already"

    # To be drained, a cluster needs the Slurm of its head node, and none is joined to this account.
    publish("ws-eco")
    (group,) = (
        found["logGroupName"]
        for found in target.client("logs").describe_log_groups()["logGroups"]
        if "ws-dev-costs-GuardLog" in found["logGroupName"] or "/GuardLog" in found["logGroupName"]
    )
    end = time.monotonic() + 150
    while "scontrol: " not in read_log(target, group):
        assert time.monotonic() < end, read_log(target, group)
        time.sleep(0.1)
    sns.unsubscribe(SubscriptionArn=subscription)
    sqs.delete_queue(QueueUrl=listener)


def read_log(target: EmbeddedTarget, group: str) -> str:
    logs = target.client("logs")
    events = logs.filter_log_events(logGroupName=group)["events"]
    return "\n".join(event["message"] for event in events)


def test_a_second_deployment_changes_nothing(repository: Path) -> None:
    done = open_site(repository).deploy("embedded", never)
    assert done.is_unchanged
    assert done.seeded == 0
    assert len(done.changed) == 10


def test_a_changed_max_count_reaches_the_deployed_cluster_and_only_its_stack(
    repository: Path,
) -> None:
    set_max_count(repository, 3, 5)
    done = open_site(repository).deploy("embedded", never)
    assert [stack for stack, changed in done.changed.items() if changed] == [
        "ws-dev-cluster-ws-eco"
    ]
    target = find_embedded(repository, open_site(repository).environment)
    assert target is not None
    s3 = target.client("s3")
    bucket = "dev-ws-parallelcluster-testbucket"
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    (key,) = [
        k
        for k in keys
        if "/ws-eco-" in k and "login" not in k and k.endswith("/configs/cluster-config.yaml")
    ]
    config = yaml.safe_load(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    assert int(config["Scheduling"]["SlurmQueues"][0]["ComputeResources"][0]["MaxCount"]) == 5


def test_a_configuration_that_parallelcluster_refuses_fails_with_its_reason_and_rolls_back(
    repository: Path,
) -> None:
    path = repository / "cluster_configs" / "eco.yaml"
    good = path.read_text()
    path.write_text(good.replace("ScaledownIdletime: 10", "ScaledownIdletime: soon"))
    with pytest.raises(ClusterboxError) as caught:
        open_site(repository).deploy("embedded", never)
    path.write_text(good)
    assert "ws-dev-cluster-ws-eco: Cluster (Custom::PclusterCluster)" in str(caught.value)
    assert "ScaledownIdletime" in str(caught.value)
    assert "Not a valid integer" in str(caught.value)
    states = {stack["StackName"]: stack["StackStatus"] for stack in fetch_stacks(repository)}
    assert states["ws-dev-cluster-ws-eco"] == "UPDATE_ROLLBACK_COMPLETE"
    assert open_site(repository).deploy("embedded", never).is_unchanged


def test_a_second_run_at_the_same_time_is_refused(repository: Path) -> None:
    with (repository / ".clusterbox" / "sites" / "ws-dev" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ClusterboxError, match="another run is at work on ws-dev"):
            open_site(repository).deploy("embedded", never)


def test_a_cluster_taken_out_of_the_environment_is_told_of_until_it_is_removed(
    repository: Path,
) -> None:
    path = repository / "environments" / "ws-dev.yaml"
    text = path.read_text()
    line = "  - {name: ws-eco-login, config: eco-login.yaml}\n"
    budget = "    ws-eco-login: {monthly_usd: 300, when_spent: stop}\n"
    assert line in text
    assert budget in text
    path.write_text(text.replace(line, "").replace(budget, ""))
    done = open_site(repository).deploy("embedded", never)
    assert done.leftover == ["ws-eco-login"]
    told = {item.name: item.detail for item in of_kind(done.items, "cluster")}
    assert told["ws-eco-login"].endswith("no longer in the environment")

    with pytest.raises(InputError, match="no cluster nothing; it has: ws-eco, ws-eco-login"):
        open_site(repository).remove_cluster("embedded", "nothing", never)
    removal = open_site(repository).remove_cluster("embedded", "ws-eco-login", never)
    assert removal.removed == ["ws-eco-login", "ws-dev-cluster-ws-eco-login"]
    assert [item.name for item in of_kind(removal.items, "cluster")] == ["ws-eco"]
    path.write_text(text)
    assert open_site(repository).deploy("embedded", never).leftover == []


def test_destroy_removes_all_but_what_holds_data_and_says_so(repository: Path) -> None:
    removal = open_site(repository).destroy("embedded", never)
    assert removal.removed == [
        "ws-eco",
        "ws-eco-login",
        "ws-dev-network",
        "ws-dev-security",
        "ws-dev-identity",
        "ws-dev-images",
        "ws-dev-admin",
        "ws-dev-costs",
        "ws-dev-cluster-ws-eco",
        "ws-dev-cluster-ws-eco-login",
    ]
    assert set(removal.kept) == {
        "ws-dev-encryption",
        "ws-dev-storage",
        "dev-ws-parallelcluster-testbucket",
        "ws-out",
    }
    assert [item.name for item in of_kind(removal.items, "stack")] == [
        "ws-dev-encryption",
        "ws-dev-storage",
    ]
    assert of_kind(removal.items, "cluster") == []
    assert len(of_kind(removal.items, "file system")) == 1


def test_destroy_twice_removes_nothing_the_second_time(repository: Path) -> None:
    assert open_site(repository).destroy("embedded", never).removed == []


def test_a_site_deployed_again_finds_its_file_system(repository: Path) -> None:
    site = open_site(repository)
    (before,) = of_kind(site.show("embedded"), "file system")
    done = site.deploy("embedded", never)
    (after,) = of_kind(done.items, "file system")
    assert after.id == before.id
    assert len(of_kind(done.items, "cluster")) == 2
    assert json.dumps(
        sorted(stack for stack, changed in done.changed.items() if not changed)
    ) == json.dumps(["ws-dev-encryption", "ws-dev-storage"])


def run_against_aws(
    repository: Path, *words: str, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run the command with `--target aws`, where AWS's address is the embedded account's."""
    target = find_embedded(repository, open_site(repository).environment)
    assert target is not None
    return subprocess.run(
        [sys.executable, "-m", "clusterbox.cli.main", *words, "ws-dev", "--target", "aws"],
        cwd=repository,
        env={**os.environ, **target.account.environment(), **changes},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def test_aws_is_shown_the_differences_and_left_alone_without_consent(repository: Path) -> None:
    set_max_count(repository, 5, 6)
    done = run_against_aws(repository, "deploy")
    assert done.returncode == 1
    assert "give --yes to agree" in done.stderr
    assert "nothing was deployed" in done.stderr
    differences = [line for line in done.stdout.splitlines() if "MaxCount" in line or '"6"' in line]
    assert differences, done.stdout
    assert "Stack ws-dev-cluster-ws-eco" in done.stdout


def test_aws_goes_the_same_path_as_the_embedded_account(repository: Path) -> None:
    done = run_against_aws(repository, "deploy", "--yes")
    assert done.returncode == 0, done.stderr
    assert "1 of 10 stacks changed: ws-dev-cluster-ws-eco\n" in done.stderr
    assert "stands in for AWS" not in done.stderr


def test_credentials_of_another_account_are_refused(repository: Path) -> None:
    done = run_against_aws(repository, "deploy", "--yes", AWS_ACCESS_KEY_ID="999999999999")
    assert done.returncode == 2
    assert "your credentials belong to account 999999999999" in done.stderr
