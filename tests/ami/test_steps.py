"""Single steps: kernel policies, pins, and what an interruption leaves."""

from __future__ import annotations

import json
import subprocess

import pytest

from clusterbox.images.components import HOME, collect_files
from clusterbox.site.image_definitions import (
    ImageDefinition,
    KernelPolicy,
    load_image_definition,
)
from clusterbox.site.load import Repository
from tests.ami.conftest import MakeMachine, Site
from tests.ami.machine import Machine

pytestmark = pytest.mark.integration
# Of the stand-ins only openssl's update is for its security.
BEFORE = {"kernel": ["1.0"], "openssl": ["1.0"], "tzdata": ["1.0"]}


def _lay_down(machine: Machine, site: Site, definition: ImageDefinition) -> None:
    environment = Repository(site.root).load_environment("ws-dev")
    for path, content in collect_files(site.root, definition, environment).items():
        machine.write(f"{HOME}/{path}", content, 0o755 if path.endswith(".sh") else 0o644)


def _step(machine: Machine, step: str) -> subprocess.CompletedProcess[str]:
    return machine.run(f"CLUSTERBOX_RETRY_SECONDS=0 {HOME}/steps/{step}", check=False)


def _versions(machine: Machine) -> dict[str, list[str]]:
    query = "rpm -q --qf '%{VERSION}\\n' {} | sort"
    return {name: machine.run(query.replace("{}", name)).stdout.split() for name in BEFORE}


FULL = KernelPolicy(policy="full")
MINIMAL = KernelPolicy(policy="minimal")
CAPPED = KernelPolicy(policy="capped", newest="6.1.150", reason="Lustre's client")


@pytest.mark.parametrize(
    ("name", "policy", "after"),
    [
        pytest.param(
            "admin",
            FULL,
            {"kernel": ["1.0", "2.0"], "openssl": ["2.0"], "tzdata": ["2.0"]},
            id="full takes a new kernel, beside the old one",
        ),
        pytest.param(
            "admin",
            CAPPED,
            {"kernel": ["1.0"], "openssl": ["2.0"], "tzdata": ["2.0"]},
            id="capped takes all but the kernel",
        ),
        pytest.param(
            "admin",
            MINIMAL,
            {"kernel": ["1.0"], "openssl": ["2.0"], "tzdata": ["1.0"]},
            id="minimal takes security updates alone",
        ),
        pytest.param(
            "compute",
            FULL,
            {"kernel": ["1.0"], "openssl": ["2.0"], "tzdata": ["2.0"]},
            id="after ParallelCluster the kernel stays under every policy",
        ),
    ],
)
def test_updates_follow_the_kernel_policy(
    name: str,
    policy: KernelPolicy,
    after: dict[str, list[str]],
    make_machine: MakeMachine,
    site: Site,
) -> None:
    machine = make_machine()
    assert _versions(machine) == BEFORE
    definition = load_image_definition(site.root, name).model_copy(update={"kernel": policy})
    _lay_down(machine, site, definition)
    done = _step(machine, "10-os-updates.sh")
    assert (done.returncode, _versions(machine)) == (0, after)
    assert "< openssl 1.0-1.amzn2023.noarch\n" in done.stdout
    assert "> openssl 2.0-1.amzn2023.noarch\n" in done.stdout


OPENSSL = {
    "id": "ALAS-STAND-IN-1",
    "severity": "Important",
    "cves": ["CVE-2026-0001", "CVE-2026-0002"],
    "packages": ["openssl-2.0-1.amzn2023.noarch"],
}
KERNEL = {
    "id": "ALAS-STAND-IN-2",
    "severity": "Moderate",
    "cves": [],
    "packages": ["kernel-2.0-1.amzn2023.noarch"],
}


def _advisories(machine: Machine) -> object:
    record = json.loads(machine.run("cat /etc/clusterbox/image-release.json").stdout)
    return record["advisories"]


