"""The machine behind an instance: a folder with what its image holds and what was done to it since.

Made when it is first asked for, gone with the account. Commands run for real, in a view of this
machine's files that has the folder's on top (`machine_view`), with stand-in programs first in the
PATH (`machine_programs`).
"""

from __future__ import annotations

import functools
import json
import os
import shlex
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ministack.services import ec2

from clusterbox.embedded.server import amazon_linux, machine_programs, machine_view
from clusterbox.embedded.server.image_facts import ImageFacts, facts_of, package_list
from clusterbox.embedded.server.ministack_api import new_uuid, region
from clusterbox.embedded.server.parallelcluster_instance_types import known_types

# Where a machine's own programs are in its view, the same path on each: a job takes the PATH of
# the head node along.
_PROGRAMS = f"/{machine_view.BELOW}/bin"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SLURM_COMMANDS = (
    "sacct",
    "sacctmgr",
    "salloc",
    "sbatch",
    "scancel",
    "scontrol",
    "sdiag",
    "sinfo",
    "sprio",
    "squeue",
    "sreport",
    "srun",
    "sstat",
)
_USUAL_MODULES = ("ena", "nvme", "nvme_core", "xfs", "nfsv4")
_USUAL_UNITS = ("amazon-ssm-agent", "chronyd", "munge", "sshd", "supervisord")
_UNITS_OF_STEPS = {
    "50-node-exporter.sh": "node-exporter",
    "60-log-agent.sh": "amazon-cloudwatch-agent",
}
_DAEMONS = {"HeadNode": ("slurmctld", "nfs-server"), "Compute": ("slurmd",)}
_OS_RELEASE = (
    'NAME="Amazon Linux"\nVERSION="2023"\nID="amzn"\nID_LIKE="fedora"\nVERSION_ID="2023"\n'
)
_AVAILABLE_PART = 0.85
_DEFAULT_MIB = 4096

_lock = threading.Lock()


@dataclass(frozen=True)
class AtReboot:
    """What goes wrong at the next reboot: modules and units that are not there afterwards."""

    modules: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    # The instance runs, but Systems Manager does not reach it any more.
    stays_away: bool = False


@dataclass(frozen=True)
class Machine:
    """The folder of an instance's machine."""

    instance_id: str
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def command(self, words: Sequence[str], *, writable: bool = False) -> list[str]:
        """Return the words that run a command in the machine's view."""
        enter = [sys.executable, "-I", "-S", machine_view.__file__, str(self.folder)]
        return [*enter, *(["--writable"] if writable else []), *words]

    def variables(self) -> dict[str, str]:
        """Return the environment of its commands: those of a root shell, and the host's own."""
        own = {
            "CLUSTERBOX_INSTANCE": self.instance_id,
            "HOME": str(self.folder / "home"),
            "LANG": "C.UTF-8",
            "PWD": "/",
            **_account_variables(),
            **self.environment,
        }
        path = self.environment.get("PATH", _PATH)
        return {**own, "PATH": f"{_PROGRAMS}:{self.folder / 'bin'}:{path}"}

    def state(self) -> dict[str, Any]:
        """Return what it holds now: kernels, packages, units, modules."""
        found: dict[str, Any] = json.loads((self.folder / "state.json").read_text("utf-8"))
        return found

    def change(self, changes: Mapping[str, Any]) -> None:
        """Change its state, while a program of it may be doing so too."""
        with machine_programs.change_state(self.folder) as state:
            state.update(changes)


def _account_variables() -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": os.environ.get("AWS_ENDPOINT_URL", ""),
        "AWS_REGION": region(),
        "AWS_DEFAULT_REGION": region(),
        "AWS_ACCESS_KEY_ID": os.environ.get("MINISTACK_ACCOUNT_ID", "embedded"),
        "AWS_SECRET_ACCESS_KEY": "embedded",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_CONFIG_FILE": os.devnull,
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def storage_folder(name: str) -> Path:
    """Return what stands in for a file system, shared by all machines that mount it."""
    folder = Path(tempfile.gettempdir()) / "storage" / Path(name).name
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o1777)
    return folder


def _folder(instance_id: str) -> Path:
    return Path(tempfile.gettempdir()) / "machines" / instance_id


def machine_of(instance_id: str) -> Machine:
    """Return an instance's machine, made from its image when it is first asked for."""
    folder = _folder(instance_id)
    instance = ec2._instances[instance_id]
    with _lock:
        if not (folder / "state.json").exists():
            _make(folder, instance)
    host = folder / "host.json"
    environment = json.loads(host.read_text("utf-8")) if host.exists() else {}
    machine = Machine(instance_id, folder, environment)
    _refresh(machine, instance)
    return machine


def make_host(
    instance_id: str, environment: Mapping[str, str], storage: Mapping[str, str]
) -> Machine:
    """Give an instance the variables and the mounts of what runs on this machine in its name.

    `storage` is mount folder → name of the file system.
    """
    machine = machine_of(instance_id)
    (machine.folder / "host.json").write_text(json.dumps(dict(environment)), "utf-8")
    view = machine.folder / "view.json"
    known = json.loads(view.read_text("utf-8"))
    known["storage"] = {path: str(storage_folder(name)) for path, name in storage.items()}
    view.write_text(json.dumps(known), "utf-8")
    return machine_of(instance_id)


