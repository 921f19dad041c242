"""Make a Slurm agree with the limits of a file: read what is, plan the steps, take them.

The head node runs this very file at its start (`limits_script.py`), so that it needs nothing but
Slurm's commands and Python 3.9's standard library.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

# Runs a command of Slurm and returns what it printed; raises when the command fails.
Run = Callable[..., str]

# Accounts that were given a limit stand in the description of the cluster's QOS, so that the limit
# can be taken away when the file no longer names the account. Accounts of others are never touched.
_MARK = "clusterbox limits:"
_ASSOCIATION = (
    "Account,User,Partition,GrpTRESMins,GrpSubmitJobs,MaxSubmitJobs,MaxWall,QOS,DefaultQOS"
)
_QOS = "Name,Description,Flags,MaxWall,MaxSubmitJobsPU,GrpTRESMins,UsageFactor"
_MINUTES_PER_USD = 60_000_000
# Weights that differ by less are the same to a budget.
_TOLERANCE = 0.001


@dataclass(frozen=True)
class AccountLimit:
    """What an account may bill in a month, and how many jobs it may have; None for no such limit."""

    minutes: int
    max_submit_jobs: int | None = None


@dataclass(frozen=True)
class Wanted:
    """The limits of a cluster: billing-minutes a month of all jobs and of accounts, and the rest.

    `settings` and `partitions` (`TRESBillingWeights` by partition) belong in slurm.conf; they are
    only compared with it.
    """

    qos: str
    minutes: int
    max_wall_minutes: int
    max_submit_jobs: int
    accounts: dict[str, AccountLimit]
    settings: dict[str, str] = field(default_factory=dict)
    partitions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One command of sacctmgr, and what it changes: setting, what it is, what it will be."""

    subject: str
    changes: tuple[tuple[str, str, str], ...]
    words: tuple[str, ...]


@dataclass(frozen=True)
class State:
    """What the accounting database has for a cluster: rows of sacctmgr by the names of `format=`."""

    cluster: str
    qos: dict[str, dict[str, str]]
    associations: list[dict[str, str]]

    def account(self, name: str) -> dict[str, str] | None:
        """Return the limits of an account's own, None when the cluster has no such account."""
        found = (row for row in self.associations if row["Account"] == name and not row["User"])
        return next(found, None)

    def managed(self, qos: str) -> list[str]:
        """Return the accounts that were given a limit before."""
        text = self.qos.get(qos, {}).get("Description", "")
        return text[len(_MARK) :].split() if text.startswith(_MARK) else []


def qos_name(cluster: str) -> str:
    """Return the name of the QOS that holds a cluster's limits; several clusters may share a database."""
    return f"{cluster.lower()}-limits"


def read_state(run: Run) -> State:
    """Return what the accounting database has for the cluster that `run` leads to."""
    cluster = _configuration(run)["ClusterName"]
    table = ("sacctmgr", "--parsable2", "--noheader", "show")
    qos = _rows(run(*table, "qos", f"format={_QOS}"), _QOS)
    # Without those that are inherited.
    associations = run(*table, "assoc", f"cluster={cluster}", "woplimits", f"format={_ASSOCIATION}")
    return State(cluster, {row["Name"]: row for row in qos}, _rows(associations, _ASSOCIATION))


def plan_steps(wanted: Wanted | None, qos: str, state: State) -> list[Step]:
    """Return what has to be done, nothing when Slurm agrees; without `wanted` all limits go.

    `qos` is the name of the cluster's QOS. What is done is noted first, so that a run that was
    interrupted can be taken up or undone by the next.
    """
    managed = state.managed(qos)
    named = sorted(wanted.accounts) if wanted else []
    gone = [name for name in managed if name not in named and state.account(name)]
    steps: list[Step] = []
    if wanted is not None:
        steps += _qos_steps(wanted, state, sorted({*named, *gone}))
        steps += _root_steps(wanted, state)
        for name in named:
            steps += _account_steps(name, wanted.accounts[name], state)
    for name in gone:
        steps += _account_steps(name, None, state)
    if wanted is not None and gone:
        steps.append(_describe(wanted.qos, sorted({*named, *gone}), named))
    if wanted is None and qos in state.qos:
        steps += _removal_steps(qos, state)
    return steps


def take(steps: list[Step], run: Run) -> None:
    """Run the steps in their order; the first that fails ends it with its error."""
    for step in steps:
        run(*step.words)


