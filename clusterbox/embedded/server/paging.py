"""EC2's long lists as AWS gives them: in pages where `MaxResults` is asked for, and of everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ministack.services import ec2

from clusterbox.embedded.server.ministack_api import ResourceType, account_id

RESOURCE_TYPES: dict[str, ResourceType] = {}

Record = Mapping[str, Any]


@dataclass(frozen=True)
class _List:
    """One list: its records, which of them a request's filters match, and how one is written."""

    element: str
    records: Callable[[], Mapping[str, Any]]
    matches: Callable[[Record, Any], bool]
    render: Callable[[Record], str]


def _render_reservation(instance: Record) -> str:
    # ministack has one reservation for each instance.
    return (
        f"<item><reservationId>r-{instance['InstanceId'][2:]}</reservationId>"
        f"<ownerId>{account_id()}</ownerId><groupSet/>"
        f"<instancesSet>{ec2._instance_xml(instance)}</instancesSet></item>"
    )


def _matches_volume(volume: Record, filters: Any) -> bool:
    return bool(
        ec2._resource_matches_tag_filters(volume["VolumeId"], filters)
        and ec2._volume_matches_filters(volume, filters)
    )


def _matches_snapshot(snapshot: Record, filters: Any) -> bool:
    return bool(
        ec2._resource_matches_tag_filters(snapshot["SnapshotId"], filters)
        and ec2._snapshot_matches_filters(snapshot, filters)
    )


_LISTS = {
    "DescribeInstances": _List(
        "reservationSet",
        lambda: ec2._instances,
        lambda instance, filters: bool(ec2._matches_filters(instance, filters)),
        _render_reservation,
    ),
    "DescribeVolumes": _List(
        "volumeSet",
        lambda: ec2._volumes,
        _matches_volume,
        lambda volume: f"<item>{ec2._volume_inner_xml(volume)}</item>",
    ),
    "DescribeSnapshots": _List(
        "snapshotSet",
        lambda: ec2._snapshots,
        _matches_snapshot,
        lambda snapshot: f"<item>{ec2._snapshot_inner_xml(snapshot)}</item>",
    ),
}


def _paged(name: str, described: _List, whole: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the action that answers in pages where they are asked for; a token is an offset."""

    def describe(parameters: Any) -> Any:
        size, token = ec2._p(parameters, "MaxResults"), ec2._p(parameters, "NextToken")
        if not size and not token:
            return whole(parameters)
        if not 5 <= int(size or 1000) <= 1000:
            return ec2._error(
                "InvalidParameterValue", f"Value ( {size} ) for maxResults is invalid", 400
            )
        if token and not token.isdigit():
            return ec2._error("InvalidNextToken", f"The token '{token}' is invalid", 400)
        start, many = int(token or 0), int(size or 1000)
        filters = ec2._parse_filters(parameters)

        def found() -> Iterator[Record]:
            for record in described.records().values():
                if described.matches(record, filters):
                    yield record

        # One record more than the page tells whether another page follows.
        page = list(islice(found(), start, start + many + 1))
        items = "".join(described.render(record) for record in page[:many])
        more = f"<nextToken>{start + many}</nextToken>" if len(page) > many else ""
        inner = f"<{described.element}>{items}</{described.element}>{more}"
        return ec2._xml(200, f"{name}Response", inner)

    return describe


def _all_templates(describe: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the action that answers for all launch templates where none is named."""
    element = "launchTemplateVersionSet"

    def describe_versions(parameters: Any) -> Any:
        if ec2._p(parameters, "LaunchTemplateId") or ec2._p(parameters, "LaunchTemplateName"):
            return describe(parameters)
        found = ""
        for identity in list(ec2._launch_templates.keys()):
            _, _, body = describe({**parameters, "LaunchTemplateId": [identity]})
            found += body.decode().partition(f"<{element}>")[2].partition(f"</{element}>")[0]
        inner = f"<{element}>{found}</{element}>"
        return ec2._xml(200, "DescribeLaunchTemplateVersionsResponse", inner)

    return describe_versions


def mend() -> None:
    """Give instances, volumes and snapshots in pages, and versions of all launch templates.

    Every snapshot is the account's own.
    """
    versions = "DescribeLaunchTemplateVersions"
    ec2._ACTION_MAP[versions] = _all_templates(ec2._ACTION_MAP[versions])
    for name, described in _LISTS.items():
        ec2._ACTION_MAP[name] = _paged(name, described, ec2._ACTION_MAP[name])
