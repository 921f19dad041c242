"""Who has used how much of a cluster's limits, as slurmctld counts it now."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from clusterbox.costs.limits import MINUTES_PER_USD
from clusterbox.costs.limits_apply import Run
from clusterbox.slurm import parse_key_values

# `limit(used)`; N is no limit.
_PAIR = re.compile(r"(N|\d*)\((\d+)\)")


@dataclass(frozen=True)
class Use:
    """What one account, or one user in it, may use and has used since the first of the month.

    USD of `used` are up to PriorityCalcPeriod (5 minutes) old for jobs that run; `reserved` is what
    they may still use until their time limits. `limit_usd` and `most_jobs` are None without a limit
    of their own. The whole cluster is the account `root`; `user` is empty for an account.
    """

    account: str
    user: str
    limit_usd: Decimal | None
    used_usd: Decimal
    reserved_usd: Decimal
    jobs: int
    most_jobs: int | None

    @property
    def remaining_usd(self) -> Decimal | None:
        """What jobs that are not running yet may still use; None without a limit."""
        if self.limit_usd is None:
            return None
        return max(self.limit_usd - self.used_usd - self.reserved_usd, Decimal(0))


def fetch_uses(run: Run) -> list[Use]:
    """Return the cluster first, then each account with its users."""
    return order_uses(parse_uses(run("scontrol", "show", "assoc_mgr", "flags=assoc", "--oneliner")))


def parse_uses(text: str) -> list[Use]:
    """Return the associations of `scontrol show assoc_mgr flags=assoc --oneliner`."""
    return [
        _use(parse_key_values(line))
        for line in text.splitlines()
        if line.startswith("ClusterName=")
    ]


def order_uses(uses: Sequence[Use]) -> list[Use]:
    """Return the uses of the cluster, then of accounts by name with those of most use first.

    Users without any use or job are left out, and so are accounts that have no limit either. One
    user's use of several partitions is one.
    """
    users: dict[tuple[str, str], Use] = {}
    for use in uses:
        if use.user:
            key = (use.account, use.user)
            users[key] = _add(users[key], use) if key in users else use
    accounts = sorted(
        (use for use in uses if not use.user),
        key=lambda use: (use.account != "root", use.account),
    )
    ordered = []
    for account in accounts:
        members = [
            use for use in users.values() if use.account == account.account and _is_used(use)
        ]
        members.sort(key=lambda use: (-use.used_usd, -use.reserved_usd, use.user))
        if account.account == "root" or account.limit_usd is not None or _is_used(account):
            ordered += [account, *members]
    return ordered


def _add(one: Use, other: Use) -> Use:
    return Use(
        one.account,
        one.user,
        one.limit_usd,
        one.used_usd + other.used_usd,
        one.reserved_usd + other.reserved_usd,
        one.jobs + other.jobs,
        one.most_jobs,
    )


def _is_used(use: Use) -> bool:
    return bool(use.used_usd or use.reserved_usd or use.jobs)


def _use(record: dict[str, str]) -> Use:
    limit, used = _billing(record["GrpTRESMins"])
    _, reserved = _billing(record["GrpTRESRunMins"])
    most, jobs = _pair(record["GrpSubmitJobs"])
    user = record["UserName"].partition("(")[0]
    if user:
        most, _ = _pair(record["MaxSubmitJobs"])
    return Use(
        account=record["Account"],
        user=user,
        limit_usd=None if limit is None else _usd(limit),
        used_usd=_usd(used or 0),
        reserved_usd=_usd(reserved or 0),
        jobs=jobs or 0,
        most_jobs=most,
    )


def _billing(text: str) -> tuple[int | None, int | None]:
    found = re.search(r"(?:^|,)billing=([^,]*)", text)
    return _pair(found[1]) if found else (None, None)


def _pair(text: str) -> tuple[int | None, int | None]:
    found = _PAIR.fullmatch(text)
    if found is None:
        return None, None
    return (int(found[1]) if found[1].isdigit() else None), int(found[2])


def _usd(minutes: int) -> Decimal:
    return Decimal(minutes) / MINUTES_PER_USD
