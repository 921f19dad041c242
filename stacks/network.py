"""The network: an existing VPC by its attributes, or one made here with endpoints and flow logs."""

from __future__ import annotations

from typing import cast

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_route53 as route53
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from clusterbox.site import names
from clusterbox.site.environment import Environment
from stacks.permissions.roles import Statement, acknowledge, ignore_lint, make_role
from stacks.site_stack import SiteStack


class NetworkStack(SiteStack):
    """The VPC, its subnets by name, and the private DNS zone."""

    vpc: ec2.IVpc
    subnets: dict[str, ec2.ISubnet]
    zone: route53.IPrivateHostedZone | None

    def __init__(
        self, scope: Construct, construct_id: str, *, environment: Environment, key: kms.IKey
    ) -> None:
        self._environment = environment  # before CDK asks for the zones
        super().__init__(
            scope,
            construct_id,
            environment=environment,
            description="Network",
            # The mount targets of the file systems, which are never removed, stand in it.
            protected=not environment.network.exists,
        )
        if environment.network.exists:
            self._import_vpc()
        else:
            self._make_vpc(key)
        self.zone = self._find_zone()
        ssm.CfnParameter(
            self,
            "VpcParameter",
            type="String",
            name=names.parameter_path(environment, "network", "vpc-id"),
            description=f"VPC of {environment.name}",
            value=self.vpc.vpc_id,
        )

    @property
    def availability_zones(self) -> list[str]:
        """The zones that the environment names; CDK's own property would look them up."""
        return sorted(
            {self._environment.zone(n[-1]) for n in self._environment.network.subnet_names}
        )

    def _import_vpc(self) -> None:
        network = self._environment.network
        self.subnets = {
            name: ec2.Subnet.from_subnet_attributes(
                self,
                _pascal(name),
                subnet_id=network.subnet(name).id or "",
                availability_zone=self._environment.zone(name[-1]),
                ipv4_cidr_block=str(network.subnet(name).cidr),
            )
            for name in network.subnet_names
        }
        for subnet in self.subnets.values():
            cdk.Annotations.of(subnet).acknowledge_warning(
                "@aws-cdk/aws-ec2:noSubnetRouteTableId",
                "the VPC's owner routes; nothing here reads the route table",
            )
        self.vpc = ec2.Vpc.from_vpc_attributes(
            self,
            "Vpc",
            vpc_id=network.vpc.id or "",
            vpc_cidr_block=str(network.vpc.cidr),
            availability_zones=sorted(
                {subnet.availability_zone for subnet in self.subnets.values()}
            ),
        )

    def _make_vpc(self, key: kms.IKey) -> None:
        network = self._environment.network
        vpc = ec2.Vpc(
            self,
            "Vpc",
            vpc_name=self._environment.name,
            ip_addresses=ec2.IpAddresses.cidr(str(network.vpc.cidr)),
            # Named zones and no subnets of CDK's choice: the address plan is the environment's.
            availability_zones=self.availability_zones,
            subnet_configuration=[],
            create_internet_gateway=False,
        )
        self.vpc = vpc
        restrict = self.node.find_child("Custom::VpcRestrictDefaultSGCustomResourceProvider")
        ignore_lint(
            cast(Construct, restrict.node.find_child("Handler")),
            "W3005",
            "CDK writes this function, which empties the default security group",
        )
        self._blocks = [
            ec2.CfnVPCCidrBlock(self, f"Cidr{index}", vpc_id=vpc.vpc_id, cidr_block=str(cidr))
            for index, cidr in enumerate(network.vpc.additional_cidrs)
        ]
        private = {name: self._make_subnet(name) for name in network.subnet_names}
        self.subnets = {name: cast(ec2.ISubnet, subnet) for name, subnet in private.items()}
        self._make_nat_gateways(private)
        self._make_endpoints(vpc)
        self._make_flow_logs(vpc, key)

    def _make_subnet(self, name: str) -> ec2.PrivateSubnet:
        subnet = ec2.PrivateSubnet(
            self,
            _pascal(name),
            vpc_id=self.vpc.vpc_id,
            cidr_block=str(self._environment.network.subnet(name).cidr),
            availability_zone=self._environment.zone(name[-1]),
            map_public_ip_on_launch=False,
        )
        self._finish_subnet(subnet, name)
        return subnet

    def _finish_subnet(self, subnet: ec2.Subnet, name: str) -> None:
        ignore_lint(subnet, "W3010", "the address plan names its zones; synth looks nothing up")
        cdk.Tags.of(subnet).add("Name", f"{self._environment.name}-{name}")
        for block in self._blocks:
            subnet.node.add_dependency(block)

    def _make_nat_gateways(self, private: dict[str, ec2.PrivateSubnet]) -> None:
        network = self._environment.network
        if not network.nat_gateways:
            return
        internet = ec2.CfnInternetGateway(self, "InternetGateway")
        attachment = ec2.CfnVPCGatewayAttachment(
            self,
            "InternetGatewayAttachment",
            vpc_id=self.vpc.vpc_id,
            internet_gateway_id=internet.ref,
        )
        gateways: dict[str, str] = {}
        for letter, plan in network.public_subnets.items():
            subnet = ec2.PublicSubnet(
                self,
                f"Public{letter.upper()}",
                vpc_id=self.vpc.vpc_id,
                cidr_block=str(plan.cidr),
                availability_zone=self._environment.zone(letter),
                # Only NAT gateways stand here, and they bring their own address.
                map_public_ip_on_launch=False,
            )
            self._finish_subnet(subnet, f"public.{letter}")
            subnet.add_default_internet_route(internet.ref, attachment)
            acknowledge(
                subnet,
                "NIST.800.53.R5-VPCNoUnrestrictedRouteToIGW",
                "holds nothing but NAT gateways, which let no connection in",
            )
            if len(gateways) < network.nat_gateways:
                gateways[letter] = subnet.add_nat_gateway().ref
        fallback = next(iter(gateways.values()))
        for name, private_subnet in private.items():
            private_subnet.add_default_nat_route(gateways.get(name[-1], fallback))

    def _make_endpoints(self, vpc: ec2.Vpc) -> None:
        network = self._environment.network
        everywhere = [ec2.SubnetSelection(subnets=list(self.subnets.values()))]
        for construct_id, service in (
            ("S3Endpoint", ec2.GatewayVpcEndpointAwsService.S3),
            ("DynamoDbEndpoint", ec2.GatewayVpcEndpointAwsService.DYNAMODB),
        ):
            ec2.GatewayVpcEndpoint(self, construct_id, vpc=vpc, service=service, subnets=everywhere)
        if network.interface_endpoints is None:
            return
        group = ec2.SecurityGroup(
            self,
            "EndpointGroup",
            vpc=vpc,
            description="Interface endpoints: HTTPS from inside the VPC",
            allow_all_outbound=False,
        )
        for cidr in network.vpc.cidrs:
            group.add_ingress_rule(
                ec2.Peer.ipv4(str(cidr)), ec2.Port.tcp(443), "HTTPS from the VPC"
            )
        for service_name in network.interface_endpoints.services:
            ec2.InterfaceVpcEndpoint(
                self,
                f"{_pascal(service_name)}Endpoint",
                vpc=vpc,
                service=ec2.InterfaceVpcEndpointAwsService(service_name),
                subnets=ec2.SubnetSelection(
                    subnets=[self.subnets[name] for name in network.interface_endpoints.subnets]
                ),
                security_groups=[group],
                private_dns_enabled=True,
                open=False,
            )

    def _make_flow_logs(self, vpc: ec2.Vpc, key: kms.IKey) -> None:
        environment = self._environment
        name = f"/clusterbox/{environment.name}/flow-logs"
        group = logs.LogGroup(
            self,
            "FlowLogs",
            log_group_name=name,
            encryption_key=key,
            retention=logs.RetentionDays(_retention(environment.network.flow_logs_days)),
            removal_policy=cdk.RemovalPolicy.RETAIN,
        )
        arn = f"arn:{environment.partition}:logs:{environment.region}:{environment.account}:log-group:{name}"
        role = make_role(
            self,
            "FlowLogsRole",
            environment=environment,
            purpose="flow-logs",
            description="Lets the VPC write its flow logs",
            principal=iam.ServicePrincipal("vpc-flow-logs.amazonaws.com"),
            statements=[
                Statement(
                    "Write",
                    ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
                    [f"{arn}:*"],
                    because="log streams are named by AWS, one a network interface",
                )
            ],
        )
        flow_log = ec2.CfnFlowLog(
            self,
            "FlowLog",
            resource_id=vpc.vpc_id,
            resource_type="VPC",
            traffic_type="ALL",
            log_destination_type="cloud-watch-logs",
            log_group_name=group.log_group_name,
            deliver_logs_permission_arn=role.role_arn,
        )
        cdk.Tags.of(flow_log).add("Name", environment.name)

    def _find_zone(self) -> route53.IPrivateHostedZone | None:
        zone = self._environment.network.private_zone
        if zone is None:
            return None
        if zone.id is not None:
            return route53.PrivateHostedZone.from_private_hosted_zone_attributes(
                self, "Zone", hosted_zone_id=zone.id, zone_name=zone.name
            )
        return route53.PrivateHostedZone(self, "Zone", zone_name=zone.name, vpc=self.vpc)


def _retention(days: int) -> str:
    """Return the member of RetentionDays for a number of days."""
    return {
        30: "ONE_MONTH",
        60: "TWO_MONTHS",
        90: "THREE_MONTHS",
        180: "SIX_MONTHS",
        365: "ONE_YEAR",
        731: "TWO_YEARS",
    }[days]


def _pascal(name: str) -> str:
    """Return a construct id: `compute.a` becomes ComputeA."""
    return "".join(part[:1].upper() + part[1:] for part in name.replace("_", ".").split("."))
