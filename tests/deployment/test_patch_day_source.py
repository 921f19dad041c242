from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

from clusterbox.deployment.patch_day_source import FILES, FOLDERS, pack_source, publish_source
from clusterbox.site.load import Repository


class S3:
    """Keeps what is put."""

    def __init__(self) -> None:
        self.put: list[dict[str, Any]] = []

    def put_object(self, **asked: Any) -> None:
        self.put.append(asked)


def test_the_archive_is_a_site_that_can_be_read(root: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(pack_source(root))) as archive:
        archive.extractall(tmp_path)
        names = archive.namelist()
    # What `make setup` and the command read; a file that was renamed is missed here.
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, *FOLDERS}
    assert not [name for name in names if name.endswith(".pyc")]
    repository = Repository(tmp_path)
    for name in repository.environment_names():
        environment = repository.load_environment(name)
        assert set(repository.load_images(environment)) == set(environment.images)
    assert (tmp_path / "stacks" / "image_functions" / "patch_day.sh").is_file()


def test_the_same_files_give_the_same_archive(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder / "ami").mkdir(parents=True)
        (tmp_path / folder / "ami" / "x.yaml").write_text("x")
        (tmp_path / folder / "other").write_text(folder)
    assert pack_source(tmp_path / "a") == pack_source(tmp_path / "b")


def test_only_a_patch_day_of_codebuild_has_an_archive(root: Path) -> None:
    repository, s3 = Repository(root), S3()
    assert publish_source(root, lambda _service: s3, repository.load_environment("ws-dev"))
    assert not publish_source(root, lambda _service: s3, repository.load_environment("sandbox"))
    (put,) = s3.put
    assert (put["Bucket"], put["Key"]) == (
        "dev-ws-parallelcluster-testbucket",
        "patch-day/ws-dev.zip",
    )
