"""The machine that watches the site: Prometheus, Alertmanager and Grafana."""

from __future__ import annotations

import shlex
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_aps as aps
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3_assets as assets
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk import aws_sns as sns
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from clusterbox.site import names
from clusterbox.site.environment import Environment
from clusterbox.site.images import LockedImage
from clusterbox.site.monitoring import Monitoring
from stacks.failures import let_alarms_publish, let_services_use, make_topic
from stacks.network import NetworkStack
from stacks.permissions import monitoring as permissions
from stacks.permissions.roles import acknowledge, ignore_lint, make_role
from stacks.security import SecurityStack
from stacks.site_stack import SiteStack

# What the machine installs of this repository; everything else is left out of the archive.
_FILES = ("LICENSE", "cdk.json", "pyproject.toml")
_FOLDERS = ("ami", "cluster_configs", "clusterbox", "environments", "monitoring", "prices")
_DEVICE = "/dev/sdf"


class MonitoringStack(SiteStack):
    """The machine without a public address or an open port, its data volume, and who is told."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        plan: Monitoring,
        image: LockedImage,
        root: Path,
        key: kms.IKey,
        network: NetworkStack,
        security: SecurityStack,
    ) -> None:
        super().__init__(scope, construct_id, environment=environment, description="Monitoring")
        self._plan = plan
        self._key = key
        self._source_parameter = names.parameter_path(environment, "monitoring", "source")
        self._publish_source(root)
        topic = self._make_topic()
        workspace = self._make_workspace() if plan.managed else None
        password = secretsmanager.Secret(
            self,
            "GrafanaPassword",
            description=f"Password of Grafana's user admin of {environment.name}",
            encryption_key=key,
            generate_secret_string=secretsmanager.SecretStringGenerator(
                exclude_punctuation=True, password_length=40
            ),
        )
        for finding in ("AwsSolutions-SMG4", "NIST.800.53.R5-SecretsManagerRotationEnabled"):
            acknowledge(
                password,
                finding,
                "Grafana keeps its own copy: setup.sh sets a new one whenever the secret changes",
            )
        role = make_role(
            self,
            "Role",
            environment=environment,
            purpose="monitoring",
            description="Monitoring: finds nodes, reads what is watched, tells people",
            principal=iam.ServicePrincipal("ec2.amazonaws.com"),
            statements=permissions.machine(
                environment,
                topic=topic.topic_arn,
                key_arn=key.key_arn,
                password=password.secret_arn,
                mail_secret=None if plan.mail is None else plan.mail.secret,
                workspace=None if workspace is None else workspace.attr_arn,
            ),
        )
        group = self._make_group(network, security)
        values = {
            "CLUSTERBOX_REGION": environment.region,
            "CLUSTERBOX_ENVIRONMENT": environment.name,
            "CLUSTERBOX_SOURCE_PARAMETER": self._source_parameter,
            "CLUSTERBOX_TOPIC": topic.topic_arn,
            "CLUSTERBOX_GRAFANA_SECRET": password.secret_arn,
            "CLUSTERBOX_MAIL_SECRET": (plan.mail.secret if plan.mail else None) or "",
            "CLUSTERBOX_REMOTE_WRITE": ""
            if workspace is None
            else f"{workspace.attr_prometheus_endpoint}api/v1/remote_write",
            "CLUSTERBOX_ARTEFACTS": (
                f"s3://{environment.storage.buckets.cluster_config.name}/monitoring/artefacts"
            ),
        }
        instance = self._make_machine(image, network, role, group, values)
        self._make_volume(instance)
        self._watch_machine(instance, topic)

    def _publish_source(self, root: Path) -> None:
        source = assets.Asset(
            self,
            "Source",
            path=str(root),
            ignore_mode=cdk.IgnoreMode.GIT,
            exclude=[
                "*",
                *(f"!{name}" for name in _FILES),
                *(pattern for name in _FOLDERS for pattern in (f"!{name}", f"!{name}/**")),
                "__pycache__",
                "*.pyc",
            ],
        )
        ssm.CfnParameter(
            self,
            "SourceParameter",
            type="String",
            name=self._source_parameter,
            description="Archive of what the monitoring machine installs",
            value=source.s3_object_url,
        )

    def _make_topic(self) -> sns.Topic:
        let_services_use(self._key, self._environment, {"MonitoringAlarms": "cloudwatch"})
        topic = make_topic(
            self,
            "Alerts",
            display_name=f"Alerts of {self._environment.name}",
            # With a mail server of its own, Alertmanager writes to people itself.
            addresses=self._plan.notify if self._plan.mail is None else (),
            key=self._key,
        )
        let_alarms_publish(topic, self._environment)
        return topic

    def _make_workspace(self) -> aps.CfnWorkspace:
        return aps.CfnWorkspace(
            self, "Workspace", alias=self._environment.name, kms_key_arn=self._key.key_arn
        )

    def _make_group(self, network: NetworkStack, security: SecurityStack) -> ec2.SecurityGroup:
        """Make the machine's group, which nothing comes into, and let it ask nodes."""
        group = ec2.SecurityGroup(
            self,
            "Group",
            vpc=network.vpc,
            description="Monitoring",
            allow_all_outbound=True,
        )
        cdk.Tags.of(group).add("Name", f"{self._environment.name}-monitoring")
        for job, port in names.SCRAPE_PORTS.items():
            ec2.CfnSecurityGroupIngress(
                self,
                f"Ask{job.title()}",
                group_id=security.cluster.security_group_id,
                source_security_group_id=group.security_group_id,
                ip_protocol="tcp",
                from_port=port,
                to_port=port,
                description=f"metrics of the job {job}",
            )
        return group

    def _make_machine(
        self,
        image: LockedImage,
        network: NetworkStack,
        role: iam.Role,
        group: ec2.SecurityGroup,
        values: dict[str, str],
    ) -> ec2.CfnInstance:
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
            "Machine",
            image_id=image.ami,
            instance_type=self._plan.instance_type,
            launch_template=ec2.CfnInstance.LaunchTemplateSpecificationProperty(
                launch_template_id=template.ref, version=template.attr_latest_version_number
            ),
            iam_instance_profile=iam.CfnInstanceProfile(
                self,
                "Profile",
                path=self._environment.hosting.iam_path,
                roles=[role.role_name],
            ).ref,
            network_interfaces=[
                ec2.CfnInstance.NetworkInterfaceProperty(
                    device_index="0",
                    subnet_id=network.subnets[self._plan.subnet].subnet_id,
                    group_set=[group.security_group_id],
                    associate_public_ip_address=False,
                )
            ],
            monitoring=True,
            ebs_optimized=True,
            propagate_tags_to_volume_on_creation=True,
            block_device_mappings=[
                ec2.CfnInstance.BlockDeviceMappingProperty(
                    device_name="/dev/xvda",
                    ebs=ec2.CfnInstance.EbsProperty(
                        volume_size=self._plan.root_gib,
                        volume_type="gp3",
                        encrypted=True,
                        kms_key_id=self._key.key_arn,
                        delete_on_termination=True,
                    ),
                )
            ],
            user_data=cdk.Fn.base64(render_user_data(values)),
        )
        cdk.Tags.of(instance).add("Name", f"{self._environment.name}-monitoring")
        for finding, reason in {
            "AwsSolutions-EC29": "its data is on a volume of its own, which outlives it",
            "NIST.800.53.R5-EC2InstancesInVPC": (
                "its subnet is in the network interface, where a public address can be refused"
            ),
            "CloudFormation-Validate::W9010": (
                "the id comes from ami/images.lock.yaml, where a reviewer sees each change"
            ),
        }.items():
            acknowledge(instance, finding, reason)
        ssm.CfnParameter(
            self,
            "InstanceParameter",
            type="String",
            name=names.parameter_path(self._environment, "monitoring", "instance-id"),
            description="Target of `aws ssm start-session`",
            value=instance.ref,
        )
        return instance

    def _make_volume(self, instance: ec2.CfnInstance) -> None:
        """Make the data's volume, of which a snapshot stays when it goes."""
        volume = ec2.CfnVolume(
            self,
            "Data",
            availability_zone=self._environment.zone(self._plan.subnet.rpartition(".")[2]),
            size=self._plan.volume_gib,
            volume_type="gp3",
            encrypted=True,
            kms_key_id=self._key.key_arn,
        )
        volume.apply_removal_policy(cdk.RemovalPolicy.SNAPSHOT)
        cdk.Tags.of(volume).add("Name", f"{self._environment.name}-monitoring")
        acknowledge(
            volume,
            "NIST.800.53.R5-EC2EBSInBackupPlan",
            "holds metrics of the last days, which nothing depends on",
        )
        ignore_lint(volume, "W3010", "a volume stands in the zone of its machine's subnet")
        ec2.CfnVolumeAttachment(
            self, "Attachment", device=_DEVICE, instance_id=instance.ref, volume_id=volume.ref
        )

    def _watch_machine(self, instance: ec2.CfnInstance, topic: sns.Topic) -> None:
        """Let CloudWatch tell when the machine that watches is itself gone, or nothing runs on it."""
        alarm = cloudwatch.Alarm(
            self,
            "Gone",
            alarm_description=(
                f"{self._environment.name}: the monitoring machine does not work, so that no other "
                "alert arrives: docs/alerts.md#the-machine-itself"
            ),
            metric=cloudwatch.Metric(
                namespace="AWS/EC2",
                metric_name="StatusCheckFailed",
                dimensions_map={"InstanceId": instance.ref},
                period=cdk.Duration.minutes(1),
                statistic="Maximum",
            ),
            threshold=0,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            evaluation_periods=5,
            treat_missing_data=cloudwatch.TreatMissingData.BREACHING,
        )
        alarm.add_alarm_action(actions.SnsAction(topic))
        alarm.add_ok_action(actions.SnsAction(topic))


def render_user_data(values: dict[str, str]) -> str:
    """Return the user data: values for setup.sh, which it fetches with the rest of the source."""
    lines = [f"{name}={shlex.quote(value)}" for name, value in values.items()]
    return "\n".join(
        [
            "#!/bin/bash",
            "set -euo pipefail",
            "mkdir -p /etc/clusterbox-monitoring /opt/clusterbox-monitoring",
            "cat >/etc/clusterbox-monitoring/values <<'END_OF_VALUES'",
            *lines,
            "END_OF_VALUES",
            "set -a; . /etc/clusterbox-monitoring/values; set +a",
            'source=$(aws ssm get-parameter --region "$CLUSTERBOX_REGION" --query Parameter.Value \\',
            '  --output text --name "$CLUSTERBOX_SOURCE_PARAMETER")',
            'aws s3 cp --only-show-errors "$source" /opt/clusterbox-monitoring/source.zip',
            "cd /opt/clusterbox-monitoring",
            "python3 -m zipfile -e source.zip first",
            "bash first/monitoring/setup.sh",
            "",
        ]
    )
