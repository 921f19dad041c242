from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

LOCKS = ("requirements.txt", "requirements-dev.txt", "requirements-pcluster.txt")


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_is_pinned_with_hashes(root: Path, name: str) -> None:
    text = (root / name).read_text(encoding="utf-8")
    packages = re.findall(r"^(\S+?)(==\S+)?( ;.*?)? \\$", text, flags=re.MULTILINE)
    assert len(packages) > 20
    for package, version, _ in packages:
        assert version, package
    blocks = re.split(r"^(?=\S)", text, flags=re.MULTILINE)
    for block in blocks:
        assert not block.strip() or "--hash=sha256:" in block, block[:60]


@pytest.mark.parametrize("name", LOCKS)
def test_no_lock_holds_the_address_of_a_registry(root: Path, name: str) -> None:
    text = (root / name).read_text(encoding="utf-8")
    assert not re.search(r"https?://|--index-url|--extra-index-url|--find-links", text)


def test_the_lock_of_the_node_libraries_does_not_say_where_they_came_from(root: Path) -> None:
    packages = json.loads((root / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    locked = {name: item for name, item in packages.items() if name}
    assert len(locked) > 40
    for name, item in locked.items():
        assert "resolved" not in item, name
        assert item["integrity"].startswith("sha512-"), name


def test_the_product_and_the_tools_agree_on_every_version(root: Path) -> None:
    def versions(name: str) -> dict[str, str]:
        text = (root / name).read_text(encoding="utf-8")
        return dict(re.findall(r"^([a-z0-9.-]+)==([^\s;]+)", text, flags=re.MULTILINE))

    product, tools = versions("requirements.txt"), versions("requirements-dev.txt")
    assert {name: tools.get(name) for name in product} == product


def test_the_locks_hold_what_the_project_asks_for(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    asked = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["dev"],
    ]
    text = (root / "requirements-dev.txt").read_text(encoding="utf-8")
    for requirement in asked:
        name = re.split(r"[\[<>=]", requirement)[0]
        assert re.search(rf"^{re.escape(name)}==", text, flags=re.MULTILINE), name
    locked = (root / "requirements-pcluster.txt").read_text(encoding="utf-8")
    assert all(pin in locked for pin in project["dependency-groups"]["pcluster"])


def test_the_cdk_cli_is_pinned_exactly(root: Path) -> None:
    package = json.loads((root / "package.json").read_text(encoding="utf-8"))
    assert package["devDependencies"]["aws-cdk"] == "2.1148.1"
    assert all(re.fullmatch(r"[\d.]+", version) for version in package["devDependencies"].values())
