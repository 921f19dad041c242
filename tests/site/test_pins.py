from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clusterbox.errors import InputError, ProblemsError
from clusterbox.site.images import ClusterPins, LockedImage, LoginPin
from clusterbox.site.load import Repository
from clusterbox.site.pins import apply_pins, find_configured_parts, pinned_images
from clusterbox.site.yaml_file import YamlFile, parse_yaml, value_at
from tests.site.site_files import LOCK, edit, write_site

OLD, OTHER = "ami-0000000f", "ami-0000000e"
CONFIG = """\
Image:
  Os: alinux2023
  CustomAmi: ${images.compute}
HeadNode:
  InstanceType: t3.medium
LoginNodes:
  Pools:
    - Name: login
      Count: 2
      Image: {CustomAmi: "${images.compute}"}
    - Name: open
      Image: {CustomAmi: "${images.compute}"}
Scheduling:
  SlurmQueues:
    - Name: eco
      Image: {CustomAmi: "${images.compute}"}
    - Name: inherits
    - Name: typed
      Image: {CustomAmi: ami-0000000a}
"""
ECO = ("Scheduling", "SlurmQueues", 0, "Image", "CustomAmi")
LOGIN = ("LoginNodes", "Pools", 0)
CLUSTER = ("Image", "CustomAmi")


def config(text: str = CONFIG) -> YamlFile:
    return parse_yaml(text, name="cluster_configs/eco.yaml")


def applied(pins: ClusterPins, text: str = CONFIG) -> Any:
    return apply_pins(config(text), pins).data


def write(root: Path, pins: str, text: str = CONFIG) -> Repository:
    repository = write_site(root, lock=LOCK + pins)
    (root / "cluster_configs" / "eco.yaml").write_text(text, encoding="utf-8")
    return repository


def test_without_pins_the_configuration_is_the_same() -> None:
    file = config()
    assert apply_pins(file, ClusterPins()) is file


def test_a_pin_of_a_queue_changes_that_queue_alone() -> None:
    assert applied(ClusterPins(queues={"eco": OLD})) == edited(ECO, OLD)


def edited(location: tuple[str | int, ...], value: Any) -> Any:
    data = config().data
    value_at(data, location[:-1])[location[-1]] = value
    return data


def test_a_pin_of_the_head_node_changes_the_image_of_the_cluster() -> None:
    assert applied(ClusterPins(head=OLD)) == edited(CLUSTER, OLD)


def test_a_pin_of_the_head_node_changes_its_own_image_too() -> None:
    text = CONFIG.replace(
        "  InstanceType: t3.medium\n", "  Image: {CustomAmi: '${images.compute}'}\n"
    )
    data = applied(ClusterPins(head=OLD), text)
    assert (value_at(data, CLUSTER), value_at(data, ("HeadNode", *CLUSTER))) == (OLD, OLD)


def test_a_closed_pool_has_no_nodes() -> None:
    data = applied(
        ClusterPins(login={"login": LoginPin(ami=OLD, closed=True), "open": LoginPin(ami=OTHER)})
    )
    pools = value_at(data, ("LoginNodes", "Pools"))
    assert [(pool.get("Count"), pool["Image"]["CustomAmi"]) for pool in pools] == [
        (0, OLD),
        (None, OTHER),
    ]


def test_a_closed_pool_that_has_no_count_of_its_own_has_no_nodes_either() -> None:
    data = applied(ClusterPins(login={"open": LoginPin(ami=OLD, closed=True)}))
    assert value_at(data, ("LoginNodes", "Pools", 1, "Count")) == 0


def test_the_file_itself_and_its_lines_stay() -> None:
    file = config()
    pinned = apply_pins(file, ClusterPins(head=OLD, queues={"eco": OLD}))
    assert value_at(file.data, ECO) == "${images.compute}"
    assert (pinned.name, pinned.line_of(ECO)) == (file.name, 16)


