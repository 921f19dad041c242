"""What Amazon Linux 2023 would bring on a day: a kernel, packages and advisories, all made up.

Each package has a new release every so many fortnights, so that what is baked later is newer. The
names are real; versions, advisories and CVE numbers only look so.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date

_FIRST_DAY = date(2025, 1, 6)
_ARCHITECTURES = {"x86_64": "x86_64", "arm64": "aarch64"}

# Package → version-release with the number of its release, and fortnights between two of them.
_BASE = {
    "amazon-cloudwatch-agent": ("1.300060.{n}-1.amzn2023", 4),
    "amazon-efs-utils": ("2.3.{n}-1.amzn2023", 6),
    "amazon-ssm-agent": ("3.3.{n}.0-1.amzn2023", 2),
    "bash": ("5.2.15-1.amzn2023.0.{n}", 30),
    "ca-certificates": ("2025.2.76-1.0.amzn2023.0.{n}", 5),
    "cloud-init": ("22.2.2-1.amzn2023.1.{n}", 8),
    "curl-minimal": ("8.11.1-4.amzn2023.0.{n}", 2),
    "glibc": ("2.34-196.amzn2023.0.{n}", 3),
    "libxml2": ("2.10.4-1.amzn2023.0.{n}", 2),
    "openssh-server": ("8.7p1-8.amzn2023.0.{n}", 3),
    "openssl": ("3.2.2-1.amzn2023.0.{n}", 2),
    "python3": ("3.9.23-1.amzn2023.0.{n}", 3),
    "python3.11": ("3.11.14-1.amzn2023.0.{n}", 3),
    "rpm": ("4.16.1.3-29.amzn2023.0.{n}", 12),
    "sudo": ("1.9.15-1.p5.amzn2023.0.{n}", 7),
    "systemd": ("252.23-6.amzn2023.0.{n}", 5),
    "tzdata": ("2025b-1.amzn2023.0.{n}", 6),
}
# What a bake adds to an image of Amazon.
_ADDED = {
    "apptainer": ("1.4.{n}-1.amzn2023", 4),
    "efa": ("2.17.{n}-1.amzn2023", 8),
    "gdal": ("3.10.{n}-1.amzn2023", 6),
    "lustre-client": ("2.15.6-{n}.amzn2023", 10),
}
# Packages whose new releases close holes.
SECURITY = ("curl-minimal", "glibc", "kernel", "libxml2", "openssh-server", "openssl", "sudo")
_SEVERITIES = ("medium", "important", "important", "critical")
# How far back `dnf updateinfo` still names what an installed package has closed.
_REMEMBERED_RELEASES = 6


@dataclass(frozen=True)
class Advisory:
    """One security advisory: what a release of a package closed."""

    id: str
    severity: str
    cves: tuple[str, ...]
    # Name, version and release that close it, as dnf writes them: without architecture.
    package: str


def kernel_on(day: date, architecture: str = "x86_64") -> str:
    """Return what `uname -r` says with the newest kernel of that day."""
    return f"{_kernel_release(_fortnight(day))}.{_ARCHITECTURES[architecture]}"


def base_packages(day: date) -> dict[str, str]:
    """Return the packages of Amazon's own image: name → version-release, without a kernel."""
    return {name: _version(name, day) for name in sorted(_BASE)}


def available_packages(day: date) -> dict[str, str]:
    """Return all that can be installed on that day: name → version-release, without a kernel."""
    return {name: _version(name, day) for name in sorted(_BASE | _ADDED)}


def advisories(packages: dict[str, str], kernel: str) -> tuple[Advisory, ...]:
    """Return the advisories that these packages and this kernel have closed, newest last."""
    found = []
    for name in SECURITY:
        if name == "kernel":
            pattern, installed = "", kernel.rpartition(".")[0]
        else:
            pattern, installed = _BASE[name][0], packages.get(name, "")
        releases = [f"{name}-{_render(pattern, number)}" for number in range(_newest_number())]
        if f"{name}-{installed}" in releases:
            last = releases.index(f"{name}-{installed}")
            first = max(1, last - _REMEMBERED_RELEASES + 1)
            found += [_advisory(package) for package in releases[first : last + 1]]
    return tuple(sorted(found, key=lambda advisory: advisory.id))


def _newest_number() -> int:
    """Return one more than the highest release number that a date of this century can have."""
    return _fortnight(date(2060, 1, 1))


def _render(pattern: str, number: int) -> str:
    return pattern.format(n=number) if pattern else _kernel_release(number)


def _kernel_release(number: int) -> str:
    return f"6.1.{120 + number}-{130 + number}.{200 + number}.amzn2023"


def _fortnight(day: date) -> int:
    return max(0, (day - _FIRST_DAY).days // 14)


def _version(name: str, day: date) -> str:
    pattern, fortnights = (_BASE | _ADDED)[name]
    return pattern.format(n=1 + _fortnight(day) // fortnights)


def _advisory(package: str) -> Advisory:
    seed = int(hashlib.sha256(package.encode()).hexdigest(), 16)
    cves = tuple(f"CVE-2026-{90000 + (seed >> shift) % 10000}" for shift in range(1 + seed % 3))
    severity = _SEVERITIES[seed % len(_SEVERITIES)]
    return Advisory(f"ALAS2023-2026-{1000 + seed % 9000}", severity, cves, package)
