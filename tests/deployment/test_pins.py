from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from clusterbox.cli import site as site_commands
from clusterbox.deployment.pins import (
    PublishedPins,
    RolloutAheadError,
    check_rollout,
    find_differences,
    forget_published_pins,
    publish_lock,
    publish_pins,
    read_published_pins,
)
from clusterbox.errors import ClusterboxError
from clusterbox.site.environment import Environment
from clusterbox.site.images import ClusterPins, ImageLock, LockedImage, LoginPin
from clusterbox.site.load import Repository

OLD, NEW = "ami-0000000f", "ami-0000000e"
PINS = ClusterPins(
    head=OLD, queues={"eco": OLD, "spot": NEW}, login={"login": LoginPin(ami=OLD, closed=True)}
)


class FakeSsm:
    """Parameters in memory."""

    class exceptions:  # noqa: N801 - as boto3 has it
        class ParameterNotFound(Exception):  # noqa: N818
            """There is no such parameter."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def put_parameter(self, **words: Any) -> None:
        assert words["Overwrite"] or words["Name"] not in self.values
        self.values[words["Name"]] = words["Value"]

    def get_parameter(self, **words: Any) -> dict[str, Any]:
        return {"Parameter": {"Value": self._find(words["Name"])}}

    def delete_parameter(self, **words: Any) -> None:
        self._find(words["Name"])
        del self.values[words["Name"]]

    def _find(self, name: str) -> str:
        if name not in self.values:
            raise self.exceptions.ParameterNotFound
        return self.values[name]


@pytest.fixture(scope="module")
def environment(root: Path) -> Environment:
    return Repository(root).load_environment("ws-dev")


def lock(ami: str = NEW, **pins: ClusterPins) -> ImageLock:
    entry = LockedImage(ami=ami, os="alinux2023", root_gib=45, origin="baked")
    found = ImageLock(environments={"ws-dev": {"compute": entry}})
    for cluster, item in pins.items():
        found = found.with_pins("ws-dev", cluster.replace("_", "-"), item)
    return found


def test_what_is_published_is_read_back(environment: Environment) -> None:
    ssm = FakeSsm()
    publish_lock(ssm, environment, "2026-11-22", lock(ws_eco=PINS))
    assert read_published_pins(ssm, environment) == PublishedPins(
        "2026-11-22", {"ws-eco": PINS}, {"compute": NEW}
    )
    assert list(ssm.values) == ["/clusterbox/ws-dev/images/pins"]


def test_the_parameter_is_one_object_of_run_pins_and_lock(environment: Environment) -> None:
    ssm = FakeSsm()
    empty = ClusterPins()
    publish_pins(ssm, environment, "1", {"ws-eco": ClusterPins(head=OLD), "ws-eco-login": empty})
    (value,) = ssm.values.values()
    assert json.loads(value) == {"run": "1", "pins": {"ws-eco": {"head": OLD}}, "lock": {}}


def test_without_a_rollout_nothing_is_refused(environment: Environment) -> None:
    check_rollout(FakeSsm(), environment, lock())


def test_a_repository_that_has_the_rollout_is_not_refused(environment: Environment) -> None:
    ssm = FakeSsm()
    publish_lock(ssm, environment, "1", lock(ws_eco=PINS))
    check_rollout(ssm, environment, lock(ws_eco=PINS))


def test_a_repository_without_the_rollout_is_refused_with_what_to_do(
    environment: Environment,
) -> None:
    ssm = FakeSsm()
    publish_lock(ssm, environment, "2026-11-22", lock(ws_eco=ClusterPins(head=OLD)))
    with pytest.raises(RolloutAheadError) as caught:
        check_rollout(ssm, environment, lock(OLD))
    assert str(caught.value) == (
        "the patch day 2026-11-22 has brought images to ws-dev that ami/images.lock.yaml does not "
        f"have here (image compute: {OLD} here, {NEW} rolled out; pins of ws-eco: none here, "
        f"head node {OLD} there). Merge its merge request and deploy then, or take it back with "
        "`clusterbox images rollback ws-dev`. With --ignore-rollout this is deployed all the same: "
        "queues drain back to what the file says, and login pools that were moved must be closed "
        "first"
    )


def test_every_part_of_a_pin_counts(environment: Environment) -> None:
    published = PublishedPins("1", {"ws-eco": PINS}, {})
    closed = {"login": LoginPin(ami=OLD)}
    for other in (
        PINS.model_copy(update={"head": NEW}),
        PINS.model_copy(update={"queues": {"eco": OLD}}),
        PINS.model_copy(update={"login": closed}),
    ):
        assert len(find_differences(published, environment, lock(ws_eco=other))) == 1
    assert find_differences(published, environment, lock(ws_eco=PINS)) == []


def test_pins_that_the_rollout_took_away_are_missed(environment: Environment) -> None:
    published = PublishedPins("1", {}, {})
    (found,) = find_differences(published, environment, lock(ws_eco=PINS))
    assert found == (
        f"pins of ws-eco: head node {OLD}, queue eco {OLD}, queue spot {NEW}, login pool login "
        f"{OLD} (closed) here, none there"
    )


def test_clusters_and_images_that_left_the_environment_do_not_count(
    environment: Environment,
) -> None:
    published = PublishedPins("1", {"ws-gone": PINS}, {"gone": OLD})
    assert find_differences(published, environment, lock()) == []


def test_what_was_published_can_be_forgotten_twice(environment: Environment) -> None:
    ssm = FakeSsm()
    publish_lock(ssm, environment, "1", lock(ws_eco=PINS))
    forget_published_pins(ssm, environment)
    forget_published_pins(ssm, environment)
    assert read_published_pins(ssm, environment) is None


@pytest.mark.parametrize(
    "value", ["", "[]", "{}", '{"run": "1", "pins": {"ws-eco": {"hed": "x"}}, "lock": {}}']
)
def test_a_parameter_of_somebody_else_is_told(environment: Environment, value: str) -> None:
    ssm = FakeSsm()
    ssm.values["/clusterbox/ws-dev/images/pins"] = value
    with pytest.raises(ClusterboxError, match="images/pins is not what clusterbox writes"):
        read_published_pins(ssm, environment)


def test_the_largest_site_fits_into_a_parameter(environment: Environment) -> None:
    """8 KB is what SSM takes in the tier that is asked for."""
    ssm = FakeSsm()
    ami = "ami-0123456789abcdef0"
    queues = {f"queue-number-{n}": ami for n in range(10)}
    pins = {f"cluster-number-{n}": ClusterPins(head=ami, queues=queues) for n in range(15)}
    publish_pins(ssm, environment, "2026-11-22", pins, {"compute": ami})
    (value,) = ssm.values.values()
    assert len(value.encode()) <= 8192


def test_only_deploy_can_ignore_a_rollout(capsys: pytest.CaptureFixture[str]) -> None:
    accepted = []
    for command in ("deploy", "destroy", "show"):
        parser = argparse.ArgumentParser()
        site_commands.add_arguments(parser, command)
        try:
            accepted.append(parser.parse_args(["ws-dev", "--ignore-rollout"]).ignore_rollout)
        except SystemExit:
            assert "unrecognized arguments: --ignore-rollout" in capsys.readouterr().err
    assert accepted == [True]
