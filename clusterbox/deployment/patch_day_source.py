"""The archive of this repository that CodeBuild runs patch days in.

It is put into the bucket by each deployment rather than named in a template by its content: there,
every change of a queue, and of another environment, would show as a change of the images stack.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from clusterbox.site import names
from clusterbox.site.environment import Environment

# What `make patch-day-run` needs.
FILES = (
    ".npmrc",
    "LICENSE",
    "Makefile",
    "README.md",
    "app.py",
    "cdk.json",
    "package-lock.json",
    "package.json",
    "pyproject.toml",
    "requirements-dev.txt",
    "requirements-pcluster.txt",
    "requirements.txt",
)
FOLDERS = ("ami", "cluster_configs", "clusterbox", "environments", "stacks")
# The first moment that a ZIP file knows: the same files give the same archive.
_NO_TIME = (1980, 1, 1, 0, 0, 0)


def publish_source(root: Path, client: Callable[[str], Any], environment: Environment) -> bool:
    """Put the archive where the project reads it; return whether the environment has one.

    Raises boto3's errors.
    """
    plan = environment.patch_day
    if plan is None or plan.pipeline != "codebuild":
        return False
    client("s3").put_object(
        Bucket=environment.storage.buckets.cluster_config.name,
        Key=names.patch_day_source_key(environment),
        Body=pack_source(root),
    )
    return True


def pack_source(root: Path) -> bytes:
    """Return the ZIP archive of what a patch day needs of the repository at `root`."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(_find(root)):
            entry = zipfile.ZipInfo(str(path.relative_to(root)), _NO_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o755 if path.stat().st_mode & 0o100 else 0o644) << 16
            archive.writestr(entry, path.read_bytes())
    return packed.getvalue()


def _find(root: Path) -> Iterator[Path]:
    yield from (root / name for name in FILES if (root / name).is_file())
    for folder in FOLDERS:
        for path in (root / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path
