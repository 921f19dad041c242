"""Limits in USD on a real slurmctld with slurmdbd; one cluster for all of these tests."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusterbox.cli.main import main
from clusterbox.clusters.composed import compose_repository
from clusterbox.costs.limits import LimitPlan, load_plan
from clusterbox.costs.limits_script import render_script
from clusterbox.costs.limits_settings import fragment
from clusterbox.costs.limits_usage import fetch_uses
from clusterbox.costs.prices import load_prices
from clusterbox.embedded.slurm import Options, SlurmCluster
from clusterbox.slurm import SlurmError
from tests.conftest import ROOT
from tests.slurm_cluster import needs_slurm, wait_for, wait_for_job

pytestmark = [
    *needs_slurm,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root submits for other users"),
]

CLUSTER = "ws-eco"
ENVIRONMENT = Path("environments/ws-dev.yaml")
MOST_JOBS = 40
BUDGET = {
    "monthly_usd": 700,
    "max_wall_hours": 72,
    "max_submit_jobs": MOST_JOBS,
    "max_array_size": 1001,
    "accounts": {
        "rivers": {"monthly_usd": 0.05},
        "lakes": {"monthly_usd": 100, "max_submit_jobs": 3},
        "open": {"monthly_usd": 600},
    },
}
# 0.384 USD/h of an m6i.2xlarge, the dearest type of a queue, and 60 GiB of gp3 at 0.08 USD a month.
NODE_USD = Decimal("0.384") + 60 * Decimal("0.08") / 730
NODE_CPUS = 8
# 95 % of 32 GiB.
NODE_MIB = 31129


@dataclass(frozen=True)
class Site:
    """A repository with one cluster, and the Slurm that runs it."""

    root: Path
    slurm: SlurmCluster

    def limits(self, *words: str) -> int:
        """Run `clusterbox costs limits` against the Slurm; return its exit code."""
        verb = [word for word in words[:1] if not word.startswith("--")]
        given = [*verb, CLUSTER, "--slurm-conf", str(self.slurm.layout.slurm_conf)]
        rest = words[len(verb) :]
        return main(["--root", str(self.root), "costs", "limits", *given, *rest])

    def set_budget(self, **changes: Any) -> None:
        """Write the environment file with a budget that differs in some keys; None takes it out."""
        write_budget(self.root, None if "none" in changes else {**BUDGET, **changes})

    def submit(self, *options: str, user: str = "daemon", script: str = "sleep 1") -> str:
        """Submit a job of an ordinary user and return its id."""
        given = [f"--uid={user}", f"--gid={user}", "--output=/dev/null", "--chdir=/", "--mem=100"]
        return self.slurm.door.submit(script, *given, *options)

    def own_limits(self) -> dict[str, str]:
        """Return the billing-minutes of each account's own limit, as the database has them."""
        rows = self.slurm.door.fetch_table(
            *("sacctmgr", "--parsable2", "show", "assoc", "woplimits", f"cluster={CLUSTER}"),
            "format=Account,User,GrpTRESMins",
        )
        return {row["Account"]: row["GrpTRESMins"] for row in rows if not row["User"]}


def write_budget(root: Path, budget: dict[str, Any] | None) -> None:
    data = yaml.safe_load((ROOT / ENVIRONMENT).read_text())
    data["budgets"] = {"monthly_usd": 1200, "notify": ["ada@example.gov"]}
    data["budgets"]["clusters"] = {} if budget is None else {CLUSTER: budget}
    (root / ENVIRONMENT).write_text(yaml.safe_dump(data, sort_keys=False))


