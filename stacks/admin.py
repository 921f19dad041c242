"""The admin box: one small machine from which clusters are looked after."""

from __future__ import annotations

from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_route53 as route53
from aws_cdk import aws_s3_assets as assets
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from clusterbox.site import names
from clusterbox.site.environment import AdminBox, Environment
from clusterbox.site.images import LockedImage
from stacks.admin_box import render_user_data
from stacks.network import NetworkStack
from stacks.permissions import arns, nodes
from stacks.permissions.provider import provider
from stacks.permissions.roles import (
    Statement,
    acknowledge,
    make_role,
    session_manager_statements,
)
from stacks.security import SecurityStack
from stacks.site_stack import SiteStack
from stacks.storage import StorageStack

# What the box installs of this repository; everything else is left out of the archive.
_SOURCE = (
    "LICENSE",
    "clusterbox",
    "pyproject.toml",
    "requirements.txt",
    "requirements-pcluster.txt",
)


class AdminStack(SiteStack):
    """The box, reached through Session Manager; without a public address."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        box: AdminBox,
        image: LockedImage,
        root: Path,
        key: kms.IKey,
        network: NetworkStack,
        storage: StorageStack,
        security: SecurityStack,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            environment=environment,
            description="Admin box",
        )
        self._publish_source(root)
        role = make_role(
            self,
            "Role",
            environment=environment,
            purpose="admin-box",
            description="Admin box: runs pcluster and this repository's command",
            principal=iam.ServicePrincipal("ec2.amazonaws.com"),
            statements=self._permissions(storage, key),
        )
        groups = [security.admin, *([security.ssh] if box.ssh else [])]
        template = ec2.CfnLaunchTemplate(
            self,
            "Template",
            launch_template_data=ec2.CfnLaunchTemplate.LaunchTemplateDataProperty(
                metadata_options=ec2.CfnLaunchTemplate.MetadataOptionsProperty(
                    http_tokens="required", http_put_response_hop_limit=1, http_endpoint="enabled"
                )
            ),
        )
        instance = ec2.CfnInstance(
            self,
            "Box",
            image_id=image.ami,
            instance_type=box.instance_type,
            launch_template=ec2.CfnInstance.LaunchTemplateSpecificationProperty(
                launch_template_id=template.ref, version=template.attr_latest_version_number
            ),
            iam_instance_profile=iam.CfnInstanceProfile(
                self, "Profile", path=environment.hosting.iam_path, roles=[role.role_name]
            ).ref,
            network_interfaces=[
                ec2.CfnInstance.NetworkInterfaceProperty(
                    device_index="0",
                    subnet_id=network.subnets[box.subnet].subnet_id,
                    group_set=[group.security_group_id for group in groups],
                    associate_public_ip_address=False,
                )
            ],
            key_name=environment.network.ssh.key_pair if box.ssh else None,
            monitoring=True,
            ebs_optimized=True,
            # The box stops itself when idle, by switching itself off.
            instance_initiated_shutdown_behavior="stop",
            propagate_tags_to_volume_on_creation=True,
            block_device_mappings=[
                ec2.CfnInstance.BlockDeviceMappingProperty(
                    device_name="/dev/xvda",
                    ebs=ec2.CfnInstance.EbsProperty(
                        volume_size=box.root_gib,
                        volume_type="gp3",
                        encrypted=True,
                        kms_key_id=key.key_arn,
                        delete_on_termination=True,
                    ),
                )
            ],
            user_data=cdk.Fn.base64(
                render_user_data(
                    {
                        "CLUSTERBOX_REGION": environment.region,
                        "CLUSTERBOX_ENVIRONMENT": environment.name,
                        "CLUSTERBOX_SOURCE_PARAMETER": self._source_parameter,
                        "CLUSTERBOX_PCLUSTER_VERSION": names.PARALLELCLUSTER_VERSION,
                        "CLUSTERBOX_FILE_SYSTEMS": " ".join(
                            f"{file_system.file_system_id}=/mnt/{name}"
                            for name, file_system in storage.file_systems.items()
                        ),
                        "CLUSTERBOX_IDLE_STOP_MINUTES": str(box.idle_stop_minutes),
                    }
                )
            ),
        )
        cdk.Tags.of(instance).add("Name", box.name)
        acknowledge(
            instance,
            "AwsSolutions-EC29",
            "holds no data: everything on it is installed from the repository and made again",
        )
        acknowledge(
            instance,
            "NIST.800.53.R5-EC2InstancesInVPC",
            "its subnet is in the network interface, where a public address can be refused",
        )
        acknowledge(
            instance,
            "CloudFormation-Validate::W9010",
            "the id comes from ami/images.lock.yaml, where a reviewer sees each change",
        )
        self._name_box(box, instance, network)

    @property
    def _source_parameter(self) -> str:
        return names.parameter_path(self._environment, "admin-box", "source")

    def _publish_source(self, root: Path) -> None:
        """Publish this repository's command; the box learns of a new one through the parameter."""
        source = assets.Asset(
            self,
            "Source",
            path=str(root),
            ignore_mode=cdk.IgnoreMode.GIT,
            exclude=[
                "*",
                *(f"!{name}" for name in _SOURCE),
                "!clusterbox/**",
                "__pycache__",
                "*.pyc",
            ],
        )
        ssm.CfnParameter(
            self,
            "SourceParameter",
            type="String",
            name=self._source_parameter,
            description="Archive of the command that the admin box installs",
            value=source.s3_object_url,
        )

    def _permissions(self, storage: StorageStack, key: kms.IKey) -> list[Statement]:
        environment = self._environment
        data = nodes.share_data(
            environment,
            file_systems=[file_system.arn for file_system in storage.file_systems.values()],
            key_arn=key.key_arn,
        )
        return [
            *session_manager_statements(),
            # pcluster runs here with the same permissions as the provider has.
            *provider(environment),
            *data,
            *nodes.run_on_head_nodes(environment),
            Statement(
                "Source",
                ["s3:GetObject"],
                [
                    arns.bucket(
                        environment, f"cdk-*-assets-{environment.account}-{environment.region}/*"
                    )
                ],
                because="CDK names the archive after its content",
            ),
            Statement(
                "Parameters",
                ["ssm:GetParameter", "ssm:GetParametersByPath"],
                [arns.regional(environment, "ssm", f"parameter/clusterbox/{environment.name}/*")],
                because="the parameters that the environment's stacks publish",
            ),
        ]

    def _name_box(self, box: AdminBox, instance: ec2.CfnInstance, network: NetworkStack) -> None:
        if network.zone is not None:
            route53.ARecord(
                self,
                "Record",
                zone=network.zone,
                record_name=box.name,
                target=route53.RecordTarget.from_ip_addresses(instance.attr_private_ip),
                ttl=cdk.Duration.minutes(1),
            )
        ssm.CfnParameter(
            self,
            "InstanceParameter",
            type="String",
            name=names.parameter_path(self._environment, "admin-box", "instance-id"),
            description="Target of `aws ssm start-session`",
            value=instance.ref,
        )
