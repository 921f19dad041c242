"""What the unmodified ParallelCluster library needs of the embedded account, all of it.

Most types of the stack that it writes for a cluster are served elsewhere in this package. Here
are the login nodes, which a scaling group launches, and the function with which a cluster cleans
up behind it; the ``parallelcluster_*`` modules beside this one have the rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ministack.core import lambda_runtime
from ministack.services import alb, autoscaling, ec2

from clusterbox.embedded.provider import worker
from clusterbox.embedded.server import (
    launch,
    parallelcluster_answers,
    parallelcluster_instance_types,
    parallelcluster_nodes,
)
from clusterbox.embedded.server.ministack_api import (
    Properties,
    Resource,
    ResourceType,
    call,
    is_true,
    native_handler,
    query_parameters,
)

RESOURCE_TYPES: dict[str, ResourceType] = {}


def fill_group(group: dict[str, Any]) -> None:
    """Bring a scaling group to its desired capacity with instances that EC2 knows too.

    Raises ResourceFailedError when the launch template or what it names does not exist.
    """
    members = group["Instances"]
    desired = group["DesiredCapacity"]
    for member in members[desired:]:
        _leave_group(group, member["InstanceId"])
    del members[desired:]
    subnets = [s for s in group["VPCZoneIdentifier"].split(",") if s]
    while len(members) < desired:
        subnet_id = subnets[len(members) % len(subnets)] if subnets else None
        members.append(_launch_member(group, subnet_id))


def _launch_member(group: dict[str, Any], subnet_id: str | None) -> dict[str, Any]:
    template = group["LaunchTemplate"]
    tags = [
        {"Key": tag["Key"], "Value": tag["Value"]}
        for tag in group["Tags"]
        if is_true(tag.get("PropagateAtLaunch", False))
    ]
    tags.append({"Key": "aws:autoscaling:groupName", "Value": group["AutoScalingGroupName"]})
    asked = {
        "LaunchTemplate": {n: template[n] for n in ("LaunchTemplateId", "Version")},
        "SubnetId": subnet_id,
        "TagSpecification": [{"ResourceType": "instance", "Tag": tags}],
    }
    answer = call(launch.run_instances, query_parameters({**asked, "MinCount": 1, "MaxCount": 1}))
    instance_id = answer.value("instanceId")
    for arn in group.get("TargetGroupARNs") or []:
        port = alb._tgs[arn].get("Port")
        alb._targets.setdefault(arn, []).append({"Id": instance_id, "Port": port})
    return {
        "InstanceId": instance_id,
        "LifecycleState": "InService",
        "HealthStatus": "Healthy",
        "AvailabilityZone": ec2._instances[instance_id]["Placement"]["AvailabilityZone"],
        "ProtectedFromScaleIn": group["NewInstancesProtectedFromScaleIn"],
        "LaunchTemplate": template,
        "LaunchConfigurationName": "",
    }


def _leave_group(group: dict[str, Any], instance_id: str) -> None:
    for arn in group.get("TargetGroupARNs") or []:
        alb._targets[arn] = [t for t in alb._targets.get(arn, []) if t["Id"] != instance_id]
    if instance_id in ec2._instances:
        call(ec2._terminate_instances, query_parameters({"InstanceId": [instance_id]}))


def _mend_scaling_groups() -> None:
    entry = native_handler("AWS::AutoScaling::AutoScalingGroup")
    create, update, delete = entry["create"], entry["update"], entry["delete"]
    native_reconcile = autoscaling._reconcile_instances

    def reconcile(group: dict[str, Any]) -> None:
        # A group without a launch template keeps ministack's made-up instances.
        if group.get("LaunchTemplate"):
            fill_group(group)
        else:
            native_reconcile(group)

    def settle(name: str, properties: Properties) -> None:
        group = autoscaling._asgs[name]
        group["TargetGroupARNs"] = properties.get("TargetGroupARNs") or []
        reconcile(group)

    def create_group(logical_id: str, properties: Properties, stack: str) -> Resource:
        name, attributes = create(logical_id, properties, stack)
        settle(name, properties)
        return name, attributes

    def update_group(
        name: str, old: Properties, new: Properties, stack: str, logical_id: str | None = None
    ) -> Resource:
        name, attributes = update(name, old, new, stack, logical_id)
        settle(name, new)
        return name, attributes

    def delete_group(name: str, properties: Properties) -> None:
        group = autoscaling._asgs.get(name)
        if group and group.get("LaunchTemplate"):
            for member in group["Instances"]:
                _leave_group(group, member["InstanceId"])
        delete(name, properties)

    entry |= {"create": create_group, "update": update_group, "delete": delete_group}
    autoscaling._reconcile_instances = reconcile


def _mend_lambda_workers() -> None:
    preamble = Path(worker.__file__).read_text(encoding="utf-8")
    lambda_runtime._PYTHON_WORKER_SCRIPT = preamble + lambda_runtime._PYTHON_WORKER_SCRIPT


def mend() -> None:
    """Put everything in place that clusters need, in this module and in those beside it."""
    _mend_scaling_groups()
    _mend_lambda_workers()
    parallelcluster_answers.mend()
    parallelcluster_instance_types.mend()
    parallelcluster_nodes.mend()
