"""Who may import whom: the stacks stand on the site's model, and the model on nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT


def python_files(folder: str) -> list[Path]:
    """Return the Python files of a package; the list is never empty."""
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found, f"{folder} has no Python files"
    return found


def imports(path: Path) -> Iterator[str]:
    """Yield the full names that a file imports, wherever in it the import stands."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *(node.module or "").split("."))).strip(".")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def is_in(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def breaches(folder: str, forbidden: tuple[str, ...], allowed: tuple[str, ...]) -> list[str]:
    """Return the imports of a package's files that are forbidden and not allowed."""
    return [
        f"{path.relative_to(ROOT)}: {name}"
        for path in python_files(folder)
        for name in imports(path)
        if is_in(name, *forbidden) and not is_in(name, *allowed)
    ]


def test_the_stacks_take_only_the_site_and_the_errors_from_clusterbox() -> None:
    assert breaches("stacks", ("clusterbox",), ("clusterbox.site", "clusterbox.errors")) == []


def test_the_stacks_do_not_call_aws() -> None:
    found = breaches("stacks", ("boto3", "botocore"), ())
    # What runs in AWS is only put into an archive; nothing of the stacks imports it.
    archived = ("stacks/cost_functions/", "stacks/image_functions/")
    assert [breach for breach in found if not breach.startswith(archived)] == []
    assert breaches("stacks", ("stacks.cost_functions", "stacks.image_functions"), ()) == []


def test_what_runs_in_aws_takes_nothing_but_boto3() -> None:
    found = {
        name.split(".")[0]
        for path in python_files("stacks/cost_functions")
        for name in imports(path)
    }
    assert found - set(sys.stdlib_module_names) == {"boto3", "botocore"}


def test_clusterbox_does_not_know_the_stacks() -> None:
    assert breaches("clusterbox", ("stacks",), ()) == []


def test_the_site_takes_only_the_errors_from_clusterbox() -> None:
    allowed = ("clusterbox.site", "clusterbox.errors")
    assert breaches("clusterbox/site", ("clusterbox",), allowed) == []


def test_the_site_knows_neither_cdk_nor_aws_nor_the_embedded_account() -> None:
    assert breaches("clusterbox/site", ("aws_cdk", "boto3", "botocore", "ministack"), ()) == []


def test_loading_the_site_is_light() -> None:
    program = "import sys, clusterbox.site.load; print('\\n'.join(sys.modules))"
    modules = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    assert "pydantic" in modules
    heavy = {"aws_cdk", "boto3", "botocore", "ministack", "pandas", "rich"}
    assert sorted(heavy.intersection(modules)) == []


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("import stacks", "stacks"),
        ("from stacks import tags", "stacks.tags"),
        ("from clusterbox import cli", "clusterbox.cli"),
        ("from .. import errors", "clusterbox.errors"),
        ("from .load import Repository", "clusterbox.site.load.Repository"),
        ("def f():\n    import boto3", "boto3"),
    ],
)
def test_an_import_of_any_form_is_seen(statement: str, name: str, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[__name__], "ROOT", tmp_path)
        path = tmp_path / "clusterbox" / "site" / "example.py"
        path.parent.mkdir(parents=True)
        path.write_text(statement, encoding="utf-8")
        assert list(imports(path)) == [name]
