"""Rules of the site that a cluster stands in: its roles, network, images, tags and addresses.

What ParallelCluster's validators tell with the site's facts is not repeated here: an image for
another version, operating system or architecture, a root volume smaller than the image, subnets of
two VPCs. Left are the cases that its validators pass over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from clusterbox.clusters.compose import offline_values
from clusterbox.clusters.composed import ComposedCluster
from clusterbox.clusters.general_rules import Found
from clusterbox.clusters.sections import (
    architecture,
    compute_resources,
    is_true,
    node_sections,
    pools,
    queues,
    section,
    shared_storage,
    values_of,
)
from clusterbox.errors import ProblemsError
from clusterbox.site.addresses import plan_addresses
from clusterbox.site.demands import DEFAULT_MAX_COUNT
from clusterbox.site.environment import Environment
from clusterbox.site.images import LockedImage
from clusterbox.site.yaml_file import Location


@dataclass(frozen=True)
class SiteCluster:
    """A cluster together with the site that it stands in, and the values of its references."""

    cluster: ComposedCluster
    environment: Environment
    values: Mapping[str, Any]

    @property
    def configuration(self) -> Mapping[str, Any]:
        """The cluster's configuration without references."""
        return self.cluster.configuration

    def ids(self, group: str) -> dict[str, str]:
        """Return the reference's name of each id of a group: `network`, `security_groups`."""
        return {
            str(value): name
            for name, value in self.values.items()
            if name.startswith(f"{group}.") and name != "network.vpc"
        }

    def image(self, ami: Any) -> tuple[str, LockedImage] | None:
        """Return the name and the entry of the locked image with an id, None where there is none."""
        return next(
            (
                (item.image, item.entry)
                for item in self.cluster.known_images()
                if item.entry.ami == ami
            ),
            None,
        )


def site_of(cluster: ComposedCluster) -> SiteCluster | None:
    """Return the cluster with its site, or None for one that belongs to no site."""
    if cluster.environment is None:
        return None
    # The name in the configuration's references is without the environment that may precede it.
    name = cluster.name.rpartition("/")[2]
    values = offline_values(cluster.environment, name, cluster.images)
    return SiteCluster(cluster, cluster.environment, values)


def find_boundary_problems(site: SiteCluster) -> Iterator[Found]:
    """Yield a permissions boundary that is missing or not the site's."""
    where = ("Iam", "PermissionsBoundary")
    yield from _differs(site, where, site.environment.boundary_arn, "the permissions boundary")


def find_prefix_problems(site: SiteCluster) -> Iterator[Found]:
    """Yield a prefix for ParallelCluster's own roles that is missing or not the site's."""
    prefix = site.values["hosting.resource_prefix"]
    yield from _differs(site, ("Iam", "ResourcePrefix"), prefix, "the prefix of IAM resources")


def _differs(site: SiteCluster, where: Location, expected: str, what: str) -> Iterator[Found]:
    found = section(site.configuration, *where[:-1]).at(where[-1])
    if found is None:
        yield where, f"{what[0].upper()}{what[1:]} is missing; the site's is {expected}."
    elif found != expected:
        yield where, f"{found} is not {what} of the site, {expected}."


def find_role_problems(site: SiteCluster) -> Iterator[Found]:
    """Yield roles outside the site's account, path and prefix, and roles that are not given.

    The site's permissions let ParallelCluster pass roles on, but not make any.
    """
    needed = [(node.where("Iam", "InstanceRole"), _role(node)) for node in _nodes(site)]
    cleanup = section(site.configuration, "Iam", "Roles")
    needed.append((cleanup.where("LambdaFunctionsRole"), cleanup.at("LambdaFunctionsRole")))
    for where, role in needed:
        if role is None:
            yield (
                where,
                "No role is given, so that ParallelCluster would make one; its provider may not.",
            )
    hosting = site.environment.hosting
    account = f"arn:{site.environment.partition}:iam::{site.environment.account}:"
    own = tuple(
        f"{account}{kind}{hosting.iam_path}{hosting.iam_name_prefix}"
        for kind in ("role", "instance-profile")
    )
    for key in ("InstanceRole", "InstanceProfile", "LambdaFunctionsRole"):
        for location, arn in values_of(site.configuration, key):
            if not arn.startswith(own):
                yield location, f"{arn} is not one of the site's roles, which start with {own[0]}."