def find_faults(wanted: Wanted, run: Run) -> list[str]:
    """Return, in sentences, why the limits do not hold in a running Slurm; [] when they do."""
    configuration = _configuration(run)
    faults = [
        f"slurm.conf: {key} is {configuration.get(key, 'not set')}, and must be {value}"
        for key, value in wanted.settings.items()
        if not is_setting(key, configuration.get(key, ""), value)
    ]
    text = run("scontrol", "show", "partitions", "--all", "--oneliner")
    for name, line in re.findall(r"^PartitionName=(\S+)(.*)$", text, re.MULTILINE):
        weights = re.search(r" TRESBillingWeights=(\S+)", line)
        found = weights.group(1) if weights else ""
        if name not in wanted.partitions:
            faults.append(f"partition {name}: has no price, its jobs are not billed in USD")
        elif not is_setting("TRESBillingWeights", found, wanted.partitions[name]):
            must = wanted.partitions[name]
            faults.append(
                f"partition {name}: TRESBillingWeights is {found or 'not set'}, and must be {must}"
            )
    return faults


def find_ways_round(wanted: Wanted, state: State) -> list[str]:
    """Return, in sentences, what somebody has allowed in Slurm that goes round the limits."""
    found = []
    for row in state.associations:
        who = (
            f"user {row['User']} of account {row['Account']}"
            if row["User"]
            else (f"account {row['Account']}")
        )
        others = sorted({*_names(row["QOS"]), *_names(row["DefaultQOS"])} - {wanted.qos})
        if others and (row["Account"] != "root" or row["User"]):
            found.append(f"{who} may use QOS {', '.join(others)}, which can lift limits")
    if not any(row["User"] and row["User"] != "root" for row in state.associations):
        found.append("no user but root may submit: sacctmgr add user NAME account=ACCOUNT")
    return found


def is_setting(key: str, found: str, must: str) -> bool:
    """Return whether a parameter's value is as strict as it must be."""
    if key in ("AccountingStorageEnforce", "PriorityFlags", "AccountingStorageTRES"):
        return {*must.lower().split(",")} <= {*found.lower().split(",")}
    if key == "MaxJobCount":
        return found.isdigit() and int(found) >= int(must)
    if key == "PriorityDecayHalfLife":
        # slurmctld prints the time in full.
        return found in ("0", "00:00:00")
    if key == "TRESBillingWeights":
        return _same_weights(_weights(found), _weights(must))
    return found.lower() == must.lower()


def usd(minutes: str) -> str:
    """Return billing-minutes as they are shown: in USD."""
    return f"{int(minutes) / _MINUTES_PER_USD:.2f} USD" if minutes.isdigit() else minutes or "none"


def _qos_steps(wanted: Wanted, state: State, marked: list[str]) -> list[Step]:
    must = {
        "Flags": "DenyOnLimit",
        "MaxWall": str(wanted.max_wall_minutes),
        "MaxSubmitJobsPerUser": str(wanted.max_submit_jobs),
        "UsageFactor": "1",
        "Description": _mark(marked),
    }
    row = state.qos.get(wanted.qos)
    if row is None:
        changes = tuple((key, "none", value) for key, value in must.items())
        words = ("add", "qos", wanted.qos, *(f"{key}={value}" for key, value in must.items()))
        return [Step(f"QOS {wanted.qos}", changes, _sacctmgr(*words))]
    found = {
        "Flags": row["Flags"],
        "MaxWall": _minutes(row["MaxWall"]),
        "MaxSubmitJobsPerUser": row["MaxSubmitJobsPU"],
        "UsageFactor": f"{float(row['UsageFactor'] or 0):g}",
        "Description": row["Description"],
    }
    words = ("modify", "qos", wanted.qos, "set")
    return _modify(f"QOS {wanted.qos}", found, must, words, ())


def _root_steps(wanted: Wanted, state: State) -> list[Step]:
    row = state.account("root") or {}
    must = {
        "GrpTRESMins": str(wanted.minutes),
        "MaxWall": str(wanted.max_wall_minutes),
        "MaxSubmitJobs": str(wanted.max_submit_jobs),
        "QOS": wanted.qos,
        "DefaultQOS": wanted.qos,
    }
    found = {
        "GrpTRESMins": _billing(row.get("GrpTRESMins", "")),
        "MaxWall": _minutes(row.get("MaxWall", "")),
        "MaxSubmitJobs": row.get("MaxSubmitJobs", ""),
        "QOS": row.get("QOS", ""),
        "DefaultQOS": row.get("DefaultQOS", ""),
    }
    words = ("modify", "account", "root", "set")
    return _modify("cluster", found, must, words, ("where", f"cluster={state.cluster}"))


