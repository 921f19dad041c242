"""What uses machine images: locks and files of the repository, parameters, machines and templates."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusterbox.aws import Account
from clusterbox.costs.inventory import read_template_uses
from clusterbox.site import names
from clusterbox.site.images import ImageLock

if TYPE_CHECKING:
    from clusterbox.site.environment import Environment

_PAGE = 200
_AMI = re.compile(r"\bami-[0-9a-f]{8,17}\b")
# Parameters of AWS itself, which name images of AWS and none of a site.
_PUBLIC = "/aws/service/"
# Files that may name an AMI besides the lock.
_NAMING = ("ami/images/*.yaml", "cluster_configs/*.yaml", "environments/*.yaml")


@dataclass
class _Uses:
    """AMIs and snapshots that are used → by what, in words; the first one that is found."""

    found: dict[str, str] = field(default_factory=dict)

    def add(self, ids: Iterable[str], why: str) -> None:
        for each in ids:
            self.found.setdefault(each, why)


def read_uses(
    account: Account, environment: Environment, lock: ImageLock, root: Path
) -> Mapping[str, str]:
    """Return AMIs and snapshots that are used → by what, in words.

    What the account refused to tell is in its gaps, and then any other may be used too.
    """
    uses = _Uses()
    for name, images in lock.environments.items():
        for image, entry in images.items():
            uses.add([entry.ami], f"locked as {image} of {name}")
            if entry.previous is not None:
                uses.add([entry.previous.ami], f"the previous {image} of {name}")
    for name, clusters in lock.pins.items():
        for cluster, pins in clusters.items():
            uses.add(pins.amis(), f"pinned in cluster {cluster} of {name}")
    for pattern in _NAMING:
        for path in sorted(root.glob(pattern)):
            found = _AMI.findall(path.read_text(encoding="utf-8"))
            uses.add(found, f"named in {path.relative_to(root)}")
    _add_published(account, environment, uses)
    _add_machines(account, uses)
    return uses.found


def _add_published(account: Account, environment: Environment, uses: _Uses) -> None:
    """Add what the site's parameters say: what was deployed last, whatever the files say now."""
    path = names.parameter_path(environment, "images")
    for parameter in account.pages(
        "ssm", "get_parameters_by_path", "Parameters", Path=path, Recursive=True
    ):
        uses.add(_AMI.findall(parameter["Value"]), f"published as {parameter['Name']}")


def _add_machines(account: Account, uses: _Uses) -> None:
    for reservation in account.pages("ec2", "describe_instances", "Reservations", page_size=_PAGE):
        for instance in reservation.get("Instances") or ():
            state = instance.get("State", {}).get("Name", "unknown")
            # A stopped one starts without its image, and cannot be made again without it.
            if state != "terminated":
                why = f"instance {instance['InstanceId']} is {state}"
                uses.add([str(instance.get("ImageId", ""))], why)
    for used in read_template_uses(account):
        resolved = used.removeprefix("resolve:ssm:")
        if resolved.startswith(_PUBLIC):
            continue
        if resolved != used:
            used = _resolve(account, resolved)
        uses.add([used], "a launch template's newest or default version")
    for group in account.pages("autoscaling", "describe_auto_scaling_groups", "AutoScalingGroups"):
        _add_group(account, group, uses)


def _add_group(account: Account, group: Mapping[str, Any], uses: _Uses) -> None:
    """Add what the version of a launch template holds that a group starts machines from."""
    mixed = group.get("MixedInstancesPolicy", {}).get("LaunchTemplate", {})
    named = [
        group.get("LaunchTemplate"),
        mixed.get("LaunchTemplateSpecification"),
        *(each.get("LaunchTemplateSpecification") for each in mixed.get("Overrides") or ()),
    ]
    for template in named:
        if not template:
            continue
        answer = account.ask(
            "ec2",
            "describe_launch_template_versions",
            absent=("InvalidLaunchTemplateId.NotFound", "InvalidLaunchTemplateId.VersionNotFound"),
            LaunchTemplateId=template["LaunchTemplateId"],
            Versions=[str(template.get("Version") or "$Default")],
        )
        for version in (answer or {}).get("LaunchTemplateVersions") or ():
            ami = str(version.get("LaunchTemplateData", {}).get("ImageId", ""))
            uses.add([ami], f"group {group['AutoScalingGroupName']} starts it")


def _resolve(account: Account, parameter: str) -> str:
    """Return the AMI that a parameter names, or nothing; a refusal is a gap."""
    answer = account.ask(
        "ssm", "get_parameter", absent=("ParameterNotFound",), Name=parameter.partition(":")[0]
    )
    return str((answer or {}).get("Parameter", {}).get("Value", ""))
