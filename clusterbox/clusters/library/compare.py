"""Compare two configurations of a cluster by ParallelCluster's own update policies.

Request: `{"base": configuration, "head": configuration, "fleet": running, "login": running}`.
Answer: `{"problems": {"base": [[location, message]], "head": ...}}` when the schema refuses one, or
`{"strategy": ..., "pools": [...], "running": scenario, "now": scenario, "changes": [...]}`.

A scenario is what has to hold for an update: the QueueUpdateStrategy of the new configuration,
whether the compute fleet runs and whether login nodes run. The library itself is asked in each;
the answer names the first that allows a change, or all of them, and null when none does.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

from botocore.exceptions import ClientError
from marshmallow import Schema, ValidationError, fields
from pcluster.config.common import Resource
from pcluster.config.config_patch import ConfigPatch
from pcluster.config.update_policy import UpdatePolicy
from pcluster.schemas.cluster_schema import ClusterSchema

from clusterbox.clusters.library import account
from clusterbox.clusters.library import schema as cluster_schema

# From what hurts running jobs least to what hurts them most.
STRATEGIES = ("COMPUTE_FLEET_STOP", "DRAIN", "TERMINATE")
# Lists whose items are known by a name that stands for nothing else.
_RENAMABLE = ("SlurmQueues", "ComputeResources", "Pools", "SharedStorage")
_ITEM = re.compile(r"(\w+)\[(.*)\]", re.DOTALL)


class Scenario(NamedTuple):
    """What holds for an update: strategy of the new configuration, and what runs."""

    strategy: str
    fleet: bool
    login: bool


# What can be done first, the least harmful to running jobs first. With a stopped fleet the
# strategy has nothing to do.
SCENARIOS = (
    *(Scenario(strategy, True, login) for strategy in STRATEGIES for login in (True, False)),
    *(Scenario(STRATEGIES[0], False, login) for login in (True, False)),
)


class Judgement(NamedTuple):
    """One change and what its policy says of it in one scenario."""

    change: Any
    allowed: bool
    reason: str | None
    action: str | None


def answer(cluster: str, request: dict[str, Any]) -> dict[str, Any]:
    """Return the changes from `base` to `head`, and the first scenario that allows them all."""
    _prepare()
    problems = {
        side: found
        for side in ("base", "head")
        if (found := _find_problems(cluster, request[side]))
    }
    if problems:
        return {"problems": problems}
    base, head = (normalise(ClusterSchema(cluster), request[side]) for side in ("base", "head"))
    # A policy asks for the region.
    os.environ["AWS_DEFAULT_REGION"] = head.get("Region") or "us-east-1"
    strategy = _strategy(head)
    running = Scenario(strategy, True, True)
    fleet = request["fleet"]
    now = Scenario(strategy if fleet else STRATEGIES[0], fleet, request["login"])
    judged = _judge(base, head)
    # Loading takes some 0.03 s, and few changes need it.
    values = cache(lambda: _effective(cluster, head))
    changes = []
    for index, judgement in enumerate(judged[now]):
        verdicts = {scenario: [judged[scenario][index]] for scenario in SCENARIOS}
        changes.append(
            {
                **_describe(cluster, head, values, judgement),
                "needs": _first(verdicts, SCENARIOS[0]),
                "now": _first(verdicts, now),
            }
        )
    _mark_renamed(changes)
    changes += _compare_strategies(base, head, now)
    return {
        "strategy": strategy,
        "pools": [pool["Name"] for pool in _pools(base) if pool.get("Count", 1) != 0],
        "running": _first(judged, running),
        "now": _first(judged, now),
        "changes": changes,
    }


class _NoAccount(account.Account):
    """The account of a comparison: it answers nothing, because policies judge the texts alone.

    The library asks for capacity reservations as soon as it loads a configuration that names one.
    """

    def __init__(self) -> None:
        super().__init__({"region": "us-east-1", "instance_types": []})

    def answer(self, service: str, operation: str, _asked: dict[str, Any]) -> dict[str, Any]:
        """Raise ClientError."""
        message = f"{service} is not asked in a comparison"
        raise ClientError({"Error": {"Code": "NotAsked", "Message": message}}, operation)


@cache
def _prepare() -> None:
    logging.disable(logging.ERROR)
    account.prepare()
    account.enter(_NoAccount())


def _first(judged: dict[Scenario, list[Judgement]], start: Scenario) -> dict[str, Any] | None:
    """Return the first scenario from `start` on in which every change is allowed."""
    for scenario in SCENARIOS:
        reachable = (
            scenario.fleet <= start.fleet
            and scenario.login <= start.login
            and (
                not scenario.fleet
                or STRATEGIES.index(scenario.strategy) >= STRATEGIES.index(start.strategy)
            )
        )
        if reachable and all(judgement.allowed for judgement in judged[scenario]):
            return scenario._asdict()
    return None


def _find_problems(cluster: str, configuration: dict[str, Any]) -> list[Any]:
    try:
        _, refused = cluster_schema.load(cluster, copy.deepcopy(configuration))
    except (TypeError, AttributeError, ValueError, KeyError) as error:
        # Some of the library's own checks take for granted that a section is a mapping.
        return [[[], f"ParallelCluster cannot read it: {error}"]]
    return [list(found) for found in refused]


def normalise(schema: Schema, section: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with its values in the types that the schema declares.

    CloudFormation hands every scalar over as text; the library compares what it is given, so that
    "3" and 3 would be a change. Keys with null are left out.
    """
    by_key = {field.data_key: field for field in schema.declared_fields.values()}
    return {
        key: _typed(by_key.get(key), value) for key, value in section.items() if value is not None
    }


