from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clusterbox.errors import ProblemsError
from clusterbox.site.references import find_references, known_values, reference_names, resolve
from clusterbox.site.yaml_file import YamlFile, parse_yaml
from tests.conftest import ROOT
from tests.site.site_files import EXISTING, edit, load

VALUES: dict[str, Any] = {
    "network.compute.a": "subnet-0000000a",
    "network.compute.b": "subnet-0000000b",
    "site.region": "us-west-2",
    "site.tags": [{"Key": "Owner", "Value": "ada"}],
}


def config(text: str) -> YamlFile:
    return parse_yaml(text, name="eco.yaml")


def problems_of(text: str) -> list[str]:
    """Return the lines of the error that resolving the text raises."""
    with pytest.raises(ProblemsError) as caught:
        resolve(config(text), VALUES)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        pytest.param("Region: ${site.region}", {"Region": "us-west-2"}, id="a whole value"),
        pytest.param(
            "Url: https://s3.${site.region}.example/${network.compute.a}",
            {"Url": "https://s3.us-west-2.example/subnet-0000000a"},
            id="two inside a longer text",
        ),
        pytest.param(
            "Tags: ${site.tags}",
            {"Tags": [{"Key": "Owner", "Value": "ada"}]},
            id="a whole value that is a list",
        ),
        pytest.param(
            "Ids:\n  - ${network.compute.a}\n  - Id: ${network.compute.b}",
            {"Ids": ["subnet-0000000a", {"Id": "subnet-0000000b"}]},
            id="in a list and in a mapping of it",
        ),
        pytest.param("${site.region}: 1", {"${site.region}": 1}, id="none in a key"),
        pytest.param("Run: echo $${HOME}", {"Run": "echo ${HOME}"}, id="none in an escape"),
        pytest.param(
            "Run: $${site.region}", {"Run": "${site.region}"}, id="none in an escaped name"
        ),
        pytest.param(
            "Run: $${A} ${site.region}", {"Run": "${A} us-west-2"}, id="one after an escape"
        ),
        pytest.param("Run: $HOME $(id) {a}", {"Run": "$HOME $(id) {a}"}, id="none in shell text"),
        pytest.param(
            "A: 1\nB: true\nC: null\nD: 1.5",
            {"A": 1, "B": True, "C": None, "D": 1.5},
            id="none in what is not text",
        ),
    ],
)
def test_references_are_replaced(text: str, resolved: dict[str, Any]) -> None:
    assert resolve(config(text), VALUES) == resolved


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        pytest.param(
            "A: 1\nB:\n  - ${network.compute.c}",
            [
                "eco.yaml:3: B[0]: ${network.compute.c} is not a known reference; did you mean "
                "${network.compute.b} or ${network.compute.a}? Known: network.compute.a, "
                "network.compute.b, site.region, site.tags"
            ],
            id="one that resembles others",
        ),
        pytest.param(
            "A: ${zzz}",
            [
                "eco.yaml:1: A: ${zzz} is not a known reference; known: network.compute.a, "
                "network.compute.b, site.region, site.tags"
            ],
            id="one that resembles none",
        ),
        pytest.param(
            "A: ${}",
            [
                "eco.yaml:1: A: ${} is not a known reference; known: network.compute.a, "
                "network.compute.b, site.region, site.tags"
            ],
            id="one without name",
        ),
        pytest.param(
            "A: ${network.${site.region}}",
            [
                "eco.yaml:1: A: must close each reference and hold none in another: ${NAME} "
                "(found: '${network.${site.region}}')"
            ],
            id="one in another",
        ),
        pytest.param(
            "A: ${site.region",
            [
                "eco.yaml:1: A: must close each reference and hold none in another: ${NAME} "
                "(found: '${site.region')"
            ],
            id="one that does not end",
        ),
        pytest.param(
            "A: tags ${site.tags}",
            [
                "eco.yaml:1: A: ${site.tags} is not text and must be the whole value "
                "(found: 'tags ${site.tags}')"
            ],
            id="a list inside a longer text",
        ),
        pytest.param(
            "A: ${zzz}\nB: {C: '${site.region'}",
            [
                "eco.yaml:1: A: ${zzz} is not a known reference; known: network.compute.a, "
                "network.compute.b, site.region, site.tags",
                "eco.yaml:2: B.C: must close each reference and hold none in another: ${NAME} "
                "(found: '${site.region')",
            ],
            id="two in different places",
        ),
    ],
)
def test_a_wrong_reference_is_reported_with_its_line(text: str, problems: list[str]) -> None:
    assert problems_of(text) == problems


