"""What a seed document asks for that the account cannot hold, found before anything is made."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from ministack.services import ec2, efs, s3

from clusterbox.embedded.seed import SeedDocument
from clusterbox.embedded.server.ministack_api import account_id
from clusterbox.embedded.server.seeding import PARTS


def problems(document: SeedDocument) -> list[str]:
    """Return one line for each problem, with its place in the document; empty when it fits."""
    return [
        *_duplicates(document),
        *_networks(document),
        *_references(document),
        *_file_systems(document),
        *_others(document),
    ]


def _duplicates(document: SeedDocument) -> Iterator[str]:
    for part in PARTS:
        seen: set[str] = set()
        for number, entry in enumerate(getattr(document, part.field)):
            name = part.name(entry)
            if name in seen:
                yield f"{part.field}[{number}]: {name} is there twice"
            seen.add(name)


def _networks(document: SeedDocument) -> Iterator[str]:
    cidr_of_vpc = {vpc_id: vpc["CidrBlock"] for vpc_id, vpc in ec2._vpcs.items()}
    for number, vpc in enumerate(document.vpcs):
        if cidr_of_vpc.setdefault(vpc.id, vpc.cidr) != vpc.cidr:
            yield f"vpcs[{number}].cidr: {vpc.id} is there with {cidr_of_vpc[vpc.id]}"
    placed = {s_id: (s["VpcId"], s["CidrBlock"]) for s_id, s in ec2._subnets.items()}
    for number, subnet in enumerate(document.subnets):
        wanted = (subnet.vpc_id, subnet.cidr)
        if subnet.id in placed:
            if placed[subnet.id] != wanted:
                there = " ".join(placed[subnet.id])
                yield f"subnets[{number}]: {subnet.id} is there as {there}"
            continue
        if subnet.vpc_id not in cidr_of_vpc:
            yield f"subnets[{number}].vpc_id: {subnet.vpc_id} is neither here nor in the account"
            continue
        network = ipaddress.IPv4Network(subnet.cidr)
        whole = ipaddress.IPv4Network(cidr_of_vpc[subnet.vpc_id])
        if not network.subnet_of(whole):
            yield f"subnets[{number}].cidr: {network} is not inside the VPC's {whole}"
        for other_id, (vpc_id, cidr) in placed.items():
            if vpc_id == subnet.vpc_id and network.overlaps(ipaddress.IPv4Network(cidr)):
                yield f"subnets[{number}].cidr: {network} overlaps {other_id}'s {cidr}"
        placed[subnet.id] = wanted


def _references(document: SeedDocument) -> Iterator[str]:
    vpcs = set(ec2._vpcs) | {vpc.id for vpc in document.vpcs}
    groups = set(ec2._security_groups) | {group.id for group in document.security_groups}
    for number, group in enumerate(document.security_groups):
        place = f"security_groups[{number}]"
        if group.vpc_id not in vpcs:
            yield f"{place}.vpc_id: {group.vpc_id} is neither here nor in the account"
        for position, rule in enumerate(group.ingress):
            where = f"{place}.ingress[{position}]"
            if (rule.cidr is None) == (rule.source_group is None):
                yield f"{where}: give either cidr or source_group"
            if rule.source_group and rule.source_group not in groups:
                yield f"{where}.source_group: {rule.source_group} is neither here nor there"
            ports = (rule.from_port, rule.to_port)
            if (rule.protocol == "-1") != (ports == (None, None)) or ports.count(None) == 1:
                yield f"{where}: give from_port and to_port, and neither for protocol -1"
    for number, zone in enumerate(document.hosted_zones):
        if zone.vpc_id not in vpcs:
            yield f"hosted_zones[{number}].vpc_id: {zone.vpc_id} is neither here nor in the account"


def _file_systems(document: SeedDocument) -> Iterator[str]:
    place_of = {s: (r["VpcId"], r["AvailabilityZone"]) for s, r in ec2._subnets.items()}
    place_of |= {s.id: (s.vpc_id, s.availability_zone) for s in document.subnets}
    vpc_of = {g: record["VpcId"] for g, record in ec2._security_groups.items()}
    vpc_of |= {group.id: group.vpc_id for group in document.security_groups}
    for number, system in enumerate(document.file_systems):
        if system.id in efs._file_systems:
            continue
        place = f"file_systems[{number}]"
        if system.security_group not in vpc_of:
            yield f"{place}.security_group: {system.security_group} is neither here nor there"
        unknown = [s for s in system.subnets if s not in place_of]
        yield from (f"{place}.subnets: {s} is neither here nor in the account" for s in unknown)
        places = [place_of[s] for s in system.subnets if s in place_of]
        if len(places) != len({zone for _, zone in places}):
            yield f"{place}.subnets: EFS takes one mount target in each zone"
        vpcs = {vpc for vpc, _ in places} | {vpc_of.get(system.security_group, "")} - {""}
        if len(vpcs) > 1:
            yield f"{place}: its subnets and its security group are in different VPCs"


def _others(document: SeedDocument) -> Iterator[str]:
    names = {image["Name"]: image_id for image_id, image in ec2._images.items()}
    for number, image in enumerate(document.images):
        if names.setdefault(image.name, image.id) != image.id:
            yield f"images[{number}].name: {image.name!r} is the name of {names[image.name]}"
    for number, bucket in enumerate(document.buckets):
        owner = s3._bucket_owner_account(bucket)
        if owner not in (None, account_id()):
            yield f"buckets[{number}]: {bucket} belongs to account {owner}"