def write_site(root: Path) -> LimitPlan:
    """Write a repository whose cluster has the settings that its limits need."""
    for name in ("ami", ".venv-pcluster", "cdk.json"):
        (root / name).symlink_to(ROOT / name)
    for name in ("environments", "cluster_configs"):
        (root / name).mkdir()
    for path in (ROOT / "cluster_configs").glob("*.yaml"):
        (root / "cluster_configs" / path.name).write_text(path.read_text())
    write_budget(root, BUDGET)
    config = root / "cluster_configs" / "eco.yaml"
    data = yaml.safe_load(config.read_text())
    scheduling = data["Scheduling"]
    scheduling["SlurmSettings"]["EnableMemoryBasedScheduling"] = True
    queues = scheduling["SlurmQueues"]
    whole = yaml.safe_load(yaml.safe_dump(queues[0]))
    queues.append({**whole, "Name": "whole", "JobExclusiveAllocation": True})
    for queue in queues:
        # Static nodes: they run jobs at once.
        queue["ComputeResources"][0]["MinCount"] = 2 if queue["Name"] == "eco" else 1
    config.write_text(yaml.safe_dump(data, sort_keys=False))
    plan = make_plan(root)
    needed = fragment(plan)["Scheduling"]
    scheduling["SlurmSettings"] |= needed["SlurmSettings"]
    scheduling["SlurmSettings"]["Database"] = {"Uri": "db:3306", "UserName": "slurm"}
    for queue, more in zip(queues, needed["SlurmQueues"], strict=True):
        queue |= more
    config.write_text(yaml.safe_dump(data, sort_keys=False))
    return plan


def make_plan(root: Path) -> LimitPlan:
    cluster = compose_repository(root, [CLUSTER])[CLUSTER]
    plan = load_plan(root, cluster, load_prices("us-west-2"))
    assert plan is not None
    return plan


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("site")
    write_site(root)
    cluster = compose_repository(root, [CLUSTER])[CLUSTER]
    options = Options(boot_seconds=0, idle_seconds=600)
    with SlurmCluster.start(cluster, root / "state", options) as slurm:
        found = Site(root, slurm)
        assert found.limits("apply") == 0
        for user, account in (("daemon", "rivers"), ("bin", "lakes"), ("games", "open")):
            slurm.door.change_accounting("add", "user", user, f"account={account}")
        yield found


def test_a_second_run_changes_nothing(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.limits("apply", "--format", "json") == 0
    told = capsys.readouterr()
    assert json.loads(told.out) == []
    assert "nothing to change" in told.err
    assert "NOT ENFORCED" not in told.err


def test_the_configuration_has_all_that_is_needed(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert site.limits("check", "--format", "json") == 0
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize(
    ("options", "nodes"),
    [
        (["--partition=eco", "--ntasks=1"], Decimal(1) / 8),
        (["--partition=eco", "--ntasks=3"], Decimal(3) / 8),
        (["--partition=spot", "--ntasks=8"], Decimal(1)),
        (["--partition=eco", "--nodes=2", "--ntasks=16"], Decimal(2)),
        # More of the memory than of the CPUs: the memory counts.
        (["--partition=eco", "--ntasks=1", "--mem=20000"], Decimal(20000) / NODE_MIB),
        # The whole node, whatever the job asks for.
        (["--partition=whole", "--ntasks=1"], Decimal(1)),
    ],
)
def test_a_job_bills_what_its_share_of_the_nodes_costs(
    site: Site, options: list[str], nodes: Decimal
) -> None:
    job = site.submit(*options, "--time=2", user="games", script="true")
    wait_for_job(site.slurm, job)
    [row] = site.slurm.door.fetch_table(
        "sacct", "-X", "--parsable2", "--jobs", job, "--format=AllocTRES"
    )
    billing = Decimal(dict(part.split("=") for part in row["AllocTRES"].split(","))["billing"])
    cost = nodes * NODE_USD * 1_000_000
    assert abs(billing - cost) / cost < Decimal("0.001")


def test_a_job_above_the_budget_of_its_account_is_refused_at_submit(site: Site) -> None:
    # 0.05 USD are 61 minutes of a CPU.
    with pytest.raises(SlurmError, match="AssocGrpBillingMinutes"):
        site.submit("--partition=eco", "--time=70")


def test_a_job_above_what_is_left_waits_until_there_is_enough(site: Site) -> None:
    first = site.submit("--partition=eco", "--time=40", script="sleep 300")
    wait_for("the first job to run", lambda: state_of(site, first) == "RUNNING")
    waiting = [
        site.submit(f"--partition={partition}", "--time=30") for partition in ("eco", "spot")
    ]
    for job in waiting:
        wait_for_reason(site, job, "AssocGrpBillingMinutes")
    # Not another account's users.
    other = site.submit("--partition=eco", "--time=30", user="games", script="true")
    wait_for_job(site.slurm, other)
    site.slurm.door.cancel(first)
    for job in waiting:
        wait_for_job(site.slurm, job)


def state_of(site: Site, job: str) -> str:
    return next((found.state for found in site.slurm.door.fetch_queue("--jobs", job)), "")


def wait_for_reason(site: Site, job: str, reason: str) -> None:
    def is_so() -> bool:
        return [found.reason for found in site.slurm.door.fetch_queue("--jobs", job)] == [reason]

    wait_for(f"job {job} {reason}", is_so)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--account=open"], "Invalid account"),
        (["--account=root"], "Invalid account"),
        (["--qos=normal"], "Invalid qos"),
        (["--time=73:00:00"], "QOSMaxWallDurationPerJobLimit"),
    ],
)
def test_a_user_cannot_go_round_the_limits(site: Site, options: list[str], reason: str) -> None:
    with pytest.raises(SlurmError, match=reason):
        site.submit("--partition=eco", "--time=1", *options)