def _account_steps(name: str, limit: AccountLimit | None, state: State) -> list[Step]:
    row = state.account(name)
    steps = []
    subject = f"account {name}"
    if row is None:
        words = ("add", "account", name, f"cluster={state.cluster}")
        steps.append(Step(subject, (("account", "none", "added"),), _sacctmgr(*words)))
        row = {"GrpTRESMins": "", "GrpSubmitJobs": ""}
    most = limit.max_submit_jobs if limit else None
    must = {
        "GrpTRESMins": str(limit.minutes) if limit else "",
        "GrpSubmitJobs": "" if most is None else str(most),
    }
    found = {"GrpTRESMins": _billing(row["GrpTRESMins"]), "GrpSubmitJobs": row["GrpSubmitJobs"]}
    where = ("where", f"cluster={state.cluster}")
    return steps + _modify(subject, found, must, ("modify", "account", name, "set"), where)


def _removal_steps(qos: str, state: State) -> list[Step]:
    row = state.account("root") or {}
    found = {
        "GrpTRESMins": _billing(row.get("GrpTRESMins", "")),
        "MaxWall": _minutes(row.get("MaxWall", "")),
        "MaxSubmitJobs": row.get("MaxSubmitJobs", ""),
        "QOS": row.get("QOS", ""),
        "DefaultQOS": row.get("DefaultQOS", ""),
    }
    must = {**dict.fromkeys(found, ""), "QOS": "normal"}
    words = ("modify", "account", "root", "set")
    steps = _modify("cluster", found, must, words, ("where", f"cluster={state.cluster}"))
    gone = (("QOS", "there", "removed"),)
    return [*steps, Step(f"QOS {qos}", gone, _sacctmgr("delete", "qos", qos))]


def _describe(qos: str, before: list[str], after: list[str]) -> Step:
    changes = (("Description", _mark(before), _mark(after)),)
    words = _sacctmgr("modify", "qos", qos, "set", f"Description={_mark(after)}")
    return Step(f"QOS {qos}", changes, words)


def _mark(accounts: list[str]) -> str:
    return " ".join([_MARK, *accounts])


def _modify(
    subject: str,
    found: dict[str, str],
    must: dict[str, str],
    words: tuple[str, ...],
    where: tuple[str, ...],
) -> list[Step]:
    """Return the step that changes what differs, nothing when all is as it must be."""
    differing = [key for key in must if found[key] != must[key]]
    if not differing:
        return []
    changes = []
    given = []
    for key in differing:
        is_money = key == "GrpTRESMins"
        shown = [usd(value) if is_money else value or "none" for value in (found[key], must[key])]
        changes.append((key, shown[0], shown[1]))
        # -1 takes a limit away.
        given.append(f"{key}={'billing=' if is_money else ''}{must[key] or '-1'}")
    return [Step(subject, tuple(changes), _sacctmgr(*words, *given, *where))]


def _sacctmgr(*words: str) -> tuple[str, ...]:
    return ("sacctmgr", "--immediate", *words)


def _configuration(run: Run) -> dict[str, str]:
    pairs = (line.partition("=") for line in run("scontrol", "show", "config").splitlines())
    return {key.strip(): value.strip() for key, equals, value in pairs if equals}


def _rows(text: str, columns: str) -> list[dict[str, str]]:
    # By our own names of the columns: those of sacctmgr's header differ from what it is asked for.
    names = columns.split(",")
    lines = (line.split("|") for line in text.splitlines() if line)
    return [dict(zip(names, cells)) for cells in lines]  # noqa: B905 -- Python 3.9 has no `strict`


def _names(text: str) -> list[str]:
    # `+name` and `-name` add to what is inherited, or take from it.
    return [name.lstrip("+") for name in text.split(",") if name and not name.startswith("-")]


def _billing(text: str) -> str:
    found = re.search(r"(?:^|,)billing=(\d+)", text)
    return found.group(1) if found else ""


def _minutes(text: str) -> str:
    """Return the minutes of `days-hours:minutes:seconds`, the way sacctmgr prints times."""
    if not text:
        return ""
    days, _, clock = text.rpartition("-")
    hours, minutes, _seconds = clock.split(":")
    return str((int(days or 0) * 24 + int(hours)) * 60 + int(minutes))


def _weights(text: str) -> dict[str, float]:
    found = {}
    for part in text.lower().split(","):
        name, equals, value = part.partition("=")
        number = re.match(r"([\d.]+)(g?)$", value)
        if equals and number:
            found[f"{name}{number.group(2)}"] = float(number.group(1))
    return found


def _same_weights(found: dict[str, float], must: dict[str, float]) -> bool:
    return found.keys() == must.keys() and all(
        abs(found[name] - weight) <= _TOLERANCE * weight for name, weight in must.items()
    )
