"""The scripts that give clusters their limits at the start: made here, kept where head nodes read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterbox.site import names
from clusterbox.site.environment import Environment
from clusterbox.site.yaml_file import value_at

Client = Callable[[str], Any]


@dataclass(frozen=True)
class LimitScript:
    """A script, and the place in S3 that the cluster's configuration names for it.

    `differing` are the settings of that configuration which are not as the limits need them, such
    as weights of prices that have changed: until they are, jobs are not billed what they cost.
    """

    cluster: str
    bucket: str
    key: str
    text: str
    differing: tuple[str, ...] = ()

    @property
    def warning(self) -> str | None:
        """What whoever deploys should know, None where the limits will hold."""
        if not self.differing:
            return None
        settings = ", ".join(self.differing)
        return (
            f"limits of {self.cluster} will not hold: {settings} differ from what its budget and "
            f"today's prices need; `clusterbox costs limits check {self.cluster}` shows them"
        )


def render_scripts(root: Path, environment: Environment) -> list[LimitScript]:
    """Return the scripts of the clusters whose configuration runs one on the head node.

    Nothing is asked of an account. A cluster without a budget gets a script that takes its limits
    away. Raises ProblemsError for a queue whose price is not known, InputError for a budget that does
    not pay for the cluster itself: before anything is deployed.
    """
    from clusterbox.clusters.composed import compose_environment
    from clusterbox.costs.limits import load_plan
    from clusterbox.costs.limits_script import render_removal, render_script
    from clusterbox.costs.limits_settings import compare_settings
    from clusterbox.costs.prices import load_prices

    bucket = environment.storage.buckets.cluster_config.name
    scripts = []
    for cluster in compose_environment(root, environment.name):
        key = names.limits_script_key(cluster.name)
        if f"s3://{bucket}/{key}" in _head_node_scripts(cluster.configuration):
            plan = load_plan(root, cluster, load_prices(environment.region, root=root))
            text = render_script(plan) if plan else render_removal(cluster.name)
            found = compare_settings(cluster, plan) if plan else []
            differing = tuple(difference.path for difference in found)
            scripts.append(LimitScript(cluster.name, bucket, key, text, differing))
    return scripts


def upload_scripts(client: Client, scripts: list[LimitScript]) -> list[str]:
    """Put scripts where they belong, but for those that are there; return the clusters of the new."""
    from botocore.exceptions import ClientError

    s3 = client("s3")
    changed = []
    for script in scripts:
        try:
            found = s3.get_object(Bucket=script.bucket, Key=script.key)["Body"].read()
        except ClientError as error:
            # Without the right to list the bucket, AWS answers so for an object that is not there.
            if error.response["Error"]["Code"] not in {"NoSuchKey", "AccessDenied"}:
                raise
            found = b""
        if found != script.text.encode():
            s3.put_object(Bucket=script.bucket, Key=script.key, Body=script.text.encode())
            changed.append(script.cluster)
    return changed


def bucket_exists(client: Client, environment: Environment) -> bool:
    """Return whether the bucket for the scripts is there: a first deployment makes it."""
    from botocore.exceptions import ClientError

    try:
        client("s3").head_bucket(Bucket=environment.storage.buckets.cluster_config.name)
    except ClientError as error:
        if error.response["Error"]["Code"] in {"404", "NoSuchBucket"}:
            return False
        raise
    return True


def _head_node_scripts(configuration: Any) -> Iterator[str]:
    """Yield the scripts of the head node's custom actions; an action has one or a sequence of them."""
    actions = value_at(configuration, ("HeadNode", "CustomActions"))
    for action in actions.values() if isinstance(actions, dict) else ():
        if not isinstance(action, dict):
            continue
        sequence = action.get("Sequence")
        for item in [action, *(sequence if isinstance(sequence, list) else ())]:
            if isinstance(item, dict) and isinstance(item.get("Script"), str):
                yield item["Script"]