def test_a_user_who_is_in_no_account_may_not_submit(site: Site) -> None:
    with pytest.raises(SlurmError, match="Invalid account"):
        site.submit("--partition=eco", "--time=1", user="sys")


def test_an_array_of_a_run_away_is_refused_at_submit(site: Site) -> None:
    with pytest.raises(SlurmError, match="Invalid job array specification"):
        site.submit("--time=1", "--array=0-184999", user="games")
    with pytest.raises(SlurmError, match="QOSMaxSubmitJobPerUserLimit"):
        site.submit("--time=1", "--array=0-999", user="games")
    assert site.slurm.door.fetch_queue("--user=games") == []


def test_a_loop_that_submits_without_end_is_refused_at_submit(site: Site) -> None:
    accepted, refusals = 0, set()
    for _ in range(MOST_JOBS + 20):
        try:
            # Jobs that do nothing, and wait for their turn.
            site.submit("--time=1", "--begin=now+1hour", user="games", script="true")
            accepted += 1
        except SlurmError as error:
            refusals.add(str(error).splitlines()[0].rpartition(": ")[2])
    assert (accepted, refusals) == (MOST_JOBS, {"QOSMaxSubmitJobPerUserLimit"})
    # Nor in another partition.
    with pytest.raises(SlurmError, match="QOSMaxSubmitJobPerUserLimit"):
        site.submit("--time=1", "--partition=whole", user="games")
    site.slurm.door.run("scancel", "--user=games")
    wait_for("an empty queue", lambda: not site.slurm.door.fetch_queue("--user=games"))


def test_an_account_has_a_limit_of_jobs_of_its_own(site: Site) -> None:
    with pytest.raises(SlurmError, match="AssocGrpSubmitJobsLimit"):
        site.submit("--time=1", "--array=1-4", user="bin")


