from __future__ import annotations

from pathlib import Path

import pytest

from clusterbox.errors import InputError, ProblemsError
from clusterbox.site.image_definitions import (
    bake_name,
    image_definition_names,
    load_image_definition,
    load_image_definitions,
)
from tests.conftest import ROOT

IMAGE = """\
name: compute
description: Nodes
os: alinux2023
parent: {owner: self, name_filter: base-*}
parallelcluster_version: 3.16.1
root_gib: 45
build_instance_type: m6a.2xlarge
kernel: {policy: full}
steps:
  - 10-updates.sh
  - 90-clean-up.sh
verify: [units, slurm]
expect: {units: [sshd.service], kernel_modules: [efa]}
tags: {Purpose: nodes}
launch_accounts: ["123456789012"]
"""


def write_images(root: Path, text: str = IMAGE) -> Path:
    """Write a repository with one image, three steps and two checks; return its folder."""
    for folder in ("images", "steps", "verify"):
        (root / "ami" / folder).mkdir(parents=True)
    for step in ("10-updates.sh", "10-more.sh", "90-clean-up.sh"):
        (root / "ami" / "steps" / step).write_text("#!/bin/bash\n# os: alinux2023\n")
    (root / "ami" / "steps" / "20-ubuntu.sh").write_text("#!/bin/bash\n# os: ubuntu2404 rhel9\n")
    for check in ("units", "slurm", "run", "common"):
        (root / "ami" / "verify" / f"{check}.sh").touch()
    (root / "environments").mkdir()
    (root / "environments" / "ws-dev.yaml").touch()
    (root / "ami" / "images" / "compute.yaml").write_text(text)
    return root


def problems_of(root: Path, text: str) -> list[str]:
    """Return the lines of the error that a definition of that text raises."""
    with pytest.raises(ProblemsError) as caught:
        load_image_definition(write_images(root, text), "compute")
    return [
        str(problem).removeprefix("ami/images/compute.yaml:") for problem in caught.value.problems
    ]


def test_a_definition_is_returned(tmp_path: Path) -> None:
    found = load_image_definition(write_images(tmp_path), "compute")
    assert found.steps == ("10-updates.sh", "90-clean-up.sh")
    assert found.parent.name_filter == "base-*"
    assert (found.slurm_version, found.architecture) == ("25.11.8", "x86_64")
    assert found.expect.time_zone == "UTC"


def test_an_image_without_parallelcluster_has_no_slurm(tmp_path: Path) -> None:
    text = IMAGE.replace("version: 3.16.1", "version: null").replace(", slurm]", "]")
    text = text.replace(", kernel_modules: [efa]", "")
    assert load_image_definition(write_images(tmp_path, text), "compute").slurm_version is None


def test_an_unknown_image_is_told_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^there is no image 'gpu'; ami/images/ has: compute$"):
        load_image_definition(write_images(tmp_path), "gpu")


def test_the_shipped_definitions_hold() -> None:
    found = load_image_definitions(ROOT)
    assert [*found] == image_definition_names(ROOT) == ["admin", "compute"]


