"""The tags that everything carries, from one place."""

from __future__ import annotations

import aws_cdk as cdk

from clusterbox.site import names
from clusterbox.site.environment import Environment


def add_tags(app: cdk.App, environment: Environment) -> None:
    """Tag every resource of the app with the environment's tags.

    `Name` is given resource by resource and never here. The nodes of a cluster get their tags from
    its configuration, and ParallelCluster's own ones, `Name` included, are left alone.
    """
    for key, value in environment.tags.model_dump().items():
        cdk.Tags.of(app).add(key, value)
    cdk.Tags.of(app).add(names.TAG_ENVIRONMENT, environment.name)
