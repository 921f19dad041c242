"""The steps and checks of the shipped images, run for real on a machine with systemd and dnf."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from clusterbox.site.image_definitions import load_image_definition
from tests.ami.conftest import LEFT_BY_THE_PARENT, MakeMachine, Site, bake
from tests.ami.machine import Machine

pytestmark = pytest.mark.integration
HOME = "/opt/clusterbox/image"


@dataclass(frozen=True)
class Baked:
    """A machine started from a baked image, and what happened before."""

    machine: Machine
    root: Path
    said: str
    # What the second run of all steps said, and the files before and after it.
    said_again: str
    before: dict[str, str]
    after: dict[str, str]

    def verify(self, *checks: str) -> tuple[int, list[dict[str, object]]]:
        """Return the exit code and the results of the checks, by default all."""
        done = self.machine.run(f"{HOME}/verify/run.sh {' '.join(checks)}", check=False)
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    def failures(self, *checks: str) -> list[str]:
        """Return what the checks found wrong, as `check: detail`."""
        code, results = self.verify(*checks)
        found = [f"{result['check']}: {result['detail']}" for result in results if not result["ok"]]
        assert code == (1 if found else 0)
        return found


def _bake(make_machine: MakeMachine, site: Site, name: str) -> Baked:
    machine = make_machine()
    machine.boot()
    said = bake(machine, site.root, name)
    before = machine.tree()
    said_again = bake(machine, site.root, name)
    after = machine.tree()
    # An image is a machine that was stopped; what is verified was started from it.
    machine.stop()
    machine.boot()
    return Baked(machine, site.root, said, said_again, before, after)


@pytest.fixture(scope="module")
def compute(make_machine: MakeMachine, site: Site) -> Baked:
    """Return a machine that was started from the image of cluster nodes."""
    return _bake(make_machine, site, "compute")


@pytest.fixture(scope="module")
def admin(make_machine: MakeMachine, site: Site) -> Baked:
    """Return a machine that was started from the image of the admin box."""
    return _bake(make_machine, site, "admin")


@pytest.fixture(params=["compute", "admin"])
def baked(request: pytest.FixtureRequest) -> Baked:
    """Return each shipped image in turn."""
    found: Baked = request.getfixturevalue(request.param)
    return found


def _name(baked: Baked) -> str:
    return str(baked.machine.run(f". {HOME}/image.env; echo $CLUSTERBOX_IMAGE").stdout.strip())


def test_a_baked_image_passes_every_check_of_its_definition(baked: Baked) -> None:
    code, results = baked.verify()
    wrong = [result for result in results if not result["ok"]]
    assert (code, wrong) == (0, [])
    definition = load_image_definition(baked.root, _name(baked))
    assert {result["check"] for result in results} == set(definition.verify)


def test_what_the_parent_left_is_gone(compute: Baked) -> None:
    assert "90-clean-up.sh: removed /root/.ssh/id_ed25519\n" in compute.said
    still_there = [
        path
        for path, content in LEFT_BY_THE_PARENT.items()
        if compute.machine.run(f"cat {path}", check=False).stdout == content
    ]
    assert still_there == []


def test_the_record_of_the_image_names_its_steps_packages_and_kernels(compute: Baked) -> None:
    record = json.loads(compute.machine.run("cat /etc/clusterbox/image-release.json").stdout)
    assert [*record["steps"]] == [*load_image_definition(compute.root, "compute").steps]
    packages = compute.machine.run("cat /etc/clusterbox/image-packages.txt").stdout.splitlines()
    assert "gdal-0:3.4.3-1.amzn2023.noarch" in packages
    assert record["kernels"] == [compute.machine.run("uname -r").stdout.strip()]


def test_updates_leave_the_kernel_of_a_cluster_image_alone(compute: Baked) -> None:
    assert "< openssl 1.0-1.amzn2023.noarch\n> openssl 2.0" not in compute.said
    assert "> openssl 2.0-1.amzn2023.noarch" in compute.said
    assert "> kernel" not in compute.said


def test_a_second_run_changes_nothing(baked: Baked) -> None:
    before, after = baked.before, baked.after
    assert {path for path in {*before, *after} if before.get(path) != after.get(path)} == set()
    steps = load_image_definition(baked.root, _name(baked)).steps
    facts = tuple(f"10-os-updates.sh: {fact}" for fact in ("kernel policy", "security advisories"))
    said = [line for line in baked.said_again.splitlines() if not line.startswith(facts)]
    up_to_date = "10-os-updates.sh: every package is up to date"
    assert said == [up_to_date, *(f"{step}: done" for step in steps)]


def test_the_files_that_are_compared_are_those_of_the_image(compute: Baked) -> None:
    files = compute.before
    assert "/usr/local/bin/node_exporter-1.9.1" in files
    assert "/etc/clusterbox/image-release.json" in files
    assert "/opt/clusterbox/science" in files


# What is broken → how, what verification says then, and how it is mended.
BROKEN = {
    "a key for logging in": (
        "mkdir -p /root/.ssh && echo 'ssh-rsa A' > /root/.ssh/authorized_keys",
        ["leftovers: /root/.ssh/authorized_keys"],
        "rm /root/.ssh/authorized_keys",
    ),
    "credentials of AWS": (
        "mkdir -p /home/ec2-user/.aws && echo '[default]' > /home/ec2-user/.aws/credentials",
        ["leftovers: /home/ec2-user/.aws/credentials"],
        "rm -r /home/ec2-user/.aws",
    ),
    "a history": (
        "echo ls > /root/.bash_history",
        ["leftovers: /root/.bash_history"],
        "rm /root/.bash_history",
    ),
    "a host key that every machine would share": (
        "mkdir -p /etc/ssh && touch -d 2020-01-01 /etc/ssh/ssh_host_rsa_key",
        ["leftovers: /etc/ssh/ssh_host_rsa_key is older than the start of this machine"],
        "rm /etc/ssh/ssh_host_rsa_key",
    ),
    "a password in a repository's address": (
        "echo '#baseurl=https://ada:secret@example.gov/' >> /etc/yum.repos.d/stand-ins.repo",
        ["leftovers: /etc/yum.repos.d/stand-ins.repo holds a URL with a password"],
        "sed -i '/secret/d' /etc/yum.repos.d/stand-ins.repo",
    ),
    "a disabled unit": (
        "systemctl disable --quiet node-exporter",
        ["units: node-exporter.service is disabled and active"],
        "systemctl enable --quiet node-exporter",
    ),
    "a stopped exporter": (
        "systemctl stop node-exporter",
        [
            "units: node-exporter.service is enabled and inactive",
            "exporter: http://127.0.0.1:9100/metrics: curl: (7) Failed to connect to 127.0.0.1 port "
            "9100 after 0 ms: Couldn't connect to server",
        ],
        "systemctl start node-exporter",
    ),
    "a missing Python module": (
        "mv /opt/clusterbox/science/lib/python3.11/site-packages/rasterio /opt",
        ["imports: rasterio: ModuleNotFoundError: No module named 'rasterio'"],
        "mv /opt/rasterio /opt/clusterbox/science/lib/python3.11/site-packages",
    ),
    "another Slurm": (
        "sed -i s/25.11.8/25.11.6/ /opt/slurm/bin/sinfo",
        [
            "slurm: slurm 25.11.6 is installed; ParallelCluster 3.16.1 brings slurm 25.11.8",
        ],
        "sed -i s/25.11.6/25.11.8/ /opt/slurm/bin/sinfo",
    ),
    "no Slurm": (
        "mv /opt/slurm /opt/slurm.away",
        [
            f"slurm: sinfo -V: {HOME}/verify/slurm.sh: line 8: /opt/slurm/bin/sinfo: "
            "No such file or directory",
        ],
        "mv /opt/slurm.away /opt/slurm",
    ),
    "a removed package": (
        "rpm --erase --nodeps gdal",
        [
            "release: the installed packages are not those of /etc/clusterbox/image-packages.txt",
            "packages: gdal is not installed",
        ],
        "dnf install --assumeyes --quiet gdal",
    ),
    "a step of another bake": (
        f"echo '# changed' >> {HOME}/steps/40-apptainer.sh",
        [f"release: 40-apptainer.sh has not finished as it is in {HOME}/steps"],
        f"sed -i '$d' {HOME}/steps/40-apptainer.sh",
    ),
    "a newer kernel that does not run": (
        "mkdir /lib/modules/99.0.0",
        ["kernel: $KERNEL runs, but 99.0.0 is the newest installed"],
        "rmdir /lib/modules/99.0.0",
    ),
    "a kernel newer than its cap": (
        f"sed -i \"s/^CLUSTERBOX_KERNEL_NEWEST=.*/CLUSTERBOX_KERNEL_NEWEST='1.0.0'/\" {HOME}/image.env",
        ["kernel: $KERNEL is newer than the cap 1.0.0"],
        f"sed -i \"s/^CLUSTERBOX_KERNEL_NEWEST=.*/CLUSTERBOX_KERNEL_NEWEST=''/\" {HOME}/image.env",
    ),
    "a missing kernel module": (
        "mv /lib/modules/$(uname -r)/extra/efa.ko /opt && depmod",
        ["kernel: module efa is not there for $KERNEL"],
        "mv /opt/efa.ko /lib/modules/$(uname -r)/extra && depmod",
    ),
    "a module of another kernel": (
        'sed -i "s/vermagic=$(uname -r | cut -c 1)/vermagic=9/" /lib/modules/$(uname -r)/extra/efa.ko',
        ["kernel: module efa was built for $OTHER, and $KERNEL runs"],
        'sed -i "s/vermagic=9/vermagic=$(uname -r | cut -c 1)/" /lib/modules/$(uname -r)/extra/efa.ko',
    ),
    "a smaller disk": (
        f"sed -i s/^CLUSTERBOX_ROOT_GIB=.*/CLUSTERBOX_ROOT_GIB=45/ {HOME}/image.env",
        ["disk: root file system of 10 GiB; the definition states 45 GiB"],
        f"sed -i s/^CLUSTERBOX_ROOT_GIB=.*/CLUSTERBOX_ROOT_GIB=10/ {HOME}/image.env",
    ),
    "another time zone": (
        "ln -sfn /usr/share/zoneinfo/America/Denver /etc/localtime",
        ["time-zone: America/Denver; the definition states UTC"],
        "ln -sfn /usr/share/zoneinfo/Etc/UTC /etc/localtime",
    ),
    "a check that breaks off": (
        f"sed -i 's/^source/exit 3; source/' {HOME}/verify/time-zone.sh",
        ["time-zone: the check broke off with exit code 3"],
        f"sed -i 's/^exit 3; source/source/' {HOME}/verify/time-zone.sh",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_verification_tells_exactly_what_is_wrong(what: str, compute: Baked) -> None:
    break_it, expected, mend_it = BROKEN[what]
    kernel = compute.machine.run("uname -r").stdout.strip()
    compute.machine.run(break_it)
    try:
        found = compute.failures()
    finally:
        compute.machine.run(mend_it)
    values = {"$KERNEL": kernel, "$OTHER": f"9{kernel[1:]}"}
    for name, value in values.items():
        expected = [line.replace(name, value) for line in expected]
    assert found == expected


def test_an_unknown_check_is_refused_before_any_runs(compute: Baked) -> None:
    done = compute.machine.run(f"{HOME}/verify/run.sh units gpu", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"there is no check 'gpu' in {HOME}/verify\n"
