"""Facts of a head node before and after it was patched, and how they compare."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from clusterbox.errors import ClusterboxError

# Families of modules that a node works with: file systems, networks, accelerators. Others come and
# go with what has just been used.
_VITAL = ("efa", "ena", "ib_", "lnet", "lustre", "nfs", "nvidia", "rdma", "sunrpc", "xfs")


# Drivers are loaded when the machine finds what they are for, services start after one another.
_MODULE_SECONDS, _UNIT_SECONDS = 60.0, 300.0


@dataclass(frozen=True)
class Facts:
    """What `ami/patch/facts.sh` tells of a machine."""

    boot_id: str
    kernel: str
    modules: frozenset[str]
    enabled: frozenset[str]
    active: frozenset[str]
    memory_total_kib: int = 0
    memory_available_kib: int = 0


@dataclass(frozen=True)
class Comparison:
    """What differs, in sentences; `wait_seconds` is how long it may all be only a matter of time."""

    faults: tuple[str, ...]
    wait_seconds: float


def parse_facts(text: str) -> Facts:
    """Return the facts of the script's JSON; raises ClusterboxError where it is none."""
    try:
        data: dict[str, Any] = json.loads(text)
        return Facts(
            boot_id=str(data["boot_id"]),
            kernel=str(data["kernel"]),
            modules=frozenset(data["modules"]),
            enabled=frozenset(data["enabled"]),
            active=frozenset(data["active"]),
            memory_total_kib=int(data["memory_total_kib"]),
            memory_available_kib=int(data["memory_available_kib"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ClusterboxError(f"a head node told no facts of itself: {text[:200]!r}") from error


def compare_facts(before: Facts, after: Facts, required: Collection[str]) -> Comparison:
    """Return what a patched machine lacks that it had, and how its packages changed.

    `required` are modules that the image must have. The absence of one that is neither among these
    nor of a family that nodes work with is no fault.
    """
    gone = before.modules - after.modules
    missing = sorted(module for module in gone if module in required or module.startswith(_VITAL))
    disabled = sorted(before.enabled - after.enabled)
    # What was started by hand, or by something that was needed once, need not run again.
    inactive = sorted((before.active & before.enabled & after.enabled) - after.active)
    faults = []
    if missing:
        faults.append(f"kernel modules that were loaded are not: {', '.join(missing)}")
    if disabled:
        faults.append(f"services that were enabled are not: {', '.join(disabled)}")
    if inactive:
        faults.append(f"services that ran do not: {', '.join(inactive)}")
    return Comparison(
        faults=tuple(faults),
        wait_seconds=0.0 if disabled else _MODULE_SECONDS if missing else _UNIT_SECONDS,
    )


def parse_changes(text: str) -> dict[str, Any]:
    """Return how packages changed: `added` and `removed` name → version, `upgraded` → [old, new].

    Raises ClusterboxError for what the script would not print.
    """
    try:
        data: dict[str, Any] = json.loads(text)
        return {key: data[key] for key in ("added", "removed", "upgraded")}
    except (ValueError, KeyError, TypeError) as error:
        raise ClusterboxError(f"a head node told no changes of packages: {text[:200]!r}") from error