def test_a_pin_that_fits_nothing_is_refused_where_it_is_applied() -> None:
    with pytest.raises(ProblemsError, match=r"pin queues\.eko must be a queue of cluster_configs"):
        applied(ClusterPins(queues={"eko": OLD}))


def test_parts_know_their_images_and_whether_these_are_their_own() -> None:
    found = [
        (part.kind, part.name, part.image, part.wanted, part.is_own)
        for part in find_configured_parts(config())
    ]
    reference = "${images.compute}"
    assert found == [
        ("head", "", "compute", reference, True),
        ("queue", "eco", "compute", reference, True),
        ("queue", "inherits", "compute", reference, False),
        ("queue", "typed", None, "ami-0000000a", True),
        ("login", "login", "compute", reference, True),
        ("login", "open", "compute", reference, True),
    ]


@pytest.mark.parametrize(
    "data", [{}, {"Scheduling": []}, {"Scheduling": {"SlurmQueues": [1, {"Name": 2}]}}]
)
def test_a_malformed_configuration_has_no_parts_but_the_head_node(data: Any) -> None:
    parts = find_configured_parts(YamlFile("eco.yaml", data, {}))
    assert [(part.kind, part.wanted) for part in parts] == [("head", None)]


def test_the_pins_of_a_cluster_are_loaded(tmp_path: Path) -> None:
    repository = write(
        tmp_path,
        f"pins:\n  dev:\n    dev-eco:\n      head: {OLD}\n      queues: {{eco: {OTHER}}}\n"
        f"      login: {{login: {{ami: {OLD}, closed: true}}}}\n",
    )
    pins = repository.load_pins(repository.load_environment("dev"), "dev-eco")
    assert pins == ClusterPins(
        head=OLD, queues={"eco": OTHER}, login={"login": LoginPin(ami=OLD, closed=True)}
    )
    assert pins.amis() == [OLD, OTHER]


def test_a_cluster_without_pins_has_empty_ones(tmp_path: Path) -> None:
    repository = write(tmp_path, "")
    assert not repository.load_pins(repository.load_environment("dev"), "dev-eco")


@pytest.mark.parametrize(
    ("pins", "problems"),
    [
        pytest.param(
            f"pins:\n  prod:\n    dev-eco: {{head: {OLD}}}\n",
            ["14: pins.prod: must be one of environments/: dev (found: 'prod')"],
            id="an unknown environment",
        ),
        pytest.param(
            f"pins:\n  dev:\n    dev-eko: {{head: {OLD}}}\n",
            [
                "15: pins.dev.dev-eko: must be a cluster of environments/dev.yaml: dev-eco "
                "(found: 'dev-eko')"
            ],
            id="an unknown cluster",
        ),
        pytest.param(
            f"pins:\n  dev:\n    dev-eco:\n      queues:\n        eko: {OLD}\n"
            f"      login: {{logn: {{ami: {OLD}}}}}\n",
            [
                "17: pins.dev.dev-eco.queues.eko: must be a queue of cluster_configs/eco.yaml, "
                "which has: eco, inherits, typed (found: 'eko')",
                "18: pins.dev.dev-eco.login.logn: must be a pool of login nodes of "
                "cluster_configs/eco.yaml, which has: login, open (found: 'logn')",
            ],
            id="an unknown queue and an unknown pool",
        ),
        pytest.param(
            f"pins:\n  dev:\n    dev-eco:\n      queues: {{inherits: {OLD}, typed: {OLD}}}\n",
            [
                "16: pins.dev.dev-eco.queues.inherits: cannot be pinned: "
                "cluster_configs/eco.yaml:17 must have Image: CustomAmi: ${images.NAME} for it, "
                "and has no CustomAmi of its own",
                "16: pins.dev.dev-eco.queues.typed: cannot be pinned: cluster_configs/eco.yaml:19 "
                "must have Image: CustomAmi: ${images.NAME} for it, and has ami-0000000a",
            ],
            id="parts that cannot be pinned",
        ),
        pytest.param(
            "pins:\n  dev:\n    dev-eco:\n      head: latest\n      closed: true\n",
            [
                "16: pins.dev.dev-eco.head: must be the id of an AMI: ami- and 8 to 17 hex digits "
                "(found: 'latest')",
                "17: pins.dev.dev-eco.closed: is not a known key; allowed here: head, queues, "
                "login",
            ],
            id="no id, and an unknown key",
        ),
        pytest.param(
            "pins:\n  dev:\n    dev-eco:\n      login: {login: {closed: true}}\n",
            [
                "16: pins.dev.dev-eco.login.login.ami: must be given: id of the image that the "
                "pool runs"
            ],
            id="a closed pool without an image",
        ),
    ],
)
def test_pins_of_what_there_is_not_are_reported(
    tmp_path: Path, pins: str, problems: list[str]
) -> None:
    repository = write(tmp_path, pins)
    environment = repository.load_environment("dev")
    with pytest.raises(ProblemsError) as caught:
        repository.load_pins(environment, "dev-eco")
    found = [
        str(problem).removeprefix("ami/images.lock.yaml:") for problem in caught.value.problems
    ]
    assert found == problems


