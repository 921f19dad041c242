"""Run one operation of the installed ParallelCluster library: JSON on stdin, JSON on stdout.

This file is run by path in the second Python environment, which has ``aws-parallelcluster`` and
nothing of this project. The library is called unmodified; only the calls to AWS go elsewhere,
through ``AWS_ENDPOINT_URL``.

Request: ``{"operation": "create" | "update" | "delete", "arguments": {...}}`` with the arguments
of ``pcluster.lib``. Answer: ``{"cluster": ..., "validationMessages": ...}``, where the cluster is
what ``describe-cluster`` says at the end, or ``{"refused": reason}``.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from contextlib import redirect_stdout
from typing import Any

import boto3
import pcluster.lib as pc
from pcluster.api import encoder
from pcluster.api.errors import (
    HTTPException,
    NotFoundException,
    ParallelClusterApiException,
    exception_message,
)
from pcluster.aws.common import AWSClientError
from pcluster.cli.exceptions import APIOperationException, ParameterException

logger = logging.getLogger("provider")

POLL_SECONDS = 0.25
COMPLETE = frozenset({"CREATE_COMPLETE", "UPDATE_COMPLETE"})
FAILED = frozenset({"CREATE_FAILED", "UPDATE_FAILED", "DELETE_FAILED"})
# Errors by which the library says that it will not, or that AWS did not.
LIBRARY_ERRORS = (ParallelClusterApiException, AWSClientError, HTTPException)
MISUSE_ERRORS = (APIOperationException, ParameterException, TypeError)
# The errors first: a long reason is cut at its end. (The official provider sorts the other way
# round, because it keeps the last 240 characters.)
LEVELS = ("ERROR", "WARNING", "INFO")


class RefusedError(Exception):
    """ParallelCluster refused or failed; the text is its reason."""


def main() -> None:
    """Perform the request on stdin and write the answer to stdout."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    request = json.load(sys.stdin)
    # The library and its CDK print progress, and stdout is for the answer alone.
    with redirect_stdout(sys.stderr):
        try:
            answer = perform(request["operation"], request["arguments"])
        except RefusedError as refusal:
            answer = {"refused": str(refusal)}
    json.dump(answer, sys.stdout, cls=encoder.JSONEncoder)


def perform(operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Run the operation, wait for its end and return the answer; raise RefusedError."""
    name = arguments.get("cluster_name", "")
    if operation == "delete":
        return {"cluster": delete(name)}
    call = {"create": pc.create_cluster, "update": pc.update_cluster}[operation]
    suppressed = as_list(arguments.get("suppress_validators"))
    messages: list[dict[str, Any]] = []
    try:
        started = call(**{**arguments, "suppress_validators": suppressed, "wait": False})
        messages = started.get("validationMessages") or []
    except MISUSE_ERRORS as error:
        raise RefusedError(str(error)) from error
    except LIBRARY_ERRORS as error:
        reason = reason_of(error)
        # The official provider takes this refusal for a success, so that a change of the stack
        # which leaves the configuration as it is goes through.
        if "No changes found" not in reason:
            raise RefusedError(reason) from error
        logger.warning("no changes found in %s", name)
    return {"cluster": wait_until_ready(name), "validationMessages": messages}


def as_list(value: str | list[str] | None) -> list[str]:
    """Return a property that may be one text as the list that the library takes."""
    return [value] if isinstance(value, str) else list(value or [])


def delete(name: str) -> dict[str, Any] | None:
    """Delete the cluster and wait until it is gone; one that does not exist is no error."""
    try:
        deleting: dict[str, Any] = pc.delete_cluster(cluster_name=name)["cluster"]
        while not has_failed(deleting):
            time.sleep(POLL_SECONDS)
            deleting = pc.describe_cluster(cluster_name=name)
    except (ParameterException, NotFoundException):
        return None
    except LIBRARY_ERRORS as error:
        raise RefusedError(reason_of(error)) from error
    raise RefusedError(failure_of(name, deleting))


def wait_until_ready(name: str) -> dict[str, Any]:
    """Return the described cluster once it is ready; raise RefusedError when it failed."""
    while True:
        try:
            cluster: dict[str, Any] = pc.describe_cluster(cluster_name=name)
        except (ParameterException, NotFoundException) as error:
            raise RefusedError(f"{name} is gone: {reason_of(error)}") from error
        if has_failed(cluster):
            raise RefusedError(failure_of(name, cluster))
        if cluster.get("clusterStatus") in COMPLETE:
            return cluster
        time.sleep(POLL_SECONDS)


def has_failed(cluster: dict[str, Any]) -> bool:
    """Return whether the operation failed and its stack has been rolled back.

    Until then the library would refuse the update by which the outer stack rolls back.
    """
    rolling_back = str(cluster.get("cloudFormationStackStatus")).endswith("_IN_PROGRESS")
    return cluster.get("clusterStatus") in FAILED and not rolling_back


def failure_of(name: str, cluster: dict[str, Any]) -> str:
    """Return why the cluster failed: ParallelCluster's codes and its stack's own reasons."""
    said = [
        ": ".join(part for part in (f.get("failureCode"), f.get("failureReason")) if part)
        for f in cluster.get("failures") or []
    ]
    said += stack_failures(cluster["cloudformationStackArn"])
    return f"{name} is {cluster.get('clusterStatus')}: {'; '.join(said) or 'no reason given'}"


def stack_failures(stack_id: str) -> list[str]:
    """Fetch the reasons of the resources that failed in a stack, the first failure first."""
    events = boto3.client("cloudformation").describe_stack_events(StackName=stack_id)
    return [
        f"{event['LogicalResourceId']}: {event['ResourceStatusReason']}"
        for event in reversed(events["StackEvents"])
        if event["ResourceStatus"].endswith("_FAILED") and event.get("ResourceStatusReason")
    ]


def reason_of(error: Exception) -> str:
    """Return the library's refusal as JSON: every schema, validator or update-policy message."""
    if isinstance(error, ParameterException):
        return str(error)
    content: dict[str, Any] = json.loads(encoder.JSONEncoder().encode(exception_message(error)))
    # It repeats what the update errors say, and the whole has to fit into a stack's reason.
    content.pop("changeSet", None)
    for messages in content.values():
        if isinstance(messages, list):
            messages.sort(key=lambda m: LEVELS.index(m["level"]) if "level" in m else 0)
    return json.dumps(content)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    sys.stderr.flush()
    # The library loads its CDK in a thread, for about four seconds. The interpreter would wait for
    # it even after a refusal or a deletion, which need no template.
    os._exit(0)