def _nodes(site: SiteCluster) -> list[Any]:
    return [node for node in node_sections(site.configuration) if node.content]


def _role(node: Any) -> Any:
    return node.at("Iam", "InstanceRole") or node.at("Iam", "InstanceProfile")


def find_image_problems(site: SiteCluster) -> Iterator[Found]:
    """Yield images that are not locked, or that were not built for clusters."""
    locked = ", ".join(f"{image.ami} ({name})" for name, image in site.cluster.images.items())
    if section(site.configuration, "Image").at("CustomAmi") is None and not all(
        node.at("Image", "CustomAmi") for node in _nodes(site)
    ):
        yield (
            ("Image", "CustomAmi"),
            f"AWS's own image would be used; the site runs only locked ones: {locked}.",
        )
    for location, ami in values_of(site.configuration, "CustomAmi"):
        found = site.image(ami)
        if found is None:
            yield location, f"{ami} is not in ami/images.lock.yaml, which has {locked}."
        elif found[1].parallelcluster_version is None:
            yield location, f"{ami} ({found[0]}) was not built for ParallelCluster; no node starts."


def find_inherited_images(site: SiteCluster) -> Iterator[Found]:
    """Yield queues and pools without an image of their own: the cluster's can never change."""
    if section(site.configuration, "Image").at("CustomAmi") is None:
        return
    for what, found in (
        ("queue", queues(site.configuration)),
        ("pool of login nodes", pools(site.configuration)),
    ):
        for part in found:
            if part.content and part.at("Image", "CustomAmi") is None:
                yield (
                    part.where("Image", "CustomAmi"),
                    f"The {what} {part.name} has no image of its own, and so cannot be moved to a "
                    "new image on patch day: the cluster's image never changes.",
                )


def find_login_architecture(site: SiteCluster) -> Iterator[Found]:
    """Yield login pools of another architecture than the cluster's image.

    The library compares the two only where a pool has an image of its own.
    """
    found = site.image(section(site.configuration, "Image").at("CustomAmi"))
    for pool in pools(site.configuration):
        kind = pool.at("InstanceType")
        if found is None or kind is None or pool.at("Image", "CustomAmi"):
            continue
        name, image = found
        if architecture(str(kind)) != image.architecture:
            yield (
                pool.where("InstanceType"),
                f"{kind} is of the architecture {architecture(str(kind))}, and the image {name} is "
                f"built for {image.architecture}.",
            )


def find_region(site: SiteCluster) -> Iterator[Found]:
    """Yield another region than the site's."""
    region = site.configuration.get("Region")
    if region is not None and region != site.environment.region:
        yield ("Region",), f"{region} is not the region of the site, {site.environment.region}."


def find_subnets(site: SiteCluster) -> Iterator[Found]:
    """Yield subnets that are not of this site."""
    for key in ("SubnetId", "SubnetIds"):
        yield from _foreign(site, key, "network", "subnet")


def find_security_groups(site: SiteCluster) -> Iterator[Found]:
    """Yield security groups that are not of this site."""
    for key in ("SecurityGroups", "AdditionalSecurityGroups"):
        yield from _foreign(site, key, "security_groups", "security group")


def find_file_systems(site: SiteCluster) -> Iterator[Found]:
    """Yield existing file systems that are not of this site."""
    for storage in shared_storage(site.configuration):
        for location, found in values_of(storage.content, "FileSystemId"):
            if found not in site.ids("storage"):
                yield storage.where(*location), _unknown(site, found, "storage", "file system")


