from __future__ import annotations

from typing import Any

import pytest

from clusterbox.clusters.removed_storage import describe_fate, find_mount

PATH = "SharedStorage[scratch]"


def _storage(kind: str, **settings: Any) -> dict[str, Any]:
    return {
        "Name": "scratch",
        "MountDir": "/scratch",
        "StorageType": kind,
        f"{kind}Settings": settings,
    }


@pytest.mark.parametrize(
    ("old", "expected"),
    [
        ({"Name": "scratch", "MountDir": "/scratch", "StorageType": "Efs"}, "Policy: Delete"),
        (_storage("Ebs", Size=100), "ParallelCluster deletes scratch and all files on it"),
        (_storage("Ebs", DeletionPolicy="Snapshot"), "a snapshot of them is kept"),
        (_storage("FsxLustre", DeletionPolicy="Retain"), "scratch stays in the account"),
    ],
)
def test_storage_of_the_cluster_s_own_is_deleted_unless_it_is_retained(
    old: dict[str, Any], expected: str
) -> None:
    assert expected in str(describe_fate(PATH, old, None))


@pytest.mark.parametrize(
    "old",
    [
        _storage("Efs", FileSystemId="fs-1"),
        _storage("Ebs", VolumeId="vol-1"),
        _storage("FsxOntap", VolumeId="fsvol-1"),
        _storage("FileCache", FileCacheId="fc-1"),
    ],
)
def test_nothing_becomes_of_storage_that_exists_outside_of_the_cluster(old: dict[str, Any]) -> None:
    assert find_mount(PATH, old, None) == "/scratch"
    assert describe_fate(PATH, old, None) is None


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        (PATH, None, _storage("Ebs", Size=100)),
        (f"{PATH}.EbsSettings.Iops", 3000, None),
        (f"{PATH}.EbsSettings.Raid", {"Type": "1"}, None),
        ("Tags[MountDir]", {"Key": "MountDir", "MountDir": "/x"}, None),
    ],
)
def test_a_change_that_removes_no_storage_has_no_mount(path: str, old: Any, new: Any) -> None:
    assert find_mount(path, old, new) is None
    assert describe_fate(path, old, new) is None
