"""What is in an account and costs money: machines, disks, file systems, buckets and network.

Everything is read page by page, a few lists at a time: memory holds a page of answers of each, and
the items. What cannot be read is a gap of the account (`clusterbox.aws`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

from clusterbox.aws import Account, tags_of
from clusterbox.costs import report_prices as cost_of
from clusterbox.costs.inventory_storage import read_buckets, read_file_systems, read_fsx
from clusterbox.costs.item import Item, make_item
from clusterbox.costs.price import Confidence, Key, Price, Unknown
from clusterbox.costs.prices import Prices
from clusterbox.costs.report_prices import NOTHING

# The largest pages that EC2, EFS, FSx and Elastic Load Balancing give.
EC2_PAGE = 1000
TEMPLATES_PAGE = 200
# While one list waits for AWS, another is parsed.
LISTS_AT_ONCE = 4
# EC2 bills nothing from here on.
_GONE = ("shutting-down", "terminated")
# Tags that AWS Backup and Data Lifecycle Manager put on what they make.
_BACKUP_TAGS = ("aws:backup:", "aws:dlm:")
_STATES = ("pending", "running", "stopping", "stopped")


def read_items(account: Account, prices: Prices, today: datetime) -> Iterator[Item]:
    """Yield everything of an account in its region that costs money, and its own images."""
    readers: list[Callable[[Account, Prices], Iterator[Item]]] = [
        _read_instances,
        _read_volumes,
        _read_snapshots,
        _read_images,
        _read_addresses,
        _read_nat_gateways,
        _read_endpoints,
        _read_load_balancers,
        read_file_systems,
        read_fsx,
        partial(read_buckets, today=today),
    ]

    def read(reader: Callable[[Account, Prices], Iterator[Item]]) -> list[Item]:
        return list(reader(account, prices))

    with ThreadPoolExecutor(LISTS_AT_ONCE) as pool:
        for items in pool.map(read, readers):
            yield from items


def read_template_uses(account: Account) -> Iterator[str]:
    """Yield the images and snapshots that the newest and default versions of launch templates use.

    An image by the name of a parameter is `resolve:ssm:NAME`, as the template has it.
    """
    for version in account.pages(
        "ec2",
        "describe_launch_template_versions",
        "LaunchTemplateVersions",
        page_size=TEMPLATES_PAGE,
        Versions=["$Latest", "$Default"],
    ):
        data = version.get("LaunchTemplateData", {})
        disks = data.get("BlockDeviceMappings") or ()
        named = [data.get("ImageId"), *(disk.get("Ebs", {}).get("SnapshotId") for disk in disks)]
        yield from (str(name) for name in named if name)


def read_busiest_hour(account: Account, instance_id: str, now: datetime) -> Decimal | None:
    """Return the highest hourly mean of an instance's CPU use in the last 24 hours, in percent.

    None where CloudWatch has no figure.
    """
    answer = account.ask(
        "cloudwatch",
        "get_metric_statistics",
        Namespace="AWS/EC2",
        MetricName="CPUUtilization",
        Dimensions=[{"Name": "InstanceId", "Value": instance_id}],
        StartTime=now - timedelta(days=1),
        EndTime=now,
        Period=3600,
        Statistics=["Average"],
    )
    points = (answer or {}).get("Datapoints") or ()
    return max((Decimal(str(point["Average"])) for point in points), default=None)


class _Spot:
    """Spot prices of now, asked once for each type that runs as Spot."""

    def __init__(self, account: Account, prices: Prices) -> None:
        self._account = account
        self._prices = prices
        self._by_type: dict[str, dict[str, Decimal]] = {}

    def find(self, kind: str, zone: str) -> Price | Unknown:
        """Return the price of now in the zone, else the mean of the history that was refreshed."""
        if kind not in self._by_type:
            self._by_type[kind] = {
                entry["AvailabilityZone"]: Decimal(entry["SpotPrice"])
                for entry in self._account.pages(
                    "ec2",
                    "describe_spot_price_history",
                    "SpotPriceHistory",
                    InstanceTypes=[kind],
                    ProductDescriptions=["Linux/UNIX"],
                    StartTime=datetime.now(UTC),
                )
            }
        usd = self._by_type[kind].get(zone)
        if usd is not None:
            return Price(usd, "hour", Confidence.PUBLISHED, f"Spot price of now in {zone}")
        known = self._prices.spot(kind)
        if isinstance(known, Price):
            return known
        on_demand = self._prices.instance(kind)
        more = f"; on demand {on_demand.usd} USD/hour" if isinstance(on_demand, Price) else ""
        return Unknown(
            Key("ec2/spot", kind), self._prices.region, f"EC2 tells none for {zone}{more}"
        )


def _read_instances(account: Account, prices: Prices) -> Iterator[Item]:
    spot = _Spot(account, prices)
    for reservation in account.pages(
        "ec2",
        "describe_instances",
        "Reservations",
        page_size=EC2_PAGE,
        Filters=[{"Name": "instance-state-name", "Values": list(_STATES)}],
    ):
        for instance in reservation["Instances"]:
            if instance["State"]["Name"] not in _GONE:
                yield _instance(account, instance, prices, spot)
                yield from _public_addresses(account, instance, prices)


def _instance(account: Account, instance: Mapping[str, Any], prices: Prices, spot: _Spot) -> Item:
    kind = str(instance["InstanceType"])
    lifecycle = instance.get("InstanceLifecycle")
    is_spot = lifecycle == "spot"
    zone = str(instance.get("Placement", {}).get("AvailabilityZone", ""))
    return make_item(
        account,
        "instance",
        instance["InstanceId"],
        instance,
        cost_of.instance_cost(instance, prices, spot.find(kind, zone) if is_spot else None),
        state=instance["State"]["Name"],
        ip=instance.get("PrivateIpAddress", ""),
        type=kind,
        purchase=str(lifecycle or "on-demand"),
        created=instance.get("LaunchTime"),
        links=tuple(filter(None, [instance.get("ImageId")])),
        disks=tuple(
            mapping["Ebs"]["VolumeId"]
            for mapping in instance.get("BlockDeviceMappings") or ()
            if "Ebs" in mapping
        ),
    )


def _public_addresses(
    account: Account, instance: Mapping[str, Any], prices: Prices
) -> Iterator[Item]:
    """Yield the public addresses that EC2 lent to a machine; those of its owner are listed apart."""
    for interface in instance.get("NetworkInterfaces") or ():
        for address in interface.get("PrivateIpAddresses") or ():
            lent = address.get("Association") or {}
            if lent.get("IpOwnerId") == "amazon":
                price = prices.find("vpc", "public_ipv4")
                yield make_item(
                    account,
                    "address",
                    lent["PublicIp"],
                    instance,
                    cost_of.hourly_cost(price),
                    state="associated",
                    ip=lent["PublicIp"],
                    type="lent",
                    links=(instance["InstanceId"],),
                )


def _read_volumes(account: Account, prices: Prices) -> Iterator[Item]:
    for volume in account.pages("ec2", "describe_volumes", "Volumes", page_size=EC2_PAGE):
        yield make_item(
            account,
            "volume",
            volume["VolumeId"],
            volume,
            cost_of.volume_cost(volume, prices),
            state=volume["State"],
            type=volume.get("VolumeType", "standard"),
            quantity=f"{volume['Size']} GiB",
            created=volume.get("CreateTime"),
            links=tuple(
                attached["InstanceId"]
                for attached in volume.get("Attachments") or ()
                if attached.get("InstanceId")
            ),
        )


def _read_snapshots(account: Account, prices: Prices) -> Iterator[Item]:
    for snapshot in account.pages(
        "ec2", "describe_snapshots", "Snapshots", page_size=EC2_PAGE, OwnerIds=["self"]
    ):
        yield make_item(
            account,
            "snapshot",
            snapshot["SnapshotId"],
            snapshot,
            cost_of.snapshot_cost(snapshot, prices),
            state=snapshot["State"],
            type="backup" if _is_backup(snapshot) else snapshot.get("StorageTier", "standard"),
            quantity=f"{snapshot['VolumeSize']} GiB",
            created=snapshot.get("StartTime"),
            links=tuple(filter(None, [snapshot.get("VolumeId")])),
        )


def _is_backup(entry: Mapping[str, Any]) -> bool:
    """Return whether AWS Backup or Data Lifecycle Manager made it: it goes with its plan."""
    text = str(entry.get("Description", ""))
    return text.startswith("This snapshot is created by the AWS") or any(
        key.startswith(_BACKUP_TAGS) for key in tags_of(entry)
    )


def _read_images(account: Account, _prices: Prices) -> Iterator[Item]:
    """Yield the account's own images; what costs are their snapshots."""
    for image in account.pages(
        "ec2",
        "describe_images",
        "Images",
        page_size=EC2_PAGE,
        Owners=["self"],
        # A disabled image can be enabled again, and keeps its snapshots.
        IncludeDisabled=True,
    ):
        created = image.get("CreationDate")
        yield make_item(
            account,
            "image",
            image["ImageId"],
            {"Tags": [{"Key": "Name", "Value": image.get("Name", "")}, *(image.get("Tags") or ())]},
            NOTHING,
            state=image.get("State", ""),
            type="backup" if _is_backup(image) else "",
            created=datetime.fromisoformat(created) if created else None,
            links=tuple(
                mapping["Ebs"]["SnapshotId"]
                for mapping in image.get("BlockDeviceMappings") or ()
                if mapping.get("Ebs", {}).get("SnapshotId")
            ),
        )


