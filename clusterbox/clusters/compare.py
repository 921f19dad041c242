"""Compare configurations of clusters: what changes, what has to be done first, what jobs notice.

ParallelCluster's own update policies decide, in its own environment (`library/compare.py`); this
module puts their answer in words (docs/cluster-changes.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clusterbox.clusters.older_schemas import explain_removed
from clusterbox.clusters.process import ask_library
from clusterbox.clusters.removed_storage import describe_fate, find_mount
from clusterbox.clusters.update_policies import Need, Verdict, find_policy
from clusterbox.errors import Problem
from clusterbox.pcluster import Pcluster
from clusterbox.site.yaml_file import Location, render_path

__all__ = ["Change", "Comparison", "Need", "Verdict", "compare_clusters"]

Configuration = Mapping[str, Any]

# Policies where a new cluster would not help, or is far too much: the change is simply not made.
_REVERTED = frozenset(
    {"READ_ONLY_RESOURCE_BUCKET", "SHARED_STORAGE_UPDATE_POLICY", "EXTRA_CHEF_ATTRIBUTES"}
)


@dataclass(frozen=True)
class Change:
    """One changed parameter, and what ParallelCluster says of it.

    `path` is the library's, with names (`Scheduling.SlurmQueues[eco].CapacityType`); `location` is
    that of the value, or of what encloses it, in the new configuration. `old` and `new` are None
    where the parameter is absent; they may hold secrets. `needs` is the smallest that unlocks the
    change as things stand, empty when it can be applied now. `verdict` is for a running cluster.
    """

    path: str
    location: Location
    old: Any
    new: Any
    policy: str
    allowed: bool
    reason: str | None
    needs: tuple[Need, ...]
    verdict: Verdict
    note: str | None

    @property
    def step(self) -> str:
        """What has to be done first, in a few words; `nothing` when it can be applied now."""
        return " and ".join(self.needs) or Need.NOTHING


@dataclass(frozen=True)
class Comparison:
    """The judgement of one cluster's change.

    `verdict` is for a cluster that runs; `allowed` and `steps` are for the state of fleet and
    login nodes that was given. `steps` are what to do in order, the deployment included, and empty
    when deploying is all there is to do. `jobs` says what running jobs notice. `problems` are
    what the schema refuses; with any, nothing else is known.
    """

    cluster: str
    verdict: Verdict
    allowed: bool
    changes: tuple[Change, ...]
    steps: tuple[str, ...]
    jobs: str
    problems: tuple[Problem, ...] = ()


def compare_clusters(
    pcluster: Pcluster,
    pairs: Mapping[str, tuple[Configuration | None, Configuration | None]],
    *,
    fleet_running: bool = True,
    login_running: bool = True,
    note: Callable[[str], None] = lambda _: None,
) -> dict[str, Comparison]:
    """Return the comparison of each cluster's old and new configuration.

    None stands for a cluster that was added or removed. One process judges them all: it takes
    about 2 s to start and some 0.1 s for each cluster; equal pairs do not start it. A key may be
    `ENVIRONMENT/CLUSTER`; steps then name both as commands do. `note` is told each key when it is
    done. Raises PclusterError when the process fails.
    """
    asked: dict[str, dict[str, Any]] = {}
    known: dict[str, Comparison] = {}
    for key, (base, head) in pairs.items():
        if base is None or head is None:
            known[key] = _added_or_removed(key, added=base is None)
        elif base == head:
            known[key] = _unchanged(_name(key))
        else:
            asked[key] = {
                "base": base,
                "head": head,
                "fleet": fleet_running,
                "login": login_running,
            }
    answers = ask_library(pcluster, "compare", asked, note) if asked else {}
    for key, answer in answers.items():
        known[key] = _comparison(
            _name(key),
            asked[key],
            answer,
            fleet_running=fleet_running,
            login_running=login_running,
        )
    return {key: known[key] for key in pairs}


def _name(key: str) -> str:
    return key.rpartition("/")[2]


def _unchanged(cluster: str) -> Comparison:
    return Comparison(cluster, Verdict.UNCHANGED, True, (), (), "Running jobs go on.")


def _added_or_removed(key: str, *, added: bool) -> Comparison:
    environment, _, name = key.rpartition("/")
    if added:
        return Comparison(
            name, Verdict.ADDED, True, (), (), "A new cluster: no job runs on it yet."
        )
    return Comparison(
        name,
        Verdict.REMOVED,
        True,
        (),
        (f"End the cluster with `clusterbox destroy {environment or 'ENV'} --cluster {name}`",),
        "The cluster goes on running, and costing, until it is destroyed: its jobs end then.",
    )


def _comparison(
    cluster: str,
    asked: Mapping[str, Any],
    answer: Mapping[str, Any],
    *,
    fleet_running: bool,
    login_running: bool,
) -> Comparison:
    """Return the comparison of one cluster from the library's answer."""
    if "problems" in answer:
        return _refused(cluster, asked, answer["problems"])
    if not answer["changes"]:
        return _unchanged(cluster)
    running = answer["running"]
    strategy = running["strategy"] if running else answer["strategy"]
    state = {"strategy": answer["strategy"], "fleet": fleet_running, "login": login_running}
    changes = sorted(
        (_change(item, strategy, state) for item in answer["changes"]),
        key=lambda change: (-change.verdict.rank, change.path),
    )
    verdict = changes[0].verdict
    if running and not running["fleet"]:
        # What would drain by itself waits for the stopped fleet with the others.
        verdict = Verdict.STOPS
    return Comparison(
        cluster=cluster,
        verdict=verdict,
        allowed=all(change.allowed for change in changes),
        changes=tuple(changes),
        steps=_steps(cluster, answer, state, changes),
        jobs=_jobs(verdict, changes, answer, fleet_running=fleet_running),
    )


