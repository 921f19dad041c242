"""Images: what is locked, the machines that verify one, and the patch day that renews them all."""

from __future__ import annotations

from collections.abc import Mapping

from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from clusterbox.site import names
from clusterbox.site.environment import Environment
from clusterbox.site.images import LockedImage
from clusterbox.site.patch_day import PatchDay
from stacks.failures import let_alarms_publish, let_services_use, make_dead_letters, make_topic
from stacks.identity import IdentityStack
from stacks.image_age import ImageAge
from stacks.patch_day import PatchDayRun
from stacks.permissions import nodes, patch_day
from stacks.permissions.roles import make_role
from stacks.site_stack import SiteStack


class ImagesStack(SiteStack):
    """The locked images as parameters, the verifier's role, and the patch day where there is one.

    The roles that bake are in the identity stack, where they were first: a named role cannot move
    to another stack while it stands.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        images: Mapping[str, LockedImage],
        key: kms.IKey,
        identity: IdentityStack,
    ) -> None:
        super().__init__(scope, construct_id, environment=environment, description="Images")
        # A name inside of it becomes a logical id of its own, whatever characters it has.
        locked = Construct(self, "Locked")
        for name, image in images.items():
            ssm.CfnParameter(
                locked,
                name,
                type="String",
                name=names.parameter_path(environment, "images", name),
                description=f"Locked image {name}, as the repository has it",
                value=image.ami,
            )
        self._make_verifier(key)
        if environment.patch_day is not None:
            self._plan_patch_day(environment.patch_day, images, key, identity)

    def _make_verifier(self, key: kms.IKey) -> None:
        environment = self._environment
        # A bucket that exists outside of the site has a key of its own, if any.
        made_here = not environment.storage.buckets.cluster_config.exists
        role = make_role(
            self,
            "Verify",
            environment=environment,
            purpose=names.IMAGE_VERIFY,
            description="Machines that verify an image, and end with that",
            principal=iam.ServicePrincipal("ec2.amazonaws.com"),
            statements=[
                *patch_day.verify_image(environment),
                *([nodes.use_key(environment, key.key_arn)] if made_here else []),
            ],
        )
        iam.CfnInstanceProfile(
            self,
            "VerifyProfile",
            instance_profile_name=names.role_name(environment, names.IMAGE_VERIFY),
            path=environment.hosting.iam_path,
            roles=[role.role_name],
        )

    def _plan_patch_day(
        self,
        plan: PatchDay,
        images: Mapping[str, LockedImage],
        key: kms.IKey,
        identity: IdentityStack,
    ) -> None:
        environment = self._environment
        let_services_use(key, environment, {"PatchDayAlarms": "cloudwatch"})
        notices = make_topic(
            self,
            "Notices",
            topic_name=names.patch_day_topic(environment),
            display_name=f"Patch days of {environment.name}",
            addresses=sorted({*plan.users, *plan.notify}),
            key=key,
        )
        alarms = make_topic(
            self,
            "Alarms",
            display_name=f"Images of {environment.name}",
            addresses=plan.notify,
            key=key,
        )
        let_alarms_publish(alarms, environment)
        dead_letters, letter_alarms = make_dead_letters(
            self,
            description=(
                f"{environment.name}: the patch day was NOT started, or nobody could say how old "
                f"the images are. The logs of the stack "
                f"{names.stack_name(environment, 'images')} say why."
            ),
            key=key,
        )
        PatchDayRun(
            self,
            "PatchDay",
            environment=environment,
            plan=plan,
            key=key,
            notices=notices,
            alarms=alarms,
            dead_letters=dead_letters,
            identity=identity,
        )
        age = ImageAge(
            self,
            "Age",
            environment=environment,
            images={name: image.ami for name, image in images.items()},
            max_age_days=plan.max_age_days,
            key=key,
            dead_letters=dead_letters,
        )
        for alarm in (*letter_alarms, *age.alarms):
            alarm.add_alarm_action(actions.SnsAction(alarms))
