"""The network of a site: its VPC, made here or existing, its subnets, endpoints and SSH access."""

from __future__ import annotations

from ipaddress import IPv4Network
from itertools import combinations
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from clusterbox.site.fields import (
    Cidr,
    DnsName,
    Finding,
    HostedZoneId,
    Identifier,
    KeyPairName,
    Once,
    Section,
    SecurityGroupId,
    SourceCidr,
    SubnetId,
    SubnetName,
    VpcId,
    ZoneLetter,
    raise_findings,
)
from clusterbox.site.yaml_file import Location, render_path

# AWS keeps the first four addresses and the last one of every subnet for itself
# (Amazon VPC user guide, "Subnet sizing").
ADDRESSES_KEPT_BY_AWS = 5

InterfaceEndpointName = Literal[
    "autoscaling",
    "cloudformation",
    "ec2",
    "ec2messages",
    "elasticfilesystem",
    "elasticloadbalancing",
    "logs",
    "monitoring",
    "secretsmanager",
    "sqs",
    "ssm",
    "ssmmessages",
    "sts",
]


class Subnet(Section):
    """One subnet: made here, or existing where it has an id."""

    cidr: Cidr = Field(description="addresses of the subnet")
    id: SubnetId | None = Field(None, description="id of the subnet, where it already exists")

    @property
    def usable_addresses(self) -> int:
        """Addresses that instances and endpoints can have."""
        return self.cidr.num_addresses - ADDRESSES_KEPT_BY_AWS


# One subnet a zone, by the letter of the zone.
Zones = Annotated[dict[ZoneLetter, Subnet], Field(min_length=1)]


class Vpc(Section):
    """The VPC: made here, or existing where it has an id."""

    cidr: Cidr = Field(description="primary addresses of the VPC")
    id: VpcId | None = Field(None, description="id of the VPC, where it already exists")
    additional_cidrs: tuple[Cidr, ...] = Field(
        (), strict=False, description="further addresses, such as a small range for public subnets"
    )

    @property
    def cidrs(self) -> tuple[IPv4Network, ...]:
        """All address ranges of the VPC."""
        return (self.cidr, *self.additional_cidrs)


class InterfaceEndpoints(Section):
    """Interface endpoints of a VPC made here: one address in each subnet for each service."""

    services: Once[InterfaceEndpointName] = Field(
        min_length=1, description="AWS services reached without internet"
    )
    subnets: tuple[SubnetName, ...] = Field(
        strict=False, min_length=1, description="subnets that hold the endpoints' addresses"
    )


class PrivateZone(Section):
    """The private DNS zone for stable names; made here, or existing where it has an id."""

    name: DnsName = Field(description="domain of the zone, such as ws.internal")
    id: HostedZoneId | None = Field(None, description="id of the zone, where it already exists")


class SshAccess(Section):
    """Who may open SSH connections to head nodes, login nodes and the admin box."""

    key_pair: KeyPairName = Field(description="name of the EC2 key pair")
    cidrs: Once[SourceCidr] = Field(
        (), description="address ranges that may reach port 22, such as a VPN"
    )
    bastion_security_group: SecurityGroupId | None = Field(
        None, description="existing group whose members may reach port 22"
    )


