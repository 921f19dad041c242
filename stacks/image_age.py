"""Alarms on images that nobody has renewed for too long."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from clusterbox.site.environment import Environment
from stacks.failures import make_log_group
from stacks.permissions import patch_day
from stacks.permissions.roles import make_role
from stacks.processes import make_function, scheduler_principal, start_on_schedule

FUNCTIONS = Path(__file__).parent / "image_functions"


class ImageAge(Construct):
    """A function that says twice a day how old each locked image is, and an alarm for each."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        images: Mapping[str, str],
        max_age_days: int,
        key: kms.IKey,
        dead_letters: sqs.Queue,
    ) -> None:
        super().__init__(scope, construct_id)
        log_group = make_log_group(self, key)
        role = make_role(
            self,
            "Role",
            environment=environment,
            purpose="image-age",
            description="Says how old the locked images are",
            principal=iam.ServicePrincipal("lambda.amazonaws.com"),
            statements=patch_day.measure_age(
                environment,
                dead_letters=dead_letters.queue_arn,
                log_group=log_group.log_group_arn,
                key_arn=key.key_arn,
            ),
        )
        function = make_function(
            self,
            description="Says how old the locked images are",
            source=FUNCTIONS / "image_age.py",
            handler="handle",
            role=role,
            variables={
                "CLUSTERBOX_ENVIRONMENT": environment.name,
                "CLUSTERBOX_IMAGES": cdk.Stack.of(self).to_json_string(dict(images)),
                "CLUSTERBOX_METRICS": patch_day.METRICS,
            },
            dead_letters=dead_letters,
            log_group=log_group,
            not_reserved_because="runs twice a day; an account with the lowest quota has none to reserve",
        )
        schedule_role = make_role(
            self,
            "ScheduleRole",
            environment=environment,
            purpose="image-age-schedule",
            description="Starts the function that says how old the locked images are",
            principal=scheduler_principal(environment.account),
            statements=patch_day.start(
                environment,
                action="lambda:InvokeFunction",
                target=function.function_arn,
                dead_letters=dead_letters.queue_arn,
                key_arn=key.key_arn,
            ),
        )
        start_on_schedule(
            self,
            "TwiceDaily",
            description=f"Age of the images of {environment.name}",
            # Two samples in each period of the alarms, so that one that fails raises none.
            expression="rate(12 hours)",
            time_zone="UTC",
            target=function.function_arn,
            role=schedule_role,
            dead_letters=dead_letters,
        )
        self.alarms = [
            cloudwatch.Alarm(
                self,
                f"Old-{name}",
                alarm_description=(
                    f"{environment.name}: the image {name} is older than {max_age_days} days, or "
                    "nobody could say how old it is. Run a patch day: ami/README.md"
                ),
                metric=cloudwatch.Metric(
                    namespace=patch_day.METRICS,
                    metric_name="AgeDays",
                    dimensions_map={"Environment": environment.name, "Image": name},
                    period=cdk.Duration.days(1),
                    statistic="Maximum",
                ),
                threshold=max_age_days,
                comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
                evaluation_periods=1,
                # A function that says nothing any more must not look like new images.
                treat_missing_data=cloudwatch.TreatMissingData.BREACHING,
            )
            for name in images
        ]
