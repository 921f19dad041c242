"""The stand-in provider's Lambda function: what CloudFormation asks, ParallelCluster answers.

It keeps to what the official provider does with an event (its properties, its tags, its refusals
and the attributes it answers). ParallelCluster itself cannot be imported here, because its pinned
dependencies and ours exclude each other: ``library.py`` runs in the environment that has it.

Standard library and boto3 only: the template carries this file's text as the function's code.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import boto3

logger = logging.getLogger()
logger.setLevel(logging.INFO)

Event = dict[str, Any]

# The official provider turns every property but these into an argument of the library.
NOT_ARGUMENTS = frozenset({"ServiceToken", "DeletionPolicy"})
DELETION_POLICIES = ("Retain", "Delete")
# The site wrote these itself, and CloudFormation limits the size of a response.
NOT_ANSWERED = frozenset({"clusterConfiguration", "scheduler", "tags"})
# CloudFormation refuses a longer response; a reason is cut so that it arrives at all.
RESPONSE_LIMIT_BYTES = 4096
REASON_LIMIT_CHARACTERS = 3000
MESSAGES_LIMIT_CHARACTERS = 2048
# Below the function's own limit of 900 seconds, so that the reason still reaches CloudFormation.
LIBRARY_TIMEOUT_SECONDS = 870


class RefusedError(Exception):
    """The resource cannot be created, updated or deleted; the text is the stack's reason."""


def handler(event: Event, _context: object) -> None:
    """Serve one event of ``Custom::PclusterCluster`` and answer CloudFormation in every case."""
    logger.info("%s %s", event["RequestType"], event["ResourceProperties"].get("ClusterName"))
    try:
        data = serve(event)
    except RefusedError as refusal:
        respond(event, "FAILED", reason=str(refusal))
    except Exception as failure:
        # Without an answer the stack would wait for an hour; the traceback goes to the log.
        respond(event, "FAILED", reason=f"{type(failure).__name__}: {failure}")
        raise
    else:
        respond(event, "SUCCESS", data=data)


def serve(event: Event) -> dict[str, Any]:
    """Do what the event asks and return the resource's attributes.

    Raises RefusedError with the reason when it cannot be done.
    """
    properties = event["ResourceProperties"]
    check_deletion_policy(properties)
    if event["RequestType"] == "Delete":
        if properties.get("DeletionPolicy", "Delete") == "Retain":
            return {}
        return attributes(run_library("delete", library_arguments(properties, delete=True)))
    if "ClusterName" not in properties:
        raise RefusedError("Couldn't find a ClusterName in the properties.")
    if not isinstance(properties.get("ClusterConfiguration"), dict):
        raise RefusedError("Couldn't find a ClusterConfiguration in the properties.")
    if event["RequestType"] == "Update" and event["PhysicalResourceId"] != cluster_name(event):
        raise RefusedError("Cannot update the ClusterName in the properties.")
    arguments = library_arguments(properties)
    arguments["cluster_configuration"] = with_tags(
        properties["ClusterConfiguration"], stack_tags(event["StackId"])
    )
    return attributes(run_library(event["RequestType"].lower(), arguments))


def cluster_name(event: Event) -> str:
    """Return the cluster's name, which is also the resource's physical id."""
    return str(event["ResourceProperties"].get("ClusterName"))


def check_deletion_policy(properties: dict[str, Any]) -> None:
    """Raise RefusedError unless the resource's own DeletionPolicy is one of the two."""
    if properties.get("DeletionPolicy", "Delete") not in DELETION_POLICIES:
        raise RefusedError(f"DeletionPolicy must be one of {json.dumps(DELETION_POLICIES)}.")


def library_arguments(properties: dict[str, Any], *, delete: bool = False) -> dict[str, Any]:
    """Return the library's arguments: the properties, named as Python names them.

    A property that the library does not know becomes an argument that it does not know, and the
    library refuses it: that is how the official provider treats one.
    """
    if delete:
        return {"cluster_name": properties.get("ClusterName", "")}
    return {snake_case(k): v for k, v in properties.items() if k not in NOT_ARGUMENTS}


