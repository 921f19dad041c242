"""Machines on which images are baked: made once a module, with stand-ins built once a session."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from clusterbox.images.components import render_bundle
from clusterbox.site.image_definitions import load_image_definition
from clusterbox.site.load import Repository
from tests.ami import machine as machines
from tests.ami import stand_ins
from tests.ami.machine import Machine
from tests.conftest import ROOT

# What the parent of an image may bring, and no image may have.
LEFT_BY_THE_PARENT = {
    "/etc/ssh/ssh_host_ed25519_key": "host key",
    "/home/ec2-user/.bash_history": "aws configure",
    "/home/ec2-user/.netrc": "password",
    "/home/ec2-user/.ssh/authorized_keys": "ssh-ed25519 AAAA ada",
    "/root/.aws/credentials": "[default]",
    "/root/.ssh/id_ed25519": "private key",
    "/var/lib/cloud/instances/i-00000001/sem": "done",
    "/var/lib/systemd/random-seed": "seed",
}


@dataclass(frozen=True)
class Site:
    """A copy of the repository's images whose pins are those of the stand-ins, and the stand-ins."""

    root: Path
    supplies: Path

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace text of a file of the copy, which must have it."""
        file = self.root / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))


@pytest.fixture(scope="session")
def supplies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with the stand-ins, as machines have it in /opt/stand-ins."""
    if lack := machines.find_lack():
        pytest.skip(lack)
    folder = tmp_path_factory.mktemp("supplies") / "stand-ins"
    stand_ins.build_repository(folder / "repo")
    lock = (ROOT / "ami" / "requirements-science.txt").read_text()
    (folder / "science.txt").write_text(stand_ins.build_wheels(lock, folder / "wheels"))
    bucket = Repository(ROOT).load_environment("ws-dev").storage.buckets.cluster_config.name
    artefacts = folder / "s3" / bucket / "images" / "artefacts"
    artefacts.mkdir(parents=True)
    pins = (ROOT / "ami" / "artefacts.sha256").read_text()
    for name, content in stand_ins.pack_exporter(pins).items():
        (artefacts / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def site(supplies: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Return a copy of the repository's images, pinned to the stand-ins."""
    import hashlib

    root = tmp_path_factory.mktemp("site")
    for name in ("ami", "environments", "cluster_configs"):
        shutil.copytree(ROOT / name, root / name)
    shutil.copy(supplies / "science.txt", root / "ami" / "requirements-science.txt")
    pins = "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(supplies.glob("s3/*/images/artefacts/*"))
    )
    (root / "ami" / "artefacts.sha256").write_text(pins)
    made = Site(root, supplies)
    made.edit("ami/images/compute.yaml", "root_gib: 45", f"root_gib: {machines.ROOT_GIB}")
    made.edit("ami/images/admin.yaml", "root_gib: 30", f"root_gib: {machines.ROOT_GIB}")
    return made


MakeMachine = Callable[[], Machine]


@pytest.fixture(scope="module")
def make_machine(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeMachine]:
    """Return what makes a machine as the parent of an image leaves it, not started."""
    made = []

    def make() -> Machine:
        folder = tmp_path_factory.mktemp("machine")
        machine = Machine(folder)
        made.append(machine)
        machine.make()
        shutil.copytree(site.supplies, machine.root / "opt" / "stand-ins")
        machine.write("/etc/yum.repos.d/stand-ins.repo", stand_ins.REPOSITORY)
        machine.write("/etc/pip.conf", stand_ins.PIP)
        machine.write("/usr/local/bin/aws", stand_ins.AWS, 0o755)
        machine.write("/opt/slurm/bin/sinfo", stand_ins.SINFO, 0o755)
        stand_ins.add_kernel_module(machine, "efa", os.uname().release, folder)
        machine.run("dnf install --assumeyes --quiet kernel-1.0 openssl-1.0 tzdata-1.0")
        for path, content in LEFT_BY_THE_PARENT.items():
            machine.write(path, content)
        return machine

    yield make
    for machine in made:
        machine.remove()


def bake(machine: Machine, root: Path, name: str) -> str:
    """Run the scripts of an image's bundle in their order; return what they said."""
    environment = Repository(root).load_environment("ws-dev")
    bundle = render_bundle(root, load_image_definition(root, name), environment)
    said = ""
    for key in bundle.keys:
        # As the component of ParallelCluster does: fetched to a file of any name, and run.
        machine.write("/opt/stand-ins/script", bundle.objects[key], 0o755)
        done = machine.run("/opt/stand-ins/script")
        said += done.stdout
    return said
