"""Read back what exists of a site, from the account itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from clusterbox.site import names
from clusterbox.site.environment import Environment

Client = Callable[[str], Any]


@dataclass(frozen=True)
class Item:
    """One thing that exists."""

    kind: str
    name: str
    id: str
    state: str
    detail: str


def fetch_inventory(client: Client, environment: Environment) -> list[Item]:
    """Return what exists of the environment, in the order in which a person would ask.

    `client` makes a boto3 client of a service. boto3's errors are let through.
    """
    states = fetch_stack_states(client)
    return [
        *_fetch_stacks(client, environment, states),
        *_fetch_network(client, environment),
        *_fetch_roles(client, environment, states),
        *_fetch_file_systems(client, environment),
        *_fetch_buckets(client, environment),
        *_fetch_accounting(client, environment),
        *_fetch_admin_box(client, environment),
        *_fetch_clusters(client, environment, states),
    ]


def fetch_stack_states(client: Client) -> dict[str, str]:
    """Return the state of every stack that exists, by name; nested stacks are left out.

    Listing needs no permission on stacks of others, which describing all of them would.
    """
    return {
        stack["StackName"]: stack["StackStatus"]
        for stack in _pages(client("cloudformation"), "list_stacks", "StackSummaries")
        if stack["StackStatus"] != "DELETE_COMPLETE" and "ParentId" not in stack
    }


def find_leftover_clusters(states: Mapping[str, str], environment: Environment) -> list[str]:
    """Return the clusters whose stacks stand though the environment does not name them any more."""
    prefix = names.cluster_stack_name(environment, "")
    known = {entry.name for entry in environment.clusters}
    found = [stack.removeprefix(prefix) for stack in sorted(states) if stack.startswith(prefix)]
    return [cluster for cluster in found if cluster not in known]


def find_leftover_stacks(
    states: Mapping[str, str], environment: Environment, stacks: Iterable[str]
) -> list[str]:
    """Return the site's own stacks, but for clusters, that stand and are none of `stacks`."""
    units = {names.stack_name(environment, unit) for unit in names.UNITS} - set(stacks)
    return sorted(units & states.keys())


def _is_of_site(stack: str, environment: Environment) -> bool:
    units = {names.stack_name(environment, unit) for unit in names.UNITS}
    return stack in units or stack.startswith(names.cluster_stack_name(environment, ""))


