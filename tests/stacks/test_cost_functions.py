"""What runs in AWS for the budgets: the stopping function, and the scripts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from clusterbox.costs.report_history import FORMAT
from clusterbox.embedded.slurm import Options, SlurmCluster
from stacks import cost_functions
from stacks.cost_functions import stop_cluster
from stacks.cost_functions.stop_cluster import (
    CLUSTER_FILTER,
    FLEET_KEY,
    FLEET_TABLE_PREFIX,
    STOPPED,
    NotStoppedError,
    Outcome,
    Settings,
    drain,
    find_spent,
    handle,
    read_settings,
    render_message,
    serve,
    stop,
)
from stacks.cost_functions.summary import GROUPS, render_summary
from tests.conftest import ROOT
from tests.slurm_cluster import needs_slurm, wait_for, write_cluster

FOLDER = Path(cost_functions.__file__).parent
NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
ALARMS = "arn:aws:sns:us-west-2:427491229895:alarms"
SPENT = "arn:aws:sns:us-west-2:427491229895:clusterbox-ws-dev-spent-"
VARIABLES = {
    "AWS_REGION": "us-west-2",
    "CLUSTERBOX_ENVIRONMENT": "ws-dev",
    "CLUSTERBOX_ACCOUNT": "427491229895",
    "CLUSTERBOX_ALARMS": ALARMS,
    "CLUSTERBOX_DOCUMENT": "clusterbox-ws-dev-queues",
    "CLUSTERBOX_BUDGETS": json.dumps({"ws-eco": "700", "ws-big": "1000.50"}),
    "CLUSTERBOX_ACTIONS": json.dumps(
        {
            "clusterbox-ws-dev-spent-ws-eco": ["ws-eco", "drain"],
            "clusterbox-ws-dev-spent-ws-big": ["ws-big", "stop"],
        }
    ),
}


@pytest.fixture
def settings() -> Settings:
    return read_settings(VARIABLES)


class Aws:
    """Clients of boto3 that answer from a list, and refuse any call that is not the next one."""

    def __init__(self) -> None:
        self.clients: dict[str, Any] = {}
        self.stubs: dict[str, Stubber] = {}
        for service in ("budgets", "dynamodb", "ec2", "sns", "ssm"):
            self.clients[service] = boto3.client(
                service,
                region_name="us-west-2",
                aws_access_key_id="none",
                aws_secret_access_key="none",
            )
            self.stubs[service] = Stubber(self.clients[service])
            self.stubs[service].activate()

    def answer(
        self, service: str, method: str, answer: dict[str, Any], expected: Any = None
    ) -> None:
        self.stubs[service].add_response(method, answer, expected)

    def refuse(self, service: str, method: str, code: str) -> None:
        self.stubs[service].add_client_error(method, code)

    def fleet(self, status: str) -> None:
        item = {**FLEET_KEY, "Data": {"M": {"status": {"S": status}}}}
        self.answer("dynamodb", "get_item", {"Item": item})

    def budgets(self, *budgets: dict[str, Any]) -> None:
        self.answer(
            "budgets", "describe_budgets", {"Budgets": [*budgets]}, {"AccountId": "427491229895"}
        )

    def head_node(self, *ids: str) -> None:
        instances = [{"InstanceId": name} for name in ids]
        self.answer("ec2", "describe_instances", {"Reservations": [{"Instances": instances}]})

    def command(self, *states: str, output: str = "", error: str = "") -> None:
        self.answer("ssm", "send_command", {"Command": {"CommandId": "c" * 36}})
        for state in states:
            said = {"StandardOutputContent": output, "StandardErrorContent": error}
            self.answer("ssm", "get_command_invocation", {"Status": state, **said})


@pytest.fixture
def aws() -> Iterator[Aws]:
    found = Aws()
    yield found
    for stub in found.stubs.values():
        stub.assert_no_pending_responses()


def no_wait(_seconds: float) -> None:
    """Take no time."""


def no_client(name: str) -> Any:
    raise AssertionError(f"{name} is not asked")


def test_a_running_fleet_is_asked_to_stop_as_pcluster_does(aws: Aws, settings: Settings) -> None:
    aws.fleet("RUNNING")
    aws.answer(
        "dynamodb",
        "update_item",
        {},
        {
            "TableName": "parallelcluster-ws-big",
            "Key": {"Id": {"S": "COMPUTE_FLEET"}},
            "UpdateExpression": "set #data.#status = :next, #data.#time = :now",
            "ConditionExpression": "#data.#status = :read",
            "ExpressionAttributeNames": {
                "#data": "Data",
                "#status": "status",
                "#time": "lastStatusUpdatedTime",
            },
            "ExpressionAttributeValues": {
                ":next": {"S": "STOP_REQUESTED"},
                ":now": {"S": "2026-03-02 12:00:00+00:00"},
                ":read": {"S": "RUNNING"},
            },
        },
    )
    outcome = stop("ws-big", settings, aws.clients["dynamodb"], NOON)
    assert outcome.done == "stopped"
    assert outcome.undo == (
        "pcluster update-compute-fleet --cluster-name ws-big --region us-west-2 "
        "--status START_REQUESTED"
    )


@pytest.mark.parametrize("status", sorted(STOPPED))
def test_a_fleet_is_never_stopped_twice(aws: Aws, settings: Settings, status: str) -> None:
    aws.fleet(status)
    assert stop("ws-big", settings, aws.clients["dynamodb"], NOON).done == "stopped already"


def test_a_cluster_that_is_gone_needs_no_stop(aws: Aws, settings: Settings) -> None:
    aws.refuse("dynamodb", "get_item", "ResourceNotFoundException")
    assert stop("ws-big", settings, aws.clients["dynamodb"], NOON).done == "it does not exist"


def test_a_change_of_somebody_else_is_not_overwritten_and_is_tried_again(
    aws: Aws, settings: Settings
) -> None:
    aws.fleet("RUNNING")
    aws.refuse("dynamodb", "update_item", "ConditionalCheckFailedException")
    with pytest.raises(NotStoppedError, match="changed meanwhile"):
        stop("ws-big", settings, aws.clients["dynamodb"], NOON)


@pytest.mark.integration
def test_parallelcluster_keeps_the_state_of_a_fleet_where_the_function_looks() -> None:
    program = (
        "import json; from pcluster.constants import PCLUSTER_DYNAMODB_PREFIX as prefix\n"
        "from pcluster.models.compute_fleet_status_manager import *\n"
        "manager, status = JsonComputeFleetStatusManager, ComputeFleetStatus\n"
        "stop = [str(s) for s in status if status.is_stop_status(s)]\n"
        "names = [manager.DB_DATA, manager.COMPUTE_FLEET_STATUS_ATTRIBUTE, "
        "manager.COMPUTE_FLEET_LAST_UPDATED_TIME_ATTRIBUTE]\n"
        "print(json.dumps([prefix, manager.DB_KEY, sorted(stop), names]))"
    )
    python = ROOT / ".venv-pcluster" / "bin" / "python"
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    prefix, key, stopped, names = json.loads(done.stdout)
    assert (prefix, {"Id": {"S": key}}, stopped) == (FLEET_TABLE_PREFIX, FLEET_KEY, sorted(STOPPED))
    assert names == ["Data", "status", "lastStatusUpdatedTime"]


def test_a_drained_cluster_tells_what_became_of_each_queue(aws: Aws, settings: Settings) -> None:
    aws.head_node("i-0aa")
    aws.command("Pending", "InProgress", "Success", output="eco: UP, now DOWN\n")
    outcome = drain("ws-eco", settings, aws.clients["ec2"], aws.clients["ssm"], no_wait)
    assert outcome.done == "drained"
    assert outcome.detail.endswith("eco: UP, now DOWN\n")
    assert outcome.undo == (
        "aws ssm send-command --region us-west-2 --document-name clusterbox-ws-dev-queues "
        "--instance-ids i-0aa --parameters State=UP"
    )


def test_only_the_document_is_run_and_only_on_the_running_head_node(
    aws: Aws, settings: Settings
) -> None:
    aws.answer(
        "ec2",
        "describe_instances",
        {"Reservations": [{"Instances": [{"InstanceId": "i-0aa"}]}]},
        {
            "Filters": [
                {"Name": "tag:parallelcluster:cluster-name", "Values": ["ws-eco"]},
                {"Name": "tag:parallelcluster:node-type", "Values": ["HeadNode"]},
                {"Name": "instance-state-name", "Values": ["pending", "running"]},
            ]
        },
    )
    aws.answer(
        "ssm",
        "send_command",
        {"Command": {"CommandId": "c" * 36}},
        {
            "InstanceIds": ["i-0aa"],
            "DocumentName": "clusterbox-ws-dev-queues",
            "Parameters": {"State": ["DOWN"]},
            "TimeoutSeconds": 30,
            "Comment": "budget of ws-eco is spent",
        },
    )
    aws.refuse("ssm", "get_command_invocation", "InvocationDoesNotExist")
    aws.answer("ssm", "get_command_invocation", {"Status": "Success", "StandardOutputContent": ""})
    drain("ws-eco", settings, aws.clients["ec2"], aws.clients["ssm"], no_wait)


def refuse_to_send(aws: Aws) -> None:
    aws.refuse("ssm", "send_command", "InvalidInstanceId")


def fail(aws: Aws) -> None:
    aws.command("InProgress", "Failed", error="slurm_load_partitions: Unable to contact")


def hang(aws: Aws) -> None:
    aws.command(*["InProgress"] * 50)


@pytest.mark.parametrize(
    ("happens", "message"),
    [
        (refuse_to_send, "Systems Manager does not reach the head node i-0aa.*InvalidInstanceId"),
        (fail, "Failed: slurm_load_partitions: Unable to contact"),
        (hang, "is InProgress after 100 s"),
    ],
)
def test_a_cluster_that_was_not_drained_is_an_error(
    aws: Aws, settings: Settings, happens: Callable[[Aws], None], message: str
) -> None:
    aws.head_node("i-0aa")
    happens(aws)
    with pytest.raises(NotStoppedError, match=message):
        drain("ws-eco", settings, aws.clients["ec2"], aws.clients["ssm"], no_wait)


def test_without_a_head_node_there_is_nothing_to_drain(aws: Aws, settings: Settings) -> None:
    aws.head_node()
    outcome = drain("ws-eco", settings, aws.clients["ec2"], aws.clients["ssm"], no_wait)
    assert (outcome.done, outcome.undo) == ("its head node does not run", "")
    # Whoever starts it again has jobs start, too.
    assert "Nothing is drained when it runs again" in outcome.detail


def test_a_second_head_node_is_an_error_and_nothing_is_run_on_either(
    aws: Aws, settings: Settings
) -> None:
    aws.head_node("i-0bb", "i-0aa")
    with pytest.raises(NotStoppedError, match="more than one head node: i-0aa, i-0bb"):
        drain("ws-eco", settings, aws.clients["ec2"], aws.clients["ssm"], no_wait)


def test_the_topic_says_which_cluster_it_is_and_people_are_told(
    aws: Aws, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.fleet("STOPPED")
    aws.answer("sns", "publish", {"MessageId": "1"})
    assert serve(f"{SPENT}ws-big", settings, aws.clients.__getitem__) == "ws-big: stopped already"
    assert "The monthly budget of cluster ws-big is spent." in capsys.readouterr().out


def test_an_unknown_topic_is_an_error(settings: Settings) -> None:
    with pytest.raises(KeyError, match="spent-other"):
        serve(f"{SPENT}other", settings, no_client)


def test_a_failure_reaches_lambda(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "client", aws.clients.__getitem__)
    aws.head_node("i-0aa")
    refuse_to_send(aws)
    with pytest.raises(NotStoppedError):
        handle({"Records": [{"Sns": {"TopicArn": f"{SPENT}ws-eco", "Message": "any"}}]}, None)


def test_the_mail_has_the_facts_and_the_way_back(settings: Settings) -> None:
    outcome = Outcome("stopped", "Its compute fleet was RUNNING.", "pcluster undo")
    subject, text = render_message("ws-big", outcome, settings)
    assert subject == "[ws-dev] budget of ws-big is spent: stopped"
    assert text == (
        "The monthly budget of cluster ws-big is spent.\n"
        "Account 427491229895, us-west-2, environment ws-dev.\n"
        "\n"
        "Its compute fleet was RUNNING.\n"
        "\n"
        "Each hour it is done again while more than the budget is billed. To undo it, raise\n"
        "budgets.clusters.ws-big.monthly_usd in the environment file, deploy, and:\n"
        "  pcluster undo\n"
    )
    assert len(render_message("c" * 90, outcome, settings)[0]) == 100


def budget_of(counted: str, amount: str, billed: str) -> dict[str, Any]:
    return {
        "BudgetName": "any-name-of-CloudFormation",
        "BudgetType": "COST",
        "TimeUnit": "MONTHLY",
        "CostFilters": {"TagKeyValue": [counted]},
        "BudgetLimit": {"Amount": amount, "Unit": "USD"},
        "CalculatedSpend": {"ActualSpend": {"Amount": billed, "Unit": "USD"}},
    }


ECO_TAG = f"{CLUSTER_FILTER}ws-eco"
BIG_TAG = f"{CLUSTER_FILTER}ws-big"


@pytest.mark.parametrize(
    ("budgets", "spent"),
    [
        ([budget_of(ECO_TAG, "700.0", "700.01")], {"ws-eco"}),
        ([budget_of(ECO_TAG, "700.0", "700")], set()),
        (
            [budget_of(ECO_TAG, "700", "901"), budget_of(BIG_TAG, "1000.5", "2000")],
            {"ws-eco", "ws-big"},
        ),
        # Somebody's own budget of less, one of the environment, and one of another cluster.
        ([budget_of(ECO_TAG, "100", "101")], set()),
        ([budget_of("user:Environment$ws-dev", "700", "900")], set()),
        ([budget_of(f"{CLUSTER_FILTER}other", "700", "900")], set()),
        ([{"BudgetName": "of usage", "BudgetType": "USAGE", "TimeUnit": "MONTHLY"}], set()),
    ],
)
def test_a_spent_budget_is_known_by_what_it_counts_and_its_amount(
    aws: Aws, settings: Settings, budgets: list[dict[str, Any]], spent: set[str]
) -> None:
    aws.budgets(*budgets)
    assert find_spent(aws.clients["budgets"], settings) == spent


def hourly(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run the function as the schedule does."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "client", aws.clients.__getitem__)
    monkeypatch.setattr("time.sleep", no_wait)
    monkeypatch.setattr(stop_cluster.drain, "__defaults__", (no_wait,))
    return handle({"check": "again"}, None)


def test_queues_that_a_restart_opened_are_closed_again_and_people_are_told(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws.budgets(budget_of(ECO_TAG, "700", "900"), budget_of(BIG_TAG, "1000.5", "3"))
    aws.head_node("i-0aa")
    aws.command("Success", output="eco: UP, now DOWN\nspot: stays DOWN\n")
    aws.answer("sns", "publish", {"MessageId": "1"})
    assert hourly(aws, monkeypatch) == ["ws-eco: drained"]


def test_what_is_stopped_already_is_told_to_nobody_again(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws.budgets(budget_of(ECO_TAG, "700", "900"), budget_of(BIG_TAG, "1000.5", "3000"))
    aws.head_node("i-0aa")
    aws.command("Success", output="eco: stays DOWN\n")
    aws.fleet("STOPPED")
    assert hourly(aws, monkeypatch) == ["ws-eco: drained", "ws-big: stopped already"]


def test_while_nothing_is_spent_no_cluster_is_looked_at(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws.budgets(budget_of(ECO_TAG, "700", "3"))
    assert hourly(aws, monkeypatch) == []


def test_a_cluster_that_cannot_be_stopped_keeps_no_other_from_it(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws.budgets(budget_of(ECO_TAG, "700", "900"), budget_of(BIG_TAG, "1000.5", "3000"))
    aws.head_node("i-0aa")
    refuse_to_send(aws)
    aws.fleet("RUNNING")
    aws.answer("dynamodb", "update_item", {})
    aws.answer("sns", "publish", {"MessageId": "1"})
    with pytest.raises(NotStoppedError, match="ws-eco: Systems Manager does not reach"):
        hourly(aws, monkeypatch)


@pytest.mark.parametrize("script", sorted(FOLDER.glob("*.sh")), ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    shellcheck = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run([shellcheck, script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def set_queues(
    folder: Path, state: str, path: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the document's script as Systems Manager does: the parameter is put into its text."""
    script = folder / f"{state}.sh"
    text = (FOLDER / "set_queues.sh").read_text(encoding="utf-8")
    assert text.count("{{ State }}") == 1
    script.write_text(text.replace("{{ State }}", state), encoding="utf-8")
    return subprocess.run(
        ["bash", script],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": path, **environment},
    )


