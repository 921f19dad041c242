"""A rollback brings back exactly what a rollout has reached."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from clusterbox.errors import InputError
from clusterbox.images.live import LivePart
from clusterbox.images.login import login
from clusterbox.images.plan import Step
from clusterbox.images.rollback import Rollback, RunningPart, plan_rollback, swap_lock
from clusterbox.images.rollout import queues
from clusterbox.site.images import ClusterPins, LockedImage, LoginPin, Verification, render_lock
from clusterbox.site.load import Repository
from tests.images.fake_cluster import CLUSTER, NEW, OLD, FakeCluster, write_repository

QUEUES = Step(id="q", action="queues", subject={"cluster": CLUSTER, "queues": "eco"})
LOGIN = Step(id="l", action="login", subject={"cluster": CLUSTER, "pool": "login"})


@pytest.fixture
def fake(tmp_path: Path) -> FakeCluster:
    return FakeCluster(write_repository(tmp_path / "site"))


def live(fake: FakeCluster) -> list[LivePart]:
    queue = LivePart("ws-dev", CLUSTER, "queue", "eco", (fake.queue_amis["eco"],), {})
    pool = LivePart("ws-dev", CLUSTER, "login", "login", (str(fake.pool["ami"]),), {})
    return [LivePart("ws-dev", CLUSTER, "head", "", (), {"i-1": OLD}), queue, pool]


def plan(fake: FakeCluster, *images: str) -> Rollback:
    environment = Repository(fake.root).load_environment("ws-dev")
    return plan_rollback(fake.root, environment, live(fake), images)


def pins(fake: FakeCluster) -> ClusterPins:
    return Repository(fake.root).load_lock().pins_of("ws-dev", CLUSTER)


def locked(fake: FakeCluster) -> LockedImage:
    return Repository(fake.root).load_lock().environments["ws-dev"]["compute"]


def test_before_the_first_part_moved_only_the_lock_goes_back(fake: FakeCluster) -> None:
    found = plan(fake)
    assert found.images == {"compute": (NEW, OLD)}
    assert found.steps == ()
    swap_lock(fake.root, found)
    assert (locked(fake).ami, locked(fake).previous.ami) == (OLD, NEW)  # type: ignore[union-attr]
    assert not pins(fake), "what runs the locked image needs no pin"


def test_in_the_middle_only_what_was_reached_moves_back(fake: FakeCluster) -> None:
    queues(fake.context(), QUEUES, fake.doors())
    found = plan(fake)
    assert [step.id for step in found.steps] == [f"queues:{CLUSTER}/eco"]
    assert any("login of ws-eco-login was not moved" in text for text in found.kept)
    assert any("head node of ws-eco-login stays" in text for text in found.kept)
    swap_lock(fake.root, found)
    assert pins(fake) == ClusterPins(queues={"eco": NEW}), "nothing moves before its step"
    fake.start_job(hours=1)
    queues(fake.context(), found.steps[0], fake.doors())
    assert fake.queue_amis == {"eco": OLD}
    assert not pins(fake)


def test_after_a_whole_rollout_everything_that_can_moves_back(fake: FakeCluster) -> None:
    queues(fake.context(), QUEUES, fake.doors())
    login(fake.context(), LOGIN, fake.doors())
    found = plan(fake)
    assert [step.id for step in found.steps] == [f"queues:{CLUSTER}/eco", f"login:{CLUSTER}/login"]
    swap_lock(fake.root, found)
    assert pins(fake).login == {"login": LoginPin(ami=NEW)}
    queues(fake.context(), found.steps[0], fake.doors())
    login(fake.context(), found.steps[1], fake.doors())
    assert (fake.queue_amis["eco"], fake.pool) == (OLD, {"ami": OLD, "count": 1})
    assert not pins(fake)


def test_a_pool_that_was_left_closed_is_opened_on_the_earlier_image(fake: FakeCluster) -> None:
    repository = Repository(fake.root)
    lock = repository.load_lock()
    closed = pins(fake).model_copy(update={"login": {"login": LoginPin(ami=OLD, closed=True)}})
    (fake.root / "ami" / "images.lock.yaml").write_text(
        render_lock(lock.with_pins("ws-dev", CLUSTER, closed))
    )
    fake.pool["count"] = 0
    fake.tick()
    found = plan(fake)
    assert [step.action for step in found.steps] == ["login"]
    swap_lock(fake.root, found)
    assert pins(fake).login["login"].closed
    login(fake.context(), found.steps[0], fake.doors())
    assert fake.pool == {"ami": OLD, "count": 1}
    assert not pins(fake)


def test_the_gate_is_only_for_images_that_were_verified(fake: FakeCluster) -> None:
    queues(fake.context(), QUEUES, fake.doors())
    lock = Repository(fake.root).load_lock()
    entry = lock.environments["ws-dev"]["compute"]
    assert entry.previous is not None
    verified = Verification(at="2026-10-22T10:00:00Z", checks=("units",), passed=True)
    previous = entry.previous.model_copy(update={"verified": verified})
    (fake.root / "ami" / "images.lock.yaml").write_text(
        render_lock(
            lock.with_image("ws-dev", "compute", entry.model_copy(update={"previous": previous}))
        )
    )
    assert [step.id for step in plan(fake).steps] == [
        f"queues:{CLUSTER}/eco",
        f"gate:{CLUSTER}/eco",
    ]


def test_done_twice_it_does_not_go_forward_again(fake: FakeCluster) -> None:
    found = plan(fake)
    swap_lock(fake.root, found)
    text = (fake.root / "ami" / "images.lock.yaml").read_text()
    swap_lock(fake.root, found)
    assert (fake.root / "ami" / "images.lock.yaml").read_text() == text


def test_an_image_without_a_previous_entry_is_told(tmp_path: Path) -> None:
    fake = FakeCluster(write_repository(tmp_path / "site", promoted=False))
    with pytest.raises(InputError, match="no image of ws-dev has a previous entry"):
        plan(fake)
    with pytest.raises(InputError, match="admin of ws-dev has no previous entry"):
        plan(fake, "admin")
    with pytest.raises(InputError, match=r"has no image big of ws-dev; it has: compute, admin"):
        plan(fake, "big")


def test_a_cluster_that_does_not_stand_is_not_pinned(fake: FakeCluster) -> None:
    found = plan(fake)
    assert found.pins["ws-eco"] == ClusterPins()


PART = RunningPart(CLUSTER, "queue", "eco", NEW, NEW, {NEW: 2})


@pytest.mark.parametrize(
    ("part", "state"),
    [
        (PART, "as it should be"),
        (replace(PART, machines={NEW: 1, OLD: 2}), "2 still on an earlier image"),
        (replace(PART, launches=OLD), "waits for its deployment"),
        (replace(PART, launches=None, machines={}), "does not stand"),
        (
            RunningPart(CLUSTER, "head", "", NEW, None, {OLD: 1}),
            "keeps its own image",
        ),
    ],
)
def test_the_state_of_a_part_is_told_in_words(part: RunningPart, state: str) -> None:
    assert part.state == state
