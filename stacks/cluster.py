"""One ParallelCluster cluster: the roles of its nodes, and the whole configuration as a property."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from clusterbox.site import names, references
from clusterbox.site.environment import Environment
from clusterbox.site.images import ClusterPins, LockedImage
from clusterbox.site.pins import apply_pins
from clusterbox.site.yaml_file import YamlFile, value_at
from stacks.accounting import AccountingStack
from stacks.identity import IdentityStack
from stacks.network import NetworkStack
from stacks.permissions import arns, nodes
from stacks.permissions.roles import make_role
from stacks.security import SecurityStack
from stacks.site_stack import SiteStack
from stacks.storage import StorageStack

_ACCOUNTING_SECRET = "${accounting.secret}"  # noqa: S105 -- a reference


class ClusterStack(SiteStack):
    """A cluster through ParallelCluster's official CloudFormation provider.

    The property ClusterConfiguration is the configuration itself, so that a diff of the template
    shows what changes in the cluster.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        cluster: str,
        config: YamlFile,
        images: Mapping[str, LockedImage],
        pins: ClusterPins,
        key: kms.IKey,
        network: NetworkStack,
        storage: StorageStack,
        security: SecurityStack,
        identity: IdentityStack,
        accounting: AccountingStack | None = None,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            environment=environment,
            description=f"Cluster {cluster}",
        )
        cdk.Tags.of(self).add(names.TAG_SITE_CLUSTER, cluster)
        self._cluster = cluster
        used_amis = [image.ami for image in images.values()]
        values: dict[str, Any] = {
            **references.known_values(environment, cluster),
            "network.vpc": network.vpc.vpc_id,
            **{f"network.{name}": subnet.subnet_id for name, subnet in network.subnets.items()},
            "security_groups.cluster": security.cluster.security_group_id,
            "security_groups.ssh": security.ssh.security_group_id,
            **{f"images.{name}": image.ami for name, image in images.items()},
            **(accounting.references if accounting is not None else {}),
            **self._make_roles(config, [*used_amis, *pins.amis()], storage, key, accounting),
        }
        for name, file_system in storage.file_systems.items():
            values[f"storage.{name}"] = file_system.file_system_id
            for point, identity_of_point in file_system.access_points.items():
                values[f"storage.{name}.{point}"] = identity_of_point
        self._make_cluster(references.resolve(apply_pins(config, pins), values), identity)

    def _make_roles(
        self,
        config: YamlFile,
        amis: Sequence[str],
        storage: StorageStack,
        key: kms.IKey,
        accounting: AccountingStack | None,
    ) -> dict[str, str]:
        """Make the roles that the configuration refers to; return their ARNs by reference."""
        environment, cluster = self._environment, self._cluster
        data = nodes.share_data(
            environment,
            file_systems=[file_system.arn for file_system in storage.file_systems.values()],
            key_arn=key.key_arn,
        )
        managed_dns = _has_managed_dns(config.data)
        secrets, keys = _find_secrets(config.data), []
        if accounting is not None and _ACCOUNTING_SECRET in secrets:
            secrets = {*secrets - {_ACCOUNTING_SECRET}, accounting.references["accounting.secret"]}
            keys = [arn for arn in [accounting.secret_key_arn] if arn is not None]
        head_node = nodes.head_node(
            environment,
            cluster,
            images=list(dict.fromkeys(amis)),
            compute_role_arn=arns.site_roles(environment, f"{cluster}-compute"),
            secrets=sorted(secrets),
            secret_keys=keys,
            managed_dns=managed_dns,
        )
        plans = {
            "HeadNode": ("head-node", "ec2", [*head_node, *data]),
            "Compute": ("compute", "ec2", [*nodes.compute_node(environment, cluster), *data]),
            "Login": ("login", "ec2", [*nodes.login_node(environment, cluster), *data]),
            "Cleanup": (
                "cleanup",
                "lambda",
                nodes.cleanup_function(environment, cluster, managed_dns=managed_dns),
            ),
        }
        used = {name for _, name in references.find_references(config)}
        return {
            reference: make_role(
                self,
                construct_id,
                environment=environment,
                purpose=f"{cluster}-{purpose}",
                description=f"{purpose} of cluster {cluster}",
                principal=iam.ServicePrincipal(f"{service}.amazonaws.com"),
                statements=statements,
            ).role_arn
            for construct_id, (purpose, service, statements) in plans.items()
            if (reference := f"roles.{purpose.replace('-', '_')}") in used
        }

    def _make_cluster(self, configuration: dict[str, Any], identity: IdentityStack) -> None:
        provider = cdk.CfnStack(
            self,
            "Provider",
            template_url=names.provider_template_url(self._environment),
            # The roles the provider would make itself carry no boundary.
            parameters={"CustomLambdaRole": identity.provider.role_arn},
        )
        cluster = cdk.CfnResource(
            self,
            "Cluster",
            type="Custom::PclusterCluster",
            # Any further property would become a keyword argument of pcluster's API and fail.
            properties={
                "ServiceToken": provider.get_att("Outputs.ServiceToken").to_string(),
                "ClusterName": self._cluster,
                "ClusterConfiguration": configuration,
                # The provider's own policy: a replaced or removed resource leaves the cluster
                # and its jobs alone. `clusterbox destroy` deletes a cluster on purpose.
                "DeletionPolicy": "Retain",
            },
        )
        cluster.apply_removal_policy(cdk.RemovalPolicy.RETAIN)
        address = cluster.get_att("headNode.privateIpAddress").to_string()
        ssm.CfnParameter(
            self,
            "HeadNodeAddress",
            type="String",
            name=names.parameter_path(self._environment, "clusters", self._cluster, "head-node-ip"),
            description=f"Private address of the head node of {self._cluster}",
            value=address,
        )
        cdk.CfnOutput(self, "HeadNodePrivateIp", value=address)


def _find_secrets(data: Any) -> set[str]:
    """Return the secrets that a configuration names: munge key, database and directory passwords."""
    if isinstance(data, dict):
        own = {value for key, value in data.items() if str(key).endswith("SecretArn")}
        return {str(arn) for arn in own}.union(*map(_find_secrets, data.values()))
    return set().union(*map(_find_secrets, data)) if isinstance(data, list) else set()


def _has_managed_dns(data: Any) -> bool:
    """Return whether ParallelCluster keeps a zone for the nodes, as it does unless told not to."""
    dns = value_at(data, ("Scheduling", "SlurmSettings", "Dns", "DisableManagedDns"))
    return str(dns).lower() != "true"
