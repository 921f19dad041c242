"""CloudWatch composite alarms."""

from __future__ import annotations

from typing import Any

from ministack.services import cloudwatch
from ministack.services.cloudformation import provisioners

from clusterbox.embedded.server.ministack_api import (
    Properties,
    Resource,
    ResourceType,
    call,
    is_true,
    physical_name,
    tag_list,
)


def _put(name: str, properties: Properties) -> Resource:
    body = {key: value for key, value in properties.items() if key != "Tags"}
    body |= {"AlarmName": name, "ActionsEnabled": is_true(properties.get("ActionsEnabled", True))}
    if tags := tag_list(properties):
        body["Tags"] = tags
    call(cloudwatch._put_composite_alarm, {}, body, False, True)
    return name, {"Arn": cloudwatch._composite_alarms[name]["AlarmArn"]}


def create_composite_alarm(logical_id: str, properties: Properties, stack: str) -> Resource:
    """Create the alarm; the alarms its rule names have to exist."""
    return _put(properties.get("AlarmName") or physical_name(stack, logical_id, 255), properties)


def update_composite_alarm(
    name: str, _old: Properties, properties: Properties, _stack: str
) -> Resource:
    """Change rule, actions and description in place."""
    return _put(name, properties)


def delete_composite_alarm(name: str, _properties: Properties) -> None:
    """Delete the alarm; one that is gone already is no error."""
    call(cloudwatch._delete_alarms, {}, {"AlarmNames": [name]}, False, True)


RESOURCE_TYPES: dict[str, ResourceType] = {
    "AWS::CloudWatch::CompositeAlarm": {
        "create": create_composite_alarm,
        "update": update_composite_alarm,
        "delete": delete_composite_alarm,
        "replacing": ("AlarmName",),
    },
}


def mend() -> None:
    """Keep alarms on metric expressions, which ministack refuses; they are never evaluated."""
    native_record = provisioners._cw_metric_alarm_record

    def alarm_record(name: str, properties: Properties) -> dict[str, Any]:
        queries = properties.get("Metrics")
        if not queries:
            return dict(native_record(name, properties))
        stood_in = {key: value for key, value in properties.items() if key != "Metrics"}
        stood_in |= {"MetricName": "-", "Namespace": "-"}
        record = dict(native_record(name, stood_in))
        single = ("MetricName", "Namespace", "Statistic", "Period", "Dimensions", "Unit")
        record |= dict.fromkeys(single)
        return {**record, "Dimensions": [], "Metrics": [_query(query) for query in queries]}

    provisioners._cw_metric_alarm_record = alarm_record


def _query(query: dict[str, Any]) -> dict[str, Any]:
    """Return a metric query with the types of the API: a template may write numbers as text."""
    typed = {"ReturnData": is_true(query.get("ReturnData", True)), "Label": query["Id"]}
    typed |= {key: value for key, value in query.items() if key != "ReturnData"}
    if stat := query.get("MetricStat"):
        typed["MetricStat"] = {**stat, "Period": int(stat["Period"])}
    return typed
