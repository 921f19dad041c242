"""What an environment says already exists, as the seed of an embedded account."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from clusterbox.embedded.seed import SeedDocument
from clusterbox.site.environment import Environment
from clusterbox.site.image_definitions import ImageDefinition
from clusterbox.site.images import LockedImage


def existing_resources(
    environment: Environment,
    images: Mapping[str, LockedImage],
    objects: Iterable[Mapping[str, str]] = (),
    definitions: Iterable[ImageDefinition] = (),
) -> SeedDocument:
    """Return everything the environment does not make, under its own ids and names.

    `objects` are further objects of S3, such as the provider that AWS publishes in every region.
    Of each definition's parent there are two images: of this month and of the last one.
    """
    today = datetime.now(UTC).date()
    parents = [image for definition in definitions for image in _parents(definition, today)]
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
        "images": [
            *(_image(name, image, today) for name, image in images.items()),
            *{image["id"]: image for image in parents}.values(),
        ],
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


# Locked images that do not say when they were baked are as old as this: older than any parent.
_UNKNOWN_AGE = timedelta(days=75)


def _image(name: str, image: LockedImage, today: date) -> dict[str, Any]:
    tags = {"Name": name}
    if image.parallelcluster_version is not None:
        # The tags by which ParallelCluster knows an image that its build-image command made.
        tags |= {
            "parallelcluster:version": image.parallelcluster_version,
            "parallelcluster:os": image.os,
            # Image Builder ends the name of an AMI with the time of its build.
            "parallelcluster:image_id": (image.name or name).partition(" ")[0],
            "parallelcluster:build_status": "available",
        }
    if image.kernel is not None:
        tags["parallelcluster:kernel_version"] = image.kernel
    baked = image.baked.replace("Z", ".000Z") if image.baked else _start_of(today - _UNKNOWN_AGE)
    return {
        "id": image.ami,
        "name": image.name or name,
        "os": image.os,
        "architecture": image.architecture,
        "root_gib": image.root_gib,
        "created": baked,
        "tags": tags,
    }


def _parents(definition: ImageDefinition, today: date) -> list[dict[str, Any]]:
    """Return the approved parents of a definition, as their owner would make them monthly."""
    parent = definition.parent
    facts: dict[str, Any] = {
        "os": definition.os,
        "architecture": definition.architecture,
        "root_gib": 8,
        "owner": None if parent.owner in (None, "self") else parent.owner,
    }
    this_month = today.replace(day=1)
    if parent.id is not None:
        name = f"parent {parent.id}"
        return [{"id": parent.id, "name": name, "created": _start_of(this_month), **facts}]
    months = [this_month, (this_month - timedelta(days=1)).replace(day=1)]
    found = []
    for month in months:
        name = str(parent.name_filter).replace("?", "0").replace("*", f"{month:%Y.%m.%d}")
        # The same id in every account that is started, so that a plan stays valid.
        digest = hashlib.sha256(f"{parent.owner} {name}".encode()).hexdigest()[:17]
        found.append({"id": f"ami-{digest}", "name": name, "created": _start_of(month), **facts})
    return found


def _start_of(day: date) -> str:
    return f"{day.isoformat()}T00:00:00.000Z"
