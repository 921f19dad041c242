"""What an environment states about its AWS account: the facts that the validators are told.

They are what the environment, the image lock and the site's stacks say, nothing else. What only a
configuration names is not in them; the account in ParallelCluster's environment
(`library/account.py`) assumes that it exists and tells which validator had to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from clusterbox.clusters.compose import offline_values
from clusterbox.clusters.composed import ComposedCluster
from clusterbox.site import names
from clusterbox.site.environment import Environment
from clusterbox.site.images import LockedImage

_ACCOUNT_OF_NOBODY = "123456789012"
# A native configuration may leave its region out; ParallelCluster then takes that of its caller.
_REGION_OF_NOBODY = "us-east-1"
_NFS_PORT = 2049

Facts = dict[str, Any]


def account_facts(cluster: ComposedCluster) -> Facts:
    """Return the facts of the account of a cluster, as JSON has them.

    | key | value |
    | --- | --- |
    | `site` | whether an environment states the facts; without one nothing is stated |
    | `account`, `region`, `partition` | where it is |
    | `instance_types`, `named_subnets` | all that the configuration names |
    | `vpc` | `id`, and `made_here` where a stack of the site makes it |
    | `subnets` | id → `cidr`, `zone`, `public` |
    | `security_groups` | id → `inbound`, `outbound`: rules as DescribeSecurityGroups has them |
    | `images` | id → `os`, `architecture`, `parallelcluster_version`, `root_gib` |
    | `file_systems` | EFS id → `subnets` with mount targets (null: unknown), `security_groups` |
    | `buckets` | name → `made_here` |
    | `key_pairs`, `policies`, `roles` | names or ARNs that exist |
    | `hosted_zones` | id → domain |
    | `secrets` | ARNs that exist |
    | `objects` | `BUCKET/KEY` of what a deployment puts there before the cluster |
    """
    facts = _nothing_stated(cluster.configuration)
    if cluster.environment is not None:
        facts.update(_site_facts(cluster.environment, cluster))
    return facts


def _nothing_stated(configuration: Mapping[str, Any]) -> Facts:
    region = configuration.get("Region")
    region = region if isinstance(region, str) and region else _REGION_OF_NOBODY
    return {
        "site": False,
        "account": _named_account(configuration) or _ACCOUNT_OF_NOBODY,
        "region": region,
        "partition": _partition(region),
        "instance_types": sorted(set(_values_of("InstanceType", configuration))),
        "named_subnets": sorted(
            {*_values_of("SubnetId", configuration), *_values_of("SubnetIds", configuration)}
        ),
        "vpc": {"id": "vpc-assumed", "made_here": False},
        "subnets": {},
        "security_groups": {},
        "images": {},
        "file_systems": {},
        "buckets": {},
        "key_pairs": [],
        "policies": [],
        "roles": [],
        "hosted_zones": {},
        "secrets": [],
        "objects": [],
    }


def _site_facts(environment: Environment, cluster: ComposedCluster) -> Facts:
    values = offline_values(environment, cluster.name, cluster.images)
    network, buckets = environment.network, environment.storage.buckets
    zone = network.private_zone
    return {
        "site": True,
        "account": environment.account,
        "region": environment.region,
        "partition": environment.partition,
        "vpc": {"id": values["network.vpc"], "made_here": not network.exists},
        "subnets": {
            values[f"network.{name}"]: {
                "cidr": str(network.subnet(name).cidr),
                "zone": environment.zone(name.split(".")[1]),
                "public": False,
            }
            for name in network.subnet_names
        },
        "security_groups": _security_groups(environment, values),
        "images": {item.entry.ami: _image(item.entry) for item in cluster.known_images()},
        "file_systems": _file_systems(environment, values),
        "buckets": {
            bucket.name: {"made_here": not bucket.exists}
            for bucket in (buckets.cluster_config, buckets.logs, buckets.results)
        },
        "key_pairs": [network.ssh.key_pair],
        "policies": [environment.boundary_arn],
        "roles": [
            arn.rsplit("/", 1)[1] for name, arn in values.items() if name.startswith("roles.")
        ],
        "hosted_zones": {zone.id: zone.name} if zone is not None and zone.id else {},
        "secrets": [values["accounting.secret"]] if "accounting.secret" in values else [],
        "objects": [f"{buckets.cluster_config.name}/{names.limits_script_key(cluster.name)}"],
    }


def _security_groups(environment: Environment, values: Mapping[str, Any]) -> Facts:
    """Return the groups that stacks/security.py makes, with the rules that validators ask for."""
    cluster, ssh = values["security_groups.cluster"], values["security_groups.ssh"]
    everywhere = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    itself = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": cluster}]}
    nfs = {
        "IpProtocol": "tcp",
        "FromPort": _NFS_PORT,
        "ToPort": _NFS_PORT,
        "UserIdGroupPairs": [{"GroupId": cluster}],
    }
    groups: Facts = {
        cluster: {"inbound": [itself], "outbound": [everywhere, itself]},
        ssh: {"inbound": [], "outbound": [everywhere]},
    }
    if "security_groups.accounting" in values:
        groups[values["security_groups.accounting"]] = {"inbound": [], "outbound": [everywhere]}
    for name in environment.storage.file_systems:
        groups[_file_system_group(values[f"storage.{name}"])] = {
            "inbound": [nfs],
            "outbound": [nfs],
        }
    return groups


def _file_systems(environment: Environment, values: Mapping[str, Any]) -> Facts:
    facts: Facts = {}
    for name, file_system in environment.storage.file_systems.items():
        identifier = values[f"storage.{name}"]
        # Who made an existing file system knows where it has mount targets, and with what rules.
        made_here = file_system.id is None
        facts[identifier] = {
            "subnets": [values[f"network.{subnet}"] for subnet in file_system.subnets]
            if made_here
            else None,
            "security_groups": [_file_system_group(identifier)] if made_here else [],
        }
    return facts


def _file_system_group(identifier: str) -> str:
    """Return a stand-in id for the group of a file system's mount targets."""
    return f"sg-{identifier.removeprefix('fs-')}"


def _image(image: LockedImage) -> Facts:
    return {
        "os": image.os,
        "architecture": image.architecture,
        "parallelcluster_version": image.parallelcluster_version,
        "root_gib": image.root_gib,
    }


def _values_of(key: str, data: Any) -> Iterator[str]:
    """Yield every text that stands under a key, at any depth, and those of a list there."""
    if isinstance(data, Mapping):
        for name, value in data.items():
            if name == key and isinstance(value, str):
                yield value
            elif name == key and isinstance(value, list):
                yield from (item for item in value if isinstance(item, str))
            else:
                yield from _values_of(key, value)
    elif isinstance(data, list):
        for item in data:
            yield from _values_of(key, item)


def _named_account(configuration: Mapping[str, Any]) -> str | None:
    """Return the account of the first ARN of a configuration."""
    match = re.search(r"arn:aws[\w-]*:[\w-]+:[\w-]*:(\d{12}):", str(configuration))
    return match[1] if match else None


def _partition(region: str) -> str:
    if region.startswith("us-gov-"):
        return "aws-us-gov"
    return "aws-cn" if region.startswith("cn-") else "aws"
