"""The plan: its steps and their order, its choices, and the world that it was made in."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from clusterbox.errors import InputError
from clusterbox.images.live import LivePart
from clusterbox.images.plan import Options, Plan
from clusterbox.images.planning import World, make_plan, next_run
from clusterbox.images.usage import find_parts
from clusterbox.site.image_definitions import load_image_definition
from clusterbox.site.load import Repository
from tests.conftest import ROOT

NOW = datetime(2026, 11, 22, 20, 15, tzinfo=UTC)
WS_DEV = Repository(ROOT).load_environment("ws-dev")
PARENT = "ami-0a000000000000001"


def _live(cluster: str, kind: str, name: str, *instances: str) -> LivePart:
    amis = {f"i-{number}": ami for number, ami in enumerate(instances)}
    launches = () if kind == "head" else ("ami-0a0000000000000ff",)
    return LivePart("ws-dev", cluster, kind, name, launches, amis)  # type: ignore[arg-type]


LIVE = [
    _live("ws-eco", "head", "", "ami-0a0000000000000ff"),
    _live("ws-eco", "queue", "eco"),
    _live("ws-eco", "queue", "spot"),
    _live("ws-eco-login", "head", "", "ami-0a0000000000000ff"),
    _live("ws-eco-login", "queue", "eco"),
    _live("ws-eco-login", "login", "login"),
]


def _world(images: tuple[str, ...] = ("compute", "admin"), root: Path = ROOT) -> World:
    return World(
        root=root,
        environment=WS_DEV,
        definitions={name: load_image_definition(root, name) for name in images},
        parents=dict.fromkeys(images, PARENT),
        parts=find_parts(root, WS_DEV),
        live=LIVE,
    )


def _plan(world: World | None = None, **options: object) -> Plan:
    return make_plan(
        world or _world(),
        Options(**options),  # type: ignore[arg-type]
        run="2026-11-22",
        now=NOW,
        expected={},
    )


def _ids(plan: Plan) -> list[str]:
    return [step.id for step in plan.steps]


def test_the_steps_of_a_whole_patch_day_in_their_order() -> None:
    assert _ids(_plan()) == [
        "notify:before",
        "bake:compute",
        "bake:admin",
        "verify:compute",
        "verify:admin",
        "promote",
        "queues:ws-eco/eco",
        "gate:ws-eco/eco",
        "queues:ws-eco/spot",
        "head:ws-eco",
        "queues:ws-eco-login/eco",
        "gate:ws-eco-login/eco",
        "login:ws-eco-login/login",
        "head:ws-eco-login",
        "admin-box",
        "retire",
        "notify:after",
    ]


def test_bakes_wait_for_nothing_and_the_rollout_goes_one_by_one_after_all_verifications() -> None:
    after = {step.id: step.after for step in _plan().steps}
    assert after["bake:compute"] == after["bake:admin"] == after["notify:before"] == ()
    assert after["verify:compute"] == ("bake:compute",)
    assert set(after["promote"]) == {"notify:before", "verify:compute", "verify:admin"}
    order = _ids(_plan())
    for before, step in itertools.pairwise(order[5:]):
        assert after[step] == (before,)


def test_the_canary_is_chosen_and_its_cluster_comes_first() -> None:
    found = _ids(_plan(canary="ws-eco-login/eco"))
    rolled = found[found.index("promote") + 1 :]
    assert rolled[:4] == [
        "queues:ws-eco-login/eco",
        "gate:ws-eco-login/eco",
        "login:ws-eco-login/login",
        "head:ws-eco-login",
    ]
    assert "queues:ws-eco/eco,spot" in rolled
    assert "gate:ws-eco/eco" in rolled


def test_an_unknown_canary_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"no queue ws-eco/hpc.*ws-eco/eco, ws-eco/spot"):
        _plan(canary="ws-eco/hpc")


def test_heads_are_left_or_clusters_replaced() -> None:
    left = _plan(head="leave")
    assert not any(step.action == "head" for step in left.steps)
    assert "the head node of ws-eco is left as it is, on request" in left.unsupported
    replaced = _ids(_plan(head="replace"))
    assert replaced[6:10] == [
        "queues:ws-eco/eco",
        "gate:ws-eco/eco",
        "replace:ws-eco",
        "replace:ws-eco-login",
    ]


def test_only_what_uses_a_baked_image_is_touched() -> None:
    admin = _plan(_world(("admin",)))
    assert _ids(admin)[3:] == ["promote", "admin-box", "retire", "notify:after"]
    compute = _ids(_plan(_world(("compute",))))
    assert "admin-box" not in compute
    assert "queues:ws-eco/eco" in compute


def test_a_cluster_that_does_not_stand_is_told_and_left_out() -> None:
    world = replace(_world(), live=[part for part in LIVE if part.cluster == "ws-eco"])
    plan = _plan(world)
    assert "ws-eco-login does not stand: it will start on the locked image" in plan.unsupported
    assert not any("ws-eco-login" in step.id for step in plan.steps)


def test_a_queue_without_an_image_of_its_own_is_told_and_left_out() -> None:
    world = _world()
    parts = [
        replace(part, movable=False) if (part.cluster, part.name) == ("ws-eco", "spot") else part
        for part in world.parts
    ]
    plan = _plan(replace(world, parts=parts))
    assert "queues:ws-eco/spot" not in _ids(plan)
    assert any("spot of ws-eco has no image of its own" in text for text in plan.unsupported)


def test_expected_times_come_by_step_or_by_action() -> None:
    plan = make_plan(
        _world(),
        Options(),
        run="2026-11-22",
        now=NOW,
        expected={"bake:compute": 2400.0, "bake": 1800.0},
    )
    found = {step.id: step.expected_seconds for step in plan.steps}
    assert (found["bake:compute"], found["bake:admin"]) == (2400.0, 1800.0)
    assert found["retire"] is None


def test_images_are_named_after_the_run() -> None:
    (compute, admin) = _plan().images
    assert (compute.name, compute.parent) == ("ws-dev-compute-2026-11-22", PARENT)
    assert admin.image == "admin"
    assert len(compute.bundle) == 64


def test_the_cost_is_that_of_the_baking_machines() -> None:
    # m6a.2xlarge .3456 and t3a.large .0752 USD/h for 70 minutes: .4909; 75 GiB of gp3 as long: .0096.
    assert _plan().cost_usd == "0.50"


def test_what_changes_the_world() -> None:
    facts = _world().facts()
    assert facts["live ws-eco head"] == "ami-0a0000000000000ff"
    assert facts["parent of compute"] == PARENT
    world = replace(_world(), parents={"compute": "ami-0b", "admin": PARENT})
    changed = {name for name, value in world.facts().items() if facts[name] != value}
    assert changed == {"parent of compute"}


def test_nodes_that_come_and_go_do_not_change_the_world() -> None:
    busy = [*LIVE[:1], _live("ws-eco", "queue", "eco", "ami-0a00000000000000a"), *LIVE[2:]]
    assert replace(_world(), live=busy).facts() == _world().facts()


def test_a_plan_comes_back_from_its_json() -> None:
    plan = _plan(canary="ws-eco/spot", drain_seconds=60.0)
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": 1}', '{"version": 1, "steps": 3}', "\x00"]
)
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not a plan"):
        Plan.from_json(text)


def test_a_plan_of_another_version_is_refused() -> None:
    with pytest.raises(InputError, match="version 99"):
        Plan.from_json(_plan().to_json().replace('"version": 1', '"version": 99', 1))


def test_a_second_run_of_a_day_gets_a_number() -> None:
    assert next_run(NOW, []) == "2026-11-22"
    assert next_run(NOW, ["2026-10-20", "2026-11-22"]) == "2026-11-22-2"
    assert next_run(NOW, ["2026-11-22", "2026-11-22-2"]) == "2026-11-22-3"


def test_queues_that_cannot_move_while_their_cluster_runs_are_left_and_told(tmp_path: Path) -> None:
    root = tmp_path / "site"
    for name in ("ami", "cluster_configs", "environments"):
        shutil.copytree(ROOT / name, root / name)
    file = root / "cluster_configs" / "eco.yaml"
    text = file.read_text(encoding="utf-8")
    assert "QueueUpdateStrategy: DRAIN" in text
    file.write_text(
        text.replace("QueueUpdateStrategy: DRAIN", "QueueUpdateStrategy: COMPUTE_FLEET_STOP")
    )
    plan = _plan(_world(root=root))
    assert not [step for step in _ids(plan) if step.startswith(("queues:ws-eco/", "gate:ws-eco/"))]
    assert "queues:ws-eco-login/eco" in _ids(plan)
    [told] = [each for each in plan.unsupported if "QueueUpdateStrategy" in each]
    assert told.startswith("queues of ws-eco cannot be moved while it runs")


def test_a_head_node_that_is_patched_in_place_keeps_its_kernel_and_the_plan_says_so() -> None:
    [first, *_] = [each for each in _plan().unsupported if "keeps its kernel" in each]
    assert first.startswith("the head node of ws-eco is patched in place")
    assert not [each for each in _plan(head="replace").unsupported if "kernel" in each]