def _typed(field: Any, value: Any) -> Any:
    if isinstance(field, fields.Nested):
        if isinstance(value, dict) and "Sequence" in value:  # of custom actions
            return {"Sequence": [normalise(field.schema, item) for item in value["Sequence"]]}
        if isinstance(value, list):
            return [normalise(field.schema, item) for item in value]
        return normalise(field.schema, value)
    if isinstance(field, fields.List) and isinstance(value, list):
        return [_typed(field.inner, item) for item in value]
    if isinstance(field, fields.Integer | fields.Float | fields.Boolean):
        return field.deserialize(value)
    if isinstance(field, fields.String):
        return value
    if isinstance(field, fields.Raw) and value in ("true", "false"):
        return value == "true"
    # Free settings, such as CustomSlurmSettings, have no types: as CloudFormation writes them.
    return _as_text(value)


def _as_text(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    return value if isinstance(value, str) else json.dumps(value)


def _strategy(configuration: dict[str, Any]) -> str:
    settings = configuration["Scheduling"].get("SlurmSettings", {})
    return str(settings.get("QueueUpdateStrategy", STRATEGIES[0]))


def _pools(configuration: dict[str, Any]) -> list[dict[str, Any]]:
    pools: list[dict[str, Any]] = configuration.get("LoginNodes", {}).get("Pools", [])
    return pools


class _Cluster:
    """All that the update policies ask of a cluster, for one scenario."""

    name = stack_name = "offline"

    def __init__(self, base: dict[str, Any], scenario: Scenario) -> None:
        self._fleet = scenario.fleet
        self._counts = {
            pool["Name"]: pool.get("Count", 1) if scenario.login else 0 for pool in _pools(base)
        }
        self._login: bool | None = None
        self.head_node_instance = type("HeadNode", (), {"state": "running"})()

    def has_running_capacity(self) -> bool:
        return self._fleet

    def has_running_login_nodes(self, pool_name: str | None = None) -> bool:
        # Like the library, which keeps the answer to its first question for every later one.
        if self._login is None:
            counts = self._counts
            asked = counts.values() if pool_name is None else [counts.get(pool_name, 0)]
            self._login = any(asked)
        return self._login


def _judge(base: dict[str, Any], head: dict[str, Any]) -> dict[Scenario, list[Judgement]]:
    """Return the judgement of every change in each scenario; the changes are always the same."""
    base, head = copy.deepcopy(base), copy.deepcopy(head)
    _align_file_systems(base, head)
    patch = ConfigPatch(_Cluster(base, SCENARIOS[0]), base_config=base, target_config=head)
    settings = patch.target_config["Scheduling"].setdefault("SlurmSettings", {})
    judged = {}
    for scenario in SCENARIOS:
        # The policies look at the cluster and at the strategy of the new configuration.
        patch.cluster = _Cluster(base, scenario)
        settings["QueueUpdateStrategy"] = scenario.strategy
        judged[scenario] = [
            _ask_policy(change, patch)
            for change in patch.changes
            if change.key != "QueueUpdateStrategy"
        ]
    return judged


def _ask_policy(change: Any, patch: ConfigPatch) -> Judgement:
    try:
        result, reason, action, _ = change.update_policy.check(change, patch)
    except AttributeError as error:
        # The library takes every change of a file system for one of the whole file system.
        failed = f"ParallelCluster's own check fails on this change: {error}"
        return Judgement(change, False, failed, None)
    return Judgement(change, result == UpdatePolicy.CheckResult.SUCCEEDED, reason, action)


def _align_file_systems(base: dict[str, Any], head: dict[str, Any]) -> None:
    """Give both sides of a file system the same sections, empty where they have none.

    The library fails on a list within a section that only one side has.
    """
    sides = [
        {item["Name"]: item for item in side.get("SharedStorage", [])} for side in (base, head)
    ]
    for name in sides[0].keys() & sides[1].keys():
        if any("FsxLustreSettings" in side[name] for side in sides):
            for side in sides:
                side[name].setdefault("FsxLustreSettings", {})


def _describe(
    cluster: str, head: dict[str, Any], values: Callable[[], Any], judgement: Judgement
) -> dict[str, Any]:
    change = judgement.change
    # The library writes "-" for a section that is absent.
    sides: list[Any] = [change.old_value, change.new_value]
    old, new = (None if value == "-" else value for value in sides)
    key = change.key
    if change.is_list:
        update_key = _list_key(ClusterSchema(cluster), [*change.path, key])
        item: Any = old if new is None else new
        key = f"{key}[{item[update_key]}]"
    path = [*change.path, key]
    location = _locate(ClusterSchema(cluster), head, path)
    return {
        "path": path,
        "location": location,
        "old": _stripped(old),
        "new": _stripped(new),
        "policy": change.update_policy.name,
        "allowed": judgement.allowed,
        "reason": None if judgement.allowed else judgement.reason,
        "action": judgement.action,
        "note": _note(cluster, head, values, path, old, new, change.is_list),
    }


def _compare_strategies(
    base: dict[str, Any], head: dict[str, Any], now: Scenario
) -> list[dict[str, Any]]:
    """Return the change of QueueUpdateStrategy, which the library does not count as one."""
    path = ["Scheduling", "SlurmSettings", "QueueUpdateStrategy"]
    old, new = (_value_at(side, path) for side in (base, head))
    if old == new:
        return []
    return [
        {
            "path": path,
            "location": _locate(ClusterSchema("offline"), head, path),
            "old": old,
            "new": new,
            "policy": UpdatePolicy.IGNORED.name,
            "allowed": True,
            "reason": None,
            "action": None,
            "note": "ignored",
            "needs": SCENARIOS[0]._asdict(),
            "now": now._asdict(),
        }
    ]


def _stripped(value: Any) -> Any:
    """Return a value without the sections that `_align_file_systems` has put in, and without marks.

    The library marks the items of lists that it has seen.
    """
    if isinstance(value, dict):
        return {
            key: _stripped(item)
            for key, item in value.items()
            if key != "visited" and not (key == "FsxLustreSettings" and item == {})
        }
    return [_stripped(item) for item in value] if isinstance(value, list) else value


def _note(
    cluster: str,
    head: dict[str, Any],
    values: Callable[[], Any],
    path: list[str],
    old: Any,
    new: Any,
    is_list: bool,
) -> str | None:
    """Return what else is to be known of a change: "default" or "order"."""
    if isinstance(old, list) and isinstance(new, list) and _unordered(old) == _unordered(new):
        return "order"
    if is_list or (old is not None and new is not None):
        return None
    other = copy.deepcopy(head)
    container: Any = other
    schema: Schema = ClusterSchema(cluster)
    for part in path[:-1]:
        found, schema = _step(schema, container, part)
        if found is None:
            # A section that only the old configuration has.
            container[part] = found = {}
        container = found
    if new is None:
        container[path[-1]] = old
    else:
        container.pop(path[-1], None)
    try:
        same = values() == _effective(cluster, other)
    except ValidationError:
        return None
    return "default" if same else None


def _unordered(values: list[Any]) -> list[str]:
    return sorted(json.dumps(value, sort_keys=True) for value in values)


def _effective(cluster: str, configuration: dict[str, Any]) -> Any:
    """Return all values that the library takes, its defaults included."""
    return _plain(ClusterSchema(cluster).load(copy.deepcopy(configuration)))


def _plain(value: Any) -> Any:
    if isinstance(value, Resource):
        plain = {
            name: _plain(item)
            for name, item in vars(value).items()
            if not name.startswith("_") and name not in ("implied", "source_config")
        }
        # A section in which everything is as it would be without it stands for none.
        defaults = {name: _plain(param.default) for name, param in value.params.items()}
        differs = any(
            (item or None) != (defaults.get(name) or None) for name, item in plain.items()
        )
        return plain if differs else None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _mark_renamed(changes: list[dict[str, Any]]) -> None:
    """Note where an item was removed and one of equal content but another name was added."""
    for removed in changes:
        for added in changes:
            if (
                removed["new"] is None
                and added["old"] is None
                and removed["path"][:-1] == added["path"][:-1]
                and removed["path"][-1].partition("[")[0] in _RENAMABLE
                and added["path"][-1].partition("[")[0] == removed["path"][-1].partition("[")[0]
                and {**removed["old"], "Name": ""} == {**added["new"], "Name": ""}
            ):
                names = f"{removed['old']['Name']} -> {added['new']['Name']}"
                removed["note"] = added["note"] = f"renamed: {names}"


def _locate(schema: Schema, head: dict[str, Any], path: Sequence[str]) -> list[str | int]:
    """Return where a path stands in the new configuration, or the nearest part that it has."""
    location: list[str | int] = []
    section: Any = head
    for part in path:
        item = _ITEM.fullmatch(part)
        key = item[1] if item else part
        if not isinstance(section, dict) or key not in section:
            break
        location.append(key)
        field = _field(schema, key)
        section, schema = section[key], getattr(field, "schema", schema)
        if item:
            update_key = field.metadata.get("update_key")
            names = [str(entry.get(update_key)) for entry in section]
            if item[2] not in names:
                break
            location.append(names.index(item[2]))
            section = section[names.index(item[2])]
    return location


def _step(schema: Schema, section: dict[str, Any], part: str) -> tuple[Any, Schema]:
    """Return what a part of a path holds, None where it is absent, and its schema."""
    item = _ITEM.fullmatch(part)
    key = item[1] if item else part
    field = _field(schema, key)
    inner: Schema = getattr(field, "schema", schema)
    found = section.get(key)
    if item and found is not None:
        update_key = field.metadata.get("update_key")
        found = next((entry for entry in found if str(entry.get(update_key)) == item[2]), None)
    return found, inner


def _list_key(schema: Schema, path: Sequence[str]) -> str:
    """Return the key by which the items of a list are told apart."""
    field: Any = None
    for part in path:
        field = _field(schema, part.partition("[")[0])
        schema = getattr(field, "schema", schema)
    return str(field.metadata.get("update_key"))


def _field(schema: Schema, key: str) -> Any:
    return next((field for field in schema.declared_fields.values() if field.data_key == key), None)


def _value_at(section: Any, path: Sequence[str]) -> Any:
    for part in path:
        section = section.get(part) if isinstance(section, dict) else None
    return section
