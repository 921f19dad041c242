"""Which private addresses of a subnet are taken, and the next one that is free."""

from __future__ import annotations

import ipaddress

from ministack.services import ec2, efs

from clusterbox.embedded.server.ministack_api import ResourceFailedError

# AWS keeps a subnet's first four addresses and its last one for itself.
RESERVED_FIRST = 4
RESERVED_LAST = 1


def taken_addresses(subnet_id: str) -> set[str]:
    """Return the private addresses in use in a subnet."""
    taken = {
        str(instance["PrivateIpAddress"])
        for instance in ec2._instances.values()
        if instance["SubnetId"] == subnet_id and instance["State"]["Name"] != "terminated"
    }
    for store in (ec2._network_interfaces, ec2._nat_gateways):
        taken |= {
            str(record["PrivateIpAddress"])
            for record in store.values()
            if record["SubnetId"] == subnet_id and record.get("PrivateIpAddress")
        }
    taken |= {
        str(target["IpAddress"])
        for target in efs._mount_targets.values()
        if target["SubnetId"] == subnet_id and "IpAddress" in target
    }
    return taken


def take_address(subnet_id: str, requested: str | None = None) -> str:
    """Return the requested address or the lowest free one of the subnet.

    Raises ResourceFailedError with EC2's codes when the subnet does not exist, is full, or when
    the requested address is outside it, reserved or taken.
    """
    subnet = ec2._subnets.get(subnet_id)
    if subnet is None:
        raise ResourceFailedError(
            f"The subnet ID '{subnet_id}' does not exist (InvalidSubnetID.NotFound)"
        )
    network = ipaddress.IPv4Network(subnet["CidrBlock"])
    lowest = int(network.network_address) + RESERVED_FIRST
    highest = int(network.broadcast_address) - RESERVED_LAST
    taken = taken_addresses(subnet_id)
    if requested:
        wanted = ipaddress.IPv4Address(requested)
        if not lowest <= int(wanted) <= highest:
            raise ResourceFailedError(
                f"Address {requested} does not fall within the usable addresses of {network} "
                "(InvalidParameterValue)"
            )
        if requested in taken:
            raise ResourceFailedError(f"Address {requested} is in use (InvalidIPAddress.InUse)")
        return requested
    for number in range(lowest, highest + 1):
        address = str(ipaddress.IPv4Address(number))
        if address not in taken:
            return address
    raise ResourceFailedError(
        f"There are not enough free addresses in subnet {subnet_id} "
        "(InsufficientFreeAddressesInSubnet)"
    )


def private_dns_name(address: str, region: str) -> str:
    """Return the IP-based host name EC2 gives an address."""
    domain = "ec2.internal" if region == "us-east-1" else f"{region}.compute.internal"
    return f"ip-{address.replace('.', '-')}.{domain}"
