"""Machines of a patch day: where they stand, and the one that is started to verify an image."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from clusterbox.images.components import BuildPlace
from clusterbox.images.context import Context, StepFailedError
from clusterbox.images.failures import (
    as_failure,
    call_errors,
    code_of,
    render_explanations,
    steadily,
)
from clusterbox.images.plan import Step
from clusterbox.site import names
from clusterbox.site.environment import Environment
from clusterbox.site.image_definitions import ImageDefinition

LIFETIME_MINUTES = 120
ONLINE_SECONDS = 900.0
_POLL_SECONDS = 5.0
# Instances of EC2 that will never run again.
_ENDED = ("shutting-down", "terminated", "stopping", "stopped")
# Machines that ended so soon that their client token would give them again; more is a fault.
_MOST_ATTEMPTS = 10
# The machine ends itself where nobody does: a forgotten one costs two hours.
_USER_DATA = f"""\
#!/bin/bash
shutdown --poweroff +{LIFETIME_MINUTES} "this machine only verifies an image"
"""


@dataclass(frozen=True)
class Verifier:
    """The machine that a step of verification uses."""

    instance: str
    # Whether it was there already, from a call that was killed.
    taken_over: bool


def find_place(context: Context, definition: ImageDefinition) -> BuildPlace:
    """Return where machines of the site that serve no cluster stand: subnet and security group.

    It is the subnet of the admin box, or the first one where there is no box, and the group of images,
    which lets nobody in and has a way out to HTTPS alone. Raises StepFailedError where the site has
    not been deployed.
    """
    return steadily(context, "finding subnet and group", lambda: _find_place(context, definition))


def _find_place(context: Context, definition: ImageDefinition) -> BuildPlace:
    environment, ec2 = context.environment, context.client("ec2")
    network = environment.network
    box = environment.admin_box
    name = box.subnet if box is not None else network.subnet_names[0]
    subnet = network.subnet(name).id
    if subnet is None:
        found = ec2.describe_subnets(Filters=_named(environment, name))["Subnets"]
        subnet = _only(environment, f"subnet {name}", [each["SubnetId"] for each in found])
    groups = ec2.describe_security_groups(Filters=_named(environment, "images"))["SecurityGroups"]
    group = _only(environment, "security group of images", [g["GroupId"] for g in groups])
    key = None
    if definition.launch_accounts:
        alias = f"alias/clusterbox/{environment.name}"
        key = context.client("kms").describe_key(KeyId=alias)["KeyMetadata"]["Arn"]
    return BuildPlace(subnet_id=subnet, security_group_ids=(group,), kms_key_id=key)


def _named(environment: Environment, name: str) -> list[dict[str, Any]]:
    return [
        {"Name": f"tag:{names.TAG_ENVIRONMENT}", "Values": [environment.name]},
        {"Name": "tag:Name", "Values": [f"{environment.name}-{name}"]},
    ]


def _only(environment: Environment, what: str, found: list[str]) -> str:
    if len(found) != 1:
        many = f"there are {len(found)}: {', '.join(found)}" if found else "there is none"
        raise StepFailedError(
            f"the {what} of {environment.name}: {many}; deploy the environment first "
            f"(`clusterbox deploy {environment.name}`)"
        )
    return found[0]


@contextmanager
def running_machine(
    context: Context, step: Step, definition: ImageDefinition, ami: str
) -> Iterator[Verifier]:
    """Start a machine from an AMI, wait until Systems Manager reaches it, and end it afterwards.

    A machine that a killed call of the same step started is taken over; those of earlier runs are
    ended. It ends however the block is left, and by itself after two hours. Raises StepFailedError
    where it does not start or is not reached.
    """
    instance = ""
    try:
        found = _clear(context, step, ami)
        instance = found or _start(context, step, definition, ami)
        _wait_until_online(context, instance)
        yield Verifier(instance, found is not None)
    except call_errors() as error:
        raise as_failure(f"verifying {ami}", error) from error
    finally:
        if instance:
            _end(context, [instance])


def purpose_of(context: Context, step: Step) -> str:
    """Return what a step's machine is tagged with: a second call finds what the first one started."""
    return f"{context.plan.run}/{step.id}"


