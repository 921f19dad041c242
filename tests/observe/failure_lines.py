"""A line of each known failure, as the programs write it: failure, kind of stream, line, meaning.

From ParallelCluster's, its cookbook's and its node package's code and threads, and Slurm's logs.
"""

from __future__ import annotations

_FLEET = (
    "2026-11-22 10:00:00,660 - 48010 - "
    "[slurm_plugin.fleet_manager:_launch_instances] - ERROR - JobID 186 - "
)
_REQUEST = "Error in CreateFleet request (9b17efda-3bff-46b7-b9ae-86bcad2f1b68): "
_RUN = "Failed RunInstances request (9b17efda-3bff-46b7-b9ae-86bcad2f1b68): "
_MGTD = "2026-11-22 10:00:00,000 - [slurm_plugin.clustermgtd:x] - "
_NODE = "eco-dy-n8c32g-1(10.0.0.21)"
_CTLD = "[2026-11-22T10:00:00.905] "


def _launch(code: str, text: str, request: str = _REQUEST) -> str:
    return f"{_FLEET}{request}{code} - {text}"


LINES: list[tuple[str, str, str, str]] = [
    (
        "capacity",
        "slurm_resume",
        _launch(
            "InsufficientInstanceCapacity",
            "We currently do not have sufficient p4d.24xlarge capacity in the Availability Zone you "
            "requested (us-east-1d). Our system will be working on provisioning additional capacity.",
        ),
        "EC2 has no capacity (InsufficientInstanceCapacity) p4d.24xlarge us-east-1d",
    ),
    (
        "capacity",
        "reason",
        "(Code:LimitedInstanceCapacity)Failure when resuming nodes",
        "EC2 has no capacity (LimitedInstanceCapacity)",
    ),
    (
        "vcpu-limit",
        "slurm_resume",
        _launch(
            "VcpuLimitExceeded",
            "You have requested more vCPU capacity than your current vCPU limit of 32 allows",
            _RUN,
        ),
        "the account's limit of vCPUs for this family of instances is reached",
    ),
    (
        "spot-limit",
        "slurm_resume",
        _launch("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded"),
        "the account's limit of Spot instances is reached",
    ),
    (
        "spot-price",
        "slurm_resume",
        _launch("SpotMaxPriceTooLow", "Your Spot request price is too low"),
        "the Spot price is above the compute resource's SpotPrice",
    ),
    (
        "volume-limit",
        "ec2",
        "Client.VolumeLimitExceeded: Volume limit exceeded",
        "no EBS volume can be had for the node's root disk (VolumeLimitExceeded)",
    ),
    (
        "subnet-full",
        "slurm_resume",
        _launch(
            "InsufficientFreeAddressesInSubnet",
            "There are not enough free addresses in subnet 'subnet-1'",
            _RUN,
        ),
        "the subnet has no address left",
    ),
    (
        "not-allowed",
        "slurm_resume",
        _launch(
            "UnauthorizedOperation",
            "You are not authorized to perform this operation. Encoded authorization failure message: aB1",
            _RUN,
        ),
        "the head node's role may not launch or end instances",
    ),
    (
        "image-gone",
        "slurm_resume",
        _launch(
            "InvalidAMIID.NotFound", "The image id '[ami-0123456789abcdef0]' does not exist", _RUN
        ),
        "the machine image of the queue does not exist any more, or is not shared with this account "
        "(InvalidAMIID.NotFound)",
    ),
    (
        "setting-gone",
        "slurm_resume",
        _launch("InvalidSubnetID.NotFound", "The subnet ID 'subnet-1' does not exist", _RUN),
        "what the queue's launch template names does not exist or does not fit (InvalidSubnetID.NotFound)",
    ),
    (
        "unsupported",
        "slurm_resume",
        _launch(
            "Unsupported",
            "Your requested instance type is not supported in your requested Availability Zone",
        ),
        "the instance type is not offered in this availability zone, or not with these options",
    ),
    (
        "throttled",
        "clustermgtd",
        _MGTD + "ERROR - Failed: (RequestLimitExceeded) Request limit exceeded.",
        "EC2 throttles the cluster's calls",
    ),
    (
        "launch-other",
        "slurm_resume",
        _launch("PendingVerification", "Your account is currently being verified", _RUN),
        "EC2 refused to launch an instance (PendingVerification)",
    ),
    (
        "capacity-hold",
        "clustermgtd",
        _MGTD + "INFO - The following compute resources are in down state due to "
        "insufficient capacity: {'eco': {'n8c32g': ...}}",
        "compute resources are not tried for now, because EC2 had no capacity for them",
    ),
    (
        "protected-mode",
        "clustermgtd",
        _MGTD + "WARNING - Setting cluster into protected mode due to failures "
        "detected in node provisioning. Please investigate the issue",
        "protected mode: nodes failed to boot 10 times, and their queues are switched off",
    ),
    (
        "partition-inactive",
        "partition",
        "PartitionName=eco AllowGroups=ALL State=INACTIVE TotalCPUs=24",
        "the queue eco is switched off: the cluster is in protected mode, or its fleet is stopped",
    ),
    (
        "partition-held",
        "partition",
        "PartitionName=eco AllowGroups=ALL State=DOWN TotalCPUs=24",
        "the queue eco is DOWN: somebody, or a budget's limit, holds its jobs",
    ),
    (
        "custom-action",
        "bootstrap_error_msg",
        '{"node-role": "ComputeFleet", "component": "custom-action", "level": "ERROR", "event-type": '
        '"custom-action-error", "message": "Failed to execute OnNodeConfigured script 2, return code: 2."}',
        "the script of OnNodeConfigured could not be run: execute failed with exit code 2",
    ),
    (
        "mount-denied",
        "chef-client",
        "STDERR: mount.nfs4: access denied by server while mounting 127.0.0.1:/",
        "EFS denies the mount",
    ),
    (
        "mount",
        "chef-client",
        "STDERR: mount.nfs4: Connection timed out",
        "a file system cannot be mounted: Connection timed out",
    ),
    (
        "mount",
        "bootstrap_error_msg",
        '{"event-type": "chef-recipe-exception", "detail": {"failures": [{"error-title": '
        "\"Error executing action `mount` on resource 'mount[mount /opt/parallelcluster/shared]'\"}]}}",
        "a file system cannot be mounted: mount[mount /opt/parallelcluster/shared]",
    ),
    (
        "unreachable",
        "cloud-init-output",
        'Could not connect to the endpoint URL: "https://s3.us-west-2.amazonaws.com/x"',
        "https://s3.us-west-2.amazonaws.com cannot be reached",
    ),
    (
        "recipe",
        "bootstrap_error_msg",
        '{"event-type": "chef-recipe-exception", "detail": {"failures": [{"error-title": '
        "\"Error executing action `run` on resource 'execute[x]'\"}]}}",
        "ParallelCluster's recipes failed on a node: Error executing action `run` on resource 'execute[x]'",
    ),
    (
        "head-boot",
        "cfn-init",
        "2026-11-22 10:00:00,212 [ERROR] Error encountered during build of chefConfig: "
        "Command chef failed",
        "the head node did not boot: chefConfig: Command chef failed",
    ),
    (
        "boot-timeout",
        "clustermgtd",
        _MGTD + f"WARNING - Node bootstrap error: Resume timeout expires for node {_NODE}, "
        "node state: DOWN+CLOUD+POWERED_DOWN",
        "nodes started and did not join Slurm in time (30 minutes)",
    ),
    (
        "boot-ended",
        "clustermgtd",
        _MGTD + f"WARNING - Node bootstrap error: Node {_NODE} is in power up state without "
        "valid backing instance, node state: IDLE+CLOUD+POWERING_UP",
        "nodes ended themselves while they booted",
    ),
    (
        "boot-check",
        "clustermgtd",
        _MGTD + f"WARNING - Node bootstrap error: Node {_NODE} failed during bootstrap when "
        "performing health check, node state: DOWN",
        "EC2's health checks failed while nodes booted",
    ),
    (
        "boot-count",
        "clustermgtd",
        _MGTD + "INFO - Partitions bootstrap failure count: {'eco': {'n8c32g': 3}}, cluster "
        "will be set into protected mode if protected failure count reaches threshold 10",
        "nodes fail to boot; at 10 failures without a success a queue is switched off (protected mode)",
    ),
    (
        "disk-full",
        "slurmctld",
        _CTLD + "error: Could not write job state: No space left on device",
        "a disk is full",
    ),
    (
        "slurmctld-fatal",
        "slurmctld",
        _CTLD + "fatal: mkdir(/var/spool/slurm/ctld): No such file or directory",
        "slurmctld ended: mkdir(/var/spool/slurm/ctld): No such file or directory",
    ),
    (
        "slurmctld-down",
        "clustermgtd",
        _MGTD + "ERROR - Unable to get partition/node info from slurm, no other action "
        "can be performed. Sleeping...",
        "slurmctld does not answer",
    ),
    (
        "database",
        "slurmdbd",
        _CTLD + "error: mysql_real_connect failed: 2002 Can't connect to local MySQL server",
        "slurmdbd cannot reach its database: 2002 Can't connect to local MySQL server",
    ),
    (
        "slurmdbd-fatal",
        "slurmdbd",
        _CTLD + "fatal: The database must be up when starting the MYSQL plugin.",
        "slurmdbd ended: The database must be up when starting the MYSQL plugin.",
    ),
    (
        "slurmdbd-unreachable",
        "slurmctld",
        _CTLD + "error: slurm_persist_conn_open_without_init: failed to open "
        "persistent connection to host:ip-10-0-0-10:6819: Connection refused",
        "slurmctld cannot reach slurmdbd",
    ),
    (
        "clustermgtd-down",
        "slurm_resume",
        "2026-11-22 10:00:00,000 - [slurm_plugin.resume:_resume] - ERROR - No valid "
        "clustermgtd heartbeat detected, clustermgtd is down!",
        "clustermgtd gives no sign of life: no node is launched, and compute nodes end themselves",
    ),
    (
        "clustermgtd-ec2",
        "clustermgtd",
        _MGTD + "ERROR - Failed when getting instance info from EC2 with exception denied",
        "clustermgtd cannot ask EC2: denied",
    ),
    (
        "clocks",
        "slurmctld",
        _CTLD + "error: Check for out of sync clocks",
        "clocks of head node and compute nodes differ",
    ),
    (
        "munge",
        "slurmctld",
        _CTLD + "error: Munge decode failed: Invalid credential",
        "a node and the head node do not share the munge key, or munge does not run",
    ),
    (
        "directory",
        "sssd_domain_default",
        "(2026-11-22 10:00:00): [be[default]] Backend is offline",
        "the directory of users cannot be reached: they cannot sign in",
    ),
    (
        "spot-interruption",
        "ec2",
        "Server.SpotInstanceTermination: Spot instance termination",
        "EC2 took Spot instances back; their jobs are queued again",
    ),
    (
        "instance-key",
        "ec2",
        "Client.InternalError: Client error on launch",
        "EC2 cannot use the key of the node's disks",
    ),
    (
        "instance-gone",
        "clustermgtd",
        _MGTD + f"WARNING - Node state check: no corresponding instance in EC2 for node "
        f"{_NODE}, node state: IDLE+CLOUD",
        "the instance of a node is gone: ended by Spot, by hand, or by itself",
    ),
    (
        "scheduled-event",
        "clustermgtd",
        _MGTD + f"WARNING - Node {_NODE} is associated with instance i-0a that is failing "
        "scheduled_events_check. EC2 health state: ['i-0a']",
        "AWS maintains the host of a node: it is replaced",
    ),
    (
        "health-check",
        "clustermgtd",
        _MGTD + f"WARNING - Node {_NODE} is associated with instance i-0a that is failing "
        "ec2_health_check. EC2 health state: ['i-0a']",
        "EC2 says that the machine of a node is broken (ec2_health_check): it is replaced",
    ),
    (
        "not-responding",
        "slurmctld",
        _CTLD + "error: Nodes eco-dy-n8c32g-[1-2] not responding, setting DOWN",
        "slurmd of a node does not answer any more",
    ),
    (
        "rebooted",
        "slurmctld",
        _CTLD + "error: Node eco-dy-n8c32g-1 unexpectedly rebooted",
        "a node rebooted by itself",
    ),
    (
        "low-memory",
        "slurmctld",
        _CTLD + "error: Node eco-dy-n8c32g-1 has low real_memory size (63622 < 64000)",
        "a node has less memory than the configuration says (63622 of 64000 MiB): it is drained",
    ),
    (
        "kill-task",
        "reason",
        "Kill task failed",
        "processes of a job could not be ended: the node is drained",
    ),
    ("prolog", "reason", "Prolog error", "a Prolog script failed: the node is drained"),
    (
        "out-of-memory",
        "slurmd",
        _CTLD + "[7.0] error: Detected 1 oom_kill event in StepId=7.0",
        "the kernel ended processes of a job that used too much memory",
    ),
    (
        "health-replaced",
        "reason",
        "Scheduler health check failed",
        "ParallelCluster is replacing nodes that failed",
    ),
    (
        "held-node",
        "reason",
        "clusterbox-patch 2026-11",
        "nodes are held with the reason: clusterbox-patch 2026-11",
    ),
    (
        "requeued",
        "slurmctld",
        _CTLD + "requeue job JobId=10 due to failure of node eco-dy-n8c32g-1",
        "jobs were queued again because their node failed",
    ),
]
# What a healthy cluster writes all the time.
QUIET: list[tuple[str, str]] = [
    ("clustermgtd", _MGTD + "INFO - Current compute fleet status: RUNNING"),
    ("clustermgtd", _MGTD + "INFO - Following nodes are currently in replacement: (x0) []"),
    (
        "slurm_resume",
        "2026-11-22 10:00:00 - [slurm_plugin.resume:main] - INFO - ResumeProgram finished.",
    ),
    (
        "slurmctld",
        _CTLD + "sched: Allocate JobId=10 NodeList=eco-dy-n8c32g-1 #CPUs=1 Partition=eco",
    ),
    ("slurmctld", _CTLD + "update_node: node eco-dy-n8c32g-1 reason set to: patch day"),
    ("slurmd", _CTLD + "[7.batch] done with job"),
    ("chef-client", "2026-11-22 INFO Cinc Client Run complete in 12.3 seconds"),
    ("slurmdbd", _CTLD + "slurmdbd version 25.11.0 started"),
]
