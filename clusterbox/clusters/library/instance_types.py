"""What is known of EC2 instance types offline: the facts that the package moto brings.

They are DescribeInstanceTypes and DescribeInstanceTypeOfferings as AWS answered them at moto's
release. moto itself is not imported, which would take seconds.
"""

from __future__ import annotations

import copy
import gzip
import importlib.metadata
import importlib.util
import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from clusterbox.clusters.library.assumptions import Assumed, AssumedText

# A Graviton family has a g after its generation: m8g, c7gn, im4gn. a1 is the first.
_GRAVITON = re.compile(r"^(a1|[a-z]+\d+g[a-z]*)$")


@cache
def facts_version() -> str:
    """Return where the facts come from, in words."""
    return f"moto {importlib.metadata.version('moto')}"


@cache
def moto_folder() -> Path:
    """Return the folder of the installed package moto."""
    spec = importlib.util.find_spec("moto")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("moto")
    return Path(spec.origin).parent


@cache
def _known() -> dict[str, dict[str, Any]]:
    known: dict[str, dict[str, Any]] = _read("instance_types.json.gz")
    return known


@cache
def _families() -> frozenset[str]:
    return frozenset(_family(name) for name in _known())


@cache
def _offered(region: str) -> dict[str, frozenset[str]] | None:
    name = f"instance_type_offerings/availability-zone/{region}.json.gz"
    if not (moto_folder() / "ec2" / "resources" / name).is_file():
        return None
    zones: dict[str, set[str]] = {}
    for offering in _read(name):
        zones.setdefault(offering["InstanceType"], set()).add(offering["Location"])
    return {name: frozenset(found) for name, found in zones.items()}


def offered_types(region: str, named: Iterable[str]) -> list[str]:
    """Return the types that a region offers, with those of the `named` ones that may exist.

    Of the latter, each tells that it is only assumed to be offered when it is looked for.
    """
    offered = _offered(region)
    names: list[str] = [] if offered is None else sorted(offered)
    for name in sorted(set(named)):
        if reason := _why_unknown(name, region):
            names.append(AssumedText(name, reason, only_equal=True))
    return names


def offering_zones(region: str, name: str) -> frozenset[str] | None:
    """Return the zones of a region that offer a type; None where that is not known."""
    offered = _offered(region)
    return None if offered is None or _why_unknown(name, region) else offered.get(name, frozenset())


def describe_type(region: str, name: str) -> dict[str, Any]:
    """Return the facts of a type, or made-up ones where nothing is known of it.

    A type that does not exist is described too: other rules refuse it, and the rest of the
    configuration is still worth judging.
    """
    if name in _known():
        # The library changes what it is given.
        return copy.deepcopy(_known()[name])
    reason = _why_unknown(name, region) or f"the instance type {name} does not exist"
    return Assumed(_made_up(name), reason)


def _why_unknown(name: str, region: str) -> str | None:
    """Return why nothing is known of a type; None for one that is known, or known not to exist."""
    if _family(name) not in _families():
        return f"whether instance type {name} exists, and what it is ({facts_version()} knows none)"
    if _offered(region) is None and name in _known():
        return f"which instance types {region} offers ({facts_version()} does not know)"
    return None


def _family(name: str) -> str:
    return name.split(".")[0]


def _made_up(name: str) -> dict[str, Any]:
    architecture = "arm64" if _GRAVITON.match(_family(name)) else "x86_64"
    return {
        "InstanceType": name,
        "ProcessorInfo": {"SupportedArchitectures": [architecture]},
        "VCpuInfo": {"DefaultVCpus": 4, "DefaultCores": 2, "DefaultThreadsPerCore": 2},
        "MemoryInfo": {"SizeInMiB": 16384},
        "NetworkInfo": {
            "NetworkCards": [{"NetworkCardIndex": 0, "MaximumNetworkInterfaces": 4}],
            "EfaSupported": False,
        },
        "InstanceStorageSupported": False,
        "SupportedUsageClasses": ["on-demand", "spot"],
        "PlacementGroupInfo": {"SupportedStrategies": ["cluster", "partition", "spread"]},
        "EbsInfo": {"EbsOptimizedSupport": "default"},
    }


def _read(name: str) -> Any:
    with gzip.open(moto_folder() / "ec2" / "resources" / name) as stream:
        return json.load(stream)
