"""Run Command and the machines behind instances, and what happens to instances after their launch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clusterbox.embedded.account import EmbeddedAccount

IMAGE = "ami-0c2023a1b2c3d4e5f"
_OVER = ("Success", "Failed", "TimedOut", "Cancelled")


class Instance:
    """An instance that Systems Manager reaches."""

    def __init__(self, account: EmbeddedAccount, **asked: Any) -> None:
        self.account = account
        self.ec2, self.ssm = account.client("ec2"), account.client("ssm")
        made = self.ec2.run_instances(
            ImageId=IMAGE, InstanceType="t3.medium", MinCount=1, MaxCount=1, **asked
        )
        self.id: str = made["Instances"][0]["InstanceId"]

    def ping(self) -> str:
        """Return what DescribeInstanceInformation says; empty for an instance it does not know."""
        found = self.ssm.describe_instance_information(
            Filters=[{"Key": "InstanceIds", "Values": [self.id]}]
        )["InstanceInformationList"]
        return str(found[0]["PingStatus"]) if found else ""

    def wait_until_online(self) -> Instance:
        """Return itself once the agent answers."""
        end = time.monotonic() + 30
        while self.ping() != "Online":
            assert time.monotonic() < end
            time.sleep(0.05)
        return self

    def send(self, script: str, **asked: Any) -> str:
        """Send a script and return the command's id."""
        parameters = {"commands": [script], **asked.pop("parameters", {})}
        sent = self.ssm.send_command(
            InstanceIds=[self.id],
            DocumentName="AWS-RunShellScript",
            Parameters=parameters,
            **asked,
        )["Command"]
        assert sent["Status"] == "Pending"
        return str(sent["CommandId"])

    def wait_for(self, command: str, *states: str) -> dict[str, Any]:
        """Return the invocation once it has one of the states."""
        end = time.monotonic() + 60
        while True:
            found: dict[str, Any] = self.ssm.get_command_invocation(
                CommandId=command, InstanceId=self.id
            )
            if found["Status"] in states:
                return found
            assert time.monotonic() < end, found
            time.sleep(0.05)

    def run(self, script: str, **asked: Any) -> dict[str, Any]:
        """Run a script to its end."""
        return self.wait_for(self.send(script, **asked), *_OVER)

    def output(self, script: str) -> str:
        """Return what a script prints that succeeds."""
        done = self.run(script)
        assert done["Status"] == "Success", done
        return str(done["StandardOutputContent"])

    def state(self) -> dict[str, Any]:
        """Return EC2's description."""
        found = self.ec2.describe_instances(InstanceIds=[self.id])
        instance: dict[str, Any] = found["Reservations"][0]["Instances"][0]
        return instance


@pytest.fixture(scope="module")
def profile(account: EmbeddedAccount) -> dict[str, str]:
    """Return an instance profile, without which there is no agent."""
    account.client("iam").create_instance_profile(InstanceProfileName="run-command")
    return {"Name": "run-command"}


@pytest.fixture(scope="module")
def instance(account: EmbeddedAccount, profile: dict[str, str]) -> Iterator[Instance]:
    """Return an instance that tests only ask."""
    made = Instance(account, IamInstanceProfile=profile).wait_until_online()
    yield made
    made.ec2.terminate_instances(InstanceIds=[made.id])


def error_code(call: Any, **asked: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**asked)
    return str(caught.value.response["Error"]["Code"])


def test_a_script_runs_for_real_and_its_exit_code_and_output_come_back(instance: Instance) -> None:
    done = instance.run("for i in 1 2; do echo $((i * 21)); done; echo told >&2; exit 7")
    assert (done["Status"], done["StatusDetails"]) == ("Failed", "Failed")
    assert done["ResponseCode"] == 7
    assert done["StandardOutputContent"] == "21\n42\n"
    assert done["StandardErrorContent"] == "told\n"


def test_output_is_cut_where_systems_manager_cuts_it(instance: Instance) -> None:
    done = instance.run("printf 'x%.0s' {1..30000}; printf 'y%.0s' {1..9000} >&2")
    assert len(done["StandardOutputContent"]) == 24_000
    assert len(done["StandardErrorContent"]) == 8_000


def test_a_script_that_takes_too_long_is_ended_with_what_it_started(instance: Instance) -> None:
    done = instance.run(
        "echo begun; bash -c 'sleep 987654'", parameters={"executionTimeout": ["1"]}
    )
    assert (done["Status"], done["StatusDetails"]) == ("TimedOut", "ExecutionTimedOut")
    assert done["StandardOutputContent"] == "begun\n"
    # -f looks at whole command lines; the bracket keeps it from finding itself.
    assert instance.run("pgrep -f 'sleep 98765[4]'")["ResponseCode"] == 1