def _foreign(site: SiteCluster, key: str, group: str, what: str) -> Iterator[Found]:
    known = set(site.ids(group))
    bastion = site.environment.network.ssh.bastion_security_group
    for location, found in values_of(site.configuration, key):
        if found not in known and found != bastion:
            yield location, _unknown(site, found, group, what)


def _unknown(site: SiteCluster, found: str, group: str, what: str) -> str:
    known = ", ".join(f"{value} ({name})" for value, name in site.ids(group).items())
    return f"{found} is not a {what} of the site {site.environment.name}, which has {known}."


def find_key_pair(site: SiteCluster) -> Iterator[Found]:
    """Yield another key pair than the site's."""
    key_pair = site.environment.network.ssh.key_pair
    found = section(site.configuration, "HeadNode", "Ssh").at("KeyName")
    if found not in (None, key_pair):
        yield ("HeadNode", "Ssh", "KeyName"), f"{found} is not the site's key pair, {key_pair}."


def find_bucket(site: SiteCluster) -> Iterator[Found]:
    """Yield another bucket for ParallelCluster's files than the site's."""
    bucket = site.environment.storage.buckets.cluster_config.name
    found = site.configuration.get("CustomS3Bucket")
    if found is None:
        yield (
            ("CustomS3Bucket",),
            f"ParallelCluster would make a bucket of its own; the site's is {bucket}.",
        )
    elif found != bucket:
        yield ("CustomS3Bucket",), f"{found} is not the site's bucket for clusters, {bucket}."


def find_public_addresses(site: SiteCluster) -> Iterator[Found]:
    """Yield machines that get a public address; the site's subnets are private."""
    head = section(site.configuration, "HeadNode", "Networking")
    address = head.at("ElasticIp")
    if is_true(address) or str(address).startswith("eipalloc-"):
        yield head.where("ElasticIp"), "The head node gets a public address."
    for queue in queues(site.configuration):
        if is_true(queue.at("Networking", "AssignPublicIp")):
            yield (
                queue.where("Networking", "AssignPublicIp"),
                f"The nodes of {queue.name} get public addresses.",
            )


def find_address_problems(site: SiteCluster) -> Iterator[Found]:
    """Yield a MaxCount that does not fit into the free addresses of the cluster's subnets.

    Only this cluster and the site's own machines are counted; `clusterbox check` adds all clusters.
    """
    resources = compute_resources(site.configuration)
    # The budget counts the network cards of listed types; what is no list is for the schema.
    if not all(isinstance(resource.at("Instances"), list | None) for resource in resources):
        return
    try:
        plan_addresses(site.environment, {site.cluster.name: site.cluster.file})
    except ProblemsError as error:
        overflows = [p.message for p in error.problems if p.path == "network.subnets"]
        largest = max(resources, key=_most_nodes, default=None)
        where: Location = ("Scheduling", "SlurmQueues")
        if largest is not None:
            key = () if largest.at("MaxCount") is None else ("MaxCount",)
            where = largest.where(*key)
        for message in overflows:
            yield where, f"{message}."


def _most_nodes(resource: Any) -> int:
    count = str(resource.at("MaxCount") or DEFAULT_MAX_COUNT)
    return int(count) if count.isdecimal() else 0


def find_missing_tags(site: SiteCluster) -> Iterator[Found]:
    """Yield the site's tags that the cluster lacks or gives another value."""
    tags = site.configuration.get("Tags")
    found = {
        str(tag.get("Key")): tag.get("Value")
        for tag in (tags if isinstance(tags, list) else ())
        if isinstance(tag, Mapping)
    }
    wrong = [
        f"{tag['Key']}={tag['Value']}"
        for tag in site.values["site.tags"]
        if found.get(tag["Key"]) != tag["Value"]
    ]
    if wrong:
        yield ("Tags",), f"The site's tags are missing or have another value: {', '.join(wrong)}."