def plan_reboot(instance_id: str, plan: AtReboot) -> None:
    """Say what goes wrong at the instance's next reboot."""
    machine_of(instance_id).change({"at_reboot": asdict(plan)})


def reboot(instance_id: str) -> None:
    """Boot the newest installed kernel, with a new boot id."""
    if not (_folder(instance_id) / "state.json").exists():
        return
    machine = machine_of(instance_id)
    state = machine.state()
    plan = AtReboot(**(state.get("at_reboot") or {}))
    units = {
        name: {**unit, "active": unit["enabled"] and name not in plan.units}
        for name, unit in state["units"].items()
    }
    machine.change(
        {
            "running": state["installed"],
            "booted": time.time(),
            "modules": [name for name in state["modules"] if name not in plan.modules],
            "units": units,
            "stays_away": plan.stays_away,
            "at_reboot": None,
        }
    )
    (machine.folder / "reboot-asked").unlink(missing_ok=True)
    _write_boot(machine.folder, machine.state())


def boot_id(instance_id: str) -> str:
    """Return the id of the instance's boot; empty where nothing was asked of it yet."""
    try:
        return (_folder(instance_id) / "proc" / "boot_id").read_text("utf-8").strip()
    except FileNotFoundError:
        return ""


def is_away(instance_id: str) -> bool:
    """Return whether it did not come back from a reboot."""
    path = _folder(instance_id) / "state.json"
    return path.exists() and bool(json.loads(path.read_text("utf-8")).get("stays_away"))


def remove(instance_id: str) -> None:
    """Remove what a terminated instance held."""
    shutil.rmtree(_folder(instance_id), ignore_errors=True)


def _make(folder: Path, instance: dict[str, Any]) -> None:
    for name in (
        "bin",
        "home",
        "new-root",
        "proc",
        *(f"root/{n}" for n in machine_view.OWN_FOLDERS),
    ):
        (folder / name).mkdir(parents=True, exist_ok=True)
    facts = facts_of(instance["ImageId"])
    tags = {tag["Key"]: tag["Value"] for tag in ec2._tags.get(instance["InstanceId"], [])}
    state = _first_state(facts, instance, tags.get("parallelcluster:node-type", ""))
    _write_files(folder, facts)
    _write_programs(folder, facts)
    _link_files_of_this_machine(folder)
    covered = {
        f"{place}/{name}": str(folder / "bin" / name)
        for name in machine_programs.PROGRAMS
        if name != "getent"
        for place in ("/usr/bin", "/usr/sbin")
    }
    covered |= {
        "/proc/modules": str(folder / "proc" / "modules"),
        "/proc/meminfo": str(folder / "proc" / "meminfo"),
        "/proc/sys/kernel/random/boot_id": str(folder / "proc" / "boot_id"),
    }
    (folder / "view.json").write_text(json.dumps({"covered": covered, "storage": {}}), "utf-8")
    _write_boot(folder, state)
    # Last: what has a state is whole.
    (folder / "state.json").write_text(json.dumps(state), "utf-8")


def _first_state(facts: ImageFacts, instance: dict[str, Any], node_type: str) -> dict[str, Any]:
    units = [*_USUAL_UNITS, *_DAEMONS.get(node_type, ())]
    units += [unit for step, unit in _UNITS_OF_STEPS.items() if step in facts.steps]
    modules = list(_USUAL_MODULES)
    modules += [name for name in ("efa", "lustre") if name in " ".join(facts.packages)]
    return {
        "ami": instance["ImageId"],
        "hostname": instance["PrivateDnsName"].partition(".")[0],
        "machine": facts.kernel.rpartition(".")[2],
        "running": facts.kernel,
        "installed": facts.kernel,
        "packages": dict(facts.packages),
        "units": {f"{name}.service": {"enabled": True, "active": True} for name in units},
        "modules": modules,
        "slurm_version": facts.slurm_version,
        "verify": list(facts.verify),
        "broken_checks": list(facts.broken_checks),
        "booted": time.time(),
        "available": {},
        "security": [],
        "advisories_available": [],
        "advisories_installed": [],
    }


def _write_files(folder: Path, facts: ImageFacts) -> None:
    root = folder / "root"
    image = root / "opt" / "clusterbox" / "image"
    for name, content in facts.files.items():
        path = image / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o755 if path.suffix == ".sh" else 0o644)
    (root / "etc" / "os-release").write_text(_OS_RELEASE, "utf-8")
    if facts.release:
        own = root / "etc" / "clusterbox"
        own.mkdir(exist_ok=True)
        (own / "image-release.json").write_text(json.dumps(facts.release, indent=2) + "\n", "utf-8")
        (own / "image-packages.txt").write_text(package_list(facts), "utf-8")
    if facts.parallelcluster_version:
        own = root / "opt" / "parallelcluster"
        own.mkdir()
        text = f"aws-parallelcluster-cookbook-{facts.parallelcluster_version}\n"
        (own / ".bootstrapped").write_text(text, "utf-8")


