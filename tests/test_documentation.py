"""What the documentation says exists, and what exists is in it."""

from __future__ import annotations

import argparse
import importlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from clusterbox.cli.main import COMMANDS, main
from clusterbox.embedded.stand_ins import stand_ins
from clusterbox.site import (
    accounting,
    budgets,
    environment,
    hosting,
    image_definitions,
    images,
    monitoring,
    network,
    patch_day,
    storage,
)
from clusterbox.site.fields import Section
from clusterbox.site.load import Repository
from clusterbox.site.references import reference_names

ROOT = Path(__file__).parent.parent
_CODE_BLOCK = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_CODE_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_MAKE = re.compile(r"^\s*make ([a-z-]+)", re.MULTILINE)
_COMMAND = re.compile(
    r"(?:^\s*|/|\$\()clusterbox ([a-z]+(?:-[a-z]+)*)(?: ([a-z]+(?:-[a-z]+)*))?", re.MULTILINE
)
# Made by tools, or by others.
_NOT_OURS = {"node_modules", "cdk.out"}


def _pages() -> list[Path]:
    folders = [
        folder
        for folder in ROOT.iterdir()
        if folder.is_dir() and folder.name not in _NOT_OURS and not folder.name.startswith(".")
    ]
    return sorted([*ROOT.glob("*.md"), *(page for f in folders for page in f.rglob("*.md"))])


