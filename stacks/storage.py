"""What outlives every cluster: file systems with their backups, and buckets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_backup as backup
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_efs as efs
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from clusterbox.site import storage as model
from clusterbox.site.environment import Environment
from stacks.network import NetworkStack
from stacks.permissions.roles import acknowledge, make_role
from stacks.site_stack import SiteStack


@dataclass(frozen=True)
class SharedFileSystem:
    """A file system as other stacks see it."""

    file_system_id: str
    arn: str
    security_group_id: str
    access_points: dict[str, str]
    is_made_here: bool


class StorageStack(SiteStack):
    """File systems and buckets. Stateful: never removed, and logical ids never change."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        network: NetworkStack,
        key: kms.IKey,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            environment=environment,
            description="File systems and buckets",
            protected=True,
        )
        self._network = network
        self._key = key
        self._backed_up: dict[int, list[str]] = {}
        self.file_systems = {
            name: self._import_file_system(plan) if plan.id else self._make_file_system(name, plan)
            for name, plan in environment.storage.file_systems.items()
        }
        self._make_backups()
        plans = environment.storage.buckets
        logs = self._make_logs_bucket(plans.logs)
        self.buckets: dict[str, s3.IBucket] = {
            "logs": logs,
            "cluster_config": self._make_bucket("ClusterConfigBucket", plans.cluster_config, logs),
            "results": self._make_bucket("ResultsBucket", plans.results, logs),
        }

    def _import_file_system(self, plan: model.FileSystem) -> SharedFileSystem:
        identity = plan.id or ""
        return SharedFileSystem(
            file_system_id=identity,
            arn=self.format_arn(
                service="elasticfilesystem", resource="file-system", resource_name=identity
            ),
            security_group_id=plan.security_group or "",
            access_points={},
            is_made_here=False,
        )

    def _make_file_system(self, name: str, plan: model.FileSystem) -> SharedFileSystem:
        construct_name = "".join(part.title() for part in name.split("_"))
        group = ec2.SecurityGroup(
            self,
            f"{construct_name}Group",
            vpc=self._network.vpc,
            description=f"Mount targets of {name}; the security stack lets nodes in",
            allow_all_outbound=False,
        )
        cdk.Tags.of(group).add("Name", f"{self._environment.name}-{name}")
        file_system = efs.CfnFileSystem(
            self,
            construct_name,
            encrypted=True,
            kms_key_id=self._key.key_arn,
            performance_mode="generalPurpose",
            throughput_mode=plan.throughput,
            backup_policy=efs.CfnFileSystem.BackupPolicyProperty(status="DISABLED"),
            lifecycle_policies=_lifecycle(plan.infrequent_access_days),
            file_system_policy=_FILE_SYSTEM_POLICY,
            file_system_tags=[
                efs.CfnFileSystem.ElasticFileSystemTagProperty(
                    key="Name", value=f"{self._environment.name}-{name}"
                )
            ],
        )
        file_system.apply_removal_policy(cdk.RemovalPolicy.RETAIN)
        for subnet in plan.subnets:
            efs.CfnMountTarget(
                self,
                f"{construct_name}In{subnet[-1].upper()}",
                file_system_id=file_system.ref,
                subnet_id=self._network.subnets[subnet].subnet_id,
                security_groups=[group.security_group_id],
            )
        points = {
            point: self._make_access_point(
                f"{construct_name}{point.title()}", file_system, point, access
            )
            for point, access in plan.access_points.items()
        }
        if plan.backup_days:
            self._backed_up.setdefault(plan.backup_days, []).append(file_system.attr_arn)
        return SharedFileSystem(
            file_system.ref,
            file_system.attr_arn,
            group.security_group_id,
            points,
            is_made_here=True,
        )

    def _make_access_point(
        self, construct_id: str, file_system: efs.CfnFileSystem, name: str, plan: model.AccessPoint
    ) -> str:
        point = efs.CfnAccessPoint(
            self,
            construct_id,
            file_system_id=file_system.ref,
            root_directory=efs.CfnAccessPoint.RootDirectoryProperty(
                path=plan.path,
                creation_info=efs.CfnAccessPoint.CreationInfoProperty(
                    owner_uid=str(plan.uid), owner_gid=str(plan.gid), permissions=plan.permissions
                ),
            ),
            access_point_tags=[efs.CfnAccessPoint.AccessPointTagProperty(key="Name", value=name)],
        )
        point.apply_removal_policy(cdk.RemovalPolicy.RETAIN)
        return point.ref

    def _make_backups(self) -> None:
        """Make one vault and, for each retention, a plan that covers its file systems daily."""
        if not self._backed_up:
            return
        environment = self._environment
        vault = backup.BackupVault(
            self,
            "Vault",
            backup_vault_name=f"clusterbox-{environment.name}",
            encryption_key=self._key,
            removal_policy=cdk.RemovalPolicy.RETAIN,
        )
        role = make_role(
            self,
            "BackupRole",
            environment=environment,
            purpose="backup",
            description="Lets AWS Backup read and restore the file systems",
            principal=iam.ServicePrincipal("backup.amazonaws.com"),
        )
        for policy in (
            "AWSBackupServiceRolePolicyForBackup",
            "AWSBackupServiceRolePolicyForRestores",
        ):
            name = f"service-role/{policy}"
            role.add_managed_policy(iam.ManagedPolicy.from_aws_managed_policy_name(name))
            acknowledge(
                role,
                f"AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/{name}]",
                "AWS Backup's own role policy, which AWS extends as the service gains features",
            )
        for days, arns in self._backed_up.items():
            plan = backup.BackupPlan(
                self,
                f"Keep{days}Days",
                backup_plan_name=f"{environment.name}-{days}d",
                backup_vault=vault,
            )
            plan.add_rule(
                backup.BackupPlanRule(
                    rule_name="daily",
                    schedule_expression=events.Schedule.cron(hour="9", minute="0"),
                    delete_after=cdk.Duration.days(days),
                )
            )
            plan.add_selection(
                "FileSystems",
                role=role,
                disable_default_backup_policy=True,
                resources=[backup.BackupResource.from_arn(arn) for arn in arns],
            )

    def _make_logs_bucket(self, plan: model.Bucket) -> s3.IBucket:
        if plan.exists:
            return s3.Bucket.from_bucket_name(self, "LogsBucket", plan.name)
        # Server access logs can only be delivered to a bucket encrypted with S3's own key.
        bucket = self._new_bucket("LogsBucket", plan, encryption=s3.BucketEncryption.S3_MANAGED)
        acknowledge(bucket, "AwsSolutions-S1", "is the bucket that access logs go to")
        acknowledge(
            bucket, "NIST.800.53.R5-S3BucketLoggingEnabled", "is the bucket that access logs go to"
        )
        acknowledge(
            bucket,
            "NIST.800.53.R5-S3DefaultEncryptionKMS",
            "S3 delivers access logs only to buckets encrypted with its own key",
        )
        return bucket

    def _make_bucket(self, construct_id: str, plan: model.Bucket, logs: s3.IBucket) -> s3.IBucket:
        if plan.exists:
            return s3.Bucket.from_bucket_name(self, construct_id, plan.name)
        return self._new_bucket(
            construct_id,
            plan,
            encryption=s3.BucketEncryption.KMS,
            encryption_key=self._key,
            bucket_key_enabled=True,
            server_access_logs_bucket=logs,
            server_access_logs_prefix=f"s3/{plan.name}/",
        )

    def _new_bucket(self, construct_id: str, plan: model.Bucket, **options: Any) -> s3.Bucket:
        bucket = s3.Bucket(
            self,
            construct_id,
            bucket_name=plan.name,
            versioned=True,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            removal_policy=cdk.RemovalPolicy.RETAIN,
            lifecycle_rules=[_bucket_lifecycle(plan)],
            **options,
        )
        acknowledge(
            bucket,
            "NIST.800.53.R5-S3BucketReplicationEnabled",
            "one region holds the site; versions are kept and results can be computed again",
        )
        return bucket


