"""IAM: permissions boundaries, names that are taken, instance profiles and OIDC providers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ministack.services import iam

from clusterbox.embedded.server.ministack_api import (
    Properties,
    Resource,
    ResourceFailedError,
    ResourceType,
    account_id,
    call,
    native_handler,
    physical_name,
    query_parameters,
    tag_list,
)

_AWS_MANAGED = "arn:aws:iam::aws:policy/"


def _require_policy(arn: str, message: str) -> None:
    """Raise unless the policy exists; AWS managed ones that ministack lacks are taken on trust."""
    if not arn.startswith(_AWS_MANAGED) and not iam._policy_exists(arn):
        raise ResourceFailedError(message)


def _check_role(properties: Properties) -> None:
    if boundary := properties.get("PermissionsBoundary"):
        _require_policy(
            boundary,
            f"Scope ARN: {boundary} does not exist or is not attachable. (NoSuchEntity)",
        )
    # An empty entry is how ministack resolves an empty list parameter, as in CDK's bootstrap.
    for arn in filter(None, properties.get("ManagedPolicyArns") or []):
        _require_policy(arn, f"Policy {arn} does not exist or is not attachable. (NoSuchEntity)")


def _mend_roles() -> None:
    entry = native_handler("AWS::IAM::Role")
    create, update = entry["create"], entry["update"]

    def create_role(logical_id: str, properties: Properties, stack: str) -> Resource:
        name = properties.get("RoleName")
        if name and name in iam._roles:
            # ministack would overwrite the role of another stack.
            raise ResourceFailedError(
                f"Role with name {name} already exists. (EntityAlreadyExists)"
            )
        _check_role(properties)
        name, attributes = create(logical_id, properties, stack)
        iam._roles[name]["PermissionsBoundary"] = properties.get("PermissionsBoundary")
        return name, attributes

    def update_role(
        name: str, old: Properties, new: Properties, stack: str, logical_id: str | None = None
    ) -> Resource:
        _check_role(new)
        name, attributes = update(name, old, new, stack, logical_id)
        iam._roles[name]["PermissionsBoundary"] = new.get("PermissionsBoundary")
        return name, attributes

    entry |= {"create": create_role, "update": update_role}


def _mend_managed_policies() -> None:
    entry = native_handler("AWS::IAM::ManagedPolicy")
    create, delete = entry["create"], entry["delete"]

    def create_policy(logical_id: str, properties: Properties, stack: str) -> Resource:
        name, path = properties.get("ManagedPolicyName"), properties.get("Path", "/")
        if name and f"arn:aws:iam::{account_id()}:policy{path}{name}" in iam._policies:
            raise ResourceFailedError(
                f"A policy called {name} already exists. Duplicate names are not allowed. "
                "(EntityAlreadyExists)"
            )
        made: Resource = create(logical_id, properties, stack)
        return made

    def delete_policy(arn: str, properties: Properties) -> None:
        bound = [r["RoleName"] for r in iam._roles.values() if r.get("PermissionsBoundary") == arn]
        if bound:
            raise ResourceFailedError(
                f"Cannot delete a policy that is the permissions boundary of role {bound[0]}. "
                "(DeleteConflict)"
            )
        delete(arn, properties)

    entry |= {"create": create_policy, "delete": delete_policy}


def _profile_roles(properties: Properties) -> list[str]:
    for name in properties.get("Roles") or []:
        if name not in iam._roles:
            raise ResourceFailedError(f"The role with name {name} cannot be found. (NoSuchEntity)")
    return list(properties.get("Roles") or [])


def create_instance_profile(logical_id: str, properties: Properties, stack: str) -> Resource:
    """Create a profile under its path; Ref is its name, which ministack answers as the ARN."""
    name = properties.get("InstanceProfileName") or physical_name(stack, logical_id)
    roles = _profile_roles(properties)
    call(
        iam._create_instance_profile,
        query_parameters({"InstanceProfileName": name, "Path": properties.get("Path", "/")}),
    )
    profile = iam._instance_profiles[name]
    profile["Roles"] = roles
    return name, {"Arn": profile["Arn"]}


def update_instance_profile(
    name: str, _old: Properties, properties: Properties, _stack: str
) -> Resource:
    """Change the profile's role in place."""
    profile = iam._instance_profiles[name]
    profile["Roles"] = _profile_roles(properties)
    return name, {"Arn": profile["Arn"]}


def delete_instance_profile(name: str, _properties: Properties) -> None:
    """Delete the profile; one that is gone already is no error."""
    iam._instance_profiles.pop(name, None)


def create_oidc_provider(_logical_id: str, properties: Properties, _stack: str) -> Resource:
    """Create an OpenID Connect provider; Ref is its ARN."""
    answer = call(
        iam._create_oidc_provider,
        query_parameters(
            {
                "Url": properties["Url"],
                "ClientIDList": {"member": properties.get("ClientIdList") or []},
                "ThumbprintList": {"member": properties.get("ThumbprintList") or []},
                "Tags": {"member": tag_list(properties)},
            }
        ),
    )
    arn = answer.value("OpenIDConnectProviderArn")
    return arn, {"Arn": arn}


def update_oidc_provider(
    arn: str, _old: Properties, properties: Properties, _stack: str
) -> Resource:
    """Change audiences, thumbprints and tags in place."""
    iam._oidc_providers[arn] |= {
        "ClientIDList": list(properties.get("ClientIdList") or []),
        "ThumbprintList": list(properties.get("ThumbprintList") or []),
        "Tags": tag_list(properties),
    }
    return arn, {"Arn": arn}


def delete_oidc_provider(arn: str, _properties: Properties) -> None:
    """Delete the provider; one that is gone already is no error."""
    iam._oidc_providers.pop(arn, None)


def boundary_error(arn: str) -> Any:
    """Return IAM's refusal of a permissions boundary that does not exist, or None."""
    if arn.startswith(_AWS_MANAGED) or iam._policy_exists(arn):
        return None
    message = f"Scope ARN: {arn} does not exist or is not attachable."
    return iam._error(404, "NoSuchEntity", message, ns="iam")


def _checking_policy(attach: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def attach_role_policy(parameters: Any) -> Any:
        arn = iam._p(parameters, "PolicyArn")
        if not arn.startswith(_AWS_MANAGED) and not iam._policy_exists(arn):
            message = f"Policy {arn} does not exist or is not attachable."
            return iam._error(404, "NoSuchEntity", message, ns="iam")
        return attach(parameters)

    return attach_role_policy


RESOURCE_TYPES: dict[str, ResourceType] = {
    "AWS::IAM::InstanceProfile": {
        "create": create_instance_profile,
        "update": update_instance_profile,
        "delete": delete_instance_profile,
        "replacing": ("InstanceProfileName", "Path"),
    },
    "AWS::IAM::OIDCProvider": {
        "create": create_oidc_provider,
        "update": update_oidc_provider,
        "delete": delete_oidc_provider,
        "replacing": ("Url",),
        "tags": "Tags",
    },
}


def mend() -> None:
    """Keep boundaries of roles, and refuse what IAM refuses."""
    _mend_roles()
    _mend_managed_policies()
    iam._boundary_policy_error = boundary_error
    actions = iam._IAM_HANDLERS
    actions["AttachRolePolicy"] = _checking_policy(actions["AttachRolePolicy"])