PAGES = _pages()
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _code(page: Path) -> str:
    """Return what a page shows as code, each span on a line of its own."""
    text = page.read_text(encoding="utf-8")
    return "\n".join([*_CODE_BLOCK.findall(text), *_CODE_SPAN.findall(_CODE_BLOCK.sub("", text))])


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and GitLab make them."""
    text = _CODE_BLOCK.sub("", page.read_text(encoding="utf-8"))
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        for heading in _HEADING.findall(text)
    }


# Where the keys of a module's models are documented.
MODELS = {
    "docs/environments.md": (
        accounting,
        budgets,
        environment,
        hosting,
        images,
        monitoring,
        network,
        patch_day,
        storage,
    ),
    "docs/images.md": (image_definitions,),
}

# The lock as a whole is two keys, whose entries are listed; a `previous` entry has an entry's keys.
_UNLISTED = (images.ImageLock, images.ImageEntry)


def _section_models() -> Iterator[tuple[str, str, type[Section]]]:
    for page, modules in MODELS.items():
        for module in modules:
            for name, model in vars(module).items():
                is_here = isinstance(model, type) and model.__module__ == module.__name__
                if is_here and issubclass(model, Section) and model not in _UNLISTED:
                    yield page, name, model


def _actions(command: str) -> set[str]:
    parser = argparse.ArgumentParser()
    module = importlib.import_module(f"clusterbox.cli.{COMMANDS[command][0]}")
    module.add_arguments(parser, command)
    nested = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return {name for action in nested for name in action.choices}


@every_page
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in _LINK.findall(_CODE_BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        if not linked.exists() or (anchor and anchor not in _anchors(linked)):
            broken.append(target)
    assert broken == []


@every_page
def test_every_make_target_that_is_mentioned_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", _read("Makefile"), re.MULTILINE))
    mentioned = set(_MAKE.findall(_code(page)))
    assert mentioned - targets == set()


@every_page
def test_every_command_that_is_mentioned_exists(page: Path) -> None:
    unknown = []
    for command, action in _COMMAND.findall(_code(page)):
        actions = _actions(command) if command in COMMANDS else set()
        if command not in COMMANDS or (actions and action and action not in actions):
            unknown.append(f"{command} {action}".strip())
    assert unknown == []


def test_the_readme_tells_of_every_command() -> None:
    told = {command for command, _ in _COMMAND.findall(_code(ROOT / "README.md"))}
    assert told == set(COMMANDS)


def test_the_readme_lists_what_stands_in_for_aws() -> None:
    block = (
        _read("README.md").partition("<!-- stand-ins -->")[2].partition("<!-- /stand-ins -->")[0]
    )
    assert block.strip().splitlines() == [f"- {sentence}" for sentence in stand_ins()]


@pytest.mark.parametrize(
    ("page", "name", "model"), [*_section_models()], ids=lambda value: str(value)
)
def test_every_key_of_the_models_has_its_row(page: str, name: str, model: type[Section]) -> None:
    _, found, rest = _read(page).partition(f"<!-- model: {name} -->\n\n")
    assert found, f"{page} has no table after <!-- model: {name} -->"
    rows = [line.split(" | ") for line in rest.partition("\n\n")[0].splitlines()[2:]]
    documented = {row[0].strip("| `"): row[-1].removesuffix(" |") for row in rows}
    assert documented == {key: field.description for key, field in model.model_fields.items()}


@pytest.mark.parametrize("name", Repository(ROOT).environment_names())
def test_every_reference_is_documented(name: str) -> None:
    site = Repository(ROOT).load_environment(name)
    page = _read("docs/references.md")
    written = {
        **{f"network.{subnet}": "network.GROUP.ZONE" for subnet in site.network.subnet_names},
        **{f"images.{image}": "images.IMAGE" for image in site.images},
    }
    for file_system, plan in site.storage.file_systems.items():
        written[f"storage.{file_system}"] = "storage.NAME"
        for point in plan.access_points:
            written[f"storage.{file_system}.{point}"] = "storage.NAME.POINT"
    names = {written.get(reference, reference) for reference in reference_names(site)}
    assert {reference for reference in names if f"| `${{{reference}}}` |" not in page} == set()


def test_every_endpoint_that_can_be_made_is_explained() -> None:
    services = get_args(network.InterfaceEndpointName)
    page = _read("docs/network.md")
    assert [service for service in services if f"| `{service}` |" not in page] == []


def _edit(folder: Path, name: str, changes: dict[str, str]) -> None:
    text = (folder / name).read_text(encoding="utf-8")
    for old, new in changes.items():
        assert old in text, f"{name} has no {old!r} any more; choose another example"
        text = text.replace(old, new, 1)
    (folder / name).write_text(text, encoding="utf-8")


EXAMPLES = {
    "docs/environments.md": (
        "environments/ws-dev.yaml",
        {
            'account: "427491229895"': "account: 427491229895",
            "throughput:": "througput:",
            "subnet: compute.a\n  ssh": "subnet: compute.b\n  ssh",
            "config: eco.yaml": "config: economy.yaml",
        },
        ["check", "ws-dev"],
    ),
    "docs/references.md": (
        "cluster_configs/eco.yaml",
        {"${storage.wspcefs}": "${storage.wspcfs}"},
        ["clusters", "compose", "ws-eco"],
    ),
    "docs/network.md": (
        "cluster_configs/eco.yaml",
        {"MaxCount: 3": "MaxCount: 1100"},
        ["check", "ws-dev"],
    ),
}


@pytest.mark.parametrize("page", EXAMPLES)
def test_the_messages_that_a_page_shows_are_those_of_the_command(
    page: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("environments", "cluster_configs", "ami"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "cdk.json", tmp_path)
    # The example of the budget has one cluster, which makes its arithmetic short.
    _edit(
        tmp_path,
        "environments/ws-dev.yaml",
        {
            "  - {name: ws-eco-login, config: eco-login.yaml}": "",
            "    ws-eco-login: {monthly_usd: 300, when_spent: stop}": "",
        },
    )
    file, changes, words = EXAMPLES[page]
    _edit(tmp_path, file, changes)
    assert main(["--root", str(tmp_path), *words]) == 2
    # Line numbers move with every edit of a file, and say nothing here.
    said = re.sub(r"\.yaml:\d+", ".yaml", capsys.readouterr().err)
    shown = re.sub(r"\.yaml:\d+", ".yaml", _read(page))
    assert [line for line in said.splitlines() if line.strip() not in shown] == []


def test_every_decision_is_in_the_index() -> None:
    files = {page.name for page in (ROOT / "docs" / "adr").glob("[0-9]*.md")}
    assert set(re.findall(r"\((\d{4}-[\w-]+\.md)\)", _read("docs/adr/README.md"))) == files


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = sorted(int(page.name[:4]) for page in (ROOT / "docs" / "adr").glob("[0-9]*.md"))
    assert numbers == list(range(1, len(numbers) + 1))
