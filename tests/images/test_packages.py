from __future__ import annotations

from typing import Any

import pytest

from clusterbox.images.packages import (
    Change,
    compare_advisories,
    compare_packages,
    package_name,
)


def advisory(name: str, package: str, severity: str = "important") -> dict[str, Any]:
    return {
        "id": name,
        "severity": severity,
        "cves": [f"CVE-of-{name}"],
        "packages": [f"{package}-2.0-1.amzn2023.noarch"],
    }


OPENSSL, KERNEL, OLDER = (
    advisory("A-2", "openssl"),
    advisory("A-3", "kernel", "medium"),
    advisory("A-1", "zlib"),
)


def ids(found: Any) -> list[str] | None:
    return None if found is None else [each.id for each in found]


def test_packages_are_compared_by_name() -> None:
    before = {"gone": "1-1", "kept": "1-1", "openssl": "1.0-1"}
    after = {"kept": "1-1", "new": "3-1", "openssl": "2.0-1"}
    changes = compare_packages(before, after)
    assert changes == [
        Change("gone", "1-1", None),
        Change("new", None, "3-1"),
        Change("openssl", "1.0-1", "2.0-1"),
    ]
    assert [change.kind for change in changes] == ["removed", "added", "changed"]


def test_advisories_that_the_image_before_had_not_are_fixed() -> None:
    after = {"installed": [OLDER, OPENSSL], "available": [KERNEL]}
    fixes = compare_advisories({"installed": [OLDER], "available": []}, after, [])
    assert (ids(fixes.fixed), ids(fixes.still_open), fixes.reason) == (["A-2"], ["A-3"], "")


def test_the_gravest_come_first_however_they_are_written() -> None:
    items = [
        advisory("A-1", "a", "low"),
        advisory("A-2", "a", "Critical"),
        advisory("A-3", "a", ""),
    ]
    fixes = compare_advisories({"installed": []}, {"installed": items}, None)
    assert [(each.id, each.severity) for each in fixes.fixed or ()] == [
        ("A-2", "Critical"),
        ("A-1", "Low"),
        ("A-3", "Not rated"),
    ]


def test_without_those_of_the_image_before_the_packages_that_changed_count() -> None:
    changes = [Change("openssl", "1.0-1", "2.0-1"), Change("zlib", "2.0-1", None)]
    fixes = compare_advisories(None, {"installed": [OLDER, OPENSSL]}, changes)
    assert ids(fixes.fixed) == ["A-2"]
    assert fixes.reason.startswith("by the packages that changed")


def test_what_cannot_be_told_is_not_taken_for_nothing() -> None:
    fixes = compare_advisories(None, {"installed": [OPENSSL], "available": []}, None)
    assert (fixes.fixed, fixes.still_open) == (None, ())
    fixes = compare_advisories({"installed": []}, None, [])
    assert (fixes.fixed, fixes.still_open) == (None, None)


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("openssl-libs-1:3.0.8-1.amzn2023.0.3.x86_64", "openssl-libs"),
        ("kernel-6.1.150-174.273.amzn2023.x86_64", "kernel"),
        ("python3.11-3.11.14-1.amzn2023.x86_64", "python3.11"),
    ],
)
def test_the_name_of_a_package_may_have_dashes(package: str, name: str) -> None:
    assert package_name(package) == name