def test_problems_of_all_files_are_reported_at_once(tmp_path: Path) -> None:
    root = write_images(tmp_path, IMAGE.replace("root_gib: 45", "root_gib: 4"))
    (root / "ami" / "images" / "admin.yaml").write_text(IMAGE.replace("full", "none"))
    with pytest.raises(ProblemsError) as caught:
        load_image_definitions(root)
    assert [(problem.file, problem.path) for problem in caught.value.problems] == [
        ("ami/images/admin.yaml", "name"),
        ("ami/images/admin.yaml", "kernel.policy"),
        ("ami/images/compute.yaml", "root_gib"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "problems"),
    [
        pytest.param(
            "name: compute",
            "name: nodes",
            ["1: name: must be compute, as the file is called (found: 'nodes')"],
            id="another name than the file's",
        ),
        pytest.param(
            "os: alinux2023",
            "os: rhel9",
            [
                "10: steps[0]: must support rhel9; it is for: alinux2023 (found: '10-updates.sh')",
                "11: steps[1]: must support rhel9; it is for: alinux2023 (found: '90-clean-up.sh')",
            ],
            id="an operating system that no step is for",
        ),
        pytest.param(
            "{owner: self, name_filter: base-*}",
            "{owner: self}",
            ["4: parent.name_filter: must be given where there is no id"],
            id="half a parent",
        ),
        pytest.param(
            "{owner: self, name_filter: base-*}",
            "{id: ami-00000001, owner: self}",
            ["4: parent.owner: must be left out beside id"],
            id="two parents",
        ),
        pytest.param(
            "owner: self",
            "owner: amazon",
            [
                "4: parent.owner: must be self, or the 12 digits of an AWS account in quotes, such "
                "as \"427491229895\" (found: 'amazon')"
            ],
            id="Amazon's images",
        ),
        pytest.param(
            "name_filter: base-*",
            "name_filter: ws*",
            [
                "4: parent.name_filter: must be the name of an AMI, of which at least the first "
                "four characters are written out; * stands for any characters and ? for one, such "
                "as csr-al2023-base-* (found: 'ws*')"
            ],
            id="a filter that takes up almost anything",
        ),
        pytest.param(
            "name_filter: base-*",
            "name_filter: ws-dev-*",
            [
                "4: parent.name_filter: must not take up what this definition bakes itself, such as "
                "ws-dev-compute-2024-01-31 (found: 'ws-dev-*')"
            ],
            id="a filter that takes up its own bakes",
        ),
        pytest.param(
            "version: 3.16.1",
            "version: 3.15.0",
            [
                "5: parallelcluster_version: must be one whose Slurm is known here: 3.16.1 "
                "(found: '3.15.0')"
            ],
            id="a ParallelCluster whose Slurm nobody knows",
        ),
        pytest.param(
            "version: 3.16.1",
            "version: null",
            [
                "12: verify[1]: must be left out: without parallelcluster_version there is no Slurm "
                "(found: 'slurm')",
                "13: expect.kernel_modules: must be empty without parallelcluster_version: "
                "ParallelCluster installs them",
            ],
            id="what only ParallelCluster brings",
        ),
        pytest.param(
            "{policy: full}",
            "{policy: capped, newest: 6.1.150}",
            ["8: kernel.reason: must be given where the policy is capped"],
            id="a cap without a reason",
        ),
        pytest.param(
            "{policy: full}",
            "{policy: minimal, reason: caution}",
            ["8: kernel.reason: must be left out where the policy is not capped"],
            id="a reason without a cap",
        ),
        pytest.param(
            "  - 10-updates.sh\n",
            "  - 10-update.sh\n",
            [
                "10: steps[0]: must be a file of ami/steps/: 10-more.sh, 10-updates.sh, "
                "20-ubuntu.sh, 90-clean-up.sh (found: '10-update.sh')"
            ],
            id="an unknown step",
        ),
        pytest.param(
            "  - 90-clean-up.sh\n",
            "  - 20-ubuntu.sh\n",
            [
                "11: steps[1]: must support alinux2023; it is for: ubuntu2404, rhel9 "
                "(found: '20-ubuntu.sh')"
            ],
            id="a step of another operating system",
        ),
        pytest.param(
            "  - 10-updates.sh\n  - 90-clean-up.sh\n",
            "  - 90-clean-up.sh\n  - 10-updates.sh\n",
            [
                "11: steps[1]: must have a higher number than 90 before it (found: '10-updates.sh')",
            ],
            id="steps that are not in their order",
        ),
        pytest.param(
            "  - 90-clean-up.sh\n",
            "  - 10-more.sh\n",
            ["11: steps[1]: must have a higher number than 10 before it (found: '10-more.sh')"],
            id="two steps of one number",
        ),
        pytest.param(
            "[units, slurm]",
            "[units, common]",
            ["12: verify[1]: must be a check of ami/verify/: slurm, units (found: 'common')"],
            id="an unknown check",
        ),
        pytest.param(
            "[sshd.service]",
            "[sshd]",
            [
                "13: expect.units[0]: must be the name of a systemd unit, such as "
                "node-exporter.service (found: 'sshd')"
            ],
            id="a unit without its kind",
        ),
        pytest.param(
            "{Purpose: nodes}",
            '{"parallelcluster:version": "1"}',
            [
                "14: tags.parallelcluster:version: must be the key of a tag that neither AWS nor "
                "ParallelCluster nor the bake sets (found: 'parallelcluster:version')"
            ],
            id="a tag that ParallelCluster sets",
        ),
        pytest.param(
            "root_gib: 45\n",
            "root_gib: 45\nroot_size: 50\n",
            [
                "7: root_size: is not a known key; allowed here: name, description, os, "
                "architecture, parent, parallelcluster_version, root_gib, build_instance_type, "
                "kernel, steps, verify, expect, tags, launch_accounts"
            ],
            id="an unknown key",
        ),
    ],
)
def test_problems(old: str, new: str, problems: list[str], tmp_path: Path) -> None:
    assert old in IMAGE
    assert problems_of(tmp_path, IMAGE.replace(old, new)) == problems


def test_more_steps_than_a_build_takes_are_refused(tmp_path: Path) -> None:
    root = write_images(tmp_path)
    steps = [f"{number}-step.sh" for number in range(20, 35)]
    for step in steps:
        (root / "ami" / "steps" / step).write_text("# os: alinux2023\n")
    text = IMAGE.replace("  - 90-clean-up.sh\n", "")
    text = text.replace("  - 10-updates.sh\n", "".join(f"  - {step}\n" for step in steps))
    (root / "ami" / "images" / "compute.yaml").write_text(text)
    with pytest.raises(ProblemsError, match=r"compute\.yaml:9: steps: must be at most 14"):
        load_image_definition(root, "compute")


def test_bakes_are_named_after_environment_image_and_time() -> None:
    assert bake_name("ws-dev", "gpu_nodes", "2026-11-22") == "ws-dev-gpu-nodes-2026-11-22"
