"""Single rules of security groups, as CloudFormation resources of their own."""

from __future__ import annotations

from typing import Any

from ministack.services import ec2
from ministack.services.cloudformation import provisioners

from clusterbox.embedded.server.ministack_api import (
    Properties,
    Resource,
    ResourceFailedError,
    ResourceType,
    native_handler,
    new_id,
)


def group(group_id: str) -> dict[str, Any]:
    """Return ministack's record of a security group, or raise ResourceFailedError."""
    record: dict[str, Any] | None = ec2._security_groups.get(group_id)
    if record is None:
        raise ResourceFailedError(
            f"The security group '{group_id}' does not exist (InvalidGroup.NotFound)"
        )
    return record


def _permission(properties: Properties) -> dict[str, Any]:
    for name in ("SourceSecurityGroupId", "DestinationSecurityGroupId"):
        if source := properties.get(name):
            group(source)
    permission: dict[str, Any] = provisioners._ec2_sg_permissions([properties])[0]
    return permission


def _rule_type(direction: str) -> ResourceType:
    def create(_logical_id: str, properties: Properties, _stack: str) -> Resource:
        permission = _permission(properties)
        rules = group(properties["GroupId"]).setdefault(direction, [])
        if any(ec2._rules_match(permission, rule) for rule in rules):
            raise ResourceFailedError(
                "the specified rule already exists (InvalidPermission.Duplicate)"
            )
        rules.append(permission)
        rule_id = new_id("sgr")
        return rule_id, {"Id": rule_id}

    def update(rule_id: str, old: Properties, new: Properties, stack: str) -> Resource:
        delete(rule_id, old)
        create(rule_id, new, stack)
        return rule_id, {"Id": rule_id}

    def delete(_rule_id: str, properties: Properties) -> None:
        # By content: ministack keeps no id with a rule. No group, no rule: nothing to do.
        record = ec2._security_groups.get(properties["GroupId"])
        if record is None:
            return
        gone = provisioners._ec2_sg_permissions([properties])[0]
        record[direction] = [
            rule for rule in record.get(direction, []) if not ec2._rules_match(gone, rule)
        ]

    return {"create": create, "update": update, "delete": delete, "replacing": ("GroupId",)}


def users_of(group_id: str) -> list[str]:
    """Return the ids of what uses a security group and so hinders its deletion."""
    users = [
        instance["InstanceId"]
        for instance in ec2._instances.values()
        if instance["State"]["Name"] != "terminated"
        and any(g["GroupId"] == group_id for g in instance["SecurityGroups"])
    ]
    users += [
        interface["NetworkInterfaceId"]
        for interface in ec2._network_interfaces.values()
        if any(g["GroupId"] == group_id for g in interface["Groups"])
    ]
    for other in ec2._security_groups.values():
        rules = other.get("IpPermissions", []) + other.get("IpPermissionsEgress", [])
        pairs = [pair for rule in rules for pair in rule.get("UserIdGroupPairs", [])]
        if other["GroupId"] != group_id and any(p.get("GroupId") == group_id for p in pairs):
            users.append(other["GroupId"])
    return users


def delete_group(group_id: str, _properties: Properties) -> None:
    """Delete a group, which EC2 refuses while an instance or another group refers to it."""
    if users := users_of(group_id):
        raise ResourceFailedError(
            f"resource {group_id} has a dependent object: {users[0]} (DependencyViolation)"
        )
    ec2._security_groups.pop(group_id, None)
    ec2._tags.pop(group_id, None)


RESOURCE_TYPES: dict[str, ResourceType] = {
    "AWS::EC2::SecurityGroupIngress": _rule_type("IpPermissions"),
    "AWS::EC2::SecurityGroupEgress": _rule_type("IpPermissionsEgress"),
}


def mend() -> None:
    """Refuse to delete a security group that is in use."""
    native_handler("AWS::EC2::SecurityGroup")["delete"] = delete_group
