"""Compose a cluster's configuration without an account: references become ids.

What the environment names keeps its own id; what the stacks make gets a stand-in id that is
derived from its name, so that it is the same in every run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from clusterbox.site import names, references
from clusterbox.site.environment import Environment
from clusterbox.site.images import NO_PINS, ClusterPins, LockedImage
from clusterbox.site.pins import apply_pins
from clusterbox.site.yaml_file import YamlFile


def compose_offline(
    environment: Environment,
    cluster: str,
    config: YamlFile,
    images: Mapping[str, LockedImage],
    pins: ClusterPins = NO_PINS,
) -> dict[str, Any]:
    """Return the cluster's configuration with pins applied and every reference resolved.

    Raises ProblemsError with all unknown or malformed references, and as `apply_pins` does.
    """
    composed: dict[str, Any] = references.resolve(
        apply_pins(config, pins), offline_values(environment, cluster, images)
    )
    return composed


def offline_values(
    environment: Environment, cluster: str, images: Mapping[str, LockedImage]
) -> dict[str, Any]:
    """Return a value for every reference of the environment, the same in every run."""
    network = environment.network
    role = (
        f"arn:{environment.partition}:iam::{environment.account}:role{environment.hosting.iam_path}"
    )
    values: dict[str, Any] = {
        **references.known_values(environment, cluster),
        "network.vpc": network.vpc.id or _stand_in("vpc", environment, "vpc"),
        "security_groups.cluster": _stand_in("sg", environment, "cluster"),
        "security_groups.ssh": _stand_in("sg", environment, "ssh"),
        **{f"images.{name}": image.ami for name, image in images.items()},
    }
    for name in network.subnet_names:
        values[f"network.{name}"] = network.subnet(name).id or _stand_in(
            "subnet", environment, name
        )
    for name, file_system in environment.storage.file_systems.items():
        values[f"storage.{name}"] = file_system.id or _stand_in("fs", environment, name)
        for point in file_system.access_points:
            values[f"storage.{name}.{point}"] = _stand_in("fsap", environment, f"{name}.{point}")
    database = environment.accounting_database
    if database is not None:
        name, region = names.accounting_name(environment), environment.region
        host = f"{name}.cluster-{_digest(environment, 'accounting', 12)}.{region}.rds.amazonaws.com"
        secret = (
            f"arn:{environment.partition}:secretsmanager:{region}:{environment.account}:secret:{name}-"
            f"{_digest(environment, 'secret', 6)}"
        )
        values["security_groups.accounting"] = _stand_in("sg", environment, "accounting")
        values.setdefault("accounting.host", f"{host}:{database.port}")
        values.setdefault("accounting.secret", secret)
    for purpose in ("head_node", "compute", "login", "cleanup"):
        suffix = f"{cluster}-{purpose.replace('_', '-')}"
        values[f"roles.{purpose}"] = f"{role}{names.role_name(environment, suffix)}"
    return values


def _stand_in(prefix: str, environment: Environment, name: str) -> str:
    """Return an id as AWS forms them, of 17 hexadecimal digits."""
    return f"{prefix}-{_digest(environment, f'{prefix}/{name}', 17)}"


def _digest(environment: Environment, name: str, digits: int) -> str:
    return hashlib.sha256(f"{environment.name}/{name}".encode()).hexdigest()[:digits]
