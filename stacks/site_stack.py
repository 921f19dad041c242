"""What all deployment units have in common."""

from __future__ import annotations

import aws_cdk as cdk
from constructs import Construct

from clusterbox.site.environment import Environment


class SiteStack(cdk.Stack):
    """A stack in the environment's account and region.

    A protected stack holds data, keys or what these need: CloudFormation refuses to delete it.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        description: str,
        protected: bool = False,
        synthesizer: cdk.IStackSynthesizer | None = None,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            env=cdk.Environment(account=environment.account, region=environment.region),
            description=f"{description} of {environment.name}",
            synthesizer=synthesizer,
            termination_protection=protected,
        )
        self._environment = environment
