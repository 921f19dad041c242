"""Security groups: who reaches what inside the site. Nothing is open to the world."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from constructs import Construct

from clusterbox.site.environment import Environment
from stacks.network import NetworkStack
from stacks.permissions.roles import acknowledge
from stacks.site_stack import SiteStack
from stacks.storage import SharedFileSystem, StorageStack

SSH = ec2.Port.tcp(22)
NFS_PORT = 2049


class SecurityStack(SiteStack):
    """The groups of nodes, SSH, admin box and patch days, and their way to the file systems."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        network: NetworkStack,
        storage: StorageStack,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            environment=environment,
            description="Security groups",
        )
        self._network = network
        self.cluster = self._make_group("Cluster", "Head, compute and login nodes of the clusters")
        self.ssh = self._make_group("Ssh", "Machines that people log in to with SSH")
        self.admin = self._make_group("Admin", "Admin box")
        self._make_image_group()
        self._connect_nodes()
        self._open_ssh()
        for name, file_system in storage.file_systems.items():
            self._open_file_system(name, file_system)

    def _make_group(self, construct_id: str, description: str) -> ec2.SecurityGroup:
        group = ec2.SecurityGroup(
            self,
            construct_id,
            vpc=self._network.vpc,
            description=description,
            # Packages, AWS's interfaces and data archives are reached over HTTPS anywhere.
            allow_all_outbound=True,
        )
        cdk.Tags.of(group).add("Name", f"{self._environment.name}-{construct_id.lower()}")
        return group

    def _make_image_group(self) -> None:
        """Make the group of machines that bake and verify: they reach nothing else of the site."""
        group = ec2.SecurityGroup(
            self,
            "Images",
            vpc=self._network.vpc,
            description="Machines that bake and verify images",
            allow_all_outbound=False,
        )
        # Not by an address range: packages, AWS's interfaces and endpoints are behind HTTPS anywhere.
        group.add_egress_rule(
            ec2.Peer.any_ipv4(), ec2.Port.tcp(443), "packages and interfaces of AWS"
        )
        cdk.Tags.of(group).add("Name", f"{self._environment.name}-images")

    def _connect_nodes(self) -> None:
        """Let nodes talk to each other; EFA wants this group by name in both directions."""
        self.cluster.add_ingress_rule(self.cluster, ec2.Port.all_traffic(), "cluster nodes")
        acknowledge(
            self.cluster,
            "NIST.800.53.R5-EC2RestrictedCommonPorts",
            "open only to members of the group itself: MPI, Slurm and EFA choose their ports",
        )
        ec2.CfnSecurityGroupEgress(
            self,
            "ClusterToItself",
            group_id=self.cluster.security_group_id,
            destination_security_group_id=self.cluster.security_group_id,
            ip_protocol="-1",
            description="cluster nodes (EFA does not accept a rule by address)",
        )

    def _open_ssh(self) -> None:
        ssh = self._environment.network.ssh
        for cidr in ssh.cidrs:
            self.ssh.add_ingress_rule(ec2.Peer.ipv4(str(cidr)), SSH, "configured range")
        if ssh.bastion_security_group is not None:
            bastion = ec2.Peer.security_group_id(ssh.bastion_security_group)
            self.ssh.add_ingress_rule(bastion, SSH, "bastion")
        self.ssh.add_ingress_rule(self.admin, SSH, "admin box")

    def _open_file_system(self, name: str, file_system: SharedFileSystem) -> None:
        construct_name = "".join(part.title() for part in name.split("_"))
        for label, source in (("Cluster", self.cluster), ("Admin", self.admin)):
            ec2.CfnSecurityGroupIngress(
                self,
                f"{construct_name}From{label}",
                group_id=file_system.security_group_id,
                source_security_group_id=source.security_group_id,
                ip_protocol="tcp",
                from_port=NFS_PORT,
                to_port=NFS_PORT,
                description=f"NFS from {label.lower()}",
            )
            if file_system.is_made_here:
                # Answers need no rule, but ParallelCluster's validator asks for one.
                ec2.CfnSecurityGroupEgress(
                    self,
                    f"{construct_name}To{label}",
                    group_id=file_system.security_group_id,
                    destination_security_group_id=source.security_group_id,
                    ip_protocol="tcp",
                    from_port=NFS_PORT,
                    to_port=NFS_PORT,
                    description=f"NFS to {label.lower()}",
                )