def test_resolving_leaves_the_configuration_as_it_was() -> None:
    file = config("A: ${site.region}\nB:\n  - ${site.region}")
    resolve(file, VALUES)
    assert file.data == {"A": "${site.region}", "B": ["${site.region}"]}


def test_references_are_found_in_the_order_of_the_file() -> None:
    text = "B: ${b}\nA:\n  - ${a} ${a.c}\n  - $${no}\n${key}: {C: '${c'}"
    assert list(find_references(config(text))) == [
        (("B",), "b"),
        (("A", 0), "a"),
        (("A", 0), "a.c"),
    ]


def test_an_environment_has_these_references(tmp_path: Path) -> None:
    assert reference_names(load(tmp_path)) == (
        "site.environment",
        "site.account",
        "site.region",
        "site.cluster",
        "site.tags",
        "hosting.permissions_boundary",
        "hosting.resource_prefix",
        "network.vpc",
        "network.compute.a",
        "network.compute.b",
        "security_groups.cluster",
        "security_groups.ssh",
        "ssh.key_pair",
        "storage.home",
        "storage.home.projects",
        "buckets.cluster_config",
        "buckets.logs",
        "buckets.results",
        "images.compute",
        "images.admin",
        "roles.head_node",
        "roles.compute",
        "roles.login",
        "roles.cleanup",
        "limits.revision",
    )


def test_the_values_that_the_environment_states_are_known(tmp_path: Path) -> None:
    assert known_values(load(tmp_path), "dev-eco") == {
        "site.environment": "dev",
        "site.account": "123456789012",
        "site.region": "us-west-2",
        "site.cluster": "dev-eco",
        "site.tags": [
            {"Key": "Owner", "Value": "ada"},
            {"Key": "Project", "Value": "rivers"},
            {"Key": "Organization", "Value": "lab"},
            {"Key": "CostCenter", "Value": "c-1"},
            {"Key": "Environment", "Value": "dev"},
            {"Key": "Cluster", "Value": "dev-eco"},
        ],
        "hosting.permissions_boundary": "arn:aws:iam::123456789012:policy/boundary",
        "hosting.resource_prefix": "/dev/dev-",
        "limits.revision": "none",
        "ssh.key_pair": "keys",
        "buckets.cluster_config": "dev-artefacts",
        "buckets.logs": "dev-logs",
        "buckets.results": "dev-results",
    }


def test_the_resource_prefix_has_no_path_where_the_path_is_the_root(tmp_path: Path) -> None:
    environment = load(tmp_path, edit(EXISTING, "iam_path: /dev/", "iam_path: /"))
    assert known_values(environment, "dev-eco")["hosting.resource_prefix"] == "dev-"


def test_every_reference_stands_in_the_documentation(tmp_path: Path) -> None:
    documented = (ROOT / "docs" / "references.md").read_text(encoding="utf-8")
    # The documentation has the names of the environment file in capitals.
    general = {
        "network.compute.a": "network.GROUP.ZONE",
        "network.compute.b": "network.GROUP.ZONE",
        "storage.home": "storage.NAME",
        "storage.home.projects": "storage.NAME.POINT",
        "images.compute": "images.IMAGE",
        "images.admin": "images.IMAGE",
    }
    names = [general.get(name, name) for name in reference_names(load(tmp_path))]
    assert [name for name in names if f"`${{{name}}}`" not in documented] == []