def test_a_command_is_cancelled_while_it_runs(instance: Instance) -> None:
    command = instance.send("sleep 600")
    instance.wait_for(command, "InProgress")
    instance.ssm.cancel_command(CommandId=command)
    assert instance.wait_for(command, *_OVER)["Status"] == "Cancelled"
    [listed] = instance.ssm.list_command_invocations(CommandId=command)["CommandInvocations"]
    assert (listed["InstanceId"], listed["Status"]) == (instance.id, "Cancelled")
    [record] = instance.ssm.list_commands(CommandId=command)["Commands"]
    assert record["Status"] == "Cancelled"
    unknown = "00000000-0000-0000-0000-000000000000"
    assert error_code(instance.ssm.cancel_command, CommandId=unknown) == "InvalidCommandId"


def test_programs_answer_for_the_image_and_not_for_this_machine(instance: Instance) -> None:
    state = instance.account.machine(instance.id)["state"]
    kernel, openssl = state["running"], state["packages"]["openssl"]
    script = "uname -r; /usr/bin/uname -r; rpm -q openssl; rpm -q nothing; systemctl is-active sshd"
    assert instance.output(f"{script}; . /etc/os-release; echo $ID").splitlines() == [
        kernel,
        kernel,
        f"openssl-{openssl}.x86_64",
        "package nothing is not installed",
        "active",
        "amzn",
    ]


def test_what_a_program_does_not_know_is_refused(instance: Instance) -> None:
    assert instance.run("dnf frobnicate")["ResponseCode"] == 64
    assert instance.run("rpm --erase bash")["ResponseCode"] == 64


def test_a_machine_has_files_of_its_own_and_cannot_change_those_of_this_one(
    instance: Instance,
) -> None:
    assert instance.output("mkdir -p /opt/own && echo kept >/opt/own/file") == ""
    assert instance.output("cat /opt/own/file") == "kept\n"
    assert instance.run("echo x >>/etc/passwd")["Status"] == "Failed"
    assert instance.run("touch /usr/bin/new")["Status"] == "Failed"


def test_the_checks_of_an_image_say_that_it_is_sound(instance: Instance) -> None:
    lines = instance.output("/opt/clusterbox/image/verify/run.sh packages kernel").splitlines()
    assert ['"packages", "ok": true' in lines[0], '"kernel", "ok": true' in lines[1]] == [
        True,
        True,
    ]
    assert instance.run("/opt/clusterbox/image/verify/run.sh nothing")["ResponseCode"] == 2


def test_the_aws_command_reaches_the_account(instance: Instance) -> None:
    instance.account.client("s3").create_bucket(
        Bucket="run-command", CreateBucketConfiguration={"LocationConstraint": "us-west-2"}
    )
    script = (
        "aws sts get-caller-identity --query Account --output text\n"
        "echo hello | aws s3 cp --only-show-errors - s3://run-command/a/b\n"
        "aws s3 cp --only-show-errors s3://run-command/a/b -\n"
        "aws s3api head-bucket --bucket absent"
    )
    done = instance.run(script)
    assert done["StandardOutputContent"] == f"{instance.account.account}\nhello\n"
    assert done["ResponseCode"] == 254


def test_an_upgrade_and_a_reboot_bring_the_new_kernel(
    account: EmbeddedAccount, profile: dict[str, str]
) -> None:
    one = Instance(account, IamInstanceProfile=profile).wait_until_online()
    boot = "cat /proc/sys/kernel/random/boot_id; uname -r"
    first_boot, old = one.output(boot).split()
    # An image of another day has newer packages.
    assert one.run("dnf check-update")["ResponseCode"] == 100
    assert one.output("dnf upgrade --assumeyes --quiet; uname -r") == f"{old}\n"
    assert one.run("needs-restarting -r")["ResponseCode"] == 1
    one.ec2.reboot_instances(InstanceIds=[one.id])
    # It is delivered once the agent is back.
    second_boot, new = one.output(boot).split()
    assert first_boot != second_boot
    assert old != new
    assert one.run("dnf check-update; needs-restarting -r")["ResponseCode"] == 0


def test_what_is_planned_for_a_reboot_goes_wrong(
    account: EmbeddedAccount, profile: dict[str, str]
) -> None:
    one = Instance(account, IamInstanceProfile=profile).wait_until_online()
    account.machine(one.id, at_reboot={"modules": ["ena"], "units": ["sshd.service"]})
    assert "ena" in one.output("lsmod")
    assert one.output("reboot; echo asked") == "asked\n"
    assert "ena" not in one.output("lsmod")
    assert one.run("systemctl is-active sshd")["StandardOutputContent"] == "inactive\n"
    account.machine(one.id, at_reboot={"stays_away": True})
    one.ec2.reboot_instances(InstanceIds=[one.id])
    assert one.ping() == "ConnectionLost"


