from __future__ import annotations

from pathlib import Path

import pytest

from tests.site.site_files import MADE, edit, problems_of


@pytest.mark.parametrize(
    ("old", "new", "problems"),
    [
        pytest.param(
            "b: {cidr: 10.0.1.0/24}",
            "b: {id: subnet-0000000b, cidr: 10.0.1.0/24}",
            [
                (
                    "19: network.subnets.compute.b.id: must be left out: the VPC is made here, "
                    "and so are its subnets (found: 'subnet-0000000b')"
                ),
            ],
            id="a subnet id in a made VPC",
        ),
        pytest.param(
            "      b: {cidr: 10.0.1.0/24}\n",
            "",
            [
                (
                    "16: network.subnets: must cover at least 2 zones in a VPC made here "
                    "(found: ['a'])"
                ),
                (
                    "21: network.interface_endpoints.subnets[1]: must be one of the network's "
                    "subnets: compute.a (found: 'compute.b')"
                ),
                (
                    "26: storage.file_systems.home.subnets[1]: must be one of the network's "
                    "subnets: compute.a (found: 'compute.b')"
                ),
            ],
            id="one zone only",
        ),
        pytest.param(
            "  nat_gateways: 1",
            "  nat_gateways: 2",
            [
                (
                    "21: network.nat_gateways: must be at most 1, the number of public_subnets "
                    "(found: 2)"
                ),
            ],
            id="more NAT gateways than public subnets",
        ),
        pytest.param(
            "  nat_gateways: 1",
            "  nat_gateways: 7",
            [
                "21: network.nat_gateways: must be 6 or less (found: 7)",
            ],
            id="seven NAT gateways",
        ),
        pytest.param(
            "10.0.2.0/28",
            "10.0.1.0/28",
            [
                (
                    "20: network.public_subnets.a.cidr: must not overlap 10.0.1.0/24, another "
                    "subnet of this file (found: '10.0.1.0/28')"
                ),
            ],
            id="a public subnet that overlaps a private one",
        ),
        pytest.param(
            "subnets: [compute.a, compute.b]}",
            "subnets: [compute.a, login.b]}",
            [
                (
                    "22: network.interface_endpoints.subnets[1]: must be one of the network's "
                    "subnets: compute.a, compute.b (found: 'login.b')"
                ),
            ],
            id="endpoints in an unknown subnet",
        ),
        pytest.param(
            "subnets: [compute.a, compute.b]}",
            "subnets: [compute.a, compute.a]}",
            [
                (
                    "22: network.interface_endpoints.subnets[1]: must be in a zone of its own: "
                    "compute.a is in zone a too (found: 'compute.a')"
                ),
            ],
            id="endpoints twice in a zone",
        ),
        pytest.param(
            "services: [ec2, sts]",
            "services: [ec2, s3]",
            [
                (
                    "22: network.interface_endpoints.services[1]: must be one of "
                    "'autoscaling', 'cloudformation', 'ec2', 'ec2messages', "
                    "'elasticfilesystem', 'elasticloadbalancing', 'logs', 'monitoring', "
                    "'secretsmanager', 'sqs', 'ssm', 'ssmmessages' or 'sts' (found: 's3')"
                ),
            ],
            id="an endpoint of an unknown service",
        ),
        pytest.param(
            "services: [ec2, sts]",
            "services: [ec2, sts, ec2]",
            [
                (
                    "22: network.interface_endpoints.services[2]: must stand only once in the "
                    "list (found: 'ec2')"
                ),
            ],
            id="an endpoint of a service named twice",
        ),
        pytest.param(
            "cidrs: [192.0.2.0/24]",
            "cidrs: [192.0.2.0/24], bastion_security_group: sg-00000001",
            [
                (
                    "23: network.ssh.bastion_security_group: must be left out: the VPC is made "
                    "here and has no group yet; give cidrs (found: 'sg-00000001')"
                ),
            ],
            id="a bastion that cannot be in the VPC yet",
        ),
        pytest.param(
            "  ssh: {key_pair",
            "  private_zone: {name: dev.internal, id: Z0123456789}\n  ssh: {key_pair",
            [
                (
                    "23: network.private_zone.id: must be left out: no zone answers in a VPC "
                    "that is made here (found: 'Z0123456789')"
                ),
            ],
            id="a private zone that does not know the VPC",
        ),
        pytest.param(
            "services: [ec2, sts]",
            "services: []",
            [
                "22: network.interface_endpoints.services: must not be empty (found: [])",
            ],
            id="endpoints without services",
        ),
    ],
)
def test_a_wrong_network_in_a_vpc_made_here_is_reported(
    tmp_path: Path, old: str, new: str, problems: list[str]
) -> None:
    assert problems_of(tmp_path, edit(MADE, old, new)) == problems
