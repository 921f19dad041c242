"""VPC flow logs: the CloudFormation type, and a description with all its fields."""

from __future__ import annotations

from html import escape
from typing import Any

from ministack.services import ec2

from clusterbox.embedded.server.ministack_api import (
    Properties,
    Resource,
    ResourceFailedError,
    ResourceType,
    call,
    query_parameters,
    tag_list,
)

_STORE_OF = {
    "VPC": ("_vpcs", "InvalidVpcID.NotFound"),
    "Subnet": ("_subnets", "InvalidSubnetID.NotFound"),
    "NetworkInterface": ("_network_interfaces", "InvalidNetworkInterfaceID.NotFound"),
}
# Field of a record, and the element DescribeFlowLogs answers it in.
_ELEMENTS = {
    "FlowLogId": "flowLogId",
    "ResourceId": "resourceId",
    "TrafficType": "trafficType",
    "LogDestinationType": "logDestinationType",
    "LogDestination": "logDestination",
    "LogGroupName": "logGroupName",
    "LogFormat": "logFormat",
    "DeliverLogsPermissionArn": "deliverLogsPermissionArn",
    "MaxAggregationInterval": "maxAggregationInterval",
    "FlowLogStatus": "flowLogStatus",
    "CreationTime": "creationTime",
}


def create_flow_log(_logical_id: str, properties: Properties, _stack: str) -> Resource:
    """Create a flow log of an existing VPC, subnet or network interface."""
    kind, resource_id = properties["ResourceType"], properties["ResourceId"]
    if kind not in _STORE_OF:
        raise ResourceFailedError(f"ResourceType {kind!r}: use {', '.join(_STORE_OF)}")
    store, code = _STORE_OF[kind]
    if resource_id not in getattr(ec2, store):
        raise ResourceFailedError(f"{resource_id} does not exist ({code})")
    asked = query_parameters(
        {
            "ResourceId": [resource_id],
            "ResourceType": kind,
            "TrafficType": properties.get("TrafficType"),
            "LogDestinationType": properties.get("LogDestinationType"),
            "LogGroupName": properties.get("LogGroupName"),
            "LogDestination": properties.get("LogDestination"),
        }
    )
    call(ec2._create_flow_logs, asked)
    flow_log_id = next(reversed(list(ec2._flow_logs)))
    record = ec2._flow_logs[flow_log_id]
    for name in ("LogGroupName", "DeliverLogsPermissionArn", "LogFormat"):
        record[name] = properties.get(name)
    record["LogDestination"] = properties.get("LogDestination")
    record["MaxAggregationInterval"] = int(properties.get("MaxAggregationInterval", 600))
    ec2._tags[flow_log_id] = tag_list(properties)
    return flow_log_id, {"Id": flow_log_id}


def update_flow_log(
    flow_log_id: str, _old: Properties, properties: Properties, _stack: str
) -> Resource:
    """Change the tags; everything else replaces the flow log."""
    ec2._tags[flow_log_id] = tag_list(properties)
    return flow_log_id, {"Id": flow_log_id}


def delete_flow_log(flow_log_id: str, _properties: Properties) -> None:
    """Delete the flow log; one that is gone already is no error."""
    ec2._flow_logs.pop(flow_log_id, None)
    ec2._tags.pop(flow_log_id, None)


def describe_flow_logs(parameters: dict[str, Any]) -> Any:
    """Answer DescribeFlowLogs; ministack leaves out the log group, the role and the format."""
    ids = ec2._parse_member_list(parameters, "FlowLogId")
    filters = ec2._parse_filters(parameters)
    items = ""
    for record in ec2._flow_logs.values():
        flow_log_id = record["FlowLogId"]
        wanted = filters.get("resource-id") or [record["ResourceId"]]
        if (ids and flow_log_id not in ids) or record["ResourceId"] not in wanted:
            continue
        if not ec2._resource_matches_tag_filters(flow_log_id, filters):
            continue
        fields = "".join(
            f"<{element}>{escape(str(record[name]))}</{element}>"
            for name, element in _ELEMENTS.items()
            if record.get(name) is not None
        )
        items += f"<item>{fields}{ec2._tag_set_xml(flow_log_id)}</item>"
    return ec2._xml(200, "DescribeFlowLogsResponse", f"<flowLogSet>{items}</flowLogSet>")


RESOURCE_TYPES: dict[str, ResourceType] = {
    "AWS::EC2::FlowLog": {
        "create": create_flow_log,
        "update": update_flow_log,
        "delete": delete_flow_log,
        "replacing": (
            "DeliverLogsPermissionArn",
            "LogDestination",
            "LogDestinationType",
            "LogFormat",
            "LogGroupName",
            "MaxAggregationInterval",
            "ResourceId",
            "ResourceType",
            "TrafficType",
        ),
        "tags": "Tags",
    },
}


def mend() -> None:
    """Answer DescribeFlowLogs with every field."""
    ec2._ACTION_MAP["DescribeFlowLogs"] = describe_flow_logs
