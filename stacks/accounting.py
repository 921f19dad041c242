"""The server of Slurm's accounting databases: Aurora MySQL, or one that exists."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_rds as rds
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from clusterbox.site import names
from clusterbox.site.accounting import AccountingDatabase
from clusterbox.site.environment import Environment
from stacks.network import NetworkStack
from stacks.permissions.roles import acknowledge
from stacks.site_stack import SiteStack

_ENGINE = "aurora-mysql"
# A long-term-support release of Aurora MySQL 3, of MySQL 8.0.
_ENGINE_VERSION = "8.0.mysql_aurora.3.10.3"
_FAMILY = "aurora-mysql8.0"
_PASSWORD_CHARACTERS = 40
_EXPORTED_LOGS = ("audit", "error", "slowquery")
_PARAMETERS = {
    "require_secure_transport": "ON",
    "tls_version": "TLSv1.2,TLSv1.3",
    # What slurmdbd asks for: "Slurm accounting" in Slurm's documentation.
    "innodb_lock_wait_timeout": "900",
    "server_audit_logging": "1",
    "server_audit_events": "CONNECT,QUERY_DCL",
}


class AccountingStack(SiteStack):
    """The server, the secret with its password, and the group of the machines that may reach it.

    Stateful where the server is made here: never removed, and logical ids never change.
    `references` has the values of the references to it in cluster configurations.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        plan: AccountingDatabase,
        network: NetworkStack,
        key: kms.IKey,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            environment=environment,
            description="Slurm accounting database",
            protected=plan.is_made_here,
        )
        self._plan = plan
        self._network = network
        self._key = key
        self._name = names.accounting_name(environment)
        # Head nodes get it beside their other groups: no other machine signs in.
        self.clients = self._make_group(
            "Clients", "Head nodes, whose slurmdbd signs in", outbound=True
        )
        if plan.is_made_here:
            group = self._make_group("Server", "Accounting database", outbound=False)
            host, secret = self._make_server(group)
            self._let_clients_in(group.security_group_id)
            self.secret_key_arn: str | None = key.key_arn
        else:
            host, secret = plan.host or "", plan.secret or ""
            self._let_clients_in(plan.security_group or "")
            self.secret_key_arn = plan.secret_key
        self.references = {
            "accounting.host": f"{host}:{plan.port}",
            "accounting.user": plan.user,
            "accounting.secret": secret,
            "security_groups.accounting": self.clients.security_group_id,
        }

    def _make_group(
        self, construct_id: str, description: str, *, outbound: bool
    ) -> ec2.SecurityGroup:
        group = ec2.SecurityGroup(
            self,
            construct_id,
            vpc=self._network.vpc,
            description=description,
            allow_all_outbound=outbound,
        )
        suffix = construct_id.lower()
        cdk.Tags.of(group).add("Name", f"{self._environment.name}-accounting-{suffix}")
        return group

    def _let_clients_in(self, server_group: str) -> None:
        ec2.CfnSecurityGroupIngress(
            self,
            "ServerFromClients",
            group_id=server_group,
            source_security_group_id=self.clients.security_group_id,
            ip_protocol="tcp",
            from_port=self._plan.port,
            to_port=self._plan.port,
            description="MySQL from head nodes",
        )

    def _make_server(self, group: ec2.SecurityGroup) -> tuple[str, str]:
        """Make the server; return its host name and the ARN of the secret with its password."""
        secret = self._make_secret()
        for kind in _EXPORTED_LOGS:
            logs.LogGroup(
                self,
                f"{kind.title()}Log",
                # RDS makes it where it is not there, without an end and without the site's key.
                log_group_name=f"/aws/rds/cluster/{self._name}/{kind}",
                retention=logs.RetentionDays.ONE_YEAR,
                encryption_key=self._key,
                removal_policy=cdk.RemovalPolicy.RETAIN,
            )
        subnets = rds.CfnDBSubnetGroup(
            self,
            "Subnets",
            db_subnet_group_description=f"Accounting database of {self._environment.name}",
            subnet_ids=[self._network.subnets[name].subnet_id for name in self._plan.subnets],
        )
        parameters = rds.CfnDBClusterParameterGroup(
            self,
            "Parameters",
            description=f"Accounting database of {self._environment.name}",
            family=_FAMILY,
            parameters=_PARAMETERS,
        )
        server = rds.CfnDBCluster(
            self,
            "Database",
            # A name of its own: a change that would replace the server fails instead.
            db_cluster_identifier=self._name,
            engine=_ENGINE,
            engine_version=_ENGINE_VERSION,
            port=self._plan.port,
            master_username=self._plan.user,
            master_user_password=f"{{{{resolve:secretsmanager:{secret.attr_id}:SecretString}}}}",
            db_subnet_group_name=subnets.ref,
            db_cluster_parameter_group_name=parameters.ref,
            vpc_security_group_ids=[group.security_group_id],
            serverless_v2_scaling_configuration=rds.CfnDBCluster.ServerlessV2ScalingConfigurationProperty(
                min_capacity=float(self._plan.min_acu), max_capacity=self._plan.max_acu
            ),
            storage_encrypted=True,
            kms_key_id=self._key.key_arn,
            backup_retention_period=self._plan.backup_days,
            copy_tags_to_snapshot=True,
            deletion_protection=True,
            enable_cloudwatch_logs_exports=list(_EXPORTED_LOGS),
        )
        server.apply_removal_policy(cdk.RemovalPolicy.RETAIN)
        for item in self.node.children:
            if isinstance(item, logs.LogGroup):
                server.node.add_dependency(item)
        writer = rds.CfnDBInstance(
            self,
            "Writer",
            db_cluster_identifier=server.ref,
            db_instance_class="db.serverless",
            db_instance_identifier=f"{self._name}-1",
            engine=_ENGINE,
            publicly_accessible=False,
            auto_minor_version_upgrade=True,
        )
        writer.apply_removal_policy(cdk.RemovalPolicy.RETAIN)
        _accept_findings(secret, server, writer)
        return server.attr_endpoint_address, secret.attr_id

    def _make_secret(self) -> secretsmanager.CfnSecret:
        """Make the password: plain text and nothing else, as ParallelCluster reads the secret."""
        secret = secretsmanager.CfnSecret(
            self,
            "Password",
            name=self._name,
            description=f"Password of {self._plan.user} in {self._name}",
            kms_key_id=self._key.key_arn,
            generate_secret_string=secretsmanager.CfnSecret.GenerateSecretStringProperty(
                # It stands in slurmdbd.conf, where # and blanks would end it.
                password_length=_PASSWORD_CHARACTERS,
                exclude_punctuation=True,
            ),
        )
        secret.apply_removal_policy(cdk.RemovalPolicy.RETAIN)
        return secret


