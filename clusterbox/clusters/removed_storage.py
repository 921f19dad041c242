"""What becomes of shared storage that a new configuration no longer has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The keys of storage that exists outside of the cluster (pcluster/config/update_policy_utils.py;
# a volume of FSx for ONTAP or OpenZFS is a VolumeId as well).
_EXISTING = ("VolumeId", "FileSystemId", "FileCacheId")


def find_mount(path: str, old: Any, new: Any) -> str | None:
    """Return where the storage was mounted that a change removes, None for any other change.

    `path` is the library's. A change inside of storage, such as of one setting, removes none.
    """
    removed = path.startswith("SharedStorage[") and isinstance(old, Mapping) and new is None
    return str(old["MountDir"]) if removed and "MountDir" in old else None


def describe_fate(path: str, old: Any, new: Any) -> str | None:
    """Return what becomes of the files on storage of the cluster's own that a change removes.

    None where nothing is lost: for other changes, and for storage that exists outside of the
    cluster. ParallelCluster deletes storage that it made, unless its DeletionPolicy says otherwise.
    """
    if find_mount(path, old, new) is None:
        return None
    settings = old.get(f"{old.get('StorageType')}Settings") or {}
    if any(key in settings for key in _EXISTING):
        return None
    policy = settings.get("DeletionPolicy", "Delete")
    if policy == "Retain":
        return f"{old.get('Name')} stays in the account, outside of the cluster"
    kept = "; a snapshot of them is kept" if policy == "Snapshot" else ""
    return (
        f"ParallelCluster deletes {old.get('Name')} and all files on it, by DeletionPolicy:"
        f" {policy}{kept}"
    )
