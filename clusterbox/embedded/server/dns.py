"""Route 53 private hosted zones: the VPCs of a zone made by CloudFormation."""

from __future__ import annotations

from typing import Any

from ministack.services import route53

from clusterbox.embedded.server.ministack_api import (
    Properties,
    Resource,
    ResourceFailedError,
    ResourceType,
    native_handler,
)

RESOURCE_TYPES: dict[str, ResourceType] = {}

# The two records every zone has and that do not hinder its deletion.
_OWN_RECORD_TYPES = ("NS", "SOA")


def _vpcs(properties: Properties) -> list[dict[str, Any]]:
    return [
        {"VPCRegion": vpc["VPCRegion"], "VPCId": vpc["VPCId"]}
        for vpc in properties.get("VPCs") or []
    ]


def _set_details(zone_id: str, properties: Properties) -> None:
    zone = route53._zones[zone_id]
    zone["vpcs"] = _vpcs(properties)
    zone["private"] = bool(zone["vpcs"])
    tags = {str(t["Key"]): str(t["Value"]) for t in properties.get("HostedZoneTags") or []}
    if tags:
        route53._tags[("hostedzone", zone_id)] = tags


def delete_zone(zone_id: str, _properties: Properties) -> None:
    """Delete a zone, which Route 53 refuses while it holds records."""
    records = route53._records.get(zone_id, [])
    if any(record["Type"] not in _OWN_RECORD_TYPES for record in records):
        raise ResourceFailedError(
            "The specified hosted zone contains non-required resource record sets and so cannot "
            "be deleted (HostedZoneNotEmpty)"
        )
    route53._zones.pop(zone_id, None)
    route53._records.pop(zone_id, None)


def mend() -> None:
    """Keep a zone's VPCs and tags, and refuse to delete a zone that is in use."""
    entry = native_handler("AWS::Route53::HostedZone")
    create, update = entry["create"], entry["update"]

    def create_zone(logical_id: str, properties: Properties, stack: str) -> Resource:
        zone_id, attributes = create(logical_id, properties, stack)
        _set_details(zone_id, properties)
        return zone_id, attributes

    def update_zone(
        zone_id: str, old: Properties, new: Properties, stack: str, logical_id: str | None = None
    ) -> Resource:
        zone_id, attributes = update(zone_id, old, new, stack, logical_id)
        _set_details(zone_id, new)
        return zone_id, attributes

    entry |= {"create": create_zone, "update": update_zone, "delete": delete_zone}
