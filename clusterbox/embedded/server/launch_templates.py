"""Launch templates in a RunInstances request: which version, and what it adds to the request."""

from __future__ import annotations

from typing import Any

from ministack.services import ec2

from clusterbox.embedded.server.ministack_api import ResourceFailedError, query_parameters


def nested(parameters: dict[str, Any], prefix: str) -> dict[str, str]:
    """Return the parameters below a prefix: ``P.A.B=1`` is ``{"A.B": "1"}``."""
    start = prefix + "."
    return {
        name.removeprefix(start): ec2._p(parameters, name)
        for name in parameters
        if name.startswith(start)
    }


def listed(parameters: dict[str, Any], prefix: str) -> list[dict[str, str]]:
    """Return the numbered entries below a prefix, in the order of their numbers."""
    below = nested(parameters, prefix)
    numbers = sorted({int(name.partition(".")[0]) for name in below})
    return [
        {n.partition(".")[2]: value for n, value in below.items() if n.startswith(f"{number}.")}
        for number in numbers
    ]


def template_data(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the data of the request's launch template version, empty without one.

    Raises ResourceFailedError when the template or its version does not exist.
    """
    wanted = nested(parameters, "LaunchTemplate")
    if not wanted:
        return {}
    data, template, error = ec2._resolve_launch_template_data(wanted)
    if error or template is None:
        name = wanted.get("LaunchTemplateId") or wanted.get("LaunchTemplateName")
        raise ResourceFailedError(
            f"The launch template '{name}' does not exist "
            "(InvalidLaunchTemplateId.NotFoundException)"
        )
    version = wanted.get("Version", "$Default")
    numbers = {str(v["VersionNumber"]) for v in template["Versions"]}
    if version not in ("$Default", "$Latest") and version not in numbers:
        raise ResourceFailedError(
            f"Could not find launch template version {version} "
            "(InvalidLaunchTemplateId.VersionNotFound)"
        )
    return dict(data)


def with_template(parameters: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """Return the request completed from its launch template; the request's own values win."""
    specifications = data.get("TagSpecifications") or []
    offered = query_parameters(
        {
            **{name: data.get(name) for name in ("ImageId", "InstanceType", "KeyName", "UserData")},
            "SecurityGroupId": data.get("SecurityGroupIds"),
            "IamInstanceProfile": data.get("IamInstanceProfile"),
            "MetadataOptions": data.get("MetadataOptions"),
            "Monitoring": data.get("Monitoring"),
            "EbsOptimized": data.get("EbsOptimized"),
            "DisableApiTermination": data.get("DisableApiTermination"),
            "InstanceInitiatedShutdownBehavior": data.get("InstanceInitiatedShutdownBehavior"),
            "InstanceMarketOptions": data.get("InstanceMarketOptions"),
            "BlockDeviceMapping": data.get("BlockDeviceMappings"),
            "NetworkInterface": [
                {**i, "SecurityGroupId": i.get("Groups") or i.get("GroupSet")}
                for i in data.get("NetworkInterfaces") or []
            ],
            "TagSpecification": [
                {"ResourceType": s["ResourceType"], "Tag": s.get("Tags")} for s in specifications
            ],
        }
    )
    given = {name for name, value in parameters.items() if value not in ([""], "")}
    # A list in the request replaces the template's list: entries are not mixed.
    lists = {n.partition(".")[0] for n in given if "." in n}
    whole = {"BlockDeviceMapping", "IamInstanceProfile", "NetworkInterface", "SecurityGroupId"}
    completed = dict(parameters)
    for name, value in offered.items():
        if name not in given and name.partition(".")[0] not in lists & (
            whole | {"TagSpecification"}
        ):
            completed[name] = value
    _add_template_tags(completed, specifications)
    return completed


def _add_template_tags(parameters: dict[str, Any], specifications: list[dict[str, Any]]) -> None:
    """Add the template's instance tags that the request does not set itself."""
    tags = {
        entry[f"Tag.{n}.Key"]: entry.get(f"Tag.{n}.Value", "")
        for entry in listed(parameters, "TagSpecification")
        if entry.get("ResourceType") == "instance"
        for n in range(1, 51)
        if f"Tag.{n}.Key" in entry
    }
    offered = {
        tag["Key"]: tag["Value"]
        for s in specifications
        if s["ResourceType"] == "instance"
        for tag in s.get("Tags") or []
    }
    merged = [{"Key": k, "Value": v} for k, v in {**offered, **tags}.items()]
    for name in [n for n in parameters if n.startswith("TagSpecification.")]:
        del parameters[name]
    if merged:
        wanted = [{"ResourceType": "instance", "Tag": merged}]
        parameters |= query_parameters({"TagSpecification": wanted})
