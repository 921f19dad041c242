"""What a machine image holds, as far as this account knows: facts instead of a file system.

A bake's facts come from what was really sent to be baked (the bundle of scripts in the bucket) and
from the day (`amazon_linux`). Images that were seeded have facts made from their name and date.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any

from ministack.core.responses import AccountRegionScopedDict
from ministack.services import ec2

from clusterbox.embedded.server import amazon_linux
from clusterbox.embedded.server.amazon_linux import Advisory
from clusterbox.site.image_definitions import SLURM_VERSIONS

# Checks of images whose definition is not known: all that need nothing but the image.
_USUAL_CHECKS = ("packages", "units", "kernel", "leftovers", "disk", "time-zone")


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What is on an image; an instance that runs it starts with these."""

    # What `uname -r` says, such as 6.1.158-178.288.amzn2023.x86_64.
    kernel: str
    # RPM package → version-release, the kernel's own included.
    packages: Mapping[str, str]
    parallelcluster_version: str | None = None
    slurm_version: str | None = None
    # Files of ami/steps/ that ran, and checks of ami/verify/ that the image must pass.
    steps: tuple[str, ...] = ()
    verify: tuple[str, ...] = ()
    # Content of /etc/clusterbox/image-release.json; empty where no step of ours ran.
    release: Mapping[str, Any] = field(default_factory=dict)
    # What lies in /opt/clusterbox/image, as the bundle brought it: path → content.
    files: Mapping[str, bytes] = field(default_factory=dict)
    # Checks that fail on it, because a test or a rehearsal said so.
    broken_checks: tuple[str, ...] = ()
    # The day whose package repositories it was made with.
    day: date = date(2026, 1, 1)
    architecture: str = "x86_64"
    root_gib: int = 30

    @property
    def advisories(self) -> tuple[Advisory, ...]:
        """The security advisories that the image's packages have closed."""
        return amazon_linux.advisories(dict(self.packages), self.kernel)


# Account and region scoped like ministack's own stores: AMI id -> ImageFacts.
_facts = AccountRegionScopedDict()


def facts_of(ami_id: str) -> ImageFacts:
    """Return what is on an image; one that nobody baked here has facts of its name and date.

    Never fails: an instance may run an image that is deregistered, or that was never there.
    """
    known = _find(_facts, ami_id)
    return known if isinstance(known, ImageFacts) else _assumed_facts(ami_id)


def keep_facts(ami_id: str, facts: ImageFacts) -> None:
    """Keep what is on an image. It outlives the image, as its running instances do."""
    _facts[ami_id] = facts


def break_checks(ami_id: str, checks: tuple[str, ...]) -> None:
    """Let these checks fail on every instance of the image; an empty tuple mends it."""
    keep_facts(ami_id, replace(facts_of(ami_id), broken_checks=checks))


def package_list(facts: ImageFacts) -> str:
    """Return /etc/clusterbox/image-packages.txt as ami/steps/record.py writes it."""
    machine = facts.kernel.rpartition(".")[2]
    lines = sorted(f"{name}-0:{version}.{machine}" for name, version in facts.packages.items())
    return "".join(f"{line}\n" for line in lines)


def packages_digest(facts: ImageFacts) -> str:
    """Return the SHA-256 of the package list, which `release` states too."""
    return hashlib.sha256(package_list(facts).encode()).hexdigest()


def make_facts(
    day: date,
    *,
    kernel: str | None = None,
    architecture: str = "x86_64",
    added: tuple[str, ...] = (),
    parallelcluster_version: str | None = None,
) -> ImageFacts:
    """Return the facts of an image that is made on a day; `kernel` is kept where it is given."""
    kernel = kernel or amazon_linux.kernel_on(day, architecture)
    available = amazon_linux.available_packages(day)
    packages = amazon_linux.base_packages(day)
    packages |= {name: available.get(name, "1.0-1.amzn2023") for name in added}
    release = kernel.rpartition(".")[0]
    packages |= {"kernel": release}
    if parallelcluster_version is not None:
        packages |= {"efa": available["efa"], "kernel-devel": release}
    return ImageFacts(
        kernel=kernel,
        packages=dict(sorted(packages.items())),
        parallelcluster_version=parallelcluster_version,
        slurm_version=SLURM_VERSIONS.get(parallelcluster_version or ""),
        verify=_USUAL_CHECKS + (("slurm",) if parallelcluster_version else ()),
        day=day,
        architecture=architecture,
    )


def day_of(name: str, created: str | None = None) -> date:
    """Return the day of an image: the date in its name, or that of its creation, or today."""
    for text in (name, created or ""):
        found = re.search(r"(20\d\d)[-.]?([01]\d)[-.]?([0-3]\d)", text)
        if found:
            try:
                return date(*map(int, found.groups()))
            except ValueError:
                continue
    return datetime.now(UTC).date()


def _find(store: Any, key: str) -> Any:
    """Return an entry of any scope, the request's own first: helpers' threads may have none."""
    if (own := store.get(key)) is not None:
        return own
    return next((value for (_, _, name), value in store.all_items() if name == key), None)


def _assumed_facts(ami_id: str) -> ImageFacts:
    record = _find(ec2._images, ami_id)
    if record is None:
        return make_facts(date(2026, 1, 1))
    tags = {tag["Key"]: tag["Value"] for tag in _find(ec2._tags, ami_id) or []}
    facts = make_facts(
        day_of(str(record["Name"]), record.get("CreationDate")),
        kernel=tags.get("parallelcluster:kernel_version"),
        architecture=record["Architecture"],
        parallelcluster_version=tags.get("parallelcluster:version"),
    )
    mappings = record.get("BlockDeviceMappings") or [{}]
    size = (mappings[0].get("Ebs") or {}).get("VolumeSize", "30")
    return replace(facts, root_gib=int(size))
