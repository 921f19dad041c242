"""What the embedded account does not do as AWS does."""

from __future__ import annotations


def stand_ins() -> list[str]:
    """Return one sentence for each thing that only stands in for the real one."""
    return [
        "IAM roles, policies and permissions boundaries are kept and can be read, but no call is "
        "ever denied: a missing permission shows on AWS only.",
        "A seeded policy allows everything, because the environment names it without its text.",
        "EC2 instances are records with an address of their subnet: nothing boots and no user data "
        "runs. Systems Manager runs commands as processes of this machine, with stand-ins for dnf, rpm, "
        "systemctl, lsmod and reboot that answer from the list of what the image holds.",
        "Security groups, routes, NAT gateways and flow logs filter, carry and log no traffic.",
        "An EFS file system cannot be mounted and holds no files; encryption is a recorded "
        "setting.",
        "ParallelCluster's library runs as it is behind the cluster's resource, but no node boots: a head "
        "node's success is signalled at once, and a bootstrap that fails cannot be rehearsed.",
        "No Slurm stands behind a cluster here unless one is joined to it with `clusterbox embedded slurm up "
        "--account`: requests to stop or start the compute fleet are fulfilled at once, and login nodes are "
        "always healthy.",
        "Instance types and the zones that offer them are as old as the release of the package moto that "
        "brings them.",
        "ParallelCluster's provider waits for a whole operation in one call and gives longer reasons; on "
        "AWS it is called again on a schedule, and keeps the last 240 characters of a reason.",
        "Lambda functions run as processes on this machine, without the role, memory limit or "
        "network of the function.",
        "A custom resource whose function crashes fails at once; on AWS the stack waits for up to "
        "an hour.",
        "Image Builder builds an image in seconds and starts no machine: stages, log, tags and clean-up are "
        "as on AWS, but no step runs.",
        "What a machine image holds is a list of facts made from its definition, its parent and the day: its "
        "versions, advisories and CVE numbers are made up.",
        "The server of the accounting database is a record: nothing answers at its address.",
        "Backup plans make no recovery points, and budgets see no cost.",
        "CloudWatch alarms watch only metrics that something puts into this account.",
        "Private hosted zones keep their records, but no resolver answers for them.",
        "Every machine image id can be launched, whether it exists on AWS or not.",
        "AWS managed policies are taken on trust, whether they exist on AWS or not.",
        "CloudFormation's drift detection misses changes.",
        "There are no FSx file systems, and no Spot instance is ever taken back.",
        "CodeBuild projects are definitions: no build ever runs.",
        "Service quotas, prices, Spot interruptions and a lack of capacity do not exist.",
        "The partition is always aws: GovCloud and China regions get ARNs of the wrong partition.",
        "Everything is in memory: stopping the account empties it.",
    ]
