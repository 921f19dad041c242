"""A small site on disk, whose text the tests edit."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterbox.errors import ProblemsError
from clusterbox.site.environment import Environment
from clusterbox.site.load import Repository

# A site in a VPC that exists. Tests name its lines: an edit must not move them.
EXISTING = """\
name: dev
description: Smallest site that has one of everything
account: "123456789012"
region: us-west-2
tags:
  Owner: ada
  Project: rivers
  Organization: lab
  CostCenter: c-1
hosting:
  permissions_boundary: {name: boundary}
  iam_path: /dev/
  iam_name_prefix: dev-
network:
  vpc: {id: vpc-00000001, cidr: 10.0.0.0/16}
  subnets:
    compute:
      a: {id: subnet-0000000a, cidr: 10.0.0.0/24}
      b: {id: subnet-0000000b, cidr: 10.0.1.0/24}
  ssh: {key_pair: keys, cidrs: [192.0.2.0/24]}
storage:
  file_systems:
    home:
      subnets: [compute.a, compute.b]
      access_points:
        projects: {path: /projects, uid: 0, gid: 0, permissions: "1777"}
  buckets:
    cluster_config: {name: dev-artefacts}
    logs: {name: dev-logs}
    results: {name: dev-results}
images: [compute, admin]
admin_box:
  name: dev-box
  instance_type: t3a.medium
  image: admin
  root_gib: 30
  subnet: compute.a
  ssh: false
  idle_stop_minutes: 60
clusters:
  - {name: dev-eco, config: eco.yaml}
"""

# The same site in a VPC that it makes.
MADE = (
    EXISTING.replace("id: vpc-00000001, ", "")
    .replace("id: subnet-0000000a, ", "")
    .replace("id: subnet-0000000b, ", "")
    .replace(
        "  ssh: {key_pair",
        "  public_subnets: {a: {cidr: 10.0.2.0/28}}\n"
        "  nat_gateways: 1\n"
        "  interface_endpoints: {services: [ec2, sts], subnets: [compute.a, compute.b]}\n"
        "  ssh: {key_pair",
    )
)

LOCK = """\
environments:
  dev:
    compute:
      ami: ami-00000001
      os: alinux2023
      root_gib: 45
      origin: baked in spring
    admin:
      ami: ami-00000002
      os: alinux2023
      root_gib: 30
      origin: baked in spring
"""


def edit(text: str, old: str, new: str) -> str:
    """Return the text with `old`, which it holds once, replaced."""
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the text"
    return text.replace(old, new)


def write_site(root: Path, environment: str = EXISTING, lock: str = LOCK) -> Repository:
    """Write a site whose one environment is dev and whose one cluster file is eco.yaml."""
    for folder in ("environments", "cluster_configs", "ami"):
        (root / folder).mkdir(exist_ok=True)
    (root / "environments" / "dev.yaml").write_text(environment, encoding="utf-8")
    (root / "cluster_configs" / "eco.yaml").write_text("Region: us-west-2\n", encoding="utf-8")
    (root / "ami" / "images.lock.yaml").write_text(lock, encoding="utf-8")
    return Repository(root)


def load(root: Path, environment: str = EXISTING) -> Environment:
    """Return the environment of that text."""
    return write_site(root, environment).load_environment("dev")


def problems_of(root: Path, environment: str) -> list[str]:
    """Return the lines of the error that the environment of that text raises."""
    with pytest.raises(ProblemsError) as caught:
        load(root, environment)
    return [
        str(problem).removeprefix("environments/dev.yaml:") for problem in caught.value.problems
    ]