def snake_case(name: str) -> str:
    """Return ``ClusterName`` as ``cluster_name``."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


def stack_tags(stack_id: str) -> list[dict[str, str]]:
    """Fetch the tags of the stack that holds the resource, without those AWS gives."""
    stack = boto3.client("cloudformation").describe_stacks(StackName=stack_id)["Stacks"][0]
    return [
        {"Key": tag["Key"], "Value": tag["Value"]}
        for tag in stack.get("Tags", [])
        if not tag["Key"].startswith("aws:")
    ]


def with_tags(configuration: dict[str, Any], tags: list[dict[str, str]]) -> dict[str, Any]:
    """Return the configuration with the stack's tags before its own and the provider's behind.

    A tag of the configuration wins over the stack's tag with the same key.
    """
    own = configuration.get("Tags") or []
    keys = {tag["Key"] for tag in own}
    mark = {"Key": "parallelcluster:custom_resource", "Value": "cluster"}
    return {
        **configuration,
        "Tags": [*(tag for tag in tags if tag["Key"] not in keys), *own, mark],
    }


def attributes(answer: dict[str, Any]) -> dict[str, Any]:
    """Return what ``Fn::GetAtt`` answers: the described cluster with dots for its levels."""
    messages = json.dumps(answer.get("validationMessages") or [])
    if len(messages) > MESSAGES_LIMIT_CHARACTERS:
        messages = "TRUNCATED:" + messages[:MESSAGES_LIMIT_CHARACTERS]
    cluster = {k: v for k, v in (answer.get("cluster") or {}).items() if k not in NOT_ANSWERED}
    return {**flatten(cluster), "validationMessages": messages}


def flatten(value: Any, path: str = "") -> dict[str, Any]:
    """Return a nested value as one level, list positions included: ``failures.0.failureCode``."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {path: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= flatten(inner, f"{path}.{key}" if path else str(key))
    return flat


def run_library(operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Run ParallelCluster's operation to its end in the environment that has it.

    Returns ``{"cluster": ..., "validationMessages": ...}``. Raises RefusedError with the
    library's own reason when it refuses or fails, or when that environment is missing.
    """
    python = os.environ.get("CLUSTERBOX_PCLUSTER_PYTHON", "")
    if not Path(python).is_file():
        raise RefusedError(
            "ParallelCluster's environment is missing: start the embedded account with "
            "CLUSTERBOX_PCLUSTER_PYTHON set to its interpreter "
            f"(found: {python or 'nothing'}); `make setup` creates it in .venv-pcluster"
        )
    request = {"operation": operation, "arguments": arguments}
    with tempfile.TemporaryDirectory(prefix="pcluster-") as directory:
        script = Path(directory) / "library.py"
        script.write_text(fetch_library(), encoding="utf-8")
        done = subprocess.run(
            [python, str(script)],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            check=False,
            timeout=LIBRARY_TIMEOUT_SECONDS,
            env=library_environment(),
            cwd=directory,
        )
    logger.info("%s", done.stderr)
    if done.returncode != 0:
        raise RefusedError(f"ParallelCluster ended with {done.returncode}: {done.stderr[-1500:]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    if "refused" in answer:
        raise RefusedError(str(answer["refused"]))
    return answer


def fetch_library() -> str:
    """Fetch the text of ``library.py`` from where the template says it is published."""
    answer = boto3.client("s3").get_object(
        Bucket=os.environ["LIBRARY_BUCKET"], Key=os.environ["LIBRARY_KEY"]
    )
    text: bytes = answer["Body"].read()
    return text.decode()


def library_environment() -> dict[str, str]:
    """Return the environment of the second interpreter: this one, with Node for its CDK."""
    environment = dict(os.environ)
    # Both belong to the interpreter that runs this function.
    for name in ("PYTHONPATH", "VIRTUAL_ENV"):
        environment.pop(name, None)
    # With a host name, botocore puts the bucket's name in front of it, and a resolver without
    # wildcards for localhost does not know the result; an address keeps it in the path.
    endpoint = environment.get("AWS_ENDPOINT_URL", "")
    environment["AWS_ENDPOINT_URL"] = endpoint.replace("//localhost:", "//127.0.0.1:")
    beside = Path(sys.executable).parent
    environment["PATH"] = os.pathsep.join([str(beside), environment.get("PATH", os.defpath)])
    if "JSII_NODE" not in environment and not shutil.which("node", path=environment["PATH"]):
        raise RefusedError(
            "ParallelCluster's CDK needs Node: put `node` on the PATH of the embedded account's "
            "process or name it in JSII_NODE"
        )
    return environment


def respond(
    event: Event, status: str, *, data: dict[str, Any] | None = None, reason: str = ""
) -> None:
    """Answer CloudFormation, as FAILED when the answer is longer than it accepts."""
    known = event.get("PhysicalResourceId") or cluster_name(event)
    answer = {
        "Status": status,
        "Reason": reason[:REASON_LIMIT_CHARACTERS],
        "PhysicalResourceId": known,
        "StackId": event["StackId"],
        "RequestId": event["RequestId"],
        "LogicalResourceId": event["LogicalResourceId"],
        "Data": data or {},
    }
    body = json.dumps(answer).encode()
    if status == "SUCCESS" and len(body) > RESPONSE_LIMIT_BYTES:
        too_long = f"Response object is too long ({len(body)} bytes)."
        body = json.dumps({**answer, "Status": "FAILED", "Reason": too_long, "Data": {}}).encode()
    request = urllib.request.Request(event["ResponseURL"], data=body, method="PUT")  # noqa: S310
    with urllib.request.urlopen(request, timeout=30):  # noqa: S310 - CloudFormation's own address
        logger.info("answered %s", status)