def _read_addresses(account: Account, prices: Prices) -> Iterator[Item]:
    answer = account.ask("ec2", "describe_addresses")
    for address in (answer or {}).get("Addresses") or ():
        used = address.get("AssociationId") or address.get("InstanceId")
        yield make_item(
            account,
            "address",
            address.get("AllocationId", address["PublicIp"]),
            address,
            cost_of.hourly_cost(prices.find("vpc", "public_ipv4")),
            state="associated" if used else "unassociated",
            ip=address["PublicIp"],
            type="elastic",
            links=tuple(filter(None, [address.get("InstanceId")])),
        )


def _read_nat_gateways(account: Account, prices: Prices) -> Iterator[Item]:
    for gateway in account.pages("ec2", "describe_nat_gateways", "NatGateways", page_size=EC2_PAGE):
        if gateway["State"] not in ("deleted", "deleting", "failed"):
            price = prices.find("vpc", "nat.hour")
            yield make_item(
                account,
                "NAT gateway",
                gateway["NatGatewayId"],
                gateway,
                cost_of.hourly_cost(price, note="without the data that goes through it"),
                state=gateway["State"],
                created=gateway.get("CreateTime"),
            )


def _read_endpoints(account: Account, prices: Prices) -> Iterator[Item]:
    for endpoint in account.pages(
        "ec2", "describe_vpc_endpoints", "VpcEndpoints", page_size=EC2_PAGE
    ):
        kind = endpoint.get("VpcEndpointType", "Gateway")
        if kind == "Gateway" or str(endpoint["State"]).lower() in ("deleted", "deleting"):
            continue  # Gateways cost nothing.
        zones = len(endpoint.get("SubnetIds") or ()) or 1
        name = "endpoint.hour" if kind == "Interface" else f"endpoint.{kind}.hour"
        price = prices.find("vpc", name)
        yield make_item(
            account,
            "endpoint",
            endpoint["VpcEndpointId"],
            endpoint,
            cost_of.hourly_cost(price, zones, note="without the data that goes through it"),
            state=str(endpoint["State"]).lower(),
            type=str(endpoint.get("ServiceName", "")).rpartition(".")[2],
            quantity=f"{zones} zone{'s' if zones > 1 else ''}",
            created=endpoint.get("CreationTimestamp"),
        )


def _read_load_balancers(account: Account, prices: Prices) -> Iterator[Item]:
    for balancer in account.pages("elbv2", "describe_load_balancers", "LoadBalancers"):
        price = prices.find("load_balancer", f"{balancer['Type']}.hour")
        yield make_item(
            account,
            "load balancer",
            balancer["LoadBalancerArn"].partition("loadbalancer/")[2],
            {"Tags": [{"Key": "Name", "Value": balancer["LoadBalancerName"]}]},
            cost_of.hourly_cost(price, note="without the units that it is used"),
            state=balancer.get("State", {}).get("Code", ""),
            type=balancer["Type"],
            created=balancer.get("CreatedTime"),
        )