def _accept_findings(
    secret: secretsmanager.CfnSecret, server: rds.CfnDBCluster, writer: rds.CfnDBInstance
) -> None:
    """Record why findings of the rules are accepted here."""
    by_hand = (
        "slurmdbd takes a new password only from a script on each head node, while the compute fleet "
        "is stopped (docs/cost-limits.md)"
    )
    backed_up = "Aurora's continuous backup restores to any second of the configured days"
    accepted: dict[Construct, dict[str, str]] = {
        secret: {
            "AwsSolutions-SMG4": by_hand,
            "NIST.800.53.R5-SecretsManagerRotationEnabled": by_hand,
        },
        server: {
            "AwsSolutions-RDS6": "slurmdbd signs in with a password and knows no tokens",
            "AwsSolutions-RDS11": "only head nodes reach it, through a group of their own",
            "AwsSolutions-RDS14": backed_up,
            "NIST.800.53.R5-RDSLoggingEnabled[LogExport::general]": (
                "every statement of slurmdbd would be logged; audit has who signed in"
            ),
        },
        writer: {
            "NIST.800.53.R5-RDSEnhancedMonitoringEnabled": (
                "slurmdbd writes a few rows a job; CloudWatch has the server's own metrics"
            ),
            "NIST.800.53.R5-RDSInBackupPlan": backed_up,
        },
    }
    for construct, findings in accepted.items():
        for finding, reason in findings.items():
            acknowledge(construct, finding, reason)
