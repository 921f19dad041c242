"""Roles and their permissions: statements that give a reason for every wildcard."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct

from clusterbox.site import names
from clusterbox.site.environment import Environment

# Actions that AWS cannot scope to a resource, so that "*" is the narrowest there is. Anything
# else with "*" is refused. Source: the Service Authorization Reference, where the column
# "Resource types" of these actions is empty.
UNSCOPED_ACTIONS = {
    "acm:ListCertificates": "lists all certificates, has no resource type",
    "autoscaling:Describe*": "Describe actions of Auto Scaling have no resource types",
    "backup:ListProtectedResources": "lists all protected resources, has no resource type",
    "cloudformation:ListStacks": "lists all stacks, has no resource type",
    "cloudwatch:DescribeAlarms": "reads alarm states by name prefix; used across alarms",
    "cloudwatch:GetMetricData": "reads metrics, has no resource type",
    "cloudwatch:GetMetricStatistics": "reads metrics, has no resource type",
    "cloudwatch:ListMetrics": "reads metrics, has no resource type",
    "cloudwatch:PutMetricData": "has no resource type; a condition on the namespace narrows it",
    "ec2:Describe*": "Describe actions of EC2 have no resource types",
    "ec2:DescribeAddresses": "Describe actions of EC2 have no resource types",
    "ec2:DescribeCapacityReservations": "Describe actions of EC2 have no resource types",
    "ec2:DescribeImages": "Describe actions of EC2 have no resource types",
    "ec2:DescribeInstanceAttribute": "Describe actions of EC2 have no resource types",
    "ec2:DescribeInstanceStatus": "Describe actions of EC2 have no resource types",
    "ec2:DescribeInstances": "Describe actions of EC2 have no resource types",
    "ec2:DescribeLaunchTemplateVersions": "Describe actions of EC2 have no resource types",
    "ec2:DescribeNatGateways": "Describe actions of EC2 have no resource types",
    "ec2:DescribeSecurityGroups": "Describe actions of EC2 have no resource types",
    "ec2:DescribeSnapshots": "Describe actions of EC2 have no resource types",
    "ec2:DescribeSpotPriceHistory": "Describe actions of EC2 have no resource types",
    "ec2:DescribeSubnets": "Describe actions of EC2 have no resource types",
    "ec2:DescribeTags": "Describe actions of EC2 have no resource types",
    "ec2:DescribeVolumes": "Describe actions of EC2 have no resource types",
    "ec2:DescribeVpcEndpoints": "Describe actions of EC2 have no resource types",
    "ec2:DescribeVpcs": "Describe actions of EC2 have no resource types",
    "ec2messages:AcknowledgeMessage": "message channel of the SSM agent, has no resource type",
    "ec2messages:DeleteMessage": "message channel of the SSM agent, has no resource type",
    "ec2messages:FailMessage": "message channel of the SSM agent, has no resource type",
    "ec2messages:GetEndpoint": "message channel of the SSM agent, has no resource type",
    "ec2messages:GetMessages": "message channel of the SSM agent, has no resource type",
    "ec2messages:SendReply": "message channel of the SSM agent, has no resource type",
    "elasticloadbalancing:Describe*": "Describe actions of load balancing have no resource types",
    "elasticloadbalancing:DescribeLoadBalancers": "Describe actions of load balancing have no resource types",
    "imagebuilder:ListImages": "lists all images, has no resource type",
    "logs:DescribeLogGroups": "lists all log groups, its resource is always the region's",
    "pricing:GetProducts": "public price list, has no resource type",
    "resource-groups:ListGroups": "lists all groups, has no resource type",
    "route53:CreateHostedZone": "the zone does not exist yet, has no resource type",
    "s3:ListAllMyBuckets": "lists all buckets, has no resource type",
    "ssm:CancelCommand": "cancels a command by its id, has no resource type",
    "ssm:DescribeInstanceInformation": "lists all managed machines, has no resource type",
    "ssm:GetCommandInvocation": "reads the result of a command by its id, has no resource type",
    "ssm:ListCommandInvocations": "reads the results of commands, has no resource type",
    "ssm:UpdateInstanceInformation": "registration of the SSM agent before it has an id",
    "ssmmessages:CreateControlChannel": "channel of Session Manager, has no resource type",
    "ssmmessages:CreateDataChannel": "channel of Session Manager, has no resource type",
    "ssmmessages:OpenControlChannel": "channel of Session Manager, has no resource type",
    "ssmmessages:OpenDataChannel": "channel of Session Manager, has no resource type",
    "tag:GetResources": "finds resources of any service by tag, has no resource type",
    "tag:TagResources": "tags resources of any service, has no resource type",
    "xray:PutTelemetryRecords": "sends traces, has no resource type",
    "xray:PutTraceSegments": "sends traces, has no resource type",
}


# IAM takes 6,144 characters in a managed policy, white space not counted (IAM user guide, "IAM and
# AWS STS quotas"). Some room is left for the envelope and for names that are longer than here.
_POLICY_CHARACTERS = 5_700
# What stands in for a token at synth is shorter than the ARN that it becomes.
_TOKEN_CHARACTERS = 80


@dataclass(frozen=True)
class Statement:
    """One statement of a policy; a wildcard in it needs a reason."""

    sid: str
    actions: Sequence[str]
    resources: Sequence[str]
    because: str = ""
    condition: Mapping[str, Any] = field(default_factory=dict)
    effect: str = "Allow"

    def __post_init__(self) -> None:
        """Refuse a wildcard without a reason: it would be an unexplained finding."""
        if self.effect == "Allow" and self.wildcards and not self.because:
            raise ValueError(f"statement {self.sid} has {self.wildcards} and says no reason")

    @property
    def wildcards(self) -> list[str]:
        """The parts of the statement that cdk-nag reports as wildcards, as it spells them."""
        actions = [f"Action::{action}" for action in self.actions if "*" in action]
        return actions + [f"Resource::{text}" for text in self.resources if "*" in text]

    def render(self) -> dict[str, Any]:
        """Return the statement as IAM's JSON."""
        body: dict[str, Any] = {
            "Sid": self.sid,
            "Effect": self.effect,
            "Action": list(self.actions),
            "Resource": list(self.resources),
        }
        if self.condition:
            body["Condition"] = dict(self.condition)
        return body


