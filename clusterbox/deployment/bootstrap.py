"""CDK's bootstrap under the hosting rules: every role bounded, the given execution role used."""

from __future__ import annotations

from typing import Any

import yaml

from clusterbox.errors import ClusterboxError
from clusterbox.site.environment import Environment

EXECUTION_ROLE = "CloudFormationExecutionRole"
# States in which a bootstrap can be used as it is.
READY = frozenset({"CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"})


def bound_template(template: str, environment: Environment) -> str:
    """Return the CLI's bootstrap template with the environment's boundary on every role.

    CDK's own option puts the boundary on the CloudFormation execution role alone. Where the
    environment names an execution role, that one takes the place of the bootstrap's. Raises
    ClusterboxError when the template is not as expected, rather than bootstrap without bounds.
    """
    document = yaml.load(template, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader
    resources: dict[str, Any] = document["Resources"]
    given = environment.hosting.cloudformation_execution_role
    if given is not None:
        if resources.pop(EXECUTION_ROLE, None) is None:
            raise ClusterboxError(f"CDK's bootstrap template has no {EXECUTION_ROLE} to replace")
        document = _replace(document, {"Fn::Sub": f"${{{EXECUTION_ROLE}.Arn}}"}, given)
        resources = document["Resources"]
        if f"{EXECUTION_ROLE}." in str(resources):
            raise ClusterboxError(f"CDK's bootstrap template uses {EXECUTION_ROLE} in a new way")
    roles = [item for item in resources.values() if item["Type"] == "AWS::IAM::Role"]
    if not roles:
        raise ClusterboxError("CDK's bootstrap template has no roles; its layout has changed")
    for role in roles:
        role["Properties"]["PermissionsBoundary"] = environment.boundary_arn
    return yaml.safe_dump(document, sort_keys=False)


def is_bound(deployed: str | dict[str, Any], environment: Environment) -> bool:
    """Return whether a deployed bootstrap template has the environment's bounds.

    `deployed` is what CloudFormation's GetTemplate answers, text or data.
    """
    text = deployed if isinstance(deployed, str) else yaml.safe_dump(deployed)
    document = yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader
    resources = document["Resources"]
    roles = [item for item in resources.values() if item["Type"] == "AWS::IAM::Role"]
    bounds = [item["Properties"].get("PermissionsBoundary") for item in roles]
    given = environment.hosting.cloudformation_execution_role
    uses_given = given is None or (EXECUTION_ROLE not in resources and given in str(resources))
    is_bounded = bool(bounds) and all(bound == environment.boundary_arn for bound in bounds)
    return is_bounded and uses_given


class _Loader(yaml.SafeLoader):
    """Reads CloudFormation's short forms (`!Sub`) as their long ones (`Fn::Sub`)."""


def _construct_short_form(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)  # type: ignore[arg-type]
    return {suffix if suffix in {"Ref", "Condition"} else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _construct_short_form)


def _replace(data: Any, old: Any, new: Any) -> Any:
    if data == old:
        return new
    if isinstance(data, dict):
        return {key: _replace(value, old, new) for key, value in data.items()}
    if isinstance(data, list):
        return [_replace(item, old, new) for item in data]
    return data