def _clear(context: Context, step: Step, ami: str) -> str | None:
    """End machines of other runs and all but one of this step; return that one."""
    wanted: list[str] = []
    others: list[str] = []
    for instance in _fetch_machines(context):
        purpose = _tag(instance, names.TAG_VERIFIES)
        if purpose == purpose_of(context, step) and instance["ImageId"] == ami:
            wanted.append(instance["InstanceId"])
        elif purpose == purpose_of(context, step) or not purpose.startswith(f"{context.plan.run}/"):
            # Only one run at a time holds the environment's lease, so nobody uses these.
            others.append(instance["InstanceId"])
    if doomed := [*sorted(wanted)[1:], *others]:
        context.progress.note(f"ends machines that earlier calls left: {', '.join(doomed)}")
        context.note("ended", machines=doomed, reason="left by a call that was cut off")
        _end(context, doomed)
    return min(wanted, default=None)


def _fetch_machines(context: Context) -> list[dict[str, Any]]:
    environment = context.environment
    filters = [
        {"Name": f"tag:{names.TAG_ENVIRONMENT}", "Values": [environment.name]},
        {"Name": "tag-key", "Values": [names.TAG_VERIFIES]},
        {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]},
    ]

    def ask() -> list[dict[str, Any]]:
        pages = context.client("ec2").get_paginator("describe_instances").paginate(Filters=filters)
        return [
            instance
            for page in pages
            for reservation in page["Reservations"]
            for instance in reservation["Instances"]
        ]

    return [
        instance
        for instance in steadily(context, "looking for machines", ask)
        if instance["State"]["Name"] not in _ENDED[:2]
    ]


def _start(context: Context, step: Step, definition: ImageDefinition, ami: str) -> str:
    request = _request(context, step, definition, ami)
    for attempt in range(_MOST_ATTEMPTS):
        # The same token gives the same machine: a call that was killed before it learned the id of
        # its machine makes no second one (EC2 API reference, "Ensuring idempotency").
        text = f"{context.environment.name}/{purpose_of(context, step)}/{ami}/{attempt}"
        token = hashlib.sha256(text.encode()).hexdigest()
        answer = _run(context, {**request, "ClientToken": token})
        if answer is not None and answer["State"]["Name"] not in _ENDED:
            instance = str(answer["InstanceId"])
            context.progress.note(f"started {instance} from {ami}")
            context.note("started machine", machine=instance, ami=ami)
            return instance
    raise StepFailedError(f"EC2 gives only machines of {ami} that have ended; run again in a day")


def _run(context: Context, request: dict[str, Any]) -> dict[str, Any] | None:
    """Return the instance of a request; None where its token was used for another request."""
    ec2 = context.client("ec2")
    try:
        answer = steadily(context, "starting a machine", lambda: ec2.run_instances(**request))
    except call_errors() as error:
        if code_of(error) == "IdempotentParameterMismatch":
            return None
        doing = f"a machine of {request['ImageId']} does not start"
        if "IAM Instance Profile" in str(error):
            profile = request["IamInstanceProfile"]["Name"]
            raise StepFailedError(
                f"{doing}: {error}; the profile {profile} comes with the stack "
                f"{names.stack_name(context.environment, 'images')}: deploy the environment first"
            ) from error
        raise as_failure(doing, error) from error
    started: dict[str, Any] = answer["Instances"][0]
    return started