def unscoped(
    sid: str, actions: Sequence[str], condition: Mapping[str, Any] | None = None
) -> Statement:
    """Return a statement on "*" for actions that AWS cannot scope; KeyError for any other."""
    reasons = list(dict.fromkeys(UNSCOPED_ACTIONS[action] for action in actions))
    return Statement(sid, actions, ["*"], because="; ".join(reasons), condition=condition or {})


def make_role(
    scope: Construct,
    construct_id: str,
    *,
    environment: Environment,
    purpose: str,
    description: str,
    principal: iam.IPrincipal,
    statements: Sequence[Statement] = (),
    session_hours: int | None = None,
) -> iam.Role:
    """Return a role named as the hosting rules ask, with its `statements` as managed policies.

    A session of it may last `session_hours`, at most 12; an hour where none are given.

    Managed rather than inline, because a reviewer can read and compare a managed policy by
    itself (NIST 800-53 R5 AC-6 as cdk-nag checks it).
    """
    policies: list[iam.IManagedPolicy] = []
    for number, pack in enumerate(_pack(statements), 1):
        policy = iam.ManagedPolicy(
            scope,
            f"{construct_id}Policy{number if number > 1 else ''}",
            path=environment.hosting.iam_path,
            description=description,
            document=iam.PolicyDocument.from_json(
                {
                    "Version": "2012-10-17",
                    "Statement": [statement.render() for statement in pack],
                }
            ),
        )
        acknowledge_wildcards(policy, pack)
        policies.append(policy)
    return iam.Role(
        scope,
        construct_id,
        role_name=names.role_name(environment, purpose),
        path=environment.hosting.iam_path,
        description=description,
        assumed_by=principal,
        managed_policies=policies,
        max_session_duration=None if session_hours is None else cdk.Duration.hours(session_hours),
    )


def _pack(statements: Sequence[Statement]) -> list[list[Statement]]:
    """Return the statements in as few groups as fit one managed policy each, in their order."""
    packs: list[list[Statement]] = []
    room = 0
    for statement in statements:
        text = json.dumps(statement.render(), separators=(",", ":"))
        size = len(text) + text.count("${Token[") * _TOKEN_CHARACTERS
        if size > room:
            packs.append([])
            room = _POLICY_CHARACTERS
        packs[-1].append(statement)
        room -= size
    return packs


def acknowledge(scope: Construct, finding: str, reason: str) -> None:
    """Record why one finding of a rule is accepted on one construct."""
    cdk.Validations.of(scope).acknowledge(cdk.Acknowledgment(id=finding, reason=reason))


def ignore_lint(scope: Construct, rule: str, reason: str) -> None:
    """Record in a resource's metadata why one rule of cfn-lint does not count for it."""
    resource = scope if isinstance(scope, cdk.CfnResource) else scope.node.default_child
    if not isinstance(resource, cdk.CfnResource):
        raise TypeError(f"{scope.node.path} is not one resource")
    resource.add_metadata("cfn-lint", {"config": {"ignore_checks": [rule]}})
    resource.add_metadata(f"cfn-lint {rule}", reason)


def acknowledge_wildcards(policy: Construct, statements: Sequence[Statement]) -> None:
    """Record the reason that each statement gives for its wildcards."""
    reasons: dict[str, str] = {}
    for statement in statements:
        for wildcard in statement.wildcards:
            known = reasons.get(wildcard)
            reasons[wildcard] = f"{known}; {statement.because}" if known else statement.because
    # One call for all: each call to CDK takes time, and a cluster has about a hundred of these.
    cdk.Validations.of(policy).acknowledge(
        *(
            cdk.Acknowledgment(id=f"AwsSolutions-IAM5[{wildcard}]", reason=reason)
            for wildcard, reason in reasons.items()
        )
    )


def session_manager_statements() -> list[Statement]:
    """Return what the SSM agent needs for Session Manager: its own channels and nothing else."""
    return [
        unscoped(
            "SessionManager",
            [
                "ssm:UpdateInstanceInformation",
                "ssmmessages:CreateControlChannel",
                "ssmmessages:CreateDataChannel",
                "ssmmessages:OpenControlChannel",
                "ssmmessages:OpenDataChannel",
                "ec2messages:AcknowledgeMessage",
                "ec2messages:DeleteMessage",
                "ec2messages:FailMessage",
                "ec2messages:GetEndpoint",
                "ec2messages:GetMessages",
                "ec2messages:SendReply",
            ],
        )
    ]
