"""The names that stacks and commands must agree on: stacks, roles, parameters, tags."""

from __future__ import annotations

from clusterbox.site.environment import Environment

PARALLELCLUSTER_VERSION = "3.16.1"

# The site's stacks but for those of its clusters; `stacks/__init__.py` makes them.
UNITS = (
    "boundary",
    "encryption",
    "network",
    "storage",
    "security",
    "identity",
    "images",
    "admin",
    "costs",
    "accounting",
    "monitoring",
)
# TCP ports on which nodes answer Prometheus, by the job's name.
SCRAPE_PORTS = {"node": 9100, "slurm": 9341, "containers": 9343, "gpu": 9400}
# The stack of CDK's bootstrap.
BOOTSTRAP_STACK = "CDKToolkit"
# IAM's limit on the name of a role (IAM user guide, "IAM and AWS STS quotas").
ROLE_NAME_CHARACTERS = 64

# Tags that ParallelCluster sets on its machines; they and `Name` are never overwritten.
TAG_CLUSTER = "parallelcluster:cluster-name"
TAG_NODE_TYPE = "parallelcluster:node-type"
# Our own: which environment a resource belongs to.
TAG_ENVIRONMENT = "Environment"
TAG_SITE_CLUSTER = "Cluster"
# On images: which of the site's it is. On the machines that verify one: for which run and step.
TAG_IMAGE = "clusterbox:image"
TAG_VERIFIES = "clusterbox:verifies"

# Role and instance profile, as `role_name` writes both, of the machines that verify an image.
IMAGE_VERIFY = "image-verify"


def stack_name(environment: Environment, unit: str) -> str:
    """Return the name of the stack of a deployment unit: `ws-dev-network`."""
    return f"{environment.name}-{unit}"


def cluster_stack_name(environment: Environment, cluster: str) -> str:
    """Return the name of a cluster's stack; it differs from the cluster's own stack, its name."""
    return stack_name(environment, f"cluster-{cluster}")


def role_name(environment: Environment, purpose: str) -> str:
    """Return the name of a role: the hosting service's prefix, then what it is for."""
    return f"{environment.hosting.iam_name_prefix}{purpose}"


def patch_day_topic(environment: Environment) -> str:
    """Return the name of the topic by which users are told of a patch day: `ws-dev-patch-day`."""
    return f"{environment.name}-patch-day"


def patch_day_folder(environment: Environment) -> str:
    """Return the folder of the logs bucket with records and leases: `patch-day/ws-dev`."""
    return f"patch-day/{environment.name}"


def patch_day_source_key(environment: Environment) -> str:
    """Return where in the bucket `cluster_config` the repository is that CodeBuild works in."""
    return f"patch-day/{environment.name}.zip"


def parameter_path(environment: Environment, *parts: str) -> str:
    """Return the SSM parameter path that publishes a fact of the site: `/clusterbox/ws-dev/…`."""
    return "/".join(("/clusterbox", environment.name, *parts))


def accounting_name(environment: Environment) -> str:
    """Return the name of the accounting database's server and of the secret with its password."""
    return f"clusterbox-{environment.name}-accounting"


def limits_script_key(cluster: str) -> str:
    """Return where in the bucket `cluster_config` the script with a cluster's limits stands.

    The head node may read that folder, and jobs may not write it. The key never changes:
    ParallelCluster cannot change OnNodeConfigured of a cluster that stands.
    """
    return f"parallelcluster/limits/{cluster}.sh"


def provider_template_url(environment: Environment) -> str:
    """Return the address of ParallelCluster's own custom-resource provider in the region.

    Source: "AWS ParallelCluster CloudFormation custom resource" in the ParallelCluster user guide.
    """
    region = environment.region
    suffix = "amazonaws.com.cn" if environment.partition == "aws-cn" else "amazonaws.com"
    return (
        f"https://{region}-aws-parallelcluster.s3.{region}.{suffix}/"
        f"parallelcluster/{PARALLELCLUSTER_VERSION}/templates/custom_resource/cluster.yaml"
    )
