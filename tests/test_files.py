from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from clusterbox.errors import InputError
from clusterbox.files import write_whole


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    write_whole(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(path.read_text()), daemon=True)
    reader.start()
    write_whole(path, "text")
    reader.join(10)
    assert read == ["text"]
    assert path.is_fifo()


def test_a_folder_and_a_missing_one_are_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        write_whole(tmp_path, "text")
    with pytest.raises(InputError, match="its folder is missing"):
        write_whole(tmp_path / "none" / "file", "text")