def _refused(
    cluster: str,
    asked: Mapping[str, Any],
    problems: Mapping[str, Sequence[tuple[Location, str]]],
) -> Comparison:
    sides = {"base": "the old configuration", "head": "the new configuration"}
    found = []
    for side, refused in problems.items():
        for location, message in refused:
            path = render_path(location)
            older = explain_removed(path, message, asked[side])
            text = " ".join(filter(None, (message, older)))
            found.append(Problem(f"{cluster}, {sides[side]}", path, text))
    why = "Not known: the schema refuses it."
    return Comparison(cluster, Verdict.UNKNOWN, False, (), (), why, tuple(found))


def _change(item: Mapping[str, Any], strategy: str, state: Mapping[str, Any]) -> Change:
    policy = find_policy(item["policy"])
    return Change(
        path=".".join(item["path"]),
        location=tuple(item["location"]),
        old=item["old"],
        new=item["new"],
        policy=policy.name,
        allowed=item["allowed"],
        reason=item["reason"],
        needs=_needs(policy.name, item["now"], state),
        verdict=(
            Verdict.UNCHANGED if item["note"] == "ignored" else _verdict(item["needs"], strategy)
        ),
        note="; ".join(filter(None, (_note(item), _fate(item)))) or None,
    )


def _needs(
    policy: str, scenario: Mapping[str, Any] | None, state: Mapping[str, Any]
) -> tuple[Need, ...]:
    """Return what leads from a state to a scenario that allows the change; None is no scenario."""
    if scenario is None:
        return (Need.REVERT if policy in _REVERTED else Need.NEW_CLUSTER,)
    needs = []
    if scenario["fleet"] != state["fleet"]:
        needs.append(Need.FLEET_STOPPED)
    elif scenario["fleet"] and scenario["strategy"] != state["strategy"]:
        needs.append(Need.DRAIN if scenario["strategy"] == "DRAIN" else Need.TERMINATE)
    if scenario["login"] != state["login"]:
        needs.append(Need.LOGIN_TO_ZERO)
    return tuple(needs)


def _verdict(needed: Mapping[str, Any] | None, strategy: str) -> Verdict:
    """Return what a change does to a running cluster that is updated with a strategy."""
    if needed is None:
        return Verdict.REPLACES
    if not needed["fleet"]:
        return Verdict.STOPS
    if needed["strategy"] == "TERMINATE":
        return Verdict.TERMINATES
    if needed["strategy"] == "DRAIN":
        # It is allowed because nodes are replaced; the strategy says what happens to their jobs.
        return Verdict.TERMINATES if strategy == "TERMINATE" else Verdict.DRAINS
    return Verdict.LIVE if needed["login"] else Verdict.STOPS_LOGIN


def _note(item: Mapping[str, Any]) -> str | None:
    note = item["note"]
    if note == "default":
        kept = "leaving it out" if item["old"] is None else "keeping it"
        return f"the value is ParallelCluster's default: {kept} has the same effect and no update"
    if note == "order":
        return "the same values in another order: the old order has the same effect and no update"
    if note == "ignored":
        return "no update by itself: it counts, and is kept, with another change only"
    if note is not None:
        names = note.removeprefix("renamed: ")
        return f"renamed? {names}: ParallelCluster removes the one and adds the other"
    return None


def _fate(item: Mapping[str, Any]) -> str | None:
    return describe_fate(".".join(item["path"]), item["old"], item["new"])


