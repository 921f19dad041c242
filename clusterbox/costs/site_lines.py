"""The lines of an environment beside its clusters: network, storage, admin box, key."""

from __future__ import annotations

from clusterbox.costs.lines import Line, Sheet
from clusterbox.costs.machines import DETAILED_METRICS, instance_note
from clusterbox.costs.prices import Prices
from clusterbox.site.environment import Environment


def site_lines(environment: Environment, prices: Prices) -> list[Line]:
    """Return the lines of what the environment's own stacks make."""
    return [
        *_network(environment, prices),
        *_storage(environment, prices),
        *_accounting(environment, prices),
        *_admin_box(environment, prices),
        *_site(prices),
    ]


def _network(environment: Environment, prices: Prices) -> list[Line]:
    network = environment.network
    sheet = Sheet("network", prices)
    if network.nat_gateways:
        count = network.nat_gateways
        sheet.add("NAT gateways", str(count), prices.find("vpc", "nat.hour"), idle=count)
        sheet.add(
            "public IPv4 of NAT gateways",
            str(count),
            prices.find("vpc", "public_ipv4"),
            idle=count,
        )
        sheet.add_usage("NAT gateway data", "vpc", "nat.gb", what="GB through the gateway")
    endpoints = network.interface_endpoints
    if endpoints is not None:
        services, subnets = len(endpoints.services), len(endpoints.subnets)
        sheet.add(
            "interface endpoints",
            f"{services} services x {subnets} zones",
            prices.find("vpc", "endpoint.hour"),
            idle=services * subnets,
        )
        sheet.add_usage("endpoint data", "vpc", "endpoint.gb", what="GB through the endpoints")
    if not network.exists:
        sheet.add_usage("flow logs", "cloudwatch", "logs.ingested", what="GB of flow logs")
    if network.private_zone is not None and network.private_zone.id is None:
        sheet.add(
            "private DNS zone", network.private_zone.name, prices.find("route53", "zone"), idle=1
        )
    sheet.add_usage("data to the internet", "data_transfer", "out", what="GB sent")
    sheet.add_usage(
        "data between zones", "data_transfer", "between_zones", what="GB each way between zones"
    )
    return sheet.lines


def _storage(environment: Environment, prices: Prices) -> list[Line]:
    sheet = Sheet("storage", prices)
    for name, plan in environment.storage.file_systems.items():
        if plan.id is not None:
            continue
        item = f"EFS {name}"
        sheet.add_usage(f"{item}, standard", "efs", "standard", what="GB stored")
        if plan.infrequent_access_days is not None:
            kind = "" if plan.throughput == "elastic" else "bursting."
            sheet.add_usage(
                f"{item}, infrequent access", "efs", f"{kind}infrequent_access", what="GB stored"
            )
        if plan.throughput == "elastic":
            sheet.add_usage(f"{item}, read", "efs", "elastic.read", what="GB read")
            sheet.add_usage(f"{item}, written", "efs", "elastic.write", what="GB written")
        if plan.backup_days:
            sheet.add_usage(f"{item}, backup", "efs", "backup", what="GB backed up")
    buckets = environment.storage.buckets
    for bucket in (buckets.cluster_config, buckets.logs, buckets.results):
        if not bucket.exists:
            sheet.add_usage(f"S3 {bucket.name}", "s3", "standard", what="GB stored")
            if bucket.infrequent_access_days is not None:
                sheet.add_usage(
                    f"S3 {bucket.name}, infrequent access",
                    "s3",
                    "infrequent_access",
                    what="GB stored",
                )
    return sheet.lines


def _accounting(environment: Environment, prices: Prices) -> list[Line]:
    database = environment.accounting_database
    if database is None or not database.is_made_here:
        return []
    sheet = Sheet("accounting database", prices)
    sheet.add(
        "Aurora Serverless v2",
        f"{database.min_acu} to {database.max_acu} ACU",
        prices.find("aurora", "serverless.acu"),
        idle=database.min_acu,
        worst=database.max_acu,
        note="grows while slurmdbd rolls up or is asked for much",
    )
    sheet.add("secret", "1", prices.find("secretsmanager", "secret"), idle=1)
    sheet.add_usage("storage", "aurora", "storage", what="GB of accounting records")
    sheet.add_usage("requests", "aurora", "io", what="million requests to the storage")
    return sheet.lines


def _admin_box(environment: Environment, prices: Prices) -> list[Line]:
    box = environment.admin_box
    if box is None:
        return []
    sheet = Sheet("admin box", prices)
    stops = box.idle_stop_minutes > 0
    running = 0 if stops else 1
    note = f"stops itself after {box.idle_stop_minutes} minutes without use" if stops else None
    sheet.add(
        "instance",
        box.instance_type,
        prices.instance(box.instance_type),
        idle=running,
        worst=1,
        note="; ".join(filter(None, [note, instance_note(box.instance_type, prices)])) or None,
    )
    sheet.add(
        "detailed monitoring",
        f"{DETAILED_METRICS} metrics",
        prices.find("cloudwatch", "metric"),
        idle=running * DETAILED_METRICS,
        worst=DETAILED_METRICS,
    )
    sheet.add_volume("root volume", kind="gp3", gib=box.root_gib, iops=None, mibps=None)
    return sheet.lines


def _site(prices: Prices) -> list[Line]:
    sheet = Sheet("site", prices)
    sheet.add("KMS key", "1", prices.find("kms", "key"), idle=1)
    return sheet.lines
