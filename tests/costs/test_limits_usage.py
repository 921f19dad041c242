"""Reading who uses the limits."""

from __future__ import annotations

from decimal import Decimal

from clusterbox.costs.limits_usage import order_uses, parse_uses


def association(account: str, user: str, mins: str, run: str, jobs: str, most: str = "") -> str:
    # Slurm 22.05, one line.
    return (
        f"ClusterName=tiny Account={account} UserName={user} Partition= Priority=0 ID=1 "
        f"UsageRaw/Norm/Efctv=0.00/1.00/1.00 GrpJobs=N(0) GrpSubmitJobs={jobs} GrpWall=N(0.00) "
        f"GrpTRESMins=cpu=N(5),billing={mins},fs/disk=N(0) "
        f"GrpTRESRunMins=cpu=N(0),billing={run} MaxJobs= MaxSubmitJobs={most} MaxWallPJ=4320"
    )


def test_limits_and_uses_are_read_in_usd() -> None:
    text = "\n".join(
        [
            "Association Records",
            association("root", "", "600000000(90000000)", "N(60000000)", "N(3)"),
            association("rivers", "", "120000000(60000000)", "N(90000000)", "5(3)"),
            association("rivers", "bea(2)", "N(0)", "N(0)", "N(0)", "40(0)"),
            association("rivers", "ada(1)", "N(60000000)", "N(0)", "N(3)", "40(3)"),
            association("empty", "", "N(0)", "N(0)", "N(0)"),
        ]
    )
    cluster, rivers, ada = order_uses(parse_uses(text))
    assert (cluster.account, cluster.user, cluster.limit_usd) == ("root", "", Decimal(10))
    assert cluster.remaining_usd == Decimal("7.5")
    assert (rivers.used_usd, rivers.reserved_usd) == (Decimal(1), Decimal("1.5"))
    # Not less than nothing.
    assert (rivers.remaining_usd, rivers.jobs, rivers.most_jobs) == (Decimal(0), 3, 5)
    assert (ada.user, ada.limit_usd, ada.remaining_usd) == ("ada", None, None)
    assert (ada.used_usd, ada.most_jobs) == (Decimal(1), 40)


def test_one_users_use_of_two_partitions_is_one() -> None:
    text = "\n".join(
        [association("root", "", "N(3)", "N(0)", "N(0)")]
        + [association("root", "ada(1)", "N(30000000)", "N(0)", "N(1)")] * 2
    )
    [_, ada] = order_uses(parse_uses(text))
    assert (ada.used_usd, ada.jobs) == (Decimal(1), 2)
