"""What the machines of a site really run: instances by their tags, and launch templates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clusterbox.images.fleet import TAG_POOL, TAG_QUEUE, ClusterMachine, fetch_machines
from clusterbox.site import names
from clusterbox.site.environment import Environment

if TYPE_CHECKING:
    from clusterbox.deployment.targets import Target
    from clusterbox.images.usage import Kind

# A machine that is shutting down runs nothing any more.
_RUNS = frozenset({"pending", "running", "stopping", "stopped"})


@dataclass(frozen=True)
class LivePart:
    """A part of a site that stands in the account.

    `cluster` and `name` are as in `usage.Part`. `launches` are the AMIs that new nodes get, from
    the newest versions of the launch templates: one, unless an update is at work; a head node and
    the admin box have none. `instances` are what runs now: id of the instance → AMI.
    """

    environment: str
    cluster: str
    kind: Kind
    name: str
    launches: tuple[str, ...]
    instances: Mapping[str, str]

    @property
    def amis(self) -> tuple[str, ...]:
        """Every AMI that the part runs or would start, each once, sorted."""
        return tuple(sorted({*self.launches, *self.instances.values()}))

    def count(self) -> Counter[str]:
        """Return how many instances run each AMI."""
        return Counter(self.instances.values())


def fetch_live(target: Target, environment: Environment) -> list[LivePart]:
    """Return the parts of an environment's clusters and its admin box that stand in the account.

    A cluster that was not deployed has none. boto3's errors are let through.
    """
    ec2 = target.client("ec2")
    parts: list[LivePart] = []
    templates = _fetch_templates(ec2) if environment.clusters else {}
    for entry in environment.clusters:
        machines = [each for each in fetch_machines(ec2, entry.name) if each.state in _RUNS]
        parts += _join(environment.name, entry.name, machines, templates.get(entry.name, {}))
    if environment.admin_box is not None:
        parts += _fetch_admin_box(ec2, environment.name, environment.admin_box.name)
    return parts


def fetch_images(ec2: Any, amis: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return those of some AMIs that the account has, by id, as DescribeImages tells of them."""
    wanted = sorted(set(amis))
    if not wanted:
        return {}
    # A filter passes over what is gone; asked by its id, it would be an error for all of them.
    filters = [{"Name": "image-id", "Values": wanted}]
    # A deprecated image of another owner still starts machines, and is only listed on request.
    paginator = ec2.get_paginator("describe_images")
    pages = paginator.paginate(Filters=filters, IncludeDeprecated=True)
    return {image["ImageId"]: image for page in pages for image in page["Images"]}


Templates = dict[str, dict[tuple["Kind", str], list[str]]]


def _fetch_templates(ec2: Any) -> Templates:
    """Return the AMIs of ParallelCluster's launch templates: cluster → part → AMIs.

    The tags that a template gives its instances tell which part it is of.
    """
    found: Templates = {}
    pages = ec2.get_paginator("describe_launch_template_versions").paginate(Versions=["$Latest"])
    for page in pages:
        for version in page["LaunchTemplateVersions"]:
            data = version["LaunchTemplateData"]
            tags = _instance_tags(data)
            cluster, ami = tags.get(names.TAG_CLUSTER), data.get("ImageId")
            if cluster is None or ami is None:
                continue
            for kind, tag in _PARTS_OF_TEMPLATES.items():
                if tag in tags:
                    found.setdefault(cluster, {}).setdefault((kind, tags[tag]), []).append(ami)
    return found


_PARTS_OF_TEMPLATES: dict[Kind, str] = {"queue": TAG_QUEUE, "login": TAG_POOL}


def _instance_tags(data: Mapping[str, Any]) -> dict[str, str]:
    return {
        tag["Key"]: tag["Value"]
        for item in data.get("TagSpecifications", ())
        if item.get("ResourceType") == "instance"
        for tag in item.get("Tags", ())
    }


def _join(
    environment: str,
    cluster: str,
    machines: Iterable[ClusterMachine],
    templates: Mapping[tuple[Kind, str], list[str]],
) -> Iterator[LivePart]:
    running: dict[tuple[Kind, str], dict[str, str]] = {}
    for machine in machines:
        running.setdefault((machine.kind, machine.name), {})[machine.instance] = machine.ami
    for kind, name in sorted({*running, *templates}):
        launches = tuple(sorted(set(templates.get((kind, name), ()))))
        instances = running.get((kind, name), {})
        yield LivePart(environment, cluster, kind, name, launches, instances)


def _fetch_admin_box(ec2: Any, environment: str, box: str) -> Iterator[LivePart]:
    filters = [
        {"Name": "tag:Name", "Values": [box]},
        {"Name": f"tag:{names.TAG_ENVIRONMENT}", "Values": [environment]},
        {"Name": "instance-state-name", "Values": sorted(_RUNS)},
    ]
    instances = {
        instance["InstanceId"]: instance["ImageId"]
        for page in ec2.get_paginator("describe_instances").paginate(Filters=filters)
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
    }
    if instances:
        yield LivePart(environment, "", "admin-box", box, (), instances)