def test_an_instance_is_reachable_while_it_runs_and_has_a_profile(
    account: EmbeddedAccount, profile: dict[str, str], instance: Instance
) -> None:
    bare = Instance(account)
    one = Instance(account, IamInstanceProfile=profile).wait_until_online()
    assert bare.ping() == ""
    one.ec2.stop_instances(InstanceIds=[one.id])
    assert one.ping() == "ConnectionLost"
    send = {"DocumentName": "AWS-RunShellScript", "Parameters": {"commands": ["true"]}}
    for wrong in (bare.id, one.id, "i-00000000000000000"):
        asked = {**send, "InstanceIds": [instance.id, wrong]}
        assert error_code(one.ssm.send_command, **asked) == "InvalidInstanceId"
    one.ec2.start_instances(InstanceIds=[one.id])
    assert one.wait_until_online().output("echo back") == "back\n"
    one.ec2.terminate_instances(InstanceIds=[one.id])
    assert one.ping() == ""
    asked = {**send, "InstanceIds": [one.id]}
    assert error_code(one.ssm.send_command, **asked) == "InvalidInstanceId"


def test_a_type_is_changed_while_the_instance_is_stopped(
    account: EmbeddedAccount, profile: dict[str, str]
) -> None:
    one = Instance(account, IamInstanceProfile=profile)
    change = {"InstanceId": one.id, "InstanceType": {"Value": "t3.large"}}
    assert error_code(one.ec2.modify_instance_attribute, **change) == "IncorrectInstanceState"
    one.ec2.stop_instances(InstanceIds=[one.id])
    one.ec2.modify_instance_attribute(**change)
    one.ec2.start_instances(InstanceIds=[one.id])
    assert one.state()["InstanceType"] == "t3.large"


def test_a_power_off_from_within_ends_an_instance_that_was_launched_so(
    account: EmbeddedAccount, profile: dict[str, str]
) -> None:
    one = Instance(
        account, IamInstanceProfile=profile, InstanceInitiatedShutdownBehavior="terminate"
    ).wait_until_online()
    volume = one.state()["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    assert one.run("poweroff")["Status"] == "Success"
    assert one.state()["State"]["Name"] == "terminated"
    missing = error_code(one.ec2.describe_volumes, VolumeIds=[volume])
    assert missing == "InvalidVolume.NotFound"


def test_a_snapshot_is_pending_and_then_completed(instance: Instance) -> None:
    volume = instance.state()["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    made = instance.ec2.create_snapshot(VolumeId=volume)
    assert made["State"] == "pending"
    ids = [made["SnapshotId"]]
    instance.ec2.get_waiter("snapshot_completed").wait(
        SnapshotIds=ids, WaiterConfig={"Delay": 1, "MaxAttempts": 20}
    )
    instance.ec2.delete_snapshot(SnapshotId=made["SnapshotId"])


def test_a_spot_instance_carries_its_mark_and_cannot_be_stopped(
    account: EmbeddedAccount,
) -> None:
    spot = Instance(account, InstanceMarketOptions={"MarketType": "spot"})
    assert spot.state()["InstanceLifecycle"] == "spot"
    refused = error_code(spot.ec2.stop_instances, InstanceIds=[spot.id])
    assert refused == "UnsupportedOperation"
    spot.ec2.terminate_instances(InstanceIds=[spot.id])


def test_a_document_of_the_account_runs_with_its_parameters(instance: Instance) -> None:
    content = (
        '{"schemaVersion": "2.2", "description": "d", "parameters": {"who": {"type": "String"}},'
        ' "mainSteps": [{"action": "aws:runShellScript", "name": "s",'
        ' "inputs": {"runCommand": ["echo hello {{ who }}"]}}]}'
    )
    template = {
        "Resources": {
            "D": {
                "Type": "AWS::SSM::Document",
                "Properties": {"Name": "greet", "Content": content, "DocumentType": "Command"},
            }
        }
    }
    import json

    stacks = instance.account.client("cloudformation")
    stacks.create_stack(StackName="greet", TemplateBody=json.dumps(template))
    stacks.get_waiter("stack_create_complete").wait(
        StackName="greet", WaiterConfig={"Delay": 1, "MaxAttempts": 30}
    )
    sent = instance.ssm.send_command(
        InstanceIds=[instance.id], DocumentName="greet", Parameters={"who": ["you"]}
    )["Command"]
    done = instance.wait_for(sent["CommandId"], *_OVER)
    assert (done["Status"], done["StandardOutputContent"]) == ("Success", "hello you\n")
