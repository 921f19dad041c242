"""What runs a patch day, and the schedule that starts it: CodeBuild, or a platform's pipeline."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from clusterbox.site import names
from clusterbox.site.environment import Environment
from clusterbox.site.patch_day import PatchDay
from stacks.failures import make_log_group, tell_failed_builds
from stacks.identity import GITHUB_HOST, IdentityStack, claims
from stacks.image_age import FUNCTIONS
from stacks.permissions import arns, patch_day
from stacks.permissions.roles import Statement, make_role
from stacks.processes import make_function, make_project, scheduler_principal, start_on_schedule

# The longest that a build of CodeBuild may take (API reference, CreateProject), and a job of GitHub
# with a session of its role. A run that is cut off is taken up by the next one.
_PROJECT_HOURS = 36
_SESSION_HOURS = 6


class PatchDayRun(Construct):
    """`clusterbox patch-day run`, by the pipeline and at the time that the environment asks for."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        plan: PatchDay,
        key: kms.IKey,
        notices: sns.Topic,
        alarms: sns.Topic,
        dead_letters: sqs.Queue,
        identity: IdentityStack,
    ) -> None:
        super().__init__(scope, construct_id)
        self._environment = environment
        self._plan = plan
        self._key = key
        self._dead_letters = dead_letters
        self._alarms = alarms
        permissions = patch_day.run(
            environment,
            key_arn=key.key_arn,
            notices=notices.topic_arn,
            alarms=alarms.topic_arn,
            replaces=plan.head == "replace",
        )
        if plan.pipeline == "codebuild":
            self._run_in_project(permissions)
        else:
            # The identity stack makes the provider, where the account does not have it.
            cdk.Stack.of(self).add_stack_dependency(identity)
            self._trust_pipeline(permissions)
            if plan.schedule is not None:
                self._start_pipeline()

    def _run_in_project(self, permissions: list[Statement]) -> None:
        environment = self._environment
        log_group = make_log_group(self, self._key)
        role = make_role(
            self,
            "Role",
            environment=environment,
            purpose="patch-day",
            description="Runs patch days",
            principal=iam.ServicePrincipal("codebuild.amazonaws.com"),
            statements=[
                *patch_day.run_in_project(environment, log_group=log_group.log_group_arn),
                *permissions,
            ],
        )
        logs = environment.storage.buckets.logs.name
        project = make_project(
            self,
            description=f"Patch days of {environment.name}",
            # Put there by each deployment, so that no change of a site changes this stack.
            source=codebuild.Source.s3(
                bucket=s3.Bucket.from_bucket_name(
                    self, "SourceBucket", environment.storage.buckets.cluster_config.name
                ),
                path=names.patch_day_source_key(environment),
            ),
            role=role,
            commands=["bash stacks/image_functions/patch_day.sh"],
            variables={
                "CLUSTERBOX_ENVIRONMENT": environment.name,
                "CLUSTERBOX_RECORDS": f"s3://{logs}/{names.patch_day_folder(environment)}",
                "CLUSTERBOX_ALARMS": self._alarms.topic_arn,
            },
            key=self._key,
            log_group=log_group,
            timeout=cdk.Duration.hours(_PROJECT_HOURS),
        )
        tell_failed_builds(
            self,
            description="A patch day failed",
            project=project,
            topic=self._alarms,
            message=f"{environment.name}: the patch day did NOT end well",
        )
        self._start("codebuild:StartBuild", project.project_arn)

    def _start(self, action: str, target: str) -> None:
        """Let the schedule start `target`, where there is a schedule."""
        environment, expression = self._environment, self._plan.schedule_expression
        if expression is None:
            return
        role = make_role(
            self,
            "ScheduleRole",
            environment=environment,
            purpose="patch-day-schedule",
            description="Starts patch days",
            principal=scheduler_principal(environment.account),
            statements=patch_day.start(
                environment,
                action=action,
                target=target,
                dead_letters=self._dead_letters.queue_arn,
                key_arn=self._key.key_arn,
            ),
        )
        start_on_schedule(
            self,
            "Monthly",
            description=f"Patch day of {environment.name}",
            expression=expression,
            time_zone=self._plan.time_zone,
            target=target,
            role=role,
            dead_letters=self._dead_letters,
        )

    def _start_pipeline(self) -> None:
        environment, secret = self._environment, self._plan.token_secret
        if secret is None:
            raise ValueError("a schedule of a pipeline has a token: the model sees to it")
        log_group = make_log_group(self, self._key)
        role = make_role(
            self,
            "StartRole",
            environment=environment,
            purpose="patch-day-start",
            description="Starts the patch-day pipeline",
            principal=iam.ServicePrincipal("lambda.amazonaws.com"),
            statements=patch_day.start_pipeline(
                environment,
                secret=secret,
                dead_letters=self._dead_letters.queue_arn,
                log_group=log_group.log_group_arn,
                key_arn=self._key.key_arn,
            ),
        )
        function = make_function(
            self,
            description="Starts the patch-day pipeline",
            source=FUNCTIONS / "start_pipeline.py",
            handler="handle",
            role=role,
            variables={
                "CLUSTERBOX_ENVIRONMENT": environment.name,
                "CLUSTERBOX_TOKEN_SECRET": secret,
                "CLUSTERBOX_PLATFORM": self._plan.pipeline,
                **self._platform(),
            },
            dead_letters=self._dead_letters,
            log_group=log_group,
            not_reserved_because="runs once a month; an account with the lowest quota has none to reserve",
        )
        self._start("lambda:InvokeFunction", function.function_arn)

    def _platform(self) -> dict[str, str]:
        """Return where the pipeline is, as the function wants to know it."""
        ci = self._environment.hosting.ci
        if self._plan.pipeline == "github" and ci.github is not None:
            # A workflow is started on a branch; which ones may, the GitHub environment says.
            return {
                "CLUSTERBOX_HOST": "api.github.com",
                "CLUSTERBOX_PROJECT": ci.github.repository,
                "CLUSTERBOX_BRANCH": "main",
                "CLUSTERBOX_ACCOUNT": self._environment.account,
                "CLUSTERBOX_GATE": ci.github.environment,
            }
        if self._plan.pipeline == "gitlab" and ci.gitlab is not None:
            return {
                "CLUSTERBOX_HOST": ci.gitlab.host,
                "CLUSTERBOX_PROJECT": ci.gitlab.project,
                "CLUSTERBOX_BRANCH": ci.gitlab.branch,
            }
        raise ValueError("the pipeline is one of hosting.ci: the model sees to it")

    def _trust_pipeline(self, permissions: list[Statement]) -> None:
        """Make the role of the pipeline, from the place that may deploy and from no other."""
        ci = self._environment.hosting.ci
        if self._plan.pipeline == "github" and ci.github is not None:
            system, host, audience = "GitHub", GITHUB_HOST, "sts.amazonaws.com"
            subject = f"repo:{ci.github.repository}:environment:{ci.github.environment}"
        elif ci.gitlab is not None:
            system, host, audience = "GitLab", ci.gitlab.host, f"https://{ci.gitlab.host}"
            subject = f"project_path:{ci.gitlab.project}:ref_type:branch:ref:{ci.gitlab.branch}"
        else:
            raise ValueError("the pipeline is one of hosting.ci: the model sees to it")
        make_role(
            self,
            f"{system}Role",
            environment=self._environment,
            purpose=f"ci-{system.lower()}-patch-day",
            description=f"{system}: runs patch days",
            principal=iam.WebIdentityPrincipal(
                arns.iam(self._environment, f"oidc-provider/{host}"),
                claims(host, audience, subject),
            ),
            statements=permissions,
            session_hours=_SESSION_HOURS,
        )
