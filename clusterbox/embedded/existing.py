"""What an environment says already exists, as the seed of an embedded account."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from clusterbox.embedded.seed import SeedDocument
from clusterbox.site.environment import Environment
from clusterbox.site.images import LockedImage


def existing_resources(
    environment: Environment,
    images: Mapping[str, LockedImage],
    objects: Iterable[Mapping[str, str]] = (),
) -> SeedDocument:
    """Return everything the environment does not make, under its own ids and names.

    `objects` are further objects of S3, such as the provider that AWS publishes in every region.
    """
    network, hosting = environment.network, environment.hosting
    document: dict[str, Any] = {
        "vpcs": [],
        "subnets": [],
        "security_groups": [],
        "key_pairs": [network.ssh.key_pair],
        "policies": [],
        "roles": [],
        "buckets": [
            bucket.name
            for bucket in (
                environment.storage.buckets.cluster_config,
                environment.storage.buckets.logs,
                environment.storage.buckets.results,
            )
            if bucket.exists
        ],
        "images": [_image(name, image) for name, image in images.items()],
        "file_systems": [],
        "hosted_zones": [],
        "objects": [dict(item) for item in objects],
    }
    if hosting.permissions_boundary.exists:
        document["policies"].append({"name": hosting.permissions_boundary.name, "path": "/"})
    if hosting.cloudformation_execution_role is not None:
        path, _, name = hosting.cloudformation_execution_role.split(":role", 1)[1].rpartition("/")
        document["roles"].append(
            {"name": name, "path": f"{path}/", "service": "cloudformation.amazonaws.com"}
        )
    if network.vpc.id is not None:
        _add_network(document, environment, network.vpc.id)
    return SeedDocument.model_validate_json(json.dumps(document))


def _add_network(document: dict[str, Any], environment: Environment, vpc_id: str) -> None:
    network = environment.network
    document["vpcs"].append({"id": vpc_id, "cidr": str(network.vpc.cidr)})
    subnets = {}
    for name in network.subnet_names:
        subnet = network.subnet(name)
        subnets[subnet.id] = {
            "id": subnet.id,
            "vpc_id": vpc_id,
            "cidr": str(subnet.cidr),
            "availability_zone": environment.zone(name[-1]),
        }
    document["subnets"] += subnets.values()
    groups = {network.ssh.bastion_security_group: "bastion"}
    for name, file_system in environment.storage.file_systems.items():
        if file_system.id is not None:
            groups[file_system.security_group] = f"mount targets of {name}"
            document["file_systems"].append(
                {
                    "id": file_system.id,
                    "security_group": file_system.security_group,
                    "subnets": [network.subnet(subnet).id for subnet in file_system.subnets],
                }
            )
    document["security_groups"] += [
        {"id": group, "vpc_id": vpc_id, "name": text, "description": text, "ingress": []}
        for group, text in groups.items()
        if group is not None
    ]
    if network.private_zone is not None and network.private_zone.id is not None:
        zone = network.private_zone
        document["hosted_zones"].append({"id": zone.id, "name": zone.name, "vpc_id": vpc_id})


def _image(name: str, image: LockedImage) -> dict[str, Any]:
    tags = {"Name": name}
    if image.parallelcluster_version is not None:
        # The tags by which ParallelCluster knows an image that its build-image command made.
        tags |= {
            "parallelcluster:version": image.parallelcluster_version,
            "parallelcluster:os": image.os,
            "parallelcluster:image_id": name,
            "parallelcluster:build_status": "available",
        }
    return {
        "id": image.ami,
        "name": name,
        "os": image.os,
        "architecture": image.architecture,
        "root_gib": image.root_gib,
        "tags": tags,
    }