def test_the_record_has_the_advisories_that_hold_and_those_that_were_left_out(
    make_machine: MakeMachine, site: Site
) -> None:
    machine = make_machine()
    definition = load_image_definition(site.root, "admin").model_copy(update={"kernel": CAPPED})
    _lay_down(machine, site, definition)
    done = _step(machine, "10-os-updates.sh")
    assert "security advisories: 1 installed, 1 left out\n" in done.stdout
    assert _advisories(machine) == {"installed": [OPENSSL], "available": [KERNEL]}
    # Later steps keep what was recorded, and so does a second run.
    machine.run(f"{HOME}/steps/90-clean-up.sh")
    _step(machine, "10-os-updates.sh")
    assert _advisories(machine) == {"installed": [OPENSSL], "available": [KERNEL]}


def test_where_dnf_tells_nothing_the_advisories_are_not_known_and_the_step_goes_on(
    make_machine: MakeMachine, site: Site
) -> None:
    machine = make_machine()
    _lay_down(machine, site, load_image_definition(site.root, "admin"))
    machine.write(
        "/usr/local/bin/dnf",
        '#!/bin/bash\n[[ $* != *updateinfo* ]] || exit 1\nexec /usr/bin/dnf "$@"\n',
        0o755,
    )
    done = _step(machine, "10-os-updates.sh")
    assert done.returncode == 0
    assert "security advisories are not known: " in done.stdout
    assert _advisories(machine) is None


@pytest.fixture(scope="module")
def machine(make_machine: MakeMachine, site: Site) -> Machine:
    """Return a machine that is off, with the files of the image of cluster nodes."""
    made = make_machine()
    _lay_down(made, site, load_image_definition(site.root, "compute"))
    return made


def test_an_exporter_that_is_not_the_pinned_one_is_not_installed(machine: Machine) -> None:
    pins = machine.run(f"cat {HOME}/artefacts.sha256").stdout
    machine.write(f"{HOME}/artefacts.sha256", pins.replace(pins[:8], "00000000"))
    done = _step(machine, "50-node-exporter.sh")
    machine.write(f"{HOME}/artefacts.sha256", pins)
    assert done.returncode == 1
    assert "is not the file that artefacts.sha256 pins" in done.stderr
    assert machine.run("ls /usr/local/bin | grep exporter", check=False).stdout == ""
    assert "50-node" not in machine.run("cat /etc/clusterbox/*", check=False).stdout


def test_an_environment_that_an_interruption_left_half_made_is_made_again(
    machine: Machine,
) -> None:
    lock = machine.run(f"sha256sum {HOME}/requirements-science.txt | cut -c 1-12").stdout.strip()
    release = f"/opt/clusterbox/science-{lock}"
    machine.write(f"{release}/bin/python", "half a Python", 0o755)
    done = _step(machine, "30-science-base.sh")
    assert done.returncode == 0, done.stderr
    assert f"30-science-base.sh: made {release}\n" in done.stdout
    assert machine.run("science-python -c 'import rasterio, xarray'").returncode == 0


def test_a_wheel_that_the_lock_does_not_know_is_refused(
    make_machine: MakeMachine, site: Site
) -> None:
    machine = make_machine()
    _lay_down(machine, site, load_image_definition(site.root, "compute"))
    machine.run("for file in /opt/stand-ins/wheels/rasterio-*; do echo more >> $file; done")
    done = _step(machine, "30-science-base.sh")
    assert done.returncode == 1
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in done.stderr
    assert machine.run("ls /opt/clusterbox").stdout.split()[0] == "image"
    assert machine.run("test -e /opt/clusterbox/science", check=False).returncode == 1


def test_a_package_that_no_repository_has_stops_the_step_with_its_name(machine: Machine) -> None:
    machine.run("mv /opt/stand-ins/repo /opt/stand-ins/repo.away")
    done = _step(machine, "40-apptainer.sh")
    machine.run("mv /opt/stand-ins/repo.away /opt/stand-ins/repo")
    assert done.returncode == 1
    assert "40-apptainer.sh: FAILED: gave up after 4 attempts: dnf install" in done.stderr


def test_the_log_agent_is_left_to_parallelcluster_on_a_cluster_image(
    machine: Machine, site: Site
) -> None:
    step = (site.root / "ami" / "steps" / "60-log-agent.sh").read_bytes()
    machine.write(f"{HOME}/steps/60-log-agent.sh", step, 0o755)
    done = _step(machine, "60-log-agent.sh")
    assert done.returncode == 1
    assert "leave this step out" in done.stderr
