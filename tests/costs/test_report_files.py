from __future__ import annotations

from pathlib import Path

import pytest

from clusterbox.costs.report_files import read_used_ids
from clusterbox.errors import InputError
from clusterbox.files import write_whole
from tests.conftest import ROOT


def test_ids_of_all_files_are_read(tmp_path: Path) -> None:
    config = tmp_path / "cluster_configs"
    config.mkdir()
    text = (
        "CustomAmi: ami-0123456789abcdef0\nVolumeId: 'vol-0a1b2c3d'\nElasticIp: eipalloc-0a1b2c3d"
    )
    (config / "a.yaml").write_text(text)
    (config / "b.txt").write_text("snap-0a1b2c3d")
    assert read_used_ids(tmp_path) == {"ami-0123456789abcdef0", "vol-0a1b2c3d", "eipalloc-0a1b2c3d"}


def test_the_lock_of_images_is_among_them() -> None:
    assert "ami-067d504ae48dd3252" in read_used_ids(ROOT)


def test_a_page_goes_into_a_folder_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x\.html: its folder is missing"):
        write_whole(tmp_path / "none" / "x.html", "text")
    with pytest.raises(InputError, match="is a folder"):
        write_whole(tmp_path, "text")