def _steps(
    cluster: str, answer: Mapping[str, Any], state: Mapping[str, Any], changes: Sequence[Change]
) -> tuple[str, ...]:
    """Return what to do in order, with the smallest set that unlocks all changes."""
    scenario = answer["now"]
    if scenario is None:
        return _steps_without_update(changes)
    needs = _needs("", scenario, state)
    if not needs:
        return ()
    fleet = f"`pcluster update-compute-fleet --cluster-name {cluster} --status"
    pools = ", ".join(answer["pools"])
    before, after = [], []
    if Need.LOGIN_TO_ZERO in needs:
        before.append(f"Deploy the old configuration with Count: 0 in the login pools {pools}")
        after.append("Deploy Count of the login pools as wanted, if it is not so yet")
    for need in (Need.DRAIN, Need.TERMINATE):
        if need in needs:
            before.append(f"Set Scheduling.SlurmSettings.{need} in the new configuration")
    if Need.FLEET_STOPPED in needs:
        before.append(f"Stop the compute fleet, and wait until it is: {fleet} STOP_REQUESTED`")
        after.insert(0, f"Start the compute fleet: {fleet} START_REQUESTED`")
    return (*before, "Deploy the new configuration", *after)


def _steps_without_update(changes: Sequence[Change]) -> tuple[str, ...]:
    """Return what to do where no state of the cluster allows the update."""
    reverted = [change.path for change in changes if Need.REVERT in change.needs]
    blocked = [change.path for change in changes if Need.NEW_CLUSTER in change.needs]
    steps = []
    if reverted:
        steps.append(f"Revert {', '.join(reverted)}")
    if blocked:
        steps.append(
            f"Revert {', '.join(blocked)}; or add a cluster of another name with the new"
            " configuration, let the old one's jobs finish, and destroy it"
        )
    return tuple(steps)


def _jobs(
    verdict: Verdict, changes: Sequence[Change], answer: Mapping[str, Any], *, fleet_running: bool
) -> str:
    """Return what running jobs notice, and which files are deleted, in a few sentences."""
    if verdict is Verdict.REPLACES:
        return "This cluster cannot be changed so: its jobs go on as they are, on the old one."
    fates = [describe_fate(change.path, change.old, change.new) for change in changes]
    noticed = _noticed(verdict, changes, answer, fleet_running=fleet_running)
    return " ".join([noticed, *(f"{fate}." for fate in fates if fate is not None)])


def _noticed(
    verdict: Verdict, changes: Sequence[Change], answer: Mapping[str, Any], *, fleet_running: bool
) -> str:
    if not fleet_running:
        return "No job runs while the compute fleet is stopped."
    logged_out = f"Users on the login nodes {', '.join(answer['pools'])} are logged out."
    loses_login = bool(answer["pools"]) and not answer["running"]["login"]
    if verdict is Verdict.STOPS:
        stopped = (
            "Stopping the compute fleet ends every running job. Waiting jobs stay in their queues,"
            " and new ones are refused, until it is started again."
        )
        return f"{stopped} {logged_out}" if loses_login else stopped
    sentences = []
    drained = [change for change in changes if change.verdict is Verdict.DRAINS]
    ended = [change for change in changes if change.verdict is Verdict.TERMINATES]
    if ended:
        sentences.append(_ended_jobs(ended))
    if drained:
        sentences.append(
            f"Running jobs {_queues(drained)} finish; their nodes take no new job and are replaced"
            " as soon as they are idle."
        )
    if not sentences:
        sentences.append("Running jobs go on.")
    if loses_login:
        sentences.append(logged_out)
    mounts = [find_mount(change.path, change.old, change.new) for change in changes]
    sentences += [f"Jobs that use {mount} lose it." for mount in mounts if mount is not None]
    updated = [change for change in changes if change.verdict is not Verdict.UNCHANGED]
    if any(change.path.startswith("Scheduling.") for change in updated):
        sentences.append("Slurm's controller restarts: its commands fail for some seconds.")
    return " ".join(sentences)


def _ended_jobs(changes: Sequence[Change]) -> str:
    """Return the sentence for changes with TERMINATE."""
    removed = [change for change in changes if change.policy.startswith("RESIZE_")]
    replaced = [change for change in changes if change not in removed]
    wheres = []
    if replaced:
        wheres.append(_queues(replaced))
    if removed:
        wheres.append(f"on the nodes that go ({', '.join(change.path for change in removed)})")
    return (
        f"Running jobs {' and '.join(wheres)} end at once, with QueueUpdateStrategy: TERMINATE;"
        " Slurm queues those again that may be requeued."
    )


def _queues(changes: Sequence[Change]) -> str:
    """Return the queues that the changes are in; a change outside of queues concerns them all."""
    names = [change.path.partition("SlurmQueues[")[2].partition("]")[0] for change in changes]
    if not all(names):
        return "in every queue"
    unique = list(dict.fromkeys(sorted(names)))
    return f"in the queue{'s' if len(unique) > 1 else ''} {', '.join(unique)}"
