"""The steps that make a Slurm agree with the limits, and the script that takes them."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from clusterbox.costs import limits_apply
from clusterbox.costs.limits_apply import (
    AccountLimit,
    State,
    Step,
    Wanted,
    find_faults,
    find_ways_round,
    plan_steps,
    read_state,
)
from clusterbox.costs.limits_script import render_script
from tests.costs.limit_plans import cluster_of, plan_of

WANTED = Wanted("tiny-limits", 600, 4320, 40, {"rivers": AccountLimit(60, 5)})
ROOT_ROW = {
    "Account": "root",
    "User": "",
    "Partition": "",
    "GrpTRESMins": "",
    "GrpSubmitJobs": "",
    "MaxSubmitJobs": "",
    "MaxWall": "",
    "QOS": "normal",
    "DefaultQOS": "",
}
AS_WANTED = State(
    "tiny",
    {
        "tiny-limits": {
            "Name": "tiny-limits",
            "Description": "clusterbox limits: rivers",
            "Flags": "DenyOnLimit",
            "MaxWall": "3-00:00:00",
            "MaxSubmitJobsPU": "40",
            "GrpTRESMins": "",
            "UsageFactor": "1.000000",
        }
    },
    [
        {
            **ROOT_ROW,
            "GrpTRESMins": "billing=600",
            "MaxSubmitJobs": "40",
            "MaxWall": "3-00:00:00",
            "QOS": "tiny-limits",
            "DefaultQOS": "tiny-limits",
        },
        {
            **ROOT_ROW,
            "Account": "rivers",
            "QOS": "",
            "GrpTRESMins": "cpu=7,billing=60",
            "GrpSubmitJobs": "5",
        },
    ],
)


def commands(steps: list[Step]) -> list[str]:
    return [" ".join(step.words[2:]) for step in steps]


def test_a_new_cluster_gets_everything() -> None:
    fresh = State("tiny", {}, [ROOT_ROW])
    assert commands(plan_steps(WANTED, "tiny-limits", fresh)) == [
        "add qos tiny-limits Flags=DenyOnLimit MaxWall=4320 MaxSubmitJobsPerUser=40 "
        "UsageFactor=1 Description=clusterbox limits: rivers",
        "modify account root set GrpTRESMins=billing=600 MaxWall=4320 MaxSubmitJobs=40 "
        "QOS=tiny-limits DefaultQOS=tiny-limits where cluster=tiny",
        "add account rivers cluster=tiny",
        "modify account rivers set GrpTRESMins=billing=60 GrpSubmitJobs=5 where cluster=tiny",
    ]


def test_nothing_is_done_where_all_is_as_wanted() -> None:
    assert plan_steps(WANTED, "tiny-limits", AS_WANTED) == []


def test_only_what_differs_is_changed() -> None:
    wanted = replace(WANTED, minutes=601, accounts={"rivers": AccountLimit(60)})
    assert commands(plan_steps(wanted, "tiny-limits", AS_WANTED)) == [
        "modify account root set GrpTRESMins=billing=601 where cluster=tiny",
        "modify account rivers set GrpSubmitJobs=-1 where cluster=tiny",
    ]


def test_an_account_is_forgotten_only_when_its_limit_is_gone() -> None:
    wanted = replace(WANTED, accounts={"lakes": AccountLimit(60)})
    found = commands(plan_steps(wanted, "tiny-limits", AS_WANTED))
    assert found == [
        "modify qos tiny-limits set Description=clusterbox limits: lakes rivers",
        "add account lakes cluster=tiny",
        "modify account lakes set GrpTRESMins=billing=60 where cluster=tiny",
        "modify account rivers set GrpTRESMins=billing=-1 GrpSubmitJobs=-1 where cluster=tiny",
        "modify qos tiny-limits set Description=clusterbox limits: lakes",
    ]


def test_without_a_budget_all_limits_go() -> None:
    assert commands(plan_steps(None, "tiny-limits", AS_WANTED)) == [
        "modify account rivers set GrpTRESMins=billing=-1 GrpSubmitJobs=-1 where cluster=tiny",
        "modify account root set GrpTRESMins=billing=-1 MaxWall=-1 MaxSubmitJobs=-1 "
        "QOS=normal DefaultQOS=-1 where cluster=tiny",
        "delete qos tiny-limits",
    ]


def test_without_a_budget_a_cluster_that_has_no_limits_is_left_alone() -> None:
    other = State("tiny", {}, [{**ROOT_ROW, "GrpTRESMins": "billing=5"}])
    assert plan_steps(None, "tiny-limits", other) == []


def test_a_qos_with_which_jobs_would_bill_less_is_mended() -> None:
    row = {**AS_WANTED.qos["tiny-limits"], "UsageFactor": "0.000000"}
    state = replace(AS_WANTED, qos={"tiny-limits": row})
    assert commands(plan_steps(WANTED, "tiny-limits", state)) == [
        "modify qos tiny-limits set UsageFactor=1"
    ]


def test_what_goes_round_the_limits_is_told() -> None:
    rows = [
        {**ROOT_ROW, "Account": "rivers", "User": "ada", "QOS": "+free"},
        {**ROOT_ROW, "Account": "rivers", "User": "bea", "QOS": ""},
    ]
    state = replace(AS_WANTED, associations=[*AS_WANTED.associations, *rows])
    assert find_ways_round(WANTED, state) == [
        "user ada of account rivers may use QOS free, which can lift limits"
    ]
    assert "no user but root may submit" in find_ways_round(WANTED, AS_WANTED)[0]


def test_a_running_slurm_without_the_settings_is_told() -> None:
    answers = {
        "config": "ClusterName = tiny\nMaxArraySize = 5\n",
        "partitions": "PartitionName=eco State=UP TRESBillingWeights=CPU=1.0\n"
        "PartitionName=old State=UP\n",
    }
    wanted = replace(WANTED, settings={"MaxArraySize": "1001"}, partitions={"eco": "CPU=48"})
    assert find_faults(wanted, lambda *words: answers[words[2]]) == [
        "slurm.conf: MaxArraySize is 5, and must be 1001",
        "partition eco: TRESBillingWeights is CPU=1.0, and must be CPU=48",
        "partition old: has no price, its jobs are not billed in USD",
    ]


def test_the_state_is_read_from_slurms_tables() -> None:
    answers = {
        "config": "ClusterName             = tiny\n",
        "qos": "tiny-limits|clusterbox limits: rivers|DenyOnLimit||40||1.000000\n",
        "assoc": "root|||billing=7|||||normal|\nroot|root||||||||\n",
    }
    state = read_state(lambda *words: next(answers[w] for w in words if w in answers))
    assert state.cluster == "tiny"
    assert state.managed("tiny-limits") == ["rivers"]
    root = state.account("root") or {}
    assert (root["User"], root["GrpTRESMins"]) == ("", "billing=7")
    assert state.account("lakes") is None


def test_it_needs_only_the_standard_library_of_an_older_python(tmp_path: Path) -> None:
    script = render_script(plan_of(cluster_of(tmp_path)))
    program = script.partition("<<'CLUSTERBOX_END'\n")[2].partition("CLUSTERBOX_END")[0]
    tree = ast.parse(program, feature_version=(3, 9))
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= set(sys.stdlib_module_names)
    assert Path(limits_apply.__file__).read_text() in program


def test_it_fails_when_slurm_refuses_a_change(tmp_path: Path) -> None:
    commands = {
        "scontrol": "echo 'ClusterName = tiny'",
        "sacctmgr": 'case "$*" in *show*assoc*) echo "root|||||||normal|";; *show*) ;; '
        "*) echo 'access denied' >&2; exit 1;; esac",
    }
    for name, text in commands.items():
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    done = subprocess.run(
        ["bash", "-s"],
        input=render_script(plan_of(cluster_of(tmp_path))),
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "access denied" in done.stderr
    assert "Traceback" not in done.stderr