def test_a_smaller_budget_of_the_cluster_is_enforced(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    # 28 hours of a node cost 10.94 USD.
    wanted = ("--partition=eco", "--nodes=1", "--ntasks=8", "--time=28:00:00")
    site.set_budget(monthly_usd=50)
    assert site.limits("apply", "--dry-run", "--format", "json") == 0
    assert [list(row.values()) for row in json.loads(capsys.readouterr().out)] == [
        ["cluster", "GrpTRESMins", "660.83 USD", "10.83 USD"],
        ["account lakes", "GrpTRESMins", "100.00 USD", "10.83 USD"],
        ["account open", "GrpTRESMins", "600.00 USD", "10.83 USD"],
    ]
    site.slurm.door.cancel(site.submit(*wanted, "--begin=now+1hour", user="games"))
    assert site.limits("apply") == 0
    try:
        with pytest.raises(SlurmError, match="AssocGrpBillingMinutes"):
            site.submit(*wanted, user="games")
        # Of a job that gets a whole node Slurm knows only when it is to start what it takes.
        job = site.submit("--partition=whole", "--time=28:00:00", user="games")
        wait_for_reason(site, job, "AssocGrpBillingMinutes")
        site.slurm.door.cancel(job)
    finally:
        site.set_budget()
        assert site.limits("apply") == 0


def test_a_limit_goes_when_the_file_no_longer_names_the_account(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.slurm.door.change_accounting("add", "account", "others")
    site.slurm.door.change_accounting(
        "modify", "account", "others", "set", "GrpTRESMins=billing=77,cpu=5"
    )
    site.slurm.door.change_accounting("modify", "account", "lakes", "set", "GrpTRESMins=cpu=6")
    site.set_budget(accounts={"rivers": {"monthly_usd": 0.05}, "open": {"monthly_usd": 600}})
    assert site.limits("apply") == 0
    assert site.own_limits() == {
        "root": "billing=39649920000",
        "rivers": "billing=3000000",
        "open": "billing=36000000000",
        # What others set stays.
        "lakes": "cpu=6",
        "others": "billing=77,cpu=5",
    }
    capsys.readouterr()
    assert site.limits("apply", "--format", "json") == 0
    assert json.loads(capsys.readouterr().out) == []
    site.set_budget()
    assert site.limits("apply") == 0


def test_the_head_nodes_script_gives_a_cluster_the_same_limits(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.set_budget(none=True)
    assert site.limits("apply") == 0
    assert site.own_limits()["root"] == ""
    assert site.own_limits()["rivers"] == ""
    site.set_budget()
    script = render_script(make_plan(site.root))
    first, second = (run_script(site, script) for _ in range(2))
    assert "account rivers: GrpTRESMins: none -> 0.05 USD" in first.stdout
    assert first.stderr == ""
    assert second.stdout == "clusterbox limits: nothing to change\n"
    capsys.readouterr()
    assert site.limits("apply", "--format", "json") == 0
    assert json.loads(capsys.readouterr().out) == []


def run_script(site: Site, script: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **site.slurm.environment}
    return subprocess.run(
        ["bash", "-s"], input=script, env=environment, capture_output=True, text=True, check=True
    )


def test_a_way_round_that_somebody_opened_is_told(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    change = site.slurm.door.change_accounting
    change("add", "qos", "free")
    change("modify", "user", "games", "set", "qos+=free")
    assert site.limits("apply") == 0
    assert "NOT ENFORCED: user games of account open may use QOS free" in capsys.readouterr().err
    change("modify", "user", "games", "set", "qos-=free")
    change("delete", "qos", "free")


def test_what_is_used_is_shown_and_goes_to_zero_in_a_new_month(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    job = site.submit("--partition=whole", "--time=10", user="games", script="sleep 3")
    wait_for_job(site.slurm, job)
    capsys.readouterr()
    uses = show(site, capsys)
    assert uses["(cluster)", None]["limit_usd"] == "660.83"
    assert uses["rivers", None]["limit_usd"] == "0.05"
    assert uses["open", None]["most_jobs"] is None
    assert uses["lakes", None]["most_jobs"] == 3
    assert used_usd(site, "open") > 0
    assert ("open", "games") in uses
    used = used_usd(site, "open")
    restart(site, days_since_reset=0)
    assert used_usd(site, "open") == used
    restart(site, days_since_reset=40)
    wait_for("the reset", lambda: used_usd(site, "open") == 0)
    assert used_usd(site, "root") == 0
    assert show(site, capsys)["open", None]["remaining_usd"] == "600.00"


def show(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> dict[tuple[str, str | None], dict[str, Any]]:
    assert site.limits("--format", "json") == 0
    return {(row["account"], row["user"]): row for row in json.loads(capsys.readouterr().out)}


def used_usd(site: Site, account: str) -> Decimal:
    [use] = [
        use for use in fetch_uses(site.slurm.door.run) if (use.account, use.user) == (account, "")
    ]
    return use.used_usd


def restart(site: Site, *, days_since_reset: int) -> None:
    """Restart slurmctld with a state that was reset some days ago; a month ends within 40."""
    folder = site.slurm.folder
    [pid] = [p for p in site.slurm.pids() if Path(f"/proc/{p}/comm").read_text() == "slurmctld\n"]
    environment = dict(
        item.split("=", 1)
        for item in Path(f"/proc/{pid}/environ").read_text().split("\0")
        if "=" in item
    )
    site.slurm.door.run("scontrol", "shutdown", "slurmctld")
    wait_for("the end of slurmctld", lambda: not Path(f"/proc/{pid}").exists() or is_zombie(pid))
    times = folder / "state" / "priority_last_decay_ran"
    now = int(time.time())
    reset = now - days_since_reset * 86_400
    # Two times of Slurm's own format: of the last calculation, and of the last reset.
    times.write_bytes(struct.pack(">qq", now, reset))
    subprocess.Popen(
        ["slurmctld", "-D"], env=environment, start_new_session=True, stderr=subprocess.DEVNULL
    )
    wait_for("slurmctld", site.slurm.door.is_up)


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True
