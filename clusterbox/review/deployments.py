"""Which deployments a pipeline runs, in the words of GitHub and GitLab."""

from __future__ import annotations

import json
from collections.abc import Sequence

import yaml

from clusterbox.review.changed import Site


def render_matrix(sites: Sequence[Site]) -> str:
    """Return the environments that GitHub deploys as one line of JSON, for a job's `matrix`."""
    return json.dumps(
        [
            {
                "name": site.name,
                "account": site.account,
                "region": site.region,
                "environment": site.github_environment,
            }
            for site in sites
            if site.github_environment is not None
        ]
    )


def render_child_pipeline(sites: Sequence[Site]) -> str:
    """Return a GitLab pipeline with a job for each environment that GitLab deploys.

    The jobs extend `.deploy` of `.gitlab/deploy.yml`, which says how.
    """
    jobs = {
        f"deploy-{site.name}": {
            "extends": ".deploy",
            "variables": {"AWS_REGION": site.region},
            "environment": {"name": site.name},
            # Two deployments of one environment wait for each other.
            "resource_group": f"deploy-{site.name}",
        }
        for site in sites
        if site.on_gitlab
    }
    # GitLab refuses a pipeline without a job.
    idle = {"nothing-to-deploy": {"extends": ".nothing-to-deploy"}}
    pipeline = {"include": [{"local": ".gitlab/deploy.yml"}], **(jobs or idle)}
    return yaml.safe_dump(pipeline, sort_keys=False)