# Clients must use TLS. Nothing is allowed here: each role's own policy does that, so that a client
# without one of those roles (an anonymous NFS mount) is refused.
_FILE_SYSTEM_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Sid": "TlsOnly",
            "Effect": "Deny",
            "Principal": {"AWS": "*"},
            "Action": "*",
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
    ],
}


def _lifecycle(days: int | None) -> list[efs.CfnFileSystem.LifecyclePolicyProperty] | None:
    if days is None:
        return None
    unit = "DAY" if days == 1 else "DAYS"
    return [
        efs.CfnFileSystem.LifecyclePolicyProperty(transition_to_ia=f"AFTER_{days}_{unit}"),
        efs.CfnFileSystem.LifecyclePolicyProperty(
            transition_to_primary_storage_class="AFTER_1_ACCESS"
        ),
    ]


def _bucket_lifecycle(plan: model.Bucket) -> s3.LifecycleRule:
    transitions = (
        [
            s3.Transition(
                storage_class=s3.StorageClass.INFREQUENT_ACCESS,
                transition_after=cdk.Duration.days(plan.infrequent_access_days),
            )
        ]
        if plan.infrequent_access_days
        else None
    )
    return s3.LifecycleRule(
        id="Lifecycle",
        abort_incomplete_multipart_upload_after=cdk.Duration.days(7),
        noncurrent_version_expiration=cdk.Duration.days(plan.noncurrent_days),
        expiration=cdk.Duration.days(plan.expire_days) if plan.expire_days else None,
        transitions=transitions,
    )
