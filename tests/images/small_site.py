"""A site with one cluster whose parts can be pinned, and one queue that cannot."""

from __future__ import annotations

from pathlib import Path

from clusterbox.site.environment import Environment
from tests.site.site_files import LOCK, write_site

LOCKED, OLD, ADMIN = "ami-00000001", "ami-0000000f", "ami-00000002"
CONFIG = """\
Region: us-west-2
Image: {Os: alinux2023, CustomAmi: "${images.compute}"}
LoginNodes:
  Pools:
    - Name: login
      Image: {CustomAmi: "${images.compute}"}
Scheduling:
  SlurmQueues:
    - Name: eco
      Image: {CustomAmi: "${images.compute}"}
    - Name: inherits
"""


def write(root: Path, pins: str = "", lock: str = LOCK) -> Environment:
    """Write the site; `pins` is the YAML of the cluster's pins, in one line."""
    if pins:
        lock += f"pins: {{dev: {{dev-eco: {pins}}}}}\n"
    repository = write_site(root, lock=lock)
    (root / "cluster_configs" / "eco.yaml").write_text(CONFIG, encoding="utf-8")
    return repository.load_environment("dev")
