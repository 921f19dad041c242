"""What changed between the packages of two images, and which security advisories that settled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Advisories of an image-release.json: states → advisories (ami/steps/record.py).
Advisories = Mapping[str, Sequence[Mapping[str, Any]]]
_SEVERITIES = ("Critical", "Important", "Moderate", "Medium", "Low")


@dataclass(frozen=True, order=True)
class Change:
    """One package; a version is None where the image has none of it."""

    name: str
    before: str | None
    after: str | None

    @property
    def kind(self) -> str:
        """Return `added`, `removed` or `changed`: which of two versions is newer is not judged."""
        if self.before is None:
            return "added"
        return "removed" if self.after is None else "changed"


@dataclass(frozen=True)
class Advisory:
    """A security advisory of the distribution: `cves` and `packages` are as it names them."""

    id: str
    severity: str
    cves: tuple[str, ...]
    packages: tuple[str, ...]


@dataclass(frozen=True)
class Fixes:
    """What the package manager says of security advisories.

    `fixed` are those that hold in the new image and did not in the old one; None where that cannot
    be told. `still_open` are those that apply to the new image and are not in it.
    """

    fixed: tuple[Advisory, ...] | None
    still_open: tuple[Advisory, ...] | None
    # Why something is not known, in words; empty where all is.
    reason: str = ""


def compare_packages(before: Mapping[str, str], after: Mapping[str, str]) -> list[Change]:
    """Return what differs, by name; both are name → version."""
    return [
        Change(name, before.get(name), after.get(name))
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


def compare_advisories(
    before: Advisories | None, after: Advisories | None, changes: Sequence[Change] | None
) -> Fixes:
    """Return which advisories were settled between two images.

    Where the old image's were not recorded, those count that name a package which changed;
    `changes` is None where that is not known either.
    """
    if after is None:
        return Fixes(None, None, "the package manager's advisories were not recorded")
    held = _parse(after.get("installed", ()))
    still_open = _parse(after.get("available", ()))
    if before is not None:
        known = {advisory.id for advisory in _parse(before.get("installed", ()))}
        fixed = [advisory for advisory in held if advisory.id not in known]
        return Fixes(_sort(fixed), _sort(still_open))
    if changes is None:
        reason = "the image before has no record to compare with"
        return Fixes(None, _sort(still_open), reason)
    changed = {change.name for change in changes if change.after is not None}
    fixed = [
        advisory
        for advisory in held
        if any(package_name(package) in changed for package in advisory.packages)
    ]
    reason = "by the packages that changed: the advisories of the image before were not recorded"
    return Fixes(_sort(fixed), _sort(still_open), reason)


def package_name(package: str) -> str:
    """Return the name of a package written as NAME-VERSION-RELEASE.ARCHITECTURE."""
    return package.rsplit("-", 2)[0]


def _parse(items: Sequence[Mapping[str, Any]]) -> list[Advisory]:
    return [
        Advisory(
            id=str(item.get("id", "")),
            # Amazon Linux writes `important`, and other distributions `Important`.
            severity=str(item.get("severity") or "not rated").capitalize(),
            cves=tuple(map(str, item.get("cves") or ())),
            packages=tuple(map(str, item.get("packages") or ())),
        )
        for item in items
    ]


def _sort(advisories: Sequence[Advisory]) -> tuple[Advisory, ...]:
    """Return the gravest first, then by id."""

    def rank(advisory: Advisory) -> tuple[int, str]:
        known = advisory.severity in _SEVERITIES
        grave = _SEVERITIES.index(advisory.severity) if known else len(_SEVERITIES)
        return grave, advisory.id

    return tuple(sorted(advisories, key=rank))