def _fetch_stacks(
    client: Client, environment: Environment, states: Mapping[str, str]
) -> Iterator[Item]:
    cloudformation = client("cloudformation")
    leftovers = find_leftover_clusters(states, environment)
    clusters = {*(entry.name for entry in environment.clusters), *leftovers}
    gone = {names.cluster_stack_name(environment, cluster) for cluster in leftovers}
    for name, state in states.items():
        if name in clusters:
            yield Item("stack", name, "", state, "made by ParallelCluster")
        elif _is_of_site(name, environment):
            (stack,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
            protection = "protected" if stack.get("EnableTerminationProtection") else ""
            detail = "no longer in the environment" if name in gone else protection
            yield Item("stack", name, "", state, detail)


def _fetch_network(client: Client, environment: Environment) -> Iterator[Item]:
    ec2 = client("ec2")
    vpc_id = environment.network.vpc.id or _fetch_parameter(
        client, environment, "network", "vpc-id"
    )
    if vpc_id is None:
        return
    known = {environment.network.subnet(name).id for name in environment.network.subnet_names}
    for vpc in ec2.describe_vpcs(VpcIds=[vpc_id])["Vpcs"]:
        cidrs = [item["CidrBlock"] for item in vpc.get("CidrBlockAssociationSet", [])]
        yield Item("vpc", _tag(vpc), vpc_id, vpc["State"], ", ".join(cidrs) or vpc["CidrBlock"])
    filters = [{"Name": "vpc-id", "Values": [vpc_id]}]
    for subnet in _pages(ec2, "describe_subnets", "Subnets", Filters=filters):
        if not environment.network.exists or subnet["SubnetId"] in known:
            zone = f"{subnet['CidrBlock']} in {subnet['AvailabilityZone']}"
            yield Item("subnet", _tag(subnet), subnet["SubnetId"], subnet["State"], zone)
    for group in _pages(ec2, "describe_security_groups", "SecurityGroups", Filters=filters):
        if _tag(group, names.TAG_ENVIRONMENT) == environment.name:
            rules = "; ".join(_describe_rule(rule) for rule in group["IpPermissions"])
            yield Item(
                "security group", _tag(group), group["GroupId"], "", rules or "nothing let in"
            )


def _fetch_roles(
    client: Client, environment: Environment, states: Mapping[str, str]
) -> Iterator[Item]:
    """Yield every role of every stack of the site, of its clusters and of the bootstrap."""
    iam, cloudformation = client("iam"), client("cloudformation")
    clusters = {entry.name for entry in environment.clusters}
    clusters |= set(find_leftover_clusters(states, environment))
    for stack in states:
        if not (
            _is_of_site(stack, environment) or stack in clusters or stack == names.BOOTSTRAP_STACK
        ):
            continue
        found = _pages(
            cloudformation, "list_stack_resources", "StackResourceSummaries", StackName=stack
        )
        for resource in found:
            gone = resource["ResourceStatus"] == "DELETE_COMPLETE"
            if resource["ResourceType"] != "AWS::IAM::Role" or gone:
                continue
            role = iam.get_role(RoleName=resource["PhysicalResourceId"])["Role"]
            boundary = role.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn", "")
            bounded = f"boundary {boundary.rpartition('/')[2]}" if boundary else "NO BOUNDARY"
            yield Item("role", role["RoleName"], role["Arn"], "", bounded)


def _fetch_file_systems(client: Client, environment: Environment) -> Iterator[Item]:
    efs = client("efs")
    existing = {item.id for item in environment.storage.file_systems.values() if item.id}
    for page in efs.get_paginator("describe_file_systems").paginate():
        for system in page["FileSystems"]:
            identity = system["FileSystemId"]
            if identity not in existing and _tag(system, names.TAG_ENVIRONMENT) != environment.name:
                continue
            sealed = "encrypted" if system.get("Encrypted") else "NOT ENCRYPTED"
            yield Item("file system", _tag(system), identity, system["LifeCycleState"], sealed)
            for target in efs.describe_mount_targets(FileSystemId=identity)["MountTargets"]:
                where = f"{target.get('IpAddress', '')} in {target['SubnetId']}"
                yield Item(
                    "mount target",
                    _tag(system),
                    target["MountTargetId"],
                    target["LifeCycleState"],
                    where,
                )


def _fetch_buckets(client: Client, environment: Environment) -> Iterator[Item]:
    from botocore.exceptions import ClientError

    s3 = client("s3")
    buckets = environment.storage.buckets
    for purpose in type(buckets).model_fields:
        bucket = getattr(buckets, purpose)
        try:
            s3.head_bucket(Bucket=bucket.name)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == HTTPStatus.NOT_FOUND:
                continue
            raise
        versions = s3.get_bucket_versioning(Bucket=bucket.name).get("Status", "not versioned")
        owner = "exists outside of the site" if bucket.exists else "made by the site"
        yield Item("bucket", bucket.name, purpose, f"versioning {versions}".lower(), owner)


def _fetch_accounting(client: Client, environment: Environment) -> Iterator[Item]:
    database = environment.accounting_database
    if database is None or not database.is_made_here:
        return
    name, rds = names.accounting_name(environment), client("rds")
    try:
        (server,) = rds.describe_db_clusters(DBClusterIdentifier=name)["DBClusters"]
    except rds.exceptions.DBClusterNotFoundFault:
        return
    sealed = "encrypted" if server["StorageEncrypted"] else "NOT ENCRYPTED"
    detail = f"{sealed}, {server['Endpoint']}:{server['Port']}"
    yield Item("database", name, "", server["Status"], detail)


def _fetch_admin_box(client: Client, environment: Environment) -> Iterator[Item]:
    if environment.admin_box is None:
        return
    filters = [
        {"Name": "tag:Name", "Values": [environment.admin_box.name]},
        {"Name": "tag:Environment", "Values": [environment.name]},
    ]
    for instance in _fetch_instances(client, filters):
        zone = environment.network.private_zone
        name = f", {environment.admin_box.name}.{zone.name}" if zone else ""
        yield _machine("admin box", environment.admin_box.name, instance, name)


def _fetch_clusters(
    client: Client, environment: Environment, states: Mapping[str, str]
) -> Iterator[Item]:
    configs = {entry.name: entry.config for entry in environment.clusters}
    for leftover in find_leftover_clusters(states, environment):
        configs[leftover] = "no longer in the environment"
    for name, config in configs.items():
        filters = [
            {"Name": f"tag:{names.TAG_CLUSTER}", "Values": [name]},
            {"Name": f"tag:{names.TAG_NODE_TYPE}", "Values": ["HeadNode"]},
        ]
        for instance in _fetch_instances(client, filters):
            yield _machine("cluster", name, instance, f", head node, {config}")


def _fetch_instances(client: Client, filters: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for reservation in _pages(client("ec2"), "describe_instances", "Reservations", Filters=filters):
        for instance in reservation["Instances"]:
            if instance["State"]["Name"] != "terminated":
                yield instance


def _machine(kind: str, name: str, instance: dict[str, Any], more: str) -> Item:
    address = instance.get("PrivateIpAddress", "no address")
    detail = f"{address}, {instance['InstanceType']}{more}"
    return Item(kind, name, instance["InstanceId"], instance["State"]["Name"], detail)


def _fetch_parameter(client: Client, environment: Environment, *parts: str) -> str | None:
    ssm = client("ssm")
    found = ssm.get_parameters(Names=[names.parameter_path(environment, *parts)])["Parameters"]
    return str(found[0]["Value"]) if found else None


def _pages(service: Any, operation: str, key: str, **arguments: Any) -> Iterator[dict[str, Any]]:
    for page in service.get_paginator(operation).paginate(**arguments):
        yield from page[key]


def _tag(resource: dict[str, Any], key: str = "Name") -> str:
    tags = {tag["Key"]: tag["Value"] for tag in resource.get("Tags") or []}
    return str(tags.get(key, ""))


def _describe_rule(rule: dict[str, Any]) -> str:
    sources = [item["CidrIp"] for item in rule.get("IpRanges", [])]
    sources += [item["GroupId"] for item in rule.get("UserIdGroupPairs", [])]
    ports = "all" if rule["IpProtocol"] == "-1" else f"{rule['IpProtocol']} {rule.get('FromPort')}"
    return f"{ports} from {', '.join(sources)}"
