"""EFS: what ministack leaves out of file systems and mount targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ministack.services import ec2, efs

from clusterbox.embedded.server.addresses import take_address
from clusterbox.embedded.server.ministack_api import ResourceType, account_id, region

RESOURCE_TYPES: dict[str, ResourceType] = {}


def _default_key_arn() -> str:
    # The account's AWS managed key for EFS: AWS reports it when no key is given.
    return f"arn:aws:kms:{region()}:{account_id()}:key/aws/elasticfilesystem"


def _with_key(create: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    def create_file_system(body: dict[str, Any]) -> Any:
        if body.get("Encrypted") and not body.get("KmsKeyId"):
            body = {**body, "KmsKeyId": _default_key_arn()}
        return create(body)

    return create_file_system


def _with_free_address(create: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    def create_mount_target(body: dict[str, Any]) -> Any:
        subnet_id = body.get("SubnetId", "")
        wants_ipv4 = body.get("IpAddressType", "IPV4_ONLY") != "IPV6_ONLY"
        if wants_ipv4 and not body.get("IpAddress") and subnet_id in ec2._subnets:
            # ministack knows only the other mount targets of the subnet, not its instances.
            body = {**body, "IpAddress": take_address(subnet_id)}
        return create(body)

    return create_mount_target


def mend() -> None:
    """Give encrypted file systems a key and mount targets an address no instance has."""
    efs._create_file_system = _with_key(efs._create_file_system)
    efs._create_mount_target = _with_free_address(efs._create_mount_target)