def _request(context: Context, step: Step, definition: ImageDefinition, ami: str) -> dict[str, Any]:
    environment = context.environment
    place = find_place(context, definition)
    tags = {
        **environment.tags.model_dump(),
        names.TAG_ENVIRONMENT: environment.name,
        names.TAG_VERIFIES: purpose_of(context, step),
        "Name": f"{environment.name}-verify-{definition.name}",
    }
    tagged = [{"Key": key, "Value": value} for key, value in sorted(tags.items())]
    return {
        "ImageId": ami,
        "InstanceType": definition.build_instance_type,
        "MinCount": 1,
        "MaxCount": 1,
        "SubnetId": place.subnet_id,
        "SecurityGroupIds": list(place.security_group_ids),
        "IamInstanceProfile": {"Name": names.role_name(environment, names.IMAGE_VERIFY)},
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        "BlockDeviceMappings": [
            {
                "DeviceName": _root_device(context, ami),
                "Ebs": {"Encrypted": True, "DeleteOnTermination": True, "VolumeType": "gp3"},
            }
        ],
        "InstanceInitiatedShutdownBehavior": "terminate",
        "UserData": _USER_DATA,
        "TagSpecifications": [
            {"ResourceType": kind, "Tags": tagged} for kind in ("instance", "volume")
        ],
    }


def _root_device(context: Context, ami: str) -> str:
    ec2 = context.client("ec2")
    try:
        images = steadily(
            context, "looking at the image", lambda: ec2.describe_images(ImageIds=[ami])["Images"]
        )
    except call_errors() as error:
        if code_of(error).startswith("InvalidAMIID"):
            images = []
        else:
            raise
    if not images:
        raise StepFailedError(f"the image {ami} is gone from the account; bake it again")
    return str(images[0].get("RootDeviceName") or "/dev/xvda")


def _wait_until_online(context: Context, instance: str) -> None:
    """Return when the SSM agent of a machine has reported."""
    ssm = context.client("ssm")
    filters = [{"Key": "InstanceIds", "Values": [instance]}]
    start = context.clock.now()
    while True:
        listed = steadily(
            context,
            "asking Systems Manager",
            lambda: ssm.describe_instance_information(Filters=filters)["InstanceInformationList"],
        )
        if any(entry.get("PingStatus") == "Online" for entry in listed):
            return
        _check_alive(context, instance)
        waited = (context.clock.now() - start).total_seconds()
        if waited > ONLINE_SECONDS:
            known = render_explanations(["SSM Agent verification failed"])
            raise StepFailedError(
                f"{instance} runs, but Systems Manager did not reach it in {waited / 60:.0f} "
                f"minutes\n{known}"
            )
        context.wait(_POLL_SECONDS)


def _check_alive(context: Context, instance: str) -> None:
    ec2 = context.client("ec2")
    try:
        answer = steadily(
            context, "looking at it", lambda: ec2.describe_instances(InstanceIds=[instance])
        )
    except call_errors() as error:
        if code_of(error) == "InvalidInstanceID.NotFound":
            return  # EC2 lists it a moment later.
        raise
    found = [each for entry in answer["Reservations"] for each in entry["Instances"]]
    if found and found[0]["State"]["Name"] in _ENDED:
        reason = found[0].get("StateReason", {})
        text = f"{reason.get('Message') or reason.get('Code') or 'no reason is given'}"
        known = render_explanations([text, str(reason.get("Code", ""))])
        raise StepFailedError(
            f"{instance} ended before it was reached ({found[0]['State']['Name']}): {text}"
            + (f"\n{known}" if known else "")
        )


def _end(context: Context, instances: list[str]) -> None:
    """Terminate machines; a refusal is told and no failure, since they end by themselves."""
    ec2 = context.client("ec2")
    for instance in instances:
        try:
            # Not `steadily`: its waiting stops where the run was interrupted, and this is tried then.
            ec2.terminate_instances(InstanceIds=[instance])
        except call_errors() as error:
            if code_of(error) == "InvalidInstanceID.NotFound":
                continue
            context.note("not ended", machine=instance, reason=str(error))
            context.progress.note(
                f"could not end {instance}: {error}; the next verification does, or it ends by "
                f"itself after {LIFETIME_MINUTES} minutes"
            )


def _tag(instance: dict[str, Any], key: str) -> str:
    return next((str(t["Value"]) for t in instance.get("Tags") or () if t["Key"] == key), "")
