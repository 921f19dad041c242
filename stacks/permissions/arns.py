"""ARNs of an environment, with its partition, region and account filled in."""

from __future__ import annotations

from clusterbox.site import names
from clusterbox.site.environment import Environment


def regional(environment: Environment, service: str, resource: str) -> str:
    """Return the ARN of a resource in the environment's region and account."""
    return f"arn:{environment.partition}:{service}:{environment.region}:{environment.account}:{resource}"


def public(environment: Environment, service: str, resource: str) -> str:
    """Return the ARN of a regional resource that no account owns, such as an image."""
    return f"arn:{environment.partition}:{service}:{environment.region}::{resource}"


def iam(environment: Environment, resource: str) -> str:
    """Return the ARN of an IAM resource of the account."""
    return f"arn:{environment.partition}:iam::{environment.account}:{resource}"


def bucket(environment: Environment, name: str) -> str:
    """Return the ARN of a bucket, or of objects in it: `NAME/*`."""
    return f"arn:{environment.partition}:s3:::{name}"


def site_roles(environment: Environment, purpose: str = "*") -> str:
    """Return the ARN of the site's roles, by the hosting service's path and prefix."""
    path = environment.hosting.iam_path
    return iam(environment, f"role{path}{names.role_name(environment, purpose)}")


def cluster_stack(environment: Environment, cluster: str = "*") -> str:
    """Return the ARN of the stack that ParallelCluster makes for a cluster, nested ones included."""
    return regional(environment, "cloudformation", f"stack/{cluster}*/*")


def parallelcluster_artefacts(environment: Environment, resource: str = "/*") -> str:
    """Return the ARN of the region's public ParallelCluster bucket."""
    return bucket(environment, f"{environment.region}-aws-parallelcluster{resource}")