def write_program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("state", "says", "calls"),
    [
        (
            "DOWN",
            ["eco: UP, now DOWN", "spot: stays DOWN", "old: stays INACTIVE"],
            ["update PartitionName=eco State=DOWN"],
        ),
        (
            "UP",
            ["eco: stays UP", "spot: DOWN, now UP", "old: stays INACTIVE"],
            ["update PartitionName=spot State=UP"],
        ),
    ],
)
def test_a_queue_is_changed_once_and_one_of_a_stopped_fleet_is_left_alone(
    tmp_path: Path, state: str, says: list[str], calls: list[str]
) -> None:
    lines = "\n".join(
        f"PartitionName={name} AllowGroups=ALL AllocNodes=ALL Default=NO State={now} TotalCPUs=8"
        for name, now in (("eco", "UP"), ("spot", "DOWN"), ("old", "INACTIVE"))
    )
    write_program(
        tmp_path / "bin",
        "scontrol",
        f'if [[ $1 == update ]]; then echo "$@" >>"{tmp_path}/calls"; else echo "{lines}"; fi',
    )
    done = set_queues(tmp_path, state, f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == says
    assert (tmp_path / "calls").read_text().splitlines() == calls


def test_a_slurm_that_does_not_answer_is_a_failure(tmp_path: Path) -> None:
    write_program(tmp_path / "bin", "scontrol", "echo no controller >&2; exit 1")
    done = set_queues(tmp_path, "DOWN", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert (done.returncode, done.stderr) == (1, "no controller\n")


@needs_slurm[0]
@needs_slurm[1]
def test_running_jobs_go_on_and_no_other_starts_until_the_queues_are_up_again(
    tmp_path: Path,
) -> None:
    options = Options(boot_seconds=0.5, idle_seconds=60)
    with SlurmCluster.start(write_cluster(tmp_path, "tiny"), tmp_path / "state", options) as slurm:

        def submit() -> str:
            output = f"--output={tmp_path}/job-%j.out"
            return slurm.door.submit("sleep 600", "--partition=eco", output, folder=tmp_path)

        def state(job: str) -> tuple[str, str]:
            (found,) = slurm.door.fetch_queue("--jobs", job)
            return found.state, found.reason

        def set_to(wanted: str) -> list[str]:
            conf = slurm.environment["SLURM_CONF"]
            done = set_queues(tmp_path, wanted, slurm.environment["PATH"], SLURM_CONF=conf)
            assert (done.returncode, done.stderr) == (0, "")
            return sorted(done.stdout.splitlines())

        running = submit()
        wait_for("the first job runs", lambda: state(running)[0] == "RUNNING")
        assert set_to("DOWN") == ["eco: UP, now DOWN", "spot: UP, now DOWN"]
        # ReconfigFlags=KeepPartState, as ParallelCluster sets it.
        subprocess.run(["scontrol", "reconfigure"], env=slurm.environment, check=True)
        assert set_to("DOWN") == ["eco: stays DOWN", "spot: stays DOWN"]
        # The node has room and submitting is not refused, but nothing starts.
        late = submit()
        wait_for("the late job waits", lambda: state(late) == ("PENDING", "PartitionDown"))
        assert state(running)[0] == "RUNNING"
        assert set_to("UP") == ["eco: DOWN, now UP", "spot: DOWN, now UP"]
        wait_for("the late job runs", lambda: state(late)[0] == "RUNNING")


TOTAL = {"name": "all", "items": 2, "now": "152.977", "if_running": "160", "unpriced": 1}
NOTHING_KNOWN = {"name": "(none)", "items": 1, "now": None, "if_running": None, "unpriced": 1}
DAY: dict[str, Any] = {
    "format": FORMAT,
    "partial": False,
    "total": TOTAL,
    "totals": {key: [TOTAL, NOTHING_KNOWN] for key in GROUPS},
    "gaps": [],
}


def test_the_summary_says_what_has_no_price_and_what_has_no_tag() -> None:
    lines = render_summary(DAY).splitlines()
    assert "PARTIAL" not in "\n".join(lines)
    assert lines[1] == "        152.98  all (2 items, 1 without a price)"
    assert "by environment" in lines
    assert "    not priced  (none) (1 items, 1 without a price)" in lines


def test_a_partial_day_names_what_was_not_read() -> None:
    gap = {"call": "ec2:DescribeImages", "region": "us-west-2", "reason": "denied"}
    text = render_summary(DAY | {"partial": True, "gaps": [gap | {"message": "not allowed"}]})
    assert "PARTIAL" in text
    assert text.endswith("  ec2:DescribeImages in us-west-2: denied: not allowed\n")


class Build:
    """A folder in which the report's script runs, with stand-ins for pip, the command and aws."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder / "calls"
        code = folder / "archive" / "stacks" / "cost_functions"
        code.mkdir(parents=True)
        for name in ("report.sh", "summary.py"):
            (code / name).write_text((FOLDER / name).read_text(encoding="utf-8"), encoding="utf-8")
        (folder / "day.json").write_text(json.dumps(DAY), encoding="utf-8")
        log = f'echo "$(basename "$0") $*" >>{self.calls}\n'
        write_program(folder / "bin", "aws", log + f"[[ ! -e {folder}/no-aws-$1 ]]")
        write_program(
            folder / "bin",
            "python",
            log
            + f"""
case "$*" in
  *summary.py*) exec {sys.executable} "$@" ;;
  *"costs report"*)
    if [[ ! -e {folder}/no-report ]]; then
      while [[ $1 != --output ]]; do shift; done
      echo page >"$2"; cp {folder}/day.json "$(dirname "$2")/history/2026-03-02.json"
    fi
    [[ ! -e {folder}/no-report && ! -e {folder}/gaps ]] ;;