def test_a_head_node_of_aws_s_image_cannot_be_pinned(tmp_path: Path) -> None:
    text = CONFIG.replace("  CustomAmi: ${images.compute}\nHead", "Head")
    repository = write(tmp_path, f"pins:\n  dev:\n    dev-eco:\n      head: {OLD}\n", text)
    environment = repository.load_environment("dev")
    with pytest.raises(InputError, match=r"eco\.yaml:1 must have Image: CustomAmi"):
        repository.load_pins(environment, "dev-eco")


def locked(**more: Any) -> LockedImage:
    return LockedImage(ami="ami-00000001", os="alinux2023", root_gib=45, origin="baked", **more)


def test_a_pinned_image_is_known_as_the_previous_one() -> None:
    previous = locked().without_previous().model_copy(update={"ami": OLD, "root_gib": 30})
    images = {"compute": locked(previous=previous)}
    (found,) = pinned_images(config(), ClusterPins(head=OLD, queues={"eco": OLD}), images)
    assert (found.image, found.entry.ami, found.entry.root_gib) == ("compute", OLD, 30)


def test_an_older_pinned_image_is_taken_for_one_like_the_locked() -> None:
    images = {"compute": locked(parallelcluster_version="3.16.1")}
    (found,) = pinned_images(config(), ClusterPins(head=OTHER), images)
    assert (found.entry.ami, found.entry.parallelcluster_version) == (OTHER, "3.16.1")


def test_what_is_pinned_to_the_locked_image_is_no_other_image() -> None:
    pins = ClusterPins(login={"login": LoginPin(ami="ami-00000001", closed=True)})
    assert pinned_images(config(), pins, {"compute": locked()}) == []


def test_the_account_is_seeded_with_locked_previous_and_pinned_images(tmp_path: Path) -> None:
    lock = edit(
        LOCK,
        "      root_gib: 45\n",
        "      root_gib: 45\n      previous:\n        ami: ami-0000000d\n        os: alinux2023\n"
        "        root_gib: 45\n        origin: baked in winter\n",
    )
    repository = write_site(tmp_path, lock=f"{lock}pins:\n  dev:\n    dev-eco: {{head: {OLD}}}\n")
    (tmp_path / "cluster_configs" / "eco.yaml").write_text(CONFIG, encoding="utf-8")
    images = repository.load_seeded_images(repository.load_environment("dev"))
    assert {name: image.ami for name, image in images.items()} == {
        "compute-ami-0000000d": "ami-0000000d",
        f"compute-{OLD}": OLD,
        "compute": "ami-00000001",
        "admin": "ami-00000002",
    }