class Network(Section):
    """Where the machines of a site stand."""

    vpc: Vpc = Field(description="the VPC")
    subnets: dict[Identifier, Zones] = Field(
        min_length=1, description="private subnets as GROUP: {ZONE LETTER: subnet}"
    )
    public_subnets: dict[ZoneLetter, Subnet] = Field(
        {}, description="subnets with a route to the internet, for NAT gateways only"
    )
    nat_gateways: int = Field(
        0, ge=0, le=6, description="NAT gateways; 0 for a site without internet"
    )
    interface_endpoints: InterfaceEndpoints | None = Field(
        None, description="interface endpoints to make; s3 and dynamodb gateways are always made"
    )
    flow_logs_days: Literal[30, 60, 90, 180, 365, 731] = Field(
        365, description="retention of the flow logs of a VPC made here, in days"
    )
    private_zone: PrivateZone | None = Field(None, description="private DNS zone of the site")
    ssh: SshAccess = Field(description="SSH access")

    @property
    def exists(self) -> bool:
        """Whether the VPC is given rather than made here."""
        return self.vpc.id is not None

    def subnet(self, name: str) -> Subnet:
        """Return the subnet called GROUP.ZONE; raises KeyError when there is none."""
        group, zone = name.split(".")
        return self.subnets[group][zone]

    @property
    def subnet_names(self) -> tuple[str, ...]:
        """The names GROUP.ZONE of all private subnets, in the order of the file."""
        return tuple(f"{group}.{zone}" for group, zones in self.subnets.items() for zone in zones)

    @model_validator(mode="after")
    def _check(self) -> Self:
        raise_findings(
            [
                *self._find_address_problems(),
                *self._find_existence_problems(),
                *self._find_unknown_subnets(),
            ]
        )
        return self

    def _located_subnets(self) -> list[tuple[Location, Subnet]]:
        private = [
            (("subnets", group, zone), subnet)
            for group, zones in self.subnets.items()
            for zone, subnet in zones.items()
        ]
        public = [
            (("public_subnets", zone), subnet) for zone, subnet in self.public_subnets.items()
        ]
        return [*private, *public]

    def _find_address_problems(self) -> list[Finding]:
        findings = []
        located = self._located_subnets()
        ranges = ", ".join(str(cidr) for cidr in self.vpc.cidrs)
        for index, cidr in enumerate(self.vpc.cidrs):
            where = ("vpc", "additional_cidrs", index - 1) if index else ("vpc", "cidr")
            if not 16 <= cidr.prefixlen <= 28:
                findings.append(
                    Finding(where, "must be from /16 to /28, as AWS limits VPCs", str(cidr))
                )
            if any(cidr.overlaps(other) for other in self.vpc.cidrs[:index]):
                findings.append(
                    Finding(where, "must not overlap the other ranges of the VPC", str(cidr))
                )
        for location, subnet in located:
            if not any(subnet.cidr.subnet_of(cidr) for cidr in self.vpc.cidrs):
                findings.append(
                    Finding(
                        (*location, "cidr"),
                        f"must lie inside the VPC, which has {ranges}",
                        str(subnet.cidr),
                    )
                )
            if subnet.cidr.prefixlen > 28:
                findings.append(
                    Finding(
                        (*location, "cidr"),
                        "must be /28 or larger, the smallest subnet of AWS",
                        str(subnet.cidr),
                    )
                )
        for (place, first), (location, second) in combinations(located, 2):
            # The same existing subnet may stand in two groups: one of its names is then an alias.
            if first.id is not None and first.id == second.id:
                if (place[-1], first.cidr) != (location[-1], second.cidr):
                    findings.append(
                        Finding(
                            (*location, "id"),
                            f"must stand for {first.cidr} in zone {place[-1]}, as it does in "
                            f"{render_path(('network', *place))}",
                            second.id,
                        )
                    )
            elif first.cidr.overlaps(second.cidr):
                findings.append(
                    Finding(
                        (*location, "cidr"),
                        f"must not overlap {first.cidr}, another subnet of this file",
                        str(second.cidr),
                    )
                )
        return findings

    def _find_existence_problems(self) -> list[Finding]:
        findings = []
        for location, subnet in self._located_subnets():
            if self.exists and subnet.id is None:
                findings.append(
                    Finding(
                        (*location, "id"), "must be given: subnets of an existing VPC exist too"
                    )
                )
            if not self.exists and subnet.id is not None:
                findings.append(
                    Finding(
                        (*location, "id"),
                        "must be left out: the VPC is made here, and so are its subnets",
                        subnet.id,
                    )
                )
        if self.exists:
            for key in ("public_subnets", "nat_gateways", "interface_endpoints"):
                if getattr(self, key):
                    findings.append(
                        Finding(
                            (key,), "must be left out: the VPC exists and its owner decides on this"
                        )
                    )
        elif self.nat_gateways > len(self.public_subnets):
            findings.append(
                Finding(
                    ("nat_gateways",),
                    f"must be at most {len(self.public_subnets)}, the number of public_subnets",
                    self.nat_gateways,
                )
            )
        if not self.exists:
            if self.ssh.bastion_security_group is not None:
                findings.append(
                    Finding(
                        ("ssh", "bastion_security_group"),
                        "must be left out: the VPC is made here and has no group yet; give cidrs",
                        self.ssh.bastion_security_group,
                    )
                )
            if self.private_zone is not None and self.private_zone.id is not None:
                findings.append(
                    Finding(
                        ("private_zone", "id"),
                        "must be left out: no zone answers in a VPC that is made here",
                        self.private_zone.id,
                    )
                )
            zones = {zone for zones in self.subnets.values() for zone in zones}
            if len(zones) < 2:
                findings.append(
                    Finding(
                        ("subnets",),
                        "must cover at least 2 zones in a VPC made here",
                        sorted(zones),
                    )
                )
        return findings

    def _find_unknown_subnets(self) -> list[Finding]:
        if self.interface_endpoints is None:
            return []
        known = self.subnet_names
        findings = []
        zones: dict[str, str] = {}
        for index, name in enumerate(self.interface_endpoints.subnets):
            location = ("interface_endpoints", "subnets", index)
            if name not in known:
                message = f"must be one of the network's subnets: {', '.join(known)}"
                findings.append(Finding(location, message, name))
                continue
            zone = name.split(".")[1]
            if zone in zones:
                findings.append(
                    Finding(
                        location,
                        f"must be in a zone of its own: {zones[zone]} is in zone {zone} too",
                        name,
                    )
                )
            zones[zone] = name
        return findings
