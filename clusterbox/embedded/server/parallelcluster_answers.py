"""What ParallelCluster's command and its validators read of an account.

Each answer is one that ministack gives incompletely or not at all, and that the unmodified
library needs in order to list, describe and validate clusters as it does on AWS.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

from ministack.services import alb, cloudformation, ec2, tagging
from ministack.services.cloudformation import handlers, provisioners

from clusterbox.embedded.server.ministack_api import is_true

# The kind that every operating system of ParallelCluster accepts, for a key made without one.
DEFAULT_KEY_TYPE = "ed25519"


def _mend_nested_stacks() -> None:
    """Say of which stack a nested one is part; ministack knows it and leaves it out."""
    for action in ("DescribeStacks", "ListStacks"):
        handlers._ACTION_HANDLERS[action] = _with_parents(handlers._ACTION_HANDLERS[action])


def _with_parents(answer: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    def with_parent(found: re.Match[str]) -> str:
        stacks = (s for s in cloudformation._stacks.values() if s["StackId"] == found.group(1))
        parents = [s["ParentId"] for s in stacks if s.get("ParentId")]
        return found.group(0) + "".join(f"<ParentId>{parent}</ParentId>" for parent in parents)

    def answer_with_parents(parameters: dict[str, Any]) -> Any:
        status, headers, body = answer(parameters)
        # `pcluster list-clusters` takes a stack without a parent for a cluster.
        text = re.sub(r"<StackId>([^<]+)</StackId>", with_parent, body.decode())
        return status, headers, text.encode()

    return answer_with_parents


def _load_balancer_tags() -> Iterator[tuple[str, list[dict[str, str]]]]:
    for arn, tags in alb._tags.items():
        yield arn, list(tags)


def _mend_load_balancers() -> None:
    # `pcluster describe-cluster` finds a login pool's load balancer by its tags.
    tagging._COLLECTORS["elasticloadbalancing"] = _load_balancer_tags
    for kind in ("LoadBalancer", "TargetGroup"):
        name = f"AWS::ElasticLoadBalancingV2::{kind}"
        provisioners._STACK_TAG_PROPERTY[name] = ("Tags", "list")


def _mend_public_addresses() -> None:
    render = ec2._instance_xml

    def instance_fields(instance: dict[str, Any]) -> str:
        # EC2 leaves out what an instance does not have, and ParallelCluster prints what it gets.
        return re.sub(r"<(ipAddress|dnsName|keyName)></\1>", "", str(render(instance)))

    ec2._instance_xml = instance_fields


def _mend_dry_runs() -> None:
    native_run = ec2._ACTION_MAP["RunInstances"]

    def run_instances(parameters: dict[str, Any]) -> Any:
        if not is_true(ec2._p(parameters, "DryRun")):
            return native_run(parameters)
        # ParallelCluster's validators try every launch template in this way.
        status, headers, body = native_run(parameters)
        if status >= 400:
            return status, headers, body
        for instance_id in set(re.findall(r"<instanceId>([^<]+)<", body.decode())):
            ec2._discard_instance_records(ec2._instances[instance_id])
            ec2._tags.pop(instance_id, None)
        return ec2._error(
            "DryRunOperation",
            "Request would have succeeded, but DryRun flag is set.",
            HTTPStatus.PRECONDITION_FAILED,
        )

    ec2._ACTION_MAP["RunInstances"] = run_instances


def _mend_key_pairs() -> None:
    native_create = ec2._ACTION_MAP["CreateKeyPair"]
    native_describe = ec2._ACTION_MAP["DescribeKeyPairs"]

    def create_key_pair(parameters: dict[str, Any]) -> Any:
        answer = native_create(parameters)
        if answer[0] == HTTPStatus.OK:
            record = ec2._key_pairs[ec2._p(parameters, "KeyName")]
            record["KeyType"] = ec2._p(parameters, "KeyType") or "rsa"
        return answer

    def with_type(found: re.Match[str]) -> str:
        kind = ec2._key_pairs[found.group(1)].get("KeyType", DEFAULT_KEY_TYPE)
        return f"{found.group(0)}<keyType>{kind}</keyType>"

    def describe_key_pairs(parameters: dict[str, Any]) -> Any:
        status, headers, body = native_describe(parameters)
        text = re.sub(r"<keyName>([^<]+)</keyName>", with_type, body.decode())
        return status, headers, text.encode()

    ec2._ACTION_MAP["CreateKeyPair"] = create_key_pair
    ec2._ACTION_MAP["DescribeKeyPairs"] = describe_key_pairs


def mend() -> None:
    """Complete what ParallelCluster asks for."""
    _mend_nested_stacks()
    _mend_load_balancers()
    _mend_public_addresses()
    _mend_dry_runs()
    _mend_key_pairs()
