"""The programs of Slurm, MariaDB and munge on this machine."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from clusterbox.errors import ClusterboxError

# Debian's packages by a program that each brings; also those of Ubuntu.
PACKAGES = {
    "munged": "munge",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
}
ACCOUNTING_PACKAGES = {
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
}


def search_path() -> str:
    """Return PATH with the folders of daemons, which an ordinary user's lacks."""
    given = os.environ.get("PATH", os.defpath).split(os.pathsep)
    system = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    return os.pathsep.join([*given, *(folder for folder in system if folder not in given)])


def missing_packages(*, accounting: bool = True) -> list[str]:
    """Return the Debian packages that are needed and not installed, in the order of their names."""
    wanted = PACKAGES | (ACCOUNTING_PACKAGES if accounting else {})
    path = search_path()
    return sorted({wanted[name] for name in wanted if shutil.which(name, path=path) is None})


def require(*, accounting: bool) -> None:
    """Raise ClusterboxError with what to install when a program is missing."""
    if missing := missing_packages(accounting=accounting):
        raise ClusterboxError(
            f"Slurm cannot run here, packages are missing; install them as root with\n"
            f"  apt-get install --no-install-recommends {' '.join(missing)}"
        )
    if not hasattr(os, "pidfd_open") or not Path("/proc/self/environ").exists():
        raise ClusterboxError("Slurm runs on Linux only")


@functools.cache
def version(program: str) -> str:
    """Return what a daemon says about its version, such as `slurm-wlm 22.05.8`."""
    flag = "--version" if program.startswith("mariadb") else "-V"
    done = _run([program, flag])
    return done.strip().splitlines()[0] if done.strip() else "unknown"


def _run(words: Sequence[str]) -> str:
    return subprocess.run(
        words, env={**os.environ, "PATH": search_path()}, capture_output=True, text=True
    ).stdout
