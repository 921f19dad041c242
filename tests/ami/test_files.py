"""What holds for every step, check and lock, without running them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from clusterbox.site.image_definitions import read_systems
from tests.conftest import ROOT

AMI = ROOT / "ami"
STEPS = sorted((AMI / "steps").glob("[0-9]*.sh"))
CHECKS = sorted(path for path in (AMI / "verify").glob("*.sh") if path.stem != "common")
every_script = pytest.mark.parametrize("script", [*STEPS, *CHECKS], ids=lambda path: path.name)


@every_script
def test_scripts_can_be_started_and_stop_at_the_first_error(script: Path) -> None:
    lines = script.read_text().splitlines()
    assert os.access(script, os.X_OK)
    assert lines[0] == "#!/bin/bash"
    assert "set -euo pipefail" in lines[:5]


@pytest.mark.parametrize("step", STEPS, ids=lambda path: path.name)
def test_steps_say_what_they_are_for_and_that_they_ended(step: Path) -> None:
    assert read_systems(ROOT, step.name) == ["alinux2023"]
    assert step.read_text().splitlines()[-1] == "finish_step"


def test_nothing_is_fetched_from_an_address_in_a_script() -> None:
    addresses = {
        found
        for path in AMI.rglob("*")
        if path.is_file() and path.suffix != ".md"
        for found in re.findall(r"https?://[^\s\"'$][^\s\"']*", path.read_text())
    }
    # The machine's own exporter, and what EC2 tells each instance about itself.
    own = ("http://127.0.0.1:9100/", "http://169.254.169.254/latest/")
    assert {address for address in addresses if not address.startswith(own)} == set()
    assert addresses


def test_the_lock_pins_every_wanted_library_with_hashes() -> None:
    lock = (AMI / "requirements-science.txt").read_text()
    wanted = re.findall(r"^[a-z][\w-]*$", (AMI / "requirements-science.in").read_text(), re.M)
    pins = re.findall(r"^(\S+)==\S+ \\\n +--hash=sha256:[0-9a-f]{64}", lock, re.M)
    assert "rasterio" in wanted
    assert set(wanted) <= set(pins)
    assert len(pins) == len(re.findall(r"^\S+==", lock, re.M))


def test_the_pinned_exporter_is_the_one_that_is_installed() -> None:
    version = re.search(
        r"^version=(\S+)$", (AMI / "steps" / "50-node-exporter.sh").read_text(), re.M
    )
    assert version
    pins = (AMI / "artefacts.sha256").read_text().splitlines()
    assert [re.sub(r"^[0-9a-f]{64}  ", "", pin) for pin in pins] == [
        f"node_exporter-{version[1]}.linux-{platform}.tar.gz" for platform in ("amd64", "arm64")
    ]
