"""A container that runs, whichever engine runs it, and the Slurm job that it belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from clusterbox.errors import ClusterboxError

# cgroup v1: /slurm/uid_1000/job_42/step_0; v2: /system.slice/slurmstepd.scope/job_42/step_0/...
# With several slurmd on a host: /slurm_NODE/uid_..., /system.slice/NODE_slurmstepd.scope/...
_CGROUP = re.compile(r"/(?:slurm[^/]*/uid_\d+|[^/]*slurmstepd\.scope)/job_(\d{1,10})(?:/|$)")
_JOB = re.compile(r"\d{1,10}")
_USER = re.compile(r"[\w.@+-]{1,64}")


class EngineError(ClusterboxError):
    """An engine does not answer, refuses, or says what cannot be read."""


@dataclass(frozen=True)
class Container:
    """What a container used since its start (CPU, I/O) and uses now; None is not known.

    `job` is the id of its Slurm job and `user` who runs it; both are empty where nobody knows.
    `started` orders containers by age.
    """

    name: str
    image: str
    job: str
    user: str
    started: float
    cpu_seconds: float | None = None
    memory_bytes: float | None = None
    memory_limit_bytes: float | None = None
    read_bytes: float | None = None
    write_bytes: float | None = None
    processes: float | None = None

    @property
    def labels(self) -> tuple[str, str, str, str]:
        """Name, image, job and user."""
        return self.name, self.image, self.job, self.user


def job_of_cgroup(text: str) -> str:
    """Return the job in the lines of `/proc/PID/cgroup`; empty where Slurm has made none."""
    found = _CGROUP.search(text)
    return found[1] if found else ""


def job_of_environment(environment: Mapping[str, str]) -> str:
    """Return the job in variables of a process; empty for none, and for what is no job's id."""
    job = environment.get("SLURM_JOB_ID", "")
    return job if _JOB.fullmatch(job) else ""


def user_of_environment(environment: Mapping[str, str]) -> str:
    """Return the job's user in variables of a process; whoever starts a container sets them."""
    user = environment.get("SLURM_JOB_USER", "")
    return user if _USER.fullmatch(user) else ""


def parse_environment(variables: Iterable[str]) -> dict[str, str]:
    """Return `NAME=VALUE` by name."""
    return dict(item.split("=", 1) for item in variables if "=" in item)
