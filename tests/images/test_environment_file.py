"""Clusters are added to and taken from an environment file, and its comments stay."""

from __future__ import annotations

import pytest

from clusterbox.errors import InputError
from clusterbox.images.environment_file import add_cluster, replace_cluster
from clusterbox.site.yaml_file import parse_yaml
from tests.conftest import ROOT

TEXT = """\
name: site # the site
clusters:
  # the small one
  - {name: eco, config: eco.yaml} # cheap
  - name: "big"
    config: big.yaml
    # why it may
    accepted_findings:
      Rule: >-
        name: big is fine,
        really

# money
budgets:
  clusters:
    eco: {monthly_usd: 1} # little
    big: {monthly_usd: 2}
"""


def test_a_cluster_in_one_line_is_copied_after_its_model() -> None:
    text = add_cluster(TEXT, "eco-b", "eco")
    assert text == TEXT.replace(
        "  - {name: eco, config: eco.yaml} # cheap\n",
        "  - {name: eco, config: eco.yaml} # cheap\n  - {name: eco-b, config: eco.yaml} # cheap\n",
    )


def test_a_cluster_of_several_lines_is_copied_with_all_of_them() -> None:
    text = add_cluster(TEXT, "big-b", "big")
    clusters = parse_yaml(text, name="x").data["clusters"]
    assert [entry["name"] for entry in clusters] == ["eco", "big", "big-b"]
    assert clusters[2]["accepted_findings"] == clusters[1]["accepted_findings"]
    assert text.count("# why it may") == 1
    assert "\n\n# money\n" in text


def test_a_removed_cluster_gives_its_budget_to_the_one_that_replaces_it() -> None:
    text = replace_cluster(add_cluster(TEXT, "eco-b", "eco"), "eco", "eco-b")
    data = parse_yaml(text, name="x").data
    assert [entry["name"] for entry in data["clusters"]] == ["eco-b", "big"]
    assert data["budgets"]["clusters"] == {
        "eco-b": {"monthly_usd": 1},
        "big": {"monthly_usd": 2},
    }
    assert "    eco-b: {monthly_usd: 1} # little\n" in text
    assert "# the small one" in text


@pytest.mark.parametrize("environment", ["ws-dev", "sandbox"])
def test_every_cluster_of_the_shipped_environments_can_be_replaced(environment: str) -> None:
    text = (ROOT / "environments" / f"{environment}.yaml").read_text()
    for entry in parse_yaml(text, name="x").data["clusters"]:
        name = entry["name"]
        changed = replace_cluster(add_cluster(text, f"{name}-b", name), name, f"{name}-b")
        # Nothing but the name differs.
        assert changed.replace(f"{name}-b", name) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clusters: [{name: eco, config: a}]\n", "edit the file by hand"),
        ("clusters:\n  - {config: a, name: eco, note: x}\n  - &a {name: b}\n", None),
        ("clusters:\n  - {config: a}\n", "there is no cluster eco"),
        ("clusters: []\n", "there are: none"),
        ("clusters:\n  - {name: eco}\n  - {name: eco-b}\n", "is a cluster eco-b already"),
    ],
)
def test_what_cannot_be_edited_is_told(text: str, message: str | None) -> None:
    if message is None:
        assert "name: eco-b" in add_cluster(text, "eco-b", "eco")
        return
    with pytest.raises(InputError, match=message):
        add_cluster(text, "eco-b", "eco")


def test_a_file_without_a_newline_at_its_end_can_be_edited() -> None:
    assert add_cluster("clusters:\n  - {name: eco}", "eco-b", "eco") == (
        "clusters:\n  - {name: eco}\n  - {name: eco-b}\n"
    )