def _write_programs(folder: Path, facts: ImageFacts) -> None:
    for name in machine_programs.PROGRAMS:
        _write_program(folder, folder / "bin" / name, name)
    opt = folder / "root" / "opt"
    verify = opt / "clusterbox" / "image" / "verify" / "run.sh"
    if facts.verify:
        # The image's own script would ask this machine; here are what its facts say instead.
        _write_program(folder, verify, "verify")
    if "30-science-base.sh" in facts.steps:
        for name in ("python", "python3"):
            _write_program(folder, opt / "clusterbox" / "science" / "bin" / name, "science-python")
    if facts.slurm_version:
        for name in _SLURM_COMMANDS:
            _write_slurm_command(opt / "slurm" / "bin" / name, name, facts.slurm_version)
    # The AWS CLI, which Amazon's images have.
    words = [sys.executable, "-P", "-m", "clusterbox.embedded.aws_command"]
    script = f"export PYTHONPATH={shlex.quote(str(Path(__file__).parents[3]))}\n"
    _write_script(folder / "bin" / "aws", f'{script}exec {shlex.join(words)} "$@"\n')


def _write_program(folder: Path, path: Path, name: str) -> None:
    words = [sys.executable, "-I", "-S", machine_programs.__file__, name]
    here = f"# Stands in for {name}: nothing is done to this machine.\n"
    state = f"export CLUSTERBOX_MACHINE={shlex.quote(str(folder))}\n"
    _write_script(path, f'{here}{state}exec {shlex.join(words)} "$@"\n')


def _write_slurm_command(path: Path, name: str, version: str) -> None:
    """Write a command of Slurm: this machine's, which says that it is the image's version."""
    script = f"""# Stands in for {name} of Slurm {version}: this machine's own, of another version.
case "${{1:-}}" in -V | --version) echo "slurm {version}"; exit 0 ;; esac
if [ -z "${{SLURM_CONF:-}}" ]; then
  echo "{name}: fatal: Could not establish a configuration source" >&2
  exit 1
fi
exec /usr/bin/{name} "$@"
"""
    _write_script(path, script)


def _write_script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}", "utf-8")
    path.chmod(0o755)


def _link_files_of_this_machine(folder: Path) -> None:
    """Let what the machine has not itself lead to this machine's files, as its view sees them."""
    for name in machine_view.OWN_FOLDERS:
        for entry in Path("/", name).iterdir() if Path("/", name).is_dir() else ():
            own = folder / "root" / name / entry.name
            if not own.is_symlink() and not own.exists():
                own.symlink_to(f"/{machine_view.BELOW}/{name}/{entry.name}")


def _write_boot(folder: Path, state: Mapping[str, Any]) -> None:
    proc = folder / "proc"
    (proc / "boot_id").write_text(f"{new_uuid()}\n", "utf-8")
    modules = "".join(f"{name} 40960 0 - Live 0x0000000000000000\n" for name in state["modules"])
    (proc / "modules").write_text(modules, "utf-8")


@functools.lru_cache(maxsize=4)
def _repositories(day: str, machine: str) -> dict[str, str]:
    date = datetime.fromisoformat(day).date()
    architecture = "arm64" if machine == "aarch64" else machine
    kernel = amazon_linux.kernel_on(date, architecture).rpartition(".")[0]
    return amazon_linux.available_packages(date) | {"kernel": kernel, "kernel-devel": kernel}


def _refresh(machine: Machine, instance: dict[str, Any]) -> None:
    """Write what depends on the day and on the instance's type, which can change."""
    size = known_types().get(instance["InstanceType"], {})
    total = int(size.get("MemoryInfo", {}).get("SizeInMiB", _DEFAULT_MIB)) * 1024
    text = "".join(
        f"{name}: {value:>15} kB\n"
        for name, value in (
            ("MemTotal", total),
            ("MemFree", int(total * _AVAILABLE_PART)),
            ("MemAvailable", int(total * _AVAILABLE_PART)),
        )
    )
    # In place: a view that is open holds this file.
    (machine.folder / "proc" / "meminfo").write_text(text, "utf-8")
    state = machine.state()
    available = _repositories(datetime.now(UTC).date().isoformat(), state["machine"])
    held, running = dict(state["packages"]), state["running"]
    closed = amazon_linux.advisories(held, running)
    newest = f"{available['kernel']}.{state['machine']}"
    known = {advisory.id for advisory in closed}
    offered = amazon_linux.advisories(
        held | {n: available[n] for n in held if n in available}, newest
    )
    new = [asdict(advisory) for advisory in offered if advisory.id not in known]
    machine.change(
        {
            "available": available,
            "security": sorted({str(a["package"]).rsplit("-", 2)[0] for a in new}),
            "advisories_available": new,
            "advisories_installed": [asdict(advisory) for advisory in closed],
            # A check can be broken or mended after the launch.
            "broken_checks": list(facts_of(state["ami"]).broken_checks),
        }
    )
