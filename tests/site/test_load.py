from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusterbox.errors import InputError, Problem, ProblemsError
from clusterbox.site.load import Repository
from tests.conftest import ROOT
from tests.site.site_files import EXISTING, MADE, edit, load, problems_of, write_site


@pytest.mark.parametrize("text", [EXISTING, MADE], ids=["existing", "made"])
def test_a_good_environment_is_loaded(tmp_path: Path, text: str) -> None:
    environment = load(tmp_path, text)
    assert environment.network.subnet_names == ("compute.a", "compute.b")
    assert environment.network.exists == (text == EXISTING)


@pytest.mark.parametrize("name", ["sandbox", "ws-dev"])
def test_the_environments_of_the_repository_are_good(name: str) -> None:
    repository = Repository(ROOT)
    environment = repository.load_environment(name)
    assert sorted(repository.load_images(environment)) == ["admin", "compute"]


def test_a_site_may_have_neither_admin_box_nor_clusters(tmp_path: Path) -> None:
    environment = load(tmp_path, EXISTING[: EXISTING.index("admin_box:")])
    assert environment.admin_box is None
    assert environment.clusters == ()


def test_environments_are_listed_by_name(tmp_path: Path) -> None:
    repository = write_site(tmp_path)
    (tmp_path / "environments" / "beta.yaml").write_text("", encoding="utf-8")
    assert repository.environment_names() == ["beta", "dev"]


def test_an_unknown_environment_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        write_site(tmp_path).load_environment("prod")
    assert str(caught.value) == "there is no environment 'prod'; environments/ has: dev"


def test_a_repository_without_environments_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        Repository(tmp_path).load_environment("dev")
    assert str(caught.value) == "there is no environment 'dev'; environments/ has: none yet"


def test_the_problems_of_all_sections_are_reported_together_in_the_order_of_the_file(
    tmp_path: Path,
) -> None:
    text = edit(EXISTING, 'account: "123456789012"', "account: 123456789012")
    text = edit(text, "  Owner: ada", "  Ower: ada")
    text = edit(text, "192.0.2.0/24", "0.0.0.0/0")
    text = edit(text, "[compute.a, compute.b]", "[compute.c, compute.b]")
    text = edit(text, "name: dev-results", "name: dev-logs")
    text = edit(text, "image: admin", "image: login")
    text = edit(text, "idle_stop_minutes: 60", "idle_stop_minutes: -1")
    text = edit(text, "config: eco.yaml", "config: big.yaml")
    assert problems_of(tmp_path, text) == [
        '3: account: must be the 12 digits of an AWS account in quotes, such as "427491229895" '
        "(found: 123456789012)",
        "5: tags.Owner: must be given: who answers for the site",
        "6: tags.Ower: is not a known key; allowed here: Owner, Project, Organization, CostCenter",
        "20: network.ssh.cidrs[0]: must be a named range of /8 or narrower: "
        "nothing of a site is open to 0.0.0.0/0 or to most of it (found: '0.0.0.0/0')",
        "24: storage.file_systems.home.subnets[0]: must be one of the network's subnets: "
        "compute.a, compute.b (found: 'compute.c')",
        "30: storage.buckets.results.name: must differ from the site's other buckets "
        "(found: 'dev-logs')",
        "35: admin_box.image: must be one of images: compute, admin (found: 'login')",
        "39: admin_box.idle_stop_minutes: must be 0 or more (found: -1)",
        "41: clusters[0].config: must be a file of cluster_configs/: eco.yaml (found: 'big.yaml')",
    ]


def test_the_error_counts_its_problems(tmp_path: Path) -> None:
    with pytest.raises(ProblemsError) as caught:
        load(tmp_path, edit(EXISTING, "root_gib: 30", "root_gib: 7"))
    assert str(caught.value) == (
        "1 problem:\n  environments/dev.yaml:36: admin_box.root_gib: must be 8 or more (found: 7)"
    )


@pytest.mark.parametrize("text", ["", "- name: dev\n", "7\n"])
def test_an_environment_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, text)
    assert str(caught.value) == "environments/dev.yaml: must be a mapping of keys to values"


# An empty key, a flag, a number, prose, and nests of the wrong shape.
WEIRD: list[Any] = [None, True, float("nan"), "x y", [[]], {7: 7}, {"[key]": None}]


def locations(data: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where each value of the data stands, the whole left out."""
    keys = range(len(data)) if isinstance(data, list) else data if isinstance(data, dict) else ()
    for key in keys:
        yield (*here, key)
        yield from locations(data[key], (*here, key))


GOOD = yaml.safe_load(MADE)
PLACES = list(locations(GOOD))


def section_at(data: Any, place: tuple[Any, ...]) -> Any:
    """Return the mapping or list in which a place is."""
    for key in place[:-1]:
        data = data[key]
    return data


def problems_in(root: Path, data: Any) -> list[Problem]:
    """Return what is wrong in an environment of that data; nothing may be."""
    try:
        load(root, yaml.dump(data, sort_keys=False))
    except ProblemsError as error:
        return error.problems
    return []


def in_our_words(problem: Problem) -> bool:
    return (
        problem.message.startswith(("must ", "is not a known key; allowed here: "))
        and problem.message != "must be a value of another kind"
        and problem.line is not None
    )


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)))
def test_a_weird_value_is_taken_or_refused_in_our_words(
    tmp_path: Path, place: tuple[Any, ...]
) -> None:
    for weird in WEIRD:
        data = copy.deepcopy(GOOD)
        section_at(data, place)[place[-1]] = weird
        odd = [str(p) for p in problems_in(tmp_path, data) if not in_our_words(p)]
        assert odd == []


def test_a_part_left_out_is_taken_or_missed_in_our_words(tmp_path: Path) -> None:
    for place in PLACES:
        data = copy.deepcopy(GOOD)
        del section_at(data, place)[place[-1]]
        odd = [str(p) for p in problems_in(tmp_path, data) if not in_our_words(p)]
        assert odd == []