esac""",
        )
        write_program(
            folder / "bin",
            "python3",
            log + f'mkdir -p "${{@: -1}}/bin"; cp {folder}/bin/python "${{@: -1}}/bin/python"',
        )

    def run(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "stacks/cost_functions/report.sh"],
            cwd=self.folder / "archive",
            capture_output=True,
            text=True,
            check=False,
            env={
                "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
                "CLUSTERBOX_WORK": str(self.folder / "work"),
                "CLUSTERBOX_ENVIRONMENT": "ws-dev",
                "CLUSTERBOX_ACCOUNT": "427491229895",
                "CLUSTERBOX_REPORTS": "s3://logs/costs/ws-dev",
                "CLUSTERBOX_ALARMS": ALARMS,
                "AWS_REGION": "us-west-2",
            },
        )

    def aws(self) -> list[str]:
        lines = self.calls.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line.startswith("aws ")]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    return Build(tmp_path)


def test_the_report_is_kept_and_told(build: Build) -> None:
    done = build.run()
    assert done.returncode == 0, done.stderr
    work = build.folder / "work"
    assert build.aws() == [
        f"aws s3 sync --only-show-errors s3://logs/costs/ws-dev/history {work}/history",
        f"aws s3 sync --only-show-errors {work}/history s3://logs/costs/ws-dev/history",
        f"aws s3 cp --only-show-errors {work}/report.html s3://logs/costs/ws-dev/2026-03-02.html",
        f"aws sns publish --topic-arn {ALARMS} --message file://{work}/message "
        "--subject [ws-dev] costs of 2026-03-02",
    ]
    message = (work / "message").read_text(encoding="utf-8")
    assert "152.98  all" in message
    assert message.endswith("aws s3 cp s3://logs/costs/ws-dev/2026-03-02.html .\n")
    installed = [line for line in build.calls.read_text().splitlines() if " pip " in line]
    assert "--require-hashes --only-binary :all: -r requirements.txt" in installed[0]


def test_the_mail_is_read_as_utf_8_whatever_the_locale_is(build: Build) -> None:
    write_program(
        build.folder / "bin", "aws", f'echo "$1 $AWS_CLI_FILE_ENCODING" >>{build.folder}/encodings'
    )
    assert build.run().returncode == 0
    assert "sns UTF-8" in (build.folder / "encodings").read_text(encoding="utf-8")


def test_a_partial_report_is_kept_and_called_partial(build: Build) -> None:
    (build.folder / "gaps").touch()
    assert build.run().returncode == 0
    assert build.aws()[-1].endswith("--subject [ws-dev] partial costs of 2026-03-02")


@pytest.mark.parametrize("missing", ["no-report", "no-aws-s3", "no-aws-sns"])
def test_a_report_that_was_not_made_or_not_told_fails_the_build(build: Build, missing: str) -> None:
    (build.folder / missing).touch()
    assert build.run().returncode != 0


def test_a_page_of_yesterday_is_not_taken_for_one_of_today(build: Build) -> None:
    assert build.run().returncode == 0
    (build.folder / "no-report").touch()
    assert build.run().returncode != 0
    assert len([line for line in build.aws() if "sns publish" in line]) == 1
