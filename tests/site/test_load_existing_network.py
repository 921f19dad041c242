from __future__ import annotations

from pathlib import Path

import pytest

from tests.site.site_files import EXISTING, edit, problems_of


@pytest.mark.parametrize(
    ("old", "new", "problems"),
    [
        pytest.param(
            "192.0.2.0/24",
            "0.0.0.0/0",
            [
                (
                    "20: network.ssh.cidrs[0]: must be a named range of /8 or narrower: "
                    "nothing of a site is open to 0.0.0.0/0 or to most of it (found: "
                    "'0.0.0.0/0')"
                ),
            ],
            id="SSH from everywhere",
        ),
        pytest.param(
            "192.0.2.0/24",
            "0.0.0.0/1",
            [
                (
                    "20: network.ssh.cidrs[0]: must be a named range of /8 or narrower: "
                    "nothing of a site is open to 0.0.0.0/0 or to most of it (found: "
                    "'0.0.0.0/1')"
                ),
            ],
            id="SSH from half of everywhere",
        ),
        pytest.param(
            "192.0.2.0/24",
            "192.0.2.7",
            [
                (
                    "20: network.ssh.cidrs[0]: must be an IPv4 network in CIDR notation with "
                    "no host bits set, such as 10.12.64.0/22 (found: '192.0.2.7')"
                ),
            ],
            id="SSH from a single address without prefix",
        ),
        pytest.param(
            "192.0.2.0/24",
            "192.0.2.0/24, 192.0.2.0/24",
            [
                (
                    "20: network.ssh.cidrs[1]: must stand only once in the list (found: "
                    "'192.0.2.0/24')"
                ),
            ],
            id="SSH from a range named twice",
        ),
        pytest.param(
            "10.0.1.0/24",
            "10.0.1.7/24",
            [
                (
                    "19: network.subnets.compute.b.cidr: must be an IPv4 network in CIDR "
                    "notation with no host bits set, such as 10.12.64.0/22 (found: "
                    "'10.0.1.7/24')"
                ),
            ],
            id="a CIDR with host bits",
        ),
        pytest.param(
            "10.0.1.0/24",
            "10.0.1.0/255.255.255.0",
            [
                (
                    "19: network.subnets.compute.b.cidr: must be an IPv4 network in CIDR "
                    "notation with no host bits set, such as 10.12.64.0/22 (found: "
                    "'10.0.1.0/255.255.255.0')"
                ),
            ],
            id="a netmask instead of a prefix",
        ),
        pytest.param(
            "10.0.1.0/24",
            '"2001:db8::/64"',
            [
                (
                    "19: network.subnets.compute.b.cidr: must be an IPv4 network in CIDR "
                    "notation with no host bits set, such as 10.12.64.0/22 (found: "
                    "'2001:db8::/64')"
                ),
            ],
            id="an IPv6 range",
        ),
        pytest.param(
            "10.0.1.0/24",
            "10.1.1.0/24",
            [
                (
                    "19: network.subnets.compute.b.cidr: must lie inside the VPC, which has "
                    "10.0.0.0/16 (found: '10.1.1.0/24')"
                ),
            ],
            id="a subnet outside of its VPC",
        ),
        pytest.param(
            "10.0.1.0/24",
            "10.0.0.128/25",
            [
                (
                    "19: network.subnets.compute.b.cidr: must not overlap 10.0.0.0/24, another "
                    "subnet of this file (found: '10.0.0.128/25')"
                ),
            ],
            id="a subnet that overlaps another",
        ),
        pytest.param(
            "10.0.1.0/24",
            "10.0.1.0/29",
            [
                (
                    "19: network.subnets.compute.b.cidr: must be /28 or larger, the smallest "
                    "subnet of AWS (found: '10.0.1.0/29')"
                ),
            ],
            id="a subnet smaller than AWS has",
        ),
        pytest.param(
            "10.0.0.0/16",
            "10.0.0.0/15",
            [
                (
                    "15: network.vpc.cidr: must be from /16 to /28, as AWS limits VPCs (found: "
                    "'10.0.0.0/15')"
                ),
            ],
            id="a VPC larger than AWS has",
        ),
        pytest.param(
            "cidr: 10.0.0.0/16",
            "cidr: 10.0.0.0/16, additional_cidrs: [10.0.4.0/24]",
            [
                (
                    "15: network.vpc.additional_cidrs[0]: must not overlap the other ranges of "
                    "the VPC (found: '10.0.4.0/24')"
                ),
            ],
            id="a further range inside the VPC",
        ),
        pytest.param(
            "id: subnet-0000000b, ",
            "",
            [
                (
                    "19: network.subnets.compute.b.id: must be given: subnets of an existing "
                    "VPC exist too"
                ),
            ],
            id="a subnet of an existing VPC without id",
        ),
        pytest.param(
            "subnet-0000000b",
            "subnet-0000000a",
            [
                (
                    "19: network.subnets.compute.b.id: must stand for 10.0.0.0/24 in zone a, "
                    "as it does in network.subnets.compute.a (found: 'subnet-0000000a')"
                ),
            ],
            id="one subnet id for two zones",
        ),
        pytest.param(
            "vpc-00000001",
            "subnet-00000001",
            [
                (
                    "15: network.vpc.id: must be the id of a VPC: vpc- and 8 to 17 hex digits "
                    "(found: 'subnet-00000001')"
                ),
            ],
            id="a VPC id of another kind",
        ),
        pytest.param(
            "  ssh: {key_pair",
            "  nat_gateways: 1\n  ssh: {key_pair",
            [
                (
                    "20: network.nat_gateways: must be left out: the VPC exists and its owner "
                    "decides on this"
                ),
            ],
            id="a NAT gateway in an existing VPC",
        ),
        pytest.param(
            "      b: {id",
            "      us-west-2b: {id",
            [
                (
                    "19: network.subnets.compute.us-west-2b: must be the letter of an "
                    "availability zone, such as a (found: 'us-west-2b')"
                ),
                (
                    "24: storage.file_systems.home.subnets[1]: must be one of the network's "
                    "subnets: compute.a, compute.us-west-2b (found: 'compute.b')"
                ),
            ],
            id="a zone that is not a letter",
        ),
        pytest.param(
            "      b: {id",
            "      1: {id",
            [
                (
                    "19: network.subnets.compute.1: must be the letter of an availability "
                    "zone, such as a (found: 1)"
                ),
                (
                    "24: storage.file_systems.home.subnets[1]: must be one of the network's "
                    "subnets: compute.a, compute.1 (found: 'compute.b')"
                ),
            ],
            id="a zone that is a number",
        ),
        pytest.param(
            "  ssh: {key_pair",
            "    login: {}\n  ssh: {key_pair",
            [
                "20: network.subnets.login: must not be empty (found: {})",
            ],
            id="a group without zones",
        ),
        pytest.param(
            "    compute:\n",
            "    com-pute:\n",
            [
                (
                    "17: network.subnets.com-pute: must start with a small letter and hold at "
                    "most 32 small letters, digits and underscores (found: 'com-pute')"
                ),
                (
                    "24: storage.file_systems.home.subnets[0]: must be one of the network's "
                    "subnets: com-pute.a, com-pute.b (found: 'compute.a')"
                ),
                (
                    "24: storage.file_systems.home.subnets[1]: must be one of the network's "
                    "subnets: com-pute.a, com-pute.b (found: 'compute.b')"
                ),
                (
                    "37: admin_box.subnet: must be one of the network's subnets: com-pute.a, "
                    "com-pute.b (found: 'compute.a')"
                ),
            ],
            id="a group name with a dash",
        ),
        pytest.param(
            "key_pair: keys",
            'key_pair: ""',
            [
                (
                    "20: network.ssh.key_pair: must be 1 to 255 ASCII characters, as EC2 has "
                    "names (found: '')"
                ),
            ],
            id="an empty key pair",
        ),
        pytest.param(
            "  ssh: {key_pair",
            "  flow_logs_days: 31\n  ssh: {key_pair",
            [
                (
                    "20: network.flow_logs_days: must be one of 30, 60, 90, 180, 365 or 731 "
                    "(found: 31)"
                ),
            ],
            id="flow logs kept for another number of days",
        ),
        pytest.param(
            "  ssh: {key_pair",
            "  private_zone: {name: DEV}\n  ssh: {key_pair",
            [
                (
                    "20: network.private_zone.name: must be a DNS name in small letters, such "
                    "as ws.internal.example (found: 'DEV')"
                ),
            ],
            id="a private zone in capitals",
        ),
    ],
)
def test_a_wrong_network_in_an_existing_vpc_is_reported(
    tmp_path: Path, old: str, new: str, problems: list[str]
) -> None:
    assert problems_of(tmp_path, edit(EXISTING, old, new)) == problems
