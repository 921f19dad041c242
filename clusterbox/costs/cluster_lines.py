"""The lines of one cluster, from its native ParallelCluster configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clusterbox.clusters.composed import ComposedCluster
from clusterbox.costs.cluster_storage import add_root_volume, add_shared_storage
from clusterbox.costs.lines import Line, Sheet, rate, times
from clusterbox.costs.machines import DETAILED_METRICS, choose_prices, instance_note
from clusterbox.costs.native import decimal, mapping, mappings, number
from clusterbox.costs.price import HOURS_PER_MONTH, Unknown
from clusterbox.costs.prices import Prices
from clusterbox.site.yaml_file import value_at

# ParallelCluster's MaxCount where the configuration gives none.
MOST_NODES = 10
# Alarms on the head node: health, CPU, memory, disk, and one on the logs where they are kept.
HEAD_NODE_ALARMS = 4


def cluster_lines(cluster: ComposedCluster, prices: Prices) -> list[Line]:
    """Return the lines of a cluster: machines with their disks, its own storage, monitoring."""
    sheet = Sheet(cluster.name, prices)
    config = cluster.configuration
    _head_node(sheet, cluster)
    for pool in mappings(value_at(config, ("LoginNodes", "Pools"))):
        _login_pool(sheet, cluster, pool)
    for queue in mappings(value_at(config, ("Scheduling", "SlurmQueues"))):
        _queue(sheet, cluster, queue)
    for storage in mappings(config.get("SharedStorage")):
        add_shared_storage(sheet, storage)
    _monitoring(sheet, config)
    return sheet.lines


def _head_node(sheet: Sheet, cluster: ComposedCluster) -> None:
    head = mapping(cluster.configuration.get("HeadNode"))
    _machine(sheet, "head node", str(head.get("InstanceType")), cluster.configuration)
    add_root_volume(sheet, "head node root volume", cluster, head)
    if value_at(head, ("Networking", "ElasticIp")):
        sheet.add("head node public IPv4", "1", sheet.prices.find("vpc", "public_ipv4"), idle=1)
    if head.get("SharedStorageType") == "Efs":
        sheet.add_usage("EFS of the head node", "efs", "standard", what="GB stored")


def _login_pool(sheet: Sheet, cluster: ComposedCluster, pool: Mapping[str, Any]) -> None:
    name = f"login pool {pool.get('Name')}"
    count = number(pool.get("Count"), 1)
    _machine(sheet, name, str(pool.get("InstanceType")), cluster.configuration, count)
    add_root_volume(sheet, f"{name} root volumes", cluster, pool, idle=count)
    sheet.add(
        f"{name} load balancer",
        "1",
        sheet.prices.find("load_balancer", "network.hour"),
        idle=1,
        note=_capacity_note(sheet.prices),
    )


def _capacity_note(prices: Prices) -> str:
    unit = prices.find("load_balancer", "network.unit")
    return f"and {unit if isinstance(unit, Unknown) else rate(unit)} of capacity that is used"


def _queue(sheet: Sheet, cluster: ComposedCluster, queue: Mapping[str, Any]) -> None:
    settings = mapping(queue.get("ComputeSettings"))
    public = value_at(queue, ("Networking", "AssignPublicIp")) is True
    for resource in mappings(queue.get("ComputeResources")):
        name = f"queue {queue.get('Name')}/{resource.get('Name')}"
        idle = number(resource.get("MinCount"), 0)
        worst = max(idle, number(resource.get("MaxCount"), MOST_NODES))
        _nodes(sheet, name, queue, resource, idle, worst)
        add_root_volume(sheet, f"{name} root volumes", cluster, settings, idle=idle, worst=worst)
        if public:
            sheet.add(
                f"{name} public IPv4",
                f"{times(idle, worst)}address",
                sheet.prices.find("vpc", "public_ipv4"),
                idle=idle,
                worst=worst,
            )
        _detailed_monitoring(sheet, name, cluster.configuration, idle, worst)


def _nodes(
    sheet: Sheet,
    name: str,
    queue: Mapping[str, Any],
    resource: Mapping[str, Any],
    idle: int,
    worst: int,
) -> None:
    """Write the instances of a compute resource, each with the price that counts for it."""
    types = [
        str(entry.get("InstanceType"))
        for entry in mappings(resource.get("Instances"))
        if entry.get("InstanceType")
    ]
    if resource.get("InstanceType"):
        types = [str(resource["InstanceType"])]
    capacity = str(queue.get("CapacityType", "ONDEMAND")).upper()
    quantity = f"{times(idle, worst)}{_name_types(types)}"
    if not types or capacity == "CAPACITY_BLOCK":
        why = (
            "its capacity reservation" if not types else "a capacity block, paid when it is bought"
        )
        sheet.add_unknown(name, quantity, f"the price is that of {why}")
        return
    choice = choose_prices(
        types,
        sheet.prices,
        strategy=str(queue.get("AllocationStrategy", "lowest-price")),
        spot=capacity == "SPOT",
        limit=decimal(resource.get("SpotPrice")) if capacity == "SPOT" else None,
    )
    if isinstance(choice.idle, Unknown) or isinstance(choice.worst, Unknown):
        sheet.add_unknown(name, quantity, choice.unknown or str(choice.worst))
        return
    hours = HOURS_PER_MONTH
    sheet.lines.append(
        Line(
            sheet.part,
            name,
            quantity,
            choice.idle.usd * hours * idle,
            choice.worst.usd * hours * worst,
            choice.unknown,
            choice.note,
        )
    )


def _machine(
    sheet: Sheet, item: str, instance_type: str, config: Mapping[str, Any], count: int = 1
) -> None:
    """Write instances that always run, of one type."""
    sheet.add(
        item,
        f"{times(count, count)}{instance_type}",
        sheet.prices.instance(instance_type),
        idle=count,
        note=instance_note(instance_type, sheet.prices),
    )
    _detailed_monitoring(sheet, item, config, count, count)


def _monitoring(sheet: Sheet, config: Mapping[str, Any]) -> None:
    logs = value_at(config, ("Monitoring", "Logs", "CloudWatch", "Enabled")) is not False
    if value_at(config, ("Monitoring", "Dashboards", "CloudWatch", "Enabled")) is not False:
        sheet.add(
            "dashboard",
            "1",
            sheet.prices.find("cloudwatch", "dashboard"),
            idle=1,
            note="an account's first 3 cost nothing",
        )
    if value_at(config, ("Monitoring", "Alarms", "Enabled")) is not False:
        count = HEAD_NODE_ALARMS + logs
        sheet.add(
            "head node alarms",
            str(count),
            sheet.prices.find("cloudwatch", "alarm"),
            idle=count,
            note="an account's first 10 cost nothing",
        )
        sheet.add(
            "head node composite alarm",
            "1",
            sheet.prices.find("cloudwatch", "alarm.composite"),
            idle=1,
        )
    if logs:
        sheet.add_usage("logs", "cloudwatch", "logs.ingested", what="GB of logs")


def _detailed_monitoring(
    sheet: Sheet, item: str, config: Mapping[str, Any], idle: int, worst: int
) -> None:
    if value_at(config, ("Monitoring", "DetailedMonitoring")) is not True:
        return
    sheet.add(
        f"{item} detailed monitoring",
        f"{times(idle, worst)}{DETAILED_METRICS} metrics",
        sheet.prices.find("cloudwatch", "metric"),
        idle=idle * DETAILED_METRICS,
        worst=worst * DETAILED_METRICS,
    )


def _name_types(types: list[str]) -> str:
    if not types:
        return "instances of a reservation"
    return types[0] if len(types) == 1 else f"one of {', '.join(types)}"
