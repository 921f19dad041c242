"""What the embedded account does not do as AWS does."""

from __future__ import annotations


def stand_ins() -> list[str]:
    """Return one sentence for each thing that only stands in for the real one."""
    return [
        "IAM roles, policies and permissions boundaries are kept and can be read, but no call is "
        "ever denied: a missing permission shows on AWS only.",
        "A seeded policy allows everything, because the environment names it without its text.",
        "EC2 instances are records with an address of their subnet: nothing boots, no user data "
        "runs and Systems Manager reaches no one.",
        "Security groups, routes, NAT gateways and flow logs filter, carry and log no traffic.",
        "An EFS file system cannot be mounted and holds no files; encryption is a recorded "
        "setting.",
        "Lambda functions run as processes on this machine, without the role, memory limit or "
        "network of the function.",
        "A custom resource whose function crashes fails at once; on AWS the stack waits for up to "
        "an hour.",
        "Image Builder pipelines are definitions: no image is ever built.",
        "Backup plans make no recovery points, and budgets see no cost.",
        "CloudWatch alarms watch only metrics that something puts into this account.",
        "Private hosted zones keep their records, but no resolver answers for them.",
        "Every machine image id can be launched, whether it exists on AWS or not.",
        "AWS managed policies are taken on trust, whether they exist on AWS or not.",
        "CloudFormation's drift detection misses changes.",
        "Service quotas, prices, Spot interruptions and a lack of capacity do not exist.",
        "The partition is always aws: GovCloud and China regions get ARNs of the wrong partition.",
        "Everything is in memory: stopping the account empties it.",
    ]
