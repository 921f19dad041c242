from __future__ import annotations

from pathlib import Path

from clusterbox.images.usage import Part, find_parts
from clusterbox.site.load import Repository
from tests.images.small_site import ADMIN, LOCKED, OLD, write

HEAD = Part("dev", "dev-eco", "head", "", "compute", LOCKED)
ECO = Part("dev", "dev-eco", "queue", "eco", "compute", LOCKED)
INHERITS = Part("dev", "dev-eco", "queue", "inherits", "compute", LOCKED, movable=False)
LOGIN = Part("dev", "dev-eco", "login", "login", "compute", LOCKED)
BOX = Part("dev", "", "admin-box", "dev-box", "admin", ADMIN)


def test_every_part_runs_the_locked_image(tmp_path: Path) -> None:
    assert find_parts(tmp_path, write(tmp_path)) == [HEAD, ECO, INHERITS, LOGIN, BOX]


def test_pinned_parts_run_what_they_are_pinned_to(tmp_path: Path) -> None:
    pins = f"{{head: {OLD}, queues: {{eco: {OLD}}}, login: {{login: {{ami: {OLD}}}}}}}"
    found = {(part.kind, part.name): part for part in find_parts(tmp_path, write(tmp_path, pins))}
    pinned = [part for part in found.values() if part.pinned]
    assert {part.ami for part in pinned} == {OLD}
    # What has no image of its own follows the cluster, and the cluster follows the head node.
    assert [(part.kind, part.name) for part in pinned] == [
        ("head", ""),
        ("queue", "eco"),
        ("queue", "inherits"),
        ("login", "login"),
    ]


def test_a_pool_is_closed_though_it_is_pinned_to_the_locked_image(tmp_path: Path) -> None:
    pins = f"{{login: {{login: {{ami: {LOCKED}, closed: true}}}}}}"
    (login,) = [part for part in find_parts(tmp_path, write(tmp_path, pins)) if part.closed]
    assert (login.name, login.ami, login.pinned) == ("login", LOCKED, False)


def test_an_image_that_a_configuration_names_itself_is_of_no_lock(tmp_path: Path) -> None:
    environment = write(tmp_path)
    config = tmp_path / "cluster_configs" / "eco.yaml"
    text = config.read_text(encoding="utf-8")
    config.write_text(
        text.replace(
            'eco\n      Image: {CustomAmi: "${images.compute}"}',
            f"eco\n      Image: {{CustomAmi: {OLD}}}",
        ),
        encoding="utf-8",
    )
    (eco,) = [part for part in find_parts(tmp_path, environment) if part.name == "eco"]
    assert (eco.image, eco.ami, eco.movable, eco.pinned) == (None, OLD, False, False)


def test_every_queue_and_pool_that_is_shipped_can_be_moved(root: Path) -> None:
    repository = Repository(root)
    for name in repository.environment_names():
        parts = find_parts(root, repository.load_environment(name))
        assert [part for part in parts if not part.movable] == []
        assert {part.kind for part in parts} >= {"head", "queue", "admin-box"}
